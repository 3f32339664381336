// ggml's ops.cpp, with a function of ours where ggml's scales some of its numbers only.
//
// With SVE ggml_vec_scale_f16 takes vectors in pairs, and of what these leave one vector more: with vectors of 32, the last 8 of 40
// numbers stay as they are. Flash attention scales its 16-bit results with it when the maximum grows.
#include "vec.h"

#if defined(__ARM_FEATURE_SVE)
inline static void scale_f16(const int count, ggml_fp16_t * values, const float factor) {
    auto * halves = reinterpret_cast<__fp16 *>(values);
    for (int i = 0; i < count; i += static_cast<int>(svcnth())) {
        const svbool_t left = svwhilelt_b16(i, count);
        svst1_f16(left, halves + i, svmul_n_f16_x(left, svld1_f16(left, halves + i), static_cast<__fp16>(factor)));
    }
}
#define ggml_vec_scale_f16 scale_f16
#endif

#include "ops.cpp"
