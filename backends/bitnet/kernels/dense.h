// Weights of 1.6 bits: five in a byte. A token reads a fifth less memory than with two bits a weight, for more work a byte.
//
// A panel is, for each 80 columns, four steps; and for the columns that are left plain steps of matrix.h. As there, byte
// 4*r + c of a vector belongs to row r of the group of rows. In step s of 80 columns its weights are those of columns
// 16*s + c, 16*s + 4 + c, 16*s + 8 + c, 16*s + 12 + c and 64 + 4*s + c.
//
// Two table look-ups and a mask take a byte b apart, whose low seven bits are v:
//
//   fifth digit = v's low six bits modulo 3
//   other four, as a byte of matrix.h = four[v] where b has its high bit, and four[v] & ~v where it has not
//
// One look-up more, for tables of 256 bytes, would take a fifth longer: permutations of bytes wait for the units that multiply
// (Zen 4). `four[v] & ~v` is `four[v] & ~max(b, 0)`, the bytes being signed, and so two of the cheapest instructions. What such a
// table holds is a matter of covering: for each value of the fifth digit 84 or 88 bytes have to stand for 81 combinations of the
// others. A constraint solver found it, one of many; that it stands for all is asserted below.
#pragma once

#include "product.h"

namespace ternary {

constexpr int64_t DENSE_COLUMNS = 80;
constexpr int64_t DENSE_STEPS = 4;

struct DenseTables {
    alignas(64) uint8_t four[128] = {
        0x94, 0x29, 0xa2, 0x8a, 0x05, 0x96, 0x6a, 0x66, 0x19, 0x2a, 0x69, 0x41, 0x19, 0x96, 0x62, 0xa6, //
        0x96, 0x52, 0x99, 0x15, 0x59, 0x66, 0x95, 0xa5, 0xa9, 0x54, 0x51, 0x26, 0x45, 0x26, 0x29, 0x89, //
        0x65, 0x51, 0x9a, 0x15, 0xa2, 0x2a, 0x05, 0x9a, 0xa4, 0x66, 0x56, 0x52, 0xa1, 0x48, 0x99, 0x54, //
        0xa4, 0x6a, 0x6a, 0x45, 0x68, 0xa8, 0x61, 0x55, 0x2a, 0x96, 0x94, 0x55, 0x46, 0x62, 0x25, 0xa5, //
        0x55, 0x59, 0x61, 0x58, 0x49, 0x29, 0xaa, 0xa2, 0x5a, 0x28, 0xa9, 0x68, 0x4a, 0x16, 0x58, 0x92, //
        0x65, 0x56, 0x95, 0x64, 0x4a, 0x1a, 0x5a, 0x09, 0x16, 0x46, 0x64, 0x05, 0x26, 0x9a, 0x25, 0x21, //
        0xa9, 0x65, 0xa5, 0x99, 0x69, 0xaa, 0x1a, 0x14, 0x19, 0x85, 0x5a, 0x56, 0x95, 0x52, 0x58, 0x94, //
        0x49, 0xa8, 0x16, 0x64, 0xa6, 0xaa, 0x91, 0x51, 0xa6, 0x60, 0x90, 0x69, 0x59, 0x1a, 0xa4, 0x08, //
    };
    alignas(64) uint8_t fifth[64] = {};
    // The byte of `first + 3 * second + 9 * third + 27 * fourth + 81 * fifth`.
    uint8_t byte[243] = {};
    // How many of those have one.
    int known = 0;

