// What a kernel needs of an instruction set, under one name: `Lanes`. The compiler flags of the tier choose which.
//
// A `Lanes` has
//   COUNT            32-bit lanes of a vector; each belongs to one row of weights, its four bytes to four columns
//   REGISTERS        vectors that fit into registers
//   GROUPS, TILE     vectors of rows and tokens that a tile of a matrix product computes at once, as registers allow
//   CACHE            bytes of activations that should stay in the second-level cache during a product
//   limit(w)         multiply-adds that a Partial takes before it could overflow, with weights of at most w
//   WIDE             whether weights may use all 8 bits
//   Bytes            4 * COUNT bytes: unsigned weights (of 7 bits unless WIDE), or activations
//   Partial          running sums of products, in whatever form the instructions give
//   Ints, Floats     COUNT sums, or other numbers
//   Digits           with GL_DENSE: the table look-ups of dense.h, and multiply_add_four
// and the functions on them that `panel.h` and `attention.h` here and, in `backends/bitnet/kernels`, `product.h`, `six_bit.h` and
// `dense.h` are written with. Activations are within -127..127; in `panel.h`, which needs VNNI, they are the unsigned bytes and
// weights the signed.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <type_traits>

// The loops over a tile are short and of constant length; its sums stay in registers only if they are unrolled.
#if defined(__clang__)
#define GL_UNROLL _Pragma("clang loop unroll(full)")
#elif defined(__GNUC__)
#define GL_UNROLL _Pragma("GCC unroll 32")
#else
#define GL_UNROLL
#endif

// Keeps a compiler from adding the products of several steps to each other first: it takes more registers than there are.
#if defined(__GNUC__) && (defined(__x86_64__) || defined(__i386__))
#define GL_IN_ORDER(sum) __asm__("" : "+v"(sum))
#else
#define GL_IN_ORDER(sum)
#endif

// Keeps a compiler from knowing what a vector holds.
#if defined(__GNUC__) && (defined(__x86_64__) || defined(__i386__))
#define GL_OPAQUE(vector) __asm__("" : "+v"(vector))
#elif defined(__GNUC__) && defined(__aarch64__)
#define GL_OPAQUE(vector) __asm__("" : "+w"(vector))
#endif

#if defined(__GNUC__)
#define GL_INLINE inline __attribute__((always_inline))
#define GL_INLINE_LAMBDA __attribute__((always_inline))
#else
#define GL_INLINE __forceinline
#define GL_INLINE_LAMBDA
#endif

// Whether there is a form of 1.6 bits a weight (dense.h): it takes tables of bytes in registers.
#if defined(__AVX512VBMI__) && defined(__AVX512VNNI__)
#define GL_DENSE
#endif

// Whether there are products of whole tiles (tiles.h).
#if defined(__AMX_INT8__) && defined(__AMX_TILE__) && defined(__AVX512VNNI__)
#define GL_TILES
#endif

// Whether products with many tokens take the codes of a panel apart first (product.h): where a multiply-add is two instructions
// or more, those for shifting and masking count.
#if !defined(__AVX512F__) && !defined(__AVXVNNI__) && (defined(__SSSE3__) || defined(__AVX__))
#define GL_UNPACK
#endif

namespace kernels {

#if defined(GL_DENSE)
constexpr bool HAS_DENSE = true;
#else
constexpr bool HAS_DENSE = false;
#endif

inline int32_t load_dword(const int8_t * bytes) {
    int32_t value;
    memcpy(&value, bytes, sizeof(value));
    return value;
}

} // namespace kernels

#if defined(__AVX512F__) && defined(__AVX512BW__)
#include "lanes_avx512.h"
#elif defined(__AVX2__)
#include "lanes_avx2.h"
#elif defined(__SSE2__) || defined(_M_X64)
#include "lanes_sse.h"
#elif defined(__ARM_NEON)
#include "lanes_neon.h"
#else
#error "no lanes for this architecture: backends/cpu/tiers.rs has tiers for x86-64, which has SSE2, and for aarch64, which has NEON"
#endif
