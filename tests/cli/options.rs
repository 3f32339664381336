//! The options that say how tokens are chosen and what a context is made of: each reaches the engine, and says its range.

use std::path::{Path, PathBuf};

use gguf_loader::{
    Context, Model,
    adapter::ControlVector,
    backend::{CacheType, ContextOptions},
    generation::GenerateRequest,
    gguf::{Gguf, TensorType, Writer},
};

use crate::{
    assert_fails, json_of,
    models::{Folder, can_tokenize, tiny},
    program, run, stdout_of,
};

const PROMPT: &str = "the quick brown fox";

/// Log-probabilities of what is generated, in full: they tell one way to compute from another.
fn logprobs(model: &Path, options: &[&str]) -> Vec<f32> {
    let mut command = program();
    command.arg("run").arg(model).args(["--prompt", PROMPT, "-n", "4", "--ignore-end", "--logprobs", "0", "--json"]);
    let report = json_of(command.args(options).output().unwrap());
    let tokens = report["logprobs"].as_array().unwrap().iter();
    tokens.map(|token| token["logprob"].as_f64().unwrap() as f32).collect()
}

/// The same from the library.
fn expected(context: &mut Context) -> Vec<f32> {
    let request = GenerateRequest::new(PROMPT).with_max_tokens(4.try_into().unwrap()).with_stop_at_end(false);
    let completion = context.complete(request.with_logprobs(0)).unwrap();
    completion.logprobs.iter().map(|token| token.logprob).collect()
}

/// A control vector for the second block of the tiny model.
fn control_vector(folder: &Folder, name: &str, push: f32) -> PathBuf {
    let path = folder.path().join(name);
    let width = tiny().shape.n_embd;
    let numbers = (0..width).map(|at| if at % 3 == 0 { push } else { -0.5 * push });
    let mut writer = Writer::new();
    writer.set("general.architecture", "controlvector");
    let bytes: Vec<u8> = numbers.flat_map(f32::to_le_bytes).collect();
    writer.add_tensor("direction.1", &[width.into()], TensorType::F32, bytes).unwrap();
    writer.write_file(&path).unwrap();
    path
}

#[test]
fn control_vectors_are_added_with_their_scales() {
    let folder = Folder::new();
    let model = folder.model();
    if !can_tokenize(&model) {
        return;
    }
    let (one, other) = (control_vector(&folder, "one.gguf", 10.0), control_vector(&folder, "other.gguf", 7.0));
    let mut context = Model::load(&model).unwrap().context(&ContextOptions::default()).unwrap();
    let without = expected(&mut context);
    assert_eq!(logprobs(&model, &[]), without);
    let vectors = [ControlVector::load(&one).unwrap(), ControlVector::load(&other).unwrap()];
    context.set_control_vectors(&[(&vectors[0], 0.5), (&vectors[1], 1.0)], None).unwrap();
    let (half, whole) = (format!("{}=0.5", one.display()), other.display().to_string());
    let with = logprobs(&model, &["--control-vector", &half, "--control-vector", &whole]);
    assert_eq!(with, expected(&mut context));
    assert_ne!(with, without);

    let fails = |vector: &str, code, text| {
        let output = program().arg("run").arg(&model).args(["-p", "a", "--control-vector", vector]).output().unwrap();
        assert_fails(&output, code, &[text]);
    };
    fails("nowhere.gguf", 3, "nowhere.gguf");
    fails(model.to_str().unwrap(), 4, "does not fit this model");
    fails(&format!("{}=nan", one.display()), 2, "NaN");
}

#[test]
fn the_cache_has_the_type_and_attention_the_form_that_are_asked_for() {
    let folder = Folder::new();
    let model = folder.model();
    if !can_tokenize(&model) {
        return;
    }
    let loaded = Model::load(&model).unwrap();
    let of = |change: fn(&mut ContextOptions)| {
        let mut options = ContextOptions::default();
        change(&mut options);
        expected(&mut loaded.context(&options).unwrap())
    };
    type Case = (&'static [&'static str], fn(&mut ContextOptions));
    let cases: [Case; 4] = [
        (&["--cache-type", "q4_0"], |options| {
            (options.keys, options.values) = (Some(CacheType::Q4_0), Some(CacheType::Q4_0));
        }),
        (&["--cache-type", "F32"], |options| {
            (options.keys, options.values) = (Some(CacheType::F32), Some(CacheType::F32));
        }),
        (&["--flash-attention", "on"], |options| options.flash_attention = Some(true)),
        (&["--flash-attention", "off"], |options| options.flash_attention = Some(false)),
    ];
    let found = cases.map(|(arguments, change)| {
        let found = logprobs(&model, arguments);
        assert_eq!(found, of(change), "{arguments:?}");
        found
    });
    // Each is rounded in a way of its own.
    assert!(found[0] != found[1] && found[0] != found[3] && found[2] != found[3], "{found:?}");

    let fails = |arguments: &[&str], code, text| {
        let output = program().arg("run").arg(&model).args(["-p", "a"]).args(arguments).output().unwrap();
        assert_fails(&output, code, &[text]);
    };
    fails(&["--cache-type", "q9"], 2, "no type of a KV cache");
    fails(&["--flash-attention", "perhaps"], 2, "--flash-attention");
    // llama.cpp has no product for it.
    fails(&["--cache-type", "q4_0", "--flash-attention", "off"], 1, "refused the context");
}

