// ggml's products of K-quants with many tokens, which it tries before all others: where prompt.cpp has one, it goes first.
#define ggml_compute_forward_mul_mat_tiled ggml_compute_forward_mul_mat_own
#include "tiled/tiled.cpp"
#undef ggml_compute_forward_mul_mat_tiled

#include "prompt.h"

extern "C" bool ggml_compute_forward_mul_mat_tiled(const ggml_compute_params * params, ggml_tensor * dst) {
    const ggml_tensor *weights = dst->src[0], *activations = dst->src[1];
    // Weights in other buffers' forms do not come here. Activations that come quantised are not ours to change.
    const bool ours = !weights->extra && !params->use_ref && activations->type == GGML_TYPE_F32 &&
                      prompt::takes(weights->type, activations->ne[1]);
    return !ours && ggml_compute_forward_mul_mat_own(params, dst);
}
