"""A trained model as it is stored: ternary codes with F32 scales, an F16 embedding, F32 norms."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

import gguf_file
from bpe import Tokenizer
from model import NORMS, TERNARY, Shape, ternary


@dataclass(frozen=True)
class Matrix:
    #: [outputs, inputs] of -1, 0, 1.
    codes: np.ndarray
    scale: np.float32


@dataclass(frozen=True)
class Stored:
    shape: Shape
    token_embd: np.ndarray
    output_norm: np.ndarray
    #: `blk.N.NAME`, without `.weight`.
    matrices: dict[str, Matrix]
    norms: dict[str, np.ndarray]

    @classmethod
    def from_checkpoint(cls, path: Path) -> "Stored":
        """Reads what train.py saved. All is rounded to BF16 first, as a published master checkpoint is, so that every
        form that export.py writes holds the same codes, norms and embedding."""
        saved = torch.load(path)
        parameters = {name: value.bfloat16().float() for name, value in saved["parameters"].items()}
        shape = Shape(**saved["shape"])
        matrices, norms = {}, {}
        for block in range(shape.blocks):
            for name in TERNARY:
                # In double precision, so that the order of the sum doesn't show in the scale.
                codes, scale = ternary(parameters[f"blocks.{block}.{name}"].double())
                matrices[f"blk.{block}.{name}"] = Matrix(codes.to(torch.int8).numpy(), np.float32(scale.item()))
            for name in NORMS:
                norms[f"blk.{block}.{name}"] = parameters[f"blocks.{block}.{name}"].numpy()
        return cls(
            shape,
            parameters["token_embd"].half().numpy(),
            parameters["output_norm"].numpy(),
            matrices,
            norms,
        )

    @classmethod
    def from_i2_s(cls, path: Path) -> tuple["Stored", Tokenizer]:
        """Reads an I2_S file that export.py wrote."""
        metadata, tensors = gguf_file.read(path)
        architecture = metadata["general.architecture"]

        def key(name: str):
            return metadata[f"{architecture}.{name}"]

        shape = Shape(
            vocabulary=key("vocab_size"),
            width=key("embedding_length"),
            blocks=key("block_count"),
            heads=key("attention.head_count"),
            kv_heads=key("attention.head_count_kv"),
            feed_forward=key("feed_forward_length"),
            context=key("context_length"),
            rope_base=key("rope.freq_base"),
            epsilon=key("attention.layer_norm_rms_epsilon"),
        )
        names = [f"blk.{block}.{name}" for block in range(shape.blocks) for name in TERNARY]
        stored = cls(
            shape,
            gguf_file.plain_values(tensors["token_embd.weight"]),
            gguf_file.plain_values(tensors["output_norm.weight"]),
            {name: Matrix(*gguf_file.i2_s_values(tensors[f"{name}.weight"])) for name in names},
            {
                f"blk.{block}.{name}": gguf_file.plain_values(tensors[f"blk.{block}.{name}.weight"])
                for block in range(shape.blocks)
                for name in NORMS
            },
        )
        merges = [tuple(merge.split(" ")) for merge in metadata["tokenizer.ggml.merges"]]
        return stored, Tokenizer(merges)
