// Products with ternary weights: how their work is cut, and shared among threads.
#pragma once

#include "ggml-cpu-impl.h"
#include "traits.h"

#include "../../cpu/kernels/threadpool.h"
#include "node.h"
#include "product.h"
#if defined(GL_TILES)
#include "tiles.h"
#endif

#include <algorithm>

namespace ternary {

#if defined(GL_TILES)
// Tokens from which on products of whole tiles are faster: with 8 they lose a quarter, with 16 they gain as much (Emerald Rapids).
constexpr int64_t WORTH_TILES = 12;
static_assert(QK_K % TILE_COLUMNS == 0 && QK2_0 % TILE_COLUMNS == 0, "every row is whole tiles");
#endif

// How the tokens of a node are quantised.
inline Layout layout_of(const Node & node) {
#if defined(GL_TILES)
    if (node.tokens() >= WORTH_TILES && !node.block()) {
        return {TILE_TOKENS, TILE_COLUMNS};
    }
#endif
    return {tile_of(node.tokens()), 4};
}

// What a thread needs of memory for its units, beside the activations.
struct Scratch {
    // Codes of a panel in another form than the matrix has, and as many for a second panel. For products of whole tiles: the tiles,
    // and after them what a dense panel is on the way to them.
    size_t codes = 0;
    // Sums of all tokens of a unit.
    size_t sums = 0;

    Scratch(int64_t tokens, int64_t columns) {
        if (tokens > 1) {
#if defined(GL_DENSE)
            codes = aligned(packed_size(ROWS, columns));
#elif defined(GL_UNPACK)
            const int64_t tile = tile_of(tokens), tiles = tokens_of_unit(tokens, columns, tile) / tile;
            codes = aligned(static_cast<size_t>(ROWS * std::min(STRETCH_COLUMNS, columns)));
            sums = aligned(static_cast<size_t>(tiles * tile * ROWS) * sizeof(int32_t));
#else
            (void) columns;
#endif
        }
#if defined(GL_TILES)
        if (tokens >= WORTH_TILES) {
            codes += static_cast<size_t>(ROWS * columns);
        }
#endif
    }

    size_t size() const { return 2 * (codes + sums); }

    // Tokens that a panel is multiplied with before the next one: as many as the cache has room for, in whole tiles.
    static int64_t tokens_of_unit(int64_t tokens, int64_t columns, int64_t tile) {
        const int64_t tiles = (tokens + tile - 1) / tile;
        const int64_t fitting = static_cast<int64_t>(Lanes::CACHE) / columns / tile;
        return std::max<int64_t>(1, std::min(fitting, tiles)) * tile;
    }
};

// The work memory of one node.
struct Workspace {
    size_t bytes, scales, sums, block_sums, total;

