//! Conversations with a trained model, SmolLM2-135M-Instruct, which `GGUF_LOADER_TEST_MODEL` names.

use std::{
    num::NonZeroU32,
    ops::ControlFlow,
    path::PathBuf,
    sync::{Arc, Mutex, OnceLock},
};

use gguf_loader::{
    Model,
    backend::ContextOptions,
    chat::{
        ChatError, ChatFinish, ChatPrompt, ChatSession, Message, ReplyEvent, ReplyOptions, Role, TemplateError, Tool,
        ToolChoice, Toolbox,
    },
    generation::GenerateOptions,
    grammar::Grammar,
};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::parsed;
use crate::structured::{by_chance, load_with_tokenizer};

fn session() -> Option<ChatSession> {
    static MODEL: OnceLock<Option<Model>> = OnceLock::new();
    let load = || {
        let path = std::env::var_os("GGUF_LOADER_TEST_MODEL").map(PathBuf::from).filter(|path| path.is_file());
        if path.is_none() {
            println!("skipped: GGUF_LOADER_TEST_MODEL names no file");
        }
        load_with_tokenizer(&path?)
    };
    let model = MODEL.get_or_init(load).as_ref()?;
    let options = ContextOptions::default().with_length(NonZeroU32::new(1024).unwrap());
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
    let options = GenerateOptions::default().with_max_tokens(NonZeroU32::new(48).unwrap());
    let pieces: String = plain.generate(&prompt, &options).unwrap().map(|piece| piece.unwrap().text).collect();
    assert_eq!(first.message.content.trim(), pieces.trim());

    session.push(Message::user("And of Italy?"));
    let second = session.reply(&at_most(48), on).unwrap();
    // The whole first turn is kept: its prompt and all tokens of the reply.
    let kept = first.usage.prompt_tokens + first.usage.reply_tokens;
    assert!(second.usage.reused_tokens >= kept - 1, "{:?} after {:?}", second.usage, first.usage);
    assert_eq!(
        session.messages().iter().map(|message| message.role).collect::<Vec<_>>(),
        [Role::User, Role::Assistant, Role::User, Role::Assistant]
    );
}

