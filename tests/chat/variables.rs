//! Variables of a template, and what a template can express.

use gguf_loader::chat::{ChatPrompt, ChatTemplate, Message};
use serde_json::{Value, json};

use crate::{parsed, session::session, templates::recorded};

#[test]
fn a_variable_reaches_the_template_as_the_value_that_it_is() {
    let text = "{{ mood }}|{{ count + 1 }}|{% if not off %}on{% endif %}|{{ list | join('-') }}|{{ map.a.b }}|{{ nothing is none }}|\
                {{ unset is defined }}";
    let Some(template) = parsed(text) else { return };
    let prompt = ChatPrompt::new(vec![Message::user("Hello")])
        .with_argument("mood", "glad \"as\" can be\n")
        .with_argument("count", 41)
        .with_argument("off", false)
        .with_argument("list", vec![1, 2, 3])
        .with_argument("map", json!({"a": {"b": "deep"}}))
        .with_argument("nothing", Value::Null);
    let template = template.unwrap();
    assert_eq!(template.render(&prompt).unwrap().text, "glad \"as\" can be\n|42|on|1-2-3|deep|True|False");
    // The last value of a name is the one that it has.
    let again = prompt.with_argument("count", 1);
    assert!(template.render(&again).unwrap().text.contains("|2|"));
}

#[test]
fn a_session_hands_variables_on() {
    let Some(session) = session() else { return };
    let model = session.context().model();
    let source = model.tokenizer().unwrap().template_source("{{ mood }} {{ messages[0].content }}");
    let template = ChatTemplate::parse(&source).unwrap();
    let context = model.context(&Default::default()).unwrap();
    let mut session = gguf_loader::chat::ChatSession::with_template(context, template).unwrap();
    session.push(Message::user("Hello"));
    let options = crate::session::at_most(1).with_argument("mood", "Glad:");
    session.reply(&options, crate::session::on).unwrap();
    let held = model.tokenizer().unwrap().detokenize(session.context().tokens(0), true).unwrap();
    assert_eq!(String::from_utf8_lossy(&held), "Glad: Hello");
}

/// What jinja2 made of the conversations says it: whether what only a system message, a tool, a call has is in the prompt.
#[test]
fn abilities_are_those_that_the_recorded_prompts_show() {
    let mut checked = 0;
    for name in crate::templates::names() {
        let Some(template) = parsed(&crate::templates::fixture(&format!("templates/{name}.jinja"))) else { return };
        let abilities = template.unwrap().abilities();
        let shows = |conversation: &str, text: &str| recorded(&name, conversation).contains(text);
        assert_eq!(abilities.system_role, shows("system", "Answer in verse."), "{name}: system messages");
        assert_eq!(abilities.tools, shows("tools", "Says what the weather is like."), "{name}: tools");
        assert_eq!(abilities.tool_calls, shows("tool result", "Paris, France"), "{name}: calls");
        checked += 1;
    }
    assert_eq!(checked, 15);
}

#[test]
fn abilities_are_told_apart() {
    let message = "{% for m in messages %}{{ m.role }}: {{ m.content }}{% endfor %}";
    let without_system = "{% for m in messages %}{% if m.role == 'user' %}{{ m.content }}{% endif %}{% endfor %}";
    let with_tools = format!("{{% for t in tools %}}{{{{ t.function.name }}}}{{% endfor %}}{message}");
    let calls = |which: &str| {
        format!(
            "{with_tools}{{% for m in messages %}}{{% if m.tool_calls %}}{{% for c in m.tool_calls{which} %}}\
             {{{{ c.function.name }}}}{{{{ c.function.arguments | tojson }}}}{{% endfor %}}{{% endif %}}{{% endfor %}}"
        )
    };
    // System messages, tools, calls, several calls at once.
    let cases = [
        (without_system.to_owned(), [false, false, false, false]),
        (message.to_owned(), [true, false, false, false]),
        (with_tools.clone(), [true, true, false, false]),
        (calls("[:1]"), [true, true, true, false]),
        (calls(""), [true, true, true, true]),
    ];
    for (text, expected) in cases {
        let Some(template) = parsed(&text) else { return };
        let abilities = template.unwrap().abilities();
        let found = [abilities.system_role, abilities.tools, abilities.tool_calls, abilities.parallel_tool_calls];
        assert_eq!(found, expected, "{text}");
    }
}
