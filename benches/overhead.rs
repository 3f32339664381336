//! What this library costs beside the decode itself: `cargo bench --profile release --bench overhead`.
//!
//! Two figures, because a machine's speed changes by more than either within a second.
//!
//! * What a generation spends outside of decodes, by its own clock, with the model that `GGUF_LOADER_TEST_MODEL` names: greedily,
//!   sampled, held to JSON schemas, with log-probabilities. Choosing a token is in it, which a C program does as well.
//! * What `Context::decode` adds to `llama_decode`: steps of a model that takes microseconds, by turns with llama.cpp's C interface
//!   on the same tier.
#![allow(clippy::print_stdout, reason = "a benchmark's result")]
#![allow(clippy::multiple_unsafe_ops_per_block, reason = "calls of llama.cpp that belong together")]

use std::{
    ffi::CString,
    num::NonZeroU32,
    path::Path,
    time::{Duration, Instant},
};

use gguf_loader::{
    Context, Model,
    backend::{Batch, ContextOptions, SequenceEdit, Token},
    generation::{GenerateRequest, Usage},
    gguf::synth::SyntheticModel,
    grammar::Grammar,
    sampling::{Sampling, likeliest},
};
use llama_cpp_sys_2 as sys;
use serde_json::json;

const PROMPT: &str = "Write down what you know about the people of the village, one after the other, in JSON:\n";
const TOKENS: u32 = 96;
const ROUNDS: usize = 7;
/// Steps with the tiny model, of each.
const STEPS: u32 = 200;
const TINY_ROUNDS: usize = 50;

/// llama.cpp as a C program uses it. Never freed: the process ends.
struct Raw {
    context: *mut sys::llama_context,
    n_vocab: usize,
}

impl Raw {
    /// Loads after our own model, whose tier llama.cpp's list of backends then has.
    fn load(path: &Path) -> Self {
        let path = CString::new(path.to_str().expect("UTF-8")).expect("no NUL");
        // SAFETY: plain calls in llama.cpp's own order; the path is a C string.
        unsafe {
            let model = sys::llama_model_load_from_file(path.as_ptr(), sys::llama_model_default_params());
            let mut params = sys::llama_context_default_params();
            params.n_ctx = 512;
            params.n_threads = 1;
            params.n_threads_batch = 1;
            params.no_perf = true;
            let context = sys::llama_init_from_model(model, params);
            assert!(!context.is_null(), "llama.cpp opens no context");
            // Without a pool of its own llama.cpp makes one for each token.
            let registration = sys::ggml_backend_reg_by_name(c"CPU".as_ptr());
            let new = sys::ggml_backend_reg_get_proc_address(registration, c"ggml_threadpool_new".as_ptr());
            type New = unsafe extern "C" fn(*mut sys::ggml_threadpool_params) -> sys::ggml_threadpool_t;
            let new: New = std::mem::transmute(new);
            let mut pool = sys::ggml_threadpool_params_default(1);
            let pool = new(&mut pool);
            sys::llama_attach_threadpool(context, pool, pool);
            let n_vocab = sys::llama_vocab_n_tokens(sys::llama_model_get_vocab(model)) as usize;
            Self { context, n_vocab }
        }
    }

    /// Time and tokens of STEPS steps from an empty cache.
    fn steps(&mut self) -> (Duration, Vec<Token>) {
        // SAFETY: the context is valid, the batch points at a token that outlives the call, and there is one row of logits.
        unsafe {
            sys::llama_memory_clear(sys::llama_get_memory(self.context), false);
            let (begin, mut tokens) = (Instant::now(), vec![1]);
            for _ in 0..STEPS {
                let mut token = tokens[tokens.len() - 1] as sys::llama_token;
                assert_eq!(sys::llama_decode(self.context, sys::llama_batch_get_one(&mut token, 1)), 0);
                let logits = std::slice::from_raw_parts(sys::llama_get_logits_ith(self.context, -1), self.n_vocab);
                tokens.push(likeliest(logits).expect("numbers"));
            }
            (begin.elapsed(), tokens)
        }
    }
}

/// The same by our own interface.
fn steps(context: &mut Context) -> (Duration, Vec<Token>) {
    context.edit(SequenceEdit::Clear).expect("an empty cache");
    let (begin, mut tokens, mut batch) = (Instant::now(), vec![1], Batch::with_capacity(1));
    for position in 0..STEPS {
        batch.clear();
        batch.push(tokens[tokens.len() - 1], position, 0, true);
        context.decode(&batch).expect("it decodes");
        tokens.push(likeliest(context.logits(0).expect("a row")).expect("numbers"));
    }
    (begin.elapsed(), tokens)
}

