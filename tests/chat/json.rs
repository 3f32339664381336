//! JSON of any form, written by SmolLM2.

use gguf_loader::{
    chat::Message,
    generation::{FinishReason, GenerateRequest},
    grammar::Grammar,
    sampling::Sampling,
};
use serde_json::Value;

use crate::session::{at_most, on, session};

#[test]
fn what_is_generated_as_json_is_an_object_or_an_array() {
    let Some(session) = session() else { return };
    let mut context = session.context().model().context(&Default::default()).unwrap();
    let mut whole = 0;
    for (seed, prompt) in (0..).zip(["A cat as a JSON object:\n", "The first primes as a JSON array:\n"].repeat(3)) {
        let request = GenerateRequest::new(prompt).with_grammar(Grammar::json());
        let sampled =
            request.with_sampling(Sampling::balanced().with_seed(seed)).with_max_tokens(300.try_into().unwrap());
        let completion = context.complete(sampled).unwrap();
        let text = completion.text.trim_start();
        assert!(text.starts_with(['{', '[']), "{text}");
        match completion.finish {
            FinishReason::End => {
                let value: Value = serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"));
                assert!(value.is_object() || value.is_array(), "{value}");
                whole += 1;
            }
            // Nothing makes a small model come to an end.
            finish => assert_eq!(finish, FinishReason::MaxTokens, "{text}"),
        }
    }
    assert!(whole >= 2, "{whole} of six came to an end");
}

#[test]
fn a_chat_replies_in_json() {
    let Some(mut session) = session() else { return };
    session.push(Message::user("Describe a cat as a JSON object with a name and an age."));
    let before = session.messages().to_vec();
    let whole = (0..6).any(|seed| {
        *session.messages_mut() = before.clone();
        let options = at_most(300).with_grammar(Grammar::json()).with_sampling(Sampling::balanced().with_seed(seed));
        let reply = session.reply(&options, on).unwrap();
        let content = reply.message.content.trim_start();
        assert!(content.starts_with(['{', '[']), "{content}");
        reply.finish == FinishReason::End && serde_json::from_str::<Value>(content).is_ok()
    });
    assert!(whole, "one of six comes to its end");
}
