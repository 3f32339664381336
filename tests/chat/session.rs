//! Conversations with a trained model, SmolLM2-135M-Instruct, which `GGUF_LOADER_TEST_MODEL` names.

use std::{num::NonZeroU32, ops::ControlFlow, path::PathBuf, sync::OnceLock};

use gguf_loader::{
    Model,
    backend::ContextOptions,
    chat::{
        ChatError, ChatPrompt, ChatSession, ChatTemplate, Message, ReplyEvent, ReplyOptions, Role, TemplateError, Tool,
        ToolChoice,
    },
    generation::{FinishReason, GenerateError, GenerateRequest, WhenFull},
    grammar::Grammar,
    sampling::{Pick, SamplerStep, Sampling},
    state::StateError,
};
use schemars::JsonSchema;

use crate::structured::load_with_tokenizer;

pub(crate) fn session() -> Option<ChatSession> {
    session_with(ContextOptions::default())
}

/// With another template, and asked something.
pub(crate) fn asked(template: &str, question: &str) -> Option<ChatSession> {
    let session = session()?;
    let context = session.context().model().context(&ContextOptions::default()).unwrap();
    let source = context.model().tokenizer().unwrap().template_source(template);
    let mut session = ChatSession::with_template(context, ChatTemplate::parse(&source).unwrap()).unwrap();
    session.push(Message::user(question));
    Some(session)
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

pub(crate) fn at_most(tokens: u32) -> ReplyOptions {
    ReplyOptions::default().with_max_tokens(NonZeroU32::new(tokens).unwrap())
}

/// Goes on.
pub(crate) fn on(_: &ReplyEvent) -> ControlFlow<()> {
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

/// With passes of fewer than 8 tokens: from there on the products of many tokens, and from 64 on llama.cpp's flash attention on the
/// CPU, take forms that are rounded differently, and what is read at once could part from what is read bit by bit.
#[test]
fn a_kept_cache_gives_the_same_reply_as_a_new_one() {
    let passes = ContextOptions::default().with_ubatch(NonZeroU32::new(7).unwrap());
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
    let reply = session.continue_reply(&at_most(12), |event| {
        if let ReplyEvent::Content(delta) = event {
            streamed += delta;
        }
        ControlFlow::Continue(())
    });
    let message = reply.unwrap().message;
    assert_eq!(format!("The capital of Fra{streamed}"), message.content);
    assert_eq!(session.messages()[1..], [message]);
}

#[test]
fn a_reply_is_continued_only_where_that_is_asked_for() {
    let Some(mut session) = session() else { return };
    session.push(Message::user("What is the capital of France?"));
    let nothing = session.continue_reply(&at_most(4), on);
    assert!(matches!(nothing, Err(ChatError::Template(TemplateError::NothingToContinue))), "{nothing:?}");
    session.reply(&at_most(4), on).unwrap();
    let before = session.messages().to_vec();
    let again = session.reply(&at_most(4), on);
    assert!(matches!(again, Err(ChatError::NothingToReplyTo)), "{again:?}");
    assert!(matches!(session.reply_as::<Weather>(&at_most(4)), Err(ChatError::NothingToReplyTo)));
    assert_eq!(session.messages(), before);
    let longer = session.continue_reply(&at_most(4), on).unwrap().message;
    assert!(longer.content.starts_with(&before[1].content) && longer.content.len() > before[1].content.len());
}

/// What a tool takes.
#[derive(Debug, serde::Deserialize, JsonSchema)]
struct Weather {
    /// The city.
    #[schemars(length(min = 1, max = 20))]
    city: String,
}

#[test]
fn a_typed_reply_is_read_and_one_that_is_cut_off_is_an_error() {
    let Some(mut session) = session() else { return };
    session.push(Message::user("What is the weather in Paris? Answer in JSON."));
    let hot = Sampling::new(Pick::Distribution).then(SamplerStep::Temperature { temperature: 2.0 }).with_seed(3);
    let weather: Weather = session.reply_as(&at_most(200).with_sampling(hot)).unwrap();
    assert!((1..=20).contains(&weather.city.chars().count()), "{}", weather.city);
    session.push(Message::user("And in Rome?"));
    let before = session.messages().to_vec();
    let cut = session.reply_as::<Weather>(&at_most(2));
    assert!(matches!(cut, Err(ChatError::Unfinished(FinishReason::MaxTokens))), "{cut:?}");
    assert_eq!(session.messages(), before);
    // Nothing of the beginning is in the way of another try.
    assert!(session.reply_as::<Weather>(&at_most(200)).is_ok());
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
    session.push(Message::user("What is the capital of France?"));
    let before = session.messages().to_vec();
    // Before the first token: nothing was said, and nothing is added.
    cancel.cancel();
    assert_eq!(session.reply(&at_most(8), on).unwrap().finish, FinishReason::Cancelled);
    assert_eq!(session.messages(), before);
    // It has taken effect, and is over.
    assert!(!session.reply(&at_most(8), on).unwrap().message.content.is_empty());
}

#[test]
fn a_reply_can_go_on_in_a_full_context_and_tell_how_sure_it_is() {
    let Some(session) = session() else { return };
    let model = session.context().model();
    let end = model.tokenizer().unwrap().special().eos.unwrap();
    let endless = Sampling::greedy().then(SamplerStep::LogitBias { biases: vec![(end, f32::NEG_INFINITY)] });
    let options = at_most(80).with_sampling(endless).with_logprobs(2);
    for (when_full, finish) in
        [(WhenFull::Stop, FinishReason::ContextFull), (WhenFull::Shift { keep: 4 }, FinishReason::MaxTokens)]
    {
        let context = model.context(&ContextOptions::default().with_length(NonZeroU32::new(64).unwrap())).unwrap();
        let mut short = ChatSession::new(context).unwrap();
        short.push(Message::user("Tell me a long story."));
        let reply = short.reply(&options.clone().with_when_full(when_full), on).unwrap();
        assert_eq!(reply.finish, finish);
        assert_eq!(reply.logprobs.len(), reply.usage.generated_tokens);
        assert!(reply.logprobs.iter().all(|token| token.top.len() == 2));
    }
}

#[test]
fn a_fork_goes_on_by_itself_with_what_is_computed() {
    let Some(mut session) = session() else { return };
    session.push(Message::user("What is the capital of France?"));
    session.reply(&at_most(24), on).unwrap();
    let another = |length: u32| {
        let options = ContextOptions::default().with_length(NonZeroU32::new(length).unwrap());
        session.context().model().context(&options).unwrap()
    };
    let (context, short) = (another(1024), another(16));
    let mut fork = session.fork(context).unwrap();
    for session in [&mut session, &mut fork] {
        session.push(Message::user("And of Italy?"));
    }
    let (ours, theirs) = (session.reply(&at_most(24), on).unwrap(), fork.reply(&at_most(24), on).unwrap());
    assert_eq!((&theirs.message, theirs.usage.reused_tokens), (&ours.message, ours.usage.reused_tokens));
    assert!(theirs.usage.reused_tokens > 0);
    let error = session.fork(short).unwrap_err();
    assert!(matches!(error, ChatError::State(StateError::TooLong { .. })), "{error}");
}

/// A text that its type never takes.
#[derive(Debug, serde::Deserialize, JsonSchema)]
#[serde(try_from = "bool")]
#[schemars(with = "bool")]
struct Refused;

impl TryFrom<bool> for Refused {
    type Error = &'static str;

    fn try_from(_: bool) -> Result<Self, Self::Error> {
        Err("never")
    }
}

#[test]
fn a_session_is_as_it_was_after_each_kind_of_error() {
    let Some(mut session) = session() else { return };
    session.push(Message::system("Be brief."));
    session.push(Message::user("Hi"));
    let before = session.messages().to_vec();
    let tools = || at_most(8).with_tools(vec![Tool::of::<Weather>("get_weather", "")]);
    let too_hot = Sampling::greedy().then(SamplerStep::TopP { p: 7.0, min_keep: 1 });
    type Fails = Box<dyn Fn(&mut ChatSession) -> ChatError>;
    type IsExpected = fn(&ChatError) -> bool;
    let reply = |options: ReplyOptions| -> Fails { Box::new(move |session| session.reply(&options, on).unwrap_err()) };
    let cases: [(Fails, IsExpected); 10] = [
        (Box::new(|session| session.send("word ".repeat(2000)).unwrap_err()), |error| {
            matches!(error, ChatError::Generate(GenerateError::PromptTooLong { .. }))
        }),
        (reply(tools().with_grammar(Grammar::json())), |error| {
            matches!(error, ChatError::Generate(GenerateError::GrammarWithTools))
        }),
        (reply(at_most(8).with_stop("")), |error| matches!(error, ChatError::Generate(GenerateError::EmptyStop))),
        (reply(at_most(8).with_sampling(too_hot)), |error| {
            matches!(error, ChatError::Generate(GenerateError::Sampling(_)))
        }),
        (reply(at_most(8).with_when_full(WhenFull::Shift { keep: 5000 })), |error| {
            matches!(error, ChatError::Generate(GenerateError::NothingToShift { .. }))
        }),
        (reply(at_most(8).with_tool_choice(ToolChoice::Required)), |error| {
            matches!(error, ChatError::Template(TemplateError::NoTools))
        }),
        (reply(tools()), |error| matches!(error, ChatError::Template(TemplateError::NoToolCalls))),
        (Box::new(|session| session.reply_as::<std::collections::HashSet<u8>>(&at_most(8)).unwrap_err()), |error| {
            matches!(error, ChatError::Schema(_))
        }),
        (Box::new(|session| session.reply_as::<Weather>(&at_most(2)).unwrap_err()), |error| {
            matches!(error, ChatError::Unfinished(FinishReason::MaxTokens))
        }),
        (Box::new(|session| session.reply_as::<Refused>(&at_most(8)).unwrap_err()), |error| {
            matches!(error, ChatError::Value(_))
        }),
    ];
    for (fails, is_expected) in &cases {
        let error = fails(&mut session);
        assert!(is_expected(&error), "{error:?}");
        assert_eq!(session.messages(), before, "after {error}");
        assert!(!session.reply(&at_most(4), on).unwrap().message.content.is_empty(), "after {error}");
        session.messages_mut().pop();
    }
}
