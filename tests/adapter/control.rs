use std::path::PathBuf;

use gguf_loader::{
    adapter::{AdapterError, ControlVector},
    gguf::{TensorType, Writer},
};

use super::{Folder, bytes, context, distance, load, logits, noise};

pub(crate) fn write(folder: &Folder, name: &str, directions: &[(&str, &[f32])]) -> PathBuf {
    let mut writer = Writer::new();
    writer.set("general.architecture", "controlvector");
    for (name, numbers) in directions {
        writer.add_tensor(*name, &[numbers.len() as u64], TensorType::F32, bytes(numbers)).unwrap();
    }
    let path = folder.path(name);
    writer.write_file(&path).unwrap();
    path
}

/// After a block its result is added to the hidden state, and so is the direction: as a bias of the way down would be.
#[test]
fn a_direction_equals_a_bias_at_the_end_of_its_block() {
    let folder = Folder::new();
    let Some(model) = load(&folder.base()) else { return };
    let width = model.shape().n_embd as usize;
    let (one, two) = (noise(1, width, 30.0), noise(2, width, 30.0));
    let first = ControlVector::load(write(&folder, "1.gguf", &[("direction.1", &one)])).unwrap();
    let second = ControlVector::load(write(&folder, "2.gguf", &[("direction.1", &two)])).unwrap();
    let mut context = context(&model);
    let base = logits(&mut context);
    context.set_control_vectors(&[(&first, 0.5), (&second, -1.0)], None).unwrap();
    let found = logits(&mut context);
    let sum: Vec<f32> = one.iter().zip(&two).map(|(one, two)| 0.5 * one - two).collect();
    let biased = folder.changed("biased.gguf", |_, _| {}, &[("blk.1.ffn_down.bias".to_owned(), sum)]);
    let expected = logits(&mut super::context(&load(&biased).unwrap()));
    assert!(distance(&found, &expected) < 0.01, "{}", distance(&found, &expected));
    assert!(distance(&found, &base) > 0.1, "it changes nothing");
    context.set_control_vectors(&[], None).unwrap();
    assert!(distance(&logits(&mut context), &base) < 1e-6, "taken away");
}

#[test]
fn a_vector_that_does_not_fit_is_an_error() {
    let folder = Folder::new();
    let Some(model) = load(&folder.base()) else { return };
    let width = model.shape().n_embd as usize;
    let mut context = context(&model);
    let good = ControlVector::load(write(&folder, "good.gguf", &[("direction.1", &vec![0.1; width])])).unwrap();
    assert_eq!(good.blocks().collect::<Vec<_>>(), [1]);
    assert!(matches!(context.set_control_vectors(&[(&good, f32::INFINITY)], None), Err(AdapterError::Scale(_))));
    for blocks in [0..=1, 1..=2, 9..=9] {
        let error = context.set_control_vectors(&[(&good, 1.0)], Some(blocks)).unwrap_err();
        assert!(matches!(error, AdapterError::Blocks { last: 1, .. }), "{error}");
    }
    let narrow = ControlVector::load(write(&folder, "narrow.gguf", &[("direction.1", &[0.1; 8])])).unwrap();
    let deep = ControlVector::load(write(&folder, "deep.gguf", &[("direction.9", &vec![0.1; width])])).unwrap();
    for vector in [&narrow, &deep] {
        let error = context.set_control_vectors(&[(vector, 1.0)], None).unwrap_err();
        assert!(matches!(error, AdapterError::Tensor { .. }), "{error}");
    }
    assert!(context.set_control_vectors(&[(&good, 1.0)], Some(1..=1)).is_ok());
    let zero = write(&folder, "zero.gguf", &[("direction.0", &[0.1; 8])]);
    assert!(matches!(ControlVector::load(zero), Err(AdapterError::Tensor { .. })));
    let nan = write(&folder, "nan.gguf", &[("direction.1", &[f32::NAN; 8])]);
    assert!(matches!(ControlVector::load(nan), Err(AdapterError::Tensor { .. })));
    assert!(matches!(ControlVector::load(write(&folder, "empty.gguf", &[])), Err(AdapterError::NotAnAdapter { .. })));
}
