// Attention, in place of ggml's flash attention.
//
// The result for a query q is softmax(scale * K q + mask) V, in one pass over keys and values, with the running maximum and sum
// of Milakov and Gimelshein (Online normalizer calculation for softmax, 2018), as Dao et al. (FlashAttention, 2022) tile it.
//
// A tile is LANES queries: one token's heads that share keys and values, the next token's, and so on. Queries lie across the
// lanes of vectors, so that scores come out with a query a lane, and its maximum, exponentials and sum need nothing from other lanes.
// Keys and values are only ever broadcast or read in the order in which they lie: nothing but queries is transposed, once. What
// ggml does for each head anew, to convert keys and values from the cache's type, is done once for all heads and tokens of an
// item of work. Keys, KEYS at a time, that the mask closes to all queries of a tile are passed over, and it is added only where it is not
// all zeros. Where it leaves few vectors of queries something to see, as that of many sequences in one cache does, these are computed
// alone.
//
// Where the queries of a head are few, as a single token's are, a tile is one vector, and there may be fewer heads than threads: then
// an item of work is a stretch of the keys, and what was seen in each is put together at the end, in the order of the keys. Other
// tiles see a stretch after another, too, so that what a query gets does not depend on the other tokens of a pass, to the last bit; nor
// does it on the threads. (Sums of products are written as multiply_add: a compiler might make one of them or not.)
#pragma once

#include "attention_tile.h"
#include "threadpool.h"

#include <algorithm>
#include <cfloat>
#include <cmath>

namespace attention {

// Keys of a stretch. Threads that have one each must meet before these are put together, which a short context need not wait for.
constexpr int64_t STRETCH = 256;
static_assert(STRETCH % KEYS == 0);

// Heads of queries that share keys, from which on few tokens are computed here, too. Fewer fill too few lanes where ggml multiplies
// 512 bits, or 16-bit floats, at once: on Zen 4, behind 1024 tokens, one is at 0.65 of ggml's speed, two at 0.95, three at 1.2.
#if defined(__AVX512F__) || defined(__ARM_FEATURE_FP16_VECTOR_ARITHMETIC)
constexpr int64_t LEAST_GROUP = 3;
#else
constexpr int64_t LEAST_GROUP = 1;
#endif

// From here on ggml computes with 32 bits as well, caches in F16 at least.
constexpr int64_t MANY_TOKENS = 64;

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
    const bool worth = queries->ne[1] >= MANY_TOKENS || queries->ne[2] >= LEAST_GROUP * keys->ne[2];
    return worth && !sinks && cap == 0.0f && queries->type == GGML_TYPE_F32 &&
           queries->nb[0] == sizeof(float) && converts(keys) && converts(values) && keys->ne[1] > 0 &&
           values->ne[0] % FloatLanes::COUNT == 0 && keys->ne[2] == values->ne[2] && keys->ne[3] == values->ne[3] &&
           queries->ne[2] % keys->ne[2] == 0 && queries->ne[3] % keys->ne[3] == 0 &&
           (!mask || (mask->type == GGML_TYPE_F16 && mask->ne[2] == 1));
}

