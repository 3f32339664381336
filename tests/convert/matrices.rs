//! Ternary matrices: the order of packed codes, the meaning of scales, the rounding of master weights.

use gguf_loader::gguf::{Gguf, TensorType};

use super::{
    checkpoint::{Checkpoint, FFN, KV_WIDTH, Tensor, WIDTH},
    converted, data, floats,
};

/// The weights of a Q2_0 matrix: a scale and 64 codes of two bits a block, in order.
fn weights(gguf: &Gguf, name: &str) -> Vec<i8> {
    let tensor = gguf.tensor(name).unwrap();
    assert_eq!(tensor.tensor_type, TensorType::Q2_0);
    let mut weights = Vec::new();
    for block in data(gguf, name).as_chunks::<18>().0 {
        assert_eq!(block[..2], [0x00, 0x3c], "a block scale of 1.0");
        weights.extend(block[2..].iter().flat_map(|byte| (0..4).map(move |pair| (byte >> (2 * pair) & 3) as i8 - 1)));
    }
    weights
}

/// The example in the documentation of `unpack_weights`, transformers' `integrations/bitnet.py`: two packed rows of two
/// columns, and the eight rows that they hold.
#[test]
fn packed_rows_are_four_stripes() {
    let mut packed = vec![0x55; KV_WIDTH / 4 * WIDTH];
    (packed[0], packed[1]) = (0b10_10_00_01, 0b00_01_10_00);
    (packed[WIDTH], packed[WIDTH + 1]) = (0b10_01_00_00, 0b00_00_10_10);
    let mut checkpoint = Checkpoint::packed();
    checkpoint.set("self_attn.k_proj.weight", Tensor::u8(&[KV_WIDTH / 4, WIDTH], packed));
    let weights = weights(&converted(&checkpoint), "blk.0.attn_k.weight");
    let rows: Vec<&[i8]> = weights.chunks(WIDTH).collect();
    let corner: Vec<[i8; 2]> = rows.iter().map(|row| [row[0], row[1]]).collect();
    // Bits 0-1 of both rows, then bits 2-3, and so on.
    assert_eq!(corner, [[0, -1], [-1, 1], [-1, 1], [-1, 1], [1, 0], [0, -1], [1, -1], [1, -1]]);
    assert!(rows.iter().all(|row| row[2..].iter().all(|&weight| weight == 0)));
}

#[test]
fn rows_of_256_take_blocks_of_256() {
    let mut packed = vec![0x55; WIDTH / 4 * FFN];
    // Row 0 of the first stripe: columns 3 and 35 share a byte of TQ2_0.
    (packed[3], packed[35]) = (0b01_01_01_10, 0b01_01_01_00);
    let mut checkpoint = Checkpoint::packed();
    checkpoint.set("mlp.down_proj.weight", Tensor::u8(&[WIDTH / 4, FFN], packed));
    let gguf = converted(&checkpoint);
    let tensor = gguf.tensor("blk.0.ffn_down.weight").unwrap();
    assert_eq!((tensor.tensor_type, tensor.shape.as_slice()), (TensorType::TQ2_0, &[FFN as u64, WIDTH as u64][..]));
    let bytes = data(&gguf, "blk.0.ffn_down.weight");
    assert_eq!((bytes[3], &bytes[64..66]), (0b01_01_00_10, &[0x00, 0x3c][..]));
}

#[test]
fn scale_is_a_factor_of_one_class_and_a_divisor_of_the_other() {
    let scale = |class: Option<&str>| {
        let mut checkpoint = Checkpoint::packed();
        let config = checkpoint.config["quantization_config"].as_object_mut().unwrap();
        config.remove("linear_class");
        if let Some(class) = class {
            config.insert("linear_class".to_owned(), class.into());
        }
        checkpoint.set("mlp.up_proj.weight_scale", Tensor::bf16(&[1], [0.25]));
        floats(&converted(&checkpoint), "blk.0.ffn_up.scale")
    };
    assert_eq!(scale(Some("autobitlinear")), [0.25]);
    assert_eq!(scale(Some("bitlinear")), [4.0]);
    // What transformers takes a configuration without the field for.
    assert_eq!(scale(None), [4.0]);
}

#[test]
fn scales_come_in_every_float_type() {
    for tensor in [Tensor::f32(&[1], [0.3]), Tensor::f32(&[], [0.3])] {
        let mut checkpoint = Checkpoint::packed();
        checkpoint.set("mlp.up_proj.weight_scale", tensor);
        assert_eq!(floats(&converted(&checkpoint), "blk.0.ffn_up.scale"), [0.3]);
    }
}

#[test]
fn master_weights_are_rounded_by_their_mean_magnitude() {
    // Half of the weights are 1.5 and half are 0.5 in magnitude: the mean is 1, and 0.5 is a tie, which goes to zero.
    let pattern = [1.5, -1.5, 0.5, -0.5];
    let values = (0..KV_WIDTH * WIDTH).map(|index| pattern[index % 4]);
    let mut checkpoint = Checkpoint::master();
    checkpoint.set("self_attn.k_proj.weight", Tensor::bf16(&[KV_WIDTH, WIDTH], values));
    let gguf = converted(&checkpoint);
    assert_eq!(floats(&gguf, "blk.0.attn_k.scale"), [1.0]);
    assert_eq!(weights(&gguf, "blk.0.attn_k.weight"), [1, -1, 0, 0].repeat(KV_WIDTH * WIDTH / 4));
}

#[test]
fn master_weights_of_zero_have_the_least_scale() {
    let mut checkpoint = Checkpoint::master();
    checkpoint.set("self_attn.v_proj.weight", Tensor::f32(&[KV_WIDTH, WIDTH], vec![0.0; KV_WIDTH * WIDTH]));
    let gguf = converted(&checkpoint);
    assert_eq!(floats(&gguf, "blk.0.attn_v.scale"), [1e-5]);
    assert!(weights(&gguf, "blk.0.attn_v.weight").iter().all(|&weight| weight == 0));
}
