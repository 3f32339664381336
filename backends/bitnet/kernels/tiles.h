// Sixteen tokens times sixteen rows at once, for CPUs with AMX: TDPBSSD multiplies a tile of 16 tokens, 64 columns of each, with one
// of as many columns of 16 rows, in a cycle eight times what VNNI's instruction does. A ternary row has one scale, so that the sums
// of all its columns stay in a tile.
//
// In the tile of rows each dword belongs to a row, as in the vectors of matrix.h: 16 of those, their codes taken apart, are one. The
// tokens are quantised with 64 columns side by side (activations.h).
#pragma once

#include "product.h"

namespace ternary {

constexpr int64_t TILE_TOKENS = 16;
constexpr int64_t TILE_COLUMNS = 64;
constexpr int64_t TILE_BYTES = 1024;
// Tokens that sum_tiles takes: two tiles, so that codes are read once for both.
constexpr int64_t TOKENS_TOGETHER = 2 * TILE_TOKENS;

static_assert(Lanes::COUNT == 16 && Lanes::GROUPS % 2 == 0, "a tile is 16 vectors of a group; groups come in pairs");

// Gives all tiles their full size, and in the end the size that they had: ggml's own kernels set theirs once a thread, and rely on
// it. Tiles hold nothing in between.
class TileSizes {
  public:
    TileSizes() {
        _tile_storeconfig(before_);
        Sizes full = {};
        full.palette = 1;
        for (int tile = 0; tile < 8; ++tile) {
            full.bytes[tile] = 64;
            full.rows[tile] = 16;
        }
        _tile_loadconfig(&full);
    }
    ~TileSizes() { _tile_loadconfig(before_); }
    TileSizes(const TileSizes &) = delete;
    TileSizes & operator=(const TileSizes &) = delete;

  private:
    // The operand of LDTILECFG (Intel's manual, volume 2).
    struct alignas(64) Sizes {
        uint8_t palette;
        uint8_t first_row;
        uint8_t reserved[14];
        uint16_t bytes[16];
        uint8_t rows[16];
    };
    static_assert(sizeof(Sizes) == 64, "what LDTILECFG reads");

    alignas(64) uint8_t before_[64];
};

// Takes the codes of a panel apart, a byte each, into tiles: [group][column / 64][column / 4 % 16][row][column % 4].
inline void unpack_tiles(const uint8_t * packed, int64_t columns, uint8_t * codes) {
    constexpr int VECTOR = Lanes::COUNT * 4;
    const Lanes::Bytes mask = Lanes::broadcast(uint8_t{3});
    for (int64_t column = 0; column < columns; column += STEP) {
        GL_UNROLL
        for (int g = 0; g < Lanes::GROUPS; ++g, packed += VECTOR) {
            uint8_t * to = codes + (g * columns + column) * Lanes::COUNT;
            const Lanes::Bytes planes = Lanes::load(packed);
            Lanes::store(to, Lanes::masked(planes, mask));
            Lanes::store(to + VECTOR, Lanes::masked(Lanes::template right<2>(planes), mask));
            Lanes::store(to + 2 * VECTOR, Lanes::masked(Lanes::template right<4>(planes), mask));
            Lanes::store(to + 3 * VECTOR, Lanes::masked(Lanes::template right<6>(planes), mask));
        }
    }
}

// Sums of code times activation of a panel: sums[group * TOKENS_TOGETHER + token]. `tokens` begin a tile; where there are TWO, the
// next one follows it. Sums of tokens beyond the last are of no meaning.
template <bool TWO>
void sum_tiles(const uint8_t * codes, const int8_t * tokens, int64_t columns, Lanes::Ints * sums) {
    const int8_t * next_tokens = tokens + TILE_TOKENS * columns;
    for (int group = 0; group < Lanes::GROUPS; group += 2) {
        const uint8_t * rows = codes + group * Lanes::COUNT * columns;
        const uint8_t * next_rows = rows + Lanes::COUNT * columns;
        _tile_zero(0);
        _tile_zero(1);
        _tile_zero(2);
        _tile_zero(3);
        for (int64_t at = 0; at < columns * TILE_TOKENS; at += TILE_BYTES) {
            _tile_loadd(4, tokens + at, TILE_COLUMNS);
            _tile_loadd(6, rows + at, TILE_COLUMNS);
            _tile_loadd(7, next_rows + at, TILE_COLUMNS);
            _tile_dpbssd(0, 4, 6);
            _tile_dpbssd(1, 4, 7);
            if (TWO) {
                _tile_loadd(5, next_tokens + at, TILE_COLUMNS);
                _tile_dpbssd(2, 5, 6);
                _tile_dpbssd(3, 5, 7);
            }
        }
        Lanes::Ints * to = sums + group * TOKENS_TOGETHER;
        _tile_stored(0, to, sizeof(Lanes::Ints));
        _tile_stored(1, to + TOKENS_TOGETHER, sizeof(Lanes::Ints));
        if (TWO) {
            _tile_stored(2, to + TILE_TOKENS, sizeof(Lanes::Ints));
            _tile_stored(3, to + TOKENS_TOGETHER + TILE_TOKENS, sizeof(Lanes::Ints));
        }
    }
}

// Multiply-adds of tiles that stay in registers, for peak.cpp; returns how many.
inline int64_t multiply_add_tiles(int64_t rounds) {
    const TileSizes sizes;
    for (int64_t round = 0; round < rounds; ++round) {
        _tile_dpbssd(0, 4, 6);
        _tile_dpbssd(1, 4, 7);
        _tile_dpbssd(2, 5, 6);
        _tile_dpbssd(3, 5, 7);
    }
    return rounds * 4 * TILE_TOKENS * TILE_COLUMNS * Lanes::COUNT;
}

} // namespace ternary
