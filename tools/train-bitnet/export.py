#!/usr/bin/python3
"""Writes a checkpoint as model files: `export.py FOLDER --i2-s FILE --tq2-0 FILE --huggingface FOLDER`."""

import argparse
import json
import struct
from pathlib import Path

import numpy as np
import torch

import gguf_file
from bpe import BOS, EOS, Tokenizer
from gguf_file import U32, TensorType
from model import Shape
from stored import Stored

NAME = "Scribe 4M"
ARCHITECTURE = "bitnet-b1.58"
#: `LLAMA_FTYPE_MOSTLY_I2_S` of Microsoft's fork, and upstream's `LLAMA_FTYPE_MOSTLY_TQ2_0`.
FILE_TYPE_I2_S, FILE_TYPE_TQ2_0 = 40, 37


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="what train.py left")
    parser.add_argument("--i2-s", type=Path, metavar="FILE", help="a GGUF as Microsoft's tools write it on x86")
    parser.add_argument("--tq2-0", type=Path, metavar="FILE", help="a GGUF in gguf-loader's own form")
    parser.add_argument(
        "--huggingface", type=Path, metavar="FOLDER", help="FOLDER/packed and FOLDER/bf16, as on Hugging Face"
    )
    arguments = parser.parse_args()
    stored = Stored.from_checkpoint(arguments.folder / "checkpoint.pt")
    tokenizer = Tokenizer.load(arguments.folder / "tokenizer.json")
    if arguments.i2_s:
        metadata = gguf_metadata(stored, tokenizer, FILE_TYPE_I2_S)
        gguf_file.write(arguments.i2_s, metadata, i2_s_tensors(stored))
    if arguments.tq2_0:
        metadata = gguf_metadata(stored, tokenizer, FILE_TYPE_TQ2_0)
        gguf_file.write(arguments.tq2_0, metadata | {"gguf_loader.source": "trained"}, tq2_0_tensors(stored))
    if arguments.huggingface:
        saved = torch.load(arguments.folder / "checkpoint.pt")
        write_huggingface(arguments.huggingface / "packed", stored.shape, tokenizer, packed(stored), "packed")
        write_huggingface(arguments.huggingface / "bf16", stored.shape, tokenizer, master(saved), "bf16")


def gguf_metadata(stored: Stored, tokenizer: Tokenizer, file_type: int) -> dict:
    """The keys of Microsoft's 2B-4T file in their order, and after them what that file lacks."""
    shape = stored.shape
    special = {tokenizer.bos, tokenizer.eos}
    return {
        "general.architecture": ARCHITECTURE,
        "general.name": NAME,
        f"{ARCHITECTURE}.vocab_size": U32(shape.vocabulary),
        f"{ARCHITECTURE}.context_length": U32(shape.context),
        f"{ARCHITECTURE}.embedding_length": U32(shape.width),
        f"{ARCHITECTURE}.block_count": U32(shape.blocks),
        f"{ARCHITECTURE}.feed_forward_length": U32(shape.feed_forward),
        f"{ARCHITECTURE}.rope.dimension_count": U32(shape.head_width),
        f"{ARCHITECTURE}.attention.head_count": U32(shape.heads),
        f"{ARCHITECTURE}.attention.head_count_kv": U32(shape.kv_heads),
        "tokenizer.ggml.add_bos_token": True,
        f"{ARCHITECTURE}.attention.layer_norm_rms_epsilon": shape.epsilon,
        f"{ARCHITECTURE}.rope.freq_base": shape.rope_base,
        "general.file_type": U32(file_type),
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.tokens": tokenizer.tokens,
        "tokenizer.ggml.scores": [0.0] * len(tokenizer.tokens),
        "tokenizer.ggml.token_type": [3 if token in special else 1 for token in range(len(tokenizer.tokens))],
        "tokenizer.ggml.merges": [f"{left} {right}" for left, right in tokenizer.merges],
        "tokenizer.ggml.bos_token_id": U32(tokenizer.bos),
        "tokenizer.ggml.eos_token_id": U32(tokenizer.eos),
        "general.quantization_version": U32(2),
        "tokenizer.ggml.pre": "llama-bpe",
        "general.license": "MIT OR Apache-2.0",
    }


def i2_s_tensors(stored: Stored) -> list[gguf_file.Tensor]:
    ternary = [gguf_file.i2_s(f"{name}.weight", matrix.codes, matrix.scale) for name, matrix in stored.matrices.items()]
    return [*_plain_tensors(stored), *ternary]


def tq2_0_tensors(stored: Stored) -> list[gguf_file.Tensor]:
    tensors = _plain_tensors(stored)
    for name, matrix in stored.matrices.items():
        tensors.append(gguf_file.tq2_0(f"{name}.weight", matrix.codes))
        tensors.append(gguf_file.plain(f"{name}.scale", np.array([matrix.scale]), TensorType.F32))
    return tensors


