//! Whole conversions: keys, names and types, shards, progress, breaking off.

use std::{fs, ops::ControlFlow};

use gguf_loader::{
    convert::{ConvertError, ConvertOptions, Embedding, Weights, convert},
    gguf::{Gguf, TensorType},
};

use super::{
    checkpoint::{Checkpoint, LAYERS, TOKENS, Tensor, WIDTH},
    convert_to, converted, floats,
};

#[test]
fn names_types_and_keys_are_those_of_the_architecture() {
    let gguf = converted(&Checkpoint::packed());
    assert_eq!(gguf.architecture().unwrap(), "bitnet-b1.58");
    let metadata = gguf.metadata();
    for (key, value) in [
        ("vocab_size", TOKENS as u64),
        ("context_length", 128),
        ("embedding_length", WIDTH as u64),
        ("block_count", LAYERS as u64),
        ("feed_forward_length", 256),
        ("attention.head_count", 8),
        ("attention.head_count_kv", 1),
        ("rope.dimension_count", 8),
    ] {
        assert_eq!(metadata.u64(&format!("bitnet-b1.58.{key}")).unwrap(), value, "{key}");
    }
    assert_eq!(metadata.f64("bitnet-b1.58.rope.freq_base").unwrap(), 500_000.0);
    assert_eq!(gguf.tensors().len(), 2 + LAYERS * (4 + 2 * 7));
    assert_eq!(gguf.tensor("token_embd.weight").unwrap().tensor_type, TensorType::F16);
    assert_eq!(gguf.tensor("token_embd.weight").unwrap().shape, [WIDTH as u64, TOKENS as u64]);
    assert_eq!(floats(&gguf, "blk.1.ffn_sub_norm.weight"), [1.5; 256]);
    assert_eq!(floats(&gguf, "blk.1.attn_output.scale"), [0.5]);
}

#[test]
fn silu_makes_the_architecture_that_llama_cpp_knows() {
    let mut checkpoint = Checkpoint::master();
    checkpoint.config["hidden_act"] = "silu".into();
    assert_eq!(converted(&checkpoint).architecture().unwrap(), "bitnet");
}

#[test]
fn untied_output_is_a_matrix_of_its_own() {
    let head = Tensor::bf16(&[TOKENS, WIDTH], vec![0.25; TOKENS * WIDTH]);
    let mut checkpoint = Checkpoint::packed();
    checkpoint.tensors.insert("lm_head.weight".to_owned(), head);
    assert!(converted(&checkpoint).tensor("output.weight").is_none(), "a copy of the embedding");
    checkpoint.config["tie_word_embeddings"] = false.into();
    assert_eq!(converted(&checkpoint).tensor("output.weight").unwrap().tensor_type, TensorType::F16);
}

#[test]
fn embedding_is_stored_as_asked_for() {
    let folder = Checkpoint::packed().write();
    let output = folder.path().join("model.gguf");
    for (embedding, tensor_type) in
        [(Embedding::F16, TensorType::F16), (Embedding::Bf16, TensorType::BF16), (Embedding::F32, TensorType::F32)]
    {
        let options = ConvertOptions::default().with_embedding(embedding);
        convert(folder.path(), &output, &options, |_| ControlFlow::Continue(())).unwrap();
        let gguf = Gguf::open(&output).unwrap();
        assert_eq!(gguf.tensor("token_embd.weight").unwrap().tensor_type, tensor_type);
    }
}

#[test]
fn shards_make_the_same_file_as_one() {
    let folder = tempfile::tempdir().unwrap();
    let mut checkpoint = Checkpoint::master();
    checkpoint.config["_name"] = "x".into();
    let file = |checkpoint: &Checkpoint, name: &str| {
        let path = folder.path().join(name);
        let report = convert_to(checkpoint, &path).unwrap();
        // The name of the folder is in the file.
        let gguf = Gguf::open(path).unwrap();
        let data: Vec<_> = gguf.tensors().iter().map(|tensor| gguf.read_tensor(tensor).unwrap()).collect();
        (report, data)
    };
    let whole = file(&checkpoint, "whole.gguf");
    checkpoint.shards = 3;
    assert!(whole == file(&checkpoint, "shards.gguf"));
}

