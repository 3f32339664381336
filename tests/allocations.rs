//! The decode loop allocates nothing but the text that it returns.
#![cfg(all(feature = "cpu", feature = "synth"))]

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
    num::NonZeroU32,
};

use gguf_loader::{Model, backend::ContextOptions, generation::GenerateRequest, gguf::synth::SyntheticModel};

/// Counts the allocations of the thread that asks for it. llama.cpp allocates through the C library, beside it.
struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

// SAFETY: every call is handed on to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        // SAFETY: the caller's promises are handed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(memory, layout) }
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        // SAFETY: as above.
        unsafe { System.realloc(memory, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

#[test]
fn a_generated_token_costs_no_allocation_but_its_text() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("tiny.gguf");
    SyntheticModel::tiny().write_file(&path).expect("the model is written");
    let model = Model::load(&path).expect("the model loads");
    let mut context = model.context(&ContextOptions::default()).expect("the context opens");
    let request = GenerateRequest::new("the quick brown fox").with_stop_at_end(false);
    let request = request.with_max_tokens(NonZeroU32::new(200).expect("above zero"));
    let mut generation = context.generate(request).expect("the prompt fits");
    // The first token decodes the prompt, the second sizes the buffers of a single token.
    for _ in 0..2 {
        generation.next().expect("a token").expect("the decode succeeds");
    }
    let mut texts = 0;
    loop {
        let before = ALLOCATIONS.get();
        let Some(piece) = generation.next() else { break };
        let allocations = ALLOCATIONS.get() - before;
        let text = piece.expect("the decode succeeds").text;
        // A text that consists of several parts, because bytes in it are not UTF-8, may grow once.
        let allowed = u64::from(text.capacity() > 0) + u64::from(text.contains(char::REPLACEMENT_CHARACTER));
        assert!(allocations <= allowed, "{allocations} allocations for {text:?}");
        texts += u64::from(!text.is_empty());
    }
    assert!(texts > 100, "the model writes text, or nothing is tested");
}
