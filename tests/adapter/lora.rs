use std::{
    ops::ControlFlow,
    path::{Path, PathBuf},
};

use gguf_loader::{
    Context,
    adapter::{AdapterError, ControlVector, LoraAdapter},
    backend::AdapterEngineError,
    gguf::{
        Gguf, TensorType, Value, Writer,
        synth::{Output, SyntheticModel},
    },
    merge::merge_lora,
    state::{State, StateError},
};

use super::{Folder, bytes, context, distance, floats, load, logits, noise, on_backend};

const RANK: u64 = 3;
const ALPHA: f32 = 6.0;

/// The matrices that the adapters change.
pub(crate) fn is_changed(name: &str) -> bool {
    let stems = ["attn_q", "attn_k", "attn_v", "attn_output", "ffn_up", "ffn_gate", "ffn_down"];
    name.ends_with(".weight") && stems.iter().any(|stem| name.contains(stem))
}

fn seed_of(name: &str, seed: u64) -> u64 {
    name.bytes().fold(seed, |seed, byte| seed.wrapping_mul(31).wrapping_add(byte.into()))
}

/// An adapter's two matrices for weights of so many inputs and outputs, row by row.
fn pair(name: &str, seed: u64, inputs: u64, outputs: u64) -> (Vec<f32>, Vec<f32>) {
    let seed = seed_of(name, seed);
    (noise(seed, (inputs * RANK) as usize, 0.3), noise(seed + 1, (RANK * outputs) as usize, 0.3))
}

pub(crate) fn write_adapter(folder: &Folder, name: &str, seed: u64, change: impl Fn(&mut Writer)) -> PathBuf {
    let mut writer = Writer::new();
    writer.set("general.type", "adapter").set("general.architecture", "llama").set("adapter.type", "lora");
    writer.set("adapter.lora.alpha", ALPHA);
    for tensor in Gguf::open(folder.base()).unwrap().tensors().iter().filter(|tensor| is_changed(&tensor.name)) {
        let (inputs, outputs) = (tensor.shape[0], tensor.shape[1]);
        let (a, b) = pair(&tensor.name, seed, inputs, outputs);
        writer.add_tensor(format!("{}.lora_a", tensor.name), &[inputs, RANK], TensorType::F32, bytes(&a)).unwrap();
        writer.add_tensor(format!("{}.lora_b", tensor.name), &[RANK, outputs], TensorType::F32, bytes(&b)).unwrap();
    }
    change(&mut writer);
    let path = folder.path(name);
    writer.write_file(&path).unwrap();
    path
}

/// The base with adapters' products added to its weights.
pub(crate) fn merged(folder: &Folder, name: &str, adapters: &[(u64, f32)]) -> PathBuf {
    let gguf = Gguf::open(folder.base()).unwrap();
    let change = |name: &str, weights: &mut Vec<f32>| {
        if !is_changed(name) {
            return;
        }
        let (inputs, outputs) = (gguf.tensor(name).unwrap().shape[0], gguf.tensor(name).unwrap().shape[1]);
        // A scale beside the matrix is not the adapter's.
        let beside = gguf.tensor(&name.replace(".weight", ".scale"));
        let unit = beside.map_or(1.0, |scale| floats(&gguf.read_tensor(scale).unwrap())[0]);
        for &(seed, scale) in adapters {
            let (a, b) = pair(name, seed, inputs, outputs);
            for output in 0..outputs as usize {
                for input in 0..inputs as usize {
                    let product = |rank: usize| b[output * RANK as usize + rank] * a[rank * inputs as usize + input];
                    let sum: f32 = (0..RANK as usize).map(product).sum();
                    weights[output * inputs as usize + input] += scale * ALPHA / RANK as f32 * sum / unit;
                }
            }
        }
    };
    folder.changed(name, change, &[])
}

