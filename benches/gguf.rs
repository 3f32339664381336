//! How long it takes to open and validate a model file, and to write one.
//!
//! Opening is on the way of every start. The goal: the header of SmolLM2-135M (49152 tokens, 272 tensors) in under
//! 10 ms. The data of the tensors is one row each; it is not read.
#![allow(missing_docs, reason = "criterion's macros generate undocumented items")]

use std::{hint::black_box, io};

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use gguf_loader::gguf::{Gguf, TensorType, Writer};

const TENSORS: usize = 300;

/// A llama file with a byte-level vocabulary of `tokens` tokens, as many merges, and 300 tensors.
fn model(tokens: usize) -> Writer {
    let mut writer = Writer::new();
    writer
        .set("general.architecture", "llama")
        .set("llama.context_length", 8192_u32)
        .set("llama.embedding_length", 576_u32)
        .set("llama.block_count", 30_u32)
        .set("llama.attention.head_count", 9_u32)
        .set("llama.attention.head_count_kv", 3_u32)
        .set("tokenizer.ggml.model", "gpt2")
        .set("tokenizer.ggml.tokens", (0..tokens).map(|id| format!("Ġtok{id}")).collect::<Vec<_>>())
        .set("tokenizer.ggml.token_type", vec![1_i32; tokens])
        .set("tokenizer.ggml.merges", (0..tokens).map(|id| format!("Ġt ok{id}")).collect::<Vec<_>>());
    for index in 0..TENSORS {
        let name = format!("blk.{}.ffn_up_{index}.weight", index / 10);
        writer.add_tensor(name, &[576, 2], TensorType::Q4_1, vec![0; 720]).expect("the shape is possible");
    }
    writer
}

fn gguf(criterion: &mut Criterion) {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let mut group = criterion.benchmark_group("gguf");
    for tokens in [49_152, 128_256] {
        let path = folder.path().join(format!("{tokens}.gguf"));
        let writer = model(tokens);
        writer.write_file(&path).expect("the temporary folder has room");
        group.bench_function(BenchmarkId::new("open", tokens), |bencher| {
            bencher.iter(|| Gguf::open(black_box(&path)).expect("the file is valid"));
        });
        group.bench_function(BenchmarkId::new("write", tokens), |bencher| {
            bencher.iter(|| writer.write(io::sink()).expect("a sink takes everything"));
        });
    }
    let gguf = Gguf::open(folder.path().join("49152.gguf")).expect("the file is valid");
    group.bench_function("profile", |bencher| bencher.iter(|| gguf.profile().expect("the file is a model")));
    group.finish();
}

criterion_group!(benches, gguf);
criterion_main!(benches);