/// What `--help` says of an option, in one line.
fn help_of(help: &str, option: &str) -> String {
    let words: Vec<&str> = help.split_whitespace().collect();
    let begin = words.iter().position(|word| *word == option).unwrap_or_else(|| panic!("{option} is not in {help}"));
    let end = words[begin + 1..].iter().position(|word| word.starts_with("--") || *word == "Examples:");
    words[begin..][..end.unwrap() + 1].join(" ")
}

#[test]
fn help_has_the_range_of_each_number_that_has_one() {
    let folder = Folder::new();
    let model = folder.model();
    if !can_tokenize(&model) {
        return;
    }
    let cases = [
        ("--temperature", "-1", ""),
        ("--dynatemp-range", "-1", ""),
        ("--dynatemp-exponent", "0", "--dynatemp-range=0.5"),
        ("--top-p", "1.5", ""),
        ("--min-p", "-0.5", ""),
        ("--typical-p", "1.5", ""),
        ("--top-n-sigma", "0", ""),
        ("--xtc-probability", "2", ""),
        ("--xtc-threshold", "2", "--xtc-probability=0.5"),
        ("--repeat-penalty", "0", ""),
        ("--frequency-penalty", "inf", ""),
        ("--presence-penalty", "inf", ""),
        ("--dry-multiplier", "-1", ""),
        ("--dry-base", "0.5", "--dry-multiplier=1"),
        ("--dry-allowed-length", "0", "--dry-multiplier=1"),
        ("--mirostat-tau", "0", "--mirostat=2"),
        ("--mirostat-eta", "2", "--mirostat=2"),
        ("--adaptive-target", "2", ""),
        ("--adaptive-decay", "1", "--adaptive-target=0.5"),
    ];
    let help = String::from_utf8(stdout_of(run(["run", "--help"]))).unwrap();
    for (option, beyond, with) in cases {
        let given = format!("{option}={beyond}");
        let more = Some(with).filter(|with| !with.is_empty());
        let output = program().arg("run").arg(&model).args(["-p", "a", &given]).args(more).output().unwrap();
        assert_fails(&output, 2, &["it must be ", "`gguf-loader run --help`"]);
        let stderr = String::from_utf8(output.stderr).unwrap();
        let range = stderr.lines().find_map(|line| line.split_once("it must be ")).unwrap().1;
        let said = help_of(&help, option);
        assert!(said.contains(range), "{range} is not in `{said}`");
    }
}

/// The model with a norm that makes every logit no number.
fn without_numbers(folder: &Folder) -> PathBuf {
    let gguf = Gguf::open(folder.model()).unwrap();
    let mut writer = Writer::new();
    gguf.metadata().iter().for_each(|(key, value)| _ = writer.set(key, value.clone()));
    for tensor in gguf.tensors() {
        let mut bytes = gguf.read_tensor(tensor).unwrap();
        if tensor.name == "output_norm.weight" {
            bytes.as_chunks_mut().0.iter_mut().for_each(|number| *number = f32::NAN.to_le_bytes());
        }
        writer.add_tensor(&tensor.name, &tensor.shape, tensor.tensor_type, bytes).unwrap();
    }
    let path = folder.path().join("broken.gguf");
    writer.write_file(&path).unwrap();
    path
}

#[test]
fn logits_that_are_no_numbers_are_the_model_s_fault_with_a_grammar_too() {
    let folder = Folder::new();
    let model = without_numbers(&folder);
    if !can_tokenize(&model) {
        return;
    }
    for more in [&[][..], &["--regex", "[a-z]+"], &["--temp", "1"]] {
        let output = program().arg("run").arg(&model).args(["-p", "a"]).args(more).output().unwrap();
        assert_fails(&output, 4, &["not numbers", "may be damaged"]);
    }
}
