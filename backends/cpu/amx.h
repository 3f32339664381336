// Comes before AMX kernels, ggml's and ours, when gcc compiles them. Three intrinsics of gcc 12 do not say what memory they touch.
// `_tile_loadconfig` names 8 of the 64 bytes: the stores that fill the others go as dead, the tiles stay without a size, and the
// first instruction on one is illegal (SIGILL). `_tile_loadd` names none, and the stores that fill a buffer for it may come too
// late. `_tile_storeconfig` names 8 of the 64 bytes that it writes. These say it.
#pragma once

#if defined(__GNUC__) && !defined(__clang__)
#include <immintrin.h>

static inline __attribute__((always_inline)) void gl_tile_loadconfig(const void * config) {
    // Characters, because an access through them may read an object of any type.
    __asm__ volatile("ldtilecfg\t%0" : : "m"(*static_cast<const unsigned char(*)[64]>(config)));
}
#define _tile_loadconfig gl_tile_loadconfig

static inline __attribute__((always_inline)) void gl_tile_storeconfig(void * config) {
    __asm__ volatile("sttilecfg\t%0" : "=m"(*static_cast<unsigned char(*)[64]>(config)));
}
#define _tile_storeconfig gl_tile_storeconfig

// Twice, so that a name of a tile that is a macro becomes its number first.
#define GL_TILE_LOADD(tile, base, stride) \
    __asm__ volatile("tileloadd\t(%0,%1,1), %%tmm" #tile \
                     : : "r"(static_cast<const void *>(base)), "r"(static_cast<long>(stride)) : "memory")
#undef _tile_loadd
#define _tile_loadd(tile, base, stride) GL_TILE_LOADD(tile, base, stride)
#endif