// Memory of one thread, in floats.
template <typename Tile> class Scratch {
  public:
    Scratch(int64_t key_size, int64_t value_size, float * memory) : memory_(memory) {
        queries = take(Tile::MOST_TILES * Tile::LANES * key_size);
        seen = take(Tile::SEEN_TILES * Seen::floats<Tile>(value_size));
        more = take(Tile::SEEN_TILES * Seen::floats<Tile>(value_size));
        keys = take(KEYS * key_size);
        values = take(KEYS * value_size);
        scores = take(KEYS * Tile::LANES);
        bias = take(KEYS * Tile::LANES);
        factors = take(Tile::LANES);
        slopes = take(Tile::MOST_TILES * Tile::LANES);
    }

    // How much a thread needs, a whole number of cache lines.
    static int64_t floats(int64_t key_size, int64_t value_size) {
        return Scratch(key_size, value_size, nullptr).taken_;
    }

    float * queries; // [tile][element of a key][lane]
    float * seen;    // [tile], each a Seen
    float * more;    // as many, of another stretch of the keys
    float * keys;    // [key][element]
    float * values;  // [value][element]
    float * scores;  // [key][lane]
    float * bias;    // [key][lane]
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

// `count` rows of a cache as floats; those missing to a multiple of `at_once` are zeros. Asks for the next rows, up to `end`.
inline void convert(const ggml_tensor * cache, int64_t first, int count, int64_t end, int at_once, int64_t head, int64_t stream,
                    float * to) {
    const int64_t size = cache->ne[0];
    const char * row = static_cast<const char *>(cache->data) + first * cache->nb[1] + head * cache->nb[2] + stream * cache->nb[3];
    const size_t bytes = ggml_row_size(cache->type, size);
    for (int i = 0; i < count; ++i, row += cache->nb[1], to += size) {
        for (size_t line = 0; first + i + KEYS < end && line < bytes; line += CACHE_LINE) {
            kernels::Lanes::prefetch(reinterpret_cast<const uint8_t *>(row + KEYS * cache->nb[1] + line));
        }
        if (cache->type == GGML_TYPE_F32) {
            std::memcpy(to, row, static_cast<size_t>(size) * sizeof(float));
        } else if (cache->type == GGML_TYPE_F16) {
            ggml_cpu_fp16_to_fp32(reinterpret_cast<const ggml_fp16_t *>(row), to, size);
        } else {
            ggml_get_type_traits(cache->type)->to_float(row, to, size);
        }
    }
    std::fill_n(to, (KEYS - count) % at_once * size, 0.0f);
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

    // What it does with `count` keys from `key` on for tokens `first` to `last`, the last among them. SOMETHING is also a number other
    // than zero that it adds.
    Closes closes(int64_t first, int64_t last, int64_t key, int count) const {
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

    // Which of `count` keys it leaves open to any of tokens `first` to `last`: their entries are not zero.
    void leave_open(int64_t first, int64_t last, int64_t key, int count, ggml_fp16_t * open) const {
        std::fill_n(open, count, ggml_fp16_t{0});
        for (int64_t token = first; token <= last; ++token) {
            const ggml_fp16_t * bits = of(token) + key;
            for (int i = 0; i < count; ++i) {
                open[i] |= bits[i] ^ MINUS_INFINITY;
            }
        }
    }

  private:
    static constexpr ggml_fp16_t MINUS_INFINITY = 0xfc00;

    const char * first_;
    size_t stride_;
};

// One node, and the memory of one thread.
template <typename Tile> class Attention {
    static constexpr int LANES = Tile::LANES;

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
        choose(head_and_stream);
        turn(first, count);
        bool saw = false;
        for (int64_t stretch = 0; stretch < stretches(); ++stretch) {
            float * memory = saw ? scratch_.more : scratch_.seen;
            if (!look(first, count, stretch, memory)) {
                continue;
            }
            for (int tile = 0; saw && tile < count; ++tile) {
                const int queries = static_cast<int>(queries_of(first + tile));
                put_together<Tile>(seen(scratch_.seen, tile), seen(memory, tile), value_size_, queries);
            }
            saw = true;
        }
        if (!saw) {
            forget(count, scratch_.seen);
        }
        for (int tile = 0; tile < count; ++tile) {
            end(first + tile, seen(scratch_.seen, tile));
        }
    }

    // Stretches of the keys.
    int64_t stretches() const { return (keys_->ne[1] + STRETCH - 1) / STRETCH; }

    // Another way to the same: what a tile of a head sees in one stretch. `memory` has a Seen for each, those of a tile's stretches
    // side by side.
    void look_at_stretch(int64_t head_and_tile, int64_t stretch, float * memory) {
        const int64_t tile = head_and_tile % tiles();
        choose(head_and_tile / tiles());
        turn(tile, 1);
        float * of_this = of_stretch(memory, head_and_tile, stretch);
        if (!look(tile, 1, stretch, of_this)) {
            forget(1, of_this);
        }
    }
    // The results of a tile of a head, when all its stretches have been looked at.
    void finish(int64_t head_and_tile, float * memory) {
        const int64_t tile = head_and_tile % tiles();
        choose(head_and_tile / tiles());
        const Seen all = seen(of_stretch(memory, head_and_tile, 0), 0);
        for (int64_t stretch = 1; stretch < stretches(); ++stretch) {
            const Seen more = seen(of_stretch(memory, head_and_tile, stretch), 0);
            put_together<Tile>(all, more, value_size_, static_cast<int>(queries_of(tile)));
        }
        end(tile, all);
    }

  private:
    void choose(int64_t head_and_stream) {
        head_ = head_and_stream % keys_->ne[2];
        stream_ = head_and_stream / keys_->ne[2];
    }

    Seen seen(float * memory, int64_t tile) const {
        return Seen::at<Tile>(memory + tile * Seen::floats<Tile>(value_size_), value_size_);
    }

    float * of_stretch(float * memory, int64_t head_and_tile, int64_t stretch) const {
        return memory + (head_and_tile * stretches() + stretch) * Seen::floats<Tile>(value_size_);
    }

    int64_t queries_of(int64_t tile) const { return std::min<int64_t>(LANES, tokens_ * group_ - tile * LANES); }

    // What `count` tiles have seen before they look.
    void forget(int count, float * memory) {
        for (int tile = 0; tile < count; ++tile) {
            const Seen nothing = seen(memory, tile);
            std::fill_n(nothing.results, LANES * value_size_, 0.0f);
            // Not minus infinity: the difference to a score that is must not be NaN.
            std::fill_n(nothing.largest, LANES, -FLT_MAX);
            std::fill_n(nothing.sums, LANES, 0.0f);
        }
    }

    // What `count` tiles from `first` on see of a stretch of the keys. False: nothing, and the memory is as it was.
    bool look(int64_t first, int count, int64_t stretch, float * memory) {
        const int64_t stream = stream_ / (queries_->ne[3] / keys_->ne[3]);
        const Mask mask(node_->src[3], stream_);
        bool saw = false;
        const int64_t end = std::min((stretch + 1) * STRETCH, keys_->ne[1]);
        for (int64_t key = stretch * STRETCH; key < end; key += KEYS) {
            const int now = static_cast<int>(std::min<int64_t>(KEYS, end - key));
            bool converted = false;
            for (int tile = 0; tile < count; ++tile) {
                const int64_t queries = queries_of(first + tile);
                const Mask::Closes closes = closed_to(mask, (first + tile) * LANES, queries, key, now);
                if (closes == Mask::Closes::ALL) {
                    continue;
                }
                if (!saw) {
                    forget(count, memory);
                    saw = true;
                }
                if (!converted) {
                    convert(keys_, key, now, end, KEYS_OF_VECTOR, head_, stream, scratch_.keys);
                    convert(values_, key, now, end, 1, head_, stream, scratch_.values);
                    if (closes == Mask::Closes::SOMETHING) {
                        forget_closed(mask, first, count, key, now);
                    }
                    converted = true;
                }
                if (closes == Mask::Closes::SOMETHING) {
                    spread(mask, first + tile, tile, key, now);
                    if (Tile::QUERY_VECTORS > 1 && look_alone(mask, first, tile, key, now, memory)) {
                        continue;
                    }
                }
                look_at<Tile::QUERY_VECTORS>(tile, 0, static_cast<int>(queries), now, closes == Mask::Closes::SOMETHING, memory);
            }
        }
        return saw;
    }

    // What the mask does with some keys for `count` queries from `query` on.
    Mask::Closes closed_to(const Mask & mask, int64_t query, int64_t count, int64_t key, int keys) const {
        return mask.closes(query / group_, (query + count - 1) / group_, key, keys);
    }

    // Those vectors of a tile's queries that see any of some keys, where that is half of them at most: otherwise false, and all are to be
    // computed at once, which is faster for each.
    bool look_alone(const Mask & mask, int64_t first, int tile, int64_t key, int keys, float * memory) {
        constexpr int VECTOR = Tile::QueryLanes::COUNT;
        const auto queries = static_cast<int>(queries_of(first + tile));
        int open[Tile::QUERY_VECTORS], count = 0;
        for (int lane = 0; lane < queries; lane += VECTOR) {
            const int of_vector = std::min(VECTOR, queries - lane);
            if (closed_to(mask, (first + tile) * LANES + lane, of_vector, key, keys) != Mask::Closes::ALL) {
                open[count++] = lane;
            }
        }
        if (2 * count > Tile::QUERY_VECTORS) {
            return false;
        }
        for (int i = 0; i < count; ++i) {
            look_at<1>(tile, open[i], std::min(VECTOR, queries - open[i]), keys, true, memory);
        }
        return true;
    }

    // What V vectors of a tile's queries, from `lane` on, see of the keys that were converted last.
    template <int V> void look_at(int tile, int lane, int queries, int keys, bool biased, float * memory) {
        const Seen of_lanes = seen(memory, tile).from(lane, value_size_);
        float * scores = scratch_.scores + lane;
        const float * turned = scratch_.queries + tile * LANES * key_size_ + lane;
        multiply_keys<Tile, V>(turned, scratch_.keys, key_size_, keys, scores);
        weigh<Tile, V>(scores, biased ? scratch_.bias + lane : nullptr, keys, of_lanes, scratch_.factors + lane);
        multiply_values<Tile, V>(scores, scratch_.factors + lane, scratch_.values, value_size_, keys, queries, of_lanes.results);
    }

    // Calls with the lane, token and head of each query of a tile.
    template <typename Call> void each_query(int64_t tile, Call call) const {
        const int64_t begin = tile * LANES, end = begin + queries_of(tile);
        int64_t token = begin / group_, within = begin % group_;
        for (int64_t query = begin; query < end; ++query) {
            call(query - begin, token, head_ * group_ + within);
            if (++within == group_) {
                within = 0;
                ++token;
            }
        }
    }

    // Makes zeros of keys and values that no query of `count` tiles sees. What is left in a cell that nobody uses may be infinite, and
    // no weight, not even 0, is to make NaN of it.
    void forget_closed(const Mask & mask, int64_t first, int count, int64_t key, int keys) {
        const int64_t last = ((first + count - 1) * LANES + queries_of(first + count - 1) - 1) / group_;
        ggml_fp16_t open[KEYS];
        mask.leave_open(first * LANES / group_, last, key, keys, open);
        for (int i = 0; i < keys; ++i) {
            if (!open[i]) {
                std::fill_n(scratch_.keys + i * key_size_, key_size_, 0.0f);
                std::fill_n(scratch_.values + i * value_size_, value_size_, 0.0f);
            }
        }
    }

    // Turns the queries of `count` tiles from `first` on.
    void turn(int64_t first, int count) {
        for (int tile = 0; tile < count; ++tile) {
            float * to = scratch_.queries + tile * LANES * key_size_;
            if (queries_of(first + tile) < LANES) {
                std::fill_n(to, LANES * key_size_, 0.0f);
            }
            each_query(first + tile, [&](int64_t lane, int64_t token, int64_t head) {
                const auto * query = reinterpret_cast<const float *>(static_cast<const char *>(queries_->data) +
                                                                     token * queries_->nb[1] + head * queries_->nb[2] +
                                                                     stream_ * queries_->nb[3]);
                for (int64_t element = 0; element < key_size_; ++element) {
                    to[element * LANES + lane] = query[element] * scale_;
                }
                scratch_.slopes[tile * LANES + lane] = slope_of(head);
            });
        }
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
    void end(int64_t tile, const Seen & seen) {
        each_query(tile, [&](int64_t lane, int64_t token, int64_t head) {
            const float sum = seen.sums[lane];
            const float scale = sum == 0.0f ? 0.0f : 1.0f / sum;
            const float * result = seen.results + lane * value_size_;
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
    Scratch<Tile> scratch_;
};

// Floats of the threads' scratch memory.
template <typename Tile> int64_t scratch_floats(const ggml_tensor * node, int threads) {
    return Scratch<Tile>::floats(node->src[1]->ne[0], node->src[2]->ne[0]) * threads;
}

// How a node is computed with a kind of tile: its memory in floats, and what a thread does.
template <typename Tile> struct Node;

template <> struct Node<Many> {
    static int64_t floats(const ggml_tensor * node, int threads) { return scratch_floats<Many>(node, threads); }

    static void compute(const ggml_compute_params * params, const ggml_tensor * node, float * memory) {
        Attention<Many> attention(node, memory + scratch_floats<Many>(node, params->ith));
        // Enough items that threads end together; the last tokens, which see most keys, come first.
        const int64_t tiles = attention.tiles(), heads = attention.heads();
        const int64_t most = std::clamp<int64_t>(tiles * heads / (4 * params->nth), 1, Many::MOST_TILES);
        const int64_t parts = (tiles + most - 1) / most;
        threadpool::share_out(params, parts * heads, threadpool::EACH_ALONE, [&](int64_t item, int64_t end) {
            for (; item < end; ++item) {
                const int64_t first = (parts - 1 - item / heads) * most;
                attention.compute(item % heads, first, static_cast<int>(std::min(most, tiles - first)));
            }
        });
    }
};

template <typename Lanes> struct Node<One<Lanes>> {
    using Tile = One<Lanes>;

    static int64_t floats(const ggml_tensor * node, int threads) {
        const Attention<Tile> attention(node, nullptr);
        const int64_t items = attention.heads() * attention.tiles() * attention.stretches();
        return scratch_floats<Tile>(node, threads) + items * Seen::floats<Tile>(node->src[2]->ne[0]);
    }

    static void compute(const ggml_compute_params * params, const ggml_tensor * node, float * memory) {
        Attention<Tile> attention(node, memory + scratch_floats<Tile>(node, params->ith));
        const int64_t tiles = attention.heads() * attention.tiles(), stretches = attention.stretches();
        float * seen = memory + scratch_floats<Tile>(node, params->nth);
        threadpool::share_out(params, tiles * stretches, threadpool::EACH_ALONE, [&](int64_t item, int64_t end) {
            for (; item < end; ++item) {
                attention.look_at_stretch(item / stretches, item % stretches, seen);
                if (stretches == 1) {
                    attention.finish(item, seen);
                }
            }
        });
        if (stretches > 1) {
            ggml_barrier(params->threadpool);
            for (int64_t tile = params->ith; tile < tiles; tile += params->nth) {
                attention.finish(tile, seen);
            }
        }
    }
};

// Calls with the kind of tile for a node. Many vectors in a tile compute faster than one, but where a few such tiles are all that there
// is, most of many threads would have nothing to do.
template <typename Call> auto with_tile(const ggml_tensor * node, int threads, Call call) {
    const ggml_tensor *queries = node->src[0], *keys = node->src[1];
    const int64_t of_head = queries->ne[1] * (queries->ne[2] / keys->ne[2]);
    if (of_head <= HalfLanes::COUNT) {
        return call(Node<One<HalfLanes>>());
    }
    const int64_t tiles = (of_head + Many::LANES - 1) / Many::LANES;
    const bool too_few = tiles <= 4 && tiles * keys->ne[2] * queries->ne[3] < 2 * threads;
    return tiles == 1 || too_few ? call(Node<One<FloatLanes>>()) : call(Node<Many>());
}

inline size_t work_size(const ggml_tensor * node, int threads) {
    const auto floats_of = [&](auto tile) { return tile.floats(node, threads); };
    // With fewer threads, which is what a graph may get in the end, the other kind may be chosen.
    const int64_t floats = std::max(with_tile(node, threads, floats_of), with_tile(node, 1, floats_of));
    return static_cast<size_t>(floats) * sizeof(float) + CACHE_LINE;
}

// Whether it was a node for this file.
inline bool computed(const ggml_compute_params * params, const ggml_tensor * node) {
    if (params->use_ref || !takes(node)) {
        return false;
    }
    const auto first = (reinterpret_cast<uintptr_t>(params->wdata) + CACHE_LINE - 1) / CACHE_LINE * CACHE_LINE;
    with_tile(node, params->nth, [&](auto tile) { tile.compute(params, node, reinterpret_cast<float *>(first)); });
    return true;
}

} // namespace attention
