//! One persistent pool of compute threads a context.

use std::{
    ffi::CStr,
    mem,
    ptr::NonNull,
    sync::{Arc, Mutex, PoisonError},
    thread,
};

use llama_cpp_sys_2 as sys;

use super::{
    ffi::{ThreadpoolFree, ThreadpoolNew},
    process::Registered,
};

/// Most threads that ggml's pool takes (`GGML_MAX_N_THREADS`).
pub(super) const MAX_THREADS: u32 = 512;

/// How long a thread spins for the next graph before it sleeps, in units of 131072 pauses: a few milliseconds where a pause takes 40
/// cycles or more, a fraction of one elsewhere, which is still longer than it takes to choose a token. ggml's default is 50, which
/// keeps all CPUs busy for up to a third of a second after every reply.
const POLL: u32 = 1;

/// Owner of a tier's `ggml_threadpool`.
#[derive(Debug)]
pub(super) struct Threadpool {
    raw: NonNull<sys::ggml_threadpool>,
    free: ThreadpoolFree,
}

// SAFETY: the pool is used by one context at a time, and its functions may be called from any thread.
unsafe impl Send for Threadpool {}

impl Threadpool {
    /// Starts `threads` - 1 threads, which keep to `cpus`; the thread that decodes is the last one, and goes where it likes.
    /// `None` when the system refuses.
    ///
    /// `threads` is from 1 to [`MAX_THREADS`].
    pub(super) fn new(registered: Registered, threads: u32, cpus: Option<&[u32]>) -> Option<Self> {
        // SAFETY: `ggml_threadpool_new` of this ggml has this signature.
        let new: ThreadpoolNew = unsafe { mem::transmute(procedure(registered, c"ggml_threadpool_new")?) };
        // SAFETY: `ggml_threadpool_free` of this ggml has this signature.
        let free: ThreadpoolFree = unsafe { mem::transmute(procedure(registered, c"ggml_threadpool_free")?) };
        if !can_start(threads) {
            return None;
        }
        let threads = i32::try_from(threads).ok()?;
        // SAFETY: a plain function of its argument.
        let mut params = unsafe { sys::ggml_threadpool_params_default(threads) };
        params.poll = POLL;
        let mut start = move || {
            // SAFETY: `params` is initialised, with a number of threads that the pool can hold.
            let raw = unsafe { new(&mut params) };
            Some(Self { raw: NonNull::new(raw)?, free })
        };
        match cpus {
            Some(cpus) => on_cpus(cpus, start)?,
            None => start(),
        }
    }

    pub(super) fn as_ptr(&self) -> sys::ggml_threadpool_t {
        self.raw.as_ptr()
    }
}

impl Drop for Threadpool {
    fn drop(&mut self) {
        // SAFETY: `free` belongs to the tier that made the pool, and the context that used it is gone.
        unsafe { (self.free)(self.raw.as_ptr()) };
    }
}

/// Whether the system lets this process have `threads` threads now. ggml asserts that each of them starts, and a limit on
/// processes (`ulimit -u`, a container's `pids.max`) would abort the program. Another process may still take the last one
/// in between; that cannot be ruled out from here.
fn can_start(threads: u32) -> bool {
    let gate = Arc::new(Mutex::new(()));
    // The threads wait until all were asked for, so that they exist at the same time.
    let held = gate.lock().unwrap_or_else(PoisonError::into_inner);
    let wait = |gate: Arc<Mutex<()>>| move || drop(gate.lock());
    let started: Vec<_> = (1..threads).map(|_| thread::Builder::new().spawn(wait(Arc::clone(&gate)))).collect();
    let all = started.iter().all(Result::is_ok);
    drop(held);
    for thread in started.into_iter().flatten() {
        // It only waited: there is nothing to learn from how it ended.
        let _ = thread.join();
    }
    all
}

/// Calls from a thread that keeps to `cpus`: the threads that it starts inherit that. The mask that ggml's pool takes would
/// bind the calling thread too, for good, and that one is not ours.
fn on_cpus<R: Send>(cpus: &[u32], call: impl FnOnce() -> R + Send) -> Option<R> {
    let bound = || {
        keep_to(cpus);
        call()
    };
    thread::scope(|scope| thread::Builder::new().spawn_scoped(scope, bound).ok()?.join().ok())
}

/// Binds the calling thread. Where that fails, the scheduler goes on to decide by itself.
#[cfg(target_os = "linux")]
fn keep_to(cpus: &[u32]) {
    let mut mask = [0_u64; 128];
    for &cpu in cpus {
        if let Some(word) = mask.get_mut(cpu as usize / 64) {
            *word |= 1 << (cpu % 64);
        }
    }
    // SAFETY: the kernel reads as many bytes as `mask` has; 0 is the calling thread.
    unsafe { libc::sched_setaffinity(0, size_of_val(&mask), mask.as_ptr().cast()) };
}

#[cfg(not(target_os = "linux"))]
fn keep_to(_: &[u32]) {}

fn procedure(registered: Registered, name: &CStr) -> Option<*mut std::ffi::c_void> {
    // SAFETY: the registration is static and the name NUL-terminated.
    let address = unsafe { sys::ggml_backend_reg_get_proc_address(registered.as_ptr(), name.as_ptr()) };
    (!address.is_null()).then_some(address)
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::on_cpus;
    use crate::hardware::Hardware;

    #[test]
    fn only_the_threads_of_the_pool_are_bound() {
        let allowed = || Hardware::detect().topology.allowed_cpus;
        let before = allowed();
        let last = before.last().copied().into_iter().collect::<Vec<_>>();
        let started = on_cpus(&last, || std::thread::spawn(allowed).join().unwrap());
        assert_eq!(started, Some(last));
        assert_eq!(allowed(), before);
    }
}
