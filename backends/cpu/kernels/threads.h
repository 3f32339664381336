// How the threads of a graph share the work of a node.
#pragma once

struct ggml_threadpool;

#if defined(__cplusplus)
extern "C" {
#endif

// The next of a node's shares, from 0 up, each given to one thread only. Threads need not have met before they ask, as they must for
// ggml's own count (ggml_threadpool_chunk_add), and whoever was interrupted, or runs on a slow core, gets fewer. A node has up to
// 2^15 of them, its barriers part it into several nodes, and a pool of one thread has no use for them.
int gl_next_share(struct ggml_threadpool * pool);

#if defined(__cplusplus)
}

#include "ggml-cpu-impl.h"

#include <algorithm>
#include <cstdint>

namespace threads {

// Calls `work` with the first and the one after the last of some units, until all of `count` were given out; a thread takes up to
// `shares` times, where all are equally fast.
template <typename Work> void share_out(const ggml_compute_params * params, int64_t count, int64_t shares, Work work) {
    if (params->nth == 1) {
        return work(int64_t{0}, count);
    }
    const int64_t all = std::min(count, std::min<int64_t>(shares * params->nth, 1 << 14));
    for (int64_t share = gl_next_share(params->threadpool); share < all; share = gl_next_share(params->threadpool)) {
        work(count * share / all, count * (share + 1) / all);
    }
}

} // namespace threads
#endif
