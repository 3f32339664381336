//! What can be wrong with a file whose frame is sound: a key or tensor that is missing, odd, or of another architecture.

use gguf_loader::gguf::{TensorType, Value};

use crate::{
    file::ModelFile,
    models::{BLOCKS, FAMILIES},
};

/// A file, and what was done to it.
pub(crate) struct Variant {
    pub(crate) what: String,
    pub(crate) file: ModelFile,
}

/// The sound file, then every damage to it.
pub(crate) fn variants(sound: &ModelFile) -> Vec<Variant> {
    let mut all = vec![Variant { what: "sound".to_owned(), file: sound.clone() }];
    keys(sound, &mut all);
    added_keys(sound, &mut all);
    tensors(sound, &mut all);
    disguises(sound, &mut all);
    all
}

/// Numbers that programs trip over.
const INTEGERS: [u32; 10] = [0, 1, 2, 3, 7, 48, 1 << 16, i32::MAX as u32, 1 << 31, u32::MAX];
const FLOATS: [f32; 6] = [0.0, -1.0, 1e30, f32::NAN, f32::INFINITY, f32::NEG_INFINITY];

fn odd_values(value: &Value) -> Vec<Value> {
    let mut odd: Vec<Value> = match value {
        Value::U32(_) => INTEGERS.map(Value::from).into(),
        Value::F32(_) => FLOATS.map(Value::from).into(),
        Value::Bool(value) => vec![(!value).into()],
        Value::String(_) => vec!["".into(), "none".into(), "llama".into(), "gpt2".into(), "bert".into(), "rwkv".into()],
        // An array may also be too short, or of other numbers.
        _ => vec![vec![0_i32].into(), vec![-1_i32; 3].into(), vec![f32::NAN].into(), vec!["a"].into()],
    };
    if let Value::U32(_) = value {
        odd.extend([(-1_i32).into(), 1.5_f32.into(), vec![1_u32].into(), vec![0_u32, 2].into()]);
    }
    odd.push("text".into());
    odd
}

fn keys(sound: &ModelFile, all: &mut Vec<Variant>) {
    for (index, (key, value)) in sound.keys.iter().enumerate() {
        let mut file = sound.clone();
        file.keys.remove(index);
        all.push(Variant { what: format!("without {key}"), file });
        for odd in odd_values(value) {
            let mut file = sound.clone();
            let what = format!("{key} = {odd}");
            file.keys[index].1 = odd;
            all.push(Variant { what, file });
        }
    }
}

/// Keys that an architecture may have and this file has not.
fn added_keys(sound: &ModelFile, all: &mut Vec<Variant>) {
    const INTEGER_KEYS: &[&str] = &[
        "attention.key_length",
        "attention.value_length",
        "attention.sliding_window",
        "attention.sliding_window_pattern",
        "expert_count",
        "expert_used_count",
        "rope.dimension_count",
        "rope.scaling.original_context_length",
        "nextn_predict_layers",
        "pooling_type",
        "ssm.conv_kernel",
        "wkv.head_size",
        "token_shift_count",
    ];
    const FLOAT_KEYS: &[&str] = &[
        "attention.clamp_kqv",
        "attention.max_alibi_bias",
        "attention.scale",
        "attn_logit_softcapping",
        "final_logit_softcapping",
        "logit_scale",
        "residual_scale",
        "rope.freq_base",
        "rope.scaling.factor",
        "rope.scaling.attn_factor",
        "rope.scaling.yarn_log_multiplier",
    ];
    let mut add = |name: &str, value: Value| {
        let key = format!("{}.{name}", sound.architecture());
        if sound.keys.iter().any(|(other, _)| *other == key) {
            return;
        }
        let mut file = sound.clone();
        let what = format!("{key} = {value}");
        file.set(&key, value);
        all.push(Variant { what, file });
    };
    for name in INTEGER_KEYS {
        INTEGERS.iter().for_each(|&value| add(name, value.into()));
    }
    for name in FLOAT_KEYS {
        FLOATS.iter().for_each(|&value| add(name, value.into()));
    }
    for value in [true, false] {
        add("attention.causal", value.into());
        add("use_parallel_residual", value.into());
    }
    for scaling in ["linear", "yarn", "longrope"] {
        add("rope.scaling.type", scaling.into());
    }
    add("rope.dimension_sections", vec![4_i32, 4, 0, 0].into());
}

fn tensors(sound: &ModelFile, all: &mut Vec<Variant>) {
    const TYPES: [TensorType; 7] = [
        TensorType::F16,
        TensorType::BF16,
        TensorType::F64,
        TensorType::I32,
        TensorType::Q8_0,
        TensorType::Q8_1,
        TensorType::IQ4_NL,
    ];
    // The last block is like the first.
    let last = format!("blk.{}.", BLOCKS - 1);
    for (index, tensor) in sound.tensors.iter().enumerate().filter(|(_, tensor)| !tensor.name.starts_with(&last)) {
        let name = &tensor.name;
        let mut push = |what: String, change: &dyn Fn(&mut ModelFile)| {
            let mut file = sound.clone();
            change(&mut file);
            all.push(Variant { what, file });
        };
        push(format!("without {name}"), &|file| drop(file.tensors.remove(index)));
        for tensor_type in TYPES {
            push(format!("{name} as {tensor_type}"), &|file| file.tensors[index].tensor_type = tensor_type);
        }
        let sizes = [tensor.shape.iter().rev().copied().collect(), vec![1], [&tensor.shape[..], &[2]].concat()];
        let resized = (0..tensor.shape.len()).flat_map(|dimension| {
            [1, tensor.shape[dimension] / 2, tensor.shape[dimension] * 2, tensor.shape[dimension] + 1].map(|size| {
                let mut shape = tensor.shape.clone();
                shape[dimension] = size.max(1);
                shape
            })
        });
        for shape in sizes.into_iter().chain(resized).filter(|shape| *shape != tensor.shape) {
            push(format!("{name} as {shape:?}"), &|file| file.tensors[index].shape.clone_from(&shape));
        }
    }
}

/// The file says that it is of another architecture, and has that one's keys as well, or only its own under the new name.
fn disguises(sound: &ModelFile, all: &mut Vec<Variant>) {
    let own = sound.architecture().to_owned();
    for (family, build) in FAMILIES {
        let other = build();
        if other.architecture() == own {
            continue;
        }
        let mut renamed = sound.clone();
        for (key, _) in &mut renamed.keys {
            if let Some(name) = key.strip_prefix(&format!("{own}.")) {
                *key = format!("{}.{name}", other.architecture());
            }
        }
        renamed.set("general.architecture", other.architecture());
        let mut with_keys = renamed.clone();
        for (key, value) in other.keys.iter().filter(|(key, _)| key.starts_with(other.architecture())) {
            with_keys.set(key, value.clone());
        }
        let mut with_tensors = with_keys.clone();
        for tensor in other.tensors {
            if with_tensors.tensors.iter().all(|own| own.name != tensor.name) {
                with_tensors.tensors.push(tensor);
            }
        }
        all.push(Variant { what: format!("disguised as {family}"), file: renamed });
        all.push(Variant { what: format!("disguised as {family}, with its keys"), file: with_keys });
        all.push(Variant { what: format!("disguised as {family}, with its keys and tensors"), file: with_tensors });
    }
}
