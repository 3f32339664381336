// What chat.cpp and grammar.cpp share: texts that Rust frees, and exceptions as texts.
#pragma once

#include "common/json.h"
#include "common/log.h"

#include <cstdlib>
#include <cstring>
#include <exception>
#include <string>

inline char * owned(const std::string & text) {
    char * copy = static_cast<char *>(std::malloc(text.size() + 1));
    if (copy) {
        std::memcpy(copy, text.c_str(), text.size() + 1);
    }
    return copy;
}

// {"error": message}
inline char * failure(const char * message) {
    try {
        common_json result = common_json::object();
        result["error"] = std::string(message);
        return owned(result.dump_safe());
    } catch (...) {
        return nullptr;
    }
}

// Runs `call`; an exception becomes the error text, and `failed` the result.
template <typename Result, typename Call> Result guarded(Result failed, char ** error, Call call) {
    // The log of llama.cpp's server writes to the terminal. What it says of failures is in the exceptions too.
    static const bool silenced = (common_log_set_verbosity_thold(-1), true);
    (void) silenced;
    try {
        return call();
    } catch (const std::exception & exception) {
        *error = failure(exception.what());
    } catch (...) {
        *error = failure("unknown C++ exception");
    }
    return failed;
}
