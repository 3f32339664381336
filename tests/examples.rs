//! The examples on SmolLM2: each runs, and prints what it is about.
#![cfg(all(feature = "cpu", feature = "synth", feature = "async"))]
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test may panic and says why it does nothing")]

use std::{
    path::{Path, PathBuf},
    process::{Command, Output},
};

use gguf_loader::gguf::{Gguf, TensorType, Writer, synth::SyntheticModel};

/// The program that cargo has built of an example, beside the tests.
fn example(name: &str) -> Command {
    let test = std::env::current_exe().unwrap();
    let program = test.ancestors().nth(2).unwrap().join("examples").join(name);
    assert!(program.is_file(), "{} is built with the tests", program.display());
    Command::new(program)
}

fn model() -> Option<PathBuf> {
    let path = std::env::var_os("GGUF_LOADER_TEST_MODEL").map(PathBuf::from).filter(|path| path.is_file());
    if path.is_none() {
        println!("skipped: GGUF_LOADER_TEST_MODEL names no file");
    }
    path
}

/// What an example prints.
fn printed(name: &str, arguments: &[&str]) -> Option<String> {
    let Output { status, stdout, stderr } = example(name).arg(model()?).args(arguments).output().unwrap();
    let stderr = String::from_utf8_lossy(&stderr);
    assert!(status.success(), "{name}: {status}: {stderr}");
    Some(String::from_utf8(stdout).unwrap())
}

#[test]
fn generate() {
    let Some(text) = printed("generate", &["The capital of France is"]) else { return };
    assert!(text.contains("Paris"), "{text}");
}

#[test]
fn sampling() {
    let Some(text) = printed("sampling", &["Once upon a time"]) else { return };
    assert_eq!(text.lines().count(), 5, "{text}");
    let (_, without) = text.lines().last().unwrap().split_once(':').unwrap();
    assert!(without.len() > 20 && !without.contains(['e', 'E']), "{without}");
}

#[test]
fn state() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("beginning.state");
    let Some(first) = printed("state", &[file.to_str().unwrap()]) else { return };
    let again = printed("state", &[file.to_str().unwrap()]).unwrap();
    let turns = |text: &str| text.lines().skip(1).map(str::to_owned).collect::<Vec<_>>();
    assert!(first.contains(" tokens in ") && again.contains(" tokens from "), "{first}{again}");
    assert_eq!(turns(&first), turns(&again));
    assert_ne!(turns(&first)[0], turns(&first)[1]);
}

/// Random numbers from -0.5 to 0.5, in F32; others each time.
fn noise() -> impl FnMut(u64) -> Vec<u8> {
    let mut seed = 1_u32;
    move |count| {
        let numbers = (0..count).map(|_| {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (seed >> 8) as f32 / (1 << 24) as f32 - 0.5
        });
        numbers.flat_map(|number| number.to_le_bytes()).collect()
    }
}

/// An adapter for the model's last block: random numbers, large enough to change what it says.
fn write_adapter(model: &Path, path: &Path) {
    const RANK: u64 = 4;
    let mut noise = noise();
    let mut writer = Writer::new();
    writer.set("general.type", "adapter").set("general.architecture", "llama").set("adapter.type", "lora");
    let model = Gguf::open(model).unwrap();
    let name = "blk.29.ffn_down.weight";
    let shape = &model.tensor(name).unwrap().shape;
    for (half, shape) in [("a", [shape[0], RANK]), ("b", [RANK, shape[1]])] {
        let numbers = noise(shape[0] * shape[1]);
        writer.add_tensor(format!("{name}.lora_{half}"), &shape, TensorType::F32, numbers).unwrap();
    }
    writer.write_file(path).unwrap();
}

#[test]
fn adapters() {
    let Some(model) = model() else { return };
    let folder = tempfile::tempdir().unwrap();
    let adapter = folder.path().join("adapter.gguf");
    write_adapter(&model, &adapter);
    let Some(text) = printed("adapters", &[adapter.to_str().unwrap(), "The capital of France is"]) else { return };
    let texts: Vec<_> = text.lines().map(|line| line.split_once(": ").unwrap().1).collect();
    let [without, _, applied, merged] = texts[..] else { panic!("{text}") };
    assert!(without.contains("Paris"), "{text}");
    assert_ne!(without, applied, "{text}");
    // The merged matrix is in Q8_0 where the model had Q4_1 and the adapter F32 beside it: not equal to the bit.
    assert_ne!(without, merged, "{text}");
}

