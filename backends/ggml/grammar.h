// C interface of grammar.cpp: llama.cpp's grammars over a vocabulary. `ffi.rs` declares the same functions; keep the two in
// step.
//
// No call here reaches an assertion of llama.cpp: a token is accepted only if it is allowed, and a grammar that failed once
// is not used again.
#pragma once

#include "llama.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct gl_grammar gl_grammar;

// NULL on failure, with the reason in `error` as for chat.h. `patterns` are regular expressions that set the grammar to work;
// without `lazy` it rules from the beginning.
gl_grammar * gl_grammar_new(const struct llama_vocab * vocab, const char * gbnf, bool lazy, const char ** patterns,
                            size_t n_patterns, char ** error);
void gl_grammar_free(gl_grammar * grammar);

// Whether the token may come next.
bool gl_grammar_allows(gl_grammar * grammar, llama_token token);

// Sets the logits of what may not come next to minus infinity. Returns how many tokens remain.
int32_t gl_grammar_mask(gl_grammar * grammar, float * logits, int32_t count);

// Goes on behind the token. false when it is not allowed, or would set the grammar to work and does not fit it; then nothing
// changed.
bool gl_grammar_accept(gl_grammar * grammar, llama_token token);

#ifdef __cplusplus
}
#endif
