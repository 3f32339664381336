// Comes before ggml's AMX kernels when gcc compiles them. Two intrinsics of gcc 12 do not say what memory they read.
// `_tile_loadconfig` names 8 of the 64 bytes: the stores that fill the others go as dead, the tiles stay without a size, and the
// first instruction on one is illegal (SIGILL). `_tile_loadd` names none, and the stores that fill a buffer for it may come too
// late. These say it.
#pragma once

#if defined(__GNUC__) && !defined(__clang__)
#include <immintrin.h>

static inline __attribute__((always_inline)) void gl_tile_loadconfig(const void * config) {
    // Characters, because an access through them may read an object of any type.
    __asm__ volatile("ldtilecfg\t%0" : : "m"(*static_cast<const unsigned char(*)[64]>(config)));
}
#define _tile_loadconfig gl_tile_loadconfig

// Twice, so that a name of a tile that is a macro becomes its number first.
#define GL_TILE_LOADD(tile, base, stride) \
    __asm__ volatile("tileloadd\t(%0,%1,1), %%tmm" #tile \
                     : : "r"(static_cast<const void *>(base)), "r"(static_cast<long>(stride)) : "memory")
#undef _tile_loadd
#define _tile_loadd(tile, base, stride) GL_TILE_LOADD(tile, base, stride)
#endif
