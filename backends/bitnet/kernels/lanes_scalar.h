// Four lanes in plain C++: for a compiler with no vector instructions that suit, and to compare the others with.
#pragma once

#include <cmath>

namespace ternary {

struct Lanes {
    static constexpr int COUNT = 4;
    static constexpr int GROUPS = 2;
    static constexpr int TILE = 2;
    static constexpr size_t CACHE = 128 * 1024;

    struct Bytes {
        uint8_t at[4 * COUNT];
    };
    struct Ints {
        int32_t at[COUNT];
    };
    struct Floats {
        float at[COUNT];
    };
    using Partial = Ints;

    static GL_INLINE Bytes load(const uint8_t * bytes) {
        Bytes result;
        memcpy(result.at, bytes, sizeof(result.at));
        return result;
    }
    static GL_INLINE Bytes broadcast(const int8_t * bytes) {
        Bytes result;
        for (int i = 0; i < 4 * COUNT; ++i) result.at[i] = static_cast<uint8_t>(bytes[i % 4]);
        return result;
    }
    static GL_INLINE Bytes broadcast(uint8_t byte) {
        Bytes result;
        memset(result.at, byte, sizeof(result.at));
        return result;
    }
    template <typename Operation> static GL_INLINE Bytes each(Bytes left, Bytes right, Operation operation) {
        for (int i = 0; i < 4 * COUNT; ++i) left.at[i] = static_cast<uint8_t>(operation(left.at[i], right.at[i]));
        return left;
    }
    static GL_INLINE Bytes masked(Bytes bytes, Bytes mask) {
        return each(bytes, mask, [](int l, int r) { return l & r; });
    }
    static GL_INLINE Bytes merged(Bytes left, Bytes right) {
        return each(left, right, [](int l, int r) { return l | r; });
    }
    template <int BITS> static GL_INLINE Bytes right(Bytes bytes) {
        return each(bytes, bytes, [](int l, int) { return l >> BITS; });
    }
    template <int BITS> static GL_INLINE Bytes left(Bytes bytes) {
        return each(bytes, bytes, [](int l, int) { return l << BITS; });
    }
    static GL_INLINE Partial zero() { return ints(0); }

    static constexpr int limit(int weight) { return INT32_MAX / (weight * 127 * 4); }
    static constexpr bool WIDE = true;
    static GL_INLINE Partial multiply_add(Partial sum, Bytes weights, Bytes activations) {
        for (int i = 0; i < 4 * COUNT; ++i) sum.at[i / 4] += weights.at[i] * static_cast<int8_t>(activations.at[i]);
        return sum;
    }
    static GL_INLINE Ints sum(Partial partial) { return partial; }

    template <typename Vector, typename Operation> static GL_INLINE Vector each(Vector vector, Operation operation) {
        for (int i = 0; i < COUNT; ++i) vector.at[i] = operation(i);
        return vector;
    }
    static GL_INLINE Ints ints(int32_t value) {
        return each(Ints(), [&](int) { return value; });
    }
    static GL_INLINE Ints load(const int32_t * values) {
        return each(Ints(), [&](int i) { return values[i]; });
    }
    static GL_INLINE void store(int32_t * values, Ints ints) { memcpy(values, ints.at, sizeof(ints.at)); }
    static GL_INLINE Ints add(Ints l, Ints r) {
        return each(l, [&](int i) { return l.at[i] + r.at[i]; });
    }
    static GL_INLINE Ints subtract(Ints l, Ints r) {
        return each(l, [&](int i) { return l.at[i] - r.at[i]; });
    }
    static GL_INLINE Ints multiply(Ints l, Ints r) {
        return each(l, [&](int i) { return l.at[i] * r.at[i]; });
    }
    template <int BITS> static GL_INLINE Ints divide(Ints ints) {
        return each(ints, [&](int i) { return ints.at[i] >> BITS; });
    }
    // COUNT signed bytes, one a lane.
    static GL_INLINE Ints widen(const int8_t * bytes) {
        return each(Ints(), [&](int i) { return int32_t{bytes[i]}; });
    }

    static GL_INLINE Floats floats(float value) {
        return each(Floats(), [&](int) { return value; });
    }
    static GL_INLINE Floats load(const float * values) {
        return each(Floats(), [&](int i) { return values[i]; });
    }
    static GL_INLINE void store(float * values, Floats floats) { memcpy(values, floats.at, sizeof(floats.at)); }
    static GL_INLINE Floats convert(Ints ints) {
        return each(Floats(), [&](int i) { return static_cast<float>(ints.at[i]); });
    }
    static GL_INLINE Floats add(Floats l, Floats r) {
        return each(l, [&](int i) { return l.at[i] + r.at[i]; });
    }
    static GL_INLINE Floats multiply(Floats l, Floats r) {
        return each(l, [&](int i) { return l.at[i] * r.at[i]; });
    }
    static GL_INLINE Floats larger(Floats l, Floats r) {
        return each(l, [&](int i) { return l.at[i] > r.at[i] ? l.at[i] : r.at[i]; });
    }
    static GL_INLINE Floats magnitude(Floats floats) {
        return each(floats, [&](int i) { return std::fabs(floats.at[i]); });
    }
    static GL_INLINE float largest(Floats floats) {
        float result = floats.at[0];
        for (float value : floats.at) result = value > result ? value : result;
        return result;
    }
    static GL_INLINE float total(Floats floats) {
        float result = 0;
        for (float value : floats.at) result += value;
        return result;
    }
    // Rounded half to even, within -127..127. NaN becomes -127.
    static GL_INLINE Ints round(Floats floats) {
        return each(Ints(), [&](int i) {
            const float value = std::nearbyint(floats.at[i]);
            return static_cast<int32_t>(value >= -127.0f ? (value <= 127.0f ? value : 127.0f) : -127.0f);
        });
    }
    static GL_INLINE void store_bytes(int8_t * bytes, Ints ints) {
        for (int i = 0; i < COUNT; ++i) bytes[i] = static_cast<int8_t>(ints.at[i]);
    }
    static GL_INLINE int32_t total(Ints ints) {
        int32_t result = 0;
        for (int32_t value : ints.at) result += value;
        return result;
    }
    static GL_INLINE void prefetch(const uint8_t *) {}
};

} // namespace ternary
