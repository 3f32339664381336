//! What cannot be imported is a typed error that names the place; the input stays, and of the output nothing is left.

use std::{fs, io::Write, ops::ControlFlow, path::Path};

use gguf_loader::{
    gguf::{GgufError, I2sLayout, TensorType, Writer, synth::SyntheticModel},
    import::{self, Evidence, ImportError, ImportOptions, Layout, OutputMatrix},
};

use crate::{Folder, go_on, import_as, patch, tiny, with_output};

const MATRIX: &str = "blk.1.ffn_up.weight";

/// Imports `input`, which must fail and leave the folder as it was.
#[track_caller]
fn refuse(folder: &Folder, input: &Path, layout: Layout) -> ImportError {
    refuse_with(folder, input, |output| import_as(input, output, layout).unwrap_err())
}

#[track_caller]
fn refuse_with(folder: &Folder, input: &Path, import: impl FnOnce(&Path) -> ImportError) -> ImportError {
    let (before, names) = (fs::read(input).unwrap(), folder.names());
    let error = import(&folder.at("out.gguf"));
    assert_eq!(folder.names(), names, "{error}");
    assert!(fs::read(input).unwrap() == before, "the input changed");
    error
}

#[test]
fn code_three_is_refused_with_its_place() {
    let folder = Folder::new();
    let input = folder.write("in.gguf", &tiny());
    // Row 5 of 256 weights begins at byte 320; byte 33 of a row holds columns 129, 161, 193, 225.
    patch(&input, MATRIX, 5 * 64 + 33, &[0b01_11_01_01]);
    match refuse(&folder, &input, Layout::X86) {
        ImportError::Code { tensor, row, column, .. } => assert_eq!((tensor.as_str(), row, column), (MATRIX, 5, 161)),
        other => panic!("{other}"),
    }
}

#[test]
fn scales_that_no_matrix_has_are_refused() {
    for scale in [0.0, -1.0, f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 1e-30, 1e30] {
        let folder = Folder::new();
        let input = folder.write("in.gguf", &tiny());
        patch(&input, MATRIX, 256 * 512 / 4, &f32::to_le_bytes(scale));
        match refuse(&folder, &input, Layout::X86) {
            ImportError::Scale { tensor, scale: found, .. } => {
                assert_eq!((tensor.as_str(), found.to_bits()), (MATRIX, scale.to_bits()));
            }
            other => panic!("{scale}: {other}"),
        }
    }
}

/// A BitNet file with one matrix of 4 rows of 128, -0.375 and 0.375 by turns, and a tensor where its scale would be.
fn with_beside(path: &Path, shape: &[u64], beside: f32) {
    let mut writer = Writer::new();
    writer.set("general.architecture", "bitnet");
    let weights = (0..512).flat_map(|at| [-0.375_f32, 0.375][at % 2].to_le_bytes()).collect();
    writer.add_tensor("blk.0.ffn_up.weight", &[128, 4], TensorType::F32, weights).unwrap();
    let numbers = shape.iter().product::<u64>() as usize;
    let numbers = beside.to_le_bytes().repeat(numbers);
    writer.add_tensor("blk.0.ffn_up.scale", shape, TensorType::F32, numbers).unwrap();
    writer.write_file(path).unwrap();
}

#[test]
fn two_scales_that_no_single_one_replaces_are_refused() {
    let folder = Folder::new();
    let input = folder.at("in.gguf");
    // 3/8 times a number of 24 bits that ends in a 1 has 26.
    with_beside(&input, &[1], 0.7);
    let is_refused = |error: ImportError| match error {
        ImportError::TwoScales { tensor, step: 0.375, beside: 0.7, .. } => assert_eq!(tensor, "blk.0.ffn_up.weight"),
        other => panic!("{other}"),
    };
    is_refused(refuse(&folder, &input, Layout::Auto));
    is_refused(refuse_with(&folder, &input, |output| {
        import::export(&input, output, I2sLayout::X86, go_on).unwrap_err()
    }));
    // The same with 0.5 is 0.1875.
    with_beside(&input, &[1], 0.5);
    import_as(&input, &folder.at("out.gguf"), Layout::Auto).unwrap();
}

#[test]
fn scale_of_several_numbers_is_refused() {
    let folder = Folder::new();
    let input = folder.at("in.gguf");
    with_beside(&input, &[4], 0.5);
    match refuse(&folder, &input, Layout::Auto) {
        ImportError::ScaleTensor { tensor, tensor_type: TensorType::F32, shape, .. } => {
            assert_eq!((tensor.as_str(), shape), ("blk.0.ffn_up.scale", vec![4]));
        }
        other => panic!("{other}"),
    }
}

