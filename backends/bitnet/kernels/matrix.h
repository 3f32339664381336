// Weights of two bits, as the kernels read them.
//
// Rows are taken ROWS at a time: a panel. A panel is a list of steps of STEP columns, each of GROUPS vectors. In the vector
// of group g, byte 4*r + c has the codes of row COUNT*g + r: bits 2*p and 2*p+1 are column STEP*step + 4*p + c. So a vector,
// shifted by 2*p and masked, is the weight operand of one multiply-add, whose other operand is four activations repeated for
// every row. The last panel is filled up with rows of zeros.
//
// A code is the weight plus one: 0, 1, 2 for -1, 0, +1. Q2_0 files may have 3, a weight of 2. The product takes the codes as
// they are; the sum of the activations, subtracted once a row, makes up for the one.
#pragma once

#include "../../cpu/kernels/lanes.h"

namespace ternary {

using namespace kernels;

constexpr int ROWS = Lanes::COUNT * Lanes::GROUPS;
constexpr int STEP = 16;
constexpr int LARGEST_CODE = 3;
// Longer rows could overflow 32 bits.
constexpr int64_t MOST_COLUMNS = INT32_MAX / (LARGEST_CODE * 127);

struct Matrix {
    const uint8_t * codes;
    // Whether the codes are those of dense.h. Then there is one scale a row.
    bool dense;
    // One scale a row, padded to whole panels; or none, and then
    const float * row_scales;
    // one for each `block` columns: [panel][block][ROWS].
    const float * block_scales;
    int64_t rows;
    int64_t columns;
    int64_t block;
};

// Asks for the lines that BYTES of the codes take, once each.
template <size_t BYTES> GL_INLINE void prefetch_lines(const uint8_t * codes) {
    GL_UNROLL
    for (size_t at = 0; at < BYTES; at += 64) {
        Lanes::prefetch(codes + at);
    }
}

inline int64_t panels(int64_t rows) {
    return (rows + ROWS - 1) / ROWS;
}

// Bytes of the codes.
inline size_t packed_size(int64_t rows, int64_t columns) {
    return static_cast<size_t>(panels(rows)) * ROWS * static_cast<size_t>(columns) / 4;
}

// Packs the codes of one row in one step: four bytes of a vector.
inline void pack_step(const uint8_t * codes, uint8_t * to) {
    for (int c = 0; c < 4; ++c) {
        to[c] = static_cast<uint8_t>(codes[c] | codes[4 + c] << 2 | codes[8 + c] << 4 | codes[12 + c] << 6);
    }
}

// Puts one row, a byte for each code, into its place.
inline void pack_row(const uint8_t * codes, int64_t row, int64_t columns, uint8_t * packed) {
    const int64_t within = row % ROWS;
    uint8_t * to = packed + (row / ROWS * ROWS * columns / 4) + within / Lanes::COUNT * Lanes::COUNT * 4 +
                   within % Lanes::COUNT * 4;
    for (int64_t column = 0; column < columns; column += STEP, codes += STEP, to += ROWS * 4) {
        pack_step(codes, to);
    }
}

} // namespace ternary
