// What is computed here in place of ggml: a prompt's products of two matrices, by panel.h, of weights as they are in a file and of those
// that ggml repacked, and attention, by attention.h.
#define GGML_COMMON_IMPL_CPP
#include "ggml-common.h"

#include "ggml-backend-impl.h"
#include "ggml-cpu-impl.h"
#include "ggml-cpu.h"
#include "simd-mappings.h"

// ggml's functions, under other names, do what this file does not.
#define llamafile_sgemm ggml_llamafile_sgemm
#include "llamafile/sgemm.cpp"
#undef llamafile_sgemm
#define ggml_cpu_extra_compute_forward ggml_cpu_extra_compute_forward_own
#define ggml_cpu_extra_work_size ggml_cpu_extra_work_size_own
#include "traits.cpp"
#undef ggml_cpu_extra_compute_forward
#undef ggml_cpu_extra_work_size

#include "attention.h"
#include "prompt.h"

#if defined(__AVX512VNNI__) || defined(__AVXVNNI__)

#include "panel.h"
#include "repacked.h"

namespace prompt {

// Whether it was a product for panel.h.
bool multiplied(const ggml_compute_params * params, const Sizes & sizes, const void * weights, int64_t stride,
                void * activations, float * products, int weights_type, int activations_type) {
    const auto of = [&](auto * stored, ggml_type expected) {
        using Block = std::remove_const_t<std::remove_pointer_t<decltype(stored)>>;
        if (activations_type != expected) {
            return false;
        }
        auto * quantised = static_cast<typename Format<Block>::Activations *>(activations);
        multiply(params, sizes, Rows<Block>{stored, stride}, quantised, products);
        return true;
    };
    switch (weights_type) {
        case GGML_TYPE_Q8_0:   return of(static_cast<const block_q8_0 *>(weights), GGML_TYPE_Q8_0);
        case GGML_TYPE_Q4_0:   return of(static_cast<const block_q4_0 *>(weights), GGML_TYPE_Q8_0);
        case GGML_TYPE_Q5_0:   return of(static_cast<const block_q5_0 *>(weights), GGML_TYPE_Q8_0);
        case GGML_TYPE_IQ4_NL: return of(static_cast<const block_iq4_nl *>(weights), GGML_TYPE_Q8_0);
        case GGML_TYPE_Q4_1:   return of(static_cast<const block_q4_1 *>(weights), GGML_TYPE_Q8_1);
        case GGML_TYPE_Q5_1:   return of(static_cast<const block_q5_1 *>(weights), GGML_TYPE_Q8_1);
        case GGML_TYPE_Q2_K:   return of(static_cast<const block_q2_K *>(weights), GGML_TYPE_Q8_K);
        case GGML_TYPE_Q3_K:   return of(static_cast<const block_q3_K *>(weights), GGML_TYPE_Q8_K);
        case GGML_TYPE_Q4_K:   return of(static_cast<const block_q4_K *>(weights), GGML_TYPE_Q8_K);
        case GGML_TYPE_Q5_K:   return of(static_cast<const block_q5_K *>(weights), GGML_TYPE_Q8_K);
        case GGML_TYPE_Q6_K:   return of(static_cast<const block_q6_K *>(weights), GGML_TYPE_Q8_K);
        case GGML_TYPE_IQ4_XS: return of(static_cast<const block_iq4_xs *>(weights), GGML_TYPE_Q8_K);
        default:               return false;
    }
}

// A matrix in one of ggml's repacked forms.
template <typename Eight> struct EightRows {
    using Block = RowOf<Eight>;
    const Eight * first;
    int64_t stride; // of eight rows, in blocks

    Block block(int64_t row, int64_t b) const { return {first[row / 8 * stride + b], row % 8}; }
};

// The product of a node whose weights were repacked.
template <typename Eight>
void multiply_repacked(const ggml_compute_params * params, const ggml_tensor * node, ggml_type quantised_type) {
    using Activations = typename Format<RowOf<Eight>>::Activations;
    const ggml_tensor *weights = node->src[0], *inputs = node->src[1];
    const int64_t columns = weights->ne[0], tokens = inputs->ne[1];
    const int64_t blocks = columns / ggml_blck_size(quantised_type);
    const auto quantise = ggml_get_type_traits_cpu(quantised_type)->from_float;
    for (int64_t plane = 0; plane < inputs->ne[2]; ++plane) {
        auto * quantised = static_cast<Activations *>(params->wdata) + plane * tokens * blocks;
        const char * of_plane = static_cast<const char *>(inputs->data) + plane * inputs->nb[2];
        for (int64_t token = params->ith; token < tokens; token += params->nth) {
            const auto * input = reinterpret_cast<const float *>(of_plane + token * inputs->nb[1]);
            quantise(input, quantised + token * blocks, columns);
        }
        char * products = static_cast<char *>(node->data) + plane * node->nb[2];
        const Sizes sizes = {weights->ne[1], tokens, blocks, blocks, static_cast<int64_t>(node->nb[1] / sizeof(float))};
        multiply(params, sizes, EightRows<Eight>{static_cast<const Eight *>(weights->data), blocks}, quantised,
                 reinterpret_cast<float *>(products));
    }
}

// Whether a node was a product with repacked weights for panel.h.
bool multiplied_repacked(const ggml_compute_params * params, const ggml_tensor * node) {
#if defined(GGML_USE_CPU_REPACK)
    if (node->op != GGML_OP_MUL_MAT || !node->src[0]->extra || node->src[1]->type != GGML_TYPE_F32 || params->use_ref ||
        !takes(node->src[0]->type, node->src[1]->ne[1]) || node->src[1]->ne[3] != 1 || ggml_n_dims(node->src[0]) != 2 ||
        node->src[0]->buffer->buft != ggml_backend_cpu_repack_buffer_type()) {
        return false;
    }
    switch (node->src[0]->type) {
        case GGML_TYPE_Q4_0:   return multiply_repacked<block_q4_0x8>(params, node, GGML_TYPE_Q8_0), true;
        case GGML_TYPE_IQ4_NL: return multiply_repacked<block_iq4_nlx8>(params, node, GGML_TYPE_Q8_0), true;
        case GGML_TYPE_Q4_K:   return multiply_repacked<block_q4_Kx8>(params, node, GGML_TYPE_Q8_K), true;
        default:               return false;
    }
#else
    (void) params, (void) node;
    return false;
#endif
}

} // namespace prompt

