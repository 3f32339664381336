"""Renders tests/fixtures/chat with jinja2, by the rules of transformers, and writes what came of it to recorded.json.

    pip install jinja2==3.1.6
    python3 tools/record-chat-templates/record.py

The rules are those of `apply_chat_template`: a sandbox that trims blocks, loop controls, `raise_exception`, `strftime_now`,
and a `tojson` that escapes nothing and keeps the order of keys. Only `strftime_now` differs: the date must not end up in a
recording, so it writes its format as `<<%Y-%m-%d>>`, which the test replaces.
"""

import json
import pathlib

import jinja2
from jinja2.ext import loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment

FIXTURES = pathlib.Path(__file__).resolve().parents[2] / "tests" / "fixtures" / "chat"
SPECIAL = {"bos_token": "<s>", "eos_token": "</s>"}


def raise_exception(message):
    raise jinja2.exceptions.TemplateError(message)


def tojson(value, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def environment():
    env = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols])
    env.filters["tojson"] = tojson
    env.globals["raise_exception"] = raise_exception
    env.globals["strftime_now"] = lambda format: f"<<{format}>>"
    return env


def message(source, arguments_as_text):
    """A message as programs give it to transformers: calls in OpenAI's form, with their arguments as an object."""
    result = dict(source)
    if "tool_calls" in source:
        result["tool_calls"] = [
            {
                "type": "function",
                "id": call["id"],
                "function": {
                    "name": call["name"],
                    "arguments": call["arguments"] if arguments_as_text else json.loads(call["arguments"]),
                },
            }
            for call in source["tool_calls"]
        ]
    return result


def render(template, conversation, tools):
    def with_arguments(as_text):
        return template.render(
            messages=[message(source, as_text) for source in conversation["messages"]],
            tools=[{"type": "function", "function": tool} for tool in tools] if conversation.get("tools") else None,
            documents=None,
            add_generation_prompt=conversation.get("ending") != "last_message",
            enable_thinking=conversation.get("thinking", True),
            **conversation.get("arguments", {}),
            **SPECIAL,
        )

    try:
        return {"prompt": with_arguments(False)}
    except TypeError:
        # The template joins arguments with texts: it was written for arguments that are texts.
        return {"prompt": with_arguments(True)}
    except jinja2.exceptions.TemplateError as error:
        return {"error": str(error)}


def main():
    source = json.loads((FIXTURES / "conversations.json").read_text())
    recorded = []
    for path in sorted((FIXTURES / "templates").glob("*.jinja")):
        template = environment().from_string(path.read_text())
        for conversation in source["conversations"]:
            result = render(template, conversation, source["tools"])
            recorded.append({"template": path.stem, "conversation": conversation["name"], **result})
    (FIXTURES / "recorded.json").write_text(json.dumps(recorded, ensure_ascii=False, indent=1) + "\n")


main()
