// A product of a graph, taken apart: which weights, which input, and what comes before and after.
#pragma once

#include "packing.h"

namespace ternary {

// A row of activations of smaller values is taken for zeros; far below what float models compute with.
constexpr float LEAST_MAGNITUDE = 1e-30f;

inline const float * row_of(const ggml_tensor * input, int64_t i) {
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

} // namespace ternary
