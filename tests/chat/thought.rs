//! What a model thinks before it answers, with the templates of models that do, on SmolLM2, which is made to.

use gguf_loader::{
    chat::{ChatError, ChatPrompt, ChatSession, Message, ReplyOptions, ToolChoice},
    generation::{FinishReason, GenerateRequest},
    grammar::Grammar,
    sampling::{Pick, Sampling},
};
use schemars::JsonSchema;
use serde_json::json;

use crate::{
    parsed,
    session::{self, at_most, on},
    tools::{Begin, weather},
};

/// Its prompt ends with `<think>`.
const OPEN: &str = include_str!("../fixtures/chat/templates/qwq.jinja");
/// Here the model writes `<think>` itself, if it wants to.
const FREE: &str = include_str!("../fixtures/chat/templates/qwen3.jinja");

#[derive(Debug, serde::Deserialize, JsonSchema)]
struct Answer {
    #[schemars(range(min = 0, max = 99))]
    number: u32,
}

fn asked(template: &str) -> Option<ChatSession> {
    session::asked(template, "How many apples are two apples and three apples?")
}

/// A reply that begins with `text`, as if the model had wanted to say that; then the likeliest.
fn saying(session: &ChatSession, text: &str) -> Sampling {
    Sampling::new(Pick::Greedy).then_custom(Begin::text(session.context().model().tokenizer().unwrap(), text))
}

#[test]
fn a_template_says_how_reasoning_is_marked_and_whether_the_prompt_begins_it() {
    let markers = |text: &str, thinking| {
        let prompt = ChatPrompt::new(vec![Message::user("Is `<think>` a word?")]).with_thinking(thinking);
        Some(parsed(text)?.unwrap().render(&prompt).unwrap().reasoning)
    };
    let Some(open) = markers(OPEN, true) else { return };
    let open = open.unwrap();
    assert_eq!((open.start.as_str(), open.ends.as_slice(), open.open), ("<think>", &["</think>".to_owned()][..], true));
    for thinking in [true, false] {
        let free = markers(FREE, thinking).unwrap().unwrap();
        assert_eq!((free.start.as_str(), free.open), ("<think>", false), "{thinking}");
    }
    assert_eq!(markers(include_str!("../fixtures/chat/templates/smollm2.jinja"), true), Some(None));
}

#[test]
fn a_grammar_holds_the_answer_and_lets_the_model_think_before_it() {
    let Some(mut session) = asked(OPEN) else { return };
    let thought = "Two and three, {that} is \"five\".\n";
    let options = at_most(200).with_sampling(saying(&session, &format!("{thought}</think>")));
    let answer: Answer = session.reply_as(&options).unwrap();
    assert!(answer.number < 100);
    let message = session.messages().last().unwrap();
    assert_eq!(message.reasoning.trim(), thought.trim());
    assert!(message.content.trim().starts_with('{'), "{message:?}");

    // Without a grammar the same beginning is reasoning, too, and the answer is anything.
    session.messages_mut().truncate(1);
    let sampling = saying(&session, &format!("{thought}</think>\n\nFive"));
    let reply = session.reply(&at_most(40).with_sampling(sampling), on).unwrap();
    assert_eq!(reply.message.reasoning.trim(), thought.trim());
    assert!(reply.message.content.trim().starts_with("Five"), "{reply:?}");
}

#[test]
fn a_reply_that_a_grammar_still_holds_does_not_end_in_thought() {
    let Some(mut session) = asked(OPEN) else { return };
    let grammar = Grammar::json_schema(&json!({"const": 5})).unwrap();
    let ending = || saying(&session, "Hm.<|im_end|></think>");
    let options = at_most(60).with_grammar(grammar).with_sampling(ending());
    // The step of its own leaves nothing but the end, and that is refused.
    let error = session.reply(&options, on).unwrap_err();
    assert!(matches!(error, ChatError::Generate(_)), "{error:?}");
    let reply = session.reply(&at_most(60).with_sampling(saying(&session, "Hm.<|im_end|>")), on).unwrap();
    assert_eq!((reply.finish, reply.message.reasoning.trim()), (FinishReason::End, "Hm."));
}

