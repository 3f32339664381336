//! Tools: calls that SmolLM2 makes with the template of a model that calls tools.

use std::{
    convert::Infallible,
    num::NonZeroU32,
    ops::ControlFlow,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
};

use gguf_loader::{
    Tokenizer,
    backend::{Token, TokenizeOptions},
    chat::{
        ChatError, ChatReply, ChatSession, Message, ReplyEvent, ReplyOptions, Role, TemplateError, Tool, ToolCall,
        ToolChoice, Toolbox,
    },
    generation::FinishReason,
    sampling::{Candidates, LogitProcessor, Pick, SamplerStep, Sampling},
};
use schemars::JsonSchema;
use serde_json::{Value, json};

use crate::session::{self, at_most, on, session};

/// What a tool takes.
#[derive(Debug, serde::Deserialize, JsonSchema)]
struct Weather {
    /// The city.
    #[schemars(length(min = 1, max = 20))]
    city: String,
}

/// What another tool takes.
#[derive(Debug, serde::Deserialize, JsonSchema)]
#[schemars(inline)]
struct Sum {
    #[schemars(range(min = 0, max = 9))]
    a: u32,
    #[schemars(range(min = 0, max = 9))]
    b: u32,
}

pub(crate) fn weather() -> Tool {
    Tool::of::<Weather>("get_weather", "Says what the weather is like in a city.")
}

fn add() -> Tool {
    Tool::of::<Sum>("add", "Adds two numbers.")
}

/// SmolLM2 with the template of a model that calls tools, asked for a joke.
fn asked() -> Option<ChatSession> {
    session::asked(include_str!("../fixtures/chat/templates/qwen2.5.jinja"), "Tell me a joke.")
}

fn required() -> ReplyOptions {
    at_most(400).with_tools(vec![weather()]).with_tool_choice(ToolChoice::Required)
}

/// Hot enough to say anything, were it not held to a call.
fn hot(seed: u64) -> Sampling {
    Sampling::new(Pick::Distribution).then(SamplerStep::Temperature { temperature: 2.0 }).with_seed(seed)
}

fn rounds(count: u32) -> NonZeroU32 {
    NonZeroU32::new(count).unwrap()
}

#[test]
fn a_call_that_the_template_has_no_form_for_is_an_error() {
    let Some(mut session) = session() else { return };
    session.push(Message::user("What is the weather in Paris?"));
    for choice in [ToolChoice::Auto, ToolChoice::Required, ToolChoice::Named("get_weather".to_owned())] {
        let options = at_most(8).with_tools(vec![weather()]).with_tool_choice(choice);
        let error = session.reply(&options, on).unwrap_err();
        assert!(matches!(error, ChatError::Template(TemplateError::NoToolCalls)), "{error}");
    }
    let none = at_most(8).with_tools(vec![weather()]).with_tool_choice(ToolChoice::None);
    assert!(session.reply(&none, on).is_ok());
}

#[test]
fn a_call_that_is_required_is_made_and_can_be_read() {
    let Some(mut session) = asked() else { return };
    let question = session.messages().to_vec();
    for sampling in [Sampling::greedy(), hot(1), hot(2)] {
        *session.messages_mut() = question.clone();
        let mut streamed = (String::new(), String::new());
        let reply = session.reply(&required().with_sampling(sampling), |event| {
            match event {
                ReplyEvent::ToolCall { name, .. } => streamed.0 += name,
                ReplyEvent::Arguments { delta, .. } => streamed.1 += delta,
                _ => {}
            }
            ControlFlow::Continue(())
        });
        let reply = reply.unwrap();
        assert_eq!(reply.finish, FinishReason::ToolCalls, "{:.300}", reply.message.content);
        let [call] = reply.message.tool_calls.as_slice() else { panic!("one call: {reply:?}") };
        assert_eq!((streamed.0.as_str(), &streamed.1), ("get_weather", &call.arguments));
        assert!(!call.id.is_empty());
        let Weather { city } = call.arguments_as().unwrap();
        assert!((1..=20).contains(&city.chars().count()), "{city}");
    }
}