#[test]
fn control() {
    let Some(model) = model() else { return };
    let folder = tempfile::tempdir().unwrap();
    let vector = folder.path().join("vector.gguf");
    let mut writer = Writer::new();
    writer.set("general.architecture", "controlvector");
    let (width, mut noise) = (Gguf::open(&model).unwrap().tensor("output_norm.weight").unwrap().shape[0], noise());
    for block in 10..20 {
        writer.add_tensor(format!("direction.{block}"), &[width], TensorType::F32, noise(width)).unwrap();
    }
    writer.write_file(&vector).unwrap();
    let Some(text) = printed("control", &[vector.to_str().unwrap(), "The capital of France is"]) else { return };
    let texts: Vec<_> = text.lines().skip(1).map(|line| line.split_once(": ").unwrap().1).collect();
    let [without, forwards, backwards] = texts[..] else { panic!("{text}") };
    assert!(text.starts_with("blocks: [10, 11,") && without.contains("Paris"), "{text}");
    assert!(without != forwards && without != backwards && forwards != backwards, "{text}");
}

#[test]
fn stream() {
    let Some(text) = printed("stream", &["The capital of France is"]) else { return };
    assert!(text.contains("Paris"), "{text}");
}

#[test]
fn chat() {
    let Some(text) = printed("chat", &["What is the capital of France?", "And of Italy?"]) else { return };
    assert!(text.contains("Paris") && text.lines().count() >= 2, "{text}");
}

#[test]
fn structured() {
    let Some(text) = printed("structured", &["Ann is 34 years old and happy."]) else { return };
    assert!(text.contains("years old, "), "{text}");
}

#[test]
fn constrained() {
    let Some(text) = printed("constrained", &[]) else { return };
    let line = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)).unwrap().to_owned();
    let (date, _) = line("regex: ").split_once(' ').map(|(date, rest)| (date.to_owned(), rest.to_owned())).unwrap();
    assert!(date.len() == 10 && date.starts_with('1') && date.matches('-').count() == 2, "{text}");
    let chess = line("GBNF: ");
    assert!(chess.starts_with(|c: char| "KQRBNabcdefgh".contains(c)) && chess.ends_with("(End)"), "{text}");
    assert!(line("JSON: ").trim_start().starts_with(['[', '{']), "{text}");
}

#[test]
fn logprobs() {
    let Some(text) = printed("logprobs", &["The capital of France is Paris"]) else { return };
    let paris = text.lines().find(|line| line.contains("\" Paris\", ")).unwrap();
    assert!(paris.starts_with("read ") && paris.ends_with("likeliest \" Paris\""), "{text}");
    assert_eq!(text.lines().filter(|line| line.starts_with("next ")).count(), 1, "{text}");
    assert!(text.lines().last().unwrap().starts_with("all of it: -"), "{text}");
}

#[test]
fn shift() {
    let Some(text) = printed("shift", &["Once upon a time"]) else { return };
    let [stopped, shifted] = text.lines().collect::<Vec<_>>()[..] else { panic!("{text}") };
    assert!(stopped.starts_with("Stop: ") && stopped.ends_with("ContextFull"), "{text}");
    assert!(shifted.contains(": 160 tokens in a context of 64, MaxTokens"), "{text}");
}

#[test]
fn cancel() {
    let Some(text) = printed("cancel", &["A list of all that there is:\n"]) else { return };
    assert!(text.starts_with("Cancelled after "), "{text}");
    assert!(text.lines().last().unwrap().starts_with("BrokenOff after "), "{text}");
}

#[test]
fn prefill() {
    let Some(text) = printed("prefill", &["What is the capital of France?", "Bien sûr:"]) else { return };
    let (first, rest) =
        text.split_once("MaxTokens: Bien sûr:").map(|(_, rest)| rest.split_once('\n').unwrap()).unwrap();
    let (_, whole) = rest.split_once(": ").unwrap();
    assert!(whole.starts_with(&format!("Bien sûr:{first}")) && whole.len() > first.len(), "{text}");
}

