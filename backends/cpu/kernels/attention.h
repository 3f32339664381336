// Attention of many tokens at once, in place of ggml's flash attention.
//
// The result for a query q is softmax(scale * K q + mask) V, in one pass over keys and values, with the running maximum and sum
// of Milakov and Gimelshein (Online normalizer calculation for softmax, 2018), as Dao et al. (FlashAttention, 2022) tile it.
//
// A tile is LANES queries: one token's heads that share keys and values, the next token's, and so on. Queries lie across the
// lanes of vectors, so that scores come out with a query a lane, and its maximum, exponentials and sum need nothing from other lanes.
// Keys and values are only ever broadcast or read in the order in which they lie: nothing but queries is transposed, once. What
// ggml does for each head anew, to convert keys and values from the cache's type, is done once for all heads and tokens of an
// item of work. Tiles of keys that the mask closes to all queries of a tile are passed over, and of a tile's masks only those
// that differ are added.
#pragma once

#include "floats.h"
#include "threadpool.h"

#include <algorithm>
#include <cfloat>
#include <cmath>

namespace attention {

using kernels::FloatLanes;
using Floats = FloatLanes::Floats;

// Vectors of queries in a tile and keys whose scores are computed at once; queries and vectors of values likewise.
constexpr int QUERY_VECTORS = FloatLanes::REGISTERS == 32 ? 4 : FloatLanes::COUNT == 8 ? 3 : 2;
constexpr int KEYS_AT_ONCE = 4;
constexpr int VALUE_VECTORS = 2;
constexpr int QUERIES_AT_ONCE = FloatLanes::REGISTERS == 32 ? 8 : FloatLanes::COUNT == 8 ? 6 : 4;
constexpr int LANES = QUERY_VECTORS * FloatLanes::COUNT;
static_assert(LANES % QUERIES_AT_ONCE == 0);

// Keys and values that are converted at a time.
constexpr int KEYS = 32;
static_assert(KEYS % KEYS_AT_ONCE == 0);

// Tiles of queries that share them, at most: their queries and results stay in the second-level cache.
constexpr int MOST_TILES = 192 / LANES;

// From here on ggml computes otherwise, too, with more precision than for fewer: elsewhere a border would be one more at which a
// prompt's rounding depends on how it is cut into passes.
constexpr int64_t LEAST_TOKENS = 64;

// Whether this file computes a node.
inline bool takes(const ggml_tensor * node) {
    if (node->op != GGML_OP_FLASH_ATTN_EXT) {
        return false;
    }
    const ggml_tensor *queries = node->src[0], *keys = node->src[1], *values = node->src[2], *mask = node->src[3];
    float cap;
    std::memcpy(&cap, node->op_params + 2, sizeof(cap));
    const bool sinks = node->src[4];
    const auto converts = [](const ggml_tensor * tensor) {
        return (tensor->type == GGML_TYPE_F32 || ggml_get_type_traits(tensor->type)->to_float) &&
               tensor->nb[0] == ggml_type_size(tensor->type);
    };
    return !sinks && cap == 0.0f && queries->ne[1] >= LEAST_TOKENS && queries->type == GGML_TYPE_F32 &&
           queries->nb[0] == sizeof(float) && converts(keys) && converts(values) && keys->ne[1] > 0 &&
           values->ne[0] % FloatLanes::COUNT == 0 && keys->ne[2] == values->ne[2] && keys->ne[3] == values->ne[3] &&
           queries->ne[2] % keys->ne[2] == 0 && queries->ne[3] % keys->ne[3] == 0 &&
           (!mask || (mask->type == GGML_TYPE_F16 && mask->ne[2] == 1));
}

// Memory of one thread, in floats.
class Scratch {
  public:
    Scratch(int64_t key_size, int64_t value_size, float * memory) : memory_(memory) {
        queries = take(MOST_TILES * LANES * key_size);
        results = take(MOST_TILES * LANES * value_size);
        keys = take(KEYS * key_size);
        values = take(KEYS * value_size);
        scores = take(KEYS * LANES);
        bias = take(KEYS * LANES);
        largest = take(MOST_TILES * LANES);
        sums = take(MOST_TILES * LANES);
        factors = take(LANES);
        slopes = take(MOST_TILES * LANES);
    }

