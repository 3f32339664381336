use std::ops::ControlFlow;

use gguf_loader::{
    adapter::AdapterError,
    gguf::{Array, Gguf, TensorType, Value, Writer, synth::SyntheticModel},
    merge::{MergeError, merge_lora, merge_models},
};

use super::{
    Folder, context, distance, floats, load, logits,
    lora::{merged, write_adapter},
};

pub(crate) fn on(_: f32) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

/// The largest difference of a weight of two models in F32.
pub(crate) fn difference(one: &Gguf, other: &Gguf) -> f32 {
    assert_eq!(one.tensors().len(), other.tensors().len());
    let of = |gguf: &Gguf, name: &str| floats(&gguf.read_tensor(gguf.tensor(name).unwrap()).unwrap());
    one.tensors().iter().fold(0.0, |largest: f32, tensor| {
        let (ours, theirs) = (of(one, &tensor.name), of(other, &tensor.name));
        ours.iter().zip(&theirs).fold(largest, |largest, (ours, theirs)| largest.max((ours - theirs).abs()))
    })
}

#[test]
fn adapters_are_written_into_the_weights() {
    let folder = Folder::new();
    let (one, two) = (write_adapter(&folder, "1.gguf", 1, |_| {}), write_adapter(&folder, "2.gguf", 2, |_| {}));
    let output = folder.path("out.gguf");
    let mut reported = Vec::new();
    let report = merge_lora(folder.base(), &[(&one, 0.5), (&two, -1.0)], &output, |fraction| {
        reported.push(fraction);
        ControlFlow::Continue(())
    });
    let report = report.unwrap();
    assert_eq!((report.changed, report.as_q8_0), (14, 0));
    assert!(reported.is_sorted() && reported.iter().all(|fraction| (0.0..=1.0).contains(fraction)));
    let expected = Gguf::open(merged(&folder, "expected.gguf", &[(1, 0.5), (2, -1.0)])).unwrap();
    assert!(difference(&Gguf::open(&output).unwrap(), &expected) < 1e-5);
    // The keys are the model's, the tokenizer with them.
    let base = Gguf::open(folder.base()).unwrap();
    let keys = |gguf: &Gguf| gguf.metadata().iter().map(|(key, _)| key.to_owned()).collect::<Vec<_>>();
    let kept: Vec<_> = keys(&base).into_iter().filter(|key| key != "general.file_type").collect();
    assert_eq!(keys(&Gguf::open(&output).unwrap()), kept);
}

#[test]
fn a_quantised_model_keeps_the_types_that_can_be_kept() {
    for (tensor_type, stored) in [
        (TensorType::F16, TensorType::F16),
        (TensorType::Q8_0, TensorType::Q8_0),
        (TensorType::Q6_K, TensorType::Q6_K),
        (TensorType::Q4_0, TensorType::Q8_0),
        (TensorType::Q4_K, TensorType::Q8_0),
    ] {
        let folder = Folder::new();
        let quantised = folder.path("quantised.gguf");
        SyntheticModel::tiny().with_type(tensor_type).write_file(&quantised).unwrap();
        let adapter = write_adapter(&folder, "1.gguf", 1, |_| {});
        let output = folder.path("out.gguf");
        let report = merge_lora(&quantised, &[(&adapter, 1.0)], &output, on).unwrap();
        assert_eq!((report.changed, report.as_q8_0), (14, if stored == tensor_type { 0 } else { 14 }), "{tensor_type}");
        let written = Gguf::open(&output).unwrap();
        assert_eq!(written.tensor("blk.0.attn_q.weight").unwrap().tensor_type, stored);
        assert_eq!(written.tensor("token_embd.weight").unwrap().tensor_type, tensor_type, "it is not changed");
        // The same adapter at run time, beside the quantised weights.
        let Some(model) = load(&quantised) else { return };
        let lora = gguf_loader::adapter::LoraAdapter::load(&model, &adapter).unwrap();
        let mut applied = context(&model);
        applied.set_adapters(&[(&lora, 1.0)]).unwrap();
        let (applied, merged) = (logits(&mut applied), logits(&mut context(&load(&output).unwrap())));
        assert!(distance(&merged, &applied) < 0.1, "{tensor_type}: {}", distance(&merged, &applied));
    }
}