#[test]
fn the_tool_that_is_named_is_called() {
    let Some(mut session) = asked() else { return };
    for seed in 0..3 {
        session.messages_mut().truncate(1);
        let options = at_most(200).with_tools(vec![weather(), add()]).with_sampling(hot(seed));
        let reply = session.reply(&options.with_tool_choice(ToolChoice::Named("add".to_owned())), on).unwrap();
        let [call] = reply.message.tool_calls.as_slice() else { panic!("one call: {reply:?}") };
        assert_eq!(call.name, "add");
        let Sum { a, b } = call.arguments_as().unwrap();
        assert!(a <= 9 && b <= 9, "{call:?}");
    }
}

#[test]
fn several_calls_are_told_apart_while_they_are_made() {
    let Some(mut session) = asked() else { return };
    // It cannot end, and nothing but calls is allowed.
    let tokenizer = session.context().model().tokenizer().unwrap();
    let ends = (0..tokenizer.n_tokens()).filter(|token| tokenizer.is_end_of_generation(*token));
    let biases = ends.map(|end| (end, f32::NEG_INFINITY)).collect();
    let endless = hot(5).then(SamplerStep::LogitBias { biases });
    let options = required().with_max_tokens(rounds(120)).with_parallel_tool_calls(true).with_sampling(endless);
    let mut streamed: Vec<(String, String)> = Vec::new();
    let reply = session.reply(&options, |event| {
        match event {
            ReplyEvent::ToolCall { index, name } => {
                assert_eq!(*index, streamed.len());
                streamed.push((name.clone(), String::new()));
            }
            ReplyEvent::Arguments { index, delta } => streamed[*index].1 += delta,
            _ => {}
        }
        ControlFlow::Continue(())
    });
    let ChatReply { message, finish, .. } = reply.unwrap();
    assert_eq!(finish, FinishReason::MaxTokens);
    let calls = message.tool_calls;
    assert!(calls.len() >= 2, "{calls:?}");
    for (call, (name, arguments)) in calls.iter().zip(&streamed) {
        assert_eq!((&call.name, &call.arguments), (name, arguments));
        assert!(call.arguments_as::<Weather>().is_ok(), "{call:?}");
    }
    assert!(calls.iter().enumerate().all(|(index, call)| calls[..index].iter().all(|other| other.id != call.id)));
    // What was complete can be written again.
    session.messages_mut().extend(calls.iter().map(|call| Message::tool_result(call, "sunny")));
    assert!(session.reply(&at_most(4), on).is_ok());
}

/// Has a reply begin with a text, and leaves the rest to the other steps.
pub(crate) struct Begin {
    /// The tokens that are still to come, the next one last.
    tokens: Vec<Token>,
    /// Whether the prompt's tokens are all accepted.
    begun: bool,
}

impl Begin {
    pub(crate) fn text(tokenizer: &Tokenizer, text: &str) -> Self {
        let as_written = TokenizeOptions { add_special: false, parse_special: true };
        let tokens = tokenizer.tokenize(text, as_written).unwrap().into_iter().rev().collect();
        Self { tokens, begun: false }
    }
}

impl LogitProcessor for Begin {
    fn process(&mut self, candidates: &mut Candidates) {
        self.begun = true;
        if let Some(&token) = self.tokens.last() {
            candidates.retain(|candidate| candidate.token == token);
        }
    }

    fn accept(&mut self, token: Token) {
        if self.begun && self.tokens.last() == Some(&token) {
            self.tokens.pop();
        }
    }
}

#[test]
fn a_call_that_the_model_begins_by_itself_is_held_to_the_schema() {
    let Some(mut session) = asked() else { return };
    let tokenizer = session.context().model().tokenizer().unwrap().clone();
    for seed in 0..4 {
        session.messages_mut().truncate(1);
        let sampling = Sampling::new(Pick::Distribution)
            .then_custom(Begin::text(&tokenizer, "Well.\n<tool_call>\n"))
            .then(SamplerStep::Temperature { temperature: 2.0 })
            .with_seed(seed);
        let options = at_most(300).with_tools(vec![weather(), add()]).with_sampling(sampling);
        let reply = session.reply(&options, on).unwrap();
        assert_eq!(reply.finish, FinishReason::ToolCalls, "{reply:?}");
        assert_eq!(reply.message.content.trim(), "Well.");
        let [call] = reply.message.tool_calls.as_slice() else { panic!("one call: {reply:?}") };
        match call.name.as_str() {
            "add" => _ = call.arguments_as::<Sum>().unwrap(),
            "get_weather" => _ = call.arguments_as::<Weather>().unwrap(),
            other => panic!("{other}"),
        }
    }
    // Who does not begin a call is free to say anything.
    session.messages_mut().truncate(1);
    let free = session.reply(&at_most(24).with_tools(vec![weather()]), on).unwrap();
    assert!(free.message.tool_calls.is_empty() && !free.message.content.is_empty(), "{free:?}");
}