    // How much a thread needs, a whole number of cache lines.
    static int64_t floats(int64_t key_size, int64_t value_size) {
        return Scratch(key_size, value_size, nullptr).taken_;
    }

    float * queries; // [tile][element of a key][lane]
    float * results; // [tile][lane][element of a value]
    float * keys;    // [key][element]
    float * values;  // [value][element]
    float * scores;  // [key][lane]
    float * bias;    // [key][lane]
    float * largest; // [tile][lane]
    float * sums;    // [tile][lane]
    float * factors; // [lane]
    float * slopes;  // [tile][lane]

  private:
    float * take(int64_t floats) {
        float * taken = memory_ ? memory_ + taken_ : nullptr;
        taken_ += (floats + 15) / 16 * 16;
        return taken;
    }

    float * memory_;
    int64_t taken_ = 0;
};

constexpr size_t CACHE_LINE = 64;

inline size_t work_size(const ggml_tensor * node, int threads) {
    const int64_t floats = Scratch::floats(node->src[1]->ne[0], node->src[2]->ne[0]);
    return static_cast<size_t>(floats) * sizeof(float) * static_cast<size_t>(threads) + CACHE_LINE;
}

// e to the power of x, x <= 0, to two units in the last place; 0 where that would be denormal, and for minus infinity.
GL_INLINE Floats exponential(Floats x) {
    using L = FloatLanes;
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
template <int R, int V>
GL_INLINE void multiply(const float * numbers, int64_t row, int64_t step, const float * vectors, int64_t vectors_step,
                        int64_t steps, Floats (&sums)[R][V]) {
    for (; steps > 0; --steps, numbers += step, vectors += vectors_step) {
        Floats loaded[V];
        GL_UNROLL
        for (int v = 0; v < V; ++v) {
            loaded[v] = FloatLanes::load(vectors + v * FloatLanes::COUNT);
        }
        GL_UNROLL
        for (int r = 0; r < R; ++r) {
            const Floats number = FloatLanes::floats(numbers[r * row]);
            GL_UNROLL
            for (int v = 0; v < V; ++v) {
                sums[r][v] = FloatLanes::multiply_add(number, loaded[v], sums[r][v]);
            }
        }
    }
}

// Scores of `count` keys, rounded up to KEYS_AT_ONCE, for a tile of queries.
inline void multiply_keys(const float * queries, const float * keys, int64_t key_size, int count, float * scores) {
    for (int key = 0; key < count; key += KEYS_AT_ONCE) {
        Floats sums[KEYS_AT_ONCE][QUERY_VECTORS];
        for (auto & of_key : sums) {
            std::fill(std::begin(of_key), std::end(of_key), FloatLanes::floats(0.0f));
        }
        multiply(keys + key * key_size, key_size, 1, queries, LANES, key_size, sums);
        for (int k = 0; k < KEYS_AT_ONCE; ++k) {
            for (int v = 0; v < QUERY_VECTORS; ++v) {
                FloatLanes::store(scores + (key + k) * LANES + v * FloatLanes::COUNT, sums[k][v]);
            }
        }
    }
}

// Turns scores of `count` keys into what their values count for, and tells by what factor earlier ones count less now.
inline void weigh(float * scores, const float * bias, int count, float * largest, float * sums, float * factors) {
    using L = FloatLanes;
    for (int v = 0; v < QUERY_VECTORS; ++v) {
        float * column = scores + v * L::COUNT;
        const Floats before = L::load(largest + v * L::COUNT);
        Floats most = before;
        for (int key = 0; key < count; ++key) {
            Floats score = L::load(column + key * LANES);
            if (bias) {
                score = L::add(score, L::load(bias + key * LANES + v * L::COUNT));
                L::store(column + key * LANES, score);
            }
            most = L::larger(score, most);
        }
        const Floats factor = exponential(L::subtract(before, most));
        Floats sum = L::multiply(L::load(sums + v * L::COUNT), factor);
        for (int key = 0; key < count; ++key) {
            const Floats weight = exponential(L::subtract(L::load(column + key * LANES), most));
            L::store(column + key * LANES, weight);
            sum = L::add(sum, weight);
        }
        L::store(largest + v * L::COUNT, most);
        L::store(sums + v * L::COUNT, sum);
        L::store(factors + v * L::COUNT, factor);
    }
}

// Adds `count` values to V vectors of the results of a tile.
template <int V>
void add_values(const float * weights, const float * factors, const float * values, int64_t value_size, int count,
                float * results) {
    for (int lane = 0; lane < LANES; lane += QUERIES_AT_ONCE) {
        Floats sums[QUERIES_AT_ONCE][V];
        for (int q = 0; q < QUERIES_AT_ONCE; ++q) {
            const Floats factor = FloatLanes::floats(factors[lane + q]);
            for (int v = 0; v < V; ++v) {
                const Floats before = FloatLanes::load(results + (lane + q) * value_size + v * FloatLanes::COUNT);
                sums[q][v] = FloatLanes::multiply(before, factor);
            }
        }
        multiply(weights + lane, 1, LANES, values, value_size, count, sums);
        for (int q = 0; q < QUERIES_AT_ONCE; ++q) {
            for (int v = 0; v < V; ++v) {
                FloatLanes::store(results + (lane + q) * value_size + v * FloatLanes::COUNT, sums[q][v]);
            }
        }
    }
}

inline void multiply_values(const float * weights, const float * factors, const float * values, int64_t value_size, int count,
                            float * results) {
    constexpr int WIDTH = VALUE_VECTORS * FloatLanes::COUNT;
    int64_t element = 0;
    for (; element + WIDTH <= value_size; element += WIDTH) {
        add_values<VALUE_VECTORS>(weights, factors, values + element, value_size, count, results + element);
    }
    for (; element < value_size; element += FloatLanes::COUNT) {
        add_values<1>(weights, factors, values + element, value_size, count, results + element);
    }
}

// `count` rows of a cache as floats; those missing to a multiple of KEYS_AT_ONCE are zeros.
inline void convert(const ggml_tensor * cache, int64_t first, int count, int64_t head, int64_t stream, float * to) {
    const int64_t size = cache->ne[0];
    const char * row = static_cast<const char *>(cache->data) + first * cache->nb[1] + head * cache->nb[2] + stream * cache->nb[3];
    for (int i = 0; i < count; ++i, row += cache->nb[1], to += size) {
        if (cache->type == GGML_TYPE_F32) {
            std::memcpy(to, row, static_cast<size_t>(size) * sizeof(float));
        } else if (cache->type == GGML_TYPE_F16) {
            ggml_cpu_fp16_to_fp32(reinterpret_cast<const ggml_fp16_t *>(row), to, size);
        } else {
            ggml_get_type_traits(cache->type)->to_float(row, to, size);
        }
    }
    std::fill_n(to, (KEYS - count) % KEYS_AT_ONCE * size, 0.0f);
}

// The mask of some tokens, as bits of 16-bit floats.
class Mask {
  public:
    enum class Closes { NOTHING, SOMETHING, ALL };

    Mask(const ggml_tensor * mask, int64_t stream)
        : first_(mask ? static_cast<const char *>(mask->data) + stream % mask->ne[3] * mask->nb[3] : nullptr),
          stride_(mask ? mask->nb[1] : 0) {}

    const ggml_fp16_t * of(int64_t token) const {
        return reinterpret_cast<const ggml_fp16_t *>(first_ + token * static_cast<int64_t>(stride_));
    }

    // What it does with `count` keys from `key` on for tokens `first` to `last`, the last among them. It closes something
    // to somebody, too, where it adds numbers.
    Closes closes(int64_t first, int64_t last, int64_t key, int count) const {
        constexpr ggml_fp16_t MINUS_INFINITY = 0xfc00;
        if (!first_) {
            return Closes::NOTHING;
        }
        unsigned set = 0, open = 0;
        for (int64_t token = first; token <= last; ++token) {
            const ggml_fp16_t * bits = of(token) + key;
            for (int i = 0; i < count; ++i) {
                set |= bits[i];
                open |= bits[i] ^ MINUS_INFINITY;
            }
        }
        return !set ? Closes::NOTHING : !open ? Closes::ALL : Closes::SOMETHING;
    }

  private:
    const char * first_;
    size_t stride_;
};

// One node, and the memory of one thread.
class Attention {
  public:
    Attention(const ggml_tensor * node, float * memory)
        : node_(node), queries_(node->src[0]), keys_(node->src[1]), values_(node->src[2]),
          tokens_(queries_->ne[1]), group_(queries_->ne[2] / keys_->ne[2]), key_size_(keys_->ne[0]), value_size_(values_->ne[0]),
          scratch_(key_size_, value_size_, memory) {
        std::memcpy(&scale_, node->op_params, sizeof(scale_));
        std::memcpy(&max_bias_, node->op_params + 1, sizeof(max_bias_));
    }

    // Tiles of queries that share keys and values.
    int64_t tiles() const { return (tokens_ * group_ + LANES - 1) / LANES; }
    // How many keys and values there are to be shared.
    int64_t heads() const { return keys_->ne[2] * queries_->ne[3]; }

    // The results of `count` tiles from `first` on, of one head.
    void compute(int64_t head_and_stream, int64_t first, int count) {
        head_ = head_and_stream % keys_->ne[2];
        stream_ = head_and_stream / keys_->ne[2];
        const int64_t stream = stream_ / (queries_->ne[3] / keys_->ne[3]);
        const Mask mask(node_->src[3], stream_);
        for (int tile = 0; tile < count; ++tile) {
            begin(first + tile, tile);
        }
        for (int64_t key = 0; key < keys_->ne[1]; key += KEYS) {
            const int now = static_cast<int>(std::min<int64_t>(KEYS, keys_->ne[1] - key));
            bool converted = false;
            for (int tile = 0; tile < count; ++tile) {
                const int64_t last = std::min((first + tile + 1) * LANES, tokens_ * group_) - 1;
                const Mask::Closes closes = mask.closes((first + tile) * LANES / group_, last / group_, key, now);
                if (closes == Mask::Closes::ALL) {
                    continue;
                }
                if (!converted) {
                    convert(keys_, key, now, head_, stream, scratch_.keys);
                    convert(values_, key, now, head_, stream, scratch_.values);
                    converted = true;
                }
                if (closes == Mask::Closes::SOMETHING) {
                    spread(mask, first + tile, tile, key, now);
                }
                float * results = scratch_.results + tile * LANES * value_size_;
                multiply_keys(scratch_.queries + tile * LANES * key_size_, scratch_.keys, key_size_, now, scratch_.scores);
                weigh(scratch_.scores, closes == Mask::Closes::SOMETHING ? scratch_.bias : nullptr, now,
                      scratch_.largest + tile * LANES, scratch_.sums + tile * LANES, scratch_.factors);
                multiply_values(scratch_.scores, scratch_.factors, scratch_.values, value_size_, now, results);
            }
        }
        for (int tile = 0; tile < count; ++tile) {
            end(first + tile, tile);
        }
    }

  private:
    // Calls with the lane, token and head of each query of a tile.
    template <typename Call> void each_query(int64_t tile, Call call) const {
        const int64_t begin = tile * LANES, end = std::min(begin + LANES, tokens_ * group_);
        int64_t token = begin / group_, within = begin % group_;
        for (int64_t query = begin; query < end; ++query) {
            call(query - begin, token, head_ * group_ + within);
            if (++within == group_) {
                within = 0;
                ++token;
            }
        }
    }

    // Turns the queries of a tile, and begins its results.
    void begin(int64_t tile, int within) {
        float * to = scratch_.queries + within * LANES * key_size_;
        if ((tile + 1) * LANES > tokens_ * group_) {
            std::fill_n(to, LANES * key_size_, 0.0f);
        }
        each_query(tile, [&](int64_t lane, int64_t token, int64_t head) {
            const auto * query = reinterpret_cast<const float *>(static_cast<const char *>(queries_->data) + token * queries_->nb[1] +
                                                                 head * queries_->nb[2] + stream_ * queries_->nb[3]);
            for (int64_t element = 0; element < key_size_; ++element) {
                to[element * LANES + lane] = query[element] * scale_;
            }
            scratch_.slopes[within * LANES + lane] = slope_of(head);
        });
        std::fill_n(scratch_.results + within * LANES * value_size_, LANES * value_size_, 0.0f);
        // Not minus infinity: the difference to a score that is must not be NaN.
        std::fill_n(scratch_.largest + within * LANES, LANES, -FLT_MAX);
        std::fill_n(scratch_.sums + within * LANES, LANES, 0.0f);
    }

    // Writes the mask of a tile into `bias`, a lane for each query.
    void spread(const Mask & mask, int64_t tile, int within, int64_t key, int count) {
        float of_token[KEYS];
        int64_t converted = -1;
        std::fill_n(scratch_.bias, KEYS * LANES, 0.0f);
        each_query(tile, [&](int64_t lane, int64_t token, int64_t) {
            if (token != converted) {
                ggml_cpu_fp16_to_fp32(mask.of(token) + key, of_token, count);
                converted = token;
            }
            const float slope = scratch_.slopes[within * LANES + lane];
            for (int i = 0; i < count; ++i) {
                scratch_.bias[i * LANES + lane] = slope * of_token[i];
            }
        });
    }

    // What a head's mask is multiplied with: 1, or the slope of ALiBi (Press et al. 2022, section 3).
    float slope_of(int64_t head) const {
        if (max_bias_ <= 0.0f) {
            return 1.0f;
        }
        const auto heads = static_cast<double>(queries_->ne[2]);
        const double power = std::exp2(std::floor(std::log2(heads)));
        const auto h = static_cast<double>(head);
        const double exponent = h < power ? (h + 1) / power : (2 * (h - power) + 1) / (2 * power);
        return static_cast<float>(std::exp2(-max_bias_ * exponent));
    }

    // Writes the results of a tile. A query that sees nothing has zeros.
    void end(int64_t tile, int within) {
        each_query(tile, [&](int64_t lane, int64_t token, int64_t head) {
            const float sum = scratch_.sums[within * LANES + lane];
            const float scale = sum == 0.0f ? 0.0f : 1.0f / sum;
            const float * result = scratch_.results + (within * LANES + lane) * value_size_;
            auto * to = reinterpret_cast<float *>(static_cast<char *>(node_->data) + head * node_->nb[1] + token * node_->nb[2] +
                                                  stream_ * node_->nb[3]);
            for (int64_t element = 0; element < value_size_; ++element) {
                to[element] = result[element] * scale;
            }
        });
    }

    const ggml_tensor *node_, *queries_, *keys_, *values_;
    int64_t tokens_, group_, key_size_, value_size_;
    int64_t head_ = 0, stream_ = 0;
    float scale_, max_bias_;
    Scratch scratch_;
};

// Whether it was a node for this file.
inline bool computed(const ggml_compute_params * params, const ggml_tensor * node) {
    if (params->use_ref || !takes(node)) {
        return false;
    }
    const auto memory = (reinterpret_cast<uintptr_t>(params->wdata) + CACHE_LINE - 1) / CACHE_LINE * CACHE_LINE;
    const int64_t floats = Scratch::floats(node->src[1]->ne[0], node->src[2]->ne[0]);
    Attention attention(node, reinterpret_cast<float *>(memory) + params->ith * floats);
    // Enough items that threads end together; the last tokens, which see most keys, come first.
    const int64_t tiles = attention.tiles(), heads = attention.heads();
    const int64_t most = std::clamp<int64_t>(tiles * heads / (4 * params->nth), 1, MOST_TILES);
    const int64_t parts = (tiles + most - 1) / most;
    threadpool::share_out(params, parts * heads, threadpool::EACH_ALONE, [&](int64_t item, int64_t end) {
        for (; item < end; ++item) {
            const int64_t first = (parts - 1 - item / heads) * most;
            attention.compute(item % heads, first, static_cast<int>(std::min(most, tiles - first)));
        }
    });
    return true;
}

} // namespace attention