#[test]
fn fork() {
    let questions = ["What is the capital of France?", "And of Italy?", "And of Spain?"];
    let Some(text) = printed("fork", &questions) else { return };
    assert!(questions.iter().all(|question| text.contains(question)), "{text}");
    let kept = |line: &&str| !line.contains("(0 tokens kept)") && line.contains(" tokens kept)");
    assert_eq!(text.lines().filter(kept).count(), 2, "{text}");
}

#[test]
fn template() {
    let gpt_oss = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/chat/templates/gpt-oss.jinja");
    let Some(text) = printed("template", &[gpt_oss, "reasoning_effort=\"low\""]) else { return };
    assert!(text.contains("Reasoning: low") && text.contains("What is 2+2?"), "{text}");
    assert!(text.contains("tools: true"), "{text}");
    let qwen3 = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/chat/templates/qwen3.jinja");
    let text = printed("template", &[qwen3]).unwrap();
    let (thinks, answers) = text.split_once("--- thinking: false").unwrap();
    assert!(!thinks.contains("</think>") && answers.contains("</think>"), "{text}");
}

#[test]
fn cache() {
    let Some(text) = printed("cache", &["The capital of France is Paris, and that of Italy is Rome."]) else { return };
    let figures: Vec<f32> = text.lines().map(|line| line.rsplit_once(' ').unwrap().1.parse().unwrap()).collect();
    assert!(figures.len() == 4 && figures.iter().all(|figure| (-4.0..0.0).contains(figure)), "{text}");
    assert!((figures[0] - figures[2]).abs() < 0.05 && figures[0] != figures[3], "{text}");
}

#[test]
fn merge() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    for (seed, name) in [(1, "one.gguf"), (2, "other.gguf")] {
        SyntheticModel::tiny().with_seed(seed).write_file(path(name)).unwrap();
    }
    let mut command = example("merge");
    command.args(["one.gguf", "other.gguf", "out.gguf"].map(path)).args(["0.25", "the fox"]);
    let Output { status, stdout, stderr } = command.output().unwrap();
    let text = String::from_utf8(stdout).unwrap();
    assert!(status.success(), "{text}{}", String::from_utf8_lossy(&stderr));
    let texts: Vec<_> = text.lines().skip(1).map(|line| line.split_once(": ").unwrap().1).collect();
    let [one, other, both] = texts[..] else { panic!("{text}") };
    assert!(one != other && both != one && both != other, "{text}");
}

#[test]
fn tools() {
    let template = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/chat/templates/qwen2.5.jinja");
    let Some(text) = printed("tools", &["What is 17 plus 25?", template]) else { return };
    assert!(text.lines().any(|line| line.starts_with("call: add({")), "{text}");
    assert!(text.lines().any(|line| line.starts_with("result: ")), "{text}");
}

#[test]
fn embeddings() {
    let Some(text) = printed("embeddings", &["A dog", "A cat", "A law"]) else { return };
    assert_eq!(text.lines().count(), 2, "{text}");
}

#[test]
fn rerank() {
    let arguments =
        ["What is the capital of France?", "The capital of France is Paris.", "Add salt and stir.", "ls -la"];
    let Some(text) = printed("rerank", &arguments) else { return };
    let (way, ranking) = text.split_once('\n').unwrap();
    // SmolLM2 was not made to rank.
    assert_eq!((way, ranking.lines().count()), ("by embeddings:", 3));
    assert!(ranking.lines().next().unwrap().ends_with("The capital of France is Paris."), "{text}");
}

fn synthesise(path: &Path, options: &[&str]) -> Output {
    example("synth_model").arg(path).args(options).output().unwrap()
}

#[test]
fn synth_model() {
    let folder = tempfile::tempdir().unwrap();
    // A name that looks like a preset is none.
    let mut command = example("synth_model");
    command.current_dir(&folder).args(["bitnet-tiny.gguf", "--seed", "3", "--type", "q8_0"]);
    assert!(command.status().unwrap().success());
    assert_eq!(Gguf::open(folder.path().join("bitnet-tiny.gguf")).unwrap().architecture().unwrap(), "llama");
}

