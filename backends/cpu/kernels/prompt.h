// Which products of two matrices prompt.cpp computes in place of ggml.
#pragma once

#include "ggml.h"

namespace prompt {

// Fewer tokens do not make up for taking the weights apart.
constexpr int64_t LEAST_TOKENS = 8;

inline bool takes(ggml_type weights, int64_t tokens) {
#if defined(__AVX512VNNI__) || defined(__AVXVNNI__)
    switch (weights) {
        case GGML_TYPE_Q8_0:
        case GGML_TYPE_Q4_0:
        case GGML_TYPE_Q4_1:
        case GGML_TYPE_Q5_0:
        case GGML_TYPE_Q5_1:
        case GGML_TYPE_IQ4_NL:
        case GGML_TYPE_Q2_K:
        case GGML_TYPE_Q3_K:
        case GGML_TYPE_Q4_K:
        case GGML_TYPE_Q5_K:
        case GGML_TYPE_Q6_K:
        case GGML_TYPE_IQ4_XS:
            return tokens >= LEAST_TOKENS;
        default:
            return false;
    }
#else
    (void) weights, (void) tokens;
    return false;
#endif
}

} // namespace prompt
