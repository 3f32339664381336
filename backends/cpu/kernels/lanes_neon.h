// 128 bits of NEON. With the dot product extension one instruction multiplies and adds four bytes a lane; without, products
// are summed 16 bits wide for a while.
#pragma once

#include <arm_neon.h>

namespace kernels {

struct Lanes {
    static constexpr int COUNT = 4;
    static constexpr int REGISTERS = 32;
    static constexpr int GROUPS = 4;
    static constexpr size_t CACHE = 256 * 1024;

    using Bytes = uint8x16_t;
    using Ints = int32x4_t;
    using Floats = float32x4_t;

    static GL_INLINE Bytes load(const uint8_t * bytes) { return vld1q_u8(bytes); }
    static GL_INLINE Bytes broadcast(const int8_t * bytes) {
        return vreinterpretq_u8_s32(vdupq_n_s32(load_dword(bytes)));
    }
    static GL_INLINE Bytes broadcast(uint8_t byte) { return vdupq_n_u8(byte); }
    static GL_INLINE Bytes masked(Bytes bytes, Bytes mask) { return vandq_u8(bytes, mask); }
    static GL_INLINE Bytes merged(Bytes left, Bytes right) { return vorrq_u8(left, right); }
    template <int BITS> static GL_INLINE Bytes right(Bytes bytes) {
        // The instruction shifts by 1 to 8; clang says so, gcc leaves it away.
        if constexpr (BITS == 0) {
            return bytes;
        } else {
            return vshrq_n_u8(bytes, BITS);
        }
    }
    template <int BITS> static GL_INLINE Bytes left(Bytes bytes) { return vshlq_n_u8(bytes, BITS); }

#if defined(__ARM_FEATURE_DOTPROD)
    static constexpr int TILE = 6;
    static constexpr int limit(int weight) { return INT32_MAX / (weight * 127 * 4); }
    using Partial = int32x4_t;
    static GL_INLINE Partial zero() { return vdupq_n_s32(0); }
    // Weights of at most 7 bits are the same number signed.
    static GL_INLINE Partial multiply_add(Partial sum, Bytes weights, Bytes activations) {
        return vdotq_s32(sum, vreinterpretq_s8_u8(weights), vreinterpretq_s8_u8(activations));
    }
    static GL_INLINE Ints sum(Partial partial) { return partial; }
#else
    static constexpr int TILE = 2;
    static constexpr int limit(int weight) { return INT16_MAX / (weight * 127); }
    using Partial = int16x8x2_t;
    static GL_INLINE Partial zero() { return {{vdupq_n_s16(0), vdupq_n_s16(0)}}; }
    static GL_INLINE Partial multiply_add(Partial sum, Bytes weights, Bytes activations) {
        const int8x16_t w = vreinterpretq_s8_u8(weights), a = vreinterpretq_s8_u8(activations);
        return {{vmlal_s8(sum.val[0], vget_low_s8(w), vget_low_s8(a)),
                 vmlal_s8(sum.val[1], vget_high_s8(w), vget_high_s8(a))}};
    }
    static GL_INLINE Ints sum(Partial partial) {
        return vpaddq_s32(vpaddlq_s16(partial.val[0]), vpaddlq_s16(partial.val[1]));
    }
#endif
    static constexpr bool WIDE = false; // bytes of more than 7 bits would be negative

    static GL_INLINE Ints ints(int32_t value) { return vdupq_n_s32(value); }
    static GL_INLINE Ints load(const int32_t * values) { return vld1q_s32(values); }
    static GL_INLINE void store(int32_t * values, Ints ints) { vst1q_s32(values, ints); }
    static GL_INLINE Ints add(Ints left, Ints right) { return vaddq_s32(left, right); }
    static GL_INLINE Ints subtract(Ints left, Ints right) { return vsubq_s32(left, right); }
    static GL_INLINE Ints multiply(Ints left, Ints right) { return vmulq_s32(left, right); }
    template <int BITS> static GL_INLINE Ints divide(Ints ints) { return vshrq_n_s32(ints, BITS); }
    // COUNT signed bytes, one a lane.
    static GL_INLINE Ints widen(const int8_t * bytes) {
        return vmovl_s16(vget_low_s16(vmovl_s8(vreinterpret_s8_s32(vdup_n_s32(load_dword(bytes))))));
    }

    static GL_INLINE Floats floats(float value) { return vdupq_n_f32(value); }
    static GL_INLINE Floats load(const float * values) { return vld1q_f32(values); }
    static GL_INLINE void store(float * values, Floats floats) { vst1q_f32(values, floats); }
    static GL_INLINE Floats convert(Ints ints) { return vcvtq_f32_s32(ints); }
    static GL_INLINE Floats add(Floats left, Floats right) { return vaddq_f32(left, right); }
    static GL_INLINE Floats multiply(Floats left, Floats right) { return vmulq_f32(left, right); }
    static GL_INLINE Floats larger(Floats left, Floats right) { return vmaxq_f32(left, right); }
    static GL_INLINE Floats subtract(Floats left, Floats right) { return vsubq_f32(left, right); }
    // left * right + sum
    static GL_INLINE Floats multiply_add(Floats left, Floats right, Floats sum) { return vfmaq_f32(sum, left, right); }
    // Rounded half to even.
    static GL_INLINE Floats whole(Floats floats) { return vrndnq_f32(floats); }
    // 2 to the power of whole numbers, -126..127.
    static GL_INLINE Floats power_of_two(Floats whole) {
        return vreinterpretq_f32_s32(vshlq_n_s32(vaddq_s32(vcvtq_s32_f32(whole), vdupq_n_s32(127)), 23));
    }
    // 0 where `left` is less than `right`.
    static GL_INLINE Floats zero_where_less(Floats floats, Floats left, Floats right) {
        return vreinterpretq_f32_u32(vbicq_u32(vreinterpretq_u32_f32(floats), vcltq_f32(left, right)));
    }
    static GL_INLINE Floats magnitude(Floats floats) { return vabsq_f32(floats); }
    static GL_INLINE float largest(Floats floats) { return vmaxvq_f32(floats); }
    static GL_INLINE float total(Floats floats) { return vaddvq_f32(floats); }
    // Rounded half to even, within -127..127.
    static GL_INLINE Ints round(Floats floats) {
        return vmaxq_s32(vminq_s32(vcvtnq_s32_f32(floats), ints(127)), ints(-127));
    }
    static GL_INLINE void store_bytes(int8_t * bytes, Ints ints) {
        const int16x4_t words = vmovn_s32(ints);
        const int32_t four = vget_lane_s32(vreinterpret_s32_s8(vmovn_s16(vcombine_s16(words, words))), 0);
        memcpy(bytes, &four, sizeof(four));
    }
    static GL_INLINE int32_t total(Ints ints) { return vaddvq_s32(ints); }
    static GL_INLINE void prefetch(const uint8_t * bytes) { __builtin_prefetch(bytes); }
};

} // namespace kernels
