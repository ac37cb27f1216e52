//! Chat templates against transformers (`golden/template.py`), and templates that mean harm.

use std::fs;

use edgethink_model::{ChatTemplate, Message, RenderOptions, TemplateError};
use edgethink_testkit::golden_dir;
use serde_json::{Map, Value, json};

fn special() -> Map<String, Value> {
    json!({ "bos_token": "<s>", "eos_token": "</s>" })
        .as_object()
        .unwrap()
        .clone()
}

fn options_of(case: &Value) -> RenderOptions {
    let mut extra = case["options"].as_object().unwrap().clone();
    let add_generation_prompt = extra.remove("add_generation_prompt") == Some(Value::Bool(true));
    RenderOptions {
        add_generation_prompt,
        extra,
    }
}

#[test]
fn renders_what_transformers_renders() {
    let text = fs::read_to_string(golden_dir().join("template.json")).unwrap();
    let cases: Vec<Value> = serde_json::from_str(&text).unwrap();
    assert_eq!(cases.len(), 13);
    for case in cases {
        let name = case["name"].as_str().unwrap();
        let messages: Vec<Message> = serde_json::from_value(case["messages"].clone()).unwrap();
        let template = ChatTemplate::new(case["template"].as_str().unwrap(), special()).unwrap();
        let got = template.render(&messages, &options_of(&case));
        match case["text"].as_str() {
            Some(want) => assert_eq!(got.unwrap(), want, "{name}"),
            None => match got {
                Err(TemplateError::Refused(message)) => {
                    assert_eq!(message, case["refused"].as_str().unwrap(), "{name}");
                }
                other => panic!("{name}: {other:?}"),
            },
        }
    }
}

#[test]
fn the_generation_prompt_is_what_it_adds() {
    let chatml = ChatTemplate::new(edgethink_testkit::CHAT_TEMPLATE, Map::new()).unwrap();
    assert_eq!(
        chatml.generation_prompt().unwrap(),
        "<|im_start|>assistant\n"
    );
    let extra = json!({ "enable_thinking": false });
    let off = chatml.generation_prompt_with(extra.as_object().unwrap());
    assert_eq!(
        off.unwrap(),
        "<|im_start|>assistant\n<think>\n\n</think>\n\n"
    );
    let none = ChatTemplate::new("{{ messages[0].content }}", Map::new()).unwrap();
    assert_eq!(none.generation_prompt().unwrap(), "");
}

#[test]
fn today_is_a_date() {
    let template = ChatTemplate::new("{{ strftime_now('%d %b %Y') }}", Map::new()).unwrap();
    let text = template.render(&[], &RenderOptions::default()).unwrap();
    let parts: Vec<&str> = text.split(' ').collect();
    assert_eq!(parts.len(), 3, "{text}");
    assert!(parts[0].parse::<u32>().unwrap() <= 31 && parts[2].parse::<u32>().unwrap() >= 2024);
}

#[test]
fn templates_that_mean_harm_are_stopped() {
    let loops =
        "{% for a in range(9999) %}{% for b in range(9999) %}{{ a * b }}{% endfor %}{% endfor %}";
    let growth = "{% set ns = namespace(x='ab') %}{% for i in range(99) %}{% set ns.x = ns.x ~ ns.x %}{% endfor %}";
    let nesting = "{% set ns = namespace(x=[]) %}{% for i in range(9000) %}{% set ns.x = [ns.x] %}{% endfor %}{{ ns.x | tojson }}";
    let json = "{% set ns = namespace(x=['a' * 1000000]) %}{% for i in range(9000) %}{% set y = ns.x | tojson %}{% endfor %}";
    let recursion = "{% macro f(n) %}{{ f(n + 1) }}{% endmacro %}{{ f(0) }}";
    for source in [
        loops,
        growth,
        nesting,
        json,
        recursion,
        "{{ 'x' * 999999999999 }}",
        "{{ range(999999999999) | list }}",
        "{% include 'file' %}",
        "{{ messages.__class__.__mro__ }}",
        "{{ 1 / 0 }}",
    ] {
        let template = ChatTemplate::new(source, Map::new()).unwrap();
        let result = template.render(&[Message::new("user", "x")], &RenderOptions::default());
        assert!(
            matches!(result, Err(TemplateError::Run(_))),
            "{source}: {result:?}"
        );
    }
    // Found by the fuzz test: `{%}` was taken for a whole tag.
    for source in [
        "{% if %}",
        "{%}",
        "{{",
        "{% for x in y %}",
        &"(".repeat(100_000),
    ] {
        // A bracket that is not in a tag is text.
        let compiled = ChatTemplate::new(source, Map::new());
        let plain = !source.contains('{');
        assert_eq!(compiled.is_ok(), plain, "{compiled:?}");
    }
    let deep = format!("{{{{ {}1{} }}}}", "(".repeat(50_000), ")".repeat(50_000));
    assert!(matches!(
        ChatTemplate::new(&deep, Map::new()),
        Err(TemplateError::Syntax(_))
    ));
    let long = "x".repeat((1 << 20) + 1);
    assert!(matches!(
        ChatTemplate::new(&long, Map::new()),
        Err(TemplateError::TooLong { .. })
    ));
}

/// Work is charged for by the byte, so a long chat must not look like an attack.
#[test]
fn a_long_chat_is_no_harm() {
    let template = ChatTemplate::new(edgethink_testkit::CHAT_TEMPLATE, Map::new()).unwrap();
    let messages: Vec<Message> = (0..2000)
        .map(|i| Message::new(["user", "assistant"][i % 2], "some words ".repeat(100)))
        .collect();
    let text = template
        .render(&messages, &RenderOptions::default())
        .unwrap();
    assert!(text.len() > 2_200_000);
}
