// What attention does with one tile of queries and some keys (attention.h).
#pragma once

#include "floats.h"

#include <algorithm>
#include <cstdint>

namespace attention {

using kernels::FloatLanes;
using kernels::HalfLanes;

// Keys and values that are converted at a time.
constexpr int KEYS = 32;
// Keys whose scores are computed at once for a single vector of queries: as many sums as multiply-adds need to be under way.
constexpr int KEYS_OF_VECTOR = 8;
// And queries, of which a vector has a multiple, that values are added to.
constexpr int QUERIES_OF_VECTOR = 4;

// How queries are computed that fill many vectors, or one.
struct Many {
    using QueryLanes = FloatLanes;
    // Vectors of queries in a tile and keys whose scores are computed at once; queries and vectors of values likewise.
    static constexpr int QUERY_VECTORS = kernels::Lanes::REGISTERS == 32 ? 4 : FloatLanes::COUNT == 8 ? 3 : 2;
    static constexpr int KEYS_AT_ONCE = 4;
    static constexpr int QUERIES_AT_ONCE = kernels::Lanes::REGISTERS == 32 ? 8 : FloatLanes::COUNT == 8 ? 6 : 4;
    static constexpr int VALUE_VECTORS = 2;
    static constexpr int LANES = QUERY_VECTORS * FloatLanes::COUNT;
    // Tiles of queries that share keys and values, at most: their queries and results stay in the second-level cache.
    static constexpr int MOST_TILES = 192 / LANES;
    // Tiles whose Seen (below) a thread has to itself.
    static constexpr int SEEN_TILES = MOST_TILES;
    static_assert(LANES % QUERIES_AT_ONCE == 0 && KEYS % KEYS_AT_ONCE == 0 && KEYS % KEYS_OF_VECTOR == 0);
};

template <typename Lanes> struct One {
    using QueryLanes = Lanes;
    static constexpr int QUERY_VECTORS = 1;
    static constexpr int KEYS_AT_ONCE = KEYS_OF_VECTOR;
    static constexpr int QUERIES_AT_ONCE = QUERIES_OF_VECTOR;
    static constexpr int VALUE_VECTORS = kernels::Lanes::REGISTERS == 32 ? 4 : 2;
    static constexpr int LANES = Lanes::COUNT;
    static constexpr int MOST_TILES = 1;
    static constexpr int SEEN_TILES = 0;
    static_assert(LANES % QUERIES_AT_ONCE == 0 && KEYS % KEYS_AT_ONCE == 0);
};

// What a tile of queries has seen so far.
struct Seen {
    float * results; // [lane][element of a value]
    float * largest; // [lane]
    float * sums;    // [lane]

    // Whole cache lines: threads write to neighbours.
    template <typename Tile> static int64_t floats(int64_t value_size) {
        return (Tile::LANES * (value_size + 2) + 15) / 16 * 16;
    }

    template <typename Tile> static Seen at(float * memory, int64_t value_size) {
        float * largest = memory + Tile::LANES * value_size;
        return {memory, largest, largest + Tile::LANES};
    }