#endif

// What ggml calls for each product of two matrices, of `blocks` blocks a row: products[token][row], strides in blocks of each
// type. It computes the product itself where this answers false.
extern "C" bool llamafile_sgemm(const ggml_compute_params * params, int64_t rows, int64_t tokens, int64_t blocks,
                                const void * weights, int64_t weights_stride, const void * activations,
                                int64_t activations_stride, void * products, int64_t products_stride, int weights_type,
                                int activations_type, int products_type) {
#if defined(__AVX512VNNI__) || defined(__AVXVNNI__)
    // Of activations elsewhere somebody else may be the owner.
    const char *memory = static_cast<const char *>(params->wdata), *bytes = static_cast<const char *>(activations);
    const bool ours = memory && bytes >= memory && bytes < memory + params->wsize;
    const prompt::Sizes sizes = {rows, tokens, blocks, activations_stride, products_stride};
    if (ours && prompt::takes(static_cast<ggml_type>(weights_type), tokens) && products_type == GGML_TYPE_F32 &&
        prompt::multiplied(params, sizes, weights, weights_stride, const_cast<void *>(activations),
                           static_cast<float *>(products), weights_type, activations_type)) {
        return true;
    }
#endif
    return ggml_llamafile_sgemm(params, rows, tokens, blocks, weights, weights_stride, activations, activations_stride,
                                products, products_stride, weights_type, activations_type, products_type);
}

// What ggml calls for each node, before it computes it itself where this answers false: types of buffers with kernels of their own,
// the repacked ones among them.
extern "C" bool ggml_cpu_extra_compute_forward(ggml_compute_params * params, ggml_tensor * node) {
#if defined(__AVX512VNNI__) || defined(__AVXVNNI__)
    if (prompt::multiplied_repacked(params, node)) {
        return true;
    }
#endif
    return attention::computed(params, node) || ggml_cpu_extra_compute_forward_own(params, node);
}

// What ggml asks before, for the memory that all threads share while they compute a node.
extern "C" bool ggml_cpu_extra_work_size(int threads, const ggml_tensor * node, size_t * size) {
    if (attention::takes(node)) {
        *size = attention::work_size(node, threads);
        return true;
    }
    return ggml_cpu_extra_work_size_own(threads, node, size);
}
