// What attention needs of an instruction set, under one name: `FloatLanes`. The compiler flags of the tier choose which.
//
// It is not `Lanes`: AVX without AVX2 has 256 bits for floats and 128 for integers.
//
// A `FloatLanes` has
//   COUNT            floats of a vector
//   REGISTERS        vectors that fit into registers
//   Floats           COUNT floats
// and the functions on them that `attention.h` is written with.
#pragma once

#include "lanes.h"

namespace kernels {

#if defined(__AVX512F__)

struct FloatLanes {
    static constexpr int COUNT = 16;
    static constexpr int REGISTERS = 32;
    using Floats = __m512;

    static GL_INLINE Floats floats(float value) { return _mm512_set1_ps(value); }
    static GL_INLINE Floats load(const float * values) { return _mm512_loadu_ps(values); }
    static GL_INLINE void store(float * values, Floats floats) { _mm512_storeu_ps(values, floats); }
    static GL_INLINE Floats add(Floats left, Floats right) { return _mm512_add_ps(left, right); }
    static GL_INLINE Floats subtract(Floats left, Floats right) { return _mm512_sub_ps(left, right); }
    static GL_INLINE Floats multiply(Floats left, Floats right) { return _mm512_mul_ps(left, right); }
    static GL_INLINE Floats larger(Floats left, Floats right) { return _mm512_max_ps(left, right); }
    // left * right + sum
    static GL_INLINE Floats multiply_add(Floats left, Floats right, Floats sum) { return _mm512_fmadd_ps(left, right, sum); }
    static GL_INLINE Floats round(Floats floats) { return _mm512_roundscale_ps(floats, _MM_FROUND_TO_NEAREST_INT); }
    // 2 to the power of whole numbers, -126..127.
    static GL_INLINE Floats power_of_two(Floats whole) {
        const __m512i biased = _mm512_add_epi32(_mm512_cvtps_epi32(whole), _mm512_set1_epi32(127));
        return _mm512_castsi512_ps(_mm512_slli_epi32(biased, 23));
    }
    // 0 where `left` is less than `right`.
    static GL_INLINE Floats zero_where_less(Floats floats, Floats left, Floats right) {
        return _mm512_maskz_mov_ps(_mm512_cmp_ps_mask(left, right, _CMP_NLT_UQ), floats);
    }
};

#elif defined(__AVX__)

struct FloatLanes {
    static constexpr int COUNT = 8;
    static constexpr int REGISTERS = 16;
    using Floats = __m256;

    static GL_INLINE Floats floats(float value) { return _mm256_set1_ps(value); }
    static GL_INLINE Floats load(const float * values) { return _mm256_loadu_ps(values); }
    static GL_INLINE void store(float * values, Floats floats) { _mm256_storeu_ps(values, floats); }
    static GL_INLINE Floats add(Floats left, Floats right) { return _mm256_add_ps(left, right); }
    static GL_INLINE Floats subtract(Floats left, Floats right) { return _mm256_sub_ps(left, right); }
    static GL_INLINE Floats multiply(Floats left, Floats right) { return _mm256_mul_ps(left, right); }
    static GL_INLINE Floats larger(Floats left, Floats right) { return _mm256_max_ps(left, right); }
    // left * right + sum
    static GL_INLINE Floats multiply_add(Floats left, Floats right, Floats sum) {
#if defined(__FMA__)
        return _mm256_fmadd_ps(left, right, sum);
#else
        return _mm256_add_ps(_mm256_mul_ps(left, right), sum);
#endif
    }
    static GL_INLINE Floats round(Floats floats) { return _mm256_round_ps(floats, _MM_FROUND_TO_NEAREST_INT); }
    // 2 to the power of whole numbers, -126..127.
    static GL_INLINE Floats power_of_two(Floats whole) {
        const __m256i integers = _mm256_cvtps_epi32(whole);
        const __m128i bias = _mm_set1_epi32(127);
        const __m128i low = _mm_slli_epi32(_mm_add_epi32(_mm256_castsi256_si128(integers), bias), 23);
        const __m128i high = _mm_slli_epi32(_mm_add_epi32(_mm256_extractf128_si256(integers, 1), bias), 23);
        return _mm256_castsi256_ps(_mm256_insertf128_si256(_mm256_castsi128_si256(low), high, 1));
    }
    // 0 where `left` is less than `right`.
    static GL_INLINE Floats zero_where_less(Floats floats, Floats left, Floats right) {
        return _mm256_andnot_ps(_mm256_cmp_ps(left, right, _CMP_LT_OQ), floats);
    }
};

#elif defined(__SSE2__) || defined(_M_X64)

struct FloatLanes {
    static constexpr int COUNT = 4;
    static constexpr int REGISTERS = 16;
    using Floats = __m128;

