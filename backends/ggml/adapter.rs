//! LoRA adapters of llama.cpp.

use std::{any::Any, ffi::CString, path::Path, ptr::NonNull, sync::Arc};

use llama_cpp_sys_2 as sys;

use super::{
    ENGINE, ffi,
    log::capture_errors,
    model::{LlamaModel, message},
    process::{self, Reentered},
};
use crate::backend::{AdapterEngineError, BackendAdapter};

/// Owner of a `llama_adapter_lora`.
#[derive(Debug)]
pub(super) struct LlamaAdapter {
    raw: NonNull<sys::llama_adapter_lora>,
    pub(super) model: Arc<LlamaModel>,
}

// SAFETY: an adapter is only read once it is loaded; the list that its model keeps is changed under a lock.
unsafe impl Send for LlamaAdapter {}
// SAFETY: as above.
unsafe impl Sync for LlamaAdapter {}

impl LlamaAdapter {
    pub(super) fn load(model: Arc<LlamaModel>, path: &Path) -> Result<Self, AdapterEngineError> {
        let refused = |message: String| AdapterEngineError::Refused { engine: ENGINE, message };
        let text = path.to_str().ok_or_else(|| refused("the path is not UTF-8".to_owned()))?;
        let text = CString::new(text).map_err(|error| refused(error.to_string()))?;
        // The adapter's weights go where the tier's own plain ones go.
        let (raw, errors) = process::with_cpu(Some(model.registration), |_| {
            let _list = model.lock_adapters();
            // SAFETY: the model is valid, and the path a C string. Nothing else changes the model's list of adapters.
            capture_errors(|| unsafe { ffi::gl_adapter_load(model.raw.as_ptr(), text.as_ptr()) })
        })
        .map_err(|Reentered| refused(Reentered.to_string()))?;
        let raw = NonNull::new(raw).ok_or_else(|| refused(message(errors)))?;
        Ok(Self { raw, model })
    }

    pub(super) fn as_ptr(&self) -> *mut sys::llama_adapter_lora {
        self.raw.as_ptr()
    }
}

impl Drop for LlamaAdapter {
    fn drop(&mut self) {
        let _list = self.model.lock_adapters();
        // SAFETY: loaded by us and freed once, before its model; contexts that use it hold an `Arc` of this owner.
        unsafe { sys::llama_adapter_lora_free(self.raw.as_ptr()) };
    }
}

impl BackendAdapter for LlamaAdapter {
    fn as_any(&self) -> &dyn Any {
        self
    }
}
