#!/usr/bin/python3
"""Trains the model and leaves checkpoints: `train.py FOLDER`. The seed is fixed."""

import argparse
import json
import math
import time
from pathlib import Path

import torch

import corpus
from bpe import Tokenizer
from model import BitNet, Shape

SEED = 158
SEQUENCES = 8
PEAK_RATE = 3e-3
WARM_UP = 100
WEIGHT_DECAY = 0.1
EVERY = 100


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="where tokenizer.json and checkpoint.pt go")
    parser.add_argument("--steps", type=int, default=1800)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(SEED)
    arguments.folder.mkdir(parents=True, exist_ok=True)

    shape = Shape()
    documents, held_out = corpus.split(corpus.chapters())
    tokenizer = Tokenizer.train(documents, shape.vocabulary)
    tokenizer.save(arguments.folder / "tokenizer.json")
    stream = torch.tensor(
        [token for text in documents for token in (tokenizer.bos, *tokenizer.encode(text), tokenizer.eos)]
    )
    unseen = torch.tensor([tokenizer.bos, *tokenizer.encode(held_out)])
    print(f"{len(stream)} tokens to train on, {len(unseen)} held out", flush=True)

    model = BitNet(shape)
    matrices = [parameter for parameter in model.parameters() if parameter.dim() == 2]
    gains = [parameter for parameter in model.parameters() if parameter.dim() == 1]
    optimizer = torch.optim.AdamW(
        [{"params": matrices, "decays": True}, {"params": gains, "decays": False, "weight_decay": 0.0}],
        betas=(0.9, 0.95),
    )
    batches = shuffled(stream, shape.context)
    began = time.monotonic()
    mean = 0.0
    for step in range(1, arguments.steps + 1):
        for group in optimizer.param_groups:
            group["lr"] = rate(step, arguments.steps)
            if group["decays"]:
                # The second half decays nothing, so that codes settle (arXiv 2504.12285).
                group["weight_decay"] = WEIGHT_DECAY if step <= arguments.steps // 2 else 0.0
        batch = next(batches)
        loss = model(batch[:, :-1], batch[:, 1:])
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        mean += loss.item() / EVERY
        if step % EVERY == 0 or step == arguments.steps:
            entry = {"step": step, "train": round(mean, 4), "held_out": round(validate(model, unseen), 4)}
            print(json.dumps(entry | {"seconds": round(time.monotonic() - began)}), flush=True)
            mean = 0.0
            save(model, step, arguments.folder / "checkpoint.pt")


def rate(step: int, steps: int) -> float:
    """Linear warm-up, then a half cosine down to nothing."""
    if step < WARM_UP:
        return PEAK_RATE * step / WARM_UP
    return PEAK_RATE * 0.5 * (1 + math.cos(math.pi * (step - WARM_UP) / (steps - WARM_UP)))


def shuffled(stream: torch.Tensor, length: int):
    """Batches of windows of `length` + 1 tokens; every epoch cuts the stream elsewhere."""
    while True:
        start = int(torch.randint(length, ()))
        windows = stream[start:].unfold(0, length + 1, length)
        order = torch.randperm(len(windows))
        for chosen in order[: len(order) // SEQUENCES * SEQUENCES].view(-1, SEQUENCES):
            yield windows[chosen]


@torch.no_grad()
def validate(model: BitNet, unseen: torch.Tensor) -> float:
    windows = unseen.unfold(0, model.shape.context + 1, model.shape.context)
    return model(windows[:, :-1], windows[:, 1:]).item()


def save(model: BitNet, step: int, path: Path) -> None:
    beside = path.with_suffix(".part")
    torch.save({"shape": model.shape.as_dict(), "step": step, "parameters": model.state_dict()}, beside)
    beside.replace(path)


if __name__ == "__main__":
    main()
