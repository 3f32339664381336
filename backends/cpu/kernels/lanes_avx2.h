// 256 bits. With AVX-VNNI one instruction multiplies and adds four bytes a lane; without, sums are 16 bits wide for a while.
#pragma once

#include <immintrin.h>

namespace kernels {

struct Lanes {
    static constexpr int COUNT = 8;
    static constexpr int REGISTERS = 16;
    static constexpr int GROUPS = 2;

    using Bytes = __m256i;
    using Partial = __m256i;
    using Ints = __m256i;
    using Floats = __m256;

    static GL_INLINE Bytes load(const uint8_t * bytes) {
        return _mm256_loadu_si256(reinterpret_cast<const __m256i *>(bytes));
    }
    static GL_INLINE void store(uint8_t * bytes, Bytes stored) {
        _mm256_storeu_si256(reinterpret_cast<__m256i *>(bytes), stored);
    }
    static GL_INLINE Bytes broadcast(const int8_t * bytes) {
#if defined(__GNUC__) && !defined(__AVXVNNI__)
        // As an intrinsic gcc 12 loads into a general register first, since it moves no load over the instruction of multiply_add.
        Bytes four;
        __asm__("vpbroadcastd %1, %0" : "=x"(four) : "m"(*reinterpret_cast<const int8_t(*)[4]>(bytes)));
        return four;
#else
        return _mm256_set1_epi32(load_dword(bytes));
#endif
    }
    static GL_INLINE Bytes broadcast(uint8_t byte) { return _mm256_set1_epi8(static_cast<char>(byte)); }
    static GL_INLINE Bytes masked(Bytes bytes, Bytes mask) { return _mm256_and_si256(bytes, mask); }
    static GL_INLINE Bytes merged(Bytes left, Bytes right) { return _mm256_or_si256(left, right); }
    template <int BITS> static GL_INLINE Bytes right(Bytes bytes) { return _mm256_srli_epi16(bytes, BITS); }
    template <int BITS> static GL_INLINE Bytes left(Bytes bytes) { return _mm256_slli_epi16(bytes, BITS); }
    static GL_INLINE Partial zero() { return _mm256_setzero_si256(); }

#if defined(__AVXVNNI__)
    static constexpr int limit(int weight) { return INT32_MAX / (weight * 127 * 4); }
    static constexpr bool WIDE = true;
    static constexpr int TILE = 6; // with 4 there are too few sums to hide the latency of an addition: a fifth slower
    static constexpr size_t CACHE = 128 * 1024;
    static GL_INLINE Partial multiply_add(Partial sum, Bytes weights, Bytes activations) {
        return _mm256_dpbusd_avx_epi32(sum, weights, activations);
    }
    static GL_INLINE Ints sum(Partial partial) { return partial; }
#else
    static constexpr int limit(int weight) { return INT16_MAX / (weight * 127 * 2); }
    static constexpr bool WIDE = false;
    static constexpr int TILE = 5;
    static constexpr size_t CACHE = 512 * 1024;
    static GL_INLINE Partial multiply_add(Partial sum, Bytes weights, Bytes activations) {
        const __m256i products = _mm256_maddubs_epi16(weights, activations);
#if defined(__GNUC__)
        // As an intrinsic gcc 12 gives each sum another register and moves it back: a fifth of all instructions.
        __asm__("vpaddw %1, %0, %0" : "+x"(sum) : "x"(products));
        return sum;
#else
        return _mm256_add_epi16(sum, products);
#endif
    }
    static GL_INLINE Ints sum(Partial partial) { return _mm256_madd_epi16(partial, _mm256_set1_epi16(1)); }
#endif

