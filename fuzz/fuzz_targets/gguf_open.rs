//! Whatever the bytes: a typed error, or a file whose every answer can be asked for and which survives a rewrite.
#![no_main]

use gguf_loader::gguf::{Gguf, Value, Writer};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Ok(gguf) = Gguf::parse(bytes) else { return };
    let _ = gguf.profile();
    let _ = gguf.quantization();
    let _ = gguf.memory(4096, 2).total();

    let mut writer = Writer::new().with_version(gguf.version());
    for (key, value) in gguf.metadata().iter() {
        writer.set(key, value.clone());
    }
    for tensor in gguf.tensors() {
        let data = gguf.read_tensor(tensor).expect("an accepted tensor lies in the file");
        writer.add_tensor(&tensor.name, &tensor.shape, tensor.tensor_type, data).expect("what was read can be written");
    }
    let mut rewritten = Vec::new();
    writer.write(&mut rewritten).expect("a vector takes everything");
    let again = Gguf::parse(&rewritten).expect("what was written can be read");
    for ((key, value), (other_key, other)) in gguf.metadata().iter().zip(again.metadata().iter()) {
        // A NaN differs from itself; its text does not.
        assert!(key == other_key && (value == other || is_nan(value)), "{key}: {value} became {other}");
    }
});

fn is_nan(value: &Value) -> bool {
    format!("{value:?}").contains("NaN")
}
