//! What is generated under a grammar fits it: random schemas, random weights, a temperature of 2.

use std::{path::Path, sync::OnceLock};

use gguf_loader::{
    Context, Model,
    backend::ContextOptions,
    generation::{FinishReason, GenerateError, GenerateRequest, TypedError},
    gguf::synth::{SyntheticModel, Tokenizer},
    grammar::{Grammar, SchemaError},
    sampling::{Pick, SamplerStep, Sampling},
};
use proptest::{
    prelude::*,
    test_runner::{Config, TestRunner},
};
use serde_json::{Map, Value, json};

/// A model with random weights that every backend loads in no time; `None` when no backend reads its vocabulary.
fn model() -> Option<&'static Model> {
    static MODEL: OnceLock<Option<Model>> = OnceLock::new();
    let load = || {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("random.gguf");
        SyntheticModel::tiny().with_tokenizer(Tokenizer::BytePair).write_file(&path).unwrap();
        load_with_tokenizer(&path)
    };
    MODEL.get_or_init(load).as_ref()
}

pub(crate) fn load_with_tokenizer(path: &Path) -> Option<Model> {
    let model = Model::load(path).unwrap();
    if model.tokenizer().is_err() {
        println!("skipped: no compiled backend reads vocabularies");
        return None;
    }
    Some(model)
}

/// Generates until the grammar has enough, at a temperature of 2; `None` after `most` tokens.
fn generate(context: &mut Context, grammar: &Grammar, seed: u64, most: u32) -> Option<String> {
    let hot = Sampling::new(Pick::Distribution).then(SamplerStep::Temperature { temperature: 2.0 });
    let bos = context.model().tokenizer().unwrap().special().bos.expect("the synthetic vocabulary has one");
    let request = GenerateRequest::new(vec![bos]).with_sampling(hot.with_seed(seed)).with_grammar(grammar.clone());
    let completion = context.complete(request.with_max_tokens(most.try_into().unwrap())).unwrap();
    (completion.finish == FinishReason::End).then_some(completion.text)
}

/// Schemas that only finite texts fit, so that chance comes to an end.
fn schema() -> impl Strategy<Value = Value> {
    let name = proptest::sample::select(vec!["a", "name", "x-y", "größe", "a\"b", "tab\t", "/~", "🦙", ""]);
    let constant = prop_oneof![
        Just(json!(null)),
        any::<bool>().prop_map(Value::from),
        any::<i32>().prop_map(Value::from),
        "[ -~ä\\n]{0,6}".prop_map(Value::from),
        Just(json!({"a": [1, 2.5, "é\u{1}"]})),
    ];
    let bounds = (any::<i64>(), any::<i64>()).prop_map(|(a, b)| (a >> (b & 63), b >> (a & 63)));
    let leaf = prop_oneof![
        Just(json!({"type": "null"})),
        Just(json!({"type": "boolean"})),
        Just(json!({"type": "number"})),
        Just(json!({"type": "integer"})),
        Just(json!({"type": ["integer", "null"]})),
        bounds.clone().prop_map(|(a, b)| json!({"type": "integer", "minimum": a.min(b), "maximum": a.max(b)})),
        bounds.clone().prop_map(|(a, _)| json!({"type": "integer", "exclusiveMinimum": a >> 1})),
        bounds.prop_map(|(a, b)| {
            let (a, b) = (a as f64 / 7.0, b as f64 / 7.0);
            json!({"type": "number", "minimum": a.min(b), "exclusiveMaximum": a.max(b) + 3.0})
        }),
        (0..4_u32, 0..9_u32).prop_map(|(a, b)| json!({"type": "string", "minLength": a, "maxLength": a + b})),
        proptest::sample::select(vec![
            "^[a-z]{1,8}$",
            r"^\d+(\.\d{2})?$",
            r#"^(?:["\\]{2}|x)$"#,
            "^(?:ab|[^a-z]){0,3}$"
        ])
        .prop_map(|pattern| json!({"type": "string", "pattern": pattern})),
        proptest::sample::select(vec!["date", "time", "date-time", "uuid"])
            .prop_map(|format| json!({"type": "string", "format": format})),
        constant.clone().prop_map(|value| json!({"const": value})),
        proptest::collection::vec(constant, 1..4).prop_map(|values| json!({"enum": values})),
    ];
    leaf.prop_recursive(3, 16, 4, move |inner| {
        let members = proptest::collection::vec((name.clone(), inner.clone(), any::<bool>()), 0..5);
        let object = members.prop_map(|members| {
            let (mut properties, mut required) = (Map::new(), Vec::new());
            for (name, schema, is_required) in members {
                if properties.insert(name.to_owned(), schema).is_none() && is_required {
                    required.push(name);
                }
            }
            json!({"type": "object", "properties": properties, "required": required, "additionalProperties": false})
        });
        prop_oneof![
            3 => object,
            1 => (inner.clone(), 0..3_u32, 0..4_u32)
                .prop_map(|(items, a, b)| json!({"type": "array", "items": items, "minItems": a, "maxItems": a + b})),
            1 => proptest::collection::vec(inner.clone(), 1..4)
                .prop_map(|items| json!({"type": "array", "prefixItems": items, "items": false})),
            1 => proptest::collection::vec(inner.clone(), 1..4).prop_map(|schemas| json!({"anyOf": schemas})),
            1 => (inner.clone(), inner.clone()).prop_map(|(left, right)| {
                // Two objects that do not name the same property, as one.
                let part = |name: &str, schema| json!({"properties": {name: schema}, "required": [name]});
                json!({"type": "object", "allOf": [part("left", left), part("right", right)]})
            }),
            1 => inner.prop_map(|schema| json!({"$defs": {"it": schema}, "type": "array", "items": {"$ref": "#/$defs/it"},
                "maxItems": 2})),
        ]
    })
}

