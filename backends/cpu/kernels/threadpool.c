// ggml-cpu.c, whose threads sleep where they would wait for long, and share work without having to meet first (threadpool.h).
//
// The threads of a graph meet after each node of it, hundreds of times a token. In ggml's own barrier who comes first spins until
// the last one has come. That is the fastest way as long as every thread has a CPU to itself. Where it has not (a container with a
// quota, a busy neighbour, more threads than CPUs) the spinning thread uses up the time that the system gives it, a few
// milliseconds, for which the one that everybody waits for may be kept from running: at each barrier, so that a token takes
// seconds. A thread that sleeps gives its CPU away, and is woken when the last one comes.
#include "threadpool.h"

#include "ggml-cpu-impl.h"

// ggml-cpu.c defines the barrier and calls it. The definition alone gets another name: what comes first between the parentheses
// tells them apart.
#define ggml_barrier(pool) GL_BARRIER_##pool)
#define GL_BARRIER_struct ggml_barrier_that_spins(struct
#define GL_BARRIER_params ggml_barrier(params
#define GL_BARRIER_state ggml_barrier(state
#include "ggml-cpu.c"
#undef ggml_barrier

// How long a thread spins before it sleeps, in microseconds: longer than it waits most times on an idle machine, and far less than a
// time slice. On Zen 3 with two threads 5 to 100 generate as fast as no limit; with both on one CPU 100 takes twice the time of 20.
#define SPIN_US 20

// Threads that sleep at a barrier of any pool of this tier: the last one to come need not call the system to wake nobody.
static atomic_int sleepers;

static bool passed_within_spin(struct ggml_threadpool * tp, int passed) {
    int64_t end = 0;
    do {
        for (int i = 0; i < 64; ++i) {
            if (atomic_load_explicit(&tp->n_barrier_passed, memory_order_relaxed) != passed) {
                return true;
            }
            ggml_thread_cpu_relax();
        }
        const int64_t now = ggml_time_us();
        if (end == 0) {
            end = now + SPIN_US;
        } else if (now >= end) {
            return false;
        }
    } while (true);
}

void ggml_barrier(struct ggml_threadpool * tp) {
    const int threads = atomic_load_explicit(&tp->n_graph, memory_order_relaxed) & GGML_THREADPOOL_N_THREADS_MASK;
    if (threads == 1) {
        return;
    }
    const int passed = atomic_load_explicit(&tp->n_barrier_passed, memory_order_relaxed);
    if (atomic_fetch_add_explicit(&tp->n_barrier, 1, memory_order_seq_cst) == threads - 1) {
        atomic_store_explicit(&tp->n_barrier, 0, memory_order_relaxed);
        atomic_fetch_add_explicit(&tp->n_barrier_passed, 1, memory_order_seq_cst);
        // Either this sees the sleeper's count, or the sleeper, which counts itself first, sees that all have passed.
        if (atomic_load_explicit(&sleepers, memory_order_seq_cst) > 0) {
            ggml_mutex_lock(&tp->mutex);
            ggml_cond_broadcast(&tp->cond);
            ggml_mutex_unlock(&tp->mutex);
        }
        return;
    }
    if (!passed_within_spin(tp, passed)) {
        atomic_fetch_add_explicit(&sleepers, 1, memory_order_seq_cst);
        ggml_mutex_lock_shared(&tp->mutex);
        while (atomic_load_explicit(&tp->n_barrier_passed, memory_order_seq_cst) == passed) {
            ggml_cond_wait(&tp->cond, &tp->mutex);
        }
        ggml_mutex_unlock_shared(&tp->mutex);
        atomic_fetch_add_explicit(&sleepers, -1, memory_order_relaxed);
    }
    atomic_thread_fence(memory_order_seq_cst);
}

#if defined(_MSC_VER) && !defined(__clang__)
// ggml's atomics for this compiler have it not.
static bool exchanged(atomic_int * value, int * expected, int wanted) {
    const LONG before = InterlockedCompareExchange(value, wanted, *expected);
    const bool done = before == *expected;
    *expected = before;
    return done;
}
#else
static bool exchanged(atomic_int * value, int * expected, int wanted) {
    return atomic_compare_exchange_weak_explicit(value, expected, wanted, memory_order_relaxed, memory_order_relaxed);
}
#endif

int gl_next_share(struct ggml_threadpool * tp) {
    // The upper half of the bits says between which barriers the lower half counts: the number of barriers so far, which is the same
    // for all threads until they meet again. It wraps after 32768, which no graph reaches without a count in between. The
    // highest bit is always set, as in no number that ggml keeps here.
    const uint32_t barriers = (uint32_t) atomic_load_explicit(&tp->n_barrier_passed, memory_order_relaxed);
    const uint32_t node = (barriers | 0x8000) << 16;
    int before = atomic_load_explicit(&tp->current_chunk, memory_order_relaxed);
    while (true) {
        const uint32_t share = (((uint32_t) before ^ node) >> 16) == 0 ? (uint32_t) before & 0xffff : 0;
        if (exchanged(&tp->current_chunk, &before, (int) (node | (share + 1)))) {
            return (int) share;
        }
    }
}
