// Two rows times two tokens at once, for CPUs with the int8 matrix multiplication of Armv8.6: SMMLA multiplies two rows of eight
// bytes with two others, twice the work of a dot product. Weights and activations lie as for every other kernel; the fours of
// columns of two planes are put side by side on the way.
#pragma once

#include "activations.h"
#include "matrix.h"

namespace ternary {

// As sum_products of product.h, for an even number of tokens. Rows that MOST_COLUMNS allows do not overflow.
template <int T>
GL_INLINE void sum_pairs(const uint8_t * codes, const int8_t * activations, int tile, int64_t steps, Lanes::Ints * sums) {
    static_assert(T % 2 == 0, "tokens come in pairs");
    constexpr int G = Lanes::GROUPS;
    const Lanes::Bytes mask = Lanes::broadcast(uint8_t{3});
    // Of each group rows 0 and 1, then 2 and 3: {row 0 token 0, row 0 token 1, row 1 token 0, row 1 token 1}.
    int32x4_t products[G][2][T / 2];
    GL_UNROLL
    for (int i = 0; i < G * T; ++i) {
        (&products[0][0][0])[i] = vdupq_n_s32(0);
    }
    for (int64_t step = 0; step < steps; ++step) {
        const auto planes = [&](auto shift) GL_INLINE_LAMBDA {
            constexpr int SHIFT = decltype(shift)::value;
            int8x16_t inputs[T / 2];
            GL_UNROLL
            for (int t = 0; t < T / 2; ++t) {
                const int32x2_t first = vreinterpret_s32_s8(vld1_s8(activations + t * 8));
                const int32x2_t second = vreinterpret_s32_s8(vld1_s8(activations + tile * 4 + t * 8));
                inputs[t] = vreinterpretq_s8_s32(vcombine_s32(vzip1_s32(first, second), vzip2_s32(first, second)));
            }
            GL_UNROLL
            for (int g = 0; g < G; ++g) {
                const Lanes::Bytes packed = Lanes::load(codes + g * Lanes::COUNT * 4);
                const auto weights = [&](Lanes::Bytes bytes) GL_INLINE_LAMBDA {
                    return vreinterpretq_s32_u8(Lanes::masked(bytes, mask));
                };
                const int32x4_t first = weights(Lanes::template right<SHIFT>(packed));
                const int32x4_t second = weights(Lanes::template right<SHIFT + 2>(packed));
                const int8x16_t rows[2] = {vreinterpretq_s8_s32(vzip1q_s32(first, second)),
                                           vreinterpretq_s8_s32(vzip2q_s32(first, second))};
                GL_UNROLL
                for (int t = 0; t < T / 2; ++t) {
                    products[g][0][t] = vmmlaq_s32(products[g][0][t], rows[0], inputs[t]);
                    products[g][1][t] = vmmlaq_s32(products[g][1][t], rows[1], inputs[t]);
                }
            }
            activations += tile * 8;
        };
        planes(std::integral_constant<int, 0>());
        planes(std::integral_constant<int, 4>());
        codes += ROWS * 4;
    }
    GL_UNROLL
    for (int g = 0; g < G; ++g) {
        GL_UNROLL
        for (int t = 0; t < T / 2; ++t) {
            sums[g * T + 2 * t] = vuzp1q_s32(products[g][0][t], products[g][1][t]);
            sums[g * T + 2 * t + 1] = vuzp2q_s32(products[g][0][t], products[g][1][t]);
        }
    }
}

} // namespace ternary
