#include "chat.h"

#include "answer.h"
#include "common/chat.h"
#include "common/jinja/lexer.h"

#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

using json = common_json;

namespace {

// Most brackets and blocks within each other, and most operators and names in one statement. Far from what templates have,
// and from what exhausts the stack of a thread.
constexpr int DEEPEST = 200;
constexpr int LONGEST = 1000;

template <typename Call> char * answered(Call call) {
    char * error = nullptr;
    char * answer = guarded<char *>(nullptr, &error, [&] { return owned(call().dump_safe()); });
    return answer ? answer : error;
}

// Whether the statement that begins at `start` has a `=`: a `set` without one is a block.
bool assigns(const std::vector<jinja::token> & tokens, size_t start) {
    for (size_t i = start; i < tokens.size() && tokens[i].t != jinja::token::close_statement; ++i) {
        if (tokens[i].t == jinja::token::equals) {
            return true;
        }
    }
    return false;
}

// The parser and the interpreter recurse on brackets, blocks (an `elif` is an `if` within an `if`) and chains of operators.
void check_depth(const std::string & source) {
    using token = jinja::token;
    jinja::lexer lexer;
    const jinja::lexer_result lexed = lexer.tokenize(source);
    std::vector<int> blocks; // each with its elifs
    int depth = 0, length = 0;
    for (size_t i = 0; i < lexed.tokens.size(); ++i) {
        const token & here = lexed.tokens[i];
        if (here.t == token::open_paren || here.t == token::open_square_bracket || here.t == token::open_curly_bracket) {
            ++depth;
        } else if (here.t == token::close_paren || here.t == token::close_square_bracket ||
                   here.t == token::close_curly_bracket) {
            --depth;
        }
        const bool separates = here.t == token::comma || here.t == token::string_literal || here.t == token::numeric_literal;
        length = here.t == token::text ? 0 : separates ? length : length + 1;
        if (here.t == token::open_statement && i + 1 < lexed.tokens.size()) {
            length = 0;
            const std::string & name = lexed.tokens[i + 1].value;
            if (name == "if" || name == "for" || name == "macro" || name == "call" || name == "filter" ||
                (name == "set" && !assigns(lexed.tokens, i))) {
                blocks.push_back(1);
                ++depth;
            } else if (name == "elif" && !blocks.empty()) {
                ++blocks.back();
                ++depth;
            } else if (name.compare(0, 3, "end") == 0 && !blocks.empty()) {
                depth -= blocks.back();
                blocks.pop_back();
            }
        } else if (here.t == token::open_expression) {
            length = 0;
        }
        if (depth > DEEPEST || length > LONGEST) {
            throw std::runtime_error("the template is nested too deeply");
        }
    }
}

std::string text_or_empty(const json & object, const char * key) {
    return object.contains(key) && object.at(key).is_string() ? object.at(key).get<std::string>() : std::string();
}

bool flag(const json & object, const char * key, bool otherwise) {
    return object.contains(key) && object.at(key).is_boolean() ? object.at(key).get<bool>() : otherwise;
}

common_chat_templates_inputs inputs_of(const json & request) {
    common_chat_templates_inputs inputs;
    inputs.messages = common_chat_msgs_parse_oaicompat(request.at("messages"));
    if (request.contains("tools")) {
        inputs.tools = common_chat_tools_parse_oaicompat(request.at("tools"));
    }
    if (request.contains("tool_choice")) {
        inputs.tool_choice = common_chat_tool_choice_parse_oaicompat(request.at("tool_choice").get<std::string>());
    }
    inputs.parallel_tool_calls = flag(request, "parallel_tool_calls", false);
    inputs.add_generation_prompt = flag(request, "add_generation_prompt", true);
    inputs.enable_thinking = flag(request, "enable_thinking", true);
    inputs.reasoning_format =
        flag(request, "split_reasoning", true) ? COMMON_REASONING_FORMAT_DEEPSEEK : COMMON_REASONING_FORMAT_NONE;
    if (flag(request, "continue_last", false)) {
        inputs.continue_final_message = COMMON_CHAT_CONTINUATION_AUTO;
    }
    if (request.contains("arguments")) {
        for (const auto & argument : request.at("arguments").items()) {
            inputs.chat_template_kwargs[argument.key()] = argument.value().dump();
        }
    }
    return inputs;
}

const char * trigger_name(common_grammar_trigger_type type) {
    switch (type) {
        case COMMON_GRAMMAR_TRIGGER_TYPE_WORD:         return "word";
        case COMMON_GRAMMAR_TRIGGER_TYPE_PATTERN:      return "pattern";
        case COMMON_GRAMMAR_TRIGGER_TYPE_PATTERN_FULL: return "pattern_full";
        case COMMON_GRAMMAR_TRIGGER_TYPE_TOKEN:        break;
    }
    throw std::runtime_error("a template without a vocabulary gave a token as a trigger");
}

json rendered(const common_chat_params & params) {
    json triggers = json::array();
    for (const common_grammar_trigger & trigger : params.grammar_triggers) {
        triggers.push_back({ { "kind", trigger_name(trigger.type) }, { "text", trigger.value } });
    }
    json parser = json::object();
    parser["format"] = static_cast<int>(params.format);
    parser["parser"] = params.parser;
    parser["generation_prompt"] = params.generation_prompt;
    json result = json::object();
    result["prompt"] = params.prompt;
    result["generation_prompt"] = params.generation_prompt;
    result["grammar"] = params.grammar;
    result["lazy"] = params.grammar_lazy;
    result["triggers"] = triggers;
    result["stops"] = params.additional_stops;
    result["preserved"] = params.preserved_tokens;
    result["thinking_start"] = params.thinking_start_tag;
    result["thinking_ends"] = params.thinking_end_tags;
    result["parser"] = parser;
    return result;
}

} // namespace

