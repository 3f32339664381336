//! What this library costs beside the decode itself: `cargo bench --profile release --bench overhead`.
//!
//! The same greedy text from llama.cpp's C interface and from ours, on the same tier and threads, and ours with sampling and with
//! a nested JSON schema. Short runs take turns, so that a busy machine meets all alike; medians of their ratios are printed.
//! The model is the one that `GGUF_LOADER_TEST_MODEL` names.
#![allow(clippy::print_stdout, reason = "a benchmark's result")]
#![allow(clippy::multiple_unsafe_ops_per_block, reason = "calls of llama.cpp that belong together")]

use std::{
    ffi::CString,
    path::Path,
    time::{Duration, Instant},
};

use gguf_loader::{
    Context, Model,
    backend::{ContextOptions, Token, TokenizeOptions},
    generation::GenerateRequest,
    grammar::Grammar,
    sampling::Sampling,
};
use llama_cpp_sys_2 as sys;
use serde_json::json;

const PROMPT: &str = "Write down what you know about the people of the village, one after the other, in JSON:\n";
const TOKENS: u32 = 96;
const ROUNDS: usize = 15;

/// llama.cpp as a C program uses it. Never freed: the process ends.
struct Raw {
    context: *mut sys::llama_context,
    n_vocab: usize,
    prompt: Vec<sys::llama_token>,
}

impl Raw {
    /// Loads after our own model, whose tier llama.cpp's list of backends then has.
    fn load(path: &Path, threads: u32, prompt: &[Token]) -> Self {
        let path = CString::new(path.to_str().expect("UTF-8")).expect("no NUL");
        // SAFETY: plain calls in llama.cpp's own order; the path is a C string.
        unsafe {
            let model = sys::llama_model_load_from_file(path.as_ptr(), sys::llama_model_default_params());
            let mut params = sys::llama_context_default_params();
            params.n_ctx = 4096;
            params.n_threads = threads as i32;
            params.n_threads_batch = threads as i32;
            params.no_perf = true;
            let context = sys::llama_init_from_model(model, params);
            assert!(!context.is_null(), "llama.cpp opens no context");
            // Without a pool of its own llama.cpp starts threads for each token.
            let registration = sys::ggml_backend_reg_by_name(c"CPU".as_ptr());
            let new = sys::ggml_backend_reg_get_proc_address(registration, c"ggml_threadpool_new".as_ptr());
            type New = unsafe extern "C" fn(*mut sys::ggml_threadpool_params) -> sys::ggml_threadpool_t;
            let new: New = std::mem::transmute(new);
            let mut pool = sys::ggml_threadpool_params_default(threads as i32);
            let pool = new(&mut pool);
            sys::llama_attach_threadpool(context, pool, pool);
            let n_vocab = sys::llama_vocab_n_tokens(sys::llama_model_get_vocab(model)) as usize;
            Self { context, n_vocab, prompt: prompt.iter().map(|&token| token as sys::llama_token).collect() }
        }
    }

    fn generate(&mut self) -> (Duration, Vec<Token>) {
        let mut tokens = Vec::new();
        // SAFETY: the context is valid, the batches point at tokens that outlive the calls, and there is one row of logits.
        unsafe {
            sys::llama_memory_clear(sys::llama_get_memory(self.context), false);
            let mut next = self.decode_and_choose(self.prompt.clone());
            tokens.push(next);
            let begin = Instant::now();
            for _ in 1..TOKENS {
                next = self.decode_and_choose(vec![next as sys::llama_token]);
                tokens.push(next);
            }
            (begin.elapsed(), tokens)
        }
    }

    unsafe fn decode_and_choose(&self, mut tokens: Vec<sys::llama_token>) -> Token {
        // SAFETY: as above.
        unsafe {
            let batch = sys::llama_batch_get_one(tokens.as_mut_ptr(), tokens.len() as i32);
            assert_eq!(sys::llama_decode(self.context, batch), 0);
            let logits = std::slice::from_raw_parts(sys::llama_get_logits_ith(self.context, -1), self.n_vocab);
            gguf_loader::sampling::likeliest(logits).expect("numbers")
        }
    }
}

fn generate(context: &mut Context, request: &GenerateRequest) -> (Duration, Vec<Token>) {
    let completion = context.complete(request).expect("it generates");
    assert_eq!(completion.tokens.len(), TOKENS as usize, "{:?}: {}", completion.finish, completion.text);
    (completion.usage.generation_time, completion.tokens)
}

fn main() {
    let Some(path) = std::env::var_os("GGUF_LOADER_TEST_MODEL") else {
        println!("skipped: GGUF_LOADER_TEST_MODEL names no model");
        return;
    };
    let model = Model::load(&path).expect("the model loads");
    let mut context = model.context(&ContextOptions::default()).expect("the context opens");
    let prompt = model.tokenizer().expect("a tokenizer").tokenize(PROMPT, TokenizeOptions::default()).expect("text");
    let mut raw = Raw::load(Path::new(&path), context.limits().threads, &prompt);

    let greedy =
        GenerateRequest::new(prompt).with_stop_at_end(false).with_max_tokens(TOKENS.try_into().expect("above 0"));
    let person = json!({"type": "object", "properties": {
        "name": {"type": "object", "properties": {"first": {"type": "string"}, "last": {"type": "string"}},
            "required": ["first", "last"], "additionalProperties": false},
        "age": {"type": "integer", "minimum": 0, "maximum": 120},
        "trades": {"type": "array", "items": {"enum": ["baker", "smith", "farmer"]}, "minItems": 1, "maxItems": 3}},
        "required": ["name", "age", "trades"], "additionalProperties": false});
    let people = json!({"type": "array", "items": person, "minItems": 50});
    let schema = greedy.clone().with_grammar(Grammar::json_schema(&people).expect("a schema"));
    let balanced = greedy.clone().with_sampling(Sampling::balanced().with_seed(1));
    let creative = greedy.clone().with_sampling(Sampling::creative().with_seed(1));
    let logprobs = greedy.clone().with_logprobs(5);
    let requests = [
        ("greedy", greedy),
        ("balanced", balanced),
        ("creative", creative),
        ("nested schema", schema),
        ("logprobs", logprobs),
    ];

    let mut ratios = vec![Vec::new(); requests.len()];
    let mut steps = Vec::new();
    for round in 0..=ROUNDS {
        let (reference, expected) = raw.generate();
        for (index, (name, request)) in requests.iter().enumerate() {
            let (time, tokens) = generate(&mut context, request);
            assert!(*name != "greedy" || tokens == expected, "another text than llama.cpp's");
            // The first round warms up.
            if round > 0 {
                ratios[index].push(time.as_secs_f64() / reference.as_secs_f64());
            }
        }
        if round > 0 {
            steps.push(reference.as_secs_f64() / f64::from(TOKENS - 1));
        }
    }
    println!(
        "{}, {} threads, a step of llama.cpp's: {:.3} ms",
        model.backend(),
        context.limits().threads,
        median(&mut steps) * 1e3
    );
    for ((name, _), ratios) in requests.iter().zip(&mut ratios) {
        let middle = median(ratios);
        println!("{name:>14}: {middle:.4} of llama.cpp's ({:.4} to {:.4})", ratios[ROUNDS / 4], ratios[ROUNDS * 3 / 4]);
    }
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
