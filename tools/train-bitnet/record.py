#!/usr/bin/python3
"""Computes what a right engine computes with the trained model: `record.py MODEL FOLDER`.

Writes into FOLDER held-out.txt, its tokens, recorded.json (perplexity, continuations, how far rounding drifts) and
logits.json.
"""

import argparse
import json
import math
import re
import textwrap
from pathlib import Path

import torch

import corpus
from bpe import Tokenizer
from oracle import Oracle
from stored import Stored

PROMPTS = ("In the beginning", "Thus says Yahweh", "My son, listen")
CONTINUATION = 32
#: Chunks that a slow engine is measured with.
BEGINNING = 4
LOGITS_PROMPT = "The word of Yahweh came to"
#: What a byte-level tokenizer with Llama 3's pre-tokenizer gets wrong first.
TEXTS = (
    "The word of Yahweh came to Jonah",
    "Don’t! “It’s” — don't, we'LL",
    "  two  spaces \n\n\n1234567 words\r\n",
    "naïve Ω 日本 🙂",
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, help="an I2_S file of export.py")
    parser.add_argument("folder", type=Path, help="where the results go")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    stored, tokenizer = Stored.from_i2_s(arguments.model)
    _, text = corpus.split(corpus.chapters())
    tokens = [tokenizer.bos, *tokenizer.encode(text)]
    prompt = [tokenizer.bos, *tokenizer.encode(LOGITS_PROMPT)]

    exact = Oracle(stored, torch.float64)
    rounded = {
        "f32": Oracle(stored, torch.float32),
        "f32, f16 kv cache": Oracle(stored, torch.float32, f16_cache=True),
    }
    recorded = {
        "tokenized": [{"text": text, "tokens": tokenizer.encode(text)} for text in TEXTS],
        "perplexity": perplexity(exact, tokenizer, tokens),
        "perplexity_of_beginning": perplexity(exact, tokenizer, tokens[: BEGINNING * stored.shape.context]),
        "continuations": [continuation(exact, tokenizer, prompt) for prompt in PROMPTS],
        "other_precisions": {name: compare(other, exact, tokenizer, tokens) for name, other in rounded.items()},
    }
    logits = [round(value, 5) for value in exact.logits(prompt)[-1].tolist()]
    arguments.folder.mkdir(parents=True, exist_ok=True)
    (arguments.folder / "held-out.txt").write_text(text, encoding="utf-8")
    write(arguments.folder / "held-out.tokens.json", {"tokens": tokens})
    write(arguments.folder / "recorded.json", recorded)
    write(arguments.folder / "logits.json", {"prompt": LOGITS_PROMPT, "tokens": prompt, "last": logits})


def perplexity(oracle: Oracle, tokenizer: Tokenizer, tokens: list[int]) -> dict:
    """As `llama-perplexity` measures it: chunks of the context length, each begun with BOS; the second half counts."""
    length = oracle.shape.context
    surprise, count, size = 0.0, 0, 0
    for start in range(0, len(tokens) - length + 1, length):
        chunk = with_bos(tokens[start : start + length], tokenizer)
        scored = chunk[length // 2 + 1 :]
        likelihoods = oracle.logits(chunk)[length // 2 : -1].log_softmax(dim=-1)
        surprise -= likelihoods.gather(1, torch.tensor(scored)[:, None]).double().sum().item()
        count += len(scored)
        size += sum(len(tokenizer.bytes(token)) for token in scored)
    return {
        "context": length,
        "chunks": len(tokens) // length,
        "scored_tokens": count,
        "per_token": round(math.exp(surprise / count), 4),
        "bits_per_byte": round(surprise / size / math.log(2), 4),
    }


def continuation(oracle: Oracle, tokenizer: Tokenizer, prompt: str) -> dict:
    """Greedy, until EOS at the latest. The margin is the least lead that a chosen token had over the next best: an
    engine that rounds otherwise may part ways only where it is small."""
    tokens = [tokenizer.bos, *tokenizer.encode(prompt)]
    start, margin = len(tokens), math.inf
    while len(tokens) < start + CONTINUATION and tokens[-1] != tokenizer.eos:
        (best, second), (chosen, _) = oracle.logits(tokens)[-1].topk(2)
        margin = min(margin, (best - second).item())
        tokens.append(chosen.item())
    return {
        "prompt": prompt,
        "prompt_tokens": tokens[:start],
        "tokens": tokens[start:],
        "text": tokenizer.decode(tokens[start:]),
        "margin": round(margin, 4),
    }


def compare(other: Oracle, exact: Oracle, tokenizer: Tokenizer, tokens: list[int]) -> dict:
    """How far rounding alone carries the same graph: a last bit decides whether an activation becomes one integer or
    the next, so that logits differ by far more than the precision of the type."""
    length = exact.shape.context
    largest, sum_of_squares, divergence, positions, same = 0.0, 0.0, 0.0, 0, 0
    for start in range(0, len(tokens) - length + 1, length):
        chunk = with_bos(tokens[start : start + length], tokenizer)
        ours, theirs = exact.logits(chunk), other.logits(chunk).double()
        largest = max(largest, (ours - theirs).abs().max().item())
        sum_of_squares += (ours - theirs).square().mean(dim=-1).sum().item()
        log_ours, log_theirs = ours.log_softmax(dim=-1), theirs.log_softmax(dim=-1)
        divergence += (log_ours.exp() * (log_ours - log_theirs)).sum().item()
        same += (ours.argmax(dim=-1) == theirs.argmax(dim=-1)).sum().item()
        positions += len(chunk)
    prompt = [tokenizer.bos, *tokenizer.encode(LOGITS_PROMPT)]
    same_text = all(
        continuation(other, tokenizer, prompt)["tokens"] == continuation(exact, tokenizer, prompt)["tokens"]
        for prompt in PROMPTS
    )
    return {
        "per_token": perplexity(other, tokenizer, tokens)["per_token"],
        "logits_root_mean_square": round(math.sqrt(sum_of_squares / positions), 5),
        "logits_largest": round(largest, 4),
        "prompt_logits_largest": round((exact.logits(prompt)[-1] - other.logits(prompt)[-1]).abs().max().item(), 5),
        "mean_divergence": float(f"{divergence / positions:.2e}"),
        "same_best_token": round(same / positions, 5),
        "same_continuations": same_text,
    }


def with_bos(chunk: list[int], tokenizer: Tokenizer) -> list[int]:
    return [tokenizer.bos, *chunk[1:]]


def write(path: Path, value: dict) -> None:
    """JSON with lists of numbers in lines of 120."""
    text = json.dumps(value, indent=1, ensure_ascii=False)
    text = re.sub(r"\[[\s\d.,e+-]+\]", lambda numbers: textwrap.fill(" ".join(numbers[0].split()), 120), text)
    path.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