struct gl_chat_template {
    common_chat_templates_ptr templates;
};

struct gl_chat_parser {
    common_chat_parser_params params;
};

extern "C" {

void gl_text_free(char * text) {
    std::free(text);
}

gl_chat_template * gl_chat_template_new(const char * source, size_t length, const char * bos, const char * eos,
                                        char ** error) {
    return guarded<gl_chat_template *>(nullptr, error, [&]() -> gl_chat_template * {
        const std::string text(source, length);
        check_depth(text);
        // common_chat_templates_init throws the same exceptions sliced, without their messages.
        common_chat_template(text, bos, eos);
        auto compiled = std::make_unique<gl_chat_template>();
        compiled->templates = common_chat_templates_init(nullptr, text, bos, eos);
        return compiled.release();
    });
}

void gl_chat_template_free(gl_chat_template * chat_template) {
    delete chat_template;
}

char * gl_chat_template_abilities(const gl_chat_template * chat_template) {
    return answered([&] {
        json result = json::object();
        for (const auto & [name, able] : common_chat_templates_get_caps(chat_template->templates.get())) {
            result[name] = able;
        }
        return result;
    });
}

char * gl_chat_template_render(const gl_chat_template * chat_template, const char * request) {
    return answered([&] {
        const common_chat_templates_inputs inputs = inputs_of(json::parse(request));
        return rendered(common_chat_templates_apply(chat_template->templates.get(), inputs));
    });
}

gl_chat_parser * gl_chat_parser_new(const char * description, char ** error) {
    return guarded<gl_chat_parser *>(nullptr, error, [&]() -> gl_chat_parser * {
        const json fields = json::parse(description);
        auto parser = std::make_unique<gl_chat_parser>();
        parser->params.format = static_cast<common_chat_format>(fields.at("format").get<int>());
        parser->params.generation_prompt = text_or_empty(fields, "generation_prompt");
        parser->params.reasoning_format = COMMON_REASONING_FORMAT_DEEPSEEK;
        const std::string arena = text_or_empty(fields, "parser");
        if (!arena.empty()) {
            parser->params.parser.load(arena);
        }
        return parser.release();
    });
}

void gl_chat_parser_free(gl_chat_parser * parser) {
    delete parser;
}

char * gl_chat_parser_parse(const gl_chat_parser * parser, const char * text, size_t length, bool partial) {
    return answered([&] {
        const common_chat_msg message = common_chat_parse(std::string(text, length), partial, parser->params);
        json calls = json::array();
        for (const common_chat_tool_call & call : message.tool_calls) {
            calls.push_back({ { "id", call.id }, { "name", call.name }, { "arguments", call.arguments } });
        }
        json result = json::object();
        result["content"] = message.render_content();
        result["reasoning"] = message.reasoning_content;
        result["tool_calls"] = calls;
        return result;
    });
}

} // extern "C"
