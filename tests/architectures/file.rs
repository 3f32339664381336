//! A model file as lists that a test can change before it is written.

use std::path::Path;

use gguf_loader::gguf::{TensorType, Value, Writer};

/// Keys and tensors in the order of the file.
#[derive(Debug, Clone)]
pub(crate) struct ModelFile {
    pub(crate) keys: Vec<(String, Value)>,
    pub(crate) tensors: Vec<Tensor>,
}

/// A tensor; its weights are drawn when the file is written.
#[derive(Debug, Clone)]
pub(crate) struct Tensor {
    pub(crate) name: String,
    /// Row length first.
    pub(crate) shape: Vec<u64>,
    pub(crate) tensor_type: TensorType,
}

impl ModelFile {
    /// `general.architecture`.
    pub(crate) fn architecture(&self) -> &str {
        let key = self.keys.iter().find(|(key, _)| key == "general.architecture");
        key.and_then(|(_, value)| value.as_str()).unwrap_or_default()
    }

    /// Sets a key, in its place if it is there.
    pub(crate) fn set(&mut self, key: &str, value: impl Into<Value>) {
        let value = value.into();
        match self.keys.iter_mut().find(|(other, _)| other == key) {
            Some((_, old)) => *old = value,
            None => self.keys.push((key.to_owned(), value)),
        }
    }

    /// Writes the file. A shape that no writer accepts, such as half a block, writes nothing and is `false`.
    pub(crate) fn write(&self, path: &Path) -> bool {
        let mut writer = Writer::new();
        for (key, value) in &self.keys {
            writer.set(key, value.clone());
        }
        for tensor in &self.tensors {
            let Some(bytes) = tensor.tensor_type.bytes_of(&tensor.shape) else { return false };
            let data = tensor.data(bytes as usize);
            if writer.add_tensor(&tensor.name, &tensor.shape, tensor.tensor_type, data).is_err() {
                return false;
            }
        }
        writer.write_file(path).is_ok()
    }
}

impl Tensor {
    /// Numbers that keep a model finite: norms are 1, weights small, and the same in every run. Types without an
    /// encoding here are zeros.
    fn data(&self, bytes: usize) -> Vec<u8> {
        let TensorType::F32 = self.tensor_type else { return vec![0; bytes] };
        let is_norm = self.name.ends_with("norm.weight") || self.name.ends_with("_ln.weight");
        let scale = 1.0 / (self.shape[0] as f32).sqrt();
        let mut state = self.name.bytes().fold(1_u32, |state, byte| state.wrapping_mul(31).wrapping_add(byte.into()));
        let weight = |_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let noise = scale * ((state >> 8) as f32 / (1 << 23) as f32 - 1.0);
            if is_norm { 1.0 } else { noise }
        };
        (0..bytes / 4).map(weight).flat_map(f32::to_le_bytes).collect()
    }
}
