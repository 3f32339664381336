// How ternary weights, and those in Q6_K, are kept in memory, and how they get into that form when a model is loaded.
#pragma once

#include "ggml-impl.h"

#include "operation.h"
#include "six_bit.h"
#include "unpack.h"
#if defined(GL_DENSE)
#include "dense.h"
#endif

#include <algorithm>
#include <atomic>
#include <thread>
#include <vector>

namespace ternary {

constexpr size_t ALIGNMENT = 64;

constexpr size_t aligned(size_t size) {
    return (size + ALIGNMENT - 1) & ~(ALIGNMENT - 1);
}

inline bool is_six_bit(const ggml_tensor * weights) {
    return weights->type == GGML_TYPE_Q6_K;
}

inline bool can_pack(const ggml_tensor * weights) {
    const int64_t block = is_six_bit(weights) ? SIX_BIT_BLOCK : block_of(weights->type);
    return block > 0 && weights->ne[2] == 1 && weights->ne[3] == 1 && weights->ne[0] % block == 0 &&
           weights->ne[0] <= MOST_COLUMNS && !weights->view_src;
}

inline size_t scales_size(const ggml_tensor * weights) {
    const int64_t per_row = weights->ne[0] / block_of(weights->type);
    return aligned(static_cast<size_t>(panels(weights->ne[1]) * ROWS * per_row) * sizeof(float));
}

inline size_t tensor_size(const ggml_tensor * weights) {
    if (is_six_bit(weights)) {
        return six_bit_size(weights->ne[1], weights->ne[0]);
    }
    return ALIGNMENT + scales_size(weights) + aligned(packed_size(weights->ne[1], weights->ne[0]));
}

inline Matrix matrix_of(const ggml_tensor * weights) {
    const uint8_t * data = static_cast<const uint8_t *>(weights->data);
    const float * scales = reinterpret_cast<const float *>(data + ALIGNMENT);
    const gl_ternary_header * header = reinterpret_cast<const gl_ternary_header *>(data);
    const bool of_row = header->scale_of_row;
    return {data + ALIGNMENT + scales_size(weights),
            header->dense,
            of_row ? scales : nullptr,
            of_row ? nullptr : scales,
            weights->ne[1],
            weights->ne[0],
            block_of(weights->type)};
}

// Calls `work(first, last)` for at most `most` shares of 0 to `count`, each in a thread of its own. `work` must not throw.
template <typename Work> void share(int most, int64_t count, Work work) {
    const int64_t shares = std::max<int64_t>(1, std::min<int64_t>(most, count));
    std::vector<std::thread> threads;
    threads.reserve(static_cast<size_t>(shares));
    for (int64_t i = 1; i < shares; ++i) {
        const int64_t first = count * i / shares, last = count * (i + 1) / shares;
        try {
            threads.emplace_back(work, first, last);
        } catch (...) {
            // No thread to be had: its share is done here.
            work(first, last);
        }
    }
    work(0, count / shares);
    for (std::thread & thread : threads) {
        thread.join();
    }
}

inline void pack_six_bit(ggml_tensor * weights, const void * stored, int threads) {
    const int64_t columns = weights->ne[0], rows = weights->ne[1], blocks = columns / SIX_BIT_BLOCK;
    uint8_t * packed = static_cast<uint8_t *>(weights->data);
    const std::vector<block_q6_K> zeros(static_cast<size_t>(blocks));
    share(threads, panels(rows), [&](int64_t first, int64_t last) {
        for (int64_t row = first * ROWS; row < last * ROWS; ++row) {
            const block_q6_K * of_row = row < rows ? static_cast<const block_q6_K *>(stored) + row * blocks : zeros.data();
            pack_six_bit_row(of_row, row, columns, packed);
        }
    });
}

// Packs the codes of all rows, and gathers the scales. Whether that went well: the dense form has no room for code 3, nor for
// scales of blocks that differ.
inline bool pack_rows(const ggml_tensor * weights, const void * stored, bool dense, int threads, uint8_t * packed,
                      float * scales, bool & uniform) {
    const int64_t columns = weights->ne[0], rows = weights->ne[1];
    const int64_t blocks = columns / block_of(weights->type);
    const size_t stride = ggml_row_size(weights->type, columns);
    // Room for one row a thread; a thread has at least one panel.
    std::vector<uint8_t> codes(static_cast<size_t>(panels(rows) * columns));
    std::atomic<bool> fits{true}, same{true};
    share(threads, panels(rows), [&](int64_t first, int64_t last) {
        uint8_t * of_thread = codes.data() + first * columns;
        for (int64_t row = first * ROWS; row < last * ROWS && fits; ++row) {
            if (row < rows) {
                float * of_row = scales + row * blocks;
                unpack_row(weights->type, static_cast<const uint8_t *>(stored) + static_cast<size_t>(row) * stride, columns,
                           of_thread, of_row);
                if (!std::all_of(of_row, of_row + blocks, [&](float scale) { return scale == of_row[0]; })) {
                    same = false;
                }
            } else {
                std::fill_n(of_thread, columns, uint8_t{1});
            }
#if defined(GL_DENSE)
            if (dense) {
                if (!same || *std::max_element(of_thread, of_thread + columns) > 2) {
                    fits = false;
                } else {
                    pack_dense_row(of_thread, row, columns, packed);
                }
                continue;
            }
#endif
            pack_row(of_thread, row, columns, packed);
        }
    });
    uniform = same;
    // A row of another thread may have been packed before this was known.
    return fits && (!dense || same);
}

// Repacks a whole tensor, five weights in a byte where the tier and the weights allow it. Blocks that all have one scale, as
// BitNet's do, need no scale of their own.
inline void pack(ggml_tensor * weights, const void * stored, int threads) {
    const int64_t rows = weights->ne[1], blocks = weights->ne[0] / block_of(weights->type);
    uint8_t * data = static_cast<uint8_t *>(weights->data);
    uint8_t * packed = data + ALIGNMENT + scales_size(weights);
    std::vector<float> scales(static_cast<size_t>(rows * blocks));
    gl_ternary_header & header = *reinterpret_cast<gl_ternary_header *>(data);
    header.dense = HAS_DENSE;
    if (!pack_rows(weights, stored, HAS_DENSE, threads, packed, scales.data(), header.scale_of_row)) {
        header.dense = false;
        pack_rows(weights, stored, false, threads, packed, scales.data(), header.scale_of_row);
    }
    float * to = reinterpret_cast<float *>(data + ALIGNMENT);
    for (int64_t row = 0; row < panels(rows) * ROWS; ++row) {
        const float * of_row = row < rows ? scales.data() + row * blocks : nullptr;
        if (header.scale_of_row) {
            to[row] = of_row ? of_row[0] : 0.0f;
            continue;
        }
        for (int64_t b = 0; b < blocks; ++b) {
            to[(row / ROWS * blocks + b) * ROWS + row % ROWS] = of_row ? of_row[b] : 0.0f;
        }
    }
}

} // namespace ternary
