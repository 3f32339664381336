#include "grammar.h"

#include "answer.h"

#include <cmath>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

struct gl_grammar {
    struct free_sampler {
        void operator()(llama_sampler * sampler) const { llama_sampler_free(sampler); }
    };

    const llama_vocab * vocab;
    std::string gbnf;
    // What sets it to work; without `lazy` it works from the beginning.
    bool lazy;
    std::vector<std::string> patterns;

    std::unique_ptr<llama_sampler, free_sampler> sampler;
    // With `lazy`: what was accepted, to begin anew with.
    std::vector<llama_token> accepted;
    std::vector<llama_token_data> candidates;
    // An exception has left llama.cpp's state without a way to go on, which it would assert on.
    bool failed = false;

    void begin() {
        std::vector<const char *> pointers;
        for (const std::string & pattern : patterns) {
            pointers.push_back(pattern.c_str());
        }
        sampler.reset(lazy ? llama_sampler_init_grammar_lazy_patterns(vocab, gbnf.c_str(), "root", pointers.data(),
                                                                      pointers.size(), nullptr, 0)
                           : llama_sampler_init_grammar(vocab, gbnf.c_str(), "root"));
        if (!sampler) {
            throw std::runtime_error("the grammar cannot be parsed");
        }
    }

    // llama.cpp allows any token until one sets the grammar to work, and finds out then that it does not fit. What is left of
    // its state is of no use.
    bool accept(llama_token token) {
        try {
            llama_sampler_accept(sampler.get(), token);
        } catch (const std::exception &) {
            if (!lazy) {
                throw;
            }
            begin();
            for (const llama_token before : accepted) {
                llama_sampler_accept(sampler.get(), before);
            }
            return false;
        }
        if (lazy) {
            accepted.push_back(token);
        }
        return true;
    }

    // How many of the candidates are allowed; the others get a logit of minus infinity.
    int32_t apply() {
        llama_token_data_array array = { candidates.data(), candidates.size(), -1, false };
        llama_sampler_apply(sampler.get(), &array);
        int32_t allowed = 0;
        for (const llama_token_data & candidate : candidates) {
            allowed += std::isinf(candidate.logit) ? 0 : 1;
        }
        return allowed;
    }

    bool allows(llama_token token) {
        candidates.assign(1, { token, 0.0f, 0.0f });
        return apply() == 1;
    }

    template <typename Result, typename Call> Result attempt(Result otherwise, Call call) {
        if (failed) {
            return otherwise;
        }
        try {
            return call();
        } catch (...) {
            failed = true;
            return otherwise;
        }
    }
};

extern "C" {

gl_grammar * gl_grammar_new(const llama_vocab * vocab, const char * gbnf, bool lazy, const char ** patterns,
                            size_t n_patterns, char ** error) {
    return guarded<gl_grammar *>(nullptr, error, [&]() -> gl_grammar * {
        auto grammar = std::make_unique<gl_grammar>();
        grammar->vocab = vocab;
        grammar->gbnf = gbnf;
        grammar->lazy = lazy;
        grammar->patterns.assign(patterns, patterns + n_patterns);
        grammar->begin();
        return grammar.release();
    });
}

void gl_grammar_free(gl_grammar * grammar) {
    delete grammar;
}

bool gl_grammar_allows(gl_grammar * grammar, llama_token token) {
    return grammar->attempt(false, [&] { return grammar->allows(token); });
}

int32_t gl_grammar_mask(gl_grammar * grammar, float * logits, int32_t count) {
    return grammar->attempt(0, [&] {
        std::vector<llama_token_data> & candidates = grammar->candidates;
        candidates.clear();
        for (llama_token token = 0; token < count; ++token) {
            // What is ruled out already costs no time.
            if (!std::isinf(logits[token])) {
                candidates.push_back({ token, 0.0f, 0.0f });
            }
        }
        const int32_t allowed = grammar->apply();
        for (const llama_token_data & candidate : candidates) {
            if (std::isinf(candidate.logit)) {
                logits[candidate.id] = -INFINITY;
            }
        }
        return allowed;
    });
}

bool gl_grammar_accept(gl_grammar * grammar, llama_token token) {
    return grammar->attempt(false, [&] {
        return grammar->allows(token) && grammar->accept(token);
    });
}

} // extern "C"
