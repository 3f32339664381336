//! Nothing is lost, in any layout.

use std::fs;

use gguf_loader::{
    gguf::{
        Gguf, I2sLayout, SplitLimit, TensorType, Value, Writer,
        synth::{BitNetShape, SyntheticBitNet},
    },
    import::{self, Evidence, Layout, OutputMatrix},
};
use half::{bf16, f16};
use proptest::prelude::*;

use crate::{Folder, go_on, import_as, tensors, tiny, with_output};

fn layout_named(layout: I2sLayout) -> Layout {
    layout.name().parse().unwrap()
}

#[test]
fn each_layout_becomes_what_the_synthesiser_writes_in_the_form_itself() {
    let folder = Folder::new();
    let expected = tensors(&folder.write("form.gguf", &tiny().with_ternary(TensorType::TQ2_0)));
    assert!(
        expected
            .iter()
            .any(|(name, _, tensor_type, _)| name == "blk.1.ffn_up.weight" && *tensor_type == TensorType::TQ2_0)
    );
    for layout in I2sLayout::ALL {
        let input = folder.write("i2_s.gguf", &tiny().with_layout(layout));
        let report = import_as(&input, &folder.at("out.gguf"), layout_named(layout)).unwrap();
        assert_eq!((report.matrices, report.layout, report.evidence), (14, Some(layout), Some(Evidence::Forced)));
        assert!(tensors(&folder.at("out.gguf")) == expected, "{layout}");
        // Another layout gives a valid file with other weights: that is why it matters.
        let other = if layout == I2sLayout::X86 { Layout::Arm } else { Layout::X86 };
        import_as(&input, &folder.at("out.gguf"), other).unwrap();
        assert!(tensors(&folder.at("out.gguf")) != expected, "{layout} read as {other}");
    }
}

#[test]
fn split_models_become_the_same_single_file() {
    let folder = Folder::new();
    let parts = tiny().writer().unwrap().write_split(folder.at("split"), SplitLimit::Tensors(5)).unwrap();
    assert!(parts.len() > 2);
    import_as(&parts[0], &folder.at("out.gguf"), Layout::X86).unwrap();
    import_as(&folder.write("whole.gguf", &tiny()), &folder.at("expected.gguf"), Layout::X86).unwrap();
    assert!(fs::read(folder.at("out.gguf")).unwrap() == fs::read(folder.at("expected.gguf")).unwrap());
}

#[test]
fn keys_stay_but_for_the_file_type_and_the_source() {
    let folder = Folder::new();
    let input = folder.write("i2_s.gguf", &tiny());
    import_as(&input, &folder.at("out.gguf"), Layout::X86).unwrap();
    let (before, after) = (Gguf::open(&input).unwrap(), Gguf::open(folder.at("out.gguf")).unwrap());
    let differing: Vec<_> =
        after.metadata().iter().filter(|(key, value)| before.metadata().get(key) != Some(value)).collect();
    let source = Value::from("I2_S, layout x86");
    assert_eq!(differing, [("general.file_type", &Value::U32(37)), ("gguf_loader.source", &source)]);
    assert!(before.metadata().iter().all(|(key, _)| after.metadata().get(key).is_some()));
}

#[test]
fn selector_sees_i2_s_as_what_it_becomes() {
    let folder = Folder::new();
    let profile = |model: &SyntheticBitNet| Gguf::open(folder.write("model.gguf", model)).unwrap().profile().unwrap();
    let groups = |model: &SyntheticBitNet| {
        let groups = profile(model).groups;
        groups.into_iter().map(|group| (group.tensor_type, group.elements)).collect::<Vec<_>>()
    };
    assert_eq!(groups(&tiny()), groups(&tiny().with_ternary(TensorType::TQ2_0)));
    assert!(groups(&tiny()).iter().any(|&(tensor_type, _)| tensor_type == TensorType::TQ2_0));
}

#[test]
fn rows_that_are_no_multiple_of_256_become_q2_0() {
    let folder = Folder::new();
    let mut model = tiny().with_layout(I2sLayout::Arm);
    model.shape.n_embd = 192;
    let input = folder.write("i2_s.gguf", &model);
    import_as(&input, &folder.at("out.gguf"), Layout::Auto).unwrap();
    let expected = tensors(&folder.write("form.gguf", &model.with_ternary(TensorType::Q2_0)));
    for (name, shape, tensor_type, data) in tensors(&folder.at("out.gguf")) {
        if name.ends_with("attn_q.weight") {
            assert_eq!((shape[0], tensor_type), (192, TensorType::Q2_0));
            assert!(expected.iter().any(|other| other.0 == name && other.3 == data), "{name}");
        }
        if name.ends_with("ffn_down.weight") {
            assert_eq!((shape[0], tensor_type), (512, TensorType::TQ2_0));
        }
    }
}

