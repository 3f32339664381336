//! Conversations with a trained model, SmolLM2-135M-Instruct, which `GGUF_LOADER_TEST_MODEL` names.

use std::{num::NonZeroU32, ops::ControlFlow, path::PathBuf, sync::OnceLock};

use gguf_loader::{
    Model,
    backend::ContextOptions,
    chat::{
        ChatError, ChatPrompt, ChatSession, ChatTemplate, Message, ReplyEvent, ReplyOptions, Role, TemplateError, Tool,
        ToolChoice,
    },
    generation::{FinishReason, GenerateError, GenerateRequest},
    grammar::Grammar,
    sampling::{Pick, SamplerStep, Sampling},
};
use schemars::JsonSchema;

use crate::structured::load_with_tokenizer;

fn session() -> Option<ChatSession> {
    session_with(ContextOptions::default())
}

fn session_with(options: ContextOptions) -> Option<ChatSession> {
    static MODEL: OnceLock<Option<Model>> = OnceLock::new();
    let load = || {
        let path = std::env::var_os("GGUF_LOADER_TEST_MODEL").map(PathBuf::from).filter(|path| path.is_file());
        if path.is_none() {
            println!("skipped: GGUF_LOADER_TEST_MODEL names no file");
        }
        load_with_tokenizer(&path?)
    };
    let model = MODEL.get_or_init(load).as_ref()?;
    let options = options.with_length(NonZeroU32::new(1024).unwrap());
    Some(ChatSession::new(model.context(&options).unwrap()).unwrap())
}

fn at_most(tokens: u32) -> ReplyOptions {
    ReplyOptions::default().with_max_tokens(NonZeroU32::new(tokens).unwrap())
}

/// Goes on.
fn on(_: &ReplyEvent) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

#[test]
fn a_model_answers_and_remembers() {
    let Some(mut session) = session() else { return };
    session.push(Message::user("What is the capital of France?"));
    let mut streamed = String::new();
    let reply = session.reply(&at_most(48), |event| {
        if let ReplyEvent::Content(delta) = event {
            streamed += delta;
        }
        ControlFlow::Continue(())
    });
    let first = reply.unwrap();
    assert_eq!(streamed, first.message.content);
    assert_eq!(first.usage.reused_tokens, 0);
    // The same as the template's prompt, continued without a session.
    let asked = ChatPrompt::new(vec![Message::user("What is the capital of France?")]);
    let prompt = session.template().render(&asked).unwrap().text;
    let mut plain = session.context().model().context(&ContextOptions::default()).unwrap();
    let request = GenerateRequest::new(prompt).with_max_tokens(NonZeroU32::new(48).unwrap());
    assert_eq!(first.message.content.trim(), plain.complete(request).unwrap().text.trim());

    session.push(Message::user("And of Italy?"));
    let second = session.reply(&at_most(48), on).unwrap();
    // The whole first turn is kept: its prompt and all tokens of the reply.
    let kept = first.usage.prompt_tokens + first.usage.generated_tokens;
    assert!(second.usage.reused_tokens >= kept - 1, "{:?} after {:?}", second.usage, first.usage);
    assert_eq!(
        session.messages().iter().map(|message| message.role).collect::<Vec<_>>(),
        [Role::User, Role::Assistant, Role::User, Role::Assistant]
    );
}

/// With passes of fewer than 64 tokens: from there on llama.cpp's flash attention on the CPU takes a form that is rounded
/// differently, and what is read at once could part from what is read bit by bit.
#[test]
fn a_kept_cache_gives_the_same_reply_as_a_new_one() {
    let passes = ContextOptions::default().with_ubatch(NonZeroU32::new(32).unwrap());
    let (Some(mut old), Some(mut new)) = (session_with(passes.clone()), session_with(passes)) else { return };
    old.push(Message::user("Name three colours."));
    old.reply(&at_most(24), on).unwrap();
    old.push(Message::user("Name three animals."));
    old.messages().to_vec().into_iter().for_each(|message| new.push(message));
    let (old, new) = (old.reply(&at_most(64), on).unwrap(), new.reply(&at_most(64), on).unwrap());
    assert_eq!(old.message, new.message);
    assert!(old.usage.reused_tokens > 0 && new.usage.reused_tokens == 0);
}

#[test]
fn a_conversation_that_is_changed_is_read_again_from_there() {
    let Some(mut session) = session() else { return };
    session.push(Message::system("You are a pirate."));
    session.push(Message::user("Hi"));
    session.reply(&at_most(8), on).unwrap();
    session.messages_mut().clear();
    session.push(Message::user("What is 2+2?"));
    let changed = session.reply(&at_most(8), on).unwrap();
    assert!(changed.usage.reused_tokens < changed.usage.prompt_tokens);
}

