//! Offences against the file format itself, as raw bytes: one test a class.

use gguf_loader::gguf::{Gguf, GgufError, KeyProblem, TensorProblem, TensorType, Writer};

/// Builds files that [`Writer`] refuses to write.
#[derive(Default)]
struct Raw {
    keys: Vec<Vec<u8>>,
    tensors: Vec<Vec<u8>>,
    data: usize,
}

impl Raw {
    fn key(mut self, name: &[u8], value_type: u32, value: &[u8]) -> Self {
        self.keys.push([&string(name)[..], &value_type.to_le_bytes(), value].concat());
        self
    }

    fn tensor(mut self, name: &[u8], shape: &[u64], tensor_type: u32, offset: u64) -> Self {
        let sizes: Vec<u8> = shape.iter().flat_map(|size| size.to_le_bytes()).collect();
        let dimensions = (shape.len() as u32).to_le_bytes();
        let place = [&tensor_type.to_le_bytes()[..], &offset.to_le_bytes()].concat();
        self.tensors.push([&string(name)[..], &dimensions, &sizes, &place].concat());
        self
    }

    fn data(mut self, bytes: usize) -> Self {
        self.data = bytes;
        self
    }

    fn bytes(&self) -> Vec<u8> {
        let mut file = header(3, self.tensors.len() as u64, self.keys.len() as u64);
        file.extend(self.keys.concat());
        file.extend(self.tensors.concat());
        file.resize(file.len().next_multiple_of(32), 0);
        file.resize(file.len() + self.data, 0);
        file
    }

    fn refused(&self) -> GgufError {
        Gguf::parse(&self.bytes()).unwrap_err()
    }

    fn key_problem(&self) -> KeyProblem {
        match self.refused() {
            GgufError::Key { problem, .. } => problem,
            other => panic!("{other}"),
        }
    }

    fn tensor_problem(&self) -> TensorProblem {
        match self.refused() {
            GgufError::Tensor { problem, .. } => problem,
            other => panic!("{other}"),
        }
    }
}

fn header(version: u32, tensors: u64, keys: u64) -> Vec<u8> {
    [b"GGUF", &version.to_le_bytes()[..], &tensors.to_le_bytes(), &keys.to_le_bytes()].concat()
}

fn string(bytes: &[u8]) -> Vec<u8> {
    [&(bytes.len() as u64).to_le_bytes()[..], bytes].concat()
}

fn array(element_type: u32, count: u64, elements: &[u8]) -> Vec<u8> {
    [&element_type.to_le_bytes()[..], &count.to_le_bytes(), elements].concat()
}

const U8: u32 = 0;
const U32: u32 = 4;
const BOOL: u32 = 7;
const STRING: u32 = 8;
const ARRAY: u32 = 9;
const F32: u32 = 0;

#[test]
fn a_file_without_keys_and_tensors_is_accepted() {
    let gguf = Gguf::parse(&Raw::default().bytes()).unwrap();
    assert!(gguf.metadata().is_empty() && gguf.tensors().is_empty());
}

#[test]
fn a_wrong_magic_says_what_the_file_is() {
    let found = |bytes: &[u8]| match Gguf::parse(bytes).unwrap_err() {
        GgufError::NotGguf { found, .. } => found,
        other => panic!("{other}"),
    };
    assert!(found(b"PK\x03\x04....").contains("zip"));
    assert!(found(b"<!DOCTYPE html>").contains("web page"));
    assert!(found(b"version https://git-lfs").contains("LFS"));
    assert!(found(b"\x01\x02\x03\x04").contains("\\x01\\x02"));
}

#[test]
fn the_formats_before_gguf_are_named() {
    for (magic, name) in [(b"lmgg", "GGML"), (b"fmgg", "GGMF"), (b"tjgg", "GGJT")] {
        let error = Gguf::parse(&[&magic[..], &[0; 20]].concat()).unwrap_err();
        assert!(matches!(error, GgufError::OldFormat { format, .. } if format == name), "{error}");
    }
}

#[test]
fn a_big_endian_file_is_named() {
    let file = [&b"GGUF"[..], &3_u32.to_be_bytes(), &[0; 16]].concat();
    assert!(matches!(Gguf::parse(&file).unwrap_err(), GgufError::BigEndian { .. }));
}

#[test]
fn versions_other_than_2_and_3_are_refused() {
    for version in [0, 1, 4, 1000] {
        let error = Gguf::parse(&header(version, 0, 0)).unwrap_err();
        assert!(matches!(error, GgufError::Version { version: found, .. } if found == version), "{error}");
    }
    assert_eq!(Gguf::parse(&header(2, 0, 0)).unwrap().version(), 2);
}

