"""BitNet b1.58 as 2B-4T has it, for quantisation-aware training.

Every linear layer sees what it will see at run time: weights rounded to {-1, 0, 1} times one scale for the matrix (the
mean of their magnitudes), activations rounded to int8 with one scale for the token (absmax / 127). Gradients pass the
rounding as if it weren't there (straight-through). Products run in BF16, which holds both operands of a linear layer
exactly.

Ma et al., "The Era of 1-bit LLMs", arXiv 2402.17764; "BitNet b1.58 2B4T Technical Report", arXiv 2504.12285.
"""

import math
from dataclasses import asdict, dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

SCALE_FLOOR = 1e-5


@dataclass(frozen=True)
class Shape:
    vocabulary: int = 2048
    width: int = 256
    blocks: int = 5
    heads: int = 4
    kv_heads: int = 2
    feed_forward: int = 768
    context: int = 256
    rope_base: float = 500_000.0
    epsilon: float = 1e-5

    @property
    def head_width(self) -> int:
        return self.width // self.heads

    @property
    def kv_width(self) -> int:
        return self.head_width * self.kv_heads

    def as_dict(self) -> dict:
        return asdict(self)


def ternary(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Codes in {-1, 0, 1} and the scale: absmean quantisation."""
    scale = weight.abs().mean().clamp(min=SCALE_FLOOR)
    return (weight / scale).round().clamp(-1, 1), scale


def int8(x: Tensor) -> tuple[Tensor, Tensor]:
    """Integers in [-128, 127] and the scale of each row; ties round to even."""
    scale = x.abs().amax(dim=-1, keepdim=True).clamp(min=SCALE_FLOOR) / 127
    return (x / scale).round().clamp(-128, 127), scale


class _BitLinear(torch.autograd.Function):
    """Several matrices that share an input: it is quantised once, and one product serves them all."""

    @staticmethod
    def forward(ctx, x: Tensor, *weights: Tensor) -> tuple[Tensor, ...]:
        q, x_scale = int8(x)
        quantised = [ternary(weight) for weight in weights]
        codes = torch.cat([codes for codes, _ in quantised]).bfloat16()
        scales = torch.cat([scale.expand(len(codes)) for codes, scale in quantised])
        q = q.bfloat16()
        ctx.save_for_backward(q, x_scale, codes, scales)
        ctx.rows = [len(weight) for weight in weights]
        y = (q @ codes.T).float() * x_scale * scales
        return y.split(ctx.rows, dim=-1)

    @staticmethod
    def backward(ctx, *gradients: Tensor) -> tuple[Tensor, ...]:
        q, x_scale, codes, scales = ctx.saved_tensors
        gradient = torch.cat(gradients, dim=-1)
        dx = ((gradient * scales).bfloat16() @ codes).float()
        dw = ((gradient * x_scale).bfloat16().T @ q).float()
        return dx, *dw.split(ctx.rows)


class _RmsNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor, gain: Tensor, epsilon: float) -> Tensor:
        inverse = (x.square().mean(dim=-1, keepdim=True) + epsilon).rsqrt()
        ctx.save_for_backward(x, gain, inverse)
        return x * inverse * gain

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, Tensor, None]:
        x, gain, inverse = ctx.saved_tensors
        unit = x * inverse
        d_gain = (gradient * unit).sum(dim=0)
        gradient = gradient * gain
        return inverse * (gradient - unit * (gradient * unit).mean(dim=-1, keepdim=True)), d_gain, None


class Block(nn.Module):
    def __init__(self, shape: Shape) -> None:
        super().__init__()
        width, kv_width, hidden = shape.width, shape.kv_width, shape.feed_forward
        self.attn_norm = nn.Parameter(torch.ones(width))
        self.attn_q = nn.Parameter(torch.randn(width, width) / math.sqrt(width))
        self.attn_k = nn.Parameter(torch.randn(kv_width, width) / math.sqrt(width))
        self.attn_v = nn.Parameter(torch.randn(kv_width, width) / math.sqrt(width))
        self.attn_sub_norm = nn.Parameter(torch.ones(width))
        self.attn_output = nn.Parameter(torch.randn(width, width) / math.sqrt(width))
        self.ffn_norm = nn.Parameter(torch.ones(width))
        self.ffn_gate = nn.Parameter(torch.randn(hidden, width) / math.sqrt(width))
        self.ffn_up = nn.Parameter(torch.randn(hidden, width) / math.sqrt(width))
        self.ffn_sub_norm = nn.Parameter(torch.ones(hidden))
        self.ffn_down = nn.Parameter(torch.randn(width, hidden) / math.sqrt(hidden))


#: The parameters of a block that are stored as ternary matrices, under their GGUF names.
TERNARY = ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down")
NORMS = ("attn_norm", "attn_sub_norm", "ffn_norm", "ffn_sub_norm")


class BitNet(nn.Module):
    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        self.token_embd = nn.Parameter(torch.randn(shape.vocabulary, shape.width) * 0.05)
        self.blocks = nn.ModuleList(Block(shape) for _ in range(shape.blocks))
        self.output_norm = nn.Parameter(torch.ones(shape.width))

    def forward(self, tokens: Tensor, targets: Tensor) -> Tensor:
        """The mean cross-entropy of `targets` given `tokens`, both [sequences, length]."""
        shape = self.shape
        sequences, length = tokens.shape
        rotation = rope(length, shape, torch.float32)
        mask = torch.full((length, length), -torch.inf).triu(1)
        x = functional.embedding(tokens.reshape(-1), self.token_embd)
        for block in self.blocks:
            h = _RmsNorm.apply(x, block.attn_norm, shape.epsilon)
            q, k, v = _BitLinear.apply(h, block.attn_q, block.attn_k, block.attn_v)
            q, k, v = (part.view(sequences, length, -1, shape.head_width).transpose(1, 2) for part in (q, k, v))
            q, k = rotate(q, *rotation), rotate(k, *rotation)
            attended = attention(q, k, v, mask).transpose(1, 2).reshape(sequences * length, shape.width)
            (o,) = _BitLinear.apply(_RmsNorm.apply(attended, block.attn_sub_norm, shape.epsilon), block.attn_output)
            x = x + o
            h = _RmsNorm.apply(x, block.ffn_norm, shape.epsilon)
            gate, up = _BitLinear.apply(h, block.ffn_gate, block.ffn_up)
            hidden = _RmsNorm.apply(functional.relu(gate).square() * up, block.ffn_sub_norm, shape.epsilon)
            (down,) = _BitLinear.apply(hidden, block.ffn_down)
            x = x + down
        x = _RmsNorm.apply(x, self.output_norm, shape.epsilon)
        logits = (x.bfloat16() @ self.token_embd.bfloat16().T).float()
        return functional.cross_entropy(logits, targets.reshape(-1))


def rope(length: int, shape: Shape, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Cosines and sines, [length, head_width / 2]."""
    exponents = torch.arange(0, shape.head_width, 2, dtype=torch.float64) / shape.head_width
    angles = torch.arange(length, dtype=torch.float64)[:, None] * shape.rope_base**-exponents
    return angles.cos().to(dtype), angles.sin().to(dtype)


def rotate(x: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    """Rotates the two halves of each head against each other (NeoX style); x is [..., length, head_width]."""
    left, right = x.chunk(2, dim=-1)
    return torch.cat((left * cosine - right * sine, right * cosine + left * sine), dim=-1)


def attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
    """Grouped-query attention; q is [sequences, heads, length, head_width], k and v have fewer heads."""
    sequences, heads, length, width = q.shape
    group = heads // k.shape[1]
    # The query heads of a group lie one below the other, so that their keys need no copies.
    q = q.reshape(sequences, k.shape[1], group * length, width)
    scores = (q.bfloat16() @ k.bfloat16().transpose(-1, -2)).float() / math.sqrt(width)
    weights = (scores.view(*scores.shape[:2], group, length, -1) + mask).softmax(dim=-1).view_as(scores)
    return (weights.bfloat16() @ v.bfloat16()).float().view(sequences, heads, length, width)
