// How the threads of a graph share the work of a node.
#pragma once

struct ggml_threadpool;

#if defined(__cplusplus)
extern "C" {
#endif

// The next share of a node's work, from 0 up, each given to one thread only. Threads need not have met before they ask, as they must
// for ggml's own count (ggml_threadpool_chunk_add), and whoever was interrupted, or runs on a slow core, gets fewer.
//
// Between two barriers it gives out the work of one loop, which does not use ggml's count too: a second one would find nothing
// left. A graph that runs on one thread passes no barrier and must not ask.
int gl_next_share(struct ggml_threadpool * pool);

#if defined(__cplusplus)
}

#include "ggml-cpu-impl.h"

#include <algorithm>
#include <cstdint>

namespace threadpool {

// Shares for which the count of gl_next_share has room: 16 bits, of which each thread adds one to learn that nothing is left.
constexpr int64_t MOST_SHARES = 1 << 14;
// As many shares as there are units.
constexpr int64_t EACH_ALONE = MOST_SHARES;

// Gives `count` units out to the threads of a node, which all call this once between two barriers: `work` gets the first of some units
// and the one after their last, until none is left. There are up to `each` shares for each thread.
template <typename Work> void share_out(const ggml_compute_params * params, int64_t count, int64_t each, Work work) {
    if (params->nth == 1) {
        return work(int64_t{0}, count);
    }
    const int64_t shares = std::min({count, each * params->nth, MOST_SHARES});
    for (int64_t share = gl_next_share(params->threadpool); share < shares; share = gl_next_share(params->threadpool)) {
        work(count * share / shares, count * (share + 1) / shares);
    }
}

} // namespace threadpool
#endif