/// 60 schemas; with `PROPTEST_CASES=1000` as many as that, which takes a minute.
#[test]
fn whatever_is_generated_under_a_random_schema_parses_and_validates() {
    let Some(model) = model() else { return };
    let cases = std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(60);
    let mut context = model.context(&ContextOptions::default()).unwrap();
    let mut runner =
        TestRunner::new(Config { cases, max_shrink_iters: 100, failure_persistence: None, ..Config::default() });
    let context = std::cell::RefCell::new(&mut context);
    let result = runner.run(&(schema(), any::<u64>()), |(schema, seed)| {
        // A reference within what was put into another schema does not begin at its root any more.
        let grammar = match Grammar::json_schema(&schema) {
            Err(SchemaError::Reference { .. }) => return Err(TestCaseError::reject("nested $defs")),
            grammar => grammar.map_err(|error| TestCaseError::fail(error.to_string()))?,
        };
        let text = generate(&mut context.borrow_mut(), &grammar, seed, 1900);
        let text = text.ok_or_else(|| TestCaseError::fail("1900 tokens and no end"))?;
        let value: Value =
            serde_json::from_str(&text).map_err(|error| TestCaseError::fail(format!("{error}: {text}")))?;
        // The same where nothing can ever stand, in the items of a list of none: no grammar needs to look there.
        let validator =
            jsonschema::validator_for(&schema).map_err(|_| TestCaseError::reject("nested $defs, out of reach"))?;
        prop_assert!(validator.is_valid(&value), "{text} does not fit {schema}");
        Ok(())
    });
    if let Err(error) = result {
        panic!("{error}");
    }
}

