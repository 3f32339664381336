#include "shim.h"

#include "ggml-alloc.h"
#include "ggml-backend-impl.h"
#include "ggml-cpp.h"
#include "llama-adapter.h"
#include "llama-arch.h"
#include "llama-context.h"
#include "llama-model.h"
#include "registration.h"

#ifdef GGUF_LOADER_BITNET
#include "architecture.h"
#include "kernels/operation.h"
#endif

#include <algorithm>
#include <cstring>
#include <exception>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

namespace {

thread_local std::string last_error;

// Runs `call`; after an exception the message is kept and `failed` is returned.
template <typename Result, typename Call> Result guarded(Result failed, Call call) {
    last_error.clear();
    try {
        return call();
    } catch (const std::exception & exception) {
        last_error = exception.what();
    } catch (...) {
        last_error = "unknown C++ exception";
    }
    return failed;
}

// Where a model's loader would put `weights`: in the first extra buffer type that takes the product, else in plain memory.
ggml_backend_buffer_type_t buffer_type_for(ggml_backend_dev_t device, ggml_tensor * weights, ggml_tensor * product) {
    for (const ggml_backend_buffer_type_t * type = extra_buffer_types(device); *type; ++type) {
        // As in the loader: support depends on the buffer type alone, and an empty buffer stands for it.
        ggml_backend_buffer_ptr empty(ggml_backend_buft_alloc_buffer(*type, 0));
        weights->buffer = empty.get();
        const bool takes = empty && ggml_backend_dev_supports_op(device, product);
        weights->buffer = nullptr;
        if (takes) {
            return *type;
        }
    }
    return ggml_backend_dev_buffer_type(device);
}

// Whether an adapter changes an embedding table that the model multiplies with for the logits too. The halves of such an adapter
// have changed places, for rows that are looked up, and llama.cpp asserts that they fit a product.
bool changes_tied_output(const llama_model & model, llama_adapter_lora & adapter) {
    // llama.cpp's `bitnet` does not name its output matrix.
    ggml_tensor * output = model.arch == LLM_ARCH_BITNET && !model.output ? model.tok_embd : model.output;
    return output && std::strcmp(ggml_get_name(output), "token_embd.weight") == 0 && adapter.get_weight(output);
}

// A backend of the first device of `registration`, that computes with these threads.
ggml_backend_t backend_with(ggml_backend_reg_t registration, ggml_threadpool_t threads, int32_t n_threads) {
    ggml_backend_t backend = ggml_backend_dev_init(ggml_backend_reg_dev_get(registration, 0), nullptr);
    procedure<ggml_backend_set_n_threads_t>(registration, "ggml_backend_set_n_threads")(backend, n_threads);
    using SetPool = void (*)(ggml_backend_t, ggml_threadpool_t);
    procedure<SetPool>(registration, "ggml_backend_cpu_set_threadpool")(backend, threads);
    return backend;
}

void compute(ggml_backend_t backend, ggml_cgraph * graph) {
    if (ggml_backend_graph_compute(backend, graph) != GGML_STATUS_SUCCESS) {
        throw std::runtime_error("the graph could not be computed");
    }
}

// For a graph of one node.
ggml_init_params descriptors() {
    return {ggml_tensor_overhead() * 8 + ggml_graph_overhead(), nullptr, true};
}

#ifdef GGUF_LOADER_BITNET
// Whether a tensor is one for the ternary kernels. Q6_K has a kernel there, too.
bool is_ternary(const ggml_tensor * tensor) {
    return tensor->type != GGML_TYPE_Q6_K && tensor->buffer &&
           std::strcmp(ggml_backend_buffer_name(tensor->buffer), GL_TERNARY_BUFFER) == 0;
}
#endif

} // namespace

// A matrix where a model's would lie, and the graph that multiplies with it.
struct gl_product {
    gl_product(ggml_backend_reg_t registration, ggml_threadpool_t threads, int32_t n_threads, ggml_type type, int64_t rows,
               int64_t columns)
        : device(ggml_backend_reg_dev_get(registration, 0)), backend(backend_with(registration, threads, n_threads)),
          weights_context(ggml_init(descriptors())),
          weights(ggml_new_tensor_2d(weights_context.get(), type, columns, rows)) {
        const ggml_context_ptr asked(ggml_init(descriptors()));
        ggml_tensor * input = ggml_new_tensor_2d(asked.get(), GGML_TYPE_F32, columns, 1);
        ggml_tensor * product = ggml_mul_mat(asked.get(), weights, input);
        buffer.reset(ggml_backend_alloc_ctx_tensors_from_buft(weights_context.get(),
                                                              buffer_type_for(device, weights, product)));
    }