    constexpr DenseTables() {
        bool seen[243] = {};
        for (int b = 0; b < 256; ++b) {
            const int v = b & 127, digits = b > 127 ? four[v] : four[v] & ~v;
            fifth[v & 63] = static_cast<uint8_t>((v & 63) % 3);
            const int value = (digits & 3) + 3 * (digits >> 2 & 3) + 9 * (digits >> 4 & 3) + 27 * (digits >> 6) + 81 * fifth[v & 63];
            if (digits & digits >> 1 & 0x55) {
                continue; // one of them is 3
            }
            known += !seen[value];
            seen[value] = true;
            byte[value] = static_cast<uint8_t>(b);
        }
    }
};

inline constexpr DenseTables DENSE;
static_assert(DENSE.known == 243, "every five digits have a byte");

// Steps of either kind in a row of a panel.
inline int64_t dense_steps(int64_t columns) {
    return columns / DENSE_COLUMNS * DENSE_STEPS + columns % DENSE_COLUMNS / STEP;
}

// Puts one row, a byte for each code, into its place. There is no code 3.
inline void pack_dense_row(const uint8_t * codes, int64_t row, int64_t columns, uint8_t * packed) {
    uint8_t * to = packed + row / ROWS * ROWS * 4 * dense_steps(columns) + row % ROWS * 4;
    int64_t column = 0;
    for (; column + DENSE_COLUMNS <= columns; column += DENSE_COLUMNS, codes += DENSE_COLUMNS) {
        for (int64_t s = 0; s < DENSE_STEPS; ++s, to += ROWS * 4) {
            for (int64_t c = 0; c < 4; ++c) {
                const uint8_t * four = codes + 16 * s + c;
                to[c] = DENSE.byte[four[0] + 3 * four[4] + 9 * four[8] + 27 * four[12] + 81 * codes[64 + 4 * s + c]];
            }
        }
    }
    for (; column < columns; column += STEP, codes += STEP, to += ROWS * 4) {
        pack_step(codes, to);
    }
}

// Writes the codes of a panel in the order of matrix.h, for products that use them many times.
inline void unpack_dense_panel(const uint8_t * packed, int64_t columns, uint8_t * codes) {
    constexpr int64_t SIZE = ROWS * 4;
    const Lanes::Digits digits(DENSE.four, DENSE.fifth);
    for (int64_t n = columns / DENSE_COLUMNS; n > 0; --n, packed += SIZE * DENSE_STEPS, codes += SIZE * (DENSE_STEPS + 1)) {
        for (int64_t at = 0; at < SIZE; at += Lanes::COUNT * 4) {
            const auto fifth = [&](auto step) GL_INLINE_LAMBDA {
                const Lanes::Bytes bytes = Lanes::load(packed + step * SIZE + at);
                Lanes::store(codes + step * SIZE + at, digits.four(bytes));
                return Lanes::template left<2 * step>(digits.fifth(bytes));
            };
            Lanes::Bytes last = fifth(std::integral_constant<int, 0>());
            last = Lanes::merged(last, fifth(std::integral_constant<int, 1>()));
            last = Lanes::merged(last, fifth(std::integral_constant<int, 2>()));
            last = Lanes::merged(last, fifth(std::integral_constant<int, 3>()));
            Lanes::store(codes + DENSE_STEPS * SIZE + at, last);
        }
    }
    memcpy(codes, packed, static_cast<size_t>(columns % DENSE_COLUMNS / STEP * SIZE));
}

// Sums of code times activation for a single token, as sum_products of product.h.
GL_INLINE void sum_dense_products(const uint8_t * packed, const int8_t * activations, int64_t columns, Lanes::Ints * sums) {
    static_assert(Lanes::WIDE, "the digits stay where they are in a byte");
    constexpr int G = Lanes::GROUPS;
    constexpr int64_t MOST_BLOCKS = Lanes::limit(LARGEST_CODE << 6) / DENSE_STEPS;
    constexpr int AHEAD = 4096;
    const Lanes::Digits digits(DENSE.four, DENSE.fifth);
    int64_t blocks = columns / DENSE_COLUMNS;
    const uint8_t * rest = packed + blocks * DENSE_STEPS * ROWS * 4;
    sum_products(rest, activations + blocks * DENSE_COLUMNS, columns % DENSE_COLUMNS / STEP, sums);
    while (blocks > 0) {
        const int64_t now = std::min(blocks, MOST_BLOCKS);
        blocks -= now;
        Lanes::Partial partial[G][4];
        GL_UNROLL
        for (int g = 0; g < G; ++g) {
            GL_UNROLL
            for (int p = 0; p < 4; ++p) {
                partial[g][p] = Lanes::zero();
            }
        }
        for (int64_t block = 0; block < now; ++block, activations += DENSE_COLUMNS) {
            for (int64_t s = 0; s < DENSE_STEPS; ++s, packed += ROWS * 4) {
                const int8_t *inputs = activations + s * STEP, *last = activations + 64 + 4 * s;
                prefetch_lines<ROWS * 4>(packed + AHEAD);
                GL_UNROLL
                for (int g = 0; g < G; ++g) {
                    const Lanes::Bytes bytes = Lanes::load(packed + g * Lanes::COUNT * 4);
                    const Lanes::Bytes four = digits.four(bytes);
                    GL_UNROLL
                    for (int p = 0; p < 4; ++p) {
                        const Lanes::Bytes mask = Lanes::broadcast(static_cast<uint8_t>(3 << (2 * p)));
                        const Lanes::Bytes weights = Lanes::masked(four, mask);
                        partial[g][p] = Lanes::multiply_add_four(partial[g][p], weights, inputs + 4 * p);
                    }
                    partial[g][0] = Lanes::multiply_add_four(partial[g][0], digits.fifth(bytes), last);
                }
            }
        }
        GL_UNROLL
        for (int g = 0; g < G; ++g) {
            sums[g] = Lanes::add(sums[g], Lanes::sum(partial[g][0]));
            sums[g] = Lanes::add(sums[g], Lanes::template divide<2>(Lanes::sum(partial[g][1])));
            sums[g] = Lanes::add(sums[g], Lanes::template divide<4>(Lanes::sum(partial[g][2])));
            sums[g] = Lanes::add(sums[g], Lanes::template divide<6>(Lanes::sum(partial[g][3])));
        }
    }
}

// Writes the products of a panel with a single token.
inline void multiply_dense(const Matrix & matrix, int64_t panel, const uint8_t * codes, const Activations & activations,
                           int64_t token, float * products) {
    Lanes::Ints sums[Lanes::GROUPS];
    sum_dense_products(codes, activations.bytes + token * matrix.columns, matrix.columns, sums);
    store_scaled(matrix, panel, activations, token, 1, sums, 1, products);
}

} // namespace ternary