#[test]
fn the_model_continues_what_it_is_given() {
    let Some(mut session) = session() else { return };
    session.push(Message::user("What is the capital of France?"));
    session.push(Message::assistant("The capital of Fra"));
    let mut streamed = String::new();
    let reply = session.reply(&at_most(12), |event| {
        if let ReplyEvent::Content(delta) = event {
            streamed += delta;
        }
        ControlFlow::Continue(())
    });
    let message = reply.unwrap().message;
    assert_eq!(format!("The capital of Fra{streamed}"), message.content);
    assert_eq!(session.messages().len(), 2);
}

/// What a tool takes.
#[derive(Debug, serde::Deserialize, JsonSchema)]
struct Weather {
    /// The city.
    #[schemars(length(min = 1, max = 20))]
    city: String,
}

#[test]
fn a_call_that_the_template_has_no_form_for_is_an_error() {
    let Some(mut session) = session() else { return };
    session.push(Message::user("What is the weather in Paris?"));
    let options = at_most(8).with_tools(weather()).with_tool_choice(ToolChoice::Required);
    assert!(matches!(session.reply(&options, on), Err(ChatError::Template(TemplateError::NoToolCalls))));
}

/// SmolLM2 with the template of a model that calls tools.
fn with_tools() -> Option<ChatSession> {
    let session = session()?;
    let context = session.context().model().context(&ContextOptions::default()).unwrap();
    let template = include_str!("../fixtures/chat/templates/qwen2.5.jinja");
    let source = context.model().tokenizer().unwrap().template_source(template);
    Some(ChatSession::with_template(context, ChatTemplate::parse(&source).unwrap()).unwrap())
}

#[test]
fn a_call_that_is_required_is_made_and_can_be_read() {
    let Some(mut session) = with_tools() else { return };
    // Hot enough to say anything, were it not held to a call.
    let hot = Sampling::new(Pick::Distribution).then(SamplerStep::Temperature { temperature: 2.0 });
    for sampling in [Sampling::greedy(), hot.clone().with_seed(1), hot.with_seed(2)] {
        session.messages_mut().clear();
        session.push(Message::user("Tell me a joke."));
        let required = at_most(400).with_tools(weather()).with_tool_choice(ToolChoice::Required);
        let mut streamed = (String::new(), String::new());
        let reply = session.reply(&required.with_sampling(sampling), |event| {
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
fn a_typed_reply_is_read_and_one_that_is_cut_off_is_an_error() {
    let Some(mut session) = session() else { return };
    session.push(Message::user("What is the weather in Paris? Answer in JSON."));
    let hot = Sampling::new(Pick::Distribution).then(SamplerStep::Temperature { temperature: 2.0 }).with_seed(3);
    let weather: Weather = session.reply_as(&at_most(200).with_sampling(hot)).unwrap();
    assert!((1..=20).contains(&weather.city.chars().count()), "{}", weather.city);
    session.push(Message::user("And in Rome?"));
    let cut = session.reply_as::<Weather>(&at_most(2));
    assert!(matches!(cut, Err(ChatError::Unfinished(FinishReason::MaxTokens))), "{cut:?}");
}

fn weather() -> Vec<Tool> {
    vec![Tool::of::<Weather>("get_weather", "Says what the weather is like in a city.")]
}

#[test]
fn breaking_off_and_cancelling_keep_what_was_said() {
    let Some(mut session) = session() else { return };
    session.push(Message::user("Tell me a long story."));
    let mut pieces = 0;
    let stopped = session.reply(&ReplyOptions::default(), |_| {
        pieces += 1;
        if pieces == 5 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    let stopped = stopped.unwrap();
    assert_eq!(stopped.finish, FinishReason::BrokenOff);
    assert!(!stopped.message.content.is_empty());

    session.push(Message::user("Another one."));
    let cancel = session.cancel_token();
    let in_callback = cancel.clone();
    let cancelled = session.reply(&ReplyOptions::default(), move |_| {
        in_callback.cancel();
        ControlFlow::Continue(())
    });
    assert_eq!(cancelled.unwrap().finish, FinishReason::Cancelled);
    cancel.reset();
    session.push(Message::user("What is the capital of France?"));
    assert!(!session.reply(&at_most(8), on).unwrap().message.content.is_empty());
}

#[test]
fn a_session_is_usable_after_an_error() {
    let Some(mut session) = session() else { return };
    session.push(Message::user("word ".repeat(2000)));
    let before = session.messages().to_vec();
    assert!(matches!(session.reply(&at_most(8), on), Err(ChatError::Generate(GenerateError::PromptTooLong { .. }))));
    assert_eq!(session.messages(), before);
    session.messages_mut().clear();
    session.push(Message::user("Hi"));
    let both = at_most(8).with_tools(weather()).with_grammar(Grammar::json());
    assert!(matches!(session.reply(&both, on), Err(ChatError::Generate(GenerateError::GrammarWithTools))));
    let none = at_most(8).with_tool_choice(ToolChoice::Required);
    assert!(matches!(session.reply(&none, on), Err(ChatError::Template(TemplateError::NoTools))));
    assert!(!session.reply(&at_most(8), on).unwrap().message.content.is_empty());
}