    bool multiply(const float * inputs, int64_t stride, int64_t count, float * products) {
        const int64_t columns = weights->ne[0];
        if (!graph || input->ne[1] != count || static_cast<int64_t>(input->nb[1] / sizeof(float)) != stride) {
            graph_buffer.reset();
            graph_context.reset(ggml_init(descriptors()));
            ggml_tensor * values = ggml_new_tensor_1d(graph_context.get(), GGML_TYPE_F32, (count - 1) * stride + columns);
            input = ggml_view_2d(graph_context.get(), values, columns, count, stride * sizeof(float), 0);
            result = ggml_mul_mat(graph_context.get(), weights, input);
            graph_buffer.reset(
                ggml_backend_alloc_ctx_tensors_from_buft(graph_context.get(), ggml_backend_dev_buffer_type(device)));
            if (!graph_buffer) {
                throw std::runtime_error("out of memory");
            }
            graph = ggml_new_graph(graph_context.get());
            ggml_build_forward_expand(graph, result);
        }
        ggml_backend_tensor_set(input->view_src, inputs, 0, ggml_nbytes(input->view_src));
        compute(backend.get(), graph);
        ggml_backend_tensor_get(result, products, 0, ggml_nbytes(result));
        return true;
    }

    ggml_backend_dev_t device;
    ggml_backend_ptr backend;
    // The loader keeps weights and graphs apart too: only the weights go to an extra buffer.
    ggml_context_ptr weights_context;
    ggml_tensor * weights;
    ggml_backend_buffer_ptr buffer;
    ggml_context_ptr graph_context;
    ggml_backend_buffer_ptr graph_buffer;
    ggml_cgraph * graph = nullptr;
    ggml_tensor * input = nullptr;
    ggml_tensor * result = nullptr;
};

// Keys and values as a KV cache has them.
struct gl_attention {
    gl_attention(ggml_backend_reg_t registration, ggml_threadpool_t threads, int32_t n_threads, ggml_type type, int64_t heads,
                 int64_t positions, int64_t key_size, int64_t value_size, const float * key, const float * value)
        : device(ggml_backend_reg_dev_get(registration, 0)), backend(backend_with(registration, threads, n_threads)),
          context(ggml_init(descriptors())), keys(ggml_new_tensor_3d(context.get(), type, key_size, heads, positions)),
          values(ggml_new_tensor_3d(context.get(), type, value_size, heads, positions)),
          buffer(ggml_backend_alloc_ctx_tensors_from_buft(context.get(), ggml_backend_dev_buffer_type(device))) {
        if (!buffer) {
            throw std::runtime_error("out of memory");
        }
        fill(keys, key);
        fill(values, value);
    }

    void attend(int64_t tokens, int64_t heads, const float * queries, float scale, float max_bias, const float * mask,
                float * results) {
        const ggml_context_ptr of_graph(ggml_init(descriptors()));
        ggml_context * c = of_graph.get();
        ggml_tensor * asked = ggml_new_tensor_3d(c, GGML_TYPE_F32, keys->ne[0], heads, tokens);
        ggml_tensor * hidden = ggml_new_tensor_2d(c, GGML_TYPE_F16, keys->ne[2], tokens);
        const auto by_head = [&](ggml_tensor * tensor) { return ggml_permute(c, tensor, 0, 2, 1, 3); };
        ggml_tensor * result =
            ggml_flash_attn_ext(c, by_head(asked), by_head(keys), by_head(values), hidden, scale, max_bias, 0.0f);
        const ggml_backend_buffer_ptr memory(
            ggml_backend_alloc_ctx_tensors_from_buft(c, ggml_backend_dev_buffer_type(device)));
        if (!memory) {
            throw std::runtime_error("out of memory");
        }
        ggml_cgraph * graph = ggml_new_graph(c);
        ggml_build_forward_expand(graph, result);
        fill(asked, queries);
        fill(hidden, mask);
        compute(backend.get(), graph);
        ggml_backend_tensor_get(result, results, 0, ggml_nbytes(result));
    }

    // Converts to the tensor's type.
    static void fill(ggml_tensor * tensor, const float * from) {
        std::vector<char> bytes(ggml_nbytes(tensor));
        ggml_quantize_chunk(tensor->type, from, bytes.data(), 0, ggml_nrows(tensor), tensor->ne[0], nullptr);
        ggml_backend_tensor_set(tensor, bytes.data(), 0, bytes.size());
    }