    Workspace(int64_t tokens, int64_t columns, int64_t block) {
        const size_t n = static_cast<size_t>(tokens);
        size_t room = (n + Lanes::TILE) * static_cast<size_t>(columns);
#if defined(GL_TILES)
        if (tokens >= WORTH_TILES) {
            room = (n + TILE_TOKENS) * static_cast<size_t>(columns);
        }
#endif
        bytes = 0;
        scales = bytes + aligned(room);
        sums = scales + aligned(n * sizeof(float));
        block_sums = sums + aligned(n * sizeof(int32_t));
        total = block_sums + (block ? aligned(n * static_cast<size_t>(columns / block) * sizeof(int32_t)) : 0);
    }
};

// How many tokens a thread quantises before another one's turn: those of a tile, which share cache lines, or one where there are
// not enough tiles for all threads.
inline int64_t quantized_together(int64_t tokens, int64_t tile, int64_t threads) {
    return (tokens + tile - 1) / tile >= threads ? tile : 1;
}

// Quantises the share of a thread into the workspace at `memory`.
inline Activations quantize_tokens(const Node & node, uint8_t * memory, int64_t thread, int64_t threads) {
    const int64_t tokens = node.tokens(), columns = node.columns(), block = node.block();
    const Workspace at(tokens, columns, block);
    int8_t * bytes = reinterpret_cast<int8_t *>(memory + at.bytes);
    float * scales = reinterpret_cast<float *>(memory + at.scales);
    int32_t * sums = reinterpret_cast<int32_t *>(memory + at.sums);
    int32_t * block_sums = block ? reinterpret_cast<int32_t *>(memory + at.block_sums) : nullptr;
    const Layout layout = layout_of(node);
    const int64_t tile = layout.tile, run = quantized_together(tokens, tile, threads);
    for (int64_t begin = thread * run; begin < tokens; begin += threads * run) {
        for (int64_t i = begin; i < std::min(begin + run, tokens); ++i) {
            int8_t * to = bytes + i / tile * tile * columns + layout.place(i % tile, 0);
            int32_t * to_sums = block_sums ? block_sums + i * (columns / block) : nullptr;
            const Row row(node.token(i), columns, node.norm);
            const Quantized quantized = quantize(row, columns, node.floor, to, layout, to_sums, block);
            scales[i] = quantized.scale;
            sums[i] = quantized.sum;
        }
    }
    return {bytes, scales, sums, block_sums, tokens, columns, layout};
}

// Lanes of a panel's rows one after another, and at the end of a matrix the rows that are left one by one: `lanes` and `one` get
// the number of the first row.
template <typename OfLanes, typename OfRow> GL_INLINE void for_rows(int64_t rows, OfLanes lanes, OfRow one) {
    int64_t i = 0;
    for (; i + Lanes::COUNT <= rows; i += Lanes::COUNT) {
        lanes(i);
    }
    for (; i < rows; ++i) {
        one(i);
    }
}

// Writes the products of one tile: `products` has ROWS for each token.
inline void store_tile(const Node & node, int which, int64_t panel, int64_t token, int tokens, const float * products) {
    int64_t row = panel * ROWS;
    const int64_t rows = std::min<int64_t>(ROWS, node.matrices[which].rows - row);
    for (int i = 0; i < which; ++i) {
        row += node.matrices[i].rows;
    }
    const int64_t width = node.result->ne[0];
    const float scale = node.scales[which];
    const Lanes::Floats scales = Lanes::floats(scale);
    for (int t = 0; t < tokens; ++t, products += ROWS) {
        float * to = static_cast<float *>(node.result->data) + (token + t) * width + row;
        if (node.residual) {
            const float * add = static_cast<const float *>(node.residual->data) + (token + t) * width + row;
            for_rows(
                rows,
                [&](int64_t i) {
                    const Lanes::Floats scaled = Lanes::multiply(Lanes::load(products + i), scales);
                    Lanes::store(to + i, Lanes::add(Lanes::load(add + i), scaled));
                },
                [&](int64_t i) { to[i] = add[i] + products[i] * scale; });
        } else {
            for_rows(
                rows, [&](int64_t i) { Lanes::store(to + i, Lanes::multiply(Lanes::load(products + i), scales)); },
                [&](int64_t i) { to[i] = products[i] * scale; });
        }
    }
}

// The same for a gate and what it lets through.
inline void store_gated(const Node & node, int64_t panel, int64_t token, int tokens, const float * gates, const float * values) {
    const int64_t row = panel * ROWS, width = node.result->ne[0];
    const int64_t rows = std::min<int64_t>(ROWS, width - row);
    const Lanes::Floats zero = Lanes::floats(0.0f);
    const Lanes::Floats scales[2] = {Lanes::floats(node.scales[0]), Lanes::floats(node.scales[1])};
    for (int t = 0; t < tokens; ++t, gates += ROWS, values += ROWS) {
        float * to = static_cast<float *>(node.result->data) + (token + t) * width + row;
        for_rows(
            rows,
            [&](int64_t i) {
                const Lanes::Floats open = Lanes::larger(Lanes::multiply(Lanes::load(gates + i), scales[0]), zero);
                const Lanes::Floats value = Lanes::multiply(Lanes::load(values + i), scales[1]);
                Lanes::store(to + i, Lanes::multiply(Lanes::multiply(open, open), value));
            },
            [&](int64_t i) {
                const float gate = gates[i] * node.scales[0];
                const float open = gate > 0.0f ? gate : 0.0f;
                to[i] = open * open * (values[i] * node.scales[1]);
            });
    }
}

// The codes of a panel, in the form that `multiply` needs for this number of tokens.
inline const uint8_t * codes_of(const Matrix & matrix, int64_t panel, int64_t tokens, uint8_t * memory) {
#if defined(GL_DENSE)
    if (matrix.dense) {
        const uint8_t * packed = matrix.codes + panel * ROWS * 4 * dense_steps(matrix.columns);
        if (tokens == 1) {
            return packed;
        }
        unpack_dense_panel(packed, matrix.columns, memory);
        return memory;
    }
#endif
    (void) tokens, (void) memory;
    return matrix.codes + panel * ROWS * matrix.columns / 4;
}

inline MultiplyTile kernel_for(const Matrix & matrix, const Activations & activations, int tokens) {
#if defined(GL_DENSE)
    if (matrix.dense && activations.tokens == 1) {
        return multiply_dense;
    }
#endif
    (void) matrix, (void) activations;
    return multiply_tile_of(tokens);
}

#if defined(GL_UNPACK)

// Tiles of tokens up to which taking codes apart costs more than it saves: two lose a tenth, and 24 gain as much (Zen 3).
constexpr int WORTH_UNPACKING = 4;

// The sums of a panel for the tokens of a unit, a tile's after another: a stretch of columns at a time, whose codes are taken
// apart once for all tiles.
inline void sum_panel(const Matrix & matrix, int64_t panel, const Activations & activations, int64_t first, int64_t last,
                      uint8_t * codes, Lanes::Ints * sums) {
    const int64_t columns = matrix.columns, tile = activations.layout.tile;
    const uint8_t * packed = matrix.codes + panel * ROWS * columns / 4;
    std::fill_n(sums, (last - first + tile - 1) / tile * tile * Lanes::GROUPS, Lanes::ints(0));
    for (int64_t column = 0; column < columns; column += STRETCH_COLUMNS) {
        const int64_t steps = std::min(STRETCH_COLUMNS, columns - column) / STEP;
        unpack_codes(packed + column * ROWS / 4, steps, codes);
        Lanes::Ints * of_tile = sums;
        for (int64_t token = first; token < last; token += tile, of_tile += tile * Lanes::GROUPS) {
            const int8_t * bytes = activations.bytes + token * columns + column * tile;
            const int tokens = static_cast<int>(std::min(tile, last - token));
            add_products_of(tokens)(codes, bytes, activations.layout.tile, steps, of_tile);
        }
    }
}

#endif

// The products, cut into units: a panel of rows times as many tokens as stay in the cache.
struct Units {
    const Node & node;
    const Activations & activations;
    const Scratch & scratch;
    int64_t tokens_of_unit, panels_of_all, count;

