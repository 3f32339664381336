//! The one process-wide piece of state that llama.cpp has: ggml's registry of backends.
//!
//! libllama takes the first CPU device of the registry when it loads a model or creates a context, and what it created
//! keeps that device's function pointers afterwards. So the tier is a property of a model, chosen by which registration
//! stands in the registry during the call. [`with_cpu`] holds a lock around it: models of different tiers live side by
//! side; loading them and opening their contexts exclude each other.

#[cfg(feature = "bitnet")]
use std::num::NonZeroU32;
use std::{
    cell::Cell,
    sync::{Mutex, Once, PoisonError},
};

use llama_cpp_sys_2 as sys;

use super::{ffi, log};

/// A tier's functions. Must be called only on a CPU that has the tier's features.
#[derive(Clone, Copy)]
pub(crate) struct CpuRegistration {
    /// `ggml_backend_cpu_reg`.
    register: unsafe extern "C" fn() -> sys::ggml_backend_reg_t,
    ternary: Option<TernaryKernels>,
    /// The threads that repack the ternary weights of models that are loaded next; 0: they stay as ggml has them.
    packing_threads: i32,
}

/// The tier's ternary kernels: functions of `backends/bitnet/kernels/buffer.cpp`.
#[derive(Clone, Copy)]
pub(crate) struct TernaryKernels {
    /// `gguf_loader_ternary`.
    pub(crate) pack: unsafe extern "C" fn(i32),
    /// `gguf_loader_multiply_adds`.
    pub(crate) multiply_adds: unsafe extern "C" fn(i64) -> i64,
}

impl CpuRegistration {
    /// # Safety
    ///
    /// The functions are the tier's renamed ones, and whoever passes the value to [`with_cpu`] or calls
    /// [`multiply_adds`](Self::multiply_adds) has made sure that the CPU can execute the tier.
    pub(crate) const unsafe fn new(
        register: unsafe extern "C" fn() -> sys::ggml_backend_reg_t,
        ternary: Option<TernaryKernels>,
    ) -> Self {
        Self { register, ternary, packing_threads: 0 }
    }

    /// The same tier, with the ternary kernels in the place of ggml's, and `threads` that repack weights for them.
    #[cfg(feature = "bitnet")]
    pub(crate) const fn with_ternary_kernels(mut self, threads: NonZeroU32) -> Self {
        self.packing_threads = threads.get().cast_signed();
        self
    }

    /// Does multiply-adds on registers alone with the instructions of the ternary kernels, and says how many.
    pub(crate) fn multiply_adds(self, rounds: u32) -> Option<u64> {
        let kernels = self.ternary.filter(|_| self.packing_threads > 0)?;
        // SAFETY: the caller of `new` made sure that the CPU can execute the tier.
        let done = unsafe { (kernels.multiply_adds)(i64::from(rounds)) };
        u64::try_from(done).ok().filter(|&done| done > 0)
    }

    /// Prepares the tier and hands out its registration.
    fn registration(self) -> Registered {
        if let Some(kernels) = self.ternary {
            // SAFETY: the caller of `new` made sure that the CPU can execute the tier.
            unsafe { (kernels.pack)(self.packing_threads) };
        }
        // SAFETY: as above.
        Registered(unsafe { (self.register)() })
    }
}

impl std::fmt::Debug for CpuRegistration {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("CpuRegistration")
    }
}

/// A registration that ggml has handed out; lives as long as the process.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Registered(sys::ggml_backend_reg_t);

// SAFETY: registrations are static data of ggml; the functions used on them here only read.
unsafe impl Send for Registered {}

impl Registered {
    pub(crate) fn as_ptr(self) -> sys::ggml_backend_reg_t {
        self.0
    }
}

thread_local! {
    /// Whether this thread is within [`with_cpu`].
    static INSIDE: Cell<bool> = const { Cell::new(false) };
}

/// [`with_cpu`] was called from within itself: by a progress closure or a log subscriber that loads a model or opens a
/// context. Waiting for the lock would never end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("called from within the progress report or the log of another load; do it after that load")]
pub(crate) struct Reentered;

/// Says that the thread has left, also when a panic takes it out.
struct Inside;

impl Inside {
    fn enter() -> Result<Self, Reentered> {
        if INSIDE.replace(true) { Err(Reentered) } else { Ok(Self) }
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        INSIDE.set(false);
    }
}

static CURRENT: Mutex<Option<Registered>> = Mutex::new(None);
static INITIALISE: Once = Once::new();

/// Runs `call` while `registration`, or none, is the registry's CPU. Calls of several threads wait for each other.
pub(crate) fn with_cpu<R>(
    registration: Option<CpuRegistration>,
    call: impl FnOnce(Option<Registered>) -> R,
) -> Result<R, Reentered> {
    let _inside = Inside::enter()?;
    INITIALISE.call_once(|| {
        log::install();
        // SAFETY: called once, before any other function of llama.cpp.
        unsafe { sys::llama_backend_init() };
    });
    // The state is valid at every point where a panic could poison the lock.
    let mut current = CURRENT.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(registration) = registration {
        let wanted = registration.registration();
        if *current != Some(wanted) {
            if let Some(previous) = current.take() {
                // SAFETY: `previous` is registered, and the lock keeps others from the registry. Models that were
                // created with it keep its functions, which are static code.
                unsafe { sys::ggml_backend_unload(previous.0) };
            }
            // SAFETY: `wanted` is a registration of ggml, and the lock keeps others from here. Nothing is allocated before the
            // first registration was here, nor in a tier's extra types before the tier was.
            unsafe { ffi::gl_ask_for_huge_pages(wanted.0) };
            // SAFETY: `wanted` is a registration of ggml, and the lock keeps others from the registry.
            unsafe { sys::ggml_backend_register(wanted.0) };
            *current = Some(wanted);
        }
    }
    Ok(call(*current))
}
