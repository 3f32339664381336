//! llama.cpp's chat templates, as its server runs them: `chat.cpp` takes and gives JSON.

use std::{
    ffi::{CStr, CString, c_char},
    ptr::{self, NonNull},
    sync::Arc,
};

use serde::Deserialize;
use serde_json::{Value, json};

use super::ffi;
use crate::backend::{
    CompiledTemplate, GrammarTrigger, Message, PromptEnding, ReasoningMarkers, RenderRequest, RenderedPrompt, Reply,
    ReplyError, ReplyGrammar, ReplyParser, Role, TemplateAbilities, TemplateError, TemplateSource, Tool, ToolCall,
    ToolChoice,
};

/// Parses a template.
pub(crate) fn compile_template(source: &TemplateSource) -> Result<Arc<dyn CompiledTemplate>, TemplateError> {
    let syntax =
        |message: String| TemplateError::Syntax { line: line_of(&message, &source.text), message: reason(&message) };
    // llama.cpp takes both of these for ChatML.
    if source.text.is_empty() || source.text == "chatml" {
        return Err(TemplateError::Missing);
    }
    let token = |text: &str| CString::new(text).map_err(|_| syntax("a special token contains a NUL".to_owned()));
    let (bos, eos) = (token(&source.bos)?, token(&source.eos)?);
    let (text, length) = (source.text.as_ptr().cast::<c_char>(), source.text.len());
    let mut error = ptr::null_mut();
    // SAFETY: the pointers are to a text of this length and to NUL-terminated strings, which outlive the call.
    let raw = unsafe { ffi::gl_chat_template_new(text, length, bos.as_ptr(), eos.as_ptr(), &mut error) };
    match NonNull::new(raw) {
        Some(raw) => Ok(Arc::new(LlamaTemplate { raw, source: source.text.clone() })),
        None => Err(syntax(Answer(error).failure())),
    }
}

/// Owner of a `gl_chat_template`.
#[derive(Debug)]
struct LlamaTemplate {
    raw: NonNull<ffi::ChatTemplate>,
    source: String,
}

// SAFETY: a template that is parsed is only read; rendering keeps its state in objects of the call.
unsafe impl Send for LlamaTemplate {}
// SAFETY: as above.
unsafe impl Sync for LlamaTemplate {}

impl Drop for LlamaTemplate {
    fn drop(&mut self) {
        // SAFETY: the pointer came from gl_chat_template_new, and nothing else frees it.
        unsafe { ffi::gl_chat_template_free(self.raw.as_ptr()) };
    }
}

impl CompiledTemplate for LlamaTemplate {
    fn abilities(&self) -> TemplateAbilities {
        // SAFETY: the template is valid.
        let answer = Answer(unsafe { ffi::gl_chat_template_abilities(self.raw.as_ptr()) });
        answer.read().unwrap_or_default()
    }

    fn render(&self, request: &RenderRequest<'_>) -> Result<RenderedPrompt, TemplateError> {
        let failed = |message: String| TemplateError::Render {
            line: line_of(&message, &self.source),
            message: reason(&message),
        };
        // JSON writes a NUL as an escape.
        let json = CString::new(json_of(request).to_string()).map_err(|error| failed(error.to_string()))?;
        // SAFETY: the template is valid, and the request a NUL-terminated string that outlives the call.
        let answer = Answer(unsafe { ffi::gl_chat_template_render(self.raw.as_ptr(), json.as_ptr()) });
        let rendered: Rendered = answer.read().map_err(failed)?;
        let parser = LlamaReplyParser::new(&rendered.parser).map_err(failed)?;
        let triggers = rendered.lazy.then_some(rendered.triggers);
        let reply_start = rendered.generation_prompt;
        Ok(RenderedPrompt {
            text: rendered.prompt,
            reasoning: markers(rendered.thinking_start, rendered.thinking_ends, &reply_start),
            reply_start,
            grammar: (!rendered.grammar.is_empty())
                .then(|| ReplyGrammar { gbnf: tightened(&rendered.grammar, request.parallel_tool_calls), triggers }),
            stops: rendered.stops,
            preserved: rendered.preserved,
            parser: Arc::new(parser),
        })
    }
}

