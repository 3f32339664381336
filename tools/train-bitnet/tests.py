#!/usr/bin/python3
"""What can go wrong between training and the file: `python3 -m unittest tests.py`. Needs no trained model."""

import math
import tempfile
import unittest
from pathlib import Path

import numpy as np
import torch

import corpus
import export
import gguf_file
from bpe import Tokenizer
from model import BitNet, Shape, int8, rope, rotate, ternary
from oracle import Oracle
from stored import Stored

SMALL = Shape(vocabulary=300, width=256, blocks=2, heads=4, kv_heads=2, feed_forward=512, context=32)


def codes(*places: tuple[int, int], size: int) -> np.ndarray:
    """One row of zeros with other codes at some places."""
    row = np.zeros((1, size), np.int8)
    for place, code in places:
        row[0, place] = code
    return row


class Packing(unittest.TestCase):
    def test_i2_s_interleaves_32_bytes(self):
        data = gguf_file.i2_s("w", codes((0, 1), (33, -1), (64, 1), (127, -1), size=128), np.float32(0.5)).data
        self.assertEqual(len(data), 32 + 32)
        # Four zeros are 01 01 01 01; weight 0 sets the top bits of byte 0, 33 the next of byte 1, and so on.
        self.assertEqual((data[0], data[1], data[2]), (0b10011001, 0b01000101, 0b01010101))
        self.assertEqual(data[31], 0b01010100)
        self.assertEqual(data[32:36], b"\x00\x00\x00\x3f")
        self.assertEqual(data[36:], bytes(28))

    def test_tq2_0_has_a_scale_of_one_behind_each_block(self):
        data = gguf_file.tq2_0("w", codes((0, 1), (33, -1), (255, -1), size=256)).data
        self.assertEqual(len(data), 66)
        self.assertEqual((data[0], data[1], data[63]), (0b01010110, 0b01010001, 0b00010101))
        self.assertEqual(data[64:], b"\x00\x3c")

    def test_packed_stripes_hold_quarters_of_the_rows(self):
        stored = untrained()
        tensors = export.packed(stored)
        matrix = stored.matrices["blk.1.attn_k"].codes
        data = tensors["model.layers.1.self_attn.k_proj.weight"].numpy()
        self.assertEqual(data.shape, (32, 256))
        for stripe in range(4):
            rows = (data >> (2 * stripe) & 3).astype(np.int8) - 1
            np.testing.assert_array_equal(rows, matrix[32 * stripe : 32 * (stripe + 1)])


class RoundTrip(unittest.TestCase):
    def test_i2_s_file_holds_the_stored_model(self):
        stored, tokenizer = untrained(), Tokenizer.train(["abababab cdcdcdcd"] * 3, 260)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "model.gguf"
            gguf_file.write(path, export.gguf_metadata(stored, tokenizer, 40), export.i2_s_tensors(stored))
            read, read_tokenizer = Stored.from_i2_s(path)
        self.assertEqual(read_tokenizer.merges, tokenizer.merges)
        np.testing.assert_array_equal(read.token_embd, stored.token_embd)
        for name, gain in stored.norms.items():
            np.testing.assert_array_equal(read.norms[name], gain)
        for name, matrix in stored.matrices.items():
            np.testing.assert_array_equal(read.matrices[name].codes, matrix.codes)
            self.assertEqual(read.matrices[name].scale, matrix.scale)

    def test_tokens_give_the_text_back(self):
        documents, held_out = corpus.split(corpus.chapters())
        tokenizer = Tokenizer.train(documents[:50], 400)
        for text in (held_out, "naïve Ω 日本 🙂", "  two  spaces \n\n\n1234567\r\n"):
            self.assertEqual(tokenizer.decode(tokenizer.encode(text)), text)


class Graph(unittest.TestCase):
    def test_training_sees_what_inference_computes(self):
        torch.manual_seed(2)
        model = BitNet(SMALL)
        tokens = torch.randint(SMALL.vocabulary, (2, SMALL.context + 1))
        with torch.no_grad():
            trained = model(tokens[:, :-1], tokens[:, 1:]).item()
        oracle = Oracle(store(model), torch.float64)
        logits = torch.cat([oracle.logits(row[:-1].tolist()) for row in tokens])
        computed = torch.nn.functional.cross_entropy(logits, tokens[:, 1:].reshape(-1)).item()
        # BF16 keeps 8 bits of a product: the loss of an untrained model agrees to a few thousandths.
        self.assertAlmostEqual(trained, computed, delta=0.01)

    def test_f32_products_are_exact_integers(self):
        torch.manual_seed(3)
        matrix, _ = ternary(torch.randn(64, 768))
        q, _ = int8(torch.randn(33, 768))
        exact = q.long() @ matrix.T.long()
        self.assertTrue(torch.equal((q @ matrix.T).long(), exact))

    def test_int8_rounds_half_to_even_and_survives_zeros(self):
        q, scale = int8(torch.tensor([[127.0, 0.5, 1.5, -2.5], [0.0, 0.0, 0.0, 0.0]]))
        self.assertEqual(q.tolist(), [[127, 0, 2, -2], [0, 0, 0, 0]])
        self.assertEqual(scale[0].item(), 1.0)

    def test_rotation_pairs_the_halves_of_a_head(self):
        cosine, sine = rope(3, SMALL, torch.float64)
        x = torch.zeros(3, SMALL.head_width, dtype=torch.float64)
        x[:, 1], x[:, 1 + 32] = 0.6, 0.8
        angle = 2 * 500_000.0 ** (-2 / 64)
        rotated = rotate(x, cosine, sine)[2]
        self.assertAlmostEqual(rotated[1].item(), 0.6 * math.cos(angle) - 0.8 * math.sin(angle))
        self.assertAlmostEqual(rotated[1 + 32].item(), 0.8 * math.cos(angle) + 0.6 * math.sin(angle))

    def test_what_comes_later_changes_nothing_before(self):
        oracle = Oracle(untrained(), torch.float64)
        first, second = oracle.logits([1, 2, 3, 4]), oracle.logits([1, 2, 3, 5])
        self.assertTrue(torch.equal(first[:3], second[:3]))
        self.assertFalse(torch.equal(first[3], second[3]))


def untrained() -> Stored:
    torch.manual_seed(1)
    return store(BitNet(SMALL))


def store(model: BitNet) -> Stored:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "checkpoint.pt"
        torch.save({"shape": model.shape.as_dict(), "parameters": model.state_dict()}, path)
        return Stored.from_checkpoint(path)


if __name__ == "__main__":
    unittest.main()