#[test]
fn matrices_that_do_not_fit_the_layout_are_refused() {
    let folder = Folder::new();
    let mut model = tiny().with_layout(I2sLayout::Arm);
    model.shape.n_embd = 192;
    let input = folder.write("in.gguf", &model);
    match refuse(&folder, &input, Layout::X86) {
        ImportError::Layout { row: 192, layout: I2sLayout::X86, .. } => {}
        other => panic!("{other}"),
    }
    // Left to itself, the import takes the layout that fits.
    let report = import_as(&input, &folder.at("out.gguf"), Layout::Auto).unwrap();
    assert_eq!((report.layout, report.evidence), (Some(I2sLayout::Arm), Some(Evidence::Assumed)));
    // Three rows are not four.
    let mut writer = Writer::new();
    writer.set("general.architecture", "bitnet");
    writer.add_tensor("blk.0.ffn_up.weight", &[128, 3], TensorType::I2_S, vec![0x55; 128]).unwrap();
    writer.write_file(folder.at("three.gguf")).unwrap();
    let error = import_as(&folder.at("three.gguf"), &folder.at("four.gguf"), Layout::Rows4).unwrap_err();
    assert!(matches!(error, ImportError::Layout { rows: 3, layout: I2sLayout::Rows4, .. }), "{error}");
}

#[test]
fn published_models_are_known_and_others_assumed() {
    let folder = Folder::new();
    let evidence = |architecture: &str, name: &str| {
        let mut published = tiny().with_architecture(architecture).writer().unwrap();
        published.set("general.name", name);
        published.write_file(folder.at("published.gguf")).unwrap();
        let report = import_as(&folder.at("published.gguf"), &folder.at("out.gguf"), Layout::Auto).unwrap();
        assert_eq!(report.layout, Some(I2sLayout::X86), "{architecture}, {name}");
        report.evidence
    };
    assert_eq!(evidence("bitnet-b1.58", "bitnet2b"), Some(Evidence::Known));
    assert_eq!(evidence("bitnet-25", "bitnet2b_2501"), Some(Evidence::Known));
    // Each name is one of its architecture.
    assert_eq!(evidence("bitnet-25", "bitnet2b"), Some(Evidence::Assumed));
    assert_eq!(evidence("bitnet", "bitnet2b"), Some(Evidence::Assumed));
    let other = folder.write("other.gguf", &tiny());
    let report = import_as(&other, &folder.at("out.gguf"), Layout::Auto).unwrap();
    assert_eq!((report.layout, report.evidence), (Some(I2sLayout::X86), Some(Evidence::Assumed)));
}

#[test]
fn truncated_file_is_refused() {
    let folder = Folder::new();
    let input = folder.write("in.gguf", &tiny());
    let bytes = fs::read(&input).unwrap();
    fs::write(&input, &bytes[..bytes.len() / 2]).unwrap();
    let error = refuse(&folder, &input, Layout::X86);
    assert!(matches!(error, ImportError::Gguf(GgufError::Truncated { .. })), "{error}");
}

#[test]
fn models_without_anything_to_transcode_are_refused() {
    let folder = Folder::new();
    let form = folder.write("form.gguf", &tiny().with_ternary(TensorType::TQ2_0));
    assert!(matches!(refuse(&folder, &form, Layout::Auto), ImportError::NotNeeded { .. }));
    let i2_s = folder.write("i2_s.gguf", &tiny());
    let llama = folder.at("llama.gguf");
    SyntheticModel::tiny().write_file(&llama).unwrap();
    match refuse(&folder, &llama, Layout::Auto) {
        ImportError::Architecture { architecture, .. } => assert_eq!(architecture, "llama"),
        other => panic!("{other}"),
    }
    let export = |input: &Path| {
        refuse_with(&folder, input, |output| import::export(input, output, I2sLayout::Arm, go_on).unwrap_err())
    };
    assert!(matches!(export(&i2_s), ImportError::NotNeeded { .. }));
    // Matrices that are I2_S would keep their order, beside others in the order that the file then names.
    let mixed = tiny().with_ternary(TensorType::TQ2_0).with_exception(MATRIX, TensorType::I2_S);
    let mixed = export(&folder.write("mixed.gguf", &mixed));
    assert!(matches!(mixed, ImportError::Mixed { .. }), "{mixed}");
}

#[test]
fn master_weights_are_not_ternary() {
    let folder = Folder::new();
    let mut writer = Writer::new();
    writer.set("general.architecture", "bitnet");
    let weights = (0..512_u16).flat_map(|at| if at == 200 { 0.25_f32 } else { 0.5 }.to_le_bytes()).collect();
    writer.add_tensor("blk.0.ffn_up.weight", &[128, 4], TensorType::F32, weights).unwrap();
    writer.write_file(folder.at("in.gguf")).unwrap();
    match refuse(&folder, &folder.at("in.gguf"), Layout::Auto) {
        ImportError::NotTernary { row, found, scale, .. } => assert_eq!((row, found, scale), (1, 0.25, 0.5)),
        other => panic!("{other}"),
    }
}