    static GL_INLINE Floats floats(float value) { return _mm_set1_ps(value); }
    static GL_INLINE Floats load(const float * values) { return _mm_loadu_ps(values); }
    static GL_INLINE void store(float * values, Floats floats) { _mm_storeu_ps(values, floats); }
    static GL_INLINE Floats add(Floats left, Floats right) { return _mm_add_ps(left, right); }
    static GL_INLINE Floats subtract(Floats left, Floats right) { return _mm_sub_ps(left, right); }
    static GL_INLINE Floats multiply(Floats left, Floats right) { return _mm_mul_ps(left, right); }
    static GL_INLINE Floats larger(Floats left, Floats right) { return _mm_max_ps(left, right); }
    // left * right + sum
    static GL_INLINE Floats multiply_add(Floats left, Floats right, Floats sum) {
        return _mm_add_ps(_mm_mul_ps(left, right), sum);
    }
    static GL_INLINE Floats round(Floats floats) { return _mm_cvtepi32_ps(_mm_cvtps_epi32(floats)); }
    // 2 to the power of whole numbers, -126..127.
    static GL_INLINE Floats power_of_two(Floats whole) {
        return _mm_castsi128_ps(_mm_slli_epi32(_mm_add_epi32(_mm_cvtps_epi32(whole), _mm_set1_epi32(127)), 23));
    }
    // 0 where `left` is less than `right`.
    static GL_INLINE Floats zero_where_less(Floats floats, Floats left, Floats right) {
        return _mm_andnot_ps(_mm_cmplt_ps(left, right), floats);
    }
};

#else

struct FloatLanes {
    static constexpr int COUNT = 4;
    static constexpr int REGISTERS = 32;
    using Floats = float32x4_t;

    static GL_INLINE Floats floats(float value) { return vdupq_n_f32(value); }
    static GL_INLINE Floats load(const float * values) { return vld1q_f32(values); }
    static GL_INLINE void store(float * values, Floats floats) { vst1q_f32(values, floats); }
    static GL_INLINE Floats add(Floats left, Floats right) { return vaddq_f32(left, right); }
    static GL_INLINE Floats subtract(Floats left, Floats right) { return vsubq_f32(left, right); }
    static GL_INLINE Floats multiply(Floats left, Floats right) { return vmulq_f32(left, right); }
    static GL_INLINE Floats larger(Floats left, Floats right) { return vmaxq_f32(left, right); }
    // left * right + sum
    static GL_INLINE Floats multiply_add(Floats left, Floats right, Floats sum) { return vfmaq_f32(sum, left, right); }
    static GL_INLINE Floats round(Floats floats) { return vrndnq_f32(floats); }
    // 2 to the power of whole numbers, -126..127.
    static GL_INLINE Floats power_of_two(Floats whole) {
        return vreinterpretq_f32_s32(vshlq_n_s32(vaddq_s32(vcvtq_s32_f32(whole), vdupq_n_s32(127)), 23));
    }
    // 0 where `left` is less than `right`.
    static GL_INLINE Floats zero_where_less(Floats floats, Floats left, Floats right) {
        return vreinterpretq_f32_u32(vbicq_u32(vreinterpretq_u32_f32(floats), vcltq_f32(left, right)));
    }
};

#endif

} // namespace kernels
