// One panel of weights times one tile of tokens.
#pragma once

#include "activations.h"
#include "matrix.h"
#if defined(__ARM_FEATURE_MATMUL_INT8)
#include "pairs.h"
#endif

#include <algorithm>

namespace ternary {

// Sums of code times activation over `steps`, for T tokens of a tile of `tile`: sums[group * T + token].
template <int T>
GL_INLINE void sum_products(const uint8_t * codes, const int8_t * activations, int tile, int64_t steps,
                            Lanes::Ints * sums) {
    constexpr int G = Lanes::GROUPS;
    constexpr int64_t MOST_STEPS = Lanes::limit(LARGEST_CODE) / 4;
    const Lanes::Bytes mask = Lanes::broadcast(uint8_t{3});
    GL_UNROLL
    for (int i = 0; i < G * T; ++i) {
        sums[i] = Lanes::ints(0);
    }
    while (steps > 0) {
        const int64_t now = std::min(steps, MOST_STEPS);
        steps -= now;
        Lanes::Partial partial[G * T];
        GL_UNROLL
        for (int i = 0; i < G * T; ++i) {
            partial[i] = Lanes::zero();
        }
        for (int64_t step = 0; step < now; ++step) {
            const auto plane = [&](auto shift) GL_INLINE_LAMBDA {
                Lanes::Bytes weights[G];
                GL_UNROLL
                for (int g = 0; g < G; ++g) {
                    const Lanes::Bytes packed = Lanes::load(codes + g * Lanes::COUNT * 4);
                    weights[g] = Lanes::masked(Lanes::template right<decltype(shift)::value>(packed), mask);
                }
                GL_UNROLL
                for (int t = 0; t < T; ++t) {
                    const Lanes::Bytes four = Lanes::broadcast(activations + t * 4);
                    GL_UNROLL
                    for (int g = 0; g < G; ++g) {
                        partial[g * T + t] = Lanes::multiply_add(partial[g * T + t], weights[g], four);
                    }
                }
                activations += tile * 4;
            };
            plane(std::integral_constant<int, 0>());
            plane(std::integral_constant<int, 2>());
            plane(std::integral_constant<int, 4>());
            plane(std::integral_constant<int, 6>());
            codes += ROWS * 4;
        }
        GL_UNROLL
        for (int i = 0; i < G * T; ++i) {
            sums[i] = Lanes::add(sums[i], Lanes::sum(partial[i]));
        }
    }
}

#if defined(GL_UNPACK)

// Columns of a panel whose codes are taken apart at a time, so that they stay in the first-level cache. Shifting and masking them
// anew for each tile would be a fifth of a product's instructions.
constexpr int64_t STRETCH_COLUMNS = 512;

// Takes codes of a panel apart, [step][plane][group], a byte each, for products with many tokens.
inline void unpack_codes(const uint8_t * packed, int64_t steps, uint8_t * codes) {
    constexpr int G = Lanes::GROUPS;
    const Lanes::Bytes mask = Lanes::broadcast(uint8_t{3});
    for (; steps > 0; --steps, packed += ROWS * 4) {
        const auto plane = [&](auto shift) GL_INLINE_LAMBDA {
            GL_UNROLL
            for (int g = 0; g < G; ++g, codes += Lanes::COUNT * 4) {
                const Lanes::Bytes four = Lanes::load(packed + g * Lanes::COUNT * 4);
                Lanes::store(codes, Lanes::masked(Lanes::template right<decltype(shift)::value>(four), mask));
            }
        };
        plane(std::integral_constant<int, 0>());
        plane(std::integral_constant<int, 2>());
        plane(std::integral_constant<int, 4>());
        plane(std::integral_constant<int, 6>());
    }
}

// Adds to the sums of T tokens, group * T + token, what codes that were taken apart give.
template <int T>
void add_products(const uint8_t * codes, const int8_t * activations, int tile, int64_t steps, Lanes::Ints * sums) {
    constexpr int G = Lanes::GROUPS;
    constexpr int64_t MOST_PLANES = Lanes::limit(LARGEST_CODE);
    for (int64_t planes = 4 * steps; planes > 0;) {
        const int64_t now = std::min(planes, MOST_PLANES);
        planes -= now;
        Lanes::Partial partial[G * T];
        GL_UNROLL
        for (int i = 0; i < G * T; ++i) {
            partial[i] = Lanes::zero();
        }
        for (int64_t plane = 0; plane < now; ++plane, codes += ROWS * 4, activations += tile * 4) {
            Lanes::Bytes weights[G];
            GL_UNROLL
            for (int g = 0; g < G; ++g) {
                weights[g] = Lanes::load(codes + g * Lanes::COUNT * 4);
            }
            GL_UNROLL
            for (int t = 0; t < T; ++t) {
                const Lanes::Bytes four = Lanes::broadcast(activations + t * 4);
                GL_UNROLL
                for (int g = 0; g < G; ++g) {
                    partial[g * T + t] = Lanes::multiply_add(partial[g * T + t], weights[g], four);
                }
            }
        }
        GL_UNROLL
        for (int i = 0; i < G * T; ++i) {
            sums[i] = Lanes::add(sums[i], Lanes::sum(partial[i]));
        }
    }
}

using AddProducts = void (*)(const uint8_t *, const int8_t *, int, int64_t, Lanes::Ints *);

// The function for `tokens` of a tile, 1 to TILE.
template <int T = Lanes::TILE> AddProducts add_products_of(int tokens) {
    if constexpr (T > 1) {
        return tokens == T ? add_products<T> : add_products_of<T - 1>(tokens);
    }
    return add_products<1>;
}

#endif

// The same for a single token, which is a matter of reading the weights: each plane of two bits has sums of its own, so that
// the multiply-adds need not wait for each other. Where weights may have 8 bits the planes are not shifted down; their sums,
// multiples of 4, 16 and 64, are divided once at the end.
GL_INLINE void sum_products(const uint8_t * codes, const int8_t * activations, int64_t steps, Lanes::Ints * sums) {
    constexpr int G = Lanes::GROUPS;
    constexpr int LARGEST = Lanes::WIDE ? LARGEST_CODE << 6 : LARGEST_CODE;
    constexpr int64_t MOST_STEPS = Lanes::limit(LARGEST);
    constexpr int AHEAD = 2048;
    GL_UNROLL
    for (int g = 0; g < G; ++g) {
        sums[g] = Lanes::ints(0);
    }
    while (steps > 0) {
        const int64_t now = std::min(steps, MOST_STEPS);
        steps -= now;
        Lanes::Partial partial[G][4];
        GL_UNROLL
        for (int g = 0; g < G; ++g) {
            GL_UNROLL
            for (int p = 0; p < 4; ++p) {
                partial[g][p] = Lanes::zero();
            }
        }
        for (int64_t step = 0; step < now; ++step) {
            const Lanes::Bytes fours[4] = {Lanes::broadcast(activations), Lanes::broadcast(activations + 4),
                                           Lanes::broadcast(activations + 8), Lanes::broadcast(activations + 12)};
            activations += STEP;
            prefetch_lines<ROWS * 4>(codes + AHEAD);
            GL_UNROLL
            for (int g = 0; g < G; ++g) {
                const Lanes::Bytes packed = Lanes::load(codes + g * Lanes::COUNT * 4);
                const auto plane = [&](auto number) GL_INLINE_LAMBDA {
                    constexpr int P = decltype(number)::value;
                    constexpr int SHIFT = Lanes::WIDE ? 0 : 2 * P;
                    const Lanes::Bytes mask = Lanes::broadcast(static_cast<uint8_t>(3 << (2 * P - SHIFT)));
                    const Lanes::Bytes weights = Lanes::masked(Lanes::template right<SHIFT>(packed), mask);
                    partial[g][P] = Lanes::multiply_add(partial[g][P], weights, fours[P]);
                };
                plane(std::integral_constant<int, 0>());
                plane(std::integral_constant<int, 1>());
                plane(std::integral_constant<int, 2>());
                plane(std::integral_constant<int, 3>());
            }
            codes += ROWS * 4;
        }
        GL_UNROLL
        for (int g = 0; g < G; ++g) {
            Lanes::Ints planes[4];
            GL_UNROLL
            for (int p = 0; p < 4; ++p) {
                planes[p] = Lanes::sum(partial[g][p]);
            }
            if (Lanes::WIDE) {
                planes[1] = Lanes::template divide<2>(planes[1]);
                planes[2] = Lanes::template divide<4>(planes[2]);
                planes[3] = Lanes::template divide<6>(planes[3]);
            }
            sums[g] = Lanes::add(sums[g], Lanes::add(Lanes::add(planes[0], planes[1]), Lanes::add(planes[2], planes[3])));
        }
    }
}

template <int T>
GL_INLINE void sum_products_of_tile(const uint8_t * codes, const int8_t * activations, int tile, int64_t steps,
                                    Lanes::Ints * sums) {
#if defined(__ARM_FEATURE_MATMUL_INT8)
    if constexpr (T % 2 == 0) {
        return sum_pairs<T>(codes, activations, tile, steps, sums);
    }
#endif
    if (T == 1 && tile == 1) {
        sum_products(codes, activations, steps, sums);
    } else {
        sum_products<T>(codes, activations, tile, steps, sums);
    }
}

// Turns sums of some tokens of a tile, group * stride + token, into products, where there is one scale a row.
GL_INLINE void store_scaled(const Matrix & matrix, int64_t panel, const Activations & activations, int64_t token, int tokens,
                            const Lanes::Ints * sums, int stride, float * products) {
    constexpr int G = Lanes::GROUPS;
    const float * scales = matrix.row_scales + panel * ROWS;
    for (int t = 0; t < tokens; ++t) {
        const Lanes::Ints offset = Lanes::ints(activations.sums[token + t]);
        const Lanes::Floats scale = Lanes::floats(activations.scales[token + t]);
        for (int g = 0; g < G; ++g) {
            const Lanes::Floats exact = Lanes::convert(Lanes::subtract(sums[g * stride + t], offset));
            const Lanes::Floats row = Lanes::load(scales + g * Lanes::COUNT);
            Lanes::store(products + t * ROWS + g * Lanes::COUNT, Lanes::multiply(exact, Lanes::multiply(scale, row)));
        }
    }
}

// Writes ROWS products for each of T tokens, the first of which begins a tile. `codes` are the panel's, as in matrix.h.
template <int T>
void multiply_tile(const Matrix & matrix, int64_t panel, const uint8_t * codes, const Activations & activations, int64_t token,
                   float * products) {
    constexpr int G = Lanes::GROUPS;
    const int8_t * bytes = activations.bytes + token * matrix.columns;
    Lanes::Ints sums[G * T];
    if (matrix.row_scales) {
        sum_products_of_tile<T>(codes, bytes, activations.layout.tile, matrix.columns / STEP, sums);
        store_scaled(matrix, panel, activations, token, T, sums, T, products);
        return;
    }
    const int64_t blocks = matrix.columns / matrix.block;
    const float * scales = matrix.block_scales + panel * blocks * ROWS;
    Lanes::Floats results[G * T];
    for (int i = 0; i < G * T; ++i) {
        results[i] = Lanes::floats(0.0f);
    }
    for (int64_t block = 0; block < blocks; ++block) {
        sum_products_of_tile<T>(codes, bytes, activations.layout.tile, matrix.block / STEP, sums);
        for (int t = 0; t < T; ++t) {
            const Lanes::Ints offset = Lanes::ints(activations.block_sums[(token + t) * blocks + block]);
            for (int g = 0; g < G; ++g) {
                const Lanes::Floats exact = Lanes::convert(Lanes::subtract(sums[g * T + t], offset));
                const Lanes::Floats scale = Lanes::load(scales + g * Lanes::COUNT);
                results[g * T + t] = Lanes::add(results[g * T + t], Lanes::multiply(exact, scale));
            }
        }
        codes += matrix.block * ROWS / 4;
        bytes += matrix.block * activations.layout.tile;
        scales += ROWS;
    }
    for (int t = 0; t < T; ++t) {
        const Lanes::Floats scale = Lanes::floats(activations.scales[token + t]);
        for (int g = 0; g < G; ++g) {
            Lanes::store(products + t * ROWS + g * Lanes::COUNT, Lanes::multiply(results[g * T + t], scale));
        }
    }
}

using MultiplyTile = void (*)(const Matrix &, int64_t, const uint8_t *, const Activations &, int64_t, float *);

// The function for `tokens` of a tile, 1 to TILE.
template <int T = Lanes::TILE> MultiplyTile multiply_tile_of(int tokens) {
    if constexpr (T > 1) {
        return tokens == T ? multiply_tile<T> : multiply_tile_of<T - 1>(tokens);
    }
    return multiply_tile<1>;
}

} // namespace ternary
