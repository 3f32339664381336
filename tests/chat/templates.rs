//! Prompts equal those of jinja2 by the rules of `transformers`, which `tools/record-chat-templates` recorded.

use std::{collections::BTreeSet, fs, path::PathBuf};

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
    #[serde(default = "yes")]
    thinking: bool,
    #[serde(default)]
    arguments: serde_json::Map<String, serde_json::Value>,
}

fn yes() -> bool {
    true
}

#[derive(Deserialize)]
struct Recorded {
    template: String,
    conversation: String,
    prompt: String,
}

/// The templates that are recorded.
pub(crate) fn names() -> BTreeSet<String> {
    let all: Vec<Recorded> = serde_json::from_str(&fixture("recorded.json")).unwrap();
    all.into_iter().map(|recorded| recorded.template).collect()
}

/// The prompt that jinja2 made of a conversation.
pub(crate) fn recorded(template: &str, conversation: &str) -> String {
    let all: Vec<Recorded> = serde_json::from_str(&fixture("recorded.json")).unwrap();
    let is_it = |recorded: &Recorded| recorded.template == template && recorded.conversation == conversation;
    all.into_iter().find(is_it).expect("it is recorded").prompt
}

pub(crate) fn fixture(name: &str) -> String {
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
    let (mut wrong, mut without_calls) = (Vec::new(), BTreeSet::new());
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
        prompt = prompt.with_thinking(conversation.thinking);
        prompt.arguments.clone_from(&conversation.arguments);
        let template = template.unwrap();
        let result = template.render(&prompt).or_else(|error| match error {
            // It writes these prompts all the same, where nobody counts on calls.
            TemplateError::NoToolCalls => {
                without_calls.insert(recorded.template.as_str());
                template.render(&prompt.with_tool_choice(ToolChoice::None))
            }
            error => Err(error),
        });
        match result {
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
    assert_eq!(without_calls.into_iter().collect::<Vec<_>>(), ["granite-3.3", "phi-3.5", "smollm2", "smollm3"]);
    assert_eq!(recorded.len(), 15 * conversations.len());
    // The switch and the variables change what some templates write, or nothing was tested.
    let prompts = |name: &str| -> Vec<&str> {
        recorded.iter().filter(|one| one.conversation == name).map(|one| one.prompt.as_str()).collect()
    };
    let differ = |name: &str| prompts(name).iter().zip(prompts("user")).filter(|(one, plain)| **one != *plain).count();
    assert!(
        differ("no thoughts") >= 5 && differ("variables") >= 2,
        "{}, {}",
        differ("no thoughts"),
        differ("variables")
    );
    assert!(wrong.is_empty(), "{} of {} differ:\n{}", wrong.len(), recorded.len(), wrong.join("\n----\n"));
}

fn error_of(template: &str, prompt: &ChatPrompt) -> Option<TemplateError> {
    parsed(template).map(|template| template.and_then(|template| template.render(prompt)).map(|_| ()).unwrap_err())
}

fn hello() -> ChatPrompt {
    ChatPrompt::new(vec![Message::user("Hello")])
}

#[test]
fn a_template_that_refuses_the_conversation_says_why_and_on_which_line() {
    let template = "{% for message in messages %}\n{% if message.role == 'user' %}\n  {{ raise_exception('no users') }}\n{% endif %}\n{% endfor %}";
    let Some(error) = error_of(template, &hello()) else { return };
    assert_eq!(error, TemplateError::Render { line: Some(3), message: "no users".to_owned() });
}

#[test]
fn a_template_that_is_no_jinja_says_what_is_wrong_and_on_which_line() {
    for (template, line) in [
        ("a\n\n{% if x %}b", None),
        ("a\n{{ 'x }}", Some(2)),
        ("a\n\n{{ x y }}\nb", Some(3)),
        ("{{ messages\n| §", Some(2)),
    ] {
        match error_of(template, &hello()) {
            None => return,
            Some(TemplateError::Syntax { line: found, message }) => {
                assert!(line.is_none() || found == line, "{template:?}: line {found:?}: {message}");
                assert!(!message.is_empty());
            }
            Some(other) => panic!("{template:?}: {other}"),
        }
    }
}

#[test]
fn templates_nested_without_end_are_errors() {
    let many = 100_000;
    for template in [
        format!("{{{{ {}1{} }}}}", "(".repeat(many), ")".repeat(many)),
        format!("{{{{ {}1 }}}}", "not ".repeat(many)),
        format!("{{{{ {}1 }}}}", "1 + ".repeat(many)),
        format!("{{{{ a{} }}}}", ".b".repeat(many)),
        "{% if 1 %}".repeat(many) + &"{% endif %}".repeat(many),
        "{% if 1 %}".to_owned() + &"{% elif 1 %}".repeat(many) + "{% endif %}",
        "{% set a %}".repeat(many) + &"{% endset %}".repeat(many),
        "{% for a in [[1]] %}".repeat(many),
    ] {
        match error_of(&template, &hello()) {
            None => return,
            Some(error) => assert!(matches!(error, TemplateError::Syntax { .. }), "{error}"),
        }
    }
}

#[test]
fn no_template_is_an_error_and_never_another_format() {
    for text in ["", "chatml"] {
        let Some(result) = parsed(text) else { return };
        assert_eq!(result.map(|_| ()).unwrap_err(), TemplateError::Missing);
    }
}

#[test]
fn tools_that_make_no_sense_are_errors() {
    let object = serde_json::json!({ "type": "object", "properties": {} });
    let tool = |name: &str| Tool::new(name, "", object.clone());
    let text = serde_json::json!({ "type": "string" });
    let broken = ToolCall { id: "1".to_owned(), name: "f".to_owned(), arguments: "{\"a\":".to_owned() };
    let calls = Message::assistant("").with_tool_calls(vec![broken]);
    let prompts = [
        (hello().with_tool_choice(ToolChoice::Required), "a tool call is required, and no tools are given"),
        (
            hello().with_tools(vec![tool("a")]).with_tool_choice(ToolChoice::Named("b".to_owned())),
            "there is no tool `b`",
        ),
        (hello().with_tools(vec![tool("a"), tool("a")]), "two tools are named `a`"),
        (hello().with_tools(vec![tool("a b")]), "cannot be the name of a tool"),
        (hello().with_tools(vec![Tool::new("a", "", text)]), "are not a JSON schema of an object"),
        (hello().with_tools(vec![Tool::new("a", "", serde_json::json!([]))]), "are not a JSON schema of an object"),
        (hello().with_ending(PromptEnding::Continue), "no message of the assistant to continue"),
        (ChatPrompt::new(vec![calls]), "the arguments of the call of `f` are not a JSON object"),
    ];
    for (prompt, message) in prompts {
        let Some(error) = error_of(&fixture("templates/qwen2.5.jinja"), &prompt) else { return };
        assert!(error.to_string().contains(message), "{error}");
    }
}

/// The tools of the recorded conversations, and a prompt with them.
fn with_tools(template: &str) -> Option<(ChatTemplate, ChatPrompt)> {
    let Conversations { tools, .. } = serde_json::from_str(&fixture("conversations.json")).unwrap();
    Some((parsed(&fixture(template))?.unwrap(), hello().with_tools(tools)))
}

#[test]
fn calls_are_read_from_a_reply_and_from_its_beginning() {
    let Some((template, prompt)) = with_tools("templates/qwen2.5.jinja") else { return };
    let rendered = template.render(&prompt.with_parallel_tool_calls(true)).unwrap();
    let text = "Let me see.\n<tool_call>\n{\"name\": \"add\", \"arguments\": {\"a\": 1, \"b\": 2}}\n</tool_call>\n<tool_call>\n{\"name\": \"get_weather\", \"arguments\": {\"city\": \"Bern\"}}\n</tool_call>";
    let whole = rendered.parser.parse(text, true).unwrap();
    assert_eq!(whole.content.trim(), "Let me see.");
    let calls: Vec<(&str, serde_json::Value)> =
        whole.tool_calls.iter().map(|call| (call.name.as_str(), call.arguments_as().unwrap())).collect();
    assert_eq!(
        calls,
        [("add", serde_json::json!({"a": 1, "b": 2})), ("get_weather", serde_json::json!({"city": "Bern"}))]
    );
    // Whatever the place where it is cut: nothing that is read is taken back, but for a marker that is incomplete.
    let mut most = 0;
    for end in (0..text.len()).filter(|&end| text.is_char_boundary(end)) {
        let part = rendered.parser.parse(&text[..end], false).unwrap();
        assert!(part.tool_calls.len() >= most, "a call was taken back after {:?}", &text[..end]);
        most = part.tool_calls.len();
        for (part, call) in part.tool_calls.iter().zip(&whole.tool_calls) {
            assert!(call.arguments.starts_with(&part.arguments), "{:?} of {:?}", part.arguments, call.arguments);
        }
    }
    assert_eq!(most, 2);
}

#[test]
fn what_a_model_must_or_may_call_is_in_the_grammar() {
    let Some((template, prompt)) = with_tools("templates/qwen2.5.jinja") else { return };
    let grammar = |choice: ToolChoice| template.render(&prompt.clone().with_tool_choice(choice)).unwrap().grammar;
    let auto = grammar(ToolChoice::Auto).unwrap();
    assert!(auto.triggers.is_some_and(|triggers| !triggers.is_empty()));
    let required = grammar(ToolChoice::Required).unwrap();
    assert!(required.triggers.is_none() && required.gbnf.contains("add") && required.gbnf.contains("get_weather"));
    let named = grammar(ToolChoice::Named("add".to_owned())).unwrap();
    assert!(named.gbnf.contains("add") && !named.gbnf.contains("get_weather"));
    assert_eq!(grammar(ToolChoice::None), None);
}

#[test]
fn a_template_lets_all_calls_be_held_to_a_grammar_or_none_that_must_be_made() {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/chat/templates");
    let mut unmarked = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let Some((template, prompt)) = with_tools(&format!("templates/{name}")) else { return };
        let grammar =
            |choice| template.render(&prompt.clone().with_tool_choice(choice)).map(|rendered| rendered.grammar);
        match (grammar(ToolChoice::Auto), grammar(ToolChoice::Required)) {
            (Err(auto), Err(required)) => {
                assert_eq!((auto, required), (TemplateError::NoToolCalls, TemplateError::NoToolCalls), "{name}");
            }
            (Ok(auto), Ok(Some(required))) => {
                assert_eq!(required.triggers, None, "{name}");
                match auto {
                    Some(auto) => assert!(auto.triggers.is_some_and(|triggers| !triggers.is_empty()), "{name}"),
                    None => unmarked.push(name),
                }
            }
            other => panic!("{name}: {other:?}"),
        }
    }
    println!("calls without a marker, which a model may make unheld: {unmarked:?}");
}

#[test]
fn reasoning_is_split_off() {
    let Some(template) = parsed(&fixture("templates/qwen3.jinja")) else { return };
    let rendered = template.unwrap().render(&hello()).unwrap();
    let reply = rendered.parser.parse("<think>\nHm.\n</think>\n\nHi!", true).unwrap();
    assert_eq!((reply.reasoning.trim(), reply.content.as_str()), ("Hm.", "Hi!"));
    let begun = rendered.parser.parse("<think>\nHm", false).unwrap();
    assert_eq!((begun.reasoning.as_str(), begun.content.as_str()), ("Hm", ""));
}

#[test]
fn the_model_goes_on_where_the_last_message_ends() {
    let Some(template) = parsed(&fixture("templates/smollm2.jinja")) else { return };
    let messages = vec![Message::user("Hi"), Message::assistant("Once upon")];
    let prompt = ChatPrompt::new(messages).with_ending(PromptEnding::Continue);
    let rendered = template.unwrap().render(&prompt).unwrap();
    assert!(rendered.text.ends_with("<|im_start|>assistant\nOnce upon"), "{}", rendered.text);
    assert_eq!(rendered.parser.parse(" a time", true).unwrap().content, "Once upon a time");
}
