//! Damaged files of every family against llama.cpp: each is refused with a typed error, or runs. A child process takes
//! the blow, so that an assertion of llama.cpp is a failed test that names the file.

use std::{
    collections::BTreeMap,
    io::{BufRead as _, BufReader, Write as _},
    num::NonZeroU32,
    path::Path,
    process::{Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use gguf_loader::{
    LoadError, Model,
    backend::{Batch, ContextOptions, TokenizeOptions},
};

use crate::{
    damage::{Variant, variants},
    models::FAMILIES,
};

/// Tells the child which family to load, and with which variant to begin.
const TASK: &str = "GGUF_LOADER_TEST_HOSTILE";

/// How an attempt ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum End {
    /// The damage cannot be written.
    Unwritable,
    /// The validator refused the file.
    Invalid,
    /// The validator let it pass; the backend refused it.
    Refused,
    /// It was loaded; no context was opened, or nothing decoded.
    Stopped,
    /// It ran.
    Ran,
}

const ENDS: [End; 5] = [End::Unwritable, End::Invalid, End::Refused, End::Stopped, End::Ran];

/// Loads a file and uses all of it: the tokenizer, a prompt of two passes, and one token more.
fn attempt(variant: &Variant, path: &Path) -> End {
    if !variant.file.write(path) {
        return End::Unwritable;
    }
    let model = match Model::load(path) {
        Ok(model) => model,
        Err(LoadError::Gguf(_)) => return End::Invalid,
        Err(_) => return End::Refused,
    };
    if let Ok(tokenizer) = model.tokenizer() {
        let tokens = tokenizer.tokenize("hello world", TokenizeOptions::default()).unwrap_or_default();
        let _ = tokenizer.detokenize(&tokens, true);
    }
    let number = |value| NonZeroU32::new(value).expect("above zero");
    let options = ContextOptions::default().with_length(number(48)).with_ubatch(number(16)).with_threads(number(1));
    let Ok(mut context) = model.context(&options) else { return End::Stopped };
    let mut batch = Batch::new();
    for count in [24_u32, 1] {
        batch.clear();
        let tokens: Vec<u32> =
            (0..count.min(context.limits().batch)).map(|token| token % model.shape().n_vocab.max(1)).collect();
        // An encoder remembers nothing: its next batch begins anew.
        batch.extend(&tokens, context.next_position(0), 0);
        if context.decode(&batch).is_err() {
            return End::Stopped;
        }
    }
    End::Ran
}

/// Not a test by itself: what the parent starts.
#[test]
#[ignore = "the child process of the tests beside it"]
fn child() {
    let Ok(task) = std::env::var(TASK) else { return };
    let (family, first) = task.split_once(' ').expect("a family and a number");
    let build = FAMILIES.iter().find(|(name, _)| *name == family).expect("a family").1;
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("model.gguf");
    let mut output = std::io::stderr();
    let progress = Arc::new(AtomicUsize::new(0));
    thread::spawn({
        let progress = Arc::clone(&progress);
        move || die_without(&progress)
    });
    for (index, variant) in variants(&build()).iter().enumerate().skip(first.parse().expect("a number")) {
        writeln!(output, "try {index} {}", variant.what.escape_debug()).expect("the parent reads");
        progress.store(index + 1, Ordering::Relaxed);
        let end = attempt(variant, &path);
        writeln!(output, "end {}", end as usize).expect("the parent reads");
    }
}

/// Ends the process when an attempt takes far longer than any does: an endless loop of llama.cpp cannot be cancelled.
fn die_without(progress: &AtomicUsize) {
    const PATIENCE: Duration = Duration::from_secs(30);
    let mut last = usize::MAX;
    loop {
        let now = progress.load(Ordering::Relaxed);
        if now == std::mem::replace(&mut last, now) && now > 0 {
            let _ = writeln!(std::io::stderr(), "panicked: nothing happened for {PATIENCE:?}");
            std::process::abort();
        }
        thread::sleep(PATIENCE);
    }
}

/// Runs the child over all variants, again and again behind those that kill it. Returns how often each end was met, and
/// what killed.
fn survey(family: &str) -> (BTreeMap<End, usize>, Vec<String>, Option<End>) {
    let build = FAMILIES.iter().find(|(name, _)| *name == family).expect("a family").1;
    let all = variants(&build());
    let (mut ends, mut deaths, mut sound, mut next) = (BTreeMap::new(), Vec::new(), None, 0);
    while next < all.len() {
        let mut child = Command::new(std::env::current_exe().expect("this program"))
            .args(["--exact", "hostile::child", "--ignored", "--nocapture"])
            .env(TASK, format!("{family} {next}"))
            // A debugger that llama.cpp starts to print where it died may wait for ever.
            .env("GGML_NO_BACKTRACE", "1")
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("this program starts again");
        let mut said = Vec::new();
        for line in BufReader::new(child.stderr.take().expect("it is piped")).split(b'\n').map_while(Result::ok) {
            let line = String::from_utf8_lossy(&line).into_owned();
            if let Some(index) = line.strip_prefix("try ") {
                next = index.split(' ').next().and_then(|index| index.parse().ok()).expect("a number");
                said.clear();
            } else if let Some(end) = line.strip_prefix("end ") {
                let end = ENDS[end.parse::<usize>().expect("a number")];
                sound = sound.or(Some(end));
                *ends.entry(end).or_default() += 1;
                next += 1;
            } else {
                said.push(line);
            }
        }
        let status = child.wait().expect("the child ends");
        if !status.success() {
            let last = said.iter().rev().find(|line| line.contains("GGML_") || line.contains("panicked"));
            deaths.push(format!(
                "{}: {status}: {}",
                all[next.min(all.len() - 1)].what,
                last.cloned().unwrap_or_default()
            ));
            next += 1;
        }
    }
    (ends, deaths, sound)
}

/// Makes a test of each family.
macro_rules! families {
    ($($test:ident: $family:literal,)*) => {
        $(
            #[test]
            fn $test() {
                let (ends, deaths, sound) = survey($family);
                assert!(deaths.is_empty(), "{} files killed the process:\n{}", deaths.len(), deaths.join("\n"));
                assert_eq!(sound, Some(End::Ran), "the sound file");
                // The damage must be neither harmless nor so coarse that everything falls at the first check.
                let count = |end: End| ends.get(&end).copied().unwrap_or(0);
                assert!(count(End::Invalid) > 50 && count(End::Refused) > 50 && count(End::Ran) > 50, "{ends:?}");
            }
        )*

        #[test]
        fn each_family_has_its_test() {
            let tested = [$($family),*];
            assert!(FAMILIES.iter().map(|(family, _)| *family).eq(tested));
        }
    };
}

families! {
    llama: "llama",
    mixtral: "mixtral",
    qwen2: "qwen2",
    qwen3: "qwen3",
    gemma: "gemma",
    gemma2: "gemma2",
    gemma3: "gemma3",
    phi3: "phi3",
    stablelm: "stablelm",
    falcon: "falcon",
    gpt2: "gpt2",
    bert: "bert",
    nomic_bert: "nomic-bert",
    mamba: "mamba",
    rwkv6: "rwkv6",
}