/// What `gl_chat_template_render` answers.
#[derive(Deserialize)]
struct Rendered {
    prompt: String,
    generation_prompt: String,
    grammar: String,
    lazy: bool,
    triggers: Vec<GrammarTrigger>,
    stops: Vec<String>,
    preserved: Vec<String>,
    thinking_start: String,
    thinking_ends: Vec<String>,
    parser: Value,
}

/// The markers of a reply's reasoning, which the beginning of the reply has opened or not.
fn markers(start: String, ends: Vec<String>, reply_start: &str) -> Option<ReasoningMarkers> {
    let place = |marker: &String| reply_start.rfind(marker.as_str()).filter(|_| !marker.is_empty());
    let open = place(&start) > ends.iter().filter_map(place).max();
    (!ends.is_empty()).then_some(ReasoningMarkers { start, ends, open })
}

/// Owner of a `gl_chat_parser`.
#[derive(Debug)]
struct LlamaReplyParser(NonNull<ffi::ChatParser>);

// SAFETY: a parser is only read; parsing keeps its state in objects of the call.
unsafe impl Send for LlamaReplyParser {}
// SAFETY: as above.
unsafe impl Sync for LlamaReplyParser {}

impl LlamaReplyParser {
    fn new(description: &Value) -> Result<Self, String> {
        let description = CString::new(description.to_string()).map_err(|error| error.to_string())?;
        let mut error = ptr::null_mut();
        // SAFETY: the description is a NUL-terminated string that outlives the call.
        let raw = unsafe { ffi::gl_chat_parser_new(description.as_ptr(), &mut error) };
        NonNull::new(raw).map(Self).ok_or_else(|| Answer(error).failure())
    }
}

impl Drop for LlamaReplyParser {
    fn drop(&mut self) {
        // SAFETY: the pointer came from gl_chat_parser_new, and nothing else frees it.
        unsafe { ffi::gl_chat_parser_free(self.0.as_ptr()) };
    }
}

impl ReplyParser for LlamaReplyParser {
    fn parse(&self, text: &str, complete: bool) -> Result<Reply, ReplyError> {
        let (bytes, length) = (text.as_ptr().cast::<c_char>(), text.len());
        // SAFETY: the parser is valid, and the pointer is to a text of this length that outlives the call.
        let answer = Answer(unsafe { ffi::gl_chat_parser_parse(self.0.as_ptr(), bytes, length, !complete) });
        answer.read().map_err(|message| ReplyError { message })
    }
}

/// A text that the shim allocated.
pub(super) struct Answer(pub(super) *mut c_char);

impl Answer {
    /// The answer, or the message of the error in its place.
    fn read<T: for<'de> Deserialize<'de>>(&self) -> Result<T, String> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Either<T> {
            Error { error: String },
            Answer(T),
        }
        match serde_json::from_str(self.text()) {
            Ok(Either::Answer(answer)) => Ok(answer),
            Ok(Either::Error { error }) => Err(error),
            Err(error) => Err(error.to_string()),
        }
    }

    /// The message, where there is nothing but an error to expect.
    pub(super) fn failure(&self) -> String {
        self.read::<()>().err().unwrap_or_default()
    }

    fn text(&self) -> &str {
        const NO_MEMORY: &str = r#"{"error": "not enough memory"}"#;
        if self.0.is_null() {
            return NO_MEMORY;
        }
        // SAFETY: the shim gives a NUL-terminated string, and `Drop` frees it after the last borrow.
        unsafe { CStr::from_ptr(self.0) }.to_str().unwrap_or(NO_MEMORY)
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        // SAFETY: the pointer is null or came from the shim, and nothing else frees it.
        unsafe { ffi::gl_text_free(self.0) };
    }
}