    Units(const Node & node, const Activations & activations, const Scratch & scratch)
        : node(node), activations(activations), scratch(scratch),
          tokens_of_unit(Scratch::tokens_of_unit(activations.tokens, activations.columns, activations.layout.tile)), panels_of_all(0) {
        for (int i = 0; i < (node.gate ? 1 : node.count); ++i) {
            panels_of_all += panels(node.matrices[i].rows);
        }
        count = (activations.tokens + tokens_of_unit - 1) / tokens_of_unit * panels_of_all;
    }

    // `memory` is the thread's, as large as the scratch asks for.
    void multiply(int64_t unit, uint8_t * memory) const {
        const int64_t first = unit / panels_of_all * tokens_of_unit;
        const int64_t last = std::min(first + tokens_of_unit, activations.tokens);
        int64_t panel = unit % panels_of_all;
        int which = 0;
        while (panel >= panels(node.matrices[which].rows)) {
            panel -= panels(node.matrices[which++].rows);
        }
#if defined(GL_TILES)
        if (activations.layout.together == TILE_COLUMNS) {
            return multiply_tiles(which, panel, first, last, memory);
        }
#endif
#if defined(GL_UNPACK)
        if (last - first > WORTH_UNPACKING * activations.layout.tile && node.matrices[which].row_scales &&
            (!node.gate || node.matrices[1].row_scales)) {
            return multiply_unpacked(which, panel, first, last, memory);
        }
#endif
        alignas(ALIGNMENT) float products[2][Lanes::TILE * ROWS];
        const Matrix &matrix = node.matrices[which], &gated = node.matrices[1];
        const uint8_t * codes = codes_of(matrix, panel, activations.tokens, memory);
        const uint8_t * gated_codes =
            node.gate ? codes_of(gated, panel, activations.tokens, memory + scratch.codes) : nullptr;
        for (int64_t token = first; token < last; token += activations.layout.tile) {
            const int tokens = static_cast<int>(std::min<int64_t>(activations.layout.tile, last - token));
            kernel_for(matrix, activations, tokens)(matrix, panel, codes, activations, token, products[0]);
            if (node.gate) {
                kernel_for(gated, activations, tokens)(gated, panel, gated_codes, activations, token, products[1]);
            }
            store(which, panel, token, tokens, products[0], products[1]);
        }
    }

