// Weights of Q6_K: the output matrix of many ternary models, which is half of what a token reads.
//
// A block of 256 weights of a row has a scale d; each 16 of them, a stretch, have a scale of 8 bits more. A weight is
// d * scale * (code - 32), its code 0 to 63. Activations have a scale for each block, as ggml's own products with Q6_K do.
//
// A panel of ROWS rows is a list of blocks, each with
//   ROWS floats: d
//   16 stretches, each of ROWS bytes: the scales; and for each group of COUNT rows three vectors: the low four bits of
//   columns 0 to 7, then of 8 to 15, then the high two bits of all. As in matrix.h each dword of a vector belongs to a row.
//   Columns 0 to 3 are the low nibbles of the first vector, 4 to 7 its high nibbles, and so on; of the third vector,
//   bits 2*p and 2*p+1 belong to columns 4*p to 4*p+3.
#pragma once

#include "activations.h"
#include "matrix.h"

#include "ggml-common.h"
#include "ggml-impl.h"

namespace ternary {

constexpr int64_t SIX_BIT_BLOCK = QK_K;
constexpr int64_t STRETCH = 16;
constexpr int64_t STRETCHES = SIX_BIT_BLOCK / STRETCH;
constexpr size_t STRETCH_BYTES = ROWS + ROWS * 12;
constexpr size_t SIX_BIT_PANEL_BYTES = ROWS * sizeof(float) + STRETCHES * STRETCH_BYTES;

struct SixBitMatrix {
    const uint8_t * packed;
    int64_t rows;
    int64_t columns;
};

inline size_t six_bit_size(int64_t rows, int64_t columns) {
    return static_cast<size_t>(panels(rows) * (columns / SIX_BIT_BLOCK)) * SIX_BIT_PANEL_BYTES;
}

// The codes of a stored block, in the order of the columns.
inline void unpack_six_bit(const block_q6_K & block, uint8_t * codes) {
    for (int half = 0; half < 2; ++half) {
        const uint8_t *low = block.ql + 64 * half, *high = block.qh + 32 * half;
        for (int quarter = 0; quarter < 4; ++quarter) {
            for (int i = 0; i < 32; ++i) {
                const int nibble = low[i + quarter % 2 * 32] >> (quarter / 2 * 4) & 15;
                *codes++ = static_cast<uint8_t>(nibble | (high[i] >> (2 * quarter) & 3) << 4);
            }
        }
    }
}

// Puts one row into its place.
inline void pack_six_bit_row(const block_q6_K * stored, int64_t row, int64_t columns, uint8_t * packed) {
    const int64_t blocks = columns / SIX_BIT_BLOCK, within = row % ROWS;
    const int64_t group = within / Lanes::COUNT, lane = within % Lanes::COUNT;
    for (int64_t b = 0; b < blocks; ++b) {
        uint8_t * to = packed + static_cast<size_t>(row / ROWS * blocks + b) * SIX_BIT_PANEL_BYTES;
        const float d = ggml_fp16_to_fp32(stored[b].d);
        memcpy(to + within * sizeof(float), &d, sizeof(d));
        to += ROWS * sizeof(float);
        uint8_t codes[SIX_BIT_BLOCK];
        unpack_six_bit(stored[b], codes);
        for (int64_t s = 0; s < STRETCHES; ++s, to += STRETCH_BYTES) {
            to[within] = static_cast<uint8_t>(stored[b].scales[s]);
            uint8_t * vectors = to + ROWS + group * 3 * Lanes::COUNT * 4 + lane * 4;
            for (int c = 0; c < 4; ++c) {
                const uint8_t * column = codes + s * STRETCH + c;
                const uint8_t four[] = {column[0], column[4], column[8], column[12]};
                vectors[c] = static_cast<uint8_t>((four[0] & 15) | (four[1] & 15) << 4);
                vectors[Lanes::COUNT * 4 + c] = static_cast<uint8_t>((four[2] & 15) | (four[3] & 15) << 4);
                vectors[Lanes::COUNT * 8 + c] =
                    static_cast<uint8_t>(four[0] >> 4 | four[1] >> 4 << 2 | four[2] >> 4 << 4 | four[3] >> 4 << 6);
            }
        }
    }
}

// Quantises a row: a scale for each block, a sum for each stretch.
inline void quantize_blocks(const Row & row, int64_t columns, float floor, int8_t * to, Layout layout, float * scales,
                            int32_t * sums) {
    for (int64_t begin = 0; begin < columns; begin += SIX_BIT_BLOCK) {
        const float largest = row.largest(begin, begin + SIX_BIT_BLOCK);
        const float bound = largest > floor ? largest : floor;
        *scales++ = bound / 127.0f;
        for (int64_t stretch = begin; stretch < begin + SIX_BIT_BLOCK; stretch += STRETCH) {
            *sums++ = quantize_columns(row, stretch, stretch + STRETCH, 127.0f / bound, to, layout);
        }
    }
}

// Writes ROWS products for each of T tokens, the first of which begins a tile.
template <int T>
void multiply_six_bit_tile(const SixBitMatrix & matrix, int64_t panel, const Activations & activations, int64_t token,
                           float * products) {
    constexpr int G = Lanes::GROUPS;
    constexpr int AHEAD = 4096;
    // How many of the four multiply-adds of a stretch a Partial takes.
    constexpr int RUN = Lanes::limit(63) >= 4 ? 4 : 2;
    const int64_t blocks = matrix.columns / SIX_BIT_BLOCK;
    const uint8_t * packed = matrix.packed + static_cast<size_t>(panel * blocks) * SIX_BIT_PANEL_BYTES;
    const int8_t * bytes = activations.bytes + token * matrix.columns;
    const Lanes::Bytes low = Lanes::broadcast(uint8_t{0x0f}), high = Lanes::broadcast(uint8_t{0x30});
    Lanes::Floats results[G * T];
    GL_UNROLL
    for (int i = 0; i < G * T; ++i) {
        results[i] = Lanes::floats(0.0f);
    }
    for (int64_t b = 0; b < blocks; ++b) {
        const float * d = reinterpret_cast<const float *>(packed);
        packed += ROWS * sizeof(float);
        Lanes::Ints sums[G * T];
        GL_UNROLL
        for (int i = 0; i < G * T; ++i) {
            sums[i] = Lanes::ints(0);
        }
        for (int64_t s = 0; s < STRETCHES; ++s) {
            prefetch_lines<STRETCH_BYTES>(packed + AHEAD);
            GL_UNROLL
            for (int g = 0; g < G; ++g) {
                const uint8_t * vectors = packed + ROWS + g * 3 * Lanes::COUNT * 4;
                const Lanes::Bytes first = Lanes::load(vectors), second = Lanes::load(vectors + Lanes::COUNT * 4);
                const Lanes::Bytes top = Lanes::load(vectors + Lanes::COUNT * 8);
                const auto code = [&](Lanes::Bytes nibbles, Lanes::Bytes bits) GL_INLINE_LAMBDA {
                    return Lanes::merged(Lanes::masked(nibbles, low), Lanes::masked(bits, high));
                };
                const Lanes::Bytes weights[4] = {
                    code(first, Lanes::template left<4>(top)),
                    code(Lanes::template right<4>(first), Lanes::template left<2>(top)),
                    code(second, top),
                    code(Lanes::template right<4>(second), Lanes::template right<2>(top)),
                };
                const Lanes::Ints scale =
                    Lanes::widen(reinterpret_cast<const int8_t *>(packed + g * Lanes::COUNT));
                GL_UNROLL
                for (int t = 0; t < T; ++t) {
                    const int64_t stretch = (token + t) * blocks * STRETCHES + b * STRETCHES + s;
                    Lanes::Ints sum = Lanes::ints(-32 * activations.sums[stretch]);
                    GL_UNROLL
                    for (int p = 0; p < 4; p += RUN) {
                        Lanes::Partial partial = Lanes::zero();
                        GL_UNROLL
                        for (int q = p; q < p + RUN; ++q) {
                            const int8_t * four = bytes + (q * activations.layout.tile + t) * 4;
                            partial = Lanes::multiply_add(partial, weights[q], Lanes::broadcast(four));
                        }
                        sum = Lanes::add(sum, Lanes::sum(partial));
                    }
                    sums[g * T + t] = Lanes::add(sums[g * T + t], Lanes::multiply(sum, scale));
                }
            }
            packed += STRETCH_BYTES;
            bytes += STRETCH * activations.layout.tile;
        }
        GL_UNROLL
        for (int t = 0; t < T; ++t) {
            const Lanes::Floats scale = Lanes::floats(activations.scales[(token + t) * blocks + b]);
            GL_UNROLL
            for (int g = 0; g < G; ++g) {
                const Lanes::Floats of_row = Lanes::multiply(scale, Lanes::load(d + g * Lanes::COUNT));
                results[g * T + t] =
                    Lanes::add(results[g * T + t], Lanes::multiply(Lanes::convert(sums[g * T + t]), of_row));
            }
        }
    }
    for (int t = 0; t < T; ++t) {
        for (int g = 0; g < G; ++g) {
            Lanes::store(products + t * ROWS + g * Lanes::COUNT, results[g * T + t]);
        }
    }
}

using MultiplySixBitTile = void (*)(const SixBitMatrix &, int64_t, const Activations &, int64_t, float *);

// The function for `tokens` of a tile, 1 to TILE.
template <int T = Lanes::TILE> MultiplySixBitTile multiply_six_bit_tile_of(int tokens) {
    if constexpr (T > 1) {
        return tokens == T ? multiply_six_bit_tile<T> : multiply_six_bit_tile_of<T - 1>(tokens);
    }
    return multiply_six_bit_tile<1>;
}

} // namespace ternary
