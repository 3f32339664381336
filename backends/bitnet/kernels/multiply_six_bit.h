// Products with Q6_K: one matrix, and activations of another form.
#pragma once

#include "ggml-cpu-impl.h"
#include "traits.h"

#include "multiply.h"

#include <algorithm>

namespace ternary {

struct SixBitTraits : ggml::cpu::tensor_traits {
    struct Workspace {
        size_t bytes, scales, sums, total;

        Workspace(int64_t tokens, int64_t columns) {
            const size_t n = static_cast<size_t>(tokens), k = static_cast<size_t>(columns);
            bytes = 0;
            scales = bytes + aligned((n + Lanes::TILE) * k);
            sums = scales + aligned(n * (k / SIX_BIT_BLOCK) * sizeof(float));
            total = sums + aligned(n * (k / STRETCH) * sizeof(int32_t));
        }
    };

    bool work_size(int threads, const ggml_tensor * node, size_t & size) override {
        const int64_t tokens = ggml_nrows(node->src[1]);
        const Workspace one(tokens, node->src[1]->ne[0]);
        size = (tokens == 1 ? one.total * static_cast<size_t>(threads) : one.total) + ALIGNMENT;
        return true;
    }

    bool compute_forward(ggml_compute_params * params, ggml_tensor * result) override {
        const ggml_tensor *weights = result->src[0], *input = result->src[1];
        const SixBitMatrix matrix = {static_cast<const uint8_t *>(weights->data), weights->ne[1], weights->ne[0]};
        const int64_t tokens = ggml_nrows(input), columns = matrix.columns;
        uint8_t * memory = reinterpret_cast<uint8_t *>(aligned(reinterpret_cast<size_t>(params->wdata)));
        const Workspace at(tokens, columns);
        if (tokens == 1) {
            memory += at.total * static_cast<size_t>(params->ith);
        }
        int8_t * bytes = reinterpret_cast<int8_t *>(memory + at.bytes);
        float * scales = reinterpret_cast<float *>(memory + at.scales);
        int32_t * sums = reinterpret_cast<int32_t *>(memory + at.sums);
        const Layout layout = {tile_of(tokens), 4};
        const int tile = layout.tile;
        // Of one token each thread has a copy of its own.
        const int64_t thread = tokens == 1 ? 0 : params->ith, threads = tokens == 1 ? 1 : params->nth;
        const int64_t run = quantized_together(tokens, tile, threads);
        for (int64_t begin = thread * run; begin < tokens; begin += threads * run) {
            for (int64_t i = begin; i < std::min(begin + run, tokens); ++i) {
                const Row row(row_of(input, i), columns, {nullptr, 0.0f});
                quantize_blocks(row, columns, LEAST_MAGNITUDE, bytes + i / tile * tile * columns + i % tile * 4, layout,
                                scales + i * (columns / SIX_BIT_BLOCK), sums + i * (columns / STRETCH));
            }
        }
        if (tokens > 1) {
            ggml_barrier(params->threadpool);
        }
        const Activations activations = {bytes, scales, sums, nullptr, tokens, columns, layout};
        threadpool::share_out(params, panels(matrix.rows), SHARES, [&](int64_t panel, int64_t end) {
            alignas(ALIGNMENT) float products[Lanes::TILE * ROWS];
            for (; panel < end; ++panel) {
                const int64_t rows = std::min<int64_t>(ROWS, matrix.rows - panel * ROWS);
                for (int64_t token = 0; token < tokens; token += tile) {
                    const int now = static_cast<int>(std::min<int64_t>(tile, tokens - token));
                    multiply_six_bit_tile_of(now)(matrix, panel, activations, token, products);
                    for (int t = 0; t < now; ++t) {
                        float * to = static_cast<float *>(result->data) + (token + t) * matrix.rows + panel * ROWS;
                        std::copy_n(products + t * ROWS, rows, to);
                    }
                }
            }
        });
        return true;
    }
};

} // namespace ternary
