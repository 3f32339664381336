//! What is written is read back, whatever it is.

use gguf_loader::gguf::{Array, Gguf, SplitLimit, Strings, TensorType, Value, Writer};
use proptest::{collection::vec, prelude::*};

/// Any value; floats without NaN, which is not equal to itself.
fn value() -> impl Strategy<Value = Value> {
    let f32s = || any::<f32>().prop_filter("NaN", |number| !number.is_nan());
    let f64s = || any::<f64>().prop_filter("NaN", |number| !number.is_nan());
    prop_oneof![
        any::<u8>().prop_map(Value::from),
        any::<i8>().prop_map(Value::from),
        any::<u16>().prop_map(Value::from),
        any::<i16>().prop_map(Value::from),
        any::<u32>().prop_map(Value::from),
        any::<i32>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<bool>().prop_map(Value::from),
        any::<String>().prop_map(Value::from),
        f32s().prop_map(Value::from),
        f64s().prop_map(Value::from),
        vec(any::<u8>(), 0..9).prop_map(Value::from),
        vec(any::<i8>(), 0..9).prop_map(Value::from),
        vec(any::<u16>(), 0..9).prop_map(Value::from),
        vec(any::<i16>(), 0..9).prop_map(Value::from),
        vec(any::<u32>(), 0..9).prop_map(Value::from),
        vec(any::<i32>(), 0..9).prop_map(Value::from),
        vec(any::<u64>(), 0..9).prop_map(Value::from),
        vec(any::<i64>(), 0..9).prop_map(Value::from),
        vec(any::<bool>(), 0..9).prop_map(Value::from),
        vec(f32s(), 0..9).prop_map(Value::from),
        vec(f64s(), 0..9).prop_map(Value::from),
        vec(vec(any::<u8>(), 0..9), 0..9).prop_map(|strings| strings.iter().collect::<Strings>().into()),
    ]
}

/// A type and up to four sizes, rows first.
fn shape() -> impl Strategy<Value = (TensorType, Vec<u64>)> {
    // I2_S is only for BitNet models: `bitnet` has its tests.
    let types: Vec<_> = TensorType::ALL.iter().copied().filter(|&other| other != TensorType::I2_S).collect();
    (prop::sample::select(types), 1..3_u64, vec(1..4_u64, 0..=3)).prop_map(|(tensor_type, blocks, rest)| {
        (tensor_type, [vec![blocks * tensor_type.block_elements()], rest].concat())
    })
}

prop_compose! {
    /// A file of free keys (`x.` keeps clear of those with a meaning) and tensors, and the data of the tensors.
    fn file()(
        version in 2..=3_u32,
        alignment in prop::sample::select(vec![32_u32, 64, 256, 4096]),
        keys in vec(("x\\.[a-z.]{1,20}", value()), 0..12),
        shapes in vec(shape(), 0..6),
        seed in any::<u8>(),
    ) -> (Writer, Vec<Vec<u8>>) {
        let mut writer = Writer::new().with_version(version).with_alignment(alignment);
        for (key, value) in keys {
            writer.set(key, value);
        }
        let mut data = Vec::new();
        for (index, (tensor_type, shape)) in shapes.iter().enumerate() {
            let length = tensor_type.bytes_of(shape).unwrap() as usize;
            let bytes: Vec<u8> = (0..length).map(|byte| (byte as u8).wrapping_mul(31).wrapping_add(seed)).collect();
            writer.add_tensor(format!("t{index}"), shape, *tensor_type, bytes.clone()).unwrap();
            data.push(bytes);
        }
        (writer, data)
    }
}

fn tensors(gguf: &Gguf) -> Vec<Vec<u8>> {
    gguf.tensors().iter().map(|tensor| gguf.read_tensor(tensor).unwrap()).collect()
}

proptest! {
    // A split file is synced to disk part by part.
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn a_split_file_holds_the_same((writer, data) in file(), limit in 1..4_usize) {
        let folder = tempfile::tempdir().unwrap();
        let paths = writer.write_split(folder.path().join("model"), SplitLimit::Tensors(limit)).unwrap();
        let gguf = Gguf::open(&paths[0]).unwrap();
        prop_assert_eq!(gguf.parts().len(), paths.len());
        prop_assert_eq!(tensors(&gguf), data);
        let whole = Gguf::parse(&super::bytes(&writer)).unwrap();
        for (key, value) in whole.metadata().iter() {
            prop_assert_eq!(gguf.metadata().get(key), Some(value));
        }
    }
}

proptest! {
    #[test]
    fn a_file_is_read_as_it_was_written((writer, data) in file()) {
        let bytes = super::bytes(&writer);
        let gguf = Gguf::parse(&bytes).unwrap();
        prop_assert_eq!(tensors(&gguf), data);

        // Writing what was read gives the same bytes: keys, order, shapes and alignment survived.
        let mut again = Writer::new().with_version(gguf.version());
        for (key, value) in gguf.metadata().iter() {
            again.set(key, value.clone());
        }
        for tensor in gguf.tensors() {
            prop_assert_eq!(tensor.offset % gguf.alignment(), 0);
            let data = gguf.read_tensor(tensor).unwrap();
            again.add_tensor(&tensor.name, &tensor.shape, tensor.tensor_type, data).unwrap();
        }
        prop_assert_eq!(super::bytes(&again), bytes);
    }

    #[test]
    fn random_bytes_after_the_magic_never_panic(bytes in vec(any::<u8>(), 0..200), counts in any::<[u8; 2]>()) {
        let mut file = b"GGUF\x03\0\0\0".to_vec();
        file.extend([counts[0] % 4, 0, 0, 0, 0, 0, 0, 0, counts[1] % 4, 0, 0, 0, 0, 0, 0, 0]);
        file.extend(bytes);
        let _ = Gguf::parse(&file);
    }
}

#[test]
fn typed_getters_take_any_width_and_name_the_key() {
    let mut writer = Writer::new();
    writer.set("a", 7_i16).set("b", -7_i64).set("c", 0.5_f32).set("d", vec![1_u8, 2]).set("e", "text").set("f", true);
    let gguf = super::accept(&writer);
    let metadata = gguf.metadata();
    assert_eq!(metadata.u64("a").unwrap(), 7);
    assert_eq!(metadata.f64("c").unwrap(), 0.5);
    assert_eq!(metadata.array("d").unwrap(), &Array::U8(vec![1, 2]));
    assert_eq!(metadata.str("e").unwrap(), "text");
    assert!(metadata.bool("f").unwrap());
    assert!(metadata.u64("b").unwrap_err().to_string().contains("`b`"));
    assert!(metadata.u64("none").unwrap_err().to_string().contains("`none`"));
    assert!(metadata.str("a").unwrap_err().to_string().contains("must be a string"));
}
