"""The model as an inference engine runs it, in PyTorch: ternary codes, int8 activations, exact integer sums.

Where train.py's graph approximates (BF16 products), this one does not. In F32 a dot product of codes and int8
activations is exact, too: no partial sum reaches 2^24 (the longest row has 768 weights, 768 * 128 < 2^17).
"""

import math

import torch
from torch import Tensor

from model import int8, rope, rotate
from stored import Stored


class Oracle:
    def __init__(self, stored: Stored, dtype: torch.dtype, *, f16_cache: bool = False) -> None:
        """`dtype` is that of all that isn't an integer; `f16_cache` rounds keys and values to F16, as llama.cpp's KV
        cache does by default."""
        self.shape = stored.shape
        self.dtype = dtype
        self.f16_cache = f16_cache
        self.token_embd = torch.from_numpy(stored.token_embd).to(dtype)
        self.output_norm = torch.from_numpy(stored.output_norm).to(dtype)
        self.norms = {name: torch.from_numpy(gain).to(dtype) for name, gain in stored.norms.items()}
        self.matrices = {
            name: (torch.from_numpy(matrix.codes).to(dtype), torch.tensor(matrix.scale, dtype=dtype))
            for name, matrix in stored.matrices.items()
        }

    @torch.no_grad()
    def logits(self, tokens: list[int]) -> Tensor:
        """[tokens, vocabulary]: what follows each of the tokens, the first of which has position 0."""
        length = len(tokens)
        rotation = rope(length, self.shape, self.dtype)
        x = self.token_embd[torch.tensor(tokens)]
        for block in range(self.shape.blocks):
            name = f"blk.{block}."
            h = self._norm(x, self.norms[name + "attn_norm"])
            q, k, v = (self._linear(h, f"{name}attn_{part}") for part in "qkv")
            q, k, v = (part.view(length, -1, self.shape.head_width).transpose(0, 1) for part in (q, k, v))
            attended = self._attention(rotate(q, *rotation), rotate(k, *rotation), v)
            x = x + self._linear(self._norm(attended, self.norms[name + "attn_sub_norm"]), name + "attn_output")
            h = self._norm(x, self.norms[name + "ffn_norm"])
            hidden = self._linear(h, name + "ffn_gate").relu().square() * self._linear(h, name + "ffn_up")
            x = x + self._linear(self._norm(hidden, self.norms[name + "ffn_sub_norm"]), name + "ffn_down")
        return self._norm(x, self.output_norm) @ self.token_embd.T

    def _norm(self, x: Tensor, gain: Tensor) -> Tensor:
        return x * (x.square().mean(dim=-1, keepdim=True) + self.shape.epsilon).rsqrt() * gain

    def _linear(self, x: Tensor, name: str) -> Tensor:
        codes, scale = self.matrices[name]
        q, x_scale = int8(x)
        return q @ codes.T * x_scale * scale

    def _attention(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        heads, length, width = q.shape
        if self.f16_cache:
            k, v = k.half().to(self.dtype), v.half().to(self.dtype)
        # Query head h reads key head h / (heads / kv_heads).
        k, v = (part.repeat_interleave(heads // len(k), dim=0) for part in (k, v))
        future = torch.ones(length, length, dtype=torch.bool).triu(1)
        weights = (q @ k.transpose(-1, -2) / math.sqrt(width)).masked_fill(future, -torch.inf).softmax(dim=-1)
        return (weights @ v).transpose(0, 1).reshape(length, heads * width)