#[test]
fn every_type_is_changed_or_refused_as_the_documentation_says() {
    use TensorType::{BF16, F16, F32, Q2_0, Q4_0, Q4_1, Q4_K, Q5_0, Q5_1, Q5_K, Q6_K, Q8_0, TQ1_0, TQ2_0};
    let folder = Folder::new();
    let adapter = write_adapter(&folder, "1.gguf", 1, |_| {});
    let (model, output) = (folder.path("model.gguf"), folder.path("out.gguf"));
    let write = |tensor_type| SyntheticModel::tiny().with_block_type(tensor_type).write_file(&model).unwrap();
    let stored = [F32, F16, BF16, Q8_0, Q6_K].map(|tensor_type| (tensor_type, tensor_type));
    for (tensor_type, stored) in
        stored.into_iter().chain([Q4_0, Q4_1, Q5_0, Q5_1, Q4_K, Q5_K].map(|tensor_type| (tensor_type, Q8_0)))
    {
        write(tensor_type);
        merge_lora(&model, &[(&adapter, 1.0)], &output, on).unwrap();
        let written = Gguf::open(&output).unwrap();
        assert_eq!(written.tensor("blk.0.attn_q.weight").unwrap().tensor_type, stored, "{tensor_type}");
    }
    std::fs::remove_file(&output).unwrap();
    for ternary in [TQ1_0, TQ2_0, Q2_0] {
        write(ternary);
        // In the model that is changed, the first one of a mixture, and the second one.
        for error in [
            merge_lora(&model, &[(&adapter, 1.0)], &output, on).unwrap_err(),
            merge_models(&model, folder.base(), 0.5, &output, on).unwrap_err(),
            merge_models(folder.base(), &model, 0.5, &output, on).unwrap_err(),
        ] {
            match error {
                MergeError::Type { tensor, tensor_type } => {
                    assert!(tensor.starts_with("blk.0.") && tensor_type == ternary, "{tensor}");
                }
                other => panic!("{ternary}: {other}"),
            }
        }
        assert!(!output.exists());
    }
    let left = std::fs::read_dir(folder.path("")).unwrap().count();
    assert_eq!(left, 3, "the base, the model and the adapter");
}

#[test]
fn two_models_are_mixed_by_a_ratio() {
    let folder = Folder::new();
    let other = folder.path("other.gguf");
    SyntheticModel::tiny().with_type(TensorType::F32).with_seed(77).write_file(&other).unwrap();
    let (base, far) = (Gguf::open(folder.base()).unwrap(), Gguf::open(&other).unwrap());
    let apart = difference(&base, &far);
    let mix = |ratio: f32| {
        let output = folder.path("mix.gguf");
        merge_models(folder.base(), &other, ratio, &output, on).unwrap();
        let mixed = Gguf::open(output).unwrap();
        (difference(&mixed, &base) / apart, difference(&mixed, &far) / apart)
    };
    for ratio in [0.0, 0.25, 0.5, 1.0, 1.5] {
        let (from_one, from_other) = mix(ratio);
        assert!(
            (from_one - ratio).abs() < 1e-4 && (from_other - (1.0 - ratio).abs()).abs() < 1e-4,
            "{ratio}: {from_one}, {from_other}"
        );
    }
}

