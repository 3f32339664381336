//! Prompts equal those of jinja2 by the rules of `transformers`, which `tools/record-chat-templates` recorded.

use std::{fs, path::PathBuf};

use gguf_loader::chat::{ChatPrompt, ChatTemplate, Message, PromptEnding, TemplateError, Tool, ToolCall, ToolChoice};
use serde::Deserialize;

use crate::parsed;

#[derive(Deserialize)]
struct Conversations {
    tools: Vec<Tool>,
    conversations: Vec<Conversation>,
}

#[derive(Deserialize)]
struct Conversation {
    name: String,
    messages: Vec<Message>,
    #[serde(default)]
    tools: bool,
    #[serde(default)]
    ending: String,
}

#[derive(Deserialize)]
struct Recorded {
    template: String,
    conversation: String,
    prompt: String,
}

fn fixture(name: &str) -> String {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/chat").join(name);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Writes today's date where the recording has the format of one.
fn with_date(recorded: &str) -> String {
    let mut text = String::new();
    let mut rest = recorded;
    while let Some((before, after)) = rest.split_once("<<%") {
        let (format, after) = after.split_once(">>").expect("a format ends");
        let template = parsed(&format!("{{{{ strftime_now('%{format}') }}}}")).expect("tested before").unwrap();
        text += before;
        text += &template.render(&ChatPrompt::new(vec![Message::user("")])).unwrap().text;
        rest = after;
    }
    text + rest
}

#[test]
fn prompts_equal_those_of_jinja2_by_the_rules_of_transformers() {
    let Conversations { tools, conversations } = serde_json::from_str(&fixture("conversations.json")).unwrap();
    let recorded: Vec<Recorded> = serde_json::from_str(&fixture("recorded.json")).unwrap();
    let mut wrong = Vec::new();
    for recorded in &recorded {
        let Some(template) = parsed(&fixture(&format!("templates/{}.jinja", recorded.template))) else { return };
        let conversation = conversations.iter().find(|one| one.name == recorded.conversation).unwrap();
        let mut prompt = ChatPrompt::new(conversation.messages.clone());
        if conversation.tools {
            prompt = prompt.with_tools(tools.clone());
        }
        if conversation.ending == "last_message" {
            prompt = prompt.with_ending(PromptEnding::LastMessage);
        }
        match template.unwrap().render(&prompt) {
            Ok(rendered) if rendered.text == with_date(&recorded.prompt) => {}
            result => wrong.push(format!(
                "{}, {}:\n{}\ninstead of\n{}",
                recorded.template,
                recorded.conversation,
                result.map_or_else(|error| error.to_string(), |rendered| rendered.text),
                with_date(&recorded.prompt)
            )),
        }
    }
    assert!(recorded.len() >= 12 * 9, "only {} recorded", recorded.len());
    assert!(wrong.is_empty(), "{} of {} differ:\n{}", wrong.len(), recorded.len(), wrong.join("\n----\n"));
}
