// The buffer type that ternary weights are repacked into when a model is loaded, and what multiplies with them.
//
// It plugs into ggml's CPU backend as its own repacked types do: an entry in the list of extra buffer types, asked for every
// node of a graph. Compiled once a tier, together with that tier's ggml-cpu, and renamed with it.

#include "ggml-backend-impl.h"
#include "ggml-backend.h"
#define GGML_COMMON_DECL_CPP
#include "ggml-common.h"
#include "ggml-cpu-impl.h"
#include "ggml-cpu.h"
#include "ggml-impl.h"
#include "traits.h"

#include "operation.h"
#include "product.h"
#include "six_bit.h"
#include "unpack.h"
#if defined(GL_DENSE)
#include "dense.h"
#endif

#include <atomic>
#include <thread>
#include <vector>

#if defined(__linux__)
#include <sys/mman.h>
#include <unistd.h>
#endif

namespace ternary {
namespace {

constexpr size_t ALIGNMENT = 64;

constexpr size_t aligned(size_t size) {
    return (size + ALIGNMENT - 1) & ~(ALIGNMENT - 1);
}

// How a model that is being loaded may put weights here. Models that did keep working when it changes.
std::atomic<int> packing{GL_TERNARY_OFF};
// The threads that repack them.
std::atomic<int> packing_threads{1};

ggml_backend_buffer_type_t buffer_type();

bool is_packed(const ggml_tensor * tensor) {
    return tensor && tensor->buffer && tensor->buffer->buft == buffer_type();
}

bool is_six_bit(const ggml_tensor * weights) {
    return weights->type == GGML_TYPE_Q6_K;
}

bool can_pack(const ggml_tensor * weights) {
    const int64_t block = is_six_bit(weights) ? SIX_BIT_BLOCK : block_of(weights->type);
    return block > 0 && weights->ne[2] == 1 && weights->ne[3] == 1 && weights->ne[0] % block == 0 &&
           weights->ne[0] <= MOST_COLUMNS && !weights->view_src;
}

// What stands at the beginning of a tensor's memory; its scales and codes follow.
struct Header {
    bool scale_of_row;
    bool dense;
};

size_t scales_size(const ggml_tensor * weights) {
    const int64_t per_row = weights->ne[0] / block_of(weights->type);
    return aligned(static_cast<size_t>(panels(weights->ne[1]) * ROWS * per_row) * sizeof(float));
}

size_t tensor_size(const ggml_tensor * weights) {
    if (is_six_bit(weights)) {
        return six_bit_size(weights->ne[1], weights->ne[0]);
    }
    return ALIGNMENT + scales_size(weights) + aligned(packed_size(weights->ne[1], weights->ne[0]));
}

Matrix matrix_of(const ggml_tensor * weights) {
    const uint8_t * data = static_cast<const uint8_t *>(weights->data);
    const float * scales = reinterpret_cast<const float *>(data + ALIGNMENT);
    const Header * header = reinterpret_cast<const Header *>(data);
    const bool of_row = header->scale_of_row;
    return {data + ALIGNMENT + scales_size(weights),
            header->dense,
            of_row ? scales : nullptr,
            of_row ? nullptr : scales,
            weights->ne[1],
            weights->ne[0],
            block_of(weights->type)};
}

// Calls `work(first, last)` for shares of 0 to `count`, each in a thread of its own. `work` must not throw.
template <typename Work> void share(int64_t count, Work work) {
    const int64_t shares = std::max<int64_t>(1, std::min<int64_t>(packing_threads, count));
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

void pack_six_bit(ggml_tensor * weights, const void * stored) {
    const int64_t columns = weights->ne[0], rows = weights->ne[1], blocks = columns / SIX_BIT_BLOCK;
    uint8_t * packed = static_cast<uint8_t *>(weights->data);
    const std::vector<block_q6_K> zeros(static_cast<size_t>(blocks));
    share(panels(rows), [&](int64_t first, int64_t last) {
        for (int64_t row = first * ROWS; row < last * ROWS; ++row) {
            const block_q6_K * of_row = row < rows ? static_cast<const block_q6_K *>(stored) + row * blocks : zeros.data();
            pack_six_bit_row(of_row, row, columns, packed);
        }
    });
}

// Packs the codes of all rows, and gathers the scales. Whether that went well: the dense form has no room for code 3, nor for
// scales of blocks that differ.
bool pack_rows(const ggml_tensor * weights, const void * stored, bool dense, uint8_t * packed, float * scales,
               bool & uniform) {
    const int64_t columns = weights->ne[0], rows = weights->ne[1];
    const int64_t blocks = columns / block_of(weights->type);
    const size_t stride = ggml_row_size(weights->type, columns);
    // Room for one row a thread; a thread has at least one panel.
    std::vector<uint8_t> codes(static_cast<size_t>(panels(rows) * columns));
    std::atomic<bool> fits{true}, same{true};
    share(panels(rows), [&](int64_t first, int64_t last) {
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

// Repacks a whole tensor. Blocks that all have one scale, as BitNet's do, need no scale of their own.
void pack(ggml_tensor * weights, const void * stored) {
    const int64_t rows = weights->ne[1], blocks = weights->ne[0] / block_of(weights->type);
    uint8_t * data = static_cast<uint8_t *>(weights->data);
    uint8_t * packed = data + ALIGNMENT + scales_size(weights);
    std::vector<float> scales(static_cast<size_t>(rows * blocks));
    Header & header = *reinterpret_cast<Header *>(data);
    header.dense = HAS_DENSE && packing == GL_TERNARY_DENSE;
    if (!pack_rows(weights, stored, header.dense, packed, scales.data(), header.scale_of_row)) {
        header.dense = false;
        pack_rows(weights, stored, false, packed, scales.data(), header.scale_of_row);
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

// A row of activations of smaller values is taken for zeros; far below what float models compute with.
constexpr float LEAST_MAGNITUDE = 1e-30f;

const float * row_of(const ggml_tensor * input, int64_t i) {
    const int64_t i1 = i % input->ne[1], i2 = i / input->ne[1] % input->ne[2], i3 = i / input->ne[1] / input->ne[2];
    const char * data = static_cast<const char *>(input->data);
    return reinterpret_cast<const float *>(data + i1 * input->nb[1] + i2 * input->nb[2] + i3 * input->nb[3]);
}

// A node of the graph, taken apart.
struct Node {
    static constexpr int MOST_WEIGHTS = 3;

    Matrix matrices[MOST_WEIGHTS];
    float scales[MOST_WEIGHTS];
    int count;
    bool gate;
    const ggml_tensor * input;
    Norm norm;
    float floor;
    const ggml_tensor * residual;
    ggml_tensor * result;

    explicit Node(ggml_tensor * node) : count(1), gate(false), input(node->src[1]), norm{nullptr, 0.0f},
                                        floor(LEAST_MAGNITUDE), residual(nullptr), result(node) {
        int next = 0;
        const gl_ternary_operation * operation = operation_of(node);
        count = operation ? operation->weights : 1;
        for (int i = 0; i < count; ++i) {
            matrices[i] = matrix_of(node->src[next++]);
            scales[i] = 1.0f;
        }
        input = node->src[next++];
        if (!operation) {
            return;
        }
        gate = operation->gate;
        floor = operation->floor;
        if (operation->norm) {
            norm = {static_cast<const float *>(node->src[next++]->data), operation->norm_epsilon};
        }
        if (operation->residual) {
            residual = node->src[next++];
        }
        for (int i = 0; operation->scales && i < count; ++i) {
            scales[i] = *static_cast<const float *>(node->src[next++]->data);
        }
    }

    static const gl_ternary_operation * operation_of(const ggml_tensor * node) {
        if (node->op != GGML_OP_CUSTOM) {
            return nullptr;
        }
        ggml_custom_op_params custom;
        memcpy(&custom, node->op_params, sizeof(custom));
        return static_cast<const gl_ternary_operation *>(custom.userdata);
    }

    static const ggml_tensor * input_of(const ggml_tensor * node) {
        const gl_ternary_operation * operation = operation_of(node);
        return node->src[operation ? operation->weights : 1];
    }

    int64_t tokens() const { return ggml_nrows(input); }
    int64_t columns() const { return input->ne[0]; }

    const float * token(int64_t i) const { return row_of(input, i); }

    // The width of the blocks if any of the weights has a scale for each, else 0.
    int64_t block() const {
        for (int i = 0; i < count; ++i) {
            if (!matrices[i].row_scales) {
                return matrices[i].block;
            }
        }
        return 0;
    }
};

// The work memory of one node.
struct Workspace {
    size_t bytes, scales, sums, block_sums, total;
    // A panel of weights of the dense form, unpacked; a thread has two.
    size_t panel;

    Workspace(int64_t tokens, int64_t columns, int64_t block) {
        const size_t n = static_cast<size_t>(tokens);
        bytes = 0;
        scales = bytes + aligned((n + Lanes::TILE) * static_cast<size_t>(columns));
        sums = scales + aligned(n * sizeof(float));
        block_sums = sums + aligned(n * sizeof(int32_t));
        total = block_sums + (block ? aligned(n * static_cast<size_t>(columns / block) * sizeof(int32_t)) : 0);
        panel = HAS_DENSE && tokens > 1 ? aligned(packed_size(ROWS, columns)) : 0;
    }
};

// Quantises tokens `first`, `first + stride` and so on into the workspace at `memory`.
Activations quantize_tokens(const Node & node, uint8_t * memory, int64_t first, int64_t stride) {
    const int64_t tokens = node.tokens(), columns = node.columns(), block = node.block();
    const Workspace at(tokens, columns, block);
    int8_t * bytes = reinterpret_cast<int8_t *>(memory + at.bytes);
    float * scales = reinterpret_cast<float *>(memory + at.scales);
    int32_t * sums = reinterpret_cast<int32_t *>(memory + at.sums);
    int32_t * block_sums = block ? reinterpret_cast<int32_t *>(memory + at.block_sums) : nullptr;
    const int tile = tile_of(tokens);
    for (int64_t i = first; i < tokens; i += stride) {
        int8_t * to = bytes + i / tile * tile * columns + i % tile * 4;
        int32_t * to_sums = block_sums ? block_sums + i * (columns / block) : nullptr;
        const Row row(node.token(i), columns, node.norm);
        const Quantized quantized = quantize(row, columns, node.floor, to, tile, to_sums, block);
        scales[i] = quantized.scale;
        sums[i] = quantized.sum;
    }
    return {bytes, scales, sums, block_sums, tokens, columns, tile};
}

// Writes the products of one tile: `products` has ROWS for each token.
void store_tile(const Node & node, int which, int64_t panel, int64_t token, int tokens, const float * products) {
    int64_t row = panel * ROWS;
    const int64_t rows = std::min<int64_t>(ROWS, node.matrices[which].rows - row);
    for (int i = 0; i < which; ++i) {
        row += node.matrices[i].rows;
    }
    const int64_t width = node.result->ne[0];
    const float scale = node.scales[which];
    for (int t = 0; t < tokens; ++t, products += ROWS) {
        float * to = static_cast<float *>(node.result->data) + (token + t) * width + row;
        if (node.residual) {
            const float * add = static_cast<const float *>(node.residual->data) + (token + t) * width + row;
            for (int64_t i = 0; i < rows; ++i) {
                to[i] = add[i] + products[i] * scale;
            }
        } else {
            for (int64_t i = 0; i < rows; ++i) {
                to[i] = products[i] * scale;
            }
        }
    }
}

// The same for a gate and what it lets through.
void store_gated(const Node & node, int64_t panel, int64_t token, int tokens, const float * gates, const float * values) {
    const int64_t row = panel * ROWS, width = node.result->ne[0];
    const int64_t rows = std::min<int64_t>(ROWS, width - row);
    for (int t = 0; t < tokens; ++t, gates += ROWS, values += ROWS) {
        float * to = static_cast<float *>(node.result->data) + (token + t) * width + row;
        for (int64_t i = 0; i < rows; ++i) {
            const float gate = gates[i] * node.scales[0];
            const float open = gate > 0.0f ? gate : 0.0f;
            to[i] = open * open * (values[i] * node.scales[1]);
        }
    }
}

// The codes of a panel, in the form that `multiply` needs for this number of tokens.
const uint8_t * codes_of(const Matrix & matrix, int64_t panel, int64_t tokens, uint8_t * memory) {
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

MultiplyTile kernel_for(const Matrix & matrix, const Activations & activations, int tokens) {
#if defined(GL_DENSE)
    if (matrix.dense && activations.tokens == 1) {
        return multiply_dense;
    }
#endif
    (void) matrix, (void) activations;
    return multiply_tile_of(tokens);
}

// The products, cut into units: a panel of rows times as many tokens as stay in the cache.
struct Units {
    const Node & node;
    const Activations & activations;
    int64_t chunk, panels_of_all, count;

    Units(const Node & node, const Activations & activations) : node(node), activations(activations), panels_of_all(0) {
        const int64_t tile = activations.tile;
        const int64_t fitting = static_cast<int64_t>(Lanes::CACHE) / activations.columns / tile * tile;
        chunk = std::max(fitting, tile);
        for (int i = 0; i < (node.gate ? 1 : node.count); ++i) {
            panels_of_all += panels(node.matrices[i].rows);
        }
        count = (activations.tokens + chunk - 1) / chunk * panels_of_all;
    }

    // `memory` has room for two panels.
    void multiply(int64_t unit, uint8_t * memory, size_t panel_size) const {
        const int64_t first = unit / panels_of_all * chunk;
        const int64_t last = std::min(first + chunk, activations.tokens);
        int64_t panel = unit % panels_of_all;
        int which = 0;
        while (panel >= panels(node.matrices[which].rows)) {
            panel -= panels(node.matrices[which++].rows);
        }
        alignas(ALIGNMENT) float products[2][Lanes::TILE * ROWS];
        const Matrix &matrix = node.matrices[which], &gated = node.matrices[1];
        const uint8_t * codes = codes_of(matrix, panel, activations.tokens, memory);
        const uint8_t * gated_codes = node.gate ? codes_of(gated, panel, activations.tokens, memory + panel_size) : nullptr;
        for (int64_t token = first; token < last; token += activations.tile) {
            const int tokens = static_cast<int>(std::min<int64_t>(activations.tile, last - token));
            kernel_for(matrix, activations, tokens)(matrix, panel, codes, activations, token, products[0]);
            if (node.gate) {
                kernel_for(gated, activations, tokens)(gated, panel, gated_codes, activations, token, products[1]);
                store_gated(node, panel, token, tokens, products[0], products[1]);
            } else {
                store_tile(node, which, panel, token, tokens, products[0]);
            }
        }
    }
};

struct Traits : ggml::cpu::tensor_traits {
    bool work_size(int threads, const ggml_tensor * node, size_t & size) override {
        const ggml_tensor * input = Node::input_of(node);
        const int64_t tokens = ggml_nrows(input);
        // Whether the weights have a scale for each block is not known before they are loaded.
        const Workspace one(tokens, input->ne[0], block_of(node->src[0]->type));
        const size_t n = static_cast<size_t>(threads);
        size = (tokens == 1 ? one.total * n : one.total + 2 * one.panel * n) + ALIGNMENT;
        return true;
    }

    bool compute_forward(ggml_compute_params * params, ggml_tensor * result) override {
        const Node node(result);
        uint8_t * memory = reinterpret_cast<uint8_t *>(aligned(reinterpret_cast<size_t>(params->wdata)));
        const Workspace at(node.tokens(), node.columns(), block_of(result->src[0]->type));
        const int64_t thread = params->ith, threads = params->nth;
        if (node.tokens() == 1) {
            // Quantising one token takes less time than waiting for another thread to do it.
            const Activations activations = quantize_tokens(node, memory + thread * at.total, 0, 1);
            const Units units(node, activations);
            for (int64_t unit = units.count * thread / threads; unit < units.count * (thread + 1) / threads; ++unit) {
                units.multiply(unit, nullptr, 0);
            }
            return true;
        }
        const Activations activations = quantize_tokens(node, memory, thread, threads);
        if (thread == 0) {
            ggml_threadpool_chunk_set(params->threadpool, params->nth);
        }
        ggml_barrier(params->threadpool);
        // A thread takes the next few units when it is done with some: one that the system interrupts holds up none.
        const Units units(node, activations);
        const int64_t few = std::max<int64_t>(1, units.count / (threads * 16));
        uint8_t * panels = memory + at.total + 2 * at.panel * static_cast<size_t>(thread);
        for (int64_t next = thread; next * few < units.count; next = ggml_threadpool_chunk_add(params->threadpool, 1)) {
            for (int64_t unit = next * few; unit < std::min((next + 1) * few, units.count); ++unit) {
                units.multiply(unit, panels, at.panel);
            }
        }
        return true;
    }
};

// Products with Q6_K: one matrix, and activations of another form.
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
        const int tile = tile_of(tokens);
        for (int64_t i = tokens == 1 ? 0 : params->ith; i < tokens; i += params->nth) {
            const Row row(row_of(input, i), columns, {nullptr, 0.0f});
            quantize_blocks(row, columns, LEAST_MAGNITUDE, bytes + i / tile * tile * columns + i % tile * 4, tile,
                            scales + i * (columns / SIX_BIT_BLOCK), sums + i * (columns / STRETCH));
        }
        if (tokens > 1) {
            ggml_barrier(params->threadpool);
        }
        const Activations activations = {bytes, scales, sums, nullptr, tokens, columns, tile};
        const int64_t count = panels(matrix.rows);
        alignas(ALIGNMENT) float products[Lanes::TILE * ROWS];
        for (int64_t panel = count * params->ith / params->nth; panel < count * (params->ith + 1) / params->nth; ++panel) {
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
        return true;
    }
};

struct ExtraBufferType : ggml::cpu::extra_buffer_type {
    bool supports_op(ggml_backend_dev_t, const ggml_tensor * node) override {
        if (node->op == GGML_OP_CUSTOM) {
            return is_packed(node->src[0]);
        }
        if (node->op != GGML_OP_MUL_MAT || !is_packed(node->src[0]) || !can_pack(node->src[0])) {
            return false;
        }
        // A model's loader asks with an empty buffer, and takes plain memory when the answer is no.
        if (node->src[0]->buffer->size == 0 && packing == GL_TERNARY_OFF) {
            return false;
        }
        const ggml_tensor * input = node->src[1];
        const bool in_memory = !input->buffer || ggml_backend_buft_is_host(input->buffer->buft);
        return input->type == GGML_TYPE_F32 && input->nb[0] == sizeof(float) && in_memory;
    }

    ggml::cpu::tensor_traits * get_tensor_traits(const ggml_tensor * node) override {
        const bool ours = (node->op == GGML_OP_MUL_MAT || node->op == GGML_OP_CUSTOM) && is_packed(node->src[0]);
        static Traits traits;
        static SixBitTraits six_bit;
        if (!ours) {
            return nullptr;
        }
        return is_six_bit(node->src[0]) ? static_cast<ggml::cpu::tensor_traits *>(&six_bit) : &traits;
    }
};

const char * name(ggml_backend_buffer_type_t) {
    return GL_TERNARY_BUFFER;
}

size_t alignment(ggml_backend_buffer_type_t) {
    return ALIGNMENT;
}

size_t allocation_size(ggml_backend_buffer_type_t, const ggml_tensor * tensor) {
    return can_pack(tensor) ? tensor_size(tensor) : ggml_nbytes(tensor);
}

void set_tensor(ggml_backend_buffer_t, ggml_tensor * tensor, const void * data, size_t offset, size_t size) {
    GGML_ASSERT(offset == 0 && size == ggml_nbytes(tensor) && can_pack(tensor));
    is_six_bit(tensor) ? pack_six_bit(tensor, data) : pack(tensor, data);
}

// A token reads all weights in order: with pages of 2 MiB the processor looks up far fewer addresses, and fetches ahead
// beyond 4 KiB. A system that has none refuses, and nothing is lost.
void ask_for_huge_pages(void * memory, size_t size) {
#if defined(MADV_HUGEPAGE)
    const size_t page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
    const size_t begin = (reinterpret_cast<size_t>(memory) + page - 1) / page * page;
    const size_t end = (reinterpret_cast<size_t>(memory) + size) / page * page;
    if (begin < end) {
        madvise(reinterpret_cast<void *>(begin), end - begin, MADV_HUGEPAGE);
    }
#else
    (void) memory, (void) size;
#endif
}

ggml_backend_buffer_t allocate(ggml_backend_buffer_type_t type, size_t size) {
    ggml_backend_buffer_t buffer = ggml_backend_buft_alloc_buffer(ggml_backend_cpu_buffer_type(), size);
    if (buffer) {
        ask_for_huge_pages(ggml_backend_buffer_get_base(buffer), size);
        buffer->buft = type;
        buffer->iface.init_tensor = nullptr;
        buffer->iface.set_tensor = set_tensor;
        // The stored form is gone.
        buffer->iface.get_tensor = nullptr;
        buffer->iface.cpy_tensor = nullptr;
    }
    return buffer;
}

ggml_backend_buffer_type_t buffer_type() {
    static ExtraBufferType extra;
    static ggml_backend_buffer_type type = [] {
        ggml_backend_buffer_type type = {};
        type.iface.get_name = name;
        type.iface.alloc_buffer = allocate;
        type.iface.get_alignment = alignment;
        type.iface.get_alloc_size = allocation_size;
        type.device = ggml_backend_reg_dev_get(ggml_backend_cpu_reg(), 0);
        type.context = static_cast<ggml::cpu::extra_buffer_type *>(&extra);
        return type;
    }();
    return &type;
}

} // namespace
} // namespace ternary

// How models that are loaded from now on keep their ternary weights in this tier's buffer, a gl_ternary_packing, and the
// threads that repack them. To be called before the tier is registered for the first time: ggml copies the list of extra
// buffer types once.
extern "C" void gguf_loader_ternary(int packing, int threads) {
    static const bool listed = [] {
        auto & types = ggml_backend_cpu_get_extra_buffer_types();
        types.insert(types.begin(), ternary::buffer_type());
        return true;
    }();
    (void) listed;
    ternary::packing = packing;
    ternary::packing_threads = threads;
}

// Does multiply-adds with registers alone, as many sums at once as a tile of a product has, and returns how many it did: no
// product can be faster. 0: nobody knows how to keep this compiler from doing less.
extern "C" int64_t gguf_loader_multiply_adds(int64_t rounds) {
#if defined(GL_OPAQUE)
    using namespace ternary;
    constexpr int SUMS = Lanes::GROUPS * Lanes::TILE;
    // A Partial takes no more without widening.
    constexpr int64_t RUN = Lanes::limit(LARGEST_CODE) < 256 ? Lanes::limit(LARGEST_CODE) : 256;
    Lanes::Ints total = Lanes::ints(0);
    for (int64_t round = 0; round < rounds; ++round) {
        Lanes::Partial sums[SUMS];
        GL_UNROLL
        for (int i = 0; i < SUMS; ++i) {
            sums[i] = Lanes::zero();
        }
        Lanes::Bytes weights = Lanes::broadcast(uint8_t{1});
        const Lanes::Bytes activations = Lanes::broadcast(uint8_t{2});
        for (int64_t run = 0; run < RUN; ++run) {
            GL_UNROLL
            for (int i = 0; i < SUMS; ++i) {
                GL_OPAQUE(weights);
                sums[i] = Lanes::multiply_add(sums[i], weights, activations);
            }
        }
        GL_UNROLL
        for (int i = 0; i < SUMS; ++i) {
            total = Lanes::add(total, Lanes::sum(sums[i]));
        }
    }
    volatile int32_t used = Lanes::total(total);
    (void) used;
    return rounds * RUN * SUMS * Lanes::COUNT * 4;
#else
    (void) rounds;
    return 0;
#endif
}
