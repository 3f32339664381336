// 128 bits. From SSSE3 on PMADDUBSW multiplies bytes; before, they are widened to 16 bits for PMADDWD. The AVX tiers without
// AVX2 compile the same with three operands.
#pragma once

#include <immintrin.h>

namespace kernels {

struct Lanes {
    static constexpr int COUNT = 4;
    static constexpr int REGISTERS = 16;
    static constexpr int GROUPS = 2;
    static constexpr int TILE = 4;

    using Bytes = __m128i;
    using Ints = __m128i;
    using Floats = __m128;

    static GL_INLINE Bytes load(const uint8_t * bytes) {
        return _mm_loadu_si128(reinterpret_cast<const __m128i *>(bytes));
    }
    static GL_INLINE void store(uint8_t * bytes, Bytes stored) {
        _mm_storeu_si128(reinterpret_cast<__m128i *>(bytes), stored);
    }
    static GL_INLINE Bytes broadcast(const int8_t * bytes) { return _mm_set1_epi32(load_dword(bytes)); }
    static GL_INLINE Bytes broadcast(uint8_t byte) { return _mm_set1_epi8(static_cast<char>(byte)); }
    static GL_INLINE Bytes masked(Bytes bytes, Bytes mask) { return _mm_and_si128(bytes, mask); }
    static GL_INLINE Bytes merged(Bytes left, Bytes right) { return _mm_or_si128(left, right); }
    template <int BITS> static GL_INLINE Bytes right(Bytes bytes) { return _mm_srli_epi16(bytes, BITS); }
    template <int BITS> static GL_INLINE Bytes left(Bytes bytes) { return _mm_slli_epi16(bytes, BITS); }

#if defined(__SSSE3__) || defined(__AVX__)
    static constexpr int limit(int weight) { return INT16_MAX / (weight * 127 * 2); }
    static constexpr bool WIDE = false;
    static constexpr size_t CACHE = 512 * 1024;
    using Partial = __m128i;
    static GL_INLINE Partial zero() { return _mm_setzero_si128(); }
    static GL_INLINE Partial multiply_add(Partial sum, Bytes weights, Bytes activations) {
        sum = _mm_add_epi16(sum, _mm_maddubs_epi16(weights, activations));
        GL_IN_ORDER(sum);
        return sum;
    }
    static GL_INLINE Ints sum(Partial partial) { return _mm_madd_epi16(partial, _mm_set1_epi16(1)); }
#else
    static constexpr int limit(int weight) { return INT32_MAX / (weight * 127 * 4); }
    static constexpr bool WIDE = false;
    static constexpr size_t CACHE = 128 * 1024;
    // Two sums for each row: rows 0 and 1, rows 2 and 3.
    struct Partial {
        __m128i low, high;
    };
    static GL_INLINE Partial zero() { return {_mm_setzero_si128(), _mm_setzero_si128()}; }
    static GL_INLINE Partial multiply_add(Partial sum, Bytes weights, Bytes activations) {
        const __m128i zero = _mm_setzero_si128();
        const __m128i four_twice = _mm_srai_epi16(_mm_unpacklo_epi8(activations, activations), 8);
        return {_mm_add_epi32(sum.low, _mm_madd_epi16(_mm_unpacklo_epi8(weights, zero), four_twice)),
                _mm_add_epi32(sum.high, _mm_madd_epi16(_mm_unpackhi_epi8(weights, zero), four_twice))};
    }
    static GL_INLINE Ints sum(Partial partial) {
        const __m128 low = _mm_castsi128_ps(partial.low), high = _mm_castsi128_ps(partial.high);
        return _mm_add_epi32(_mm_castps_si128(_mm_shuffle_ps(low, high, 0x88)),
                             _mm_castps_si128(_mm_shuffle_ps(low, high, 0xdd)));
    }
#endif

