//! llama.cpp's log: to `tracing`, and its error lines to whoever waits for a reason.

use std::{
    cell::RefCell,
    ffi::{CStr, c_char, c_void},
    panic,
};

use llama_cpp_sys_2 as sys;

use super::ffi::LogLevel;

const TARGET: &str = "gguf_loader::llama_cpp";

thread_local! {
    static LINES: RefCell<Lines> = const { RefCell::new(Lines { level: 0, text: String::new(), errors: None }) };
}

/// What this thread has logged so far.
struct Lines {
    /// Level of the line that `text` begins.
    level: LogLevel,
    /// A line that has not ended yet: llama.cpp continues lines in further calls.
    text: String,
    /// Error lines since [`capture_errors`] began, if it has.
    errors: Option<Vec<String>>,
}

/// Sends all log output of ggml and llama.cpp to `tracing`.
pub(super) fn install() {
    // SAFETY: `callback` has the expected signature, keeps no state behind the user pointer, and never unwinds.
    unsafe { sys::llama_log_set(Some(callback), std::ptr::null_mut()) };
}

/// Runs `call` and returns the error lines that llama.cpp logged on this thread meanwhile, joined.
pub(super) fn capture_errors<R>(call: impl FnOnce() -> R) -> (R, String) {
    // A callback may capture within a capture: the outer one goes on afterwards.
    let outer = LINES.with_borrow_mut(|lines| lines.errors.replace(Vec::new()));
    let result = call();
    let errors = LINES.with_borrow_mut(|lines| std::mem::replace(&mut lines.errors, outer)).unwrap_or_default();
    (result, errors.join("; "))
}

unsafe extern "C" fn callback(level: sys::ggml_log_level, text: *const c_char, _user: *mut c_void) {
    if text.is_null() {
        return;
    }
    // SAFETY: ggml passes a NUL-terminated string that lives for the call.
    let text = unsafe { CStr::from_ptr(text) }.to_string_lossy();
    // A subscriber is foreign code: its panic must not cross into C.
    let _ = panic::catch_unwind(|| receive(level as LogLevel, &text));
}

fn receive(level: LogLevel, text: &str) {
    let finished = LINES.with(|lines| {
        // Logging from within a subscriber of this thread: nothing can be kept, nothing is lost but the line.
        let Ok(mut lines) = lines.try_borrow_mut() else { return None };
        if level != sys::GGML_LOG_LEVEL_CONT as LogLevel {
            lines.level = level;
            lines.text.clear();
        }
        lines.text.push_str(text);
        if !lines.text.ends_with('\n') {
            return None;
        }
        let line = std::mem::take(&mut lines.text).trim_end().to_owned();
        let mut level = lines.level;
        if let Some(errors) = &mut lines.errors {
            if level == sys::GGML_LOG_LEVEL_ERROR as LogLevel {
                errors.push(line.clone());
            }
            // Whoever waits for a reason reports it, if it is one: a cancelled decode logs errors too. Warnings that follow an
            // error are about what became of it.
            if !errors.is_empty() {
                level = sys::GGML_LOG_LEVEL_INFO as LogLevel;
            }
        }
        Some((level, line))
    });
    if let Some((level, line)) = finished.filter(|(_, line)| !line.is_empty()) {
        emit(level, &line);
    }
}

/// llama.cpp's information lines are details of its own to us: they arrive one level lower.
fn emit(level: LogLevel, line: &str) {
    const ERROR: LogLevel = sys::GGML_LOG_LEVEL_ERROR as LogLevel;
    const WARN: LogLevel = sys::GGML_LOG_LEVEL_WARN as LogLevel;
    const INFO: LogLevel = sys::GGML_LOG_LEVEL_INFO as LogLevel;
    match level {
        ERROR => tracing::error!(target: TARGET, "{line}"),
        WARN => tracing::warn!(target: TARGET, "{line}"),
        INFO => tracing::debug!(target: TARGET, "{line}"),
        _ => tracing::trace!(target: TARGET, "{line}"),
    }
}
