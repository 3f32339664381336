// ggml-cpu.cpp, to which no memory is an answer.
//
// It asks whether `new` gave it something, and otherwise returns a status, but `new` throws. The exception would leave a context
// whose work memory was freed a moment before, and is remembered: the next graph would be computed there, and the end of the context
// would free it once more.
#include "ggml-backend.h"
#include "ggml-backend-impl.h"
#include "ggml-cpu.h"
#include "repack.h"
#include "traits.h"
#include "ggml-impl.h"
#include "amx/amx.h"

#include <cctype>
#include <new>
#include <string>
#include <vector>
#if defined(_WIN32)
#define WIN32_LEAN_AND_MEAN
#define NOMINMAX
#include <windows.h>
#else
#include <unistd.h>
#endif

// After all headers, which may have a `new` of another kind.
#define new new (std::nothrow)
#include "ggml-cpu.cpp"
#undef new