    static GL_INLINE Ints ints(int32_t value) { return _mm256_set1_epi32(value); }
    static GL_INLINE Ints load(const int32_t * values) {
        return _mm256_loadu_si256(reinterpret_cast<const __m256i *>(values));
    }
    static GL_INLINE void store(int32_t * values, Ints ints) {
        _mm256_storeu_si256(reinterpret_cast<__m256i *>(values), ints);
    }
    static GL_INLINE Ints add(Ints left, Ints right) { return _mm256_add_epi32(left, right); }
    static GL_INLINE Ints subtract(Ints left, Ints right) { return _mm256_sub_epi32(left, right); }
    static GL_INLINE Ints multiply(Ints left, Ints right) { return _mm256_mullo_epi32(left, right); }
    template <int BITS> static GL_INLINE Ints divide(Ints ints) { return _mm256_srai_epi32(ints, BITS); }
    // COUNT signed bytes, one a lane.
    static GL_INLINE Ints widen(const int8_t * bytes) {
        return _mm256_cvtepi8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i *>(bytes)));
    }

    static GL_INLINE Floats floats(float value) { return _mm256_set1_ps(value); }
    static GL_INLINE Floats load(const float * values) { return _mm256_loadu_ps(values); }
    static GL_INLINE void store(float * values, Floats floats) { _mm256_storeu_ps(values, floats); }
    static GL_INLINE Floats convert(Ints ints) { return _mm256_cvtepi32_ps(ints); }
    static GL_INLINE Floats add(Floats left, Floats right) { return _mm256_add_ps(left, right); }
    static GL_INLINE Floats multiply(Floats left, Floats right) { return _mm256_mul_ps(left, right); }
    static GL_INLINE Floats larger(Floats left, Floats right) { return _mm256_max_ps(left, right); }
    static GL_INLINE Floats subtract(Floats left, Floats right) { return _mm256_sub_ps(left, right); }
    // left * right + sum
    static GL_INLINE Floats multiply_add(Floats left, Floats right, Floats sum) { return _mm256_fmadd_ps(left, right, sum); }
    // Rounded half to even.
    static GL_INLINE Floats whole(Floats floats) { return _mm256_round_ps(floats, _MM_FROUND_TO_NEAREST_INT); }
    // 2 to the power of whole numbers, -126..127.
    static GL_INLINE Floats power_of_two(Floats whole) {
        const __m256i biased = _mm256_add_epi32(_mm256_cvtps_epi32(whole), _mm256_set1_epi32(127));
        return _mm256_castsi256_ps(_mm256_slli_epi32(biased, 23));
    }
    // 0 where `left` is less than `right`.
    static GL_INLINE Floats zero_where_less(Floats floats, Floats left, Floats right) {
        return _mm256_andnot_ps(_mm256_cmp_ps(left, right, _CMP_LT_OQ), floats);
    }
    static GL_INLINE Floats magnitude(Floats floats) { return _mm256_andnot_ps(_mm256_set1_ps(-0.0f), floats); }
    static GL_INLINE float largest(Floats floats) {
        __m128 four = _mm_max_ps(_mm256_castps256_ps128(floats), _mm256_extractf128_ps(floats, 1));
        four = _mm_max_ps(four, _mm_movehl_ps(four, four));
        return _mm_cvtss_f32(_mm_max_ss(four, _mm_movehdup_ps(four)));
    }
    static GL_INLINE float total(Floats floats) {
        __m128 four = _mm_add_ps(_mm256_castps256_ps128(floats), _mm256_extractf128_ps(floats, 1));
        four = _mm_add_ps(four, _mm_movehl_ps(four, four));
        return _mm_cvtss_f32(_mm_add_ss(four, _mm_movehdup_ps(four)));
    }
    // Rounded half to even, within -127..127. NaN becomes -127.
    static GL_INLINE Ints round(Floats floats) {
        return _mm256_cvtps_epi32(_mm256_min_ps(_mm256_max_ps(floats, _mm256_set1_ps(-127.0f)), _mm256_set1_ps(127.0f)));
    }
    static GL_INLINE void store_bytes(int8_t * bytes, Ints ints) {
        const __m128i words = _mm_packs_epi32(_mm256_castsi256_si128(ints), _mm256_extracti128_si256(ints, 1));
        _mm_storel_epi64(reinterpret_cast<__m128i *>(bytes), _mm_packs_epi16(words, words));
    }
    static GL_INLINE int32_t total(Ints ints) {
        __m128i four = _mm_add_epi32(_mm256_castsi256_si128(ints), _mm256_extracti128_si256(ints, 1));
        four = _mm_add_epi32(four, _mm_shuffle_epi32(four, 0x4e));
        return _mm_cvtsi128_si32(_mm_add_epi32(four, _mm_shuffle_epi32(four, 0xb1)));
    }
    static GL_INLINE void prefetch(const uint8_t * bytes) {
        _mm_prefetch(reinterpret_cast<const char *>(bytes), _MM_HINT_T0);
    }
};

} // namespace kernels
