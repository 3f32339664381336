"""As much of GGUF (v3, little-endian, alignment 32) as this model needs: a writer, and a reader of what it wrote."""

import struct
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path

import numpy as np

ALIGNMENT = 32


class TensorType(IntEnum):
    F32 = 0
    F16 = 1
    TQ2_0 = 35
    #: Microsoft's BitNet fork; upstream's number 36 is retired.
    I2_S = 36


@dataclass(frozen=True)
class Tensor:
    name: str
    kind: TensorType
    #: As GGUF has it: the row length first.
    dimensions: tuple[int, ...]
    data: bytes


@dataclass(frozen=True)
class U32:
    """An integer that the format wants as u32; plain Python integers have no width."""

    value: int


def plain(name: str, values: np.ndarray, kind: TensorType) -> Tensor:
    dtype = {TensorType.F32: "<f4", TensorType.F16: "<f2"}[kind]
    return Tensor(name, kind, values.shape[::-1], values.astype(dtype).tobytes())


def i2_s(name: str, codes: np.ndarray, scale: np.float32) -> Tensor:
    """The layout that bitnet.cpp writes on x86: 32 bytes hold 128 weights, weight `j` in byte `j % 32`, the first 32 in
    the top two bits and the last 32 in the lowest, as code + 1. After all codes one F32 scale, padded to 32 bytes."""
    if codes.size % 128:
        raise ValueError(f"{name}: {codes.size} weights are not whole blocks of 128")
    blocks = (codes.reshape(-1, 4, 32) + 1).astype(np.uint8)
    packed = blocks[:, 0] << 6 | blocks[:, 1] << 4 | blocks[:, 2] << 2 | blocks[:, 3]
    data = packed.tobytes() + struct.pack("<f", scale) + bytes(28)
    return Tensor(name, TensorType.I2_S, codes.shape[::-1], data)


def tq2_0(name: str, codes: np.ndarray) -> Tensor:
    """llama.cpp's TQ2_0 with every block scale 1: 256 weights in 64 bytes, then the scale in F16. Of each 32 bytes byte
    `m` holds weights `m`, `m + 32`, `m + 64` and `m + 96`, the first in its lowest two bits, as code + 1."""
    if codes.shape[-1] % 256:
        raise ValueError(f"{name}: rows of {codes.shape[-1]} weights are not whole blocks of 256")
    halves = (codes.reshape(-1, 2, 4, 32) + 1).astype(np.uint8)
    packed = halves[:, :, 0] | halves[:, :, 1] << 2 | halves[:, :, 2] << 4 | halves[:, :, 3] << 6
    one = np.ones((len(packed), 1), "<f2").view(np.uint8)
    data = np.concatenate((packed.reshape(-1, 64), one), axis=1).tobytes()
    return Tensor(name, TensorType.TQ2_0, codes.shape[::-1], data)


def write(path: Path, metadata: dict, tensors: list[Tensor]) -> None:
    header = bytearray(b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(metadata)))
    for key, value in metadata.items():
        header += _string(key) + _value(value)
    offset = 0
    for tensor in tensors:
        header += _string(tensor.name) + struct.pack("<I", len(tensor.dimensions))
        header += struct.pack(f"<{len(tensor.dimensions)}Q", *tensor.dimensions)
        header += struct.pack("<IQ", tensor.kind, offset)
        offset += len(_padded(tensor.data))
    path.write_bytes(_padded(bytes(header)) + b"".join(_padded(tensor.data) for tensor in tensors))


def read(path: Path) -> tuple[dict, dict[str, Tensor]]:
    """The metadata in plain Python types, and the tensors by name."""
    data = memoryview(path.read_bytes())
    at = 0

    def take(layout: str) -> tuple:
        nonlocal at
        values = struct.unpack_from(f"<{layout}", data, at)
        at += struct.calcsize(f"<{layout}")
        return values

    def string() -> str:
        (size,) = take("Q")
        return take(f"{size}s")[0].decode("utf-8")

    def array() -> list:
        kind, size = take("IQ")
        return [string() for _ in range(size)] if kind == _STRING else list(take(f"{size}{_SCALARS[kind]}"))

    def value() -> object:
        (kind,) = take("I")
        readers: dict[int, Callable] = {_STRING: string, _ARRAY: array}
        return readers.get(kind, lambda: take(_SCALARS[kind])[0])()

    magic, version, tensor_count, value_count = take("4sIQQ")
    if (magic, version) != (b"GGUF", 3):
        raise ValueError(f"{path} is not a GGUF v3 file")
    metadata = {string(): value() for _ in range(value_count)}
    places = []
    for _ in range(tensor_count):
        name = string()
        (rank,) = take("I")
        dimensions = take(f"{rank}Q")
        kind, offset = take("IQ")
        places.append((name, TensorType(kind), dimensions, offset))
    start = at + -at % ALIGNMENT
    ends = [offset for *_, offset in places[1:]] + [len(data) - start]
    # Up to the next tensor: with its padding, which no reader of the data minds.
    tensors = {
        name: Tensor(name, kind, dimensions, bytes(data[start + offset : start + end]))
        for (name, kind, dimensions, offset), end in zip(places, ends)
    }
    return metadata, tensors


def plain_values(tensor: Tensor) -> np.ndarray:
    """What `plain` was given."""
    dtype = {TensorType.F32: "<f4", TensorType.F16: "<f2"}[tensor.kind]
    count = int(np.prod(tensor.dimensions))
    return np.frombuffer(tensor.data, dtype, count).reshape(tensor.dimensions[::-1]).copy()


def i2_s_values(tensor: Tensor) -> tuple[np.ndarray, np.float32]:
    """What `i2_s` was given: codes and scale."""
    count = int(np.prod(tensor.dimensions))
    packed = np.frombuffer(tensor.data, np.uint8, count // 4).reshape(-1, 1, 32)
    shifts = np.array([6, 4, 2, 0], np.uint8).reshape(1, 4, 1)
    codes = (packed >> shifts & 3).astype(np.int8) - 1
    return codes.reshape(tensor.dimensions[::-1]), np.frombuffer(tensor.data, "<f4", 1, count // 4)[0]


_F32, _BOOL, _STRING, _ARRAY = 6, 7, 8, 9
_U32, _I32 = 4, 5
_SCALARS = {_U32: "I", _I32: "i", _F32: "f", _BOOL: "?"}


def _value(value) -> bytes:
    match value:
        case bool():
            return struct.pack("<I?", _BOOL, value)
        case U32():
            return struct.pack("<II", _U32, value.value)
        case float():
            return struct.pack("<If", _F32, value)
        case str():
            return struct.pack("<I", _STRING) + _string(value)
        case [str(), *_]:
            return struct.pack("<IIQ", _ARRAY, _STRING, len(value)) + b"".join(map(_string, value))
        case [float(), *_]:
            return struct.pack(f"<IIQ{len(value)}f", _ARRAY, _F32, len(value), *value)
        case [int(), *_]:
            return struct.pack(f"<IIQ{len(value)}i", _ARRAY, _I32, len(value), *value)
    raise TypeError(f"no GGUF form for {value!r}")


def _string(text: str) -> bytes:
    data = text.encode("utf-8")
    return struct.pack("<Q", len(data)) + data


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % ALIGNMENT)
