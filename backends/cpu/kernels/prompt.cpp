// Products of quantised weights with many tokens at once, in place of the ones that ggml has for the same files.
//
// ggml multiplies most block formats row by row, or with 256 bits. Here ROWS rows at a time, a panel, are taken apart: their
// codes become bytes, four columns of each row side by side, as VNNI multiplies them; and that panel serves all tokens. Nothing is
// kept: a model's weights stay in the file's form, which is the smallest for the tokens that come one by one.
//
// The first operand of a VNNI multiply-add is unsigned. Weights are signed here, whatever their format, and 128 is added to the
// activations, which ggml has quantised to blocks of 32 signed bytes (Q8_0 or Q8_1) into memory that is this node's alone. What
// that adds to a sum is 128 times the sum of a row's codes in the block: sums begin with less.
#define GGML_COMMON_IMPL_CPP
#include "ggml-common.h"

#include "ggml-cpu-impl.h"
#include "simd-mappings.h"

// ggml's function, under another name, does what this file does not.
#define llamafile_sgemm ggml_llamafile_sgemm
#include "llamafile/sgemm.cpp"
#undef llamafile_sgemm

#include "lanes.h"

#if defined(__AVX512VNNI__) || defined(__AVXVNNI__)

#include <algorithm>

namespace prompt {

using kernels::Lanes;

constexpr int BLOCK = 32;
constexpr int GROUPS = 2;
constexpr int ROWS = GROUPS * Lanes::COUNT;
constexpr int TILE = Lanes::COUNT == 16 ? 6 : 3; // tokens at once, as registers allow
// Blocks of a panel that are taken apart at a time: they stay in the first-level cache.
constexpr int STRETCH = 16;
// Fewer tokens do not make up for taking the rows apart.
constexpr int64_t LEAST_TOKENS = 8;

// ggml's macro looks halves up in a table of 256 KiB.
inline float to_float(ggml_half half) { return _cvtsh_ss(half); }

struct Panel {
    alignas(64) uint8_t codes[STRETCH][BLOCK / 4][ROWS * 4];
    alignas(64) float scales[STRETCH][ROWS];
    alignas(64) float minima[STRETCH][ROWS];
    alignas(64) int32_t offsets[STRETCH][ROWS];
};

// The codes of a block as signed bytes: columns 0 to 15, and 16 to 31.
struct Sixteens {
    __m128i first, second;
};

inline Sixteens nibbles(const uint8_t * bytes) {
    const __m128i both = _mm_loadu_si128(reinterpret_cast<const __m128i *>(bytes)), low = _mm_set1_epi8(15);
    return {_mm_and_si128(both, low), _mm_and_si128(_mm_srli_epi16(both, 4), low)};
}

// 16 where the bit of a column is set.
inline __m128i fifth_bits(uint32_t bits) {
    const __m128i bytes = _mm_shuffle_epi8(_mm_cvtsi32_si128(static_cast<int>(bits)),
                                           _mm_set_epi64x(0x0101010101010101, 0));
    const __m128i one_each = _mm_set1_epi64x(static_cast<long long>(0x8040201008040201));
    return _mm_and_si128(_mm_cmpeq_epi8(_mm_and_si128(bytes, one_each), one_each), _mm_set1_epi8(16));
}

inline Sixteens five_bits(const uint8_t * low, const uint8_t * high) {
    uint32_t bits;
    memcpy(&bits, high, sizeof(bits));
    const Sixteens four = nibbles(low);
    return {_mm_or_si128(four.first, fifth_bits(bits)), _mm_or_si128(four.second, fifth_bits(bits >> 16))};
}

inline Sixteens less(Sixteens codes, int8_t offset) {
    const __m128i all = _mm_set1_epi8(offset);
    return {_mm_sub_epi8(codes.first, all), _mm_sub_epi8(codes.second, all)};
}

inline Sixteens codes_of(const block_q8_0 & block) {
    const __m128i * bytes = reinterpret_cast<const __m128i *>(block.qs);
    return {_mm_loadu_si128(bytes), _mm_loadu_si128(bytes + 1)};
}
inline Sixteens codes_of(const block_q4_0 & block) { return less(nibbles(block.qs), 8); }
inline Sixteens codes_of(const block_q4_1 & block) { return nibbles(block.qs); }
inline Sixteens codes_of(const block_q5_0 & block) { return less(five_bits(block.qs, block.qh), 16); }
inline Sixteens codes_of(const block_q5_1 & block) { return five_bits(block.qs, block.qh); }
inline Sixteens codes_of(const block_iq4_nl & block) {
    const __m128i table = _mm_loadu_si128(reinterpret_cast<const __m128i *>(kvalues_iq4nl));
    const Sixteens four = nibbles(block.qs);
    return {_mm_shuffle_epi8(table, four.first), _mm_shuffle_epi8(table, four.second)};
}

// Whether a number is added to each weight of a block.
template <typename Weights> constexpr bool HAS_MINIMUM = false;
template <> constexpr bool HAS_MINIMUM<block_q4_1> = true;
template <> constexpr bool HAS_MINIMUM<block_q5_1> = true;

// Writes 16 columns of four rows: four dwords of each, turned into one vector for each four columns.
inline void transpose(__m128i a, __m128i b, __m128i c, __m128i d, uint8_t * to) {
    const __m128i ab_low = _mm_unpacklo_epi32(a, b), ab_high = _mm_unpackhi_epi32(a, b);
    const __m128i cd_low = _mm_unpacklo_epi32(c, d), cd_high = _mm_unpackhi_epi32(c, d);
    const __m128i columns[] = {_mm_unpacklo_epi64(ab_low, cd_low), _mm_unpackhi_epi64(ab_low, cd_low),
                               _mm_unpacklo_epi64(ab_high, cd_high), _mm_unpackhi_epi64(ab_high, cd_high)};
    for (int i = 0; i < 4; ++i) {
        _mm_store_si128(reinterpret_cast<__m128i *>(to + i * ROWS * 4), columns[i]);
    }
}

// Takes `blocks` blocks of `rows` rows apart. Rows that are missing have scales of zero.
template <typename Weights>
void take_apart(const Weights * weights, int64_t stride, int rows, int blocks, Panel & panel) {
    for (int b = 0; b < blocks; ++b) {
        for (int r = 0; r < ROWS; r += 4) {
            Sixteens four[4] = {};
            for (int i = 0; i < 4; ++i) {
                float scale = 0.0f, minimum = 0.0f;
                if (r + i < rows) {
                    const Weights & block = weights[(r + i) * stride + b];
                    four[i] = codes_of(block);
                    scale = to_float(block.d);
                    if constexpr (HAS_MINIMUM<Weights>) {
                        minimum = to_float(block.m);
                    }
                }
                panel.scales[b][r + i] = scale;
                panel.minima[b][r + i] = minimum;
            }
            transpose(four[0].first, four[1].first, four[2].first, four[3].first, &panel.codes[b][0][r * 4]);
            transpose(four[0].second, four[1].second, four[2].second, four[3].second, &panel.codes[b][4][r * 4]);
        }
        const Lanes::Bytes bias = Lanes::broadcast(uint8_t{128});
        for (int g = 0; g < GROUPS; ++g) {
            Lanes::Partial sum = Lanes::zero();
            for (int four = 0; four < BLOCK / 4; ++four) {
                sum = Lanes::multiply_add(sum, bias, Lanes::load(&panel.codes[b][four][g * Lanes::COUNT * 4]));
            }
            Lanes::store(&panel.offsets[b][g * Lanes::COUNT], Lanes::subtract(Lanes::ints(0), Lanes::sum(sum)));
        }
    }
}

// Adds to ROWS products of each of T tokens, `stride` apart, or begins them.
template <int T, bool MINIMUM, typename Activations>
void multiply_tile(const Panel & panel, int blocks, const Activations * activations, int64_t activations_stride,
                   float * products, int64_t stride, bool begin) {
    Lanes::Floats results[T * GROUPS];
    GL_UNROLL
    for (int t = 0; t < T; ++t) {
        GL_UNROLL
        for (int g = 0; g < GROUPS; ++g) {
            results[t * GROUPS + g] =
                begin ? Lanes::floats(0.0f) : Lanes::load(products + t * stride + g * Lanes::COUNT);
        }
    }
    for (int b = 0; b < blocks; ++b) {
        Lanes::Partial sums[T * GROUPS];
        GL_UNROLL
        for (int t = 0; t < T; ++t) {
            GL_UNROLL
            for (int g = 0; g < GROUPS; ++g) {
                sums[t * GROUPS + g] = Lanes::load(&panel.offsets[b][g * Lanes::COUNT]);
            }
        }
        GL_UNROLL
        for (int four = 0; four < BLOCK / 4; ++four) {
            Lanes::Bytes weights[GROUPS];
            GL_UNROLL
            for (int g = 0; g < GROUPS; ++g) {
                weights[g] = Lanes::load(&panel.codes[b][four][g * Lanes::COUNT * 4]);
            }
            GL_UNROLL
            for (int t = 0; t < T; ++t) {
                const Lanes::Bytes token = Lanes::broadcast(activations[t * activations_stride + b].qs + four * 4);
                GL_UNROLL
                for (int g = 0; g < GROUPS; ++g) {
                    sums[t * GROUPS + g] = Lanes::multiply_add(sums[t * GROUPS + g], token, weights[g]);
                }
            }
        }
        GL_UNROLL
        for (int t = 0; t < T; ++t) {
            const Activations & block = activations[t * activations_stride + b];
            const Lanes::Floats scale = Lanes::floats(to_float(block.d));
            GL_UNROLL
            for (int g = 0; g < GROUPS; ++g) {
                Lanes::Floats & result = results[t * GROUPS + g];
                const Lanes::Floats both = Lanes::multiply(scale, Lanes::load(&panel.scales[b][g * Lanes::COUNT]));
                result = Lanes::add(result, Lanes::multiply(Lanes::convert(Lanes::sum(sums[t * GROUPS + g])), both));
                if constexpr (MINIMUM) {
                    const Lanes::Floats sum = Lanes::floats(to_float(block.s));
                    result = Lanes::add(result, Lanes::multiply(sum, Lanes::load(&panel.minima[b][g * Lanes::COUNT])));
                }
            }
        }
    }
    GL_UNROLL
    for (int t = 0; t < T; ++t) {
        GL_UNROLL
        for (int g = 0; g < GROUPS; ++g) {
            Lanes::store(products + t * stride + g * Lanes::COUNT, results[t * GROUPS + g]);
        }
    }
}

template <bool MINIMUM, typename Activations>
using MultiplyTile = void (*)(const Panel &, int, const Activations *, int64_t, float *, int64_t, bool);

// The function for `tokens` of a tile, 1 to TILE.
template <bool MINIMUM, typename Activations, int T = TILE>
MultiplyTile<MINIMUM, Activations> multiply_tile_of(int64_t tokens) {
    if constexpr (T > 1) {
        return tokens == T ? multiply_tile<T, MINIMUM, Activations> : multiply_tile_of<MINIMUM, Activations, T - 1>(tokens);
    }
    return multiply_tile<1, MINIMUM, Activations>;
}

struct Sizes {
    int64_t rows, tokens, blocks;
    int64_t weights_stride, activations_stride, products_stride; // of a row or token: in blocks, blocks and floats
};

template <typename Activations>
void add_128(Activations * activations, const Sizes & sizes, const ggml_compute_params * params) {
    const __m128i top = _mm_set1_epi8(-128);
    for (int64_t token = params->ith; token < sizes.tokens; token += params->nth) {
        for (int64_t b = 0; b < sizes.blocks; ++b) {
            __m128i * bytes = reinterpret_cast<__m128i *>(activations[token * sizes.activations_stride + b].qs);
            _mm_storeu_si128(bytes, _mm_xor_si128(_mm_loadu_si128(bytes), top));
            _mm_storeu_si128(bytes + 1, _mm_xor_si128(_mm_loadu_si128(bytes + 1), top));
        }
    }
}

template <typename Weights, typename Activations>
void multiply(const ggml_compute_params * params, const Sizes & sizes, const Weights * weights, Activations * activations,
              float * products) {
    constexpr bool MINIMUM = HAS_MINIMUM<Weights>;
    add_128(activations, sizes, params);
    ggml_barrier(params->threadpool);
    const int64_t panels = (sizes.rows + ROWS - 1) / ROWS;
    // Tokens are shared out, too, where there are so few panels that threads would wait for each other.
    const int64_t parts = std::clamp<int64_t>(4 * params->nth / panels, 1, std::max<int64_t>(sizes.tokens / 64, 1));
    Panel panel;
    for (int64_t item = params->ith; item < panels * parts; item += params->nth) {
        const int64_t row = item % panels * ROWS, part = item / panels;
        const int64_t first = sizes.tokens * part / parts, last = sizes.tokens * (part + 1) / parts;
        const int rows = static_cast<int>(std::min<int64_t>(ROWS, sizes.rows - row));
        for (int64_t begin = 0; begin < sizes.blocks; begin += STRETCH) {
            const int blocks = static_cast<int>(std::min<int64_t>(STRETCH, sizes.blocks - begin));
            take_apart(weights + row * sizes.weights_stride + begin, sizes.weights_stride, rows, blocks, panel);
            for (int64_t token = first; token < last; token += TILE) {
                const int64_t now = std::min<int64_t>(TILE, last - token);
                const Activations * of_tile = activations + token * sizes.activations_stride + begin;
                float * to = products + token * sizes.products_stride + row;
                const auto function = multiply_tile_of<MINIMUM, Activations>(now);
                if (rows == ROWS) {
                    function(panel, blocks, of_tile, sizes.activations_stride, to, sizes.products_stride, begin == 0);
                    continue;
                }
                float whole[TILE * ROWS] = {};
                for (int64_t t = 0; t < now && begin > 0; ++t) {
                    std::copy_n(to + t * sizes.products_stride, rows, whole + t * ROWS);
                }
                function(panel, blocks, of_tile, sizes.activations_stride, whole, ROWS, begin == 0);
                for (int64_t t = 0; t < now; ++t) {
                    std::copy_n(whole + t * ROWS, rows, to + t * sizes.products_stride);
                }
            }
        }
    }
}

// Whether it was a product for this file.
bool multiplied(const ggml_compute_params * params, const Sizes & sizes, const void * weights, void * activations,
                float * products, int weights_type, int activations_type) {
    const auto with = [&](auto * stored, auto * quantised) {
        multiply(params, sizes, stored, quantised, products);
        return true;
    };
    auto * q8_0 = static_cast<block_q8_0 *>(activations);
    auto * q8_1 = static_cast<block_q8_1 *>(activations);
    switch (weights_type + 1000 * activations_type) {
        case GGML_TYPE_Q8_0 + 1000 * GGML_TYPE_Q8_0:   return with(static_cast<const block_q8_0 *>(weights), q8_0);
        case GGML_TYPE_Q4_0 + 1000 * GGML_TYPE_Q8_0:   return with(static_cast<const block_q4_0 *>(weights), q8_0);
        case GGML_TYPE_Q5_0 + 1000 * GGML_TYPE_Q8_0:   return with(static_cast<const block_q5_0 *>(weights), q8_0);
        case GGML_TYPE_IQ4_NL + 1000 * GGML_TYPE_Q8_0: return with(static_cast<const block_iq4_nl *>(weights), q8_0);
        case GGML_TYPE_Q4_1 + 1000 * GGML_TYPE_Q8_1:   return with(static_cast<const block_q4_1 *>(weights), q8_1);
        case GGML_TYPE_Q5_1 + 1000 * GGML_TYPE_Q8_1:   return with(static_cast<const block_q5_1 *>(weights), q8_1);
        default:                                       return false;
    }
}

} // namespace prompt

