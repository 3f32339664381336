// How fast a tier's kernel could be, were there no memory.

#include "activations.h"
#include "matrix.h"
#if defined(GL_TILES)
#include "tiles.h"
#endif

// Does multiply-adds with registers alone, as many sums at once as a tile of a product has, and returns how many it did: no
// product can be faster. With AMX these are products of whole tiles, which few tokens and scales of blocks cannot use. 0: nobody knows how to keep this compiler from doing less.
extern "C" int64_t gguf_loader_multiply_adds(int64_t rounds) {
#if defined(GL_TILES)
    return ternary::multiply_add_tiles(rounds);
#elif defined(GL_OPAQUE)
    using namespace ternary;
    constexpr int SUMS = Lanes::GROUPS * Lanes::TILE;
    // A Partial takes no more without widening.
    constexpr int64_t RUN = Lanes::limit(LARGEST_CODE) < 256 ? Lanes::limit(LARGEST_CODE) : 256;
    Lanes::Ints total = Lanes::ints(0);
    for (int64_t round = 0; round < rounds; ++round) {
        Lanes::Partial sums[SUMS];
        GL_UNROLL
        for (int i = 0; i < SUMS; ++i) {
            sums[i] = Lanes::zero();
        }
        Lanes::Bytes weights = Lanes::broadcast(uint8_t{1});
        const Lanes::Bytes activations = Lanes::broadcast(uint8_t{2});
        for (int64_t run = 0; run < RUN; ++run) {
            GL_UNROLL
            for (int i = 0; i < SUMS; ++i) {
                GL_OPAQUE(weights);
                sums[i] = Lanes::multiply_add(sums[i], weights, activations);
            }
        }
        GL_UNROLL
        for (int i = 0; i < SUMS; ++i) {
            total = Lanes::add(total, Lanes::sum(sums[i]));
        }
    }
    volatile int32_t used = Lanes::total(total);
    (void) used;
    return rounds * RUN * SUMS * Lanes::COUNT * 4;
#else
    (void) rounds;
    return 0;
#endif
}