// CVE-2024-21802 and its family, CVE-2025-53630: counts and sizes that overflow or exceed the file.
#[test]
fn huge_counts_are_refused_before_anything_is_allocated() {
    for count in [1, 1 << 20, 1 << 32, u64::MAX / 48 + 1, i64::MAX as u64, u64::MAX] {
        for file in [header(3, count, 0), header(3, 0, count)] {
            assert!(matches!(Gguf::parse(&file).unwrap_err(), GgufError::Truncated { .. }), "{count}");
        }
    }
}

#[test]
fn huge_arrays_are_refused_before_anything_is_allocated() {
    for element_type in 0..=12 {
        for count in [1 << 20, 1 << 30, (1 << 30) + 1, 1 << 61, 1 << 63, u64::MAX] {
            let error = Raw::default().key(b"k", ARRAY, &array(element_type, count, &[0; 64])).refused();
            let is_bounded =
                matches!(error, GgufError::Truncated { .. } | GgufError::Key { problem: KeyProblem::LongArray(_), .. });
            assert!(is_bounded, "type {element_type}, {count}: {error}");
        }
    }
}

#[test]
fn huge_strings_are_refused_before_anything_is_allocated() {
    for length in [100_u64, 1 << 30, (1 << 30) + 1, 1 << 63, u64::MAX] {
        let error = Raw::default().key(b"k", STRING, &length.to_le_bytes()).refused();
        let is_bounded =
            matches!(error, GgufError::Truncated { .. } | GgufError::Key { problem: KeyProblem::LongString(_), .. });
        assert!(is_bounded, "{length}: {error}");
    }
}

#[test]
fn bad_key_names_are_refused() {
    assert_eq!(Raw::default().key(b"", U8, &[1]).key_problem(), KeyProblem::EmptyName);
    assert_eq!(Raw::default().key(b"\xff", U8, &[1]).key_problem(), KeyProblem::NameNotText);
    assert_eq!(Raw::default().key(b"a\0b", U8, &[1]).key_problem(), KeyProblem::NameNotText);
    assert_eq!(Raw::default().key(&[b'a'; 65536], U8, &[1]).key_problem(), KeyProblem::LongName(65536));
    assert!(Gguf::parse(&Raw::default().key(&[b'a'; 65535], U8, &[1]).bytes()).is_ok());
}

#[test]
fn a_key_twice_is_refused() {
    let file = Raw::default().key(b"k", U8, &[1]).key(b"k", U8, &[2]);
    assert_eq!(file.key_problem(), KeyProblem::Duplicate);
}

#[test]
fn unknown_value_types_are_refused() {
    assert_eq!(Raw::default().key(b"k", 13, &[0; 8]).key_problem(), KeyProblem::UnknownType(13));
    let elements = array(77, 1, &[0; 8]);
    assert_eq!(Raw::default().key(b"k", ARRAY, &elements).key_problem(), KeyProblem::UnknownType(77));
}

#[test]
fn nested_arrays_are_refused() {
    let nested = array(ARRAY, 1, &array(U8, 1, &[0]));
    assert_eq!(Raw::default().key(b"k", ARRAY, &nested).key_problem(), KeyProblem::NestedArray);
}

#[test]
fn booleans_other_than_0_and_1_are_refused() {
    assert_eq!(Raw::default().key(b"k", BOOL, &[2]).key_problem(), KeyProblem::Boolean(2));
    let error = Raw::default().key(b"k", ARRAY, &array(BOOL, 3, &[0, 1, 255])).refused();
    // Header 24, name 9, type 4, element type 4, count 8, and two good elements.
    let expected = 24 + 9 + 4 + 4 + 8 + 2;
    assert!(
        matches!(error, GgufError::Key { offset, problem: KeyProblem::Boolean(255), .. } if offset == expected),
        "{error}"
    );
}

#[test]
fn string_values_are_text_and_string_elements_may_be_bytes() {
    assert_eq!(Raw::default().key(b"k", STRING, &string(b"\xff")).key_problem(), KeyProblem::NotText);
    let file = Raw::default().key(b"k", ARRAY, &array(STRING, 1, &string(b"\xff\0"))).bytes();
    let gguf = Gguf::parse(&file).unwrap();
    assert_eq!(gguf.metadata().array("k").unwrap().as_strings().unwrap().get(0).unwrap(), b"\xff\0");
}

#[test]
fn alignments_without_bound_are_refused() {
    for alignment in [0_u32, 1, 4, 24, 33, 1 << 17, 1 << 31, u32::MAX] {
        let file = Raw::default().key(b"general.alignment", U32, &alignment.to_le_bytes());
        assert!(matches!(file.key_problem(), KeyProblem::Value { .. }), "{alignment}");
    }
    let wide = Raw::default().key(b"general.alignment", 10, &32_u64.to_le_bytes());
    assert!(matches!(wide.key_problem(), KeyProblem::Type { expected: "u32", .. }));
}