#endif

// What ggml calls first for each product of two matrices, of `blocks` blocks a row: products[token][row], strides in blocks of each
// type. It computes the product itself where this answers false.
extern "C" bool llamafile_sgemm(const ggml_compute_params * params, int64_t rows, int64_t tokens, int64_t blocks,
                                const void * weights, int64_t weights_stride, const void * activations,
                                int64_t activations_stride, void * products, int64_t products_stride, int weights_type,
                                int activations_type, int products_type) {
#if defined(__AVX512VNNI__) || defined(__AVXVNNI__)
    // Of activations elsewhere somebody else may be the owner.
    const char *memory = static_cast<const char *>(params->wdata), *bytes = static_cast<const char *>(activations);
    const bool ours = memory && bytes >= memory && bytes < memory + params->wsize;
    const prompt::Sizes sizes = {rows, tokens, blocks, weights_stride, activations_stride, products_stride};
    if (ours && tokens >= prompt::LEAST_TOKENS && products_type == GGML_TYPE_F32 &&
        prompt::multiplied(params, sizes, weights, const_cast<void *>(activations), static_cast<float *>(products),
                           weights_type, activations_type)) {
        return true;
    }
#endif
    return ggml_llamafile_sgemm(params, rows, tokens, blocks, weights, weights_stride, activations, activations_stride,
                                products, products_stride, weights_type, activations_type, products_type);
}
