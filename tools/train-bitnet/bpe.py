"""Byte-level byte-pair encoding with Llama 3's pre-tokenizer: what llama.cpp calls model `gpt2`, pre `llama-bpe`."""

import json
from collections import Counter, defaultdict
from dataclasses import dataclass
from functools import cached_property

import regex

#: How Llama 3 cuts a text into pieces that no merge crosses.
PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
BOS = "<|begin_of_text|>"
EOS = "<|end_of_text|>"


def _byte_alphabet() -> list[str]:
    """GPT-2's letter for each byte: printable ones stand for themselves, the others for U+0100 onwards."""
    printable = {*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)}
    others = iter(range(256))
    return [chr(byte) if byte in printable else chr(256 + next(others)) for byte in range(256)]


LETTERS = _byte_alphabet()
_BYTES = {letter: byte for byte, letter in enumerate(LETTERS)}


@dataclass(frozen=True)
class Tokenizer:
    """Ids: the 256 bytes in the order of their letters, one token a merge, then BOS and EOS."""

    merges: list[tuple[str, str]]

    @classmethod
    def train(cls, documents: list[str], size: int) -> "Tokenizer":
        """Merges the most frequent pair (of equals, the first in the alphabet) until there are `size` tokens."""
        counts = Counter(piece for document in documents for piece in regex.findall(PATTERN, document))
        words = [[LETTERS[byte] for byte in piece.encode()] for piece in counts]
        weights = list(counts.values())
        pairs: Counter[tuple[str, str]] = Counter()
        holders: defaultdict[tuple[str, str], set[int]] = defaultdict(set)
        for index, word in enumerate(words):
            for pair in zip(word, word[1:]):
                pairs[pair] += weights[index]
                holders[pair].add(index)
        merges = []
        while len(merges) < size - 256 - 2:
            best = min(pairs, key=lambda pair: (-pairs[pair], pair))
            merges.append(best)
            for index in holders.pop(best):
                for pair in zip(words[index], words[index][1:]):
                    pairs[pair] -= weights[index]
                words[index] = _merge(words[index], best)
                for pair in zip(words[index], words[index][1:]):
                    pairs[pair] += weights[index]
                    holders[pair].add(index)
            del pairs[best]
        return cls(merges)

    @cached_property
    def tokens(self) -> list[str]:
        """The vocabulary in the order of the ids, spelt in byte letters."""
        return [*sorted(LETTERS), *(left + right for left, right in self.merges), BOS, EOS]

    @cached_property
    def ids(self) -> dict[str, int]:
        return {token: index for index, token in enumerate(self.tokens)}

    @property
    def bos(self) -> int:
        return len(self.tokens) - 2

    @property
    def eos(self) -> int:
        return len(self.tokens) - 1

    @cached_property
    def _ranks(self) -> dict[tuple[str, str], int]:
        return {pair: rank for rank, pair in enumerate(self.merges)}

    @cached_property
    def _known(self) -> dict[str, list[int]]:
        return {}

    def encode(self, text: str) -> list[int]:
        """Ids of `text`, without BOS; special tokens are not looked for."""
        return [index for piece in regex.findall(PATTERN, text) for index in self._encode_piece(piece)]

    def bytes(self, token: int) -> bytes:
        """The bytes of a token; BOS and EOS have none."""
        return bytes(_BYTES[letter] for letter in self.tokens[token]) if token < self.bos else b""

    def decode(self, tokens: list[int]) -> str:
        return b"".join(map(self.bytes, tokens)).decode("utf-8", errors="replace")

    def _encode_piece(self, piece: str) -> list[int]:
        if piece not in self._known:
            word = [LETTERS[byte] for byte in piece.encode()]
            # Llama 3 takes a piece that is a token as it is, whatever way its merges would have gone.
            whole = self.ids.get("".join(word))
            while whole is None and len(word) > 1:
                best = min(zip(word, word[1:]), key=lambda pair: self._ranks.get(pair, len(self.merges)))
                if best not in self._ranks:
                    break
                word = _merge(word, best)
            self._known[piece] = [whole] if whole is not None else [self.ids[letters] for letters in word]
        return self._known[piece]

    def huggingface(self) -> dict:
        """As `tokenizer.json` of the Llama 3 family has it."""
        special = [
            {
                "id": index,
                "content": self.tokens[index],
                "single_word": False,
                "lstrip": False,
                "rstrip": False,
                "normalized": False,
                "special": True,
            }
            for index in (self.bos, self.eos)
        ]
        begin = {"SpecialToken": {"id": BOS, "type_id": 0}}
        return {
            "version": "1.0",
            "truncation": None,
            "padding": None,
            "added_tokens": special,
            "normalizer": None,
            "pre_tokenizer": {
                "type": "Sequence",
                "pretokenizers": [
                    {"type": "Split", "pattern": {"Regex": PATTERN}, "behavior": "Isolated", "invert": False},
                    {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False},
                ],
            },
            "post_processor": {
                "type": "Sequence",
                "processors": [
                    {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": False, "use_regex": True},
                    {
                        "type": "TemplateProcessing",
                        "single": [begin, {"Sequence": {"id": "A", "type_id": 0}}],
                        "pair": [
                            begin,
                            {"Sequence": {"id": "A", "type_id": 0}},
                            {"SpecialToken": {"id": BOS, "type_id": 1}},
                            {"Sequence": {"id": "B", "type_id": 1}},
                        ],
                        "special_tokens": {BOS: {"id": BOS, "ids": [self.bos], "tokens": [BOS]}},
                    },
                ],
            },
            "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
            "model": {
                "type": "BPE",
                "dropout": None,
                "unk_token": None,
                "continuing_subword_prefix": None,
                "end_of_word_suffix": None,
                "fuse_unk": False,
                "byte_fallback": False,
                "ignore_merges": True,
                "vocab": {token: index for index, token in enumerate(self.tokens[: self.bos])},
                "merges": [f"{left} {right}" for left, right in self.merges],
            },
        }

    def save(self, path) -> None:
        path.write_text(json.dumps(self.huggingface(), ensure_ascii=False, indent=1) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path) -> "Tokenizer":
        merges = json.loads(path.read_text(encoding="utf-8"))["model"]["merges"]
        return cls([tuple(merge.split(" ")) for merge in merges])


def _merge(word: list[str], pair: tuple[str, str]) -> list[str]:
    merged, at = [], 0
    while at < len(word):
        if tuple(word[at : at + 2]) == pair:
            merged.append(word[at] + word[at + 1])
            at += 2
        else:
            merged.append(word[at])
            at += 1
    return merged