#[test]
fn import_export_import_is_identical() {
    let folder = Folder::new();
    let input = folder.write("i2_s.gguf", &tiny());
    let (first, second) = (folder.at("first.gguf"), folder.at("second.gguf"));
    import_as(&input, &first, Layout::X86).unwrap();
    for layout in I2sLayout::ALL {
        let exported = folder.at("exported.gguf");
        let report = import::export(&first, &exported, layout, go_on).unwrap();
        assert_eq!(report.matrices, 14);
        // The export says its layout: nothing needs to be forced.
        let report = import_as(&exported, &second, Layout::Auto).unwrap();
        assert_eq!((report.layout, report.evidence), (Some(layout), Some(Evidence::Known)));
        // The whole file but for the key that names the layout.
        let (one, other) = (Gguf::open(&first).unwrap(), Gguf::open(&second).unwrap());
        let keys = |gguf: &Gguf| {
            gguf.metadata()
                .iter()
                .filter(|(key, _)| *key != "gguf_loader.source")
                .map(|(key, value)| (key.to_owned(), value.clone()))
                .collect::<Vec<_>>()
        };
        assert_eq!(keys(&one), keys(&other));
        assert!(tensors(&first) == tensors(&second), "{layout}");
        if layout == I2sLayout::X86 {
            assert!(fs::read(&first).unwrap() == fs::read(&second).unwrap());
            assert!(tensors(&exported) == tensors(&input));
        }
    }
}

#[test]
fn every_ternary_type_is_exported_and_can_be_imported_again() {
    let folder = Folder::new();
    let expected = tensors(&folder.write("i2_s.gguf", &tiny()));
    let form = tensors(&folder.write("form.gguf", &tiny().with_ternary(TensorType::TQ2_0)));
    let mixed = tiny().with_ternary(TensorType::TQ2_0).with_exception("blk.0.attn_q.weight", TensorType::TQ1_0);
    let ternary = [TensorType::TQ1_0, TensorType::TQ2_0, TensorType::Q2_0];
    for model in ternary.map(|tensor_type| tiny().with_ternary(tensor_type)).into_iter().chain([mixed]) {
        let (input, exported) = (folder.write("in.gguf", &model), folder.at("out.gguf"));
        let report = import::export(&input, &exported, I2sLayout::X86, go_on).unwrap();
        assert_eq!(report.matrices, 14, "{}", model.ternary);
        assert!(tensors(&exported) == expected, "{}", model.ternary);
        import_as(&exported, &folder.at("again.gguf"), Layout::Auto).unwrap();
        assert!(tensors(&folder.at("again.gguf")) == form, "{}", model.ternary);
    }
}

#[test]
fn import_of_the_same_file_gives_the_same_bytes() {
    let folder = Folder::new();
    let input = folder.write("i2_s.gguf", &tiny());
    for name in ["one.gguf", "other.gguf"] {
        with_output(&input, &folder.at(name), OutputMatrix::Q6K).unwrap();
    }
    assert!(fs::read(folder.at("one.gguf")).unwrap() == fs::read(folder.at("other.gguf")).unwrap());
}

/// A BitNet file with one matrix of 4 rows of 128 in floats of magnitude 0.375, and the codes of it.
fn floats(tensor_type: TensorType, weight: impl Fn(usize) -> f32) -> Writer {
    let mut writer = Writer::new();
    writer.set("general.architecture", "bitnet");
    let bytes = (0..512).flat_map(|at| match tensor_type {
        TensorType::F32 => weight(at).to_le_bytes().to_vec(),
        TensorType::F16 => f16::from_f32(weight(at)).to_le_bytes().to_vec(),
        _ => bf16::from_f32(weight(at)).to_le_bytes().to_vec(),
    });
    writer.add_tensor("blk.0.ffn_up.weight", &[128, 4], tensor_type, bytes.collect()).unwrap();
    writer
}

#[test]
fn ternary_floats_become_i2_s_and_our_form() {
    let folder = Folder::new();
    for tensor_type in [TensorType::F32, TensorType::F16, TensorType::BF16] {
        // -1, 0, 1, 0, -1, ... : codes 0 1 2 1 0.
        floats(tensor_type, |at| [-0.375, 0.0, 0.375, 0.0][at % 4]).write_file(folder.at("floats.gguf")).unwrap();
        import::export(folder.at("floats.gguf"), folder.at("i2_s.gguf"), I2sLayout::Sequential, go_on).unwrap();
        let mut expected = vec![0b01_10_01_00; 128];
        expected.extend(0.375_f32.to_le_bytes());
        expected.extend([0; 28]);
        assert_eq!(tensors(&folder.at("i2_s.gguf"))[0].3, expected, "{tensor_type}");

        import_as(&folder.at("floats.gguf"), &folder.at("direct.gguf"), Layout::Auto).unwrap();
        import_as(&folder.at("i2_s.gguf"), &folder.at("by-way-of.gguf"), Layout::Auto).unwrap();
        let direct = tensors(&folder.at("direct.gguf"));
        assert_eq!((direct[0].2, direct[1].0.as_str()), (TensorType::Q2_0, "blk.0.ffn_up.scale"));
        assert_eq!(direct[1].3, 0.375_f32.to_le_bytes());
        assert!(direct == tensors(&folder.at("by-way-of.gguf")), "{tensor_type}");
    }
}

