// 512 bits. With VNNI one instruction multiplies and adds four bytes a lane; without, sums are 16 bits wide for a while.
#pragma once

#include <immintrin.h>

namespace kernels {

struct Lanes {
    static constexpr int COUNT = 16;
    static constexpr int REGISTERS = 32;
    static constexpr int GROUPS = 4;
    static constexpr size_t CACHE = 512 * 1024;

    using Bytes = __m512i;
    using Partial = __m512i;
    using Ints = __m512i;
    using Floats = __m512;

    static GL_INLINE Bytes load(const uint8_t * bytes) { return _mm512_loadu_si512(bytes); }
    static GL_INLINE void store(uint8_t * bytes, Bytes stored) { _mm512_storeu_si512(bytes, stored); }
    static GL_INLINE Bytes broadcast(const int8_t * bytes) { return _mm512_set1_epi32(load_dword(bytes)); }
    static GL_INLINE Bytes broadcast(uint8_t byte) { return _mm512_set1_epi8(static_cast<char>(byte)); }
    static GL_INLINE Bytes masked(Bytes bytes, Bytes mask) { return _mm512_and_si512(bytes, mask); }
    static GL_INLINE Bytes merged(Bytes left, Bytes right) { return _mm512_or_si512(left, right); }
    template <int BITS> static GL_INLINE Bytes right(Bytes bytes) { return _mm512_srli_epi16(bytes, BITS); }
    template <int BITS> static GL_INLINE Bytes left(Bytes bytes) { return _mm512_slli_epi16(bytes, BITS); }
    static GL_INLINE Partial zero() { return _mm512_setzero_si512(); }

#if defined(__AVX512VNNI__)
    static constexpr int limit(int weight) { return INT32_MAX / (weight * 127 * 4); }
    static constexpr bool WIDE = true;
    static constexpr int TILE = 4; // with 5 and 6 gcc 12 spills
    static GL_INLINE Partial multiply_add(Partial sum, Bytes weights, Bytes activations) {
        return _mm512_dpbusd_epi32(sum, weights, activations);
    }
    static GL_INLINE Ints sum(Partial partial) { return partial; }
#else
    static constexpr int limit(int weight) { return INT16_MAX / (weight * 127 * 2); }
    static constexpr bool WIDE = false;
    static constexpr int TILE = 5;
    static GL_INLINE Partial multiply_add(Partial sum, Bytes weights, Bytes activations) {
        sum = _mm512_add_epi16(sum, _mm512_maddubs_epi16(weights, activations));
        GL_IN_ORDER(sum);
        return sum;
    }
    static GL_INLINE Ints sum(Partial partial) { return _mm512_madd_epi16(partial, _mm512_set1_epi16(1)); }
#endif

#if defined(GL_DENSE)
    // multiply_add with four activations for all rows, which the instruction itself takes from memory: broadcast once for all groups
    // they leave too few registers for sums and tables, and gcc 12 puts the sums on the stack.
    static GL_INLINE Partial multiply_add_four(Partial sum, Bytes weights, const int8_t * four) {
#if defined(__GNUC__)
        __asm__("vpdpbusd %2%{1to16%}, %1, %0" : "+v"(sum) : "v"(weights), "m"(*reinterpret_cast<const int8_t(*)[4]>(four)));
        return sum;
#else
        return multiply_add(sum, weights, broadcast(four));
#endif
    }

    // Tables of 128 and 64 bytes, in registers: dense.h says what they hold.
    class Digits {
      public:
        GL_INLINE Digits(const uint8_t * four, const uint8_t * fifth) : fifth_(load(fifth)), four_{load(four), load(four + 64)} {}

        GL_INLINE Bytes four(Bytes bytes) const {
            const Bytes all = _mm512_permutex2var_epi8(four_[0], bytes, four_[1]);
            return _mm512_andnot_si512(_mm512_max_epi8(bytes, _mm512_setzero_si512()), all);
        }
        GL_INLINE Bytes fifth(Bytes bytes) const { return _mm512_permutexvar_epi8(bytes, fifth_); }

