//! Damaged copies of good files: every truncation and every flipped byte gives a value or a typed error.

use std::sync::LazyLock;

use gguf_loader::gguf::{Gguf, TensorType, Value, Writer};
use proptest::{collection::vec, prelude::*};

/// One key of each type, two tensors.
fn small() -> Vec<u8> {
    let mut writer = Writer::new();
    writer
        .set("general.architecture", "llama")
        .set("llama.block_count", 1_u32)
        .set("llama.attention.head_count", vec![2_u32])
        .set("llama.embedding_length", 32_u32)
        .set("tokenizer.ggml.model", "llama")
        .set("tokenizer.ggml.tokens", vec!["<unk>", "<s>", "</s>", "a"])
        .set("tokenizer.ggml.token_type", vec![2_i32, 3, 3, 1])
        .set("f64", 0.5_f64)
        .set("bools", vec![true, false])
        .set("u64", vec![1_u64, 2])
        .set("i8", -1_i8);
    writer.add_tensor("blk.0.attn_q.weight", &[32, 2], TensorType::Q8_0, vec![7; 68]).unwrap();
    writer.add_tensor("output_norm.weight", &[3], TensorType::F32, vec![0; 12]).unwrap();
    super::bytes(&writer)
}

/// The most address space that the process ever had, in bytes.
fn peak_memory() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmPeak:"))?;
    Some(line.trim().trim_end_matches(" kB").parse::<u64>().ok()? * 1024)
}

#[test]
fn truncation_at_every_byte_is_an_error() {
    let file = small();
    let gguf = Gguf::parse(&file).unwrap();
    let last = gguf.tensors().last().unwrap();
    let end = (last.offset + last.bytes) as usize;
    for length in 0..end {
        let error = Gguf::parse(&file[..length]).expect_err("the file misses bytes");
        assert!(!error.to_string().is_empty());
    }
    assert!(Gguf::parse(&file[..end]).is_ok(), "the padding at the end may be missing");
}

#[test]
fn any_flipped_byte_is_read_or_refused_within_bounded_memory() {
    let file = small();
    let header = Gguf::parse(&file).unwrap().tensors()[0].offset as usize;
    let before = peak_memory();
    let mut refused = 0;
    for index in 0..header {
        for flip in [1, 2, 4, 8, 16, 32, 64, 128, 0xff, 0x7f] {
            let mut damaged = file.clone();
            damaged[index] ^= flip;
            match Gguf::parse(&damaged) {
                Ok(gguf) => exercise(&gguf),
                Err(error) => {
                    refused += 1;
                    assert!(!error.to_string().is_empty());
                }
            }
        }
    }
    assert!(refused > header, "most flips hit a length, a type or a name that matters: {refused} of {header} bytes");
    match (before, peak_memory()) {
        // Other tests run beside this one; a count that is believed asks for much more.
        (Some(before), Some(after)) => assert!(after - before < 2 << 30, "{before} bytes before, {after} after"),
        _ => println!("skipped: this system does not report its peak memory"),
    }
}

/// Everything that can be asked of an accepted file.
fn exercise(gguf: &Gguf) {
    let _ = gguf.profile();
    let _ = gguf.memory(4096, 2).total();
    let quantization = gguf.quantization();
    assert!(quantization.bits_per_weight.is_finite());
    for tensor in gguf.tensors() {
        assert_eq!(gguf.read_tensor(tensor).unwrap().len() as u64, tensor.bytes);
    }
    for (key, value) in gguf.metadata().iter() {
        assert!(gguf.metadata().get(key) == Some(value) || matches!(value, Value::F64(number) if number.is_nan()));
        assert!(!value.to_string().is_empty());
    }
}

static MODEL: LazyLock<Vec<u8>> = LazyLock::new(|| super::bytes(&super::model()));

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn several_changed_bytes_are_read_or_refused(changes in vec((any::<prop::sample::Index>(), any::<u8>()), 1..6)) {
        let mut damaged = MODEL.clone();
        let header = Gguf::parse(&damaged).unwrap().tensors()[0].offset as usize;
        for (index, byte) in changes {
            damaged[index.index(header)] = byte;
        }
        if let Ok(gguf) = Gguf::parse(&damaged) {
            exercise(&gguf);
        }
    }
}
