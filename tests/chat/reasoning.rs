//! Reasoning: told apart from what is said, and switched off.

use std::ops::ControlFlow;

use gguf_loader::{
    backend::ContextOptions,
    chat::{ChatPrompt, ChatReply, ChatSession, Message, ReplyEvent, ReplyOptions, ReplyReader},
    generation::FinishReason,
    sampling::{Pick, Sampling},
};

use crate::{
    session::{asked, at_most, on},
    tools::Begin,
};

/// The model writes `<think>` itself.
fn qwen3() -> Option<ChatSession> {
    asked(include_str!("../fixtures/chat/templates/qwen3.jinja"), "Tell me a joke.")
}

/// The prompt ends in `<think>`.
fn deepseek() -> Option<ChatSession> {
    asked(include_str!("../fixtures/chat/templates/deepseek-r1-distill.jinja"), "Tell me a joke.")
}

/// Options with which the reply begins with this text.
fn beginning(session: &ChatSession, text: &str, tokens: u32) -> ReplyOptions {
    let begin = Begin::text(session.context().model().tokenizer().unwrap(), text);
    at_most(tokens).with_sampling(Sampling::new(Pick::Distribution).then_custom(begin).with_seed(1))
}

/// The reply, and the texts of its events: reasoning, content. The first never comes after the second.
fn heard(session: &mut ChatSession, options: &ReplyOptions) -> (ChatReply, String, String) {
    let (mut reasoning, mut content) = (String::new(), String::new());
    let reply = session.reply(options, |event| {
        match event {
            ReplyEvent::Reasoning(text) => {
                assert!(content.is_empty(), "{text:?} comes after {content:?}");
                reasoning += text;
            }
            ReplyEvent::Content(text) => content += text,
            other => panic!("{other:?}"),
        }
        ControlFlow::Continue(())
    });
    (reply.unwrap(), reasoning, content)
}

#[test]
fn what_is_thought_is_an_event_of_its_own_and_comes_first() {
    for (session, begin) in [(qwen3(), "<think>\n"), (deepseek(), "")] {
        let Some(mut session) = session else { return };
        let text = format!("{begin}A joke about hens.\n</think>\n\nWhy did the hen");
        let options = beginning(&session, &text, 48);
        let (reply, reasoning, content) = heard(&mut session, &options);
        assert_eq!(reasoning.trim(), "A joke about hens.");
        assert!(content.trim_start().starts_with("Why did the hen"), "{content:?}");
        assert_eq!((reply.message.reasoning.trim(), &reply.message.content), (reasoning.trim(), &content));
        assert_eq!(session.messages().last(), Some(&reply.message));
        // The conversation goes on with it.
        session.push(Message::user("Why?"));
        assert!(session.reply(&at_most(4), on).is_ok());
    }
}

#[test]
fn a_reply_that_is_cut_off_while_the_model_thinks_says_nothing() {
    let Some(mut session) = deepseek() else { return };
    let (reply, reasoning, content) = heard(&mut session, &at_most(12));
    assert_eq!((reply.finish, content.as_str()), (FinishReason::MaxTokens, ""));
    assert!(reasoning.len() > 10 && reply.message.content.is_empty(), "{reply:?}");
    assert_eq!(reply.message.reasoning.trim(), reasoning.trim());
}

#[test]
fn a_model_that_shall_not_think_answers_at_once() {
    for session in [qwen3(), deepseek()] {
        let Some(mut session) = session else { return };
        let (reply, reasoning, content) = heard(&mut session, &at_most(12).with_thinking(false));
        assert_eq!((reasoning.as_str(), reply.message.reasoning.as_str()), ("", ""));
        assert!(content.len() > 10, "{reply:?}");
        assert_eq!(reply.message.content.trim(), content.trim());
    }
}

#[test]
fn a_rendered_prompt_that_is_continued_by_hand_is_read_as_in_a_session() {
    let Some(mut session) = qwen3() else { return };
    let text = "<think>\nHens.\n</think>\n\nWhy did the hen";
    let options = beginning(&session, text, 40);
    let (reply, ..) = heard(&mut session, &options);

    let prompt = session.template().render(&ChatPrompt::new(session.messages()[..1].to_vec())).unwrap();
    let mut reader = ReplyReader::new(prompt.parser.clone());
    let mut context = session.context().model().context(&ContextOptions::default()).unwrap();
    let mut request = gguf_loader::generation::GenerateRequest::new(prompt);
    (request.sampling, request.max_tokens) = (beginning(&session, text, 40).sampling, options.max_tokens);
    let mut events = Vec::new();
    for piece in context.generate(request).unwrap() {
        events.extend(reader.push(&piece.unwrap().text));
    }
    let (read, rest) = reader.finish(reply.finish != FinishReason::MaxTokens).unwrap();
    events.extend(rest);
    assert_eq!((&read.content, &read.reasoning), (&reply.message.content, &reply.message.reasoning));
    let said: String = events
        .iter()
        .map(|event| match event {
            ReplyEvent::Content(text) => text.as_str(),
            _ => "",
        })
        .collect();
    assert_eq!(said, read.content);
}