#[test]
fn bounds_beyond_what_a_double_counts_exactly_are_kept() {
    let Some(model) = model() else { return };
    let mut context = model.context(&ContextOptions::default()).unwrap();
    let (far, farther) = (1_i64 << 53, (1_i64 << 60) + 1);
    let schemas = [
        json!({"type": "integer", "exclusiveMinimum": far - 1}),
        json!({"type": "integer", "maximum": -far}),
        json!({"type": "integer", "minimum": farther, "maximum": farther + 20}),
        json!({"type": "integer", "exclusiveMinimum": u64::MAX - 1}),
        json!({"type": "number", "minimum": 1e17, "exclusiveMaximum": 1e17 + 64.0}),
        json!({"type": "number", "exclusiveMinimum": farther}),
        json!({"type": "number", "exclusiveMaximum": -1e18}),
        json!({"type": "number", "minimum": -2e15, "maximum": 2e15}),
        json!({"type": "number", "minimum": -3, "maximum": -3}),
        json!({"type": "number", "exclusiveMinimum": -1, "exclusiveMaximum": 1}),
    ];
    for schema in schemas {
        let grammar = Grammar::json_schema(&schema).unwrap_or_else(|error| panic!("{schema}: {error}"));
        let validator = jsonschema::validator_for(&schema).unwrap();
        for seed in 0..10 {
            let text = generate(&mut context, &grammar, seed, 100).unwrap();
            assert!(validator.is_valid(&serde_json::from_str(&text).unwrap()), "{text} does not fit {schema}");
        }
    }
    let impossible = json!({"type": "integer", "minimum": 1e30});
    assert!(matches!(Grammar::json_schema(&impossible), Err(SchemaError::Impossible(_))));
}

#[test]
fn what_must_fit_several_schemas_fits_them_all() {
    let Some(model) = model() else { return };
    let mut context = model.context(&ContextOptions::default()).unwrap();
    let closed =
        |properties: Value, required: Value| json!({"type": "object", "properties": properties, "required": required});
    let schemas = [
        json!({"allOf": [{"type": "integer", "minimum": 3, "maximum": 40}, {"type": "number", "minimum": 1, "maximum": 11.5}]}),
        json!({"allOf": [{"type": "string", "minLength": 2}, {"maxLength": 3}, {"type": ["string", "null"]}]}),
        json!({"allOf": [{"enum": ["a", "b", 1]}, {"type": "string"}, {"enum": ["b", 1, "c"]}]}),
        json!({"allOf": [{"type": "array", "items": {"type": "integer"}, "maxItems": 3}, {"items": {"minimum": 7, "maximum": 9}}]}),
        json!({
            "$defs": {"named": closed(json!({"name": {"type": "string", "maxLength": 4}}), json!(["name"]))},
            "$ref": "#/$defs/named",
            "properties": {"name": {"minLength": 1}, "age": {"type": "integer", "minimum": 0, "maximum": 99}},
            "required": ["age"],
        }),
        json!({"type": "object", "properties": {"kind": {"enum": [1, 2]}, "a": {"type": "boolean"}, "b": {"type": "null"}},
        "oneOf": [
            {"properties": {"kind": {"const": 1}}, "required": ["kind", "a"], "type": "object"},
            {"properties": {"kind": {"const": 2}}, "required": ["kind", "b"], "type": "object"},
        ]}),
        json!({"allOf": [
            {"properties": {"x": {"type": "boolean"}, "y": {"type": "null"}}, "additionalProperties": false},
            closed(json!({"x": {"enum": [true, 5]}}), json!(["x"])),
        ]}),
        // Of nine combinations of these choices two are possible.
        json!({"allOf": [
            {"anyOf": [{"type": "integer", "minimum": 3, "maximum": 50}, {"type": "string", "maxLength": 3}, {"type": "null"}]},
            {"oneOf": [{"type": "integer", "maximum": 9}, {"type": "boolean"}, {"type": "string", "minLength": 2}]},
        ]}),
        json!({
            "type": "object",
            "properties": {"kind": {"enum": [1, 2]}, "a": {"type": "boolean"}, "b": {"type": "null"}},
            "oneOf": [
                {"type": "object", "properties": {"kind": {"const": 1}}, "required": ["kind"]},
                {"type": "object", "properties": {"kind": {"const": 2}}, "required": ["kind"]},
            ],
            "anyOf": [{"required": ["a"]}, {"required": ["b"]}],
            "additionalProperties": false,
        }),
    ];
    for schema in schemas {
        let grammar = Grammar::json_schema(&schema).unwrap_or_else(|error| panic!("{schema}: {error}"));
        let validator = jsonschema::validator_for(&schema).unwrap();
        for seed in 0..12 {
            let text = generate(&mut context, &grammar, seed, 400).unwrap();
            assert!(validator.is_valid(&serde_json::from_str(&text).unwrap()), "{text} does not fit {schema}");
        }
    }
}