    static GL_INLINE Ints ints(int32_t value) { return _mm_set1_epi32(value); }
    static GL_INLINE Ints load(const int32_t * values) {
        return _mm_loadu_si128(reinterpret_cast<const __m128i *>(values));
    }
    static GL_INLINE void store(int32_t * values, Ints ints) {
        _mm_storeu_si128(reinterpret_cast<__m128i *>(values), ints);
    }
    static GL_INLINE Ints add(Ints left, Ints right) { return _mm_add_epi32(left, right); }
    static GL_INLINE Ints subtract(Ints left, Ints right) { return _mm_sub_epi32(left, right); }
    static GL_INLINE Ints multiply(Ints left, Ints right) {
#if defined(__SSE4_1__)
        return _mm_mullo_epi32(left, right);
#else
        const __m128i even = _mm_mul_epu32(left, right);
        const __m128i odd = _mm_mul_epu32(_mm_srli_epi64(left, 32), _mm_srli_epi64(right, 32));
        return _mm_unpacklo_epi32(_mm_shuffle_epi32(even, 0x08), _mm_shuffle_epi32(odd, 0x08));
#endif
    }
    template <int BITS> static GL_INLINE Ints divide(Ints ints) { return _mm_srai_epi32(ints, BITS); }
    // COUNT signed bytes, one a lane.
    static GL_INLINE Ints widen(const int8_t * bytes) {
        const __m128i four = _mm_cvtsi32_si128(load_dword(bytes));
        const __m128i words = _mm_unpacklo_epi8(four, four);
        return _mm_srai_epi32(_mm_unpacklo_epi16(words, words), 24);
    }

    static GL_INLINE Floats floats(float value) { return _mm_set1_ps(value); }
    static GL_INLINE Floats load(const float * values) { return _mm_loadu_ps(values); }
    static GL_INLINE void store(float * values, Floats floats) { _mm_storeu_ps(values, floats); }
    static GL_INLINE Floats convert(Ints ints) { return _mm_cvtepi32_ps(ints); }
    static GL_INLINE Floats add(Floats left, Floats right) { return _mm_add_ps(left, right); }
    static GL_INLINE Floats multiply(Floats left, Floats right) { return _mm_mul_ps(left, right); }
    static GL_INLINE Floats larger(Floats left, Floats right) { return _mm_max_ps(left, right); }
    static GL_INLINE Floats subtract(Floats left, Floats right) { return _mm_sub_ps(left, right); }
    // left * right + sum
    static GL_INLINE Floats multiply_add(Floats left, Floats right, Floats sum) {
        return _mm_add_ps(_mm_mul_ps(left, right), sum);
    }
    // Rounded half to even.
    static GL_INLINE Floats whole(Floats floats) { return _mm_cvtepi32_ps(_mm_cvtps_epi32(floats)); }
    // 2 to the power of whole numbers, -126..127.
    static GL_INLINE Floats power_of_two(Floats whole) {
        return _mm_castsi128_ps(_mm_slli_epi32(_mm_add_epi32(_mm_cvtps_epi32(whole), _mm_set1_epi32(127)), 23));
    }
    // 0 where `left` is less than `right`.
    static GL_INLINE Floats zero_where_less(Floats floats, Floats left, Floats right) {
        return _mm_andnot_ps(_mm_cmplt_ps(left, right), floats);
    }
    static GL_INLINE Floats magnitude(Floats floats) { return _mm_andnot_ps(_mm_set1_ps(-0.0f), floats); }
    static GL_INLINE float largest(Floats floats) {
        floats = _mm_max_ps(floats, _mm_movehl_ps(floats, floats));
        return _mm_cvtss_f32(_mm_max_ss(floats, _mm_shuffle_ps(floats, floats, 1)));
    }
    static GL_INLINE float total(Floats floats) {
        floats = _mm_add_ps(floats, _mm_movehl_ps(floats, floats));
        return _mm_cvtss_f32(_mm_add_ss(floats, _mm_shuffle_ps(floats, floats, 1)));
    }
    // Rounded half to even, within -127..127. NaN becomes -127.
    static GL_INLINE Ints round(Floats floats) {
        return _mm_cvtps_epi32(_mm_min_ps(_mm_max_ps(floats, _mm_set1_ps(-127.0f)), _mm_set1_ps(127.0f)));
    }
    static GL_INLINE void store_bytes(int8_t * bytes, Ints ints) {
        const __m128i words = _mm_packs_epi32(ints, ints);
        const int32_t four = _mm_cvtsi128_si32(_mm_packs_epi16(words, words));
        memcpy(bytes, &four, sizeof(four));
    }
    static GL_INLINE int32_t total(Ints ints) {
        ints = _mm_add_epi32(ints, _mm_shuffle_epi32(ints, 0x4e));
        return _mm_cvtsi128_si32(_mm_add_epi32(ints, _mm_shuffle_epi32(ints, 0xb1)));
    }
    static GL_INLINE void prefetch(const uint8_t * bytes) {
        _mm_prefetch(reinterpret_cast<const char *>(bytes), _MM_HINT_T0);
    }
};

} // namespace kernels