      private:
        Bytes fifth_, four_[2];
    };
#endif

    static GL_INLINE Ints ints(int32_t value) { return _mm512_set1_epi32(value); }
    static GL_INLINE Ints load(const int32_t * values) { return _mm512_loadu_si512(values); }
    static GL_INLINE void store(int32_t * values, Ints ints) { _mm512_storeu_si512(values, ints); }
    static GL_INLINE Ints add(Ints left, Ints right) { return _mm512_add_epi32(left, right); }
    static GL_INLINE Ints subtract(Ints left, Ints right) { return _mm512_sub_epi32(left, right); }
    static GL_INLINE Ints multiply(Ints left, Ints right) { return _mm512_mullo_epi32(left, right); }
    template <int BITS> static GL_INLINE Ints divide(Ints ints) { return _mm512_srai_epi32(ints, BITS); }
    // COUNT signed bytes, one a lane.
    static GL_INLINE Ints widen(const int8_t * bytes) {
        return _mm512_cvtepi8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i *>(bytes)));
    }

    static GL_INLINE Floats floats(float value) { return _mm512_set1_ps(value); }
    static GL_INLINE Floats load(const float * values) { return _mm512_loadu_ps(values); }
    static GL_INLINE void store(float * values, Floats floats) { _mm512_storeu_ps(values, floats); }
    static GL_INLINE Floats convert(Ints ints) { return _mm512_cvtepi32_ps(ints); }
    static GL_INLINE Floats add(Floats left, Floats right) { return _mm512_add_ps(left, right); }
    static GL_INLINE Floats multiply(Floats left, Floats right) { return _mm512_mul_ps(left, right); }
    static GL_INLINE Floats larger(Floats left, Floats right) { return _mm512_max_ps(left, right); }
    static GL_INLINE Floats subtract(Floats left, Floats right) { return _mm512_sub_ps(left, right); }
    // left * right + sum
    static GL_INLINE Floats multiply_add(Floats left, Floats right, Floats sum) { return _mm512_fmadd_ps(left, right, sum); }
    // Rounded half to even.
    static GL_INLINE Floats whole(Floats floats) { return _mm512_roundscale_ps(floats, _MM_FROUND_TO_NEAREST_INT); }
    // 2 to the power of whole numbers, -126..127.
    static GL_INLINE Floats power_of_two(Floats whole) {
        const __m512i biased = _mm512_add_epi32(_mm512_cvtps_epi32(whole), _mm512_set1_epi32(127));
        return _mm512_castsi512_ps(_mm512_slli_epi32(biased, 23));
    }
    // 0 where `left` is less than `right`.
    static GL_INLINE Floats zero_where_less(Floats floats, Floats left, Floats right) {
        return _mm512_maskz_mov_ps(_mm512_cmp_ps_mask(left, right, _CMP_NLT_UQ), floats);
    }
    static GL_INLINE Floats magnitude(Floats floats) { return _mm512_abs_ps(floats); }
    static GL_INLINE float largest(Floats floats) { return _mm512_reduce_max_ps(floats); }
    static GL_INLINE float total(Floats floats) { return _mm512_reduce_add_ps(floats); }
    // Rounded half to even, within -127..127: COUNT bytes. NaN becomes -127.
    static GL_INLINE Ints round(Floats floats) {
        return _mm512_cvtps_epi32(_mm512_min_ps(_mm512_max_ps(floats, _mm512_set1_ps(-127.0f)), _mm512_set1_ps(127.0f)));
    }
    static GL_INLINE void store_bytes(int8_t * bytes, Ints ints) {
        _mm_storeu_si128(reinterpret_cast<__m128i *>(bytes), _mm512_cvtepi32_epi8(ints));
    }
    static GL_INLINE int32_t total(Ints ints) { return _mm512_reduce_add_epi32(ints); }
    static GL_INLINE void prefetch(const uint8_t * bytes) {
        _mm_prefetch(reinterpret_cast<const char *>(bytes), _MM_HINT_T0);
    }
};

} // namespace kernels