// ggml_backend_cpu_buffer_from_ptr: GGML_ASSERT(ptr % TENSOR_ALIGNMENT == 0).
#[test]
fn data_that_cannot_be_mapped_is_refused() {
    let mut writer = Writer::new().with_alignment(8);
    writer.set("pad", 1_u8);
    writer.add_tensor("a", &[2], TensorType::F32, vec![0; 8]).unwrap();
    writer.add_tensor("b", &[2], TensorType::F32, vec![0; 8]).unwrap();
    let error = super::refuse(&writer);
    assert!(matches!(error, GgufError::Tensor { problem: TensorProblem::Misaligned(_), .. }), "{error}");
}

#[test]
fn bad_tensor_names_are_refused() {
    let named = |name: &[u8]| Raw::default().tensor(name, &[1], F32, 0).data(32).tensor_problem();
    assert_eq!(named(b""), TensorProblem::EmptyName);
    assert_eq!(named(&[b'a'; 64]), TensorProblem::LongName(64));
    assert_eq!(named(b"\xc3\x28"), TensorProblem::NameNotText);
    assert_eq!(named(b"a\0"), TensorProblem::NameNotText);
    assert!(Gguf::parse(&Raw::default().tensor(&[b'a'; 63], &[1], F32, 0).data(32).bytes()).is_ok());
}

#[test]
fn a_tensor_twice_is_refused() {
    let file = Raw::default().tensor(b"t", &[1], F32, 0).tensor(b"t", &[1], F32, 32).data(64);
    assert_eq!(file.tensor_problem(), TensorProblem::Duplicate);
}

#[test]
fn dimension_counts_other_than_1_to_4_are_refused() {
    for dimensions in [0, 5, 8] {
        let shape = vec![1; dimensions];
        let file = Raw::default().tensor(b"t", &shape, F32, 0).data(64);
        assert_eq!(file.tensor_problem(), TensorProblem::Dimensions(dimensions as u32));
    }
}

#[test]
fn impossible_shapes_are_refused() {
    let shapes: [&[u64]; 6] =
        [&[0], &[4, 0], &[1 << 32, 1 << 32], &[1 << 62, 4], &[u64::MAX], &[1 << 16, 1 << 16, 1 << 16, 1 << 15]];
    for shape in shapes {
        let problem = Raw::default().tensor(b"t", shape, F32, 0).data(64).tensor_problem();
        assert_eq!(problem, TensorProblem::Shape(shape.to_vec()));
    }
}

#[test]
fn rows_that_are_not_whole_blocks_are_refused() {
    let problem = Raw::default().tensor(b"t", &[33, 32], TensorType::Q4_0.id(), 0).data(4096).tensor_problem();
    assert_eq!(problem, TensorProblem::Row { row: 33, tensor_type: TensorType::Q4_0 });
}

#[test]
fn unknown_element_types_name_the_fork_that_has_them() {
    let origin = |id| match Raw::default().tensor(b"t", &[32], id, 0).data(64).tensor_problem() {
        TensorProblem::UnknownType { id: found, origin } if found == id => origin,
        other => panic!("{other}"),
    };
    assert!(origin(4).contains("Q4_2") && origin(5).contains("Q4_3"));
    assert!(origin(31).contains("ARM") && origin(33).contains("ARM"));
    assert!(origin(36).contains("I2_S") && origin(36).contains("BitNet"));
    assert!(origin(38).contains("TL1"));
    assert!(origin(137).contains("ik_llama.cpp"));
    assert!(origin(u32::MAX).contains("damaged"));
}

#[test]
fn overlapping_gapped_and_disordered_tensors_are_refused() {
    for (first, second) in [(0, 0), (0, 4), (0, 31), (0, 64), (32, 0), (u64::MAX, 32), (0, u64::MAX)] {
        let file = Raw::default().tensor(b"a", &[4], F32, first).tensor(b"b", &[4], F32, second).data(128);
        assert!(matches!(file.tensor_problem(), TensorProblem::Offset { .. }), "{first}, {second}");
    }
}

#[test]
fn data_beyond_the_end_of_the_file_is_refused() {
    let error = Raw::default().tensor(b"t", &[16], F32, 0).data(63).refused();
    let GgufError::Truncated { what, needed: 64, available: 63, .. } = &error else { panic!("{error}") };
    assert!(what.contains("`t`"), "{what}");
    assert!(Gguf::parse(&Raw::default().tensor(b"t", &[16], F32, 0).data(64).bytes()).is_ok());
}