    ggml_backend_dev_t device;
    ggml_backend_ptr backend;
    ggml_context_ptr context;
    ggml_tensor *keys, *values;
    ggml_backend_buffer_ptr buffer;
};

extern "C" {

// libggml calls this once, when its registry of backends is first used, and it is the one symbol by which llama.cpp would
// pull in the CPU backend that the sys crate built for a fixed instruction set. Defining it here keeps that one out of the
// binary; answering NULL leaves the registry empty until a tier is registered on purpose.
ggml_backend_reg_t ggml_backend_cpu_reg(void) {
    return nullptr;
}

const char * gl_last_error(void) {
    return last_error.c_str();
}

bool gl_knows_architecture(const char * name) {
    return guarded(false, [&] {
#ifdef GGUF_LOADER_BITNET
        if (bitnet::is_architecture(name)) {
            return true;
        }
#endif
        const llm_arch arch = llm_arch_from_string(name);
        return arch != LLM_ARCH_UNKNOWN && arch != LLM_ARCH_CLIP;
    });
}

llama_model * gl_model_load(const char * path, const char * architecture, const llama_model_params * params) {
    return guarded<llama_model *>(nullptr, [&] {
#ifdef GGUF_LOADER_BITNET
        if (bitnet::is_architecture(architecture)) {
            return bitnet::load(path, *params);
        }
#endif
        return llama_model_load_from_file(path, *params);
    });
}

gl_ternary_use gl_ternary_use_of(const llama_model * model) {
    return guarded<gl_ternary_use>({}, [&] {
        gl_ternary_use use = {};
#ifdef GGUF_LOADER_BITNET
        for (const auto & [name, tensor] : model->tensors_by_name) {
            if (is_ternary(tensor)) {
                ++(static_cast<const gl_ternary_header *>(tensor->data)->dense ? use.dense : use.two_bits);
            }
        }
        use.fused = bitnet::is_fused(model);
#endif
        return use;
    });
}

llama_context * gl_context_new(llama_model * model, const llama_context_params * params) {
    return guarded<llama_context *>(nullptr, [&] { return llama_init_from_model(model, *params); });
}

int64_t gl_position_limit(const llama_model * model) {
    return model->pos_embd ? model->pos_embd->ne[1] : 0;
}

bool gl_is_causal(const llama_context * context) {
    return context->get_cparams().causal_attn;
}

int32_t gl_pooling(const llama_model * model) {
    return model->hparams.pooling_type;
}

int32_t gl_rank_scores(const llama_model * model) {
    const ggml_tensor * head = model->cls_out ? model->cls_out : model->cls;
    // llama.cpp reads as many scores as the file has labels, whatever the width of the head.
    return head && head->ne[1] == static_cast<int64_t>(model->hparams.n_cls_out) ? static_cast<int32_t>(head->ne[1]) : 0;
}

int32_t gl_decode(llama_context * context, const llama_batch * batch) {
    return guarded<int32_t>(GL_EXCEPTION, [&] {
        const int32_t status = llama_decode(context, *batch);
        llama_synchronize(context);
        return status;
    });
}

int32_t gl_tokenize(const llama_vocab * vocab, const char * text, int32_t length, llama_token * tokens, int32_t capacity,
                    bool add_special, bool parse_special) {
    return guarded<int32_t>(GL_EXCEPTION, [&] {
        return llama_tokenize(vocab, text, length, tokens, capacity, add_special, parse_special);
    });
}

int32_t gl_token_to_piece(const llama_vocab * vocab, llama_token token, char * bytes, int32_t capacity, bool special) {
    return guarded<int32_t>(GL_EXCEPTION,
                            [&] { return llama_token_to_piece(vocab, token, bytes, capacity, 0, special); });
}

int32_t gl_detokenize(const llama_vocab * vocab, const llama_token * tokens, int32_t count, char * bytes,
                      int32_t capacity, bool special) {
    return guarded<int32_t>(GL_EXCEPTION, [&] {
        return llama_detokenize(vocab, tokens, count, bytes, capacity, /*remove_special=*/false, special);
    });
}

bool gl_sequence_truncate(llama_context * context, llama_seq_id sequence, llama_pos from) {
    return guarded(false, [&] { return llama_memory_seq_rm(llama_get_memory(context), sequence, from, -1); });
}

bool gl_sequence_remove(llama_context * context, llama_seq_id sequence, llama_pos from, llama_pos to) {
    return guarded(false, [&] {
        llama_memory_t memory = llama_get_memory(context);
        // llama.cpp aborts when a memory that cannot shift has to, at the next decode.
        if (!llama_memory_can_shift(memory) || !llama_memory_seq_rm(memory, sequence, from, to)) {
            return false;
        }
        llama_memory_seq_add(memory, sequence, to, -1, from - to);
        return true;
    });
}

bool gl_sequence_remove_apart(llama_context * context, llama_seq_id sequence, llama_pos from, llama_pos to,
                              llama_seq_id other) {
    return guarded(false, [&] {
        llama_memory_t memory = llama_get_memory(context);
        if (!llama_memory_can_shift(memory)) {
            return false;
        }
        context->memory_update(false);
        // Enough for less than all of it, and allocated before anything changes.
        std::vector<uint8_t> bytes(llama_state_seq_get_size(context, sequence));
        if (!llama_memory_seq_rm(memory, sequence, -1, to)) {
            return false;
        }
        const size_t size = llama_state_seq_get_data(context, bytes.data(), bytes.size(), sequence);
        llama_memory_seq_rm(memory, sequence, -1, -1);
        if (size == 0 || llama_state_seq_set_data(context, bytes.data(), size, sequence) != size) {
            llama_memory_seq_rm(memory, sequence, -1, -1);
            return false;
        }
        llama_memory_seq_add(memory, sequence, to, -1, from - to);
        if (from > 0) {
            llama_memory_seq_cp(memory, other, sequence, 0, from);
        }
        return true;
    });
}

bool gl_can_shift(llama_context * context) {
    return guarded(false, [&] {
        llama_memory_t memory = llama_get_memory(context);
        return memory && llama_memory_can_shift(memory);
    });
}

bool gl_sequence_copy(llama_context * context, llama_seq_id from, llama_seq_id to) {
    return guarded(false, [&] {
        llama_memory_t memory = llama_get_memory(context);
        if (!llama_memory_seq_rm(memory, to, -1, -1)) {
            return false;
        }
        llama_memory_seq_cp(memory, from, to, -1, -1);
        return true;
    });
}

llama_adapter_lora * gl_adapter_load(llama_model * model, const char * path) {
    return guarded<llama_adapter_lora *>(nullptr, [&] {
#ifdef GGUF_LOADER_BITNET
        llama_adapter_lora * adapter = bitnet::load_adapter(model, path);
#else
        llama_adapter_lora * adapter = llama_adapter_lora_init(model, path);
#endif
        if (adapter && changes_tied_output(*model, *adapter)) {
            llama_adapter_lora_free(adapter);
            throw std::runtime_error("it changes `token_embd.weight`, which is the output matrix of this model too, where it cannot "
                                     "be applied: merge the adapter into the model");
        }
        return adapter;
    });
}

// llama.cpp takes adapters over before it reserves memory for the graph with them. Where that fails it would keep pointers
// that the caller lets go of, so they are taken away again.
bool gl_set_adapters(llama_context * context, llama_adapter_lora ** adapters, size_t count, float * scales) {
    const bool done = guarded(false, [&] {
        context->set_adapters_lora(adapters, count, scales);
        // At once, under the caller's lock: it counts the nodes of the model's adapters, a list that others may change.
        context->sched_reserve();
        return true;
    });
    return done || guarded(false, [&] {
        context->set_adapters_lora(nullptr, 0, nullptr);
        context->sched_reserve();
        return false;
    });
}

bool gl_set_directions(llama_context * context, const float * rows, size_t count, int32_t width, int32_t first,
                       int32_t last) {
    const bool done = guarded(false, [&] {
        const bool taken = context->set_adapter_cvec(rows, count, width, first, last);
        context->sched_reserve();
        return taken;
    });
    return done || guarded(false, [&] {
        context->set_adapter_cvec(nullptr, 0, 0, 0, 0);
        context->sched_reserve();
        return false;
    });
}

uint32_t gl_sequence_state_version(void) {
    return LLAMA_STATE_SEQ_VERSION;
}

size_t gl_sequence_state_size(llama_context * context, llama_seq_id sequence) {
    return guarded<size_t>(0, [&] {
        // Keys that are to be turned are turned at the next decode, and would be saved as they are.
        context->memory_update(false);
        return llama_state_seq_get_size(context, sequence);
    });
}

size_t gl_sequence_state_save(llama_context * context, llama_seq_id sequence, uint8_t * bytes, size_t size) {
    return guarded<size_t>(0, [&] { return llama_state_seq_get_data(context, bytes, size, sequence); });
}

size_t gl_sequence_state_restore(llama_context * context, llama_seq_id sequence, const uint8_t * bytes, size_t size) {
    llama_memory_t memory = llama_get_memory(context);
    const auto forget = [&] {
        if (sequence < 0) {
            llama_memory_clear(memory, false);
            return true;
        }
        return llama_memory_seq_rm(memory, sequence, -1, -1);
    };
    const size_t read = guarded<size_t>(0, [&] {
        context->memory_update(false);
        forget();
        return llama_state_seq_set_data(context, bytes, size, sequence);
    });
    if (read != size) {
        guarded(false, forget);
        return 0;
    }
    return read;
}

bool gl_sequences_clear(llama_context * context) {
    return guarded(false, [&] {
        llama_memory_clear(llama_get_memory(context), false);
        return true;
    });
}

const void * gl_cpu_graph_compute(const llama_context * context) {
    ggml_backend_sched_t scheduler = context->get_sched();
    for (int i = 0; scheduler && i < ggml_backend_sched_get_n_backends(scheduler); ++i) {
        ggml_backend_t backend = ggml_backend_sched_get_backend(scheduler, i);
        if (ggml_backend_dev_type(ggml_backend_get_device(backend)) == GGML_BACKEND_DEVICE_TYPE_CPU) {
            return reinterpret_cast<const void *>(backend->iface.graph_compute);
        }
    }
    return nullptr;
}

const void * gl_registration_graph_compute(ggml_backend_reg_t registration) {
    return guarded<const void *>(nullptr, [&]() -> const void * {
        ggml_backend_t backend = ggml_backend_dev_init(ggml_backend_reg_dev_get(registration, 0), nullptr);
        if (!backend) {
            return nullptr;
        }
        const void * function = reinterpret_cast<const void *>(backend->iface.graph_compute);
        ggml_backend_free(backend);
        return function;
    });
}

gl_product * gl_product_new(ggml_backend_reg_t registration, ggml_threadpool_t threads, int32_t n_threads, ggml_type type,
                            int64_t rows, int64_t columns, const void * data) {
    return guarded<gl_product *>(nullptr, [&]() -> gl_product * {
        auto product = std::make_unique<gl_product>(registration, threads, n_threads, type, rows, columns);
        if (!product->buffer) {
            throw std::runtime_error("out of memory");
        }
        ggml_backend_tensor_set(product->weights, data, 0, ggml_nbytes(product->weights));
        return product.release();
    });
}

void gl_product_free(gl_product * product) {
    delete product;
}

uint64_t gl_product_bytes(const gl_product * product) {
    const ggml_tensor * weights = product->weights;
#ifdef GGUF_LOADER_BITNET
    if (is_ternary(weights)) {
        const auto * header = static_cast<const gl_ternary_header *>(weights->data);
        const auto codes = static_cast<uint64_t>(ggml_nelements(weights)), rows = static_cast<uint64_t>(weights->ne[1]);
        const uint64_t scales = header->scale_of_row ? rows : codes / static_cast<uint64_t>(ggml_blck_size(weights->type));
        return codes / (header->dense ? 5 : 4) + scales * sizeof(float);
    }
#endif
    return ggml_backend_buffer_get_alloc_size(product->buffer.get(), weights);
}

bool gl_product_multiply(gl_product * product, const float * inputs, int64_t stride, int64_t count, float * products) {
    return guarded(false, [&] { return product->multiply(inputs, stride, count, products); });
}

gl_attention * gl_attention_new(ggml_backend_reg_t registration, ggml_threadpool_t threads, int32_t n_threads,
                                enum ggml_type type, int64_t heads, int64_t positions, int64_t key_size, int64_t value_size,
                                const float * keys, const float * values) {
    return guarded<gl_attention *>(nullptr, [&] {
        return new gl_attention(registration, threads, n_threads, type, heads, positions, key_size, value_size, keys, values);
    });
}

void gl_attention_free(gl_attention * attention) {
    delete attention;
}

bool gl_attention_attend(gl_attention * attention, int64_t tokens, int64_t heads, const float * queries, float scale,
                         float max_bias, const float * mask, float * results) {
    return guarded(false, [&] {
        attention->attend(tokens, heads, queries, scale, max_bias, mask, results);
        return true;
    });
}

} // extern "C"
