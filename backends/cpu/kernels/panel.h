// Products of quantised weights with many tokens at once.
//
// ggml multiplies most block formats row by row, or with 256 bits. Here ROWS rows at a time, a panel, are taken apart: their
// codes become bytes, four columns of each row side by side, as VNNI multiplies them; and that panel serves all tokens. Nothing is
// kept: a model's weights stay in the form that suits the tokens that come one by one.
//
// The first operand of a VNNI multiply-add is unsigned. Weights are signed here, whatever their format, and 128 is added to the
// activations, which ggml has quantised to blocks of signed bytes (Q8_0, Q8_1 or Q8_K) into memory that is this node's alone. What
// that adds to a sum is 128 times the sum of the codes that are multiplied: sums begin with less.
#pragma once

#include <algorithm>
#include <type_traits>

#include "formats.h"
#include "lanes.h"

namespace prompt {

using kernels::Lanes;

// With 128 added, activations have eight bits.
static_assert(Lanes::WIDE);

constexpr int GROUPS = 2;
constexpr int ROWS = GROUPS * Lanes::COUNT;
constexpr int TILE = Lanes::COUNT == 16 ? 6 : 3; // tokens at once, as registers allow
// Scales of a row in a panel, each of 16 or 32 columns.
constexpr int STRETCHES = 16;

// What is taken apart at a time stays in the first-level cache.
struct Panel {
    alignas(64) uint8_t codes[STRETCHES * 8][ROWS * 4];
    alignas(64) float scales[STRETCHES][ROWS];
    alignas(64) float minima[STRETCHES][ROWS];
    alignas(64) int32_t offsets[STRETCHES][ROWS];
};

// Writes 16 columns of four rows: four dwords of each, turned into one vector for each four columns.
inline void transpose(__m128i a, __m128i b, __m128i c, __m128i d, uint8_t * to) {
    const __m128i ab_low = _mm_unpacklo_epi32(a, b), ab_high = _mm_unpackhi_epi32(a, b);
    const __m128i cd_low = _mm_unpacklo_epi32(c, d), cd_high = _mm_unpackhi_epi32(c, d);
    const __m128i columns[] = {_mm_unpacklo_epi64(ab_low, cd_low), _mm_unpackhi_epi64(ab_low, cd_low),
                               _mm_unpacklo_epi64(ab_high, cd_high), _mm_unpackhi_epi64(ab_high, cd_high)};
    for (int i = 0; i < 4; ++i) {
        _mm_store_si128(reinterpret_cast<__m128i *>(to + i * ROWS * 4), columns[i]);
    }
}

// How many stretches of columns with a scale of their own a block has.
template <typename Block>
constexpr int PARTS = sizeof(Format<Block>::Activations::qs) / Format<Block>::COLUMNS;

// Takes `blocks` blocks of `rows` rows apart, from block `begin` of row `row` on. Rows that are missing have scales of zero.
template <typename Weights>
void take_apart(const Weights & weights, int64_t row, int64_t begin, int rows, int blocks, Panel & panel) {
    using Block = typename Weights::Block;
    constexpr int COLUMNS = Format<Block>::COLUMNS, P = PARTS<Block>;
    for (int b = 0; b < blocks; ++b) {
        for (int r = 0; r < ROWS; r += 4) {
            const auto block = [&](int i) -> decltype(auto) {
                return weights.block(r + i < rows ? row + r + i : row, begin + b);
            };
            for (int i = 0; i < 4; ++i) {
                float scales[P] = {}, minima[P] = {};
                if (r + i < rows) {
                    Format<Block>::scales(block(i), scales, minima);
                }
                for (int p = 0; p < P; ++p) {
                    panel.scales[b * P + p][r + i] = scales[p];
                    panel.minima[b * P + p][r + i] = minima[p];
                }
            }
            for (int sixteen = 0; sixteen < P * COLUMNS / 16; ++sixteen) {
                const auto codes = [&](int i) { return Format<Block>::codes(block(i), sixteen); };
                uint8_t * to = &panel.codes[b * P * COLUMNS / 4 + sixteen * 4][r * 4];
                transpose(codes(0), codes(1), codes(2), codes(3), to);
            }
        }
    }
    const Lanes::Bytes bias = Lanes::broadcast(uint8_t{128});
    for (int part = 0; part < blocks * P; ++part) {
        for (int g = 0; g < GROUPS; ++g) {
            Lanes::Partial sum = Lanes::zero();
            for (int four = 0; four < COLUMNS / 4; ++four) {
                const uint8_t * codes = &panel.codes[part * COLUMNS / 4 + four][g * Lanes::COUNT * 4];
                sum = Lanes::multiply_add(sum, bias, Lanes::load(codes));
            }
            Lanes::store(&panel.offsets[part][g * Lanes::COUNT], Lanes::subtract(Lanes::ints(0), Lanes::sum(sum)));
        }
    }
}

// Adds to ROWS products of each of T tokens, `stride` apart, or begins them.
template <int T, typename Block>
void multiply_tile(const Panel & panel, int blocks, const typename Format<Block>::Activations * activations,
                   int64_t activations_stride, float * products, int64_t stride, bool begin) {
    constexpr int COLUMNS = Format<Block>::COLUMNS;
    for (int b = 0; b < blocks; ++b) {
        Lanes::Floats results[T * GROUPS];
        GL_UNROLL
        for (int i = 0; i < T * GROUPS; ++i) {
            results[i] = Lanes::floats(0.0f);
        }
        for (int within = 0; within < PARTS<Block>; ++within) {
            const int part = b * PARTS<Block> + within;
            Lanes::Partial sums[T * GROUPS];
            GL_UNROLL
            for (int t = 0; t < T; ++t) {
                GL_UNROLL
                for (int g = 0; g < GROUPS; ++g) {
                    sums[t * GROUPS + g] = Lanes::load(&panel.offsets[part][g * Lanes::COUNT]);
                }
            }
            GL_UNROLL
            for (int four = 0; four < COLUMNS / 4; ++four) {
                Lanes::Bytes weights[GROUPS];
                GL_UNROLL
                for (int g = 0; g < GROUPS; ++g) {
                    weights[g] = Lanes::load(&panel.codes[part * COLUMNS / 4 + four][g * Lanes::COUNT * 4]);
                }
                GL_UNROLL
                for (int t = 0; t < T; ++t) {
                    const int8_t * bytes = activations[t * activations_stride + b].qs + within * COLUMNS;
                    const Lanes::Bytes token = Lanes::broadcast(bytes + four * 4);
                    GL_UNROLL
                    for (int g = 0; g < GROUPS; ++g) {
                        sums[t * GROUPS + g] = Lanes::multiply_add(sums[t * GROUPS + g], token, weights[g]);
                    }
                }
            }
            GL_UNROLL
            for (int t = 0; t < T; ++t) {
                GL_UNROLL
                for (int g = 0; g < GROUPS; ++g) {
                    Lanes::Floats & result = results[t * GROUPS + g];
                    const Lanes::Floats scale = Lanes::load(&panel.scales[part][g * Lanes::COUNT]);
                    result = Lanes::add(result, Lanes::multiply(Lanes::convert(Lanes::sum(sums[t * GROUPS + g])), scale));
                    if constexpr (Format<Block>::MINIMUM && PARTS<Block> > 1) {
                        const float sum = sum_of(activations[t * activations_stride + b], within * COLUMNS / 16, COLUMNS / 16);
                        const Lanes::Floats minimum = Lanes::load(&panel.minima[part][g * Lanes::COUNT]);
                        result = Lanes::add(result, Lanes::multiply(Lanes::floats(sum), minimum));
                    }
                }
            }
        }
        GL_UNROLL
        for (int t = 0; t < T; ++t) {
            const auto & block = activations[t * activations_stride + b];
            const Lanes::Floats scale = Lanes::floats(scale_of(block));
            GL_UNROLL
            for (int g = 0; g < GROUPS; ++g) {
                float * product = products + t * stride + g * Lanes::COUNT;
                Lanes::Floats total = begin && b == 0 ? Lanes::floats(0.0f) : Lanes::load(product);
                total = Lanes::add(total, Lanes::multiply(results[t * GROUPS + g], scale));
                if constexpr (Format<Block>::MINIMUM && PARTS<Block> == 1) {
                    const Lanes::Floats minimum = Lanes::load(&panel.minima[b][g * Lanes::COUNT]);
                    total = Lanes::add(total, Lanes::multiply(Lanes::floats(sum_of(block)), minimum));
                }
                Lanes::store(product, total);
            }
        }
    }
}

template <typename Block> using MultiplyTile = decltype(&multiply_tile<1, Block>);

// The function for `tokens` of a tile, 1 to TILE.
template <typename Block, int T = TILE> MultiplyTile<Block> multiply_tile_of(int64_t tokens) {
    if constexpr (T > 1) {
        return tokens == T ? multiply_tile<T, Block> : multiply_tile_of<Block, T - 1>(tokens);
    }
    return multiply_tile<1, Block>;
}

// A matrix as a file stores it.
template <typename Stored> struct Rows {
    using Block = Stored;
    const Stored * first;
    int64_t stride; // of a row, in blocks

    const Stored & block(int64_t row, int64_t b) const { return first[row * stride + b]; }
};

struct Sizes {
    int64_t rows, tokens, blocks;
    int64_t activations_stride, products_stride; // of a token: in blocks and floats
};

template <typename Activations>
void add_128(Activations * activations, const Sizes & sizes, const ggml_compute_params * params) {
    for (int64_t token = params->ith; token < sizes.tokens; token += params->nth) {
        for (int64_t b = 0; b < sizes.blocks; ++b) {
            for (int8_t & byte : activations[token * sizes.activations_stride + b].qs) {
                byte ^= -128;
            }
        }
    }
}

template <typename Weights>
void multiply(const ggml_compute_params * params, const Sizes & sizes, const Weights & weights,
              typename Format<typename Weights::Block>::Activations * activations, float * products) {
    using Block = typename Weights::Block;
    constexpr int BLOCKS = STRETCHES / PARTS<Block>; // of a row in a panel
    add_128(activations, sizes, params);
    ggml_barrier(params->threadpool);
    const int64_t panels = (sizes.rows + ROWS - 1) / ROWS;
    // Tokens are shared out, too, where there are so few panels that threads would wait for each other.
    const int64_t parts = std::clamp<int64_t>(4 * params->nth / panels, 1, std::max<int64_t>(sizes.tokens / 64, 1));
    Panel panel;
    for (int64_t item = params->ith; item < panels * parts; item += params->nth) {
        const int64_t row = item % panels * ROWS, part = item / panels;
        const int64_t first = sizes.tokens * part / parts, last = sizes.tokens * (part + 1) / parts;
        const int rows = static_cast<int>(std::min<int64_t>(ROWS, sizes.rows - row));
        for (int64_t begin = 0; begin < sizes.blocks; begin += BLOCKS) {
            const int blocks = static_cast<int>(std::min<int64_t>(BLOCKS, sizes.blocks - begin));
            take_apart(weights, row, begin, rows, blocks, panel);
            for (int64_t token = first; token < last; token += TILE) {
                const int64_t now = std::min<int64_t>(TILE, last - token);
                const auto * of_tile = activations + token * sizes.activations_stride + begin;
                float * to = products + token * sizes.products_stride + row;
                const auto function = multiply_tile_of<Block>(now);
                if (rows == ROWS) {
                    function(panel, blocks, of_tile, sizes.activations_stride, to, sizes.products_stride, begin == 0);
                    continue;
                }
                float whole[TILE * ROWS] = {};
                for (int64_t t = 0; t < now && begin > 0; ++t) {
                    std::copy_n(to + t * sizes.products_stride, rows, whole + t * ROWS);
                }
                function(panel, blocks, of_tile, sizes.activations_stride, whole, ROWS, begin == 0);
                for (int64_t t = 0; t < now; ++t) {
                    std::copy_n(whole + t * ROWS, rows, to + t * sizes.products_stride);
                }
            }
        }
    }
}

} // namespace prompt