#[test]
fn scales_beside_float_matrices_are_those_of_the_weights() {
    let folder = Folder::new();
    let floats = folder.write("floats.gguf", &tiny().with_ternary(TensorType::F32));
    let (form, i2_s) = (tiny().with_ternary(TensorType::TQ2_0), tiny());
    let (form, i2_s) = (tensors(&folder.write("form.gguf", &form)), tensors(&folder.write("i2_s.gguf", &i2_s)));
    import_as(&floats, &folder.at("imported.gguf"), Layout::Auto).unwrap();
    assert!(tensors(&folder.at("imported.gguf")) == form);
    let report = import::export(&floats, folder.at("exported.gguf"), I2sLayout::X86, go_on).unwrap();
    assert_eq!(report.matrices, 14);
    assert!(tensors(&folder.at("exported.gguf")) == i2_s);
}

/// Graphs multiply with the scale beside a matrix whatever the matrix is, so that one with a scale of its own has two.
#[test]
fn scale_beside_an_i2_s_matrix_multiplies_its_own() {
    const MATRIX: &str = "blk.1.ffn_up";
    let folder = Folder::new();
    let source = Gguf::open(folder.write("source.gguf", &tiny())).unwrap();
    let mut writer = Writer::new();
    source.metadata().iter().for_each(|(key, value)| _ = writer.set(key, value.clone()));
    // Before its matrix, as a file may have it.
    let beside = 0.25_f32.to_le_bytes().to_vec();
    writer.add_tensor(format!("{MATRIX}.scale"), &[1], TensorType::F32, beside).unwrap();
    for tensor in source.tensors() {
        let bytes = source.read_tensor(tensor).unwrap();
        writer.add_tensor(&tensor.name, &tensor.shape, tensor.tensor_type, bytes).unwrap();
    }
    writer.write_file(folder.at("with.gguf")).unwrap();
    import_as(&folder.at("source.gguf"), &folder.at("without-out.gguf"), Layout::X86).unwrap();
    import_as(&folder.at("with.gguf"), &folder.at("with-out.gguf"), Layout::X86).unwrap();
    let (without, with) = (tensors(&folder.at("without-out.gguf")), tensors(&folder.at("with-out.gguf")));
    assert_eq!(without.len(), with.len());
    for (without, with) in without.iter().zip(&with) {
        if with.0 == format!("{MATRIX}.scale") {
            let scale = |bytes: &[u8]| f32::from_le_bytes(bytes.try_into().unwrap());
            assert_eq!(scale(&with.3), 0.25 * scale(&without.3));
        } else {
            assert!(without == with, "{}", with.0);
        }
    }
}

#[test]
fn output_matrix_shrinks_and_the_rest_stays() {
    let folder = Folder::new();
    let input = folder.write("i2_s.gguf", &tiny());
    import_as(&input, &folder.at("keep.gguf"), Layout::X86).unwrap();
    let kept = tensors(&folder.at("keep.gguf"));
    for (wanted, tensor_type) in [(OutputMatrix::Q8_0, TensorType::Q8_0), (OutputMatrix::Q6K, TensorType::Q6_K)] {
        let report = with_output(&input, &folder.at("small.gguf"), wanted).unwrap();
        assert_eq!(report.output_matrix.as_deref(), Some(tensor_type.name()));
        for (before, after) in kept.iter().zip(tensors(&folder.at("small.gguf"))) {
            if before.0 == "token_embd.weight" {
                assert_eq!((before.2, after.2, &after.1), (TensorType::F16, tensor_type, &before.1));
            } else {
                assert!(*before == after, "{}", before.0);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn any_shape_comes_back(
        heads in 1..4_u32,
        embd in 1..4_u32,
        ff in 1..9_u32,
        layout in prop::sample::select(&I2sLayout::ALL[..]),
        seed in any::<u64>(),
    ) {
        let shape = BitNetShape {
            n_embd: 128 * embd * heads,
            n_layer: 1,
            n_head: heads,
            n_head_kv: 1,
            n_ff: 128 * ff,
            n_vocab: 400,
            n_ctx_train: 64,
        };
        let folder = Folder::new();
        let input = folder.write("in.gguf", &SyntheticBitNet::of_shape(shape).with_layout(layout).with_seed(seed));
        import_as(&input, &folder.at("form.gguf"), layout_named(layout)).unwrap();
        import::export(folder.at("form.gguf"), folder.at("again.gguf"), layout, go_on).unwrap();
        prop_assert!(tensors(&input) == tensors(&folder.at("again.gguf")));
    }
}