#[test]
fn what_cannot_be_merged_is_an_error_and_leaves_nothing() {
    let folder = Folder::new();
    let adapter = write_adapter(&folder, "1.gguf", 1, |_| {});
    let output = folder.path("out.gguf");
    let lora = |adapter: &std::path::Path, scale: f32| merge_lora(folder.base(), &[(adapter, scale)], &output, on);
    assert!(matches!(lora(&folder.base(), 1.0), Err(MergeError::Adapter(AdapterError::NotAnAdapter { .. }))));
    assert!(matches!(lora(&adapter, f32::NAN), Err(MergeError::Ratio(_))));
    let cancelled = merge_lora(folder.base(), &[(&adapter, 1.0)], &output, |_| ControlFlow::Break(()));
    assert!(matches!(cancelled, Err(MergeError::Cancelled)), "{cancelled:?}");
    let into_itself = merge_lora(folder.base(), &[(&adapter, 1.0)], folder.base(), on);
    assert!(matches!(into_itself, Err(MergeError::SameFile { .. })), "{into_itself:?}");
    let into_adapter = merge_lora(folder.base(), &[(&adapter, 1.0)], &adapter, on);
    assert!(matches!(into_adapter, Err(MergeError::SameFile { .. })), "{into_adapter:?}");
    let nowhere = merge_lora(folder.base(), &[(&adapter, 1.0)], folder.path("no/folder.gguf"), on);
    assert!(matches!(nowhere, Err(MergeError::Write(_))), "{nowhere:?}");

    let wide = folder.path("wide.gguf");
    let mut model = SyntheticModel::tiny().with_type(TensorType::F32);
    model.shape.n_ff *= 2;
    model.write_file(&wide).unwrap();
    let models = |other: &std::path::Path, ratio: f32| merge_models(folder.base(), other, ratio, &output, on);
    assert!(matches!(models(&wide, 0.5), Err(MergeError::Different(text)) if text.contains("ffn_")));
    assert!(matches!(models(&folder.base(), f32::INFINITY), Err(MergeError::Ratio(_))));
    assert!(matches!(models(&folder.path("none.gguf"), 0.5), Err(MergeError::Gguf(_))));
    let left: Vec<_> = std::fs::read_dir(folder.path("")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left.len(), 3, "nothing is left of the output: {left:?}");
}

/// The base with other keys, and the same weights.
fn with_keys(folder: &Folder, change: impl Fn(&mut Writer)) -> std::path::PathBuf {
    let model = Gguf::open(folder.base()).unwrap();
    let mut writer = Writer::new();
    model.metadata().iter().for_each(|(key, value)| _ = writer.set(key, value.clone()));
    change(&mut writer);
    for tensor in model.tensors() {
        let bytes = model.read_tensor(tensor).unwrap();
        writer.add_tensor(&tensor.name, &tensor.shape, tensor.tensor_type, bytes).unwrap();
    }
    let path = folder.path("keys.gguf");
    writer.write_file(&path).unwrap();
    path
}

#[test]
fn models_whose_weights_mean_other_things_are_not_mixed() {
    let folder = Folder::new();
    let merge = |other: &std::path::Path| merge_models(folder.base(), other, 0.5, folder.path("out.gguf"), on);
    let texts = |change: &dyn Fn(&mut Vec<String>)| {
        let model = Gguf::open(folder.base()).unwrap();
        let key = "tokenizer.ggml.tokens";
        let tokens = model.metadata().get(key).and_then(Value::as_array).and_then(Array::as_strings).unwrap().clone();
        let mut tokens: Vec<String> = (0..tokens.len()).map(|index| tokens.text(index).unwrap().into_owned()).collect();
        change(&mut tokens);
        with_keys(&folder, |writer| _ = writer.set(key, tokens.clone()))
    };
    let rope = with_keys(&folder, |writer| _ = writer.set("llama.rope.freq_base", 123_456.0_f32));
    let error = merge(&rope).unwrap_err();
    assert!(matches!(&error, MergeError::Different(text) if text.contains("`llama.rope.freq_base`")), "{error}");
    assert!(error.to_string().contains("123456"), "{error}");
    let extra = with_keys(&folder, |writer| _ = writer.set("llama.rope.scaling.type", "yarn"));
    assert!(merge(&extra).unwrap_err().to_string().contains("`llama.rope.scaling.type` is missing and `yarn`"));
    let renamed = texts(&|tokens| tokens[290] = "another".to_owned());
    let error = merge(&renamed).unwrap_err();
    assert!(error.to_string().contains("token 290") && error.to_string().contains("another"), "{error}");

    // What says nothing about weights may differ, and so may the text of a token that stands for no text.
    let named = with_keys(&folder, |writer| {
        writer.set("general.name", "other").set("llama.context_length", 77_u32);
    });
    merge(&named).unwrap();
    merge(&texts(&|tokens| tokens[2] = "<|end|>".to_owned())).unwrap();
    // The same number in another type.
    let wider = with_keys(&folder, |writer| {
        let heads = Gguf::open(folder.base()).unwrap().metadata().u64("llama.attention.head_count").unwrap();
        writer.set("llama.attention.head_count", Value::U32(heads as u32));
    });
    merge(&wider).unwrap();
}