#[test]
fn a_budget_ends_reasoning_and_the_answer_follows() {
    let Some(mut session) = asked(OPEN) else { return };
    // SmolLM2 knows no `</think>`: without a budget all of the reply is reasoning.
    let unbounded = session.reply(&at_most(60), on).unwrap();
    assert_eq!(unbounded.message.content, "");
    for budget in [0, 1, 17] {
        session.messages_mut().truncate(1);
        let options = at_most(120).with_reasoning_budget(budget);
        let answer: Answer = session.reply_as(&options).unwrap();
        assert!(answer.number < 100);
        let tokenizer = session.context().model().tokenizer().unwrap();
        let reasoning = &session.messages().last().unwrap().reasoning;
        let tokens = tokenizer.tokenize(reasoning, Default::default()).unwrap().len();
        // Written again, its beginning and its end may be other tokens.
        assert!(tokens <= budget as usize + 2 && (budget < 17 || tokens > 8), "{budget}: {tokens} of {reasoning:?}");
    }
    // It holds without a grammar, too.
    session.messages_mut().truncate(1);
    let reply = session.reply(&at_most(60).with_reasoning_budget(3), on).unwrap();
    assert!((1..30).contains(&reply.message.reasoning.len()), "{reply:?}");
    // A request made of a prompt takes one, too.
    session.messages_mut().truncate(1);
    let prompt = session.template().render(&ChatPrompt::new(session.messages().to_vec())).unwrap();
    let request = GenerateRequest::new(prompt).with_reasoning_budget(5).with_max_tokens(40.try_into().unwrap());
    let completion = session.context_mut().complete(&request).unwrap();
    let thought = completion.text.split("</think>").next().unwrap();
    assert!(completion.text.contains("</think>") && thought.len() < 60, "{}", completion.text);
}

#[test]
fn a_thought_about_a_call_is_no_call_and_a_call_after_it_is() {
    for template in [FREE, OPEN] {
        let Some(mut session) = asked(template) else { return };
        let begin = if template == FREE { "<think>\n" } else { "" };
        let thought = format!("{begin}I may write <tool_call> and {{\"name\": 1}} here.\n</think>\n\n");
        let options = |text: &str| {
            at_most(200).with_tools(vec![weather()]).with_sampling(saying(&session, &format!("{thought}{text}")))
        };
        let (answers, calls) = (options("Five.<|im_end|>"), options("<tool_call>\n"));
        let reply = session.reply(&answers, on).unwrap();
        assert_eq!((reply.finish, reply.message.content.trim()), (FinishReason::End, "Five."), "{reply:?}");
        assert!(reply.message.reasoning.contains("<tool_call>"), "{reply:?}");
        session.messages_mut().truncate(1);
        let reply = session.reply(&calls, on).unwrap();
        assert_eq!(reply.finish, FinishReason::ToolCalls, "{reply:?}");
        assert_eq!(reply.message.tool_calls[0].name, "get_weather");
    }
}

#[test]
fn a_budget_holds_where_a_call_must_be_made() {
    let Some(mut session) = asked(OPEN) else { return };
    let options: ReplyOptions =
        at_most(300).with_tools(vec![weather()]).with_tool_choice(ToolChoice::Required).with_reasoning_budget(12);
    let reply = session.reply(&options, on).unwrap();
    assert_eq!(reply.finish, FinishReason::ToolCalls, "{reply:?}");
    assert!(!reply.message.reasoning.is_empty() && reply.message.reasoning.len() < 120, "{reply:?}");
}

#[test]
fn a_grammar_that_rules_from_the_first_token_begins_no_reasoning() {
    let Some(mut session) = asked(FREE) else { return };
    let sampling = saying(&session, "\"<think>");
    let grammar = Grammar::json_schema(&json!({"type": "string", "maxLength": 12})).unwrap();
    let reply = session.reply(&at_most(60).with_grammar(grammar).with_sampling(sampling), on).unwrap();
    assert_eq!(reply.finish, FinishReason::End, "{reply:?}");
    let text: String = serde_json::from_str(&reply.message.content).unwrap();
    assert!(text.starts_with("<think>"), "{text}");
}
