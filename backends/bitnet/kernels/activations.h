// Activations as signed bytes, one scale a token (BitNet b1.58, section 2: absmax quantisation to 8 bits).
//
// Tokens are taken `tile` at a time, and a few columns of each lie side by side, four for most kernels:
// [tile of tokens][column / 4][token][4]. The last tile has room for whole tokens too, so that a tile begins at `columns` times its
// first token.
#pragma once

#include "../../cpu/kernels/lanes.h"

#include <cmath>

namespace ternary {

using namespace kernels;

// How the bytes of a tile lie.
struct Layout {
    int tile;     // tokens
    int together; // columns of a token side by side, a power of two

    // Where a token of a tile has a column.
    int64_t place(int64_t token, int64_t column) const {
        const int64_t within = column & (together - 1);
        return (column - within) * tile + token * together + within;
    }
};

struct Activations {
    const int8_t * bytes;
    const float * scales;       // one a token; for Q6_K one a block (six_bit.h)
    const int32_t * sums;       // of a token's bytes; for Q6_K of each 16
    const int32_t * block_sums; // of each block of a token's bytes, or null
    int64_t tokens;
    int64_t columns;
    Layout layout;
};

// Tokens in a tile: as many as the registers allow, and all tiles about as full.
inline int tile_of(int64_t tokens) {
    const int64_t tiles = (tokens + Lanes::TILE - 1) / Lanes::TILE;
    return static_cast<int>((tokens + tiles - 1) / tiles);
}

// A root mean square norm to apply before.
struct Norm {
    const float * weights; // null: no norm
    float epsilon;
};

struct Quantized {
    float scale;
    int32_t sum;
};

class Row {
  public:
    Row(const float * values, int64_t columns, Norm norm) : values_(values), norm_(norm) {
        if (norm.weights) {
            Lanes::Floats squares = Lanes::floats(0.0f);
            for (int64_t i = 0; i < columns; i += Lanes::COUNT) {
                const Lanes::Floats x = Lanes::load(values + i);
                squares = Lanes::add(squares, Lanes::multiply(x, x));
            }
            const float mean = Lanes::total(squares) / static_cast<float>(columns);
            factor_ = 1.0f / std::sqrt(mean + norm.epsilon);
        }
    }

    // The largest magnitude of these columns.
    float largest(int64_t begin, int64_t end) const {
        Lanes::Floats largest = Lanes::floats(0.0f);
        for (int64_t i = begin; i < end; i += Lanes::COUNT) {
            largest = Lanes::larger(Lanes::magnitude(at(i)), largest);
        }
        return Lanes::largest(largest);
    }

    // COUNT values.
    GL_INLINE Lanes::Floats at(int64_t i) const {
        const Lanes::Floats x = Lanes::load(values_ + i);
        if (!norm_.weights) {
            return x;
        }
        return Lanes::multiply(Lanes::multiply(x, Lanes::floats(factor_)), Lanes::load(norm_.weights + i));
    }

  private:
    const float * values_;
    Norm norm_;
    float factor_ = 1.0f;
};

// Quantises columns with the inverse of a scale, and returns their sum. `to` is where the token's column 0 goes in its tile.
inline int32_t quantize_columns(const Row & row, int64_t begin, int64_t end, float inverse, int8_t * to, Layout layout) {
    const Lanes::Floats factor = Lanes::floats(inverse);
    Lanes::Ints sums = Lanes::ints(0);
    for (int64_t i = begin; i < end; i += Lanes::COUNT) {
        const Lanes::Ints rounded = Lanes::round(Lanes::multiply(row.at(i), factor));
        sums = Lanes::add(sums, rounded);
        if (layout.tile == 1 || layout.together % Lanes::COUNT == 0) {
            Lanes::store_bytes(to + layout.place(0, i), rounded);
        } else {
            int8_t bytes[Lanes::COUNT];
            Lanes::store_bytes(bytes, rounded);
            for (int c = 0; c < Lanes::COUNT; c += 4) {
                memcpy(to + layout.place(0, i + c), bytes + c, 4);
            }
        }
    }
    return Lanes::total(sums);
}

// Quantises a row of a multiple of STEP columns. `to` is where the token's column 0 goes in its tile; `block_sums` may
// be null. A row of zeros has the scale that the least magnitude, `floor`, gives.
inline Quantized quantize(const Row & row, int64_t columns, float floor, int8_t * to, Layout layout, int32_t * block_sums,
                          int64_t block) {
    const float largest = row.largest(0, columns);
    const float bound = largest > floor ? largest : floor;
    const int64_t stretch = block_sums ? block : columns;
    int32_t sum = 0;
    for (int64_t begin = 0; begin < columns; begin += stretch) {
        const int32_t total = quantize_columns(row, begin, begin + stretch, 127.0f / bound, to, layout);
        if (block_sums) {
            *block_sums++ = total;
        }
        sum += total;
    }
    return {bound / 127.0f, sum};
}

} // namespace ternary