/// A list of lists, by schemas that refer to each other and are merged.
#[test]
fn schemas_that_are_merged_may_refer_to_themselves() {
    let node = json!({
        "$defs": {
            "node": {"allOf": [{"$ref": "#/$defs/base"}, {"properties": {"next": {"$ref": "#/$defs/node"}}}]},
            "base": {"type": "object", "properties": {"next": {"type": ["object", "null"]}, "x": {"type": "null"}}},
        },
        "$ref": "#/$defs/node",
    });
    assert!(Grammar::json_schema(&node).is_ok());
    let endless = json!({"allOf": [{"type": "object"}, {"properties": {"a": {"$ref": "#"}}, "required": ["a"]}]});
    assert!(matches!(Grammar::json_schema(&endless), Err(SchemaError::Impossible(_))));
}

#[test]
fn a_schema_of_thousands_of_properties_is_a_grammar_in_no_time() {
    for required in [false, true] {
        let names = (0..4000).map(|number| format!("property {number}"));
        let properties: Map<String, Value> = names.map(|name| (name, json!({"type": ["integer", "null"]}))).collect();
        let required: Vec<String> = properties.keys().filter(|_| required).cloned().collect();
        let schema =
            json!({"type": "object", "properties": properties, "required": required, "additionalProperties": false});
        let begin = std::time::Instant::now();
        let grammar = Grammar::json_schema(&schema).unwrap();
        let time = begin.elapsed();
        println!("{} rules in {time:?}", grammar.as_gbnf().lines().count());
        // It takes tens of milliseconds; in cubic time it took minutes.
        assert!(time.as_secs() < 5, "{time:?}");
    }
}

#[test]
fn a_plain_prompt_gives_a_value_of_a_type() {
    #[derive(Debug, serde::Deserialize, schemars::JsonSchema)]
    struct Point {
        x: u8,
        #[serde(rename = "y")]
        up: Option<i8>,
    }
    let Some(model) = model() else { return };
    let mut context = model.context(&ContextOptions::default()).unwrap();
    let bos = model.tokenizer().unwrap().special().bos.unwrap();
    let request = |seed: u64, most: u32| {
        let hot = Sampling::new(Pick::Distribution).then(SamplerStep::Temperature { temperature: 2.0 });
        GenerateRequest::new(vec![bos]).with_sampling(hot.with_seed(seed)).with_max_tokens(most.try_into().unwrap())
    };
    let points: Vec<Point> =
        (0..20).map(|seed| context.generate_as(request(seed, 400).with_echo(true)).unwrap()).collect();
    assert!(points.iter().any(|point| point.x != points[0].x) && points.iter().any(|point| point.up.is_some()));
    let cut = context.generate_as::<Point>(request(1, 2));
    assert!(matches!(cut, Err(TypedError::Unfinished(FinishReason::MaxTokens))), "{cut:?}");
    let set = context.generate_as::<std::collections::HashSet<u8>>(request(1, 2));
    assert!(matches!(set, Err(TypedError::Schema(_))), "{set:?}");
    let empty = context.generate_as::<Point>(GenerateRequest::new(Vec::new()));
    assert!(matches!(empty, Err(TypedError::Generate(GenerateError::EmptyPrompt))), "{empty:?}");
}