#[test]
fn block_scales_cannot_be_exported() {
    let folder = Folder::new();
    let input = folder.write("in.gguf", &tiny().with_ternary(TensorType::TQ2_0));
    // The scale of the third block: 2.0.
    patch(&input, MATRIX, 2 * 66 + 64, &[0x00, 0x40]);
    let error =
        refuse_with(&folder, &input, |output| import::export(&input, output, I2sLayout::X86, go_on).unwrap_err());
    assert!(matches!(error, ImportError::BlockScale { ref tensor, .. } if tensor == MATRIX), "{error}");
}

#[test]
fn output_matrix_that_does_not_fit_is_refused() {
    let folder = Folder::new();
    let mut model = tiny().with_layout(I2sLayout::Arm);
    model.shape.n_embd = 192;
    let input = folder.write("in.gguf", &model);
    let error = refuse_with(&folder, &input, |output| with_output(&input, output, OutputMatrix::Q6K).unwrap_err());
    assert!(matches!(error, ImportError::OutputMatrix { row: 192, to: TensorType::Q6_K, .. }), "{error}");
    let quantised = folder.write("q6_k.gguf", &tiny().with_embedding(TensorType::Q6_K));
    let error =
        refuse_with(&folder, &quantised, |output| with_output(&quantised, output, OutputMatrix::Q8_0).unwrap_err());
    assert!(matches!(error, ImportError::OutputMatrix { from: TensorType::Q6_K, .. }), "{error}");
}

#[test]
fn output_onto_the_input_is_refused() {
    let folder = Folder::new();
    let input = folder.write("in.gguf", &tiny());
    let before = fs::read(&input).unwrap();
    let error = import_as(&input, &folder.at("./in.gguf"), Layout::X86).unwrap_err();
    assert!(matches!(error, ImportError::SameFile { .. }), "{error}");
    assert!(fs::read(&input).unwrap() == before);
}

#[test]
fn rows_that_fill_no_block_are_refused() {
    let folder = Folder::new();
    let mut writer = Writer::new();
    writer.set("general.architecture", "bitnet");
    let weights = (0..96 * 4).flat_map(|at| [0.5_f32, 0.0, -0.5][at % 3].to_le_bytes()).collect();
    writer.add_tensor("blk.0.ffn_up.weight", &[96, 4], TensorType::F32, weights).unwrap();
    writer.write_file(folder.at("in.gguf")).unwrap();
    match refuse(&folder, &folder.at("in.gguf"), Layout::Auto) {
        ImportError::Row { tensor, row, .. } => assert_eq!((tensor.as_str(), row), ("blk.0.ffn_up.weight", 96)),
        other => panic!("{other}"),
    }
}

#[test]
fn source_that_changes_while_it_is_read_is_refused() {
    for model in [tiny(), tiny().with_ternary(TensorType::F32)] {
        let folder = Folder::new();
        let input = folder.write("in.gguf", &model);
        let error = import::import(&input, folder.at("out.gguf"), &ImportOptions::default(), |_| {
            fs::File::options().append(true).open(&input).unwrap().write_all(b"more").unwrap();
            ControlFlow::Continue(())
        });
        assert!(matches!(error, Err(ImportError::Changed { ref path }) if *path == input), "{error:?}");
        assert_eq!(folder.names(), ["in.gguf"]);
    }
}

#[test]
fn cancelled_import_leaves_nothing() {
    let mut i2_s = tiny();
    i2_s.shape.n_ff = 16384;
    // Float matrices are read before anything is written.
    let mut floats = tiny().with_ternary(TensorType::F32);
    floats.shape.n_ff = 2048;
    for (model, least) in [(i2_s, 3), (floats, 10)] {
        let folder = Folder::new();
        let input = folder.write("in.gguf", &model);
        cancel_everywhere(&folder, &input, least);
    }
}

/// Imports `input`, which reports at least `least` times, and then cancels at each of the reports.
fn cancel_everywhere(folder: &Folder, input: &Path, least: usize) {
    let (mut reports, mut last) = (0, 0.0);
    import::import(input, folder.at("out.gguf"), &ImportOptions::default(), |fraction| {
        assert!((last..=1.0).contains(&fraction), "{fraction} after {last}");
        last = fraction;
        reports += 1;
        ControlFlow::Continue(())
    })
    .unwrap();
    fs::remove_file(folder.at("out.gguf")).unwrap();
    assert!(reports >= least, "{reports} reports");
    for stop in 0..reports {
        let mut seen = 0;
        let error = refuse_with(folder, input, |output| {
            let progress = |_| {
                seen += 1;
                if seen > stop { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            };
            import::import(input, output, &ImportOptions::default(), progress).unwrap_err()
        });
        assert!(matches!(error, ImportError::Cancelled), "{error}");
        assert_eq!(seen, stop + 1);
    }
}

#[test]
fn folder_that_does_not_exist_is_an_error() {
    let folder = Folder::new();
    let input = folder.write("in.gguf", &tiny());
    let error = import_as(&input, &folder.at("absent/out.gguf"), Layout::X86).unwrap_err();
    assert!(matches!(error, ImportError::Write(_)), "{error}");
}
