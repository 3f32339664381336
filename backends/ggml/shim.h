// C interface of shim.cpp. `ffi.rs` declares the same functions; keep the two in step.
//
// Every function here calls code of llama.cpp that may throw. An exception never crosses into Rust: the function returns
// its error value, and gl_last_error() has the message until the next call on the same thread.
#pragma once

#include "llama.h"

#ifdef __cplusplus
extern "C" {
#endif

// Message of the last exception on this thread; empty when there was none.
const char * gl_last_error(void);

// Whether llama.cpp has a graph for this value of `general.architecture`.
bool gl_knows_architecture(const char * name);

// NULL on failure. `architecture` is what the file says of itself. `devices` is a NULL-terminated list; an empty list keeps
// everything on the CPU.
struct llama_model * gl_model_load(const char * path, const char * architecture, const struct llama_model_params * params);

// Whether the ternary kernels really run: how many of the model's ternary tensors lie in the ternary buffer, by the form that they
// have there, and whether products that share an input are one node.
typedef struct gl_ternary_use {
    int32_t two_bits;
    int32_t dense;
    bool fused;
} gl_ternary_use;
gl_ternary_use gl_ternary_use_of(const struct llama_model * model);

// NULL on failure.
struct llama_context * gl_context_new(struct llama_model * model, const struct llama_context_params * params);

// The longest context that the model's table of positions allows; 0 for a model without one (RoPE, ALiBi).
int64_t gl_position_limit(const struct llama_model * model);

// Whether tokens see only those before them. llama.cpp asserts that other batches are a single ubatch.
bool gl_is_causal(const struct llama_context * context);

// How the model's file wants states pooled: a value of llama_pooling_type.
int32_t gl_pooling(const struct llama_model * model);

// How many scores the model's classification head gives; 0 for a model without one.
int32_t gl_rank_scores(const struct llama_model * model);

// What llama_decode returns; GL_EXCEPTION after an exception.
int32_t gl_decode(struct llama_context * context, const struct llama_batch * batch);

// What llama_tokenize, llama_token_to_piece and llama_detokenize return; GL_EXCEPTION after an exception.
int32_t gl_tokenize(const struct llama_vocab * vocab, const char * text, int32_t length, llama_token * tokens,
                    int32_t capacity, bool add_special, bool parse_special);
int32_t gl_token_to_piece(const struct llama_vocab * vocab, llama_token token, char * bytes, int32_t capacity,
                          bool special);
int32_t gl_detokenize(const struct llama_vocab * vocab, const llama_token * tokens, int32_t count, char * bytes,
                      int32_t capacity, bool special);

// false when the memory cannot do it, and after an exception.
bool gl_sequence_truncate(struct llama_context * context, llama_seq_id sequence, llama_pos from);
// Removes the positions `from` to before `to`, and moves those after them up.
bool gl_sequence_remove(struct llama_context * context, llama_seq_id sequence, llama_pos from, llama_pos to);
// The same where `other` has the cells before `from` too, and cells from `to` on belong to others as well: the sequence gets
// copies of those, which move alone. false when the memory cannot do it, and after an exception; then the sequence may be empty.
bool gl_sequence_remove_apart(struct llama_context * context, llama_seq_id sequence, llama_pos from, llama_pos to,
                              llama_seq_id other);
bool gl_sequence_copy(struct llama_context * context, llama_seq_id from, llama_seq_id to);
// Whether positions can be moved.
bool gl_can_shift(struct llama_context * context);
// NULL on failure. The file was checked: see src/adapter.
struct llama_adapter_lora * gl_adapter_load(struct llama_model * model, const char * path);
// Applies these adapters and no others, and makes room for the graph that they need. false on failure.
bool gl_set_adapters(struct llama_context * context, struct llama_adapter_lora ** adapters, size_t count, float * scales);
// Adds rows of the hidden state's width, from block 1 on, after the blocks `first` to `last`; NULL adds none. false on failure.
bool gl_set_directions(struct llama_context * context, const float * rows, size_t count, int32_t width, int32_t first,
                       int32_t last);
// Which form of state this llama.cpp writes and reads.
uint32_t gl_sequence_state_version(void);
// Bytes of what the cache holds of a sequence, or with -1 of all; 0 after an exception. What was asked of the cache before is
// done first.
size_t gl_sequence_state_size(struct llama_context * context, llama_seq_id sequence);
// Bytes that were written; 0 on failure.
size_t gl_sequence_state_save(struct llama_context * context, llama_seq_id sequence, uint8_t * bytes, size_t size);
// Bytes that were read; 0 on failure, and then the sequence, or with -1 the cache, is empty.
size_t gl_sequence_state_restore(struct llama_context * context, llama_seq_id sequence, const uint8_t * bytes, size_t size);
bool gl_sequences_clear(struct llama_context * context);

// The function that computes graphs on the context's CPU backend: which tier really runs. NULL when there is none.
const void * gl_cpu_graph_compute(const struct llama_context * context);

// The same function of a registration, to compare with.
const void * gl_registration_graph_compute(ggml_backend_reg_t registration);

// A matrix of `type`, in plain form at `data`, on the CPU of `registration`: it lies where a model's would, repacked if the
// tier repacks this type. NULL on failure.
typedef struct gl_product gl_product;
gl_product * gl_product_new(ggml_backend_reg_t registration, ggml_threadpool_t threads, int32_t n_threads,
                            enum ggml_type type, int64_t rows, int64_t columns, const void * data);
void gl_product_free(gl_product * product);

// Bytes of the matrix as it is multiplied.
uint64_t gl_product_bytes(const gl_product * product);

// Multiplies with `count` rows that begin `stride` floats apart, and writes the products one row after another. false on
// failure.
bool gl_product_multiply(gl_product * product, const float * inputs, int64_t stride, int64_t count, float * products);

// Keys and values, [position][head][element], in a cache of `type` on the CPU of `registration`. NULL on failure.
typedef struct gl_attention gl_attention;
gl_attention * gl_attention_new(ggml_backend_reg_t registration, ggml_threadpool_t threads, int32_t n_threads,
                                enum ggml_type type, int64_t heads, int64_t positions, int64_t key_size, int64_t value_size,
                                const float * keys, const float * values);
void gl_attention_free(gl_attention * attention);

// Attends with queries[token][head][element] and mask[token][position], and writes results[token][head][element]. false on
// failure.
bool gl_attention_attend(gl_attention * attention, int64_t tokens, int64_t heads, const float * queries, float scale,
                         float max_bias, const float * mask, float * results);

#define GL_EXCEPTION INT32_MIN

#ifdef __cplusplus
}
#endif
