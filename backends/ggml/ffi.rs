//! Declarations of `shim.h`, `chat.h`, `grammar.h` and `pages.h`: keep them in step.

use std::{
    ffi::{c_char, c_void},
    os::raw::c_int,
};

use llama_cpp_sys_2 as sys;

/// What the functions with a status return after an exception.
pub(crate) const EXCEPTION: i32 = i32::MIN;

/// `gl_attention`.
#[repr(C)]
pub(crate) struct Attention {
    _opaque: [u8; 0],
}

/// `gl_product`.
#[repr(C)]
pub(crate) struct Product {
    _opaque: [u8; 0],
}

/// `gl_ternary_use`: how many of a model's tensors the ternary kernels multiply with, by their form.
#[cfg(feature = "bitnet")]
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub(crate) struct TernaryUse {
    /// Of two bits a weight.
    two_bits: i32,
    /// Of five weights a byte.
    dense: i32,
    /// Whether products that share an input are one node, which quantises it once.
    fused: bool,
}

#[cfg(feature = "bitnet")]
impl TernaryUse {
    /// Tensors of either form.
    pub(crate) fn tensors(self) -> i32 {
        self.two_bits + self.dense
    }
}

/// `gl_chat_template`.
#[repr(C)]
pub(crate) struct ChatTemplate {
    _opaque: [u8; 0],
}

/// `gl_chat_parser`.
#[repr(C)]
pub(crate) struct ChatParser {
    _opaque: [u8; 0],
}

// `pages.h`.
unsafe extern "C" {
    pub(crate) fn gl_ask_for_huge_pages(registration: sys::ggml_backend_reg_t);
}

// `chat.h`.
unsafe extern "C" {
    pub(crate) fn gl_text_free(text: *mut c_char);
    pub(crate) fn gl_chat_template_new(
        source: *const c_char,
        length: usize,
        bos: *const c_char,
        eos: *const c_char,
        error: *mut *mut c_char,
    ) -> *mut ChatTemplate;
    pub(crate) fn gl_chat_template_free(chat_template: *mut ChatTemplate);
    pub(crate) fn gl_chat_template_abilities(chat_template: *const ChatTemplate) -> *mut c_char;
    pub(crate) fn gl_chat_template_render(chat_template: *const ChatTemplate, request: *const c_char) -> *mut c_char;
    pub(crate) fn gl_chat_parser_new(description: *const c_char, error: *mut *mut c_char) -> *mut ChatParser;
    pub(crate) fn gl_chat_parser_free(parser: *mut ChatParser);
    pub(crate) fn gl_chat_parser_parse(
        parser: *const ChatParser,
        text: *const c_char,
        length: usize,
        partial: bool,
    ) -> *mut c_char;
}

/// `gl_grammar`.
#[repr(C)]
pub(crate) struct Grammar {
    _opaque: [u8; 0],
}

// `grammar.h`.
unsafe extern "C" {
    pub(crate) fn gl_grammar_new(
        vocab: *const sys::llama_vocab,
        gbnf: *const c_char,
        lazy: bool,
        patterns: *mut *const c_char,
        n_patterns: usize,
        error: *mut *mut c_char,
    ) -> *mut Grammar;
    pub(crate) fn gl_grammar_free(grammar: *mut Grammar);
    pub(crate) fn gl_grammar_allows(grammar: *mut Grammar, token: sys::llama_token) -> bool;
    pub(crate) fn gl_grammar_mask(grammar: *mut Grammar, logits: *mut f32, count: i32) -> i32;
    pub(crate) fn gl_grammar_accept(grammar: *mut Grammar, token: sys::llama_token) -> bool;
}