/// Makes llama.cpp's grammars keep what was asked for, by the names that they give their rules:
///
/// * Before a call that it must make, a model may say something: `until-12? tool-calls` in the rule `root`. A small model says so
///   much that it never gets to the call. Reasoning stays.
/// * Some let it make several calls, whether it may or not: `tool-calls ::= (tool-call space)+`.
fn tightened(gbnf: &str, parallel: bool) -> String {
    let is_preamble = |rule: &str| rule.strip_prefix("until-").is_some_and(|rest| rest.ends_with('?'));
    let tighten = |line: &str| {
        if line.starts_with("root ::= ") {
            let rules: Vec<&str> = line.split(' ').collect();
            let calls = |index: usize| rules.get(index + 1).is_some_and(|rule| rule.starts_with("tool-call"));
            let kept = rules.iter().enumerate().filter(|&(index, rule)| !(is_preamble(rule) && calls(index)));
            return kept.map(|(_, rule)| *rule).collect::<Vec<_>>().join(" ");
        }
        match line.strip_suffix(")+") {
            Some(once) if !parallel && line.starts_with("tool-calls ::= (tool-call") => format!("{once})"),
            _ => line.to_owned(),
        }
    };
    gbnf.lines().map(tighten).collect::<Vec<_>>().join("\n")
}

/// The request as `chat.cpp` reads it: messages and tools in the form of OpenAI's API.
fn json_of(request: &RenderRequest<'_>) -> Value {
    let named = match &request.tool_choice {
        ToolChoice::Named(name) => Some(name),
        _ => None,
    };
    let tool_choice = match &request.tool_choice {
        ToolChoice::Auto => "auto",
        ToolChoice::Required | ToolChoice::Named(_) => "required",
        ToolChoice::None => "none",
    };
    let tools = request.tools.iter().filter(|tool| named.is_none_or(|name| *name == tool.name));
    json!({
        "messages": request.messages.iter().map(json_of_message).collect::<Vec<_>>(),
        "tools": tools.map(json_of_tool).collect::<Vec<_>>(),
        "tool_choice": tool_choice,
        "parallel_tool_calls": request.parallel_tool_calls,
        "add_generation_prompt": request.ending == PromptEnding::Reply,
        "continue_last": request.ending == PromptEnding::Continue,
        "enable_thinking": request.thinking,
        "arguments": request.arguments,
    })
}

fn json_of_message(message: &Message) -> Value {
    let role = match message.role {
        Role::System => "system",
        Role::Developer => "developer",
        Role::User => "user",
        Role::Assistant => "assistant",
        Role::Tool => "tool",
    };
    let mut value = json!({ "role": role, "content": message.content });
    if !message.reasoning.is_empty() {
        value["reasoning_content"] = json!(message.reasoning);
    }
    if !message.tool_calls.is_empty() {
        value["tool_calls"] = message.tool_calls.iter().map(json_of_call).collect();
    }
    if let Some(id) = &message.tool_call_id {
        value["tool_call_id"] = json!(id);
    }
    if let Some(name) = &message.name {
        value["name"] = json!(name);
    }
    value
}

fn json_of_call(call: &ToolCall) -> Value {
    json!({ "type": "function", "id": call.id, "function": { "name": call.name, "arguments": call.arguments } })
}

fn json_of_tool(tool: &Tool) -> Value {
    let parameters = referable(&tool.parameters);
    json!({
        "type": "function",
        "function": { "name": tool.name, "description": tool.description, "parameters": parameters },
    })
}

/// llama.cpp follows references to parts of a schema, and none to the whole, which `schemars` makes of a type that holds itself:
/// such a reference gets a copy of the whole to refer to.
fn referable(schema: &Value) -> Value {
    let mut whole = schema.clone();
    let mut name = "whole".to_owned();
    while !schema["$defs"][&name].is_null() {
        name.push('-');
    }
    if redirect(&mut whole, &format!("#/$defs/{name}"))
        && let Some(fields) = whole.as_object_mut()
    {
        let mut copy = fields.clone();
        copy.shift_remove("$defs");
        let definitions = fields.entry("$defs").or_insert_with(|| json!({}));
        if let Some(definitions) = definitions.as_object_mut() {
            definitions.insert(name, copy.into());
        }
    }
    whole
}

