//! Adapters of BitNet models, whose matrices have a scale beside them, and whose graph has nodes without room for an adapter.

use std::path::PathBuf;

use gguf_loader::{
    adapter::{AdapterError, LoraAdapter},
    gguf::{TensorType, Writer, synth::SyntheticBitNet},
    hardware::Hardware,
    merge::{merge_lora, merge_models},
    select::Registry,
};

use super::{
    Folder, context, distance, load, logits,
    lora::{merged, write_adapter},
    merge::{difference, on},
    on_backend,
};

const NAMES: [&str; 3] = ["bitnet-b1.58", "bitnet-25", "bitnet"];

/// The same weights in every type.
fn model(tensor_type: TensorType) -> SyntheticBitNet {
    SyntheticBitNet::tiny().with_seed(1).with_embedding(TensorType::F32).with_ternary(tensor_type)
}

fn folder() -> Folder {
    Folder::with(|base| model(TensorType::F32).write_file(base).unwrap())
}

/// The base with its blocks in TQ2_0, under another name of the architecture.
fn ternary(folder: &Folder, architecture: &str) -> PathBuf {
    let path = folder.path(&format!("ternary-{architecture}.gguf"));
    model(TensorType::TQ2_0).with_architecture(architecture).write_file(&path).unwrap();
    path
}

fn of(architecture: &str) -> impl Fn(&mut Writer) {
    move |writer| _ = writer.set("general.architecture", architecture)
}

/// The ternary kernels that run here.
fn kernels() -> Vec<&'static str> {
    let hardware = Hardware::detect();
    let registry = Registry::global().unwrap();
    let runs = registry.iter().filter(|backend| backend.devices(&hardware).is_ok()).map(|backend| backend.id());
    let found: Vec<_> = runs.filter(|id| id.starts_with("bitnet-")).collect();
    if found.is_empty() {
        println!("skipped: no ternary kernels are compiled in");
    }
    found
}

#[test]
fn applied_to_floats_it_equals_merged_weights() {
    let folder = folder();
    let Some(model) = load(&folder.base()) else { return };
    let (one, two) =
        (write_adapter(&folder, "1.gguf", 1, of(NAMES[0])), write_adapter(&folder, "2.gguf", 2, of(NAMES[0])));
    let (one, two) = (LoraAdapter::load(&model, one).unwrap(), LoraAdapter::load(&model, two).unwrap());
    let mut context = context(&model);
    let base = logits(&mut context);
    context.set_adapters(&[(&one, 0.3), (&two, -0.2)]).unwrap();
    let found = logits(&mut context);
    let expected = load(&merged(&folder, "merged.gguf", &[(1, 0.3), (2, -0.2)])).unwrap();
    let expected = logits(&mut super::context(&expected));
    assert!(distance(&found, &expected) < 0.01, "{}", distance(&found, &expected));
    assert!(distance(&found, &base) > 0.5, "it changes next to nothing");
}

/// What the base's products are rounded to, and the merged floats are not: activations in 8 bits.
const ROUNDING: f32 = 0.08;

#[test]
fn applied_to_ternary_weights_it_equals_merged_floats_but_for_rounding() {
    let folder = folder();
    let path = ternary(&folder, NAMES[0]);
    let adapter = write_adapter(&folder, "1.gguf", 1, of(NAMES[0]));
    // Takes the nodes of libllama's own, and changes nothing.
    let nothing = write_adapter(&folder, "0.gguf", 0, of(NAMES[0]));
    for id in kernels() {
        let model = on_backend(&path, id);
        let mut context = context(&model);
        let base = logits(&mut context);
        let unfused = LoraAdapter::load(&model, &nothing).unwrap();
        context.set_adapters(&[(&unfused, 1e-6)]).unwrap();
        let off = distance(&logits(&mut context), &base);
        assert!(off < 0.001, "{id}: {off} without fused nodes");

        let adapter = LoraAdapter::load(&model, &adapter).unwrap();
        assert_eq!(adapter.matrices(), 14);
        for scale in [0.3, -0.1] {
            context.set_adapters(&[(&adapter, scale)]).unwrap();
            let found = logits(&mut context);
            let floats = load(&merged(&folder, "merged.gguf", &[(1, scale)])).unwrap();
            let expected = logits(&mut super::context(&floats));
            assert!(distance(&found, &expected) < ROUNDING, "{id}: {} at {scale}", distance(&found, &expected));
            assert!(distance(&found, &base) > 5.0 * ROUNDING, "{id}: at {scale} it changes next to nothing");
            // Another context of the model has none.
            assert_eq!(logits(&mut super::context(&model)), base, "{id}");
        }
        context.set_adapters(&[]).unwrap();
        drop((adapter, unfused));
        assert_eq!(logits(&mut context), base, "{id}: taken away");
    }
}

#[test]
fn the_names_of_bitnet_are_one_architecture_to_an_adapter() {
    let folder = folder();
    if kernels().is_empty() {
        return;
    }
    let adapters = NAMES.map(|name| write_adapter(&folder, &format!("{name}.gguf"), 1, of(name)));
    let other = write_adapter(&folder, "llama.gguf", 1, of("llama"));
    let found = NAMES.map(|name| {
        let model = load(&ternary(&folder, name)).unwrap();
        assert!(matches!(LoraAdapter::load(&model, &other), Err(AdapterError::Architecture { .. })));
        let of_adapters = adapters.each_ref().map(|adapter| {
            let adapter = LoraAdapter::load(&model, adapter).unwrap();
            let mut context = context(&model);
            context.set_adapters(&[(&adapter, 0.3)]).unwrap();
            logits(&mut context)
        });
        assert_eq!(of_adapters[0], of_adapters[1], "{name}");
        assert_eq!(of_adapters[0], of_adapters[2], "{name}");
        let [first, ..] = of_adapters;
        first
    });
    assert_eq!(found[0], found[1], "one graph");
    assert_ne!(found[0], found[2], "`bitnet` has SiLU");
}

#[test]
fn what_is_merged_is_what_the_scale_beside_a_matrix_makes_of_it() {
    let folder = folder();
    let adapter = write_adapter(&folder, "1.gguf", 1, of(NAMES[0]));
    let output = folder.path("out.gguf");
    merge_lora(folder.base(), &[(&adapter, 0.3)], &output, on).unwrap();
    let open = |path: &PathBuf| gguf_loader::gguf::Gguf::open(path).unwrap();
    let expected = open(&merged(&folder, "expected.gguf", &[(1, 0.3)]));
    assert!(difference(&open(&output), &expected) < 1e-4, "{}", difference(&open(&output), &expected));

    // Half as large a scale, and weights twice as large: the same model.
    let twin = folder.changed(
        "twin.gguf",
        |name, numbers| {
            let factor = if name.ends_with(".scale") { 0.5 } else { 2.0 };
            let is_scaled = name.ends_with(".scale") || super::lora::is_changed(name);
            numbers.iter_mut().filter(|_| is_scaled).for_each(|number| *number *= factor);
        },
        &[],
    );
    for ratio in [0.0, 0.3, 1.0] {
        merge_models(folder.base(), &twin, ratio, &output, on).unwrap();
        let off = difference(&open(&output), &open(&folder.base()));
        assert!(off < 1e-5, "a mixture with itself at {ratio} is off by {off}");
    }
}