#[test]
fn applied_it_equals_merged_weights() {
    let folder = Folder::new();
    let Some(model) = load(&folder.base()) else { return };
    let (one, two) = (write_adapter(&folder, "1.gguf", 1, |_| {}), write_adapter(&folder, "2.gguf", 2, |_| {}));
    // The context is older than the adapters.
    let mut context = context(&model);
    let base = logits(&mut context);
    let (one, two) = (LoraAdapter::load(&model, one).unwrap(), LoraAdapter::load(&model, two).unwrap());
    assert_eq!((one.matrices(), one.alpha()), (14, Some(ALPHA)));
    type Applied<'a> = &'a [(&'a LoraAdapter, f32)];
    type Merged<'a> = &'a [(u64, f32)];
    let again = one.clone();
    let cases: [(Applied<'_>, Merged<'_>); 5] = [
        (&[(&one, 0.5), (&two, 0.8), (&again, 0.25)], &[(1, 0.75), (2, 0.8)]),
        (&[(&one, 1.0)], &[(1, 1.0)]),
        (&[(&one, -0.4)], &[(1, -0.4)]),
        (&[(&one, 0.5), (&two, 0.8)], &[(1, 0.5), (2, 0.8)]),
        (&[(&two, 1.5), (&one, 0.0)], &[(2, 1.5)]),
    ];
    for (index, (adapters, seeds)) in cases.into_iter().enumerate() {
        context.set_adapters(adapters).unwrap();
        let found = logits(&mut context);
        let expected = load(&merged(&folder, &format!("merged{index}.gguf"), seeds)).unwrap();
        let expected = logits(&mut super::context(&expected));
        assert!(distance(&found, &expected) < 0.01, "case {index}: {}", distance(&found, &expected));
        assert!(distance(&found, &base) > 0.1, "case {index}: it changes nothing");
        // Another context of the model has none.
        assert!(distance(&logits(&mut super::context(&model)), &base) < 1e-6);
    }
    context.set_adapters(&[]).unwrap();
    assert!(distance(&logits(&mut context), &base) < 1e-6, "taken away");
    // A context keeps what it uses.
    context.set_adapters(&[(&one, 1.0)]).unwrap();
    let with = logits(&mut context);
    drop((one, two, again));
    context.edit(gguf_loader::backend::SequenceEdit::Clear).unwrap();
    assert!(distance(&logits(&mut context), &with) < 1e-6);
}

/// Adds a pair for the embedding table, whose halves have changed places.
fn add_embedding(folder: &Folder, writer: &mut Writer) {
    const TABLE: &str = "token_embd.weight";
    let shape = Gguf::open(folder.base()).unwrap().tensor(TABLE).unwrap().shape.clone();
    for (half, seed, rows) in [("a", 3, shape[1]), ("b", 4, shape[0])] {
        let numbers = bytes(&noise(seed, (RANK * rows) as usize, 0.5));
        writer.add_tensor(format!("{TABLE}.lora_{half}"), &[RANK, rows], TensorType::F32, numbers).unwrap();
    }
}

#[test]
fn an_embedding_table_is_adapted_where_it_is_not_the_output_matrix_too() {
    let folder = Folder::with(|base| {
        let mut model = SyntheticModel::tiny().with_type(TensorType::F32);
        model.shape.output = Output::Separate;
        model.write_file(base).unwrap();
    });
    let Some(model) = load(&folder.base()) else { return };
    let path = write_adapter(&folder, "1.gguf", 1, |writer| add_embedding(&folder, writer));
    let merged = folder.path("merged.gguf");
    let go_on = |_| ControlFlow::Continue(());
    merge_lora(folder.base(), &[(&path, 1.0)], &merged, go_on).unwrap();
    let mut context = context(&model);
    context.set_adapters(&[(&LoraAdapter::load(&model, &path).unwrap(), 1.0)]).unwrap();
    let (found, expected) = (logits(&mut context), logits(&mut super::context(&load(&merged).unwrap())));
    assert!(distance(&found, &expected) < 0.01, "{}", distance(&found, &expected));

    let tied = Folder::new();
    let path = write_adapter(&tied, "1.gguf", 1, |writer| add_embedding(&tied, writer));
    let error = LoraAdapter::load(&load(&tied.base()).unwrap(), &path).unwrap_err();
    assert!(matches!(error, AdapterError::Engine(AdapterEngineError::Refused { .. })), "{error:?}");
    assert!(error.to_string().contains("`token_embd.weight`, which is the output matrix"), "{error}");
    let report = merge_lora(tied.base(), &[(&path, 1.0)], tied.path("merged.gguf"), go_on).unwrap();
    assert_eq!(report.changed, 15);
}

#[test]
fn a_state_belongs_to_the_adapters_that_it_was_computed_with() {
    let folder = Folder::new();
    let Some(model) = load(&folder.base()) else { return };
    let (one, two) = (write_adapter(&folder, "1.gguf", 1, |_| {}), write_adapter(&folder, "2.gguf", 2, |_| {}));
    let row = vec![0.5; model.shape().n_embd as usize];
    let direction = ControlVector::load(super::control::write(&folder, "v.gguf", &[("direction.1", &row)])).unwrap();
    let (one, two) = (LoraAdapter::load(&model, one).unwrap(), LoraAdapter::load(&model, two).unwrap());
    let mut saving = context(&model);
    saving.set_adapters(&[(&one, 0.5), (&two, 0.8)]).unwrap();
    logits(&mut saving);
    let state = State::from_bytes(&saving.save().unwrap().to_bytes()).unwrap();

    let mut later = context(&model);
    let other_adapters = |later: &mut Context, state: &State| {
        let error = later.restore(state).unwrap_err();
        assert!(matches!(error, StateError::OtherAdapters { .. }), "{error}");
        error.to_string()
    };
    let text = other_adapters(&mut later, &state);
    assert!(
        text.contains(" at 0.5") && text.contains(" at 0.8") && text.ends_with("and the context has no adapters"),
        "{text}"
    );
    later.set_adapters(&[(&one, 0.5), (&two, 0.7)]).unwrap();
    other_adapters(&mut later, &state);
    later.set_adapters(&[(&two, 0.8), (&one, 0.5)]).unwrap();
    assert_eq!(later.restore(&state).unwrap().kept_tokens, 6);
    later.set_control_vectors(&[(&direction, 1.0)], None).unwrap();
    other_adapters(&mut later, &state);

    // Adapters that no engine takes leave those that were there.
    assert!(later.set_control_vectors(&[], None).is_ok());
    let twin = LoraAdapter::load(&load(&folder.base()).unwrap(), folder.path("1.gguf")).unwrap();
    later.set_adapters(&[(&twin, 1.0)]).unwrap_err();
    assert_eq!(later.restore(&state).unwrap().kept_tokens, 6);
    later.set_adapters(&[]).unwrap();
    other_adapters(&mut later, &state);
}

#[test]
fn many_adapters_come_and_go_beside_running_contexts() {
    let folder = Folder::new();
    let Some(model) = load(&folder.base()) else { return };
    let path = write_adapter(&folder, "1.gguf", 1, |_| {});
    let expected = {
        let adapter = LoraAdapter::load(&model, &path).unwrap();
        let mut context = context(&model);
        context.set_adapters(&[(&adapter, 1.0)]).unwrap();
        logits(&mut context)
    };
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                for _ in 0..15 {
                    let adapter = LoraAdapter::load(&model, &path).unwrap();
                    let mut context = context(&model);
                    context.set_adapters(&[(&adapter, 1.0)]).unwrap();
                    assert!(distance(&logits(&mut context), &expected) < 1e-3);
                }
            });
        }
    });
}

