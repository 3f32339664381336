// The forms that ggml's repack.cpp makes of some formats: blocks of eight rows in one, eight bytes of each row in turn.
#pragma once

#include "formats.h"
#include "repack.h"

namespace prompt {

// A row's block within one of eight.
template <typename Eight> struct RowOf {
    const Eight & eight;
    int64_t row;

    // 16 bytes of the row's codes, from byte `first` on.
    __m128i sixteen(int first) const {
        int64_t halves[2];
        const auto * bytes = reinterpret_cast<const uint8_t *>(eight.qs) + first * 8 + row * 8;
        memcpy(&halves[0], bytes, 8);
        memcpy(&halves[1], bytes + 64, 8);
        return _mm_set_epi64x(halves[1], halves[0]);
    }
};

template <typename Eight> struct RepackedBlock32 {
    using Activations = block_q8_0;
    static constexpr int COLUMNS = 32;
    static constexpr bool MINIMUM = false;

    static void scales(const RowOf<Eight> & block, float * scales, float *) { *scales = to_float(block.eight.d[block.row]); }
    static __m128i nibbles(const RowOf<Eight> & block, int part) { return field(block.sixteen(0), 4 * part, 4); }
};

// Codes less eight, as nibbles with a sign.
template <> struct Format<RowOf<block_q4_0x8>> : RepackedBlock32<block_q4_0x8> {
    static __m128i codes(const RowOf<block_q4_0x8> & block, int part) {
        return _mm_sub_epi8(_mm_xor_si128(nibbles(block, part), all(8)), all(8));
    }
};
template <> struct Format<RowOf<block_iq4_nlx8>> : RepackedBlock32<block_iq4_nlx8> {
    static __m128i codes(const RowOf<block_iq4_nlx8> & block, int part) {
        return _mm_shuffle_epi8(load(kvalues_iq4nl), nibbles(block, part));
    }
};

// Twelve bytes have the scales and minima of eight rows, for each 32 columns.
template <> struct Format<RowOf<block_q4_Kx8>> : Block256<32, true> {
    static void scales(const RowOf<block_q4_Kx8> & block, float * scales, float * minima) {
        const float scale = to_float(block.eight.d[block.row]), minimum = to_float(block.eight.dmin[block.row]);
        for (int i = 0; i < 8; ++i) {
            const SixBits both = six_bits(block.eight.scales + 12 * i, static_cast<int>(block.row));
            scales[i] = scale * static_cast<float>(both.scale);
            minima[i] = -minimum * static_cast<float>(both.minimum);
        }
    }
    static __m128i codes(const RowOf<block_q4_Kx8> & block, int part) {
        return field(block.sixteen(part / 4 * 32 + part % 2 * 16), part % 4 / 2 * 4, 4);
    }
};

} // namespace prompt
