// Huge pages for what ggml allocates: weights that are repacked, the KV cache, the tensors of a graph.
//
// A token reads all weights and its whole cache, in order. With pages of 2 MiB the processor looks up far fewer addresses, and
// fetches ahead beyond 4 KiB. Most systems give such pages only to memory that asks for them.

#include "ggml-backend-impl.h"
#include "pages.h"
#include "registration.h"

#include <exception>
#include <map>
#include <mutex>

#if defined(__linux__)
#include <sys/mman.h>
#include <unistd.h>
#endif

namespace {

using Allocate = ggml_backend_buffer_t (*)(ggml_backend_buffer_type_t, size_t);

std::mutex mutex;
// The allocator of each buffer type that asks. Registrations come from one thread at a time, allocations from any.
std::map<ggml_backend_buffer_type_t, Allocate> allocators;

// The size of a huge page where pages have 4 KiB. What is smaller lies among other memory of the C library.
constexpr size_t HUGE_PAGE = size_t{2} << 20;

// Asks for the whole pages within the memory. A system that has no huge pages refuses, and nothing is lost.
void ask(void * memory, size_t size) {
#if defined(MADV_HUGEPAGE)
    if (size < HUGE_PAGE) {
        return;
    }
    const size_t page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
    const size_t begin = (reinterpret_cast<size_t>(memory) + page - 1) / page * page;
    const size_t end = (reinterpret_cast<size_t>(memory) + size) / page * page;
    if (begin < end) {
        madvise(reinterpret_cast<void *>(begin), end - begin, MADV_HUGEPAGE);
    }
#else
    (void) memory, (void) size, (void) HUGE_PAGE;
#endif
}

// Before anything writes to the memory: a page that exists stays as small as it is.
ggml_backend_buffer_t allocate(ggml_backend_buffer_type_t type, size_t size) {
    Allocate original;
    {
        const std::lock_guard<std::mutex> lock(mutex);
        original = allocators.at(type);
    }
    // Most extra types allocate from the plain one, which has asked then; to ask again changes nothing. AMX's does not.
    ggml_backend_buffer_t buffer = original(type, size);
    if (buffer) {
        ask(ggml_backend_buffer_get_base(buffer), size);
    }
    return buffer;
}

void wrap(ggml_backend_buffer_type_t type) {
    const std::lock_guard<std::mutex> lock(mutex);
    if (type->iface.alloc_buffer != allocate) {
        allocators.emplace(type, type->iface.alloc_buffer);
        type->iface.alloc_buffer = allocate;
    }
}

} // namespace

extern "C" void gl_ask_for_huge_pages(ggml_backend_reg_t registration) {
    ggml_backend_dev_t device = ggml_backend_reg_dev_get(registration, 0);
    try {
        wrap(ggml_backend_dev_buffer_type(device));
        for (const ggml_backend_buffer_type_t * type = extra_buffer_types(device); *type; ++type) {
            wrap(*type);
        }
    } catch (const std::exception &) {
        // No memory for an entry: buffers of that type, and of those after it, are allocated as ever.
    }
}