/// Makes references to the whole references to `target`, and says whether there are any.
fn redirect(value: &mut Value, target: &str) -> bool {
    let mut any = false;
    match value {
        Value::Object(fields) => {
            for (key, value) in fields {
                if key == "$ref" && value == "#" {
                    (*value, any) = (json!(target), true);
                } else {
                    any |= redirect(value, target);
                }
            }
        }
        Value::Array(values) => values.iter_mut().for_each(|value| any |= redirect(value, target)),
        _ => {}
    }
    any
}

/// How the interpreter says where it failed, and why.
const PLACE: &str = "at line ";
const REASON: &str = "\nError: ";

/// What went wrong, without the engine's account of where: the words of `raise_exception`, if it was that.
fn reason(message: &str) -> String {
    let words = match message.rsplit_once(REASON) {
        Some((_, reason)) => reason,
        None => message.trim_start().lines().next().unwrap_or_default(),
    };
    let prefixes = ["parser: ", "lexer: ", "Parser Error: ", "Jinja Exception: "];
    prefixes.iter().fold(words, |words, prefix| words.strip_prefix(prefix).unwrap_or(words)).trim().to_owned()
}

/// The line of the template, from 1, that a message of the engine is about.
fn line_of(message: &str, source: &str) -> Option<u32> {
    if let Some(start) = message.find(PLACE) {
        let digits = message[start + PLACE.len()..].split(|c: char| !c.is_ascii_digit()).next()?;
        return digits.parse().ok();
    }
    // The parser shows the source around the place instead, line breaks replaced, and points at it from the next line.
    let mut lines = message.lines().rev();
    let caret = lines.next()?.strip_suffix('^')?.len();
    let excerpt = lines.next()?.strip_prefix("...")?.strip_suffix("...")?.replace('↵', "\n");
    let start = source.find(&excerpt)?;
    let before = source.as_bytes().get(..(start + caret.checked_sub(3)?).min(source.len()))?;
    u32::try_from(before.iter().filter(|&&byte| byte == b'\n').count() + 1).ok()
}

#[cfg(test)]
mod tests {
    use super::{json, referable, tightened};

    #[test]
    fn a_reference_to_the_whole_schema_gets_a_copy_to_refer_to() {
        let plain = json!({"type": "object", "properties": {"a": {"$ref": "#/$defs/a"}}, "$defs": {"a": true}});
        assert_eq!(referable(&plain), plain);
        let list = json!({"type": "object", "properties": {"next": {"$ref": "#"}}, "$defs": {"whole": true}});
        let next = json!({"next": {"$ref": "#/$defs/whole-"}});
        assert_eq!(
            referable(&list),
            json!({"type": "object", "properties": next, "$defs": {
                "whole": true, "whole-": {"type": "object", "properties": next}}})
        );
        let alone = json!({"properties": {"next": {"$ref": "#"}}});
        assert_eq!(referable(&alone)["properties"]["next"]["$ref"], "#/$defs/whole");
        assert_eq!(referable(&alone)["$defs"]["whole"]["properties"]["next"]["$ref"], "#/$defs/whole");
    }

    #[test]
    fn a_call_is_made_at_once_and_once() {
        let gbnf = "root ::= \"a\" space (\"<think>\" until-3 \"</think>\")? until-12? tool-calls\n\
            tool-calls ::= (tool-call space)+\nuntil-12 ::= | [<] until-12-01";
        let once = "root ::= \"a\" space (\"<think>\" until-3 \"</think>\")? tool-calls\n\
            tool-calls ::= (tool-call space)\nuntil-12 ::= | [<] until-12-01";
        assert_eq!(tightened(gbnf, false), once);
        assert!(tightened(gbnf, true).contains("(tool-call space)+"));
    }
}
