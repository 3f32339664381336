// C interface of pages.cpp; `ffi.rs` declares it too.
#pragma once

#include "ggml-backend.h"

#ifdef __cplusplus
extern "C" {
#endif

// From now on the buffers of a CPU registration ask the system for huge pages. Must not be called by two threads at once, nor the
// first time for a registration while one of its extra types, or the first time of all while anything, is allocated.
void gl_ask_for_huge_pages(ggml_backend_reg_t registration);

#ifdef __cplusplus
}
#endif