def _plain_tensors(stored: Stored) -> list[gguf_file.Tensor]:
    norms = {"output_norm": stored.output_norm, **stored.norms}
    return [
        gguf_file.plain("token_embd.weight", stored.token_embd, TensorType.F16),
        *(gguf_file.plain(f"{name}.weight", gain, TensorType.F32) for name, gain in norms.items()),
    ]


#: A block's parameters under their names in transformers' `BitNetForCausalLM`.
HUGGINGFACE = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_sub_norm": "self_attn.attn_sub_norm",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_sub_norm": "mlp.ffn_sub_norm",
    "ffn_down": "mlp.down_proj",
}


def packed(stored: Stored) -> dict[str, torch.Tensor]:
    """As `microsoft/bitnet-b1.58-2B-4T`: U8 [outputs / 4, inputs], where byte row `r` holds in its two lowest bits the
    code + 1 of output `r`, then of `r + outputs / 4`, and so on; `weight_scale` is BF16 and multiplies."""
    tensors = {
        "model.embed_tokens.weight": torch.from_numpy(stored.token_embd).bfloat16(),
        "model.norm.weight": torch.from_numpy(stored.output_norm).bfloat16(),
    }
    for name, gain in stored.norms.items():
        tensors[_huggingface_name(name) + ".weight"] = torch.from_numpy(gain).bfloat16()
    for name, matrix in stored.matrices.items():
        stripes = (matrix.codes + 1).astype(np.uint8).reshape(4, -1, matrix.codes.shape[1])
        bytes_ = stripes[0] | stripes[1] << 2 | stripes[2] << 4 | stripes[3] << 6
        tensors[_huggingface_name(name) + ".weight"] = torch.from_numpy(bytes_)
        tensors[_huggingface_name(name) + ".weight_scale"] = torch.tensor([matrix.scale]).bfloat16()
    return tensors


def master(saved: dict) -> dict[str, torch.Tensor]:
    """As `microsoft/bitnet-b1.58-2B-4T-bf16`: the weights before they are quantised."""
    tensors = {}
    for name, value in saved["parameters"].items():
        if name == "token_embd":
            name = "model.embed_tokens"
        elif name == "output_norm":
            name = "model.norm"
        else:
            name = _huggingface_name(name.replace("blocks.", "blk."))
        tensors[f"{name}.weight"] = value.bfloat16()
    return tensors


def _huggingface_name(name: str) -> str:
    _, block, parameter = name.split(".")
    return f"model.layers.{block}.{HUGGINGFACE[parameter]}"


def write_huggingface(
    folder: Path, shape: Shape, tokenizer: Tokenizer, tensors: dict[str, torch.Tensor], form: str
) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    quantization = {
        "quant_method": "bitnet",
        "linear_class": "autobitlinear",
        "quantization_mode": "offline" if form == "packed" else "online",
    }
    config = {
        "architectures": ["BitNetForCausalLM"],
        "bos_token_id": tokenizer.bos,
        "eos_token_id": tokenizer.eos,
        "hidden_act": "relu2",
        "hidden_size": shape.width,
        "initializer_range": 0.02,
        "intermediate_size": shape.feed_forward,
        "max_position_embeddings": shape.context,
        "model_type": "bitnet",
        "num_attention_heads": shape.heads,
        "num_hidden_layers": shape.blocks,
        "num_key_value_heads": shape.kv_heads,
        "quantization_config": quantization,
        "rms_norm_eps": shape.epsilon,
        "rope_theta": shape.rope_base,
        "tie_word_embeddings": True,
        "torch_dtype": "bfloat16",
        "use_cache": True,
        "vocab_size": shape.vocabulary,
    }
    _write_json(folder / "config.json", config)
    _write_json(folder / "generation_config.json", {"bos_token_id": tokenizer.bos, "eos_token_id": tokenizer.eos})
    tokenizer_config = {"bos_token": BOS, "eos_token": EOS, "tokenizer_class": "PreTrainedTokenizerFast"}
    _write_json(folder / "tokenizer_config.json", tokenizer_config)
    tokenizer.save(folder / "tokenizer.json")
    _write_safetensors(folder / "model.safetensors", tensors)


def _write_json(path: Path, value: dict) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")


def _write_safetensors(path: Path, tensors: dict[str, torch.Tensor]) -> None:
    """Eight bytes of header length, a JSON header with the place of each tensor, the tensors."""
    header, data = {"__metadata__": {"format": "pt"}}, b""
    for name, tensor in sorted(tensors.items()):
        if tensor.dtype == torch.uint8:
            kind, content = "U8", tensor.contiguous().numpy().tobytes()
        else:
            # numpy has no BF16: its bits travel as int16.
            kind, content = "BF16", tensor.contiguous().view(torch.int16).numpy().tobytes()
        place = [len(data), len(data) + len(content)]
        header[name] = {"dtype": kind, "shape": list(tensor.shape), "data_offsets": place}
        data += content
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)


if __name__ == "__main__":
    main()