#[test]
fn a_kept_cache_gives_the_same_reply_as_a_new_one() {
    let (Some(mut old), Some(mut new)) = (session(), session()) else { return };
    old.push(Message::user("Name three colours."));
    old.reply(&at_most(24), on).unwrap();
    old.push(Message::user("Name three animals."));
    old.messages().to_vec().into_iter().for_each(|message| new.push(message));
    let (old, new) = (old.reply(&at_most(24), on).unwrap(), new.reply(&at_most(24), on).unwrap());
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

#[derive(Debug, Deserialize, JsonSchema)]
#[allow(dead_code)]
struct City {
    /// The name.
    #[schemars(length(max = 20))]
    name: String,
    population_in_millions: f64,
    /// Whether ships can reach it.
    has_port: bool,
    #[schemars(length(max = 3))]
    languages: Vec<Language>,
    founded: Option<i32>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum Language {
    French,
    German,
    English,
}

#[test]
fn a_value_of_a_type_is_what_the_type_says() {
    let Some(mut session) = session() else { return };
    session.push(Message::user("Describe Marseille as JSON."));
    let city: City = session.reply_as(&at_most(400)).unwrap();
    assert!(!city.name.is_empty(), "{city:?}");
    // Whatever chance makes of it.
    for seed in 0..3 {
        session.set_chooser(by_chance(seed, 1.0));
        session.push(Message::user("Describe another city as JSON."));
        match session.reply_as::<City>(&at_most(400)) {
            Ok(_) | Err(ChatError::Unfinished(ChatFinish::MaxTokens | ChatFinish::ContextFull)) => {}
            Err(ChatError::PromptTooLong { .. }) => break,
            Err(error) => panic!("{error:?}"),
        }
    }
}

#[derive(Debug, Deserialize, JsonSchema)]
struct Weather {
    /// The city.
    #[schemars(length(min = 1, max = 20))]
    city: String,
}

/// A session with the template of Qwen2.5, which speaks of tools as SmolLM2's does not, and uses the same special tokens.
fn session_with_tools() -> Option<ChatSession> {
    let text =
        std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/chat/templates/qwen2.5.jinja"));
    let context = session()?.context().model().context(&ContextOptions::default()).unwrap();
    Some(ChatSession::with_template(context, parsed(&text.unwrap())?.unwrap()).unwrap())
}

#[test]
fn a_call_that_the_template_has_no_form_for_is_an_error() {
    let Some(mut session) = session() else { return };
    session.push(Message::user("What is the weather in Paris?"));
    let options = at_most(8).with_tools(weather()).with_tool_choice(ToolChoice::Required);
    assert!(matches!(session.reply(&options, on), Err(ChatError::Template(TemplateError::NoToolCalls))));
}

fn weather() -> Vec<Tool> {
    vec![Tool::of::<Weather>("get_weather", "Says what the weather is like in a city.")]
}

#[test]
fn a_call_that_is_required_is_made_and_parses() {
    let Some(mut session) = session_with_tools() else { return };
    session.push(Message::user("What is the weather in Paris?"));
    // The beginning of a call: a model this small would talk about the weather first, for longer than a test may take.
    session.push(Message::assistant("<tool_call>"));
    let options = at_most(60).with_tools(weather()).with_tool_choice(ToolChoice::Required);
    let (mut named, mut arguments) = (Vec::new(), String::new());
    let reply = session.reply(&options, |event| {
        match event {
            ReplyEvent::ToolCall { name, .. } => named.push(name.clone()),
            ReplyEvent::Arguments { delta, .. } => arguments += delta,
            _ => {}
        }
        ControlFlow::Continue(())
    });
    let reply = reply.unwrap();
    assert_eq!(reply.finish, ChatFinish::ToolCalls, "{:?}", reply.message);
    let call = &reply.message.tool_calls[0];
    assert_eq!((call.name.as_str(), call.id.len()), ("get_weather", 9));
    assert!(!call.arguments_as::<Weather>().unwrap().city.is_empty());
    assert_eq!((named, arguments), (vec!["get_weather".to_owned()], call.arguments.clone()));
}

#[test]
fn results_go_back_to_the_model_and_the_loop_has_a_bound() {
    let Some(mut session) = session_with_tools() else { return };
    let asked = Arc::new(Mutex::new(Vec::new()));
    let noted = asked.clone();
    let mut toolbox = Toolbox::new().with("get_weather", "Says what the weather is like.", move |weather: Weather| {
        noted.lock().unwrap().push(weather.city);
        Ok::<_, String>("sunny, 21 degrees")
    });
    session.push(Message::user("What is the weather in Paris?"));
    session.push(Message::assistant("<tool_call>"));
    let options = at_most(60).with_tool_choice(ToolChoice::Required);
    let result = session.reply_with_tools(&mut toolbox, &options, NonZeroU32::MIN, on);
    assert!(matches!(result, Err(ChatError::Rounds(1))), "{result:?}");
    assert_eq!(asked.lock().unwrap().len(), 1);
    assert_eq!(session.messages().last().unwrap().role, Role::Tool);
    // The session is as good as before.
    let reply = session.reply(&at_most(40), on).unwrap();
    assert!(reply.usage.reply_tokens > 0);
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
    assert_eq!(stopped.finish, ChatFinish::Stopped);
    assert!(!stopped.message.content.is_empty());

    session.push(Message::user("Another one."));
    let cancel = session.cancel_token();
    let in_callback = cancel.clone();
    let cancelled = session.reply(&ReplyOptions::default(), move |_| {
        in_callback.cancel();
        ControlFlow::Continue(())
    });
    assert_eq!(cancelled.unwrap().finish, ChatFinish::Cancelled);
    cancel.reset();
    session.push(Message::user("What is the capital of France?"));
    assert!(!session.reply(&at_most(8), on).unwrap().message.content.is_empty());
}

#[test]
fn a_session_is_usable_after_an_error() {
    let Some(mut session) = session() else { return };
    session.push(Message::user("word ".repeat(2000)));
    let before = session.messages().to_vec();
    assert!(matches!(session.reply(&at_most(8), on), Err(ChatError::PromptTooLong { .. })));
    assert_eq!(session.messages(), before);
    session.messages_mut().clear();
    session.push(Message::user("Hi"));
    let both = at_most(8).with_tools(weather()).with_grammar(Grammar::json());
    assert!(matches!(session.reply(&both, on), Err(ChatError::GrammarWithTools)));
    let none = at_most(8).with_tool_choice(ToolChoice::Required);
    assert!(matches!(session.reply(&none, on), Err(ChatError::Template(TemplateError::NoTools))));
    assert!(!session.reply(&at_most(8), on).unwrap().message.content.is_empty());
}
