//! Memory that is not to be had in the middle of a computation is an error, and the context goes on. Alone in its process, whose C++
//! allocations of arrays it can make fail.
#![cfg(all(target_os = "linux", feature = "cpu", feature = "synth"))]

use std::{
    ffi::c_void,
    ops::ControlFlow,
    sync::atomic::{AtomicBool, AtomicU32, Ordering},
};

use gguf_loader::{
    Context, LoadOptions, Model,
    backend::{Batch, ContextOptions, DecodeError, SequenceEdit},
    gguf::synth::SyntheticModel,
    hardware::Hardware,
    select::{ChooseOptions, Policy, Registry},
};

static IS_FULL: AtomicBool = AtomicBool::new(false);
static REFUSED: AtomicU32 = AtomicU32::new(0);

unsafe extern "C-unwind" {
    fn malloc(bytes: usize) -> *mut c_void;
    /// `std::__throw_bad_alloc()`.
    fn _ZSt17__throw_bad_allocv() -> !;
}

fn allocated(bytes: usize) -> *mut c_void {
    if IS_FULL.load(Ordering::SeqCst) {
        REFUSED.fetch_add(1, Ordering::SeqCst);
        return std::ptr::null_mut();
    }
    // SAFETY: any size may be asked for.
    unsafe { malloc(bytes) }
}

/// `operator new[](size_t)`, in place of the standard library's; what that one's `delete` frees comes from `malloc`, too.
#[unsafe(no_mangle)]
extern "C-unwind" fn _Znam(bytes: usize) -> *mut c_void {
    let memory = allocated(bytes);
    if memory.is_null() {
        // SAFETY: C++ expects the exception here, and nothing of Rust's is left behind.
        unsafe { _ZSt17__throw_bad_allocv() };
    }
    memory
}

/// `operator new[](size_t, const std::nothrow_t &)`.
#[unsafe(no_mangle)]
extern "C" fn _ZnamRKSt9nothrow_t(bytes: usize, _: *const c_void) -> *mut c_void {
    allocated(bytes)
}

/// Decodes so many tokens where the context ends.
fn decode(context: &mut Context, tokens: u32) -> Result<Vec<f32>, DecodeError> {
    let tokens: Vec<u32> = (0..tokens).map(|index| 3 + index % 50).collect();
    let mut batch = Batch::new();
    batch.extend(&tokens, context.next_position(0), 0);
    context.decode(&batch)?;
    Ok(context.logits(tokens.len() - 1).expect("logits of the last token").to_vec())
}

#[test]
fn a_computation_without_memory_is_an_error_and_the_context_goes_on() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("tiny.gguf");
    SyntheticModel::tiny().write_file(&path).expect("the model is written");
    let (registry, hardware) = (Registry::global().expect("the registry is sound"), Hardware::detect());
    let tiers = registry.iter().filter(|backend| backend.id().starts_with("cpu-"));
    for id in tiers.filter(|backend| backend.devices(&hardware).is_ok()).map(|backend| backend.id()) {
        let options =
            LoadOptions::default().with_choose(ChooseOptions::default().with_policy(Policy::Named(id.to_owned())));
        let model = Model::load_with(&path, &options, |_| ControlFlow::Continue(())).expect("the tier can run");
        let mut context = model.context(&ContextOptions::default()).expect("the context opens");
        // What one token is computed in is too little for many.
        decode(&mut context, 1).expect("there is memory");
        for round in 0..2 {
            IS_FULL.store(true, Ordering::SeqCst);
            let failed = decode(&mut context, 200);
            IS_FULL.store(false, Ordering::SeqCst);
            assert!(REFUSED.swap(0, Ordering::SeqCst) > 0, "{id}: nothing was asked for in round {round}");
            assert!(matches!(failed, Err(DecodeError::OutOfMemory { tokens: 200 })), "{id}: {failed:?}");
        }
        context.edit(SequenceEdit::Clear).expect("the cache can be emptied");
        let found = decode(&mut context, 200).expect("there is memory again");
        let mut fresh = model.context(&ContextOptions::default()).expect("the context opens");
        assert!(found == decode(&mut fresh, 200).expect("there is memory"), "{id}");
    }
}
