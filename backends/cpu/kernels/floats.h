// What attention needs of an instruction set: `FloatLanes`, and `HalfLanes` where few of a vector's lanes have something to do.
//
// FloatLanes are the floats of `Lanes`, but with AVX without AVX2, which has 256 bits for floats and 128 for integers. HalfLanes are the
// same, but with AVX-512: CPUs that take two cycles for 512 bits, as Zen 4 does, compute with 256 in half the time.
#pragma once

#include "lanes.h"

namespace kernels {

#if defined(__AVX__) && (!defined(__AVX2__) || defined(__AVX512F__))

struct AvxLanes {
    static constexpr int COUNT = 8;
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
    // Rounded half to even.
    static GL_INLINE Floats whole(Floats floats) { return _mm256_round_ps(floats, _MM_FROUND_TO_NEAREST_INT); }
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

#endif

#if defined(__AVX__) && !defined(__AVX2__)
using FloatLanes = AvxLanes;
#else
using FloatLanes = Lanes;
#endif

#if defined(__AVX512F__)
using HalfLanes = AvxLanes;
#else
using HalfLanes = FloatLanes;
#endif

} // namespace kernels
