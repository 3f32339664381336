// C interface of chat.cpp: llama.cpp's chat templates and reply parsers. `ffi.rs` declares the same functions; keep the two
// in step.
//
// Requests and results are JSON. Whatever goes wrong, exceptions included, comes back as {"error": "..."}; NULL means that
// there was no memory even for that. Results are freed with gl_text_free.
#pragma once

#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

void gl_text_free(char * text);

// A compiled template. NULL on failure, with the reason in `error`.
typedef struct gl_chat_template gl_chat_template;
gl_chat_template * gl_chat_template_new(const char * source, size_t length, const char * bos, const char * eos, char ** error);
void gl_chat_template_free(gl_chat_template * chat_template);

// {"supports_tools": bool, ...}
char * gl_chat_template_abilities(const gl_chat_template * chat_template);

// The prompt, what its reply must look like, and how to read that.
char * gl_chat_template_render(const gl_chat_template * chat_template, const char * request);

// Reads replies to one prompt. NULL on failure, with the reason in `error`.
typedef struct gl_chat_parser gl_chat_parser;
gl_chat_parser * gl_chat_parser_new(const char * description, char ** error);
void gl_chat_parser_free(gl_chat_parser * parser);

// {"content", "reasoning", "tool_calls"} of a reply, which may still be incomplete.
char * gl_chat_parser_parse(const gl_chat_parser * parser, const char * text, size_t length, bool partial);

#ifdef __cplusplus
}
#endif