#[test]
fn whatever_is_generated_under_a_regular_expression_matches_it() {
    let Some(model) = model() else { return };
    let mut context = model.context(&ContextOptions::default()).unwrap();
    type Fits = dyn Fn(&str) -> bool;
    let cases: [(&str, &Fits); 3] = [
        (r"\d{3}-[a-f]+?x{0,3}$", &|text| {
            let (digits, rest) = text.split_once('-').unwrap_or_default();
            digits.len() == 3
                && digits.bytes().all(|digit| digit.is_ascii_digit())
                && rest.trim_end_matches('x').bytes().all(|letter| (b'a'..=b'f').contains(&letter))
        }),
        ("^(yes|no|ünklar)$", &|text| ["yes", "no", "ünklar"].contains(&text)),
        (r#"["\\\n]{4}"#, &|text| text.len() == 4 && text.chars().all(|c| "\"\\\n".contains(c))),
    ];
    for (pattern, fits) in cases {
        for seed in 0..20 {
            let text = generate(&mut context, &Grammar::regex(pattern).unwrap(), seed, 1900).unwrap();
            assert!(fits(&text), "{text:?} does not match {pattern}");
        }
    }
}

#[test]
fn what_no_grammar_can_keep_is_an_error_that_names_it() {
    let unsupported = |pointer: &str, keyword: &str| SchemaError::Unsupported {
        pointer: pointer.to_owned(),
        keyword: keyword.to_owned(),
    };
    let impossible = |pointer: &str| SchemaError::Impossible(pointer.to_owned());
    let node = json!({"$defs": {"node": {"type": "object", "properties": {"next": {"$ref": "#/$defs/node"}},
        "required": ["next"]}}, "$ref": "#/$defs/node"});
    let overlapping = json!({"oneOf": [{"type": "integer"}, {"type": "number"}]});
    let cases = [
        (json!({"type": "array", "uniqueItems": true}), unsupported("", "uniqueItems")),
        (json!({"properties": {"a": {"type": "string", "not": {}}}}), unsupported("/properties/a", "not")),
        (json!({"type": "integer", "multipleOf": 3}), unsupported("", "multipleOf")),
        (overlapping, unsupported("/oneOf", "oneOf with schemas that one value may fit")),
        (node, impossible("")),
        (json!({"$ref": "#"}), impossible("")),
        (json!({"type": "integer", "minimum": 3, "maximum": 2}), impossible("")),
        (json!({"type": "array", "items": false, "minItems": 1}), impossible("/items")),
        (json!(false), impossible("")),
        (json!({"anyOf": [{"type": "null", "enum": [1]}, false]}), impossible("/anyOf")),
        (json!([1]), SchemaError::Invalid { pointer: String::new(), expected: "an object or a boolean" }),
        (
            json!({"items": {"$ref": "other.json#/a"}}),
            SchemaError::Reference { pointer: "/items/$ref".to_owned(), reference: "other.json#/a".to_owned() },
        ),
    ];
    for (schema, error) in cases {
        assert_eq!(Grammar::json_schema(&schema), Err(error), "{schema}");
    }
    // Two to the power of twelve combinations.
    let choices =
        (0..12).map(|bit| json!({"anyOf": [{"required": [format!("a{bit}")]}, {"required": [format!("b{bit}")]}]}));
    let many = json!({"type": "object", "allOf": choices.collect::<Vec<_>>()});
    assert!(matches!(Grammar::json_schema(&many), Err(SchemaError::Unsupported { .. })));
    let mut deep = json!({});
    for _ in 0..1000 {
        deep = json!({"items": deep});
    }
    assert_eq!(Grammar::json_schema(&deep), Err(SchemaError::Depth));
    // Taken apart by hand: to drop it would recurse as deep.
    while let Some(inner) = deep.get_mut("items").map(Value::take) {
        deep = inner;
    }
}

#[test]
fn a_schema_may_refer_to_itself_where_an_end_is_possible() {
    let Some(model) = model() else { return };
    let tree = json!({"type": "object", "properties": {"leaf": {"type": "boolean"}, "left": {"$ref": "#"},
        "right": {"$ref": "#"}}, "required": ["leaf"], "additionalProperties": false});
    let grammar = Grammar::json_schema(&tree).unwrap();
    let validator = jsonschema::validator_for(&tree).unwrap();
    let mut context = model.context(&ContextOptions::default()).unwrap();
    // Chance may go deeper and deeper: most trees end.
    let texts: Vec<String> = (0..20).filter_map(|seed| generate(&mut context, &grammar, seed, 1000)).collect();
    assert!(texts.len() >= 5, "only {} of 20 came to an end", texts.len());
    for text in texts {
        assert!(validator.is_valid(&serde_json::from_str(&text).unwrap()), "{text}");
    }
}