    void store(int which, int64_t panel, int64_t token, int tokens, const float * products, const float * gated) const {
        if (node.gate) {
            store_gated(node, panel, token, tokens, products, gated);
        } else {
            store_tile(node, which, panel, token, tokens, products);
        }
    }

#if defined(GL_UNPACK)
    void multiply_unpacked(int which, int64_t panel, int64_t first, int64_t last, uint8_t * memory) const {
        const int count = node.gate ? 2 : 1;
        Lanes::Ints * sums[2];
        for (int i = 0; i < count; ++i) {
            sums[i] = reinterpret_cast<Lanes::Ints *>(memory + scratch.codes + static_cast<size_t>(i) * scratch.sums);
            sum_panel(node.matrices[which + i], panel, activations, first, last, memory, sums[i]);
        }
        alignas(ALIGNMENT) float products[2][Lanes::TILE * ROWS];
        for (int64_t token = first; token < last; token += activations.layout.tile) {
            const int tokens = static_cast<int>(std::min<int64_t>(activations.layout.tile, last - token));
            for (int i = 0; i < count; ++i) {
                const Lanes::Ints * of_tile = sums[i] + (token - first) * Lanes::GROUPS;
                store_scaled(node.matrices[which + i], panel, activations, token, tokens, of_tile, tokens, products[i]);
            }
            store(which, panel, token, tokens, products[0], products[1]);
        }
    }
#endif

#if defined(GL_TILES)
    void multiply_tiles(int which, int64_t panel, int64_t first, int64_t last, uint8_t * memory) const {
        const int count = node.gate ? 2 : 1;
        const int64_t columns = activations.columns;
        const uint8_t * codes[2] = {};
        for (int i = 0; i < count; ++i) {
            uint8_t * to = memory + static_cast<size_t>(i) * scratch.codes;
            const uint8_t * packed = codes_of(node.matrices[which + i], panel, activations.tokens, to + ROWS * columns);
            unpack_tiles(packed, columns, to);
            codes[i] = to;
        }
        alignas(ALIGNMENT) Lanes::Ints sums[Lanes::GROUPS * TOKENS_TOGETHER];
        alignas(ALIGNMENT) float products[2][TOKENS_TOGETHER * ROWS];
        const TileSizes sizes;
        for (int64_t token = first; token < last; token += TOKENS_TOGETHER) {
            const int tokens = static_cast<int>(std::min(TOKENS_TOGETHER, last - token));
            const int8_t * bytes = activations.bytes + token * columns;
            for (int i = 0; i < count; ++i) {
                (tokens > TILE_TOKENS ? sum_tiles<true> : sum_tiles<false>)(codes[i], bytes, columns, sums);
                store_scaled(node.matrices[which + i], panel, activations, token, tokens, sums, TOKENS_TOGETHER, products[i]);
            }
            store(which, panel, token, tokens, products[0], products[1]);
        }
    }
#endif
};

// Shares of a node's work for each thread.
constexpr int64_t SHARES = 16;

struct TernaryTraits : ggml::cpu::tensor_traits {
    bool work_size(int threads, const ggml_tensor * node, size_t & size) override {
        const ggml_tensor * input = Node::input_of(node);
        const int64_t tokens = ggml_nrows(input);
        // Whether the weights have a scale for each block is not known before they are loaded.
        const Workspace one(tokens, input->ne[0], block_of(node->src[0]->type));
        const size_t n = static_cast<size_t>(threads);
        size = (tokens == 1 ? one.total * n : one.total + Scratch(tokens, input->ne[0]).size() * n) + ALIGNMENT;
        return true;
    }

    bool compute_forward(ggml_compute_params * params, ggml_tensor * result) override {
        const Node node(result);
        uint8_t * memory = reinterpret_cast<uint8_t *>(aligned(reinterpret_cast<size_t>(params->wdata)));
        const Workspace at(node.tokens(), node.columns(), block_of(result->src[0]->type));
        const Scratch scratch(node.tokens(), node.columns());
        const int64_t thread = params->ith, threads = params->nth;
        if (node.tokens() == 1) {
            // Quantising one token takes less time than waiting for another thread to do it.
            const Activations activations = quantize_tokens(node, memory + static_cast<size_t>(thread) * at.total, 0, 1);
            const Units units(node, activations, scratch);
            threadpool::share_out(params, units.count, SHARES, [&](int64_t unit, int64_t end) {
                for (; unit < end; ++unit) {
                    units.multiply(unit, nullptr);
                }
            });
            return true;
        }
        const Activations activations = quantize_tokens(node, memory, thread, threads);
        ggml_barrier(params->threadpool);
        const Units units(node, activations, scratch);
        uint8_t * of_thread = memory + at.total + scratch.size() * static_cast<size_t>(thread);
        threadpool::share_out(params, units.count, SHARES, [&](int64_t unit, int64_t end) {
            for (; unit < end; ++unit) {
                units.multiply(unit, of_thread);
            }
        });
        return true;
    }
};

} // namespace ternary