#[test]
fn report_says_what_was_done() {
    let folder = tempfile::tempdir().unwrap();
    let output = folder.path().join("model.gguf");
    for (checkpoint, weights) in [(Checkpoint::packed(), Weights::Packed), (Checkpoint::master(), Weights::Master)] {
        let report = convert_to(&checkpoint, &output).unwrap();
        let gguf = Gguf::open(&output).unwrap();
        assert_eq!((report.architecture.as_str(), report.weights), ("bitnet-b1.58", weights));
        assert_eq!((report.matrices, report.tensors, report.tokens), (14, gguf.tensors().len() as u64, 264));
        assert_eq!(report.bytes, gguf.tensors().iter().map(|tensor| tensor.bytes).sum::<u64>());
    }
}

#[test]
fn progress_rises_from_zero_to_one() {
    let folder = Checkpoint::packed().write();
    let mut reports = Vec::new();
    convert(folder.path(), folder.path().join("model.gguf"), &ConvertOptions::default(), |done| {
        reports.push(done);
        ControlFlow::Continue(())
    })
    .unwrap();
    assert!(reports.is_sorted(), "{reports:?}");
    assert_eq!((reports.first(), reports.last()), (Some(&0.0), Some(&1.0)));
}

#[test]
fn conversion_that_is_broken_off_leaves_the_old_file() {
    let folder = Checkpoint::packed().write();
    let target = tempfile::tempdir().unwrap();
    let output = target.path().join("model.gguf");
    fs::write(&output, "old").unwrap();
    for at in [0.0, 1.0] {
        let broken_off = convert(folder.path(), &output, &ConvertOptions::default(), |done| {
            if done >= at { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        assert!(matches!(broken_off, Err(ConvertError::Cancelled)), "{broken_off:?}");
        assert_eq!(fs::read(&output).unwrap(), b"old");
        assert_eq!(fs::read_dir(target.path()).unwrap().count(), 1);
    }
}

/// The file runs: with matrices of zeros, the blocks add nothing, and what is left can be computed by hand.
#[cfg(feature = "reference")]
#[test]
fn model_of_zeros_scores_each_token_by_its_embedding() {
    use gguf_loader::{
        Model,
        backend::{Batch, ContextOptions},
        model::LoadOptions,
        select::{ChooseOptions, Policy},
    };

    let folder = tempfile::tempdir().unwrap();
    let output = folder.path().join("model.gguf");
    convert_to(&Checkpoint::packed(), &output).unwrap();
    let choose = ChooseOptions::default().with_policy(Policy::Named("reference".to_owned()));
    let options = LoadOptions::default().with_choose(choose);
    let model = Model::load_with(&output, &options, |_| ControlFlow::Continue(())).unwrap();
    let mut context = model.context(&ContextOptions::default()).unwrap();
    let mut batch = Batch::new();
    batch.push(5, 0, 0, true);
    context.decode(&batch).unwrap();
    let logits = context.logits(0).unwrap();

    let embedding = |token: usize| (0..WIDTH).map(move |i| ((token * WIDTH + i) % 31) as f64 / 16.0 - 1.0);
    let mean_square = embedding(5).map(|value| value * value).sum::<f64>() / WIDTH as f64;
    for (token, logit) in logits.iter().enumerate() {
        let product: f64 = embedding(5).zip(embedding(token)).map(|(left, right)| left * right).sum();
        let expected = 1.5 * product / (mean_square + 1e-5).sqrt();
        assert!((f64::from(*logit) - expected).abs() < 1e-3, "token {token}: {logit} instead of {expected}");
    }
}
