// The block formats of weights, as a kernel wants them: codes as signed bytes, 16 columns at a time, and a scale, and a number that
// is added, for each stretch of columns that share them. The layouts are those of ggml-common.h.
#pragma once

#include <immintrin.h>

#include <cstring>
#include <type_traits>

namespace prompt {

// ggml's GGML_CPU_FP16_TO_FP32 would look halves up in a table of 256 KiB.
inline float to_float(ggml_half half) { return GGML_CPU_COMPUTE_FP16_TO_FP32(half); }

inline __m128i load(const void * bytes) { return _mm_loadu_si128(static_cast<const __m128i *>(bytes)); }
inline __m128i all(int byte) { return _mm_set1_epi8(static_cast<char>(byte)); }

// The `bits` bits of each byte from `first` on.
inline __m128i field(__m128i bytes, int first, int bits) {
    return _mm_and_si128(_mm_srl_epi16(bytes, _mm_cvtsi32_si128(first)), all((1 << bits) - 1));
}

// `to` where bit `bit` of a byte is set.
inline __m128i where_set(__m128i bytes, int bit, int to) {
    const __m128i mask = all(1 << bit);
    return _mm_and_si128(_mm_cmpeq_epi8(_mm_and_si128(bytes, mask), mask), all(to));
}

// `to` where the bit of a column is set.
inline __m128i where_set(uint16_t bits, int to) {
    const __m128i bytes = _mm_shuffle_epi8(_mm_cvtsi32_si128(bits), _mm_set_epi64x(0x0101010101010101, 0));
    const __m128i one_each = _mm_set1_epi64x(static_cast<long long>(0x8040201008040201));
    return _mm_and_si128(_mm_cmpeq_epi8(_mm_and_si128(bytes, one_each), one_each), all(to));
}

template <typename Weights> struct Format;

// One scale for a block of 32, in Q8_0 and what has a byte for columns i and i + 16.
template <typename Weights, bool HAS_MINIMUM> struct Block32 {
    using Activations = std::conditional_t<HAS_MINIMUM, block_q8_1, block_q8_0>;
    static constexpr int COLUMNS = 32;
    static constexpr bool MINIMUM = HAS_MINIMUM;

    static void scales(const Weights & block, float * scales, float * minima) {
        *scales = to_float(block.d);
        if constexpr (HAS_MINIMUM) {
            *minima = to_float(block.m);
        }
    }
    static __m128i nibbles(const Weights & block, int part) { return field(load(block.qs), 4 * part, 4); }
    static __m128i fifth_bits(const Weights & block, int part) {
        uint16_t bits;
        memcpy(&bits, block.qh + 2 * part, sizeof(bits));
        return where_set(bits, 16);
    }
};

template <> struct Format<block_q8_0> : Block32<block_q8_0, false> {
    static __m128i codes(const block_q8_0 & block, int part) { return load(block.qs + 16 * part); }
};
template <> struct Format<block_q4_0> : Block32<block_q4_0, false> {
    static __m128i codes(const block_q4_0 & block, int part) { return _mm_sub_epi8(nibbles(block, part), all(8)); }
};
template <> struct Format<block_q4_1> : Block32<block_q4_1, true> {
    static __m128i codes(const block_q4_1 & block, int part) { return nibbles(block, part); }
};
template <> struct Format<block_q5_0> : Block32<block_q5_0, false> {
    static __m128i codes(const block_q5_0 & block, int part) {
        return _mm_sub_epi8(_mm_or_si128(nibbles(block, part), fifth_bits(block, part)), all(16));
    }
};
template <> struct Format<block_q5_1> : Block32<block_q5_1, true> {
    static __m128i codes(const block_q5_1 & block, int part) {
        return _mm_or_si128(nibbles(block, part), fifth_bits(block, part));
    }
};
template <> struct Format<block_iq4_nl> : Block32<block_iq4_nl, false> {
    static __m128i codes(const block_iq4_nl & block, int part) {
        return _mm_shuffle_epi8(load(kvalues_iq4nl), nibbles(block, part));
    }
};

// Blocks of 256, whose scales are integers times one float.
template <int SHARED, bool HAS_MINIMUM> struct Block256 {
    using Activations = block_q8_K;
    static constexpr int COLUMNS = SHARED;
    static constexpr bool MINIMUM = HAS_MINIMUM;
};

// Q2_K, Q3_K and Q6_K: part 2 k + i of a half has bits 2 k and 2 k + 1 of bytes 16 i to 16 i + 15 of those of the half.
inline __m128i two_bits(const uint8_t * bytes, int part) {
    return field(load(bytes + part / 8 * 32 + part % 2 * 16), part % 8 / 2 * 2, 2);
}

template <> struct Format<block_q2_K> : Block256<16, true> {
    static void scales(const block_q2_K & block, float * scales, float * minima) {
        const float scale = to_float(block.d), minimum = to_float(block.dmin);
        for (int i = 0; i < 16; ++i) {
            scales[i] = scale * static_cast<float>(block.scales[i] & 15);
            minima[i] = -minimum * static_cast<float>(block.scales[i] >> 4);
        }
    }
    static __m128i codes(const block_q2_K & block, int part) { return two_bits(block.qs, part); }
};

template <> struct Format<block_q3_K> : Block256<16, false> {
    // Of 16 scales the low four bits, of which bytes 0 to 7 have two each, and then the high two, of which bytes 8 to 11 have four.
    static void scales(const block_q3_K & block, float * scales, float *) {
        const float scale = to_float(block.d);
        for (int i = 0; i < 16; ++i) {
            const int low = block.scales[i % 8] >> (i / 8 * 4) & 15, high = block.scales[8 + i % 4] >> (i / 4 * 2) & 3;
            scales[i] = scale * static_cast<float>((low | high << 4) - 32);
        }
    }
    // A third bit that is not set takes four away.
    static __m128i codes(const block_q3_K & block, int part) {
        const __m128i third = where_set(load(block.hmask + part % 2 * 16), part / 2, 4);
        return _mm_sub_epi8(_mm_or_si128(two_bits(block.qs, part), third), all(4));
    }
};

template <> struct Format<block_q6_K> : Block256<16, false> {
    static void scales(const block_q6_K & block, float * scales, float *) {
        const float scale = to_float(block.d);
        for (int i = 0; i < 16; ++i) {
            scales[i] = scale * static_cast<float>(block.scales[i]);
        }
    }
    static __m128i codes(const block_q6_K & block, int part) {
        const uint8_t * low = block.ql + part / 8 * 64 + part % 4 * 16;
        const __m128i four = field(load(low), part % 8 / 4 * 4, 4);
        return _mm_sub_epi8(_mm_or_si128(four, _mm_slli_epi16(two_bits(block.qh, part), 4)), all(32));
    }
};

// Q4_K and Q5_K: eight scales and minima of six bits each in twelve bytes.
struct SixBits {
    int scale, minimum;
};
inline SixBits six_bits(const uint8_t * packed, int i) {
    if (i < 4) {
        return {packed[i] & 63, packed[i + 4] & 63};
    }
    return {(packed[i + 4] & 15) | packed[i - 4] >> 6 << 4, packed[i + 4] >> 4 | packed[i] >> 6 << 4};
}

template <typename Weights> struct SixBitScales : Block256<32, true> {
    static void scales(const Weights & block, float * scales, float * minima) {
        const float scale = to_float(block.d), minimum = to_float(block.dmin);
        for (int i = 0; i < 8; ++i) {
            const SixBits both = six_bits(block.scales, i);
            scales[i] = scale * static_cast<float>(both.scale);
            minima[i] = -minimum * static_cast<float>(both.minimum);
        }
    }
    // 32 bytes have 64 columns: the low halves 32, and then the high ones.
    static __m128i nibbles(const Weights & block, int part) {
        return field(load(block.qs + part / 4 * 32 + part % 2 * 16), part % 4 / 2 * 4, 4);
    }
};

template <> struct Format<block_q4_K> : SixBitScales<block_q4_K> {
    static __m128i codes(const block_q4_K & block, int part) { return nibbles(block, part); }
};
template <> struct Format<block_q5_K> : SixBitScales<block_q5_K> {
    static __m128i codes(const block_q5_K & block, int part) {
        return _mm_or_si128(nibbles(block, part), where_set(load(block.qh + part % 2 * 16), part / 2, 16));
    }
};

template <> struct Format<block_iq4_xs> : Block256<32, false> {
    static void scales(const block_iq4_xs & block, float * scales, float *) {
        const float scale = to_float(block.d);
        for (int i = 0; i < 8; ++i) {
            const int low = block.scales_l[i / 2] >> (i % 2 * 4) & 15, high = block.scales_h >> (2 * i) & 3;
            scales[i] = scale * static_cast<float>((low | high << 4) - 32);
        }
    }
    static __m128i codes(const block_iq4_xs & block, int part) {
        return _mm_shuffle_epi8(load(kvalues_iq4nl), field(load(block.qs + part / 2 * 16), part % 2 * 4, 4));
    }
};

// What a block of activations is multiplied with, and its sum.
inline float scale_of(const block_q8_0 & block) { return to_float(block.d); }
inline float scale_of(const block_q8_1 & block) { return to_float(block.d); }
inline float scale_of(const block_q8_K & block) { return block.d; }
inline float sum_of(const block_q8_1 & block) { return to_float(block.s); }
// Of `count` sixteens of columns, before they are multiplied with the scale.
inline float sum_of(const block_q8_K & block, int first, int count) {
    int sum = 0;
    for (int i = 0; i < count; ++i) {
        sum += block.bsums[first + i];
    }
    return static_cast<float>(sum);
}

} // namespace prompt