#[test]
fn a_call_that_is_vetoed_is_not_run() {
    // As soon as it begins, and when nothing of it is missing.
    for whole in [false, true] {
        let Some(mut session) = asked() else { return };
        let runs = Arc::new(AtomicU32::new(0));
        let counted = Arc::clone(&runs);
        let mut toolbox = Toolbox::new().with("get_weather", "", move |_: Weather| {
            counted.fetch_add(1, Ordering::Relaxed);
            Ok::<_, Infallible>("sunny")
        });
        let mut after = 0;
        let mut vetoed = false;
        let mut arguments = String::new();
        let reply = session.reply_with_tools(&mut toolbox, &required(), rounds(3), |event| {
            after += u32::from(vetoed);
            match event {
                ReplyEvent::Arguments { delta, .. } => arguments += delta,
                ReplyEvent::ToolCall { .. } => vetoed = !whole,
                _ => {}
            }
            vetoed |= serde_json::from_str::<Weather>(&arguments).is_ok();
            if vetoed { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        let reply = reply.unwrap();
        assert_eq!((reply.finish, reply.message.tool_calls.len()), (FinishReason::BrokenOff, usize::from(whole)));
        assert_eq!((runs.load(Ordering::Relaxed), after), (0, 0));
        assert!(session.messages().iter().all(|message| message.role != Role::Tool));
    }
}

#[test]
fn calls_are_run_until_the_rounds_are_over() {
    let Some(mut session) = asked() else { return };
    // A tool that is declared by its schema, and takes whatever JSON that lets through.
    let schema = json!({"type": "object", "properties": {"n": {"type": "integer", "minimum": 3, "maximum": 3}},
        "required": ["n"], "additionalProperties": false});
    let tool = Tool::new("square", "Squares a number.", schema);
    let mut toolbox = Toolbox::new().with_tool(tool, |arguments: Value| match arguments["n"].as_i64() {
        Some(n) => Ok(n * n),
        None => Err("there is no n"),
    });
    let error = session.reply_with_tools(&mut toolbox, &required(), rounds(1), on).unwrap_err();
    assert!(matches!(error, ChatError::Rounds(1)), "{error}");
    let roles: Vec<Role> = session.messages().iter().map(|message| message.role).collect();
    assert_eq!(roles, [Role::User, Role::Assistant, Role::Tool]);
    assert_eq!(session.messages()[2].content, "9");
    // The call was asked for in the first round only.
    let none = at_most(16).with_tool_choice(ToolChoice::None);
    let reply = session.reply_with_tools(&mut toolbox, &none, rounds(1), on).unwrap();
    assert!(reply.message.tool_calls.is_empty());

    let unknown = ToolCall { id: "1".to_owned(), name: "cube".to_owned(), arguments: "{}".to_owned() };
    assert!(toolbox.run(&unknown).content.contains("there is no tool `cube`"));
    let wrong = ToolCall { name: "square".to_owned(), ..unknown };
    assert_eq!(toolbox.run(&wrong).content, r#"{"error":"there is no n"}"#);
}

#[test]
fn a_stop_text_inside_a_call_leaves_the_session_usable() {
    let Some(mut session) = asked() else { return };
    let reply = session.reply(&required().with_stop("\"city\""), on).unwrap();
    assert_eq!((reply.finish, reply.message.tool_calls.as_slice()), (FinishReason::Stop, [].as_slice()));
    session.push(Message::user("What is the capital of France?"));
    assert!(!session.reply(&at_most(8), on).unwrap().message.content.is_empty());
}

#[test]
fn a_call_never_has_the_id_of_another_one_in_the_conversation() {
    let Some(mut session) = asked() else { return };
    let call = ToolCall {
        id: "call00001".to_owned(),
        name: "get_weather".to_owned(),
        arguments: "{\"city\":\"Rome\"}".to_owned(),
    };
    session.push(Message::assistant("").with_tool_calls(vec![call.clone()]));
    session.push(Message::tool_result(&call, "sunny"));
    let reply = session.reply(&required(), on).unwrap();
    assert_eq!(reply.message.tool_calls[0].id, "call00002");
}

/// A value that may hold another of its kind.
#[derive(Debug, serde::Deserialize, JsonSchema)]
struct Node {
    value: bool,
    next: Option<Box<Node>>,
}

#[test]
fn a_schema_that_refers_to_itself_where_that_ends_is_kept() {
    if asked().is_none() {
        return;
    }
    let node = Tool::of::<Node>("list", "Takes a list.");
    let options = at_most(300).with_tools(vec![node]).with_tool_choice(ToolChoice::Required);
    // How deep a small model nests hangs on the last bits of its logits, which differ from one instruction set to another.
    let call = (1..=16).find_map(|seed| {
        let mut session = asked()?;
        let sampling = Sampling::creative().with_seed(seed);
        let reply = session.reply(&options.clone().with_sampling(sampling), on).unwrap();
        match &*reply.message.tool_calls {
            [call] => Some(call.clone()),
            [] if reply.finish == FinishReason::MaxTokens => None,
            _ => panic!("one call, or one that did not end: {reply:?}"),
        }
    });
    let call = call.expect("one list in sixteen ends");
    let mut node = Some(Box::new(call.arguments_as::<Node>().unwrap()));
    let values: Vec<bool> = std::iter::from_fn(|| {
        let Node { value, next } = *node.take()?;
        node = next;
        Some(value)
    })
    .collect();
    assert!(!values.is_empty());
}

#[test]
fn nested_schemas_that_make_no_sense_are_errors() {
    let Some(mut session) = asked() else { return };
    let before = session.messages().to_vec();
    let with = |schema: Value, definitions: Value| json!({"type": "object", "properties": {"x": schema}, "required": ["x"], "$defs": definitions});
    let property = |schema: Value| with(schema, json!({}));
    let circle = json!({"circle": {"allOf": [{"$ref": "#/$defs/circle"}]}});
    let two = json!({"a": {"$ref": "#/$defs/b"}, "b": {"anyOf": [{"type": "null"}, {"$ref": "#/$defs/a"}]}});
    let mut deep = json!({"type": "string"});
    for _ in 0..200 {
        deep = json!({"type": "array", "items": deep});
    }
    type IsExpected = fn(&TemplateError) -> bool;
    let reference: IsExpected = |error| matches!(error, TemplateError::ToolReference { .. });
    let of_engine: IsExpected = |error| matches!(error, TemplateError::Render { .. });
    let cases: [(Value, IsExpected); 8] = [
        (with(json!({"$ref": "#/$defs/circle"}), circle), reference),
        (with(json!({"type": "array", "items": {"$ref": "#/$defs/a"}}), two), reference),
        (property(json!({"$ref": "#/$defs/nowhere"})), reference),
        (property(json!({"$ref": "https://example.com/other.json"})), reference),
        (property(deep), |error| matches!(error, TemplateError::ToolDepth(_))),
        (property(json!({"type": "nonsense"})), of_engine),
        (property(json!({"enum": []})), of_engine),
        (property(json!(5)), of_engine),
    ];
    for (number, (schema, is_expected)) in cases.into_iter().enumerate() {
        let tool = Tool::new("f", "", schema);
        for choice in [ToolChoice::Auto, ToolChoice::Required] {
            match session.reply(&at_most(8).with_tools(vec![tool.clone()]).with_tool_choice(choice), on) {
                Err(ChatError::Template(error)) if is_expected(&error) => {}
                other => panic!("case {number}: {other:?}"),
            }
        }
        assert_eq!(session.messages(), before);
    }
    // What has no end is never finished.
    let endless = json!({"type": "object", "properties": {"y": {"$ref": "#/properties/x"}}, "required": ["y"],
        "additionalProperties": false});
    let options = at_most(60).with_tools(vec![Tool::new("f", "", property(endless))]);
    let reply = session.reply(&options.with_tool_choice(ToolChoice::Required), on).unwrap();
    assert_eq!((reply.finish, reply.message.tool_calls.as_slice()), (FinishReason::MaxTokens, [].as_slice()));
    session.messages_mut().truncate(1);
    assert!(session.reply(&at_most(4), on).is_ok());
}