/// Sizes that all forms and layouts take, of both kinds of models.
#[test]
fn synth_model_of_another_shape() {
    const SIZES: [(&str, &str, &str); 7] = [
        ("--n-embd", "768", "embedding_length"),
        ("--n-layer", "3", "block_count"),
        ("--n-head", "6", "attention.head_count"),
        ("--n-head-kv", "3", "attention.head_count_kv"),
        ("--n-ff", "1024", "feed_forward_length"),
        ("--n-vocab", "700", "vocab_size"),
        ("--n-ctx-train", "512", "context_length"),
    ];
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    let forms: [(&[&str], &str, TensorType); 8] = [
        (&["--preset", "tiny", "--type", "q4_k"], "llama", TensorType::Q4_K),
        (&["--preset", "bitnet-tiny"], "bitnet-b1.58", TensorType::I2_S),
        (&["--preset", "bitnet-2b", "--layout", "arm", "--vocab", "spm"], "bitnet-b1.58", TensorType::I2_S),
        (&["--preset", "bitnet-tiny", "--layout", "rows4"], "bitnet-b1.58", TensorType::I2_S),
        (&["--preset", "bitnet-tiny", "--ternary", "tq1_0"], "bitnet-b1.58", TensorType::TQ1_0),
        (&["--preset", "bitnet-tiny", "--ternary", "tq2_0", "--embedding", "q6_k"], "bitnet-b1.58", TensorType::TQ2_0),
        (&["--preset", "bitnet-tiny", "--ternary", "q2_0"], "bitnet-b1.58", TensorType::Q2_0),
        (&["--preset", "bitnet-tiny", "--ternary", "f32", "--architecture", "bitnet"], "bitnet", TensorType::F32),
    ];
    for (form, architecture, tensor_type) in forms {
        // The preset behind what changes it.
        let options: Vec<&str> =
            SIZES.iter().flat_map(|&(option, size, _)| [option, size]).chain(form.iter().copied()).collect();
        let output = synthesise(&path, &options);
        assert!(output.status.success(), "{form:?}: {}", String::from_utf8_lossy(&output.stderr));
        let gguf = Gguf::open(&path).unwrap();
        assert_eq!(gguf.architecture().unwrap(), architecture);
        for (option, size, key) in SIZES {
            let found = gguf.metadata().u64(&format!("{architecture}.{key}")).unwrap();
            assert_eq!(found.to_string(), size, "{form:?} {option}");
        }
        let matrix = gguf.tensor("blk.2.ffn_down.weight").unwrap();
        assert_eq!((matrix.tensor_type, matrix.shape.as_slice()), (tensor_type, &[1024, 768][..]), "{form:?}");
    }
}

#[test]
fn synth_model_of_an_impossible_shape_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    for (options, said) in [
        (&["--n-embd", "200"][..], "do not fit the layout x86"),
        (&["--n-embd", "256", "--n-head", "3"], "heads"),
        (&["--n-head-kv", "3"], "heads"),
        (&["--n-ff", "0"], "above zero"),
        (&["--n-vocab", "10"], "too small"),
        (&["--n-layer", "-1"], "--n-layer -1"),
        (&["--ternary", "tq2_0", "--n-ff", "320"], "cannot have the shape [320, 256]"),
        (&["--ternary", "q4_1x"], "no tensor type q4_1x"),
        (&["--type", "f16"], "--type"),
        (&["--n-ff"], "needs a value"),
    ] {
        let path = folder.path().join("model.gguf");
        let output = synthesise(&path, &[&["--preset", "bitnet-tiny"], options].concat());
        let stderr = String::from_utf8_lossy(&output.stderr);
        let error = stderr.lines().next().unwrap_or_default();
        assert!(!output.status.success() && error.contains(said), "{options:?}: {error}");
        assert!(!path.exists());
    }
    assert!(!synthesise(&folder.path().join("model.gguf"), &["--preset", "bitnet-3b"]).status.success());
}