// `shim.h`.
unsafe extern "C" {
    pub(crate) fn gl_last_error() -> *const c_char;
    pub(crate) fn gl_knows_architecture(name: *const c_char) -> bool;
    pub(crate) fn gl_model_load(
        path: *const c_char,
        architecture: *const c_char,
        params: *const sys::llama_model_params,
    ) -> *mut sys::llama_model;
    #[cfg(feature = "bitnet")]
    pub(crate) fn gl_ternary_use_of(model: *const sys::llama_model) -> TernaryUse;
    pub(crate) fn gl_context_new(
        model: *mut sys::llama_model,
        params: *const sys::llama_context_params,
    ) -> *mut sys::llama_context;
    pub(crate) fn gl_position_limit(model: *const sys::llama_model) -> i64;
    pub(crate) fn gl_is_causal(context: *const sys::llama_context) -> bool;
    pub(crate) fn gl_pooling(model: *const sys::llama_model) -> i32;
    pub(crate) fn gl_rank_scores(model: *const sys::llama_model) -> i32;
    pub(crate) fn gl_decode(context: *mut sys::llama_context, batch: *const sys::llama_batch) -> i32;
    pub(crate) fn gl_tokenize(
        vocab: *const sys::llama_vocab,
        text: *const c_char,
        length: i32,
        tokens: *mut sys::llama_token,
        capacity: i32,
        add_special: bool,
        parse_special: bool,
    ) -> i32;
    pub(crate) fn gl_token_to_piece(
        vocab: *const sys::llama_vocab,
        token: sys::llama_token,
        bytes: *mut c_char,
        capacity: i32,
        special: bool,
    ) -> i32;
    pub(crate) fn gl_detokenize(
        vocab: *const sys::llama_vocab,
        tokens: *const sys::llama_token,
        count: i32,
        bytes: *mut c_char,
        capacity: i32,
        special: bool,
    ) -> i32;
    pub(crate) fn gl_sequence_truncate(context: *mut sys::llama_context, sequence: i32, from: i32) -> bool;
    pub(crate) fn gl_sequence_remove(context: *mut sys::llama_context, sequence: i32, from: i32, to: i32) -> bool;
    pub(crate) fn gl_sequence_remove_apart(
        context: *mut sys::llama_context,
        sequence: i32,
        from: i32,
        to: i32,
        other: i32,
    ) -> bool;
    pub(crate) fn gl_can_shift(context: *mut sys::llama_context) -> bool;
    pub(crate) fn gl_sequence_copy(context: *mut sys::llama_context, from: i32, to: i32) -> bool;
    pub(crate) fn gl_adapter_load(model: *mut sys::llama_model, path: *const c_char) -> *mut sys::llama_adapter_lora;
    pub(crate) fn gl_set_adapters(
        context: *mut sys::llama_context,
        adapters: *mut *mut sys::llama_adapter_lora,
        count: usize,
        scales: *mut f32,
    ) -> bool;
    pub(crate) fn gl_set_directions(
        context: *mut sys::llama_context,
        rows: *const f32,
        count: usize,
        width: i32,
        first: i32,
        last: i32,
    ) -> bool;
    pub(crate) fn gl_sequence_state_version() -> u32;
    pub(crate) fn gl_sequence_state_size(context: *mut sys::llama_context, sequence: i32) -> usize;
    pub(crate) fn gl_sequence_state_save(
        context: *mut sys::llama_context,
        sequence: i32,
        bytes: *mut u8,
        size: usize,
    ) -> usize;
    pub(crate) fn gl_sequence_state_restore(
        context: *mut sys::llama_context,
        sequence: i32,
        bytes: *const u8,
        size: usize,
    ) -> usize;
    pub(crate) fn gl_sequences_clear(context: *mut sys::llama_context) -> bool;
    pub(crate) fn gl_cpu_graph_compute(context: *const sys::llama_context) -> *const c_void;
    pub(crate) fn gl_registration_graph_compute(registration: sys::ggml_backend_reg_t) -> *const c_void;
    pub(crate) fn gl_product_new(
        registration: sys::ggml_backend_reg_t,
        threads: sys::ggml_threadpool_t,
        n_threads: i32,
        tensor_type: sys::ggml_type,
        rows: i64,
        columns: i64,
        data: *const c_void,
    ) -> *mut Product;
    pub(crate) fn gl_attention_new(
        registration: sys::ggml_backend_reg_t,
        threads: sys::ggml_threadpool_t,
        n_threads: i32,
        cache_type: sys::ggml_type,
        heads: i64,
        positions: i64,
        key_size: i64,
        value_size: i64,
        keys: *const f32,
        values: *const f32,
    ) -> *mut Attention;
    pub(crate) fn gl_attention_free(attention: *mut Attention);
    pub(crate) fn gl_attention_attend(
        attention: *mut Attention,
        tokens: i64,
        heads: i64,
        queries: *const f32,
        scale: f32,
        max_bias: f32,
        mask: *const f32,
        results: *mut f32,
    ) -> bool;
    pub(crate) fn gl_product_free(product: *mut Product);
    pub(crate) fn gl_product_bytes(product: *const Product) -> u64;
    pub(crate) fn gl_product_multiply(
        product: *mut Product,
        inputs: *const f32,
        stride: i64,
        count: i64,
        products: *mut f32,
    ) -> bool;
}

/// `ggml_threadpool_new` of a tier.
pub(crate) type ThreadpoolNew = unsafe extern "C" fn(*mut sys::ggml_threadpool_params) -> sys::ggml_threadpool_t;
/// `ggml_threadpool_free` of a tier.
pub(crate) type ThreadpoolFree = unsafe extern "C" fn(sys::ggml_threadpool_t);
/// Says whether to stop a graph computation.
pub(crate) type AbortCallback = unsafe extern "C" fn(*mut c_void) -> bool;
/// A log level as ggml passes it.
pub(crate) type LogLevel = c_int;