/// What `Context::decode` adds to a step, in microseconds: the difference of the fastest rounds.
fn added_to_a_decode() -> f64 {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("tiny.gguf");
    SyntheticModel::tiny().write_file(&path).expect("a model");
    let model = Model::load(&path).expect("the model loads");
    let mut context = model.context(&ContextOptions::default().with_threads(NonZeroU32::MIN)).expect("a context");
    let mut raw = Raw::load(&path);
    let mut fastest = [Duration::MAX; 2];
    for _ in 0..TINY_ROUNDS {
        let ((theirs, expected), (ours, tokens)) = (raw.steps(), steps(&mut context));
        assert!(tokens == expected, "other tokens than llama.cpp's");
        fastest = [fastest[0].min(theirs), fastest[1].min(ours)];
    }
    let [theirs, ours] = fastest.map(|time| time.as_secs_f64() * 1e6 / f64::from(STEPS));
    println!("a decode: {:+.2} us ({theirs:.2} by llama.cpp's C interface, {ours:.2} by ours)", ours - theirs);
    ours - theirs
}

fn generate(context: &mut Context, request: &GenerateRequest) -> Usage {
    let completion = context.complete(request).expect("it generates");
    assert_eq!(completion.tokens.len(), TOKENS as usize, "{:?}: {}", completion.finish, completion.text);
    completion.usage
}

fn main() {
    let Some(path) = std::env::var_os("GGUF_LOADER_TEST_MODEL") else {
        println!("skipped: GGUF_LOADER_TEST_MODEL names no model");
        return;
    };
    let added = added_to_a_decode();
    let model = Model::load(&path).expect("the model loads");
    let mut context = model.context(&ContextOptions::default()).expect("the context opens");
    let greedy =
        GenerateRequest::new(PROMPT).with_stop_at_end(false).with_max_tokens(TOKENS.try_into().expect("above 0"));
    let person = json!({"type": "object", "properties": {
        "name": {"type": "object", "properties": {"first": {"type": "string"}, "last": {"type": "string"}},
            "required": ["first", "last"], "additionalProperties": false},
        "age": {"type": "integer", "minimum": 0, "maximum": 120},
        "trades": {"type": "array", "items": {"enum": ["baker", "smith", "farmer"]}, "minItems": 1, "maxItems": 3}},
        "required": ["name", "age", "trades"], "additionalProperties": false});
    let people = json!({"type": "array", "items": person, "minItems": 50});
    let family = json!({"type": "array", "items": {"$ref": "#/$defs/person"}, "minItems": 50, "$defs": {"person": {
        "type": "object", "properties": {"name": {"type": "string"}, "notes": {},
        "children": {"type": "array", "items": {"$ref": "#/$defs/person"}}}, "required": ["name", "notes"]}}});
    let schema = |schema| greedy.clone().with_grammar(Grammar::json_schema(schema).expect("a schema"));
    let (nested, recursive) = (schema(&people), schema(&family));
    let balanced = greedy.clone().with_sampling(Sampling::balanced().with_seed(1));
    let creative = greedy.clone().with_sampling(Sampling::creative().with_seed(1));
    let logprobs = greedy.clone().with_logprobs(5);
    let requests = [
        ("greedy", greedy),
        ("balanced", balanced),
        ("creative", creative),
        ("nested schema", nested),
        ("recursive schema", recursive),
        ("logprobs", logprobs),
    ];

    println!("{}, {} threads, medians of {ROUNDS}:", model.backend(), context.limits().threads);
    let mut rows = vec![Vec::new(); requests.len()];
    for _ in 0..ROUNDS {
        for ((_, request), row) in requests.iter().zip(&mut rows) {
            let usage = generate(&mut context, request);
            let of_a_step = |time: Duration| time.as_secs_f64() * 1e6 / f64::from(TOKENS - 1);
            row.push((of_a_step(usage.generation_time - usage.decode_time), of_a_step(usage.decode_time)));
        }
    }
    for ((name, _), row) in requests.iter().zip(&rows) {
        let (outside, decode) = (median(row.iter().map(|row| row.0)), median(row.iter().map(|row| row.1)));
        println!(
            "{name:>16}: {:.1} us beside a decode of {decode:.0} us: {:.2} %",
            outside + added,
            (outside + added) / (decode - added) * 100.0
        );
    }
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
