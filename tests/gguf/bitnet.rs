//! I2_S, and the types of forks that a BitNet file may have.

use gguf_loader::gguf::{Gguf, GgufError, TensorProblem, TensorType, Writer};

use super::bytes;

/// A file with two matrices of a block and a norm, and no keys but the architecture.
fn bitnet(architecture: &str, tensor_type: TensorType) -> Writer {
    let mut writer = Writer::new();
    writer.set("general.architecture", architecture);
    for name in ["attn_q", "attn_k"] {
        super::add(&mut writer, &format!("blk.0.{name}.weight"), &[256, 4], tensor_type);
    }
    super::add(&mut writer, "output_norm.weight", &[256], TensorType::F32);
    writer
}

#[track_caller]
fn problem(file: &[u8]) -> (String, TensorProblem) {
    match Gguf::parse(file).unwrap_err() {
        GgufError::Tensor { tensor, problem, .. } => (tensor, problem),
        other => panic!("{other}"),
    }
}

#[track_caller]
fn fork(file: &[u8]) -> (String, u32, &'static str) {
    match problem(file) {
        (tensor, TensorProblem::UnknownType { id, origin }) => (tensor, id, origin),
        (_, other) => panic!("{other}"),
    }
}

#[test]
fn i2_s_takes_a_quarter_of_a_byte_a_weight_and_a_trailer_of_32() {
    assert_eq!(TensorType::I2_S.bytes_of(&[256, 4]), Some(256 + 32));
    for architecture in ["bitnet-b1.58", "bitnet-25", "bitnet"] {
        let gguf = Gguf::parse(&bytes(&bitnet(architecture, TensorType::I2_S))).unwrap();
        let [first, second, norm] = gguf.tensors() else { panic!("three tensors") };
        assert_eq!((first.bytes, second.offset - first.offset, norm.offset - second.offset), (288, 288, 288));
    }
}

#[test]
fn i2_s_outside_of_bitnet_models_is_refused() {
    let (tensor, id, origin) = fork(&bytes(&bitnet("llama", TensorType::I2_S)));
    assert_eq!((tensor.as_str(), id), ("blk.0.attn_q.weight", 36));
    assert!(origin.contains("I2_S") && origin.contains("bitnet-b1.58"), "{origin}");
}

#[test]
fn i2_s_of_anything_but_a_matrix_of_a_block_is_refused() {
    for (name, shape) in
        [("token_embd.weight", [256, 4].as_slice()), ("blk.0.x.weight", &[256, 4, 2]), ("blk.0.x", &[256, 4])]
    {
        let mut writer = bitnet("bitnet", TensorType::F32);
        super::add(&mut writer, name, shape, TensorType::I2_S);
        let (tensor, problem) = problem(&bytes(&writer));
        assert_eq!(tensor, name);
        assert!(matches!(problem, TensorProblem::Type { tensor_type: TensorType::I2_S, .. }), "{problem}");
    }
}

#[test]
fn i2_s_rows_that_no_block_fits_are_refused() {
    let mut file = bytes(&bitnet("bitnet", TensorType::I2_S));
    let name = b"blk.0.attn_k.weight";
    let end = file.windows(name.len()).position(|window| window == name).unwrap() + name.len();
    file[end + 4..end + 12].copy_from_slice(&100_u64.to_le_bytes());
    assert_eq!(problem(&file).1, TensorProblem::Row { row: 100, tensor_type: TensorType::I2_S });
}

#[test]
fn scales_that_are_no_numbers_above_zero_are_refused() {
    let file = |architecture: &str, tensor_type: TensorType, scale: f32| {
        let mut writer = bitnet(architecture, tensor_type);
        // The first is sound: each of them is looked at.
        for (name, scale) in [("attn_q", 0.5), ("attn_k", scale)] {
            let data = scale.to_le_bytes().to_vec();
            writer.add_tensor(format!("blk.0.{name}.scale"), &[1], TensorType::F32, data).unwrap();
        }
        bytes(&writer)
    };
    for tensor_type in [TensorType::TQ1_0, TensorType::TQ2_0, TensorType::Q2_0, TensorType::F16] {
        for architecture in ["bitnet-b1.58", "bitnet-25", "bitnet"] {
            for scale in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 0.0, -0.0, -1.0] {
                let found = TensorProblem::Scale { found: scale.to_string() };
                let expected = ("blk.0.attn_k.scale".to_owned(), found);
                assert_eq!(problem(&file(architecture, tensor_type, scale)), expected);
            }
            for scale in [f32::MIN_POSITIVE, 1.0, f32::MAX] {
                Gguf::parse(&file(architecture, tensor_type, scale)).unwrap();
            }
        }
        // Other models' scales mean what their graphs make of them.
        Gguf::parse(&file("llama", tensor_type, 0.0)).unwrap();
    }
}

#[test]
fn truncated_i2_s_is_refused_at_every_length() {
    let file = bytes(&bitnet("bitnet", TensorType::I2_S));
    let end = Gguf::parse(&file).unwrap().tensors().last().map(|norm| norm.offset + norm.bytes).unwrap() as usize;
    for length in (0..end).step_by(7) {
        let error = Gguf::parse(&file[..length]).unwrap_err();
        assert!(matches!(error, GgufError::Truncated { .. } | GgufError::Empty { .. }), "{length}: {error}");
    }
}

/// Gives the first tensor another type id, its data the length that it had.
fn with_id(architecture: &str, tensor_type: TensorType, id: u32) -> Vec<u8> {
    let mut file = bytes(&bitnet(architecture, tensor_type));
    let name = b"blk.0.attn_q.weight";
    let at = file.windows(name.len()).position(|window| window == name).unwrap() + name.len() + 4 + 16;
    file[at..at + 4].copy_from_slice(&id.to_le_bytes());
    file
}

#[test]
fn types_of_forks_are_named_with_the_way_out() {
    // (id, what the fork calls it, whose it is)
    let ids = [
        (37, "I8_S", "bitnet.cpp"),
        (38, "TL1", "bitnet.cpp"),
        (39, "TL2", "bitnet.cpp"),
        (41, "TL1", "bitnet.cpp"),
        (134, "IQ1_BN", "ik_llama.cpp"),
        (135, "IQ2_BN", "ik_llama.cpp"),
        (142, "IQ2_TN", "ik_llama.cpp"),
        (335, "IQ2_BN", "ik_llama.cpp"),
    ];
    for (id, name, fork_name) in ids {
        let (tensor, found, origin) = fork(&with_id("bitnet-b1.58", TensorType::I2_S, id));
        assert_eq!((tensor.as_str(), found), ("blk.0.attn_q.weight", id));
        assert!(origin.contains(name) && origin.contains(fork_name) && origin.contains("I2_S"), "{id}: {origin}");
    }
}

#[test]
fn tl2_under_the_id_of_q2_0_is_told_by_its_length() {
    let (tensor, id, origin) = fork(&with_id("bitnet", TensorType::Q8_0, 42));
    assert_eq!((tensor.as_str(), id), ("blk.0.attn_q.weight", 42));
    assert!(origin.contains("TL2"), "{origin}");
    // What is Q2_0 passes, and elsewhere a wrong length is no question of forks.
    Gguf::parse(&bytes(&bitnet("bitnet", TensorType::Q2_0))).unwrap();
    assert!(matches!(problem(&with_id("llama", TensorType::Q8_0, 42)).1, TensorProblem::Offset { .. }));
    Gguf::parse(&bytes(&bitnet("llama", TensorType::MXFP4))).unwrap();
}