    // That of the queries from `lane` on.
    Seen from(int lane, int64_t value_size) const { return {results + lane * value_size, largest + lane, sums + lane}; }
};

// e to the power of x, x <= 0, to two units in the last place; 0 where that would be denormal, and for minus infinity.
template <typename L> GL_INLINE typename L::Floats exponential(typename L::Floats x) {
    using Floats = typename L::Floats;
    // x = whole * ln 2 + rest, ln 2 in two parts of which the first has few bits.
    const Floats whole = L::whole(L::multiply(x, L::floats(1.44269504f)));
    Floats rest = L::multiply_add(whole, L::floats(-0.693359375f), x);
    rest = L::multiply_add(whole, L::floats(2.12194440e-4f), rest);
    // Taylor's series: |rest| <= ln 2 / 2.
    Floats power = L::floats(1.0f / 720);
    power = L::multiply_add(power, rest, L::floats(1.0f / 120));
    power = L::multiply_add(power, rest, L::floats(1.0f / 24));
    power = L::multiply_add(power, rest, L::floats(1.0f / 6));
    power = L::multiply_add(power, rest, L::floats(1.0f / 2));
    power = L::multiply_add(power, rest, L::floats(1.0f));
    power = L::multiply_add(power, rest, L::floats(1.0f));
    return L::zero_where_less(L::multiply(power, L::power_of_two(whole)), x, L::floats(-87.0f));
}

// Adds, for each of R numbers a `row` apart and V vectors, the products of `steps` of both.
template <typename L, int R, int V>
GL_INLINE void multiply(const float * numbers, int64_t row, int64_t step, const float * vectors, int64_t vectors_step,
                        int64_t steps, typename L::Floats (&sums)[R][V]) {
    for (; steps > 0; --steps, numbers += step, vectors += vectors_step) {
        typename L::Floats loaded[V];
        GL_UNROLL
        for (int v = 0; v < V; ++v) {
            loaded[v] = L::load(vectors + v * L::COUNT);
        }
        GL_UNROLL
        for (int r = 0; r < R; ++r) {
            const typename L::Floats number = L::floats(numbers[r * row]);
            GL_UNROLL
            for (int v = 0; v < V; ++v) {
                sums[r][v] = L::multiply_add(number, loaded[v], sums[r][v]);
            }
        }
    }
}

// Scores of `count` keys, rounded up to as many as are computed at once, for V of a tile's vectors of queries.
template <typename Tile, int V>
void multiply_keys(const float * queries, const float * keys, int64_t key_size, int count, float * scores) {
    using L = typename Tile::QueryLanes;
    constexpr int LANES = Tile::LANES, AT_ONCE = V == 1 ? KEYS_OF_VECTOR : Tile::KEYS_AT_ONCE;
    for (int key = 0; key < count; key += AT_ONCE) {
        typename L::Floats sums[AT_ONCE][V];
        for (auto & of_key : sums) {
            std::fill(std::begin(of_key), std::end(of_key), L::floats(0.0f));
        }
        multiply<L>(keys + key * key_size, key_size, 1, queries, LANES, key_size, sums);
        for (int k = 0; k < AT_ONCE; ++k) {
            for (int v = 0; v < V; ++v) {
                L::store(scores + (key + k) * LANES + v * L::COUNT, sums[k][v]);
            }
        }
    }
}

// Turns scores of `count` keys into what their values count for, and tells by what factor earlier ones count less now.
template <typename Tile, int V> void weigh(float * scores, const float * bias, int count, const Seen & seen, float * factors) {
    using L = typename Tile::QueryLanes;
    using Floats = typename L::Floats;
    constexpr int LANES = Tile::LANES;
    for (int v = 0; v < V; ++v) {
        float * column = scores + v * L::COUNT;
        const Floats before = L::load(seen.largest + v * L::COUNT);
        Floats most = before;
        for (int key = 0; key < count; ++key) {
            Floats score = L::load(column + key * LANES);
            if (bias) {
                score = L::add(score, L::load(bias + key * LANES + v * L::COUNT));
                L::store(column + key * LANES, score);
            }
            most = L::larger(score, most);
        }
        const Floats factor = exponential<L>(L::subtract(before, most));
        Floats sum = L::floats(0.0f);
        for (int key = 0; key < count; ++key) {
            const Floats weight = exponential<L>(L::subtract(L::load(column + key * LANES), most));
            L::store(column + key * LANES, weight);
            sum = L::add(sum, weight);
        }
        L::store(seen.largest + v * L::COUNT, most);
        L::store(seen.sums + v * L::COUNT, L::multiply_add(L::load(seen.sums + v * L::COUNT), factor, sum));
        L::store(factors + v * L::COUNT, factor);
    }
}

// Adds `count` values to V vectors of the results of the first queries, Q of which are computed at once.
template <typename Tile, int Q, int V>
void add_values(const float * weights, const float * factors, const float * values, int64_t value_size, int count, int queries,
                float * results) {
    for (int lane = 0; lane < queries; lane += Q) {
        FloatLanes::Floats sums[Q][V];
        for (int q = 0; q < Q; ++q) {
            const FloatLanes::Floats factor = FloatLanes::floats(factors[lane + q]);
            for (int v = 0; v < V; ++v) {
                const FloatLanes::Floats before = FloatLanes::load(results + (lane + q) * value_size + v * FloatLanes::COUNT);
                sums[q][v] = FloatLanes::multiply(before, factor);
            }
        }
        multiply<FloatLanes>(weights + lane, 1, Tile::LANES, values, value_size, count, sums);
        for (int q = 0; q < Q; ++q) {
            for (int v = 0; v < V; ++v) {
                FloatLanes::store(results + (lane + q) * value_size + v * FloatLanes::COUNT, sums[q][v]);
            }
        }
    }
}

template <typename Tile, int Q, int V>
void add_all_values(const float * weights, const float * factors, const float * values, int64_t value_size, int count,
                     int queries, float * results) {
    constexpr int WIDTH = V * FloatLanes::COUNT;
    int64_t element = 0;
    for (; element + WIDTH <= value_size; element += WIDTH) {
        add_values<Tile, Q, V>(weights, factors, values + element, value_size, count, queries, results + element);
    }
    for (; element < value_size; element += FloatLanes::COUNT) {
        add_values<Tile, Q, 1>(weights, factors, values + element, value_size, count, queries, results + element);
    }
}

// Adds `count` values to the results of the first queries of V of a tile's vectors. Those beyond them may be written to, too, but none of
// other vectors.
template <typename Tile, int V>
void multiply_values(const float * weights, const float * factors, const float * values, int64_t value_size, int count,
                     int queries, float * results) {
    if constexpr (Tile::QUERY_VECTORS == 1) {
        // Heads that share their keys with no other, or with one.
        if (queries == 1) {
            constexpr int VECTORS = FloatLanes::COUNT == 16 ? 4 : 8;
            return add_all_values<Tile, 1, VECTORS>(weights, factors, values, value_size, count, queries, results);
        }
        if (queries == 2) {
            return add_all_values<Tile, 2, 4>(weights, factors, values, value_size, count, queries, results);
        }
    }
    constexpr int AT_ONCE = V == Tile::QUERY_VECTORS ? Tile::QUERIES_AT_ONCE : QUERIES_OF_VECTOR;
    static_assert(V * Tile::QueryLanes::COUNT % AT_ONCE == 0);
    add_all_values<Tile, AT_ONCE, Tile::VALUE_VECTORS>(weights, factors, values, value_size, count, queries, results);
}

// Adds what the first queries of a tile have seen in another stretch of the keys.
template <typename Tile> void put_together(const Seen & seen, const Seen & more, int64_t value_size, int queries) {
    using L = typename Tile::QueryLanes;
    float factors[2][Tile::LANES];
    for (int lane = 0; lane < Tile::LANES; lane += L::COUNT) {
        const typename L::Floats before = L::load(seen.largest + lane), others = L::load(more.largest + lane);
        const typename L::Floats most = L::larger(before, others);
        const typename L::Floats factor = exponential<L>(L::subtract(before, most));
        const typename L::Floats other = exponential<L>(L::subtract(others, most));
        const typename L::Floats scaled = L::multiply(L::load(seen.sums + lane), factor);
        L::store(seen.sums + lane, L::multiply_add(L::load(more.sums + lane), other, scaled));
        L::store(seen.largest + lane, most);
        L::store(factors[0] + lane, factor);
        L::store(factors[1] + lane, other);
    }
    for (int q = 0; q < queries; ++q) {
        const FloatLanes::Floats factor = FloatLanes::floats(factors[0][q]), other = FloatLanes::floats(factors[1][q]);
        for (int64_t element = q * value_size; element < (q + 1) * value_size; element += FloatLanes::COUNT) {
            const FloatLanes::Floats scaled = FloatLanes::multiply(FloatLanes::load(seen.results + element), factor);
            FloatLanes::store(seen.results + element,
                              FloatLanes::multiply_add(FloatLanes::load(more.results + element), other, scaled));
        }
    }
}

} // namespace attention