#[test]
fn an_adapter_of_another_model_is_an_error_that_names_what_does_not_fit() {
    let folder = Folder::new();
    let Some(model) = load(&folder.base()) else { return };
    let fails = |path: &Path| LoraAdapter::load(&model, path).unwrap_err();
    let add = |writer: &mut Writer, name: &str, shape: &[u64]| {
        let count = shape.iter().product::<u64>() as usize;
        writer.add_tensor(name, shape, TensorType::F32, bytes(&vec![0.1; count])).unwrap();
    };
    let text = |error: AdapterError| error.to_string();

    let error = fails(&folder.base());
    assert!(matches!(error, AdapterError::NotAnAdapter { .. }), "{error}");
    let other = write_adapter(&folder, "arch.gguf", 1, |writer| _ = writer.set("general.architecture", "qwen2"));
    assert!(matches!(fails(&other), AdapterError::Architecture { .. }));
    let kind = write_adapter(&folder, "kind.gguf", 1, |writer| _ = writer.set("adapter.type", "ia3"));
    assert!(text(fails(&kind)).contains("`adapter.type` is `ia3`"));
    let alpha = write_adapter(&folder, "alpha.gguf", 1, |writer| _ = writer.set("adapter.lora.alpha", f32::NAN));
    assert!(text(fails(&alpha)).contains("adapter.lora.alpha"));
    let activated = write_adapter(&folder, "alora.gguf", 1, |writer| {
        writer.set("adapter.alora.invocation_tokens", Value::from(7_u32));
    });
    assert!(text(fails(&activated)).contains("activate"));

    type Change<'a> = &'a dyn Fn(&mut Writer);
    let cases: [(&str, Change<'_>); 6] = [
        ("the other half", &|writer| add(writer, "output.weight.lora_a", &[64, 2])),
        ("there is no `blk.77.attn_q.weight`", &|writer| {
            add(writer, "blk.77.attn_q.weight.lora_a", &[64, 2]);
            add(writer, "blk.77.attn_q.weight.lora_b", &[2, 64]);
        }),
        ("it has the shapes [7, 2]", &|writer| {
            add(writer, "token_embd.weight.lora_a", &[7, 2]);
            add(writer, "token_embd.weight.lora_b", &[2, 64]);
        }),
        ("no matrix", &|writer| {
            add(writer, "output_norm.weight.lora_a", &[64, 2]);
            add(writer, "output_norm.weight.lora_b", &[2, 1]);
        }),
        (".lora_a and .lora_b", &|writer| add(writer, "blk.0.attn_norm.weight", &[64])),
        ("no LoRA adapter", &|writer| _ = writer.set("general.type", "model")),
    ];
    for (index, (expected, change)) in cases.into_iter().enumerate() {
        let error = text(fails(&write_adapter(&folder, &format!("bad{index}.gguf"), 1, change)));
        assert!(error.contains(expected), "{error} does not say {expected}");
    }

    // A model of the same architecture and another width.
    let mut wide = SyntheticModel::tiny().with_type(TensorType::F32);
    wide.shape.n_ff *= 2;
    wide.write_file(folder.path("wide.gguf")).unwrap();
    let wide = load(&folder.path("wide.gguf")).unwrap();
    let good = write_adapter(&folder, "good.gguf", 1, |_| {});
    assert!(text(LoraAdapter::load(&wide, &good).unwrap_err()).contains("ffn_"));

    let whole = std::fs::read(&good).unwrap();
    std::fs::write(folder.path("cut.gguf"), &whole[..whole.len() / 2]).unwrap();
    assert!(matches!(fails(&folder.path("cut.gguf")), AdapterError::Gguf(_)));
    assert!(matches!(fails(&folder.path("none.gguf")), AdapterError::Gguf(_)));

    // Loaded twice, it is two models, and an adapter belongs to one of them.
    let adapter = LoraAdapter::load(&model, &good).unwrap();
    let twin = load(&folder.base()).unwrap();
    let error = context(&twin).set_adapters(&[(&adapter, 1.0)]).unwrap_err();
    assert!(matches!(error, AdapterError::Engine(AdapterEngineError::OtherModel)), "{error}");
    let mut used = context(&model);
    assert!(matches!(used.set_adapters(&[(&adapter, f32::NAN)]), Err(AdapterError::Scale(_))));
    assert!(used.set_adapters(&[(&adapter, 1.0)]).is_ok());
    if cfg!(feature = "reference") {
        let error = LoraAdapter::load(&on_backend(&folder.base(), "reference"), &good).unwrap_err();
        assert!(matches!(error, AdapterError::Engine(AdapterEngineError::Unsupported)), "{error}");
    }
}
