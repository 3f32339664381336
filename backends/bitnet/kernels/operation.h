// Products that share an input, as one node of a graph.
//
// BitNet multiplies the same normalised activations with Q, K and V, and with gate and up. As a node of its own each product
// would quantise them again and wait for all threads twice. A node of kind GGML_OP_CUSTOM whose first source lies in the
// ternary buffer, with an `Operation` as its user data, is computed by buffer.cpp instead:
//
//   sources: the weights, one to three, all of one ternary type; x; then, where the operation has them, the norm's weights, the residual, and a scale
//   for each of the weights (F32, one element).
//
//   y = residual + concatenation of scale[i] * (weights[i] @ quantised(norm(x)))                     without `gate`
//   y = relu(scale[0] * (weights[0] @ q))^2 * (scale[1] * (weights[1] @ q))                          with it
//
// Included by the tiers, which compute, and by the architecture, which builds the graph.
#pragma once

#include <stdint.h>

// What ggml_backend_buft_name() says of the buffer type.
#define GL_TERNARY_BUFFER "CPU_TERNARY"

// What stands at the beginning of a ternary tensor's memory; its scales and codes follow.
struct gl_ternary_header {
    bool scale_of_row; // one a row, not one a block
    bool dense;        // five weights in a byte
};

struct gl_ternary_operation {
    int32_t weights;    // how many, 1 to 3
    bool norm;          // whether there is a root mean square norm before
    bool residual;      // whether there is something to add
    bool scales;        // whether each of the weights has a scale
    bool gate;          // two weights, combined as above
    float norm_epsilon;
    float floor;        // the least magnitude that a row of activations is scaled to
};
