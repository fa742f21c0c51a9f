"""Figure 3 of the paper in small: likelihood curves, one short run after the other.

    python -m benchmarks.likelihood_curves                      every run that has no result yet
    python -m benchmarks.likelihood_curves nice                 those whose names begin so
    python -m benchmarks.likelihood_curves --list               their names, and which are done
    python -m benchmarks.likelihood_curves --data-dir FOLDER    the same on CIFAR-10

Drawn faces of 16 × 16 pixels in 5 bits; or, from a folder that holds cifar-10-batches-py, the
figure's own CIFAR-10 in 8 bits.  Of one data set every run sees the same number of images.  Each is
one file in results/likelihood_curves, so the command can be stopped and started again at any time.
Seeds are the outer loop: whenever one stops, every model has about as many runs as any other.

bits/dim is that of the weights themselves (no moving average), on images nobody trained on.  No
setting was chosen by them: those of the CIFAR-10 runs were fixed beforehand.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch

from benchmarks.surroundings import ROOT, surroundings
from glowlite.checkpoint import write_json
from glowlite.data import epoch_order, load
from glowlite.evaluate import baseline, evaluate, seeded, to_tensor, with_error
from glowlite.registry import build
from glowlite.schedule import lr_factor, make_optimizer, set_rate

Runs = dict[str, tuple[dict[str, Any], int]]
OUT = ROOT / "results" / "likelihood_curves"
COMMAND = "python -m benchmarks.likelihood_curves"
NOTE = "other processes ran on the machine: compare seconds with caution"

FACES_TRAIN = {
    "batch": 32, "images": 19_200, "optimizer": "adam", "lr": 2e-3, "schedule": "cosine",
    "warmup": 1_280, "clip": 1.0, "init_images": 256, "looks": 10,
    "looked_at": 256, "looked_at_last": 2_000,
}  # fmt: skip
CIFAR10_TRAIN = {**FACES_TRAIN, "images": 48_000, "looked_at": 512, "looked_at_last": 10_000}
_GLOW = {"model": "glow", "levels": 2, "depth": 4, "width": 24, "n_bits": 5}
_REALNVP = {"model": "realnvp", "levels": 2, "blocks": 1, "n_bits": 5}
_NICE = {"model": "nice", "couplings": 4, "hidden": 2, "n_bits": 5}
_FIGURE = [(c, p) for c in ("affine", "additive") for p in ("reverse", "shuffle", "lu")]

# name -> (model, seeds).  The first six are the figure; then the ancestors at about as many
# parameters; then levels L at equal L·K, and half the steps K.
FACES: Runs = {
    **{f"glow-{c}-{p}": ({**_GLOW, "coupling": c, "permutation": p}, 3) for c, p in _FIGURE},
    "realnvp": ({**_REALNVP, "width": 13}, 3),
    "nice": ({**_NICE, "width": 16}, 3),
    "glow-L1-K8": ({**_GLOW, "levels": 1, "depth": 8}, 2),
    "glow-L4-K2": ({**_GLOW, "levels": 4, "depth": 2}, 2),
    "glow-L2-K2": ({**_GLOW, "depth": 2}, 2),
}  # fmt: skip
_WIDER = {**_GLOW, "levels": 3, "width": 32, "n_bits": 8}
CIFAR10: Runs = {
    **{f"cifar10-{c}-{p}": ({**_WIDER, "coupling": c, "permutation": p}, 2) for c, p in _FIGURE},
    "cifar10-realnvp": ({**_REALNVP, "width": 27, "n_bits": 8}, 2),
    "cifar10-nice": ({**_NICE, "width": 13, "n_bits": 8}, 2),
    "cifar10-L1-K12": ({**_WIDER, "levels": 1, "depth": 12}, 2),
    "cifar10-L2-K6": ({**_WIDER, "levels": 2, "depth": 6}, 2),
    "cifar10-L4-K3": ({**_WIDER, "levels": 4, "depth": 3}, 2),
    "cifar10-L3-K2": ({**_WIDER, "depth": 2}, 2),
}  # fmt: skip


def jobs(runs: Runs) -> list[tuple[str, int]]:
    """(name, seed) of every run, in the order in which they are made."""
    most = max(seeds for _, seeds in runs.values())
    return [(name, seed) for seed in range(most) for name in runs if seed < runs[name][1]]


def path(name: str, seed: int) -> Path:
    """Where that run's result is kept."""
    return OUT / f"{name}-seed{seed}.json"


def train(
    model: dict[str, Any],
    settings: dict[str, Any],
    seed: int,
    data: np.ndarray,
    held_out: np.ndarray,
) -> dict[str, Any]:
    """One run: the plain loop of glowlite/train.py, without what makes it resumable."""
    h, w, c = data.shape[1:]
    net = build({**model, "shape": [c, h, w], "seed": seed})
    batch, total = settings["batch"], settings["images"]
    order = np.concatenate([epoch_order(len(data), seed, e) for e in range(-(-total // len(data)))])
    first = to_tensor(data[np.sort(order[: settings["init_images"]])])
    net.initialize(first, generator=seeded(seed, 1))
    parameters = list(net.parameters())
    optimizer = make_optimizer(settings["optimizer"], parameters, lr=settings["lr"])
    rows, since, spent, wall = [], [], 0.0, 0.0

    def look(images: int) -> None:
        last = images == total
        count = settings["looked_at_last" if last else "looked_at"]
        found = evaluate(net, held_out[:count], seed=seed)
        rows.append(
            {
                "images": images,
                "train": float(np.mean(since)) if since else None,
                "test": found.mean,
                "standard_error": found.standard_error,
            }
        )
        since.clear()

    look(0)
    for step in range(total // batch):
        cpu, clock = time.process_time(), time.monotonic()
        seen = (step + 1) * batch
        images = to_tensor(data[order[seen - batch : seen]])
        factor = lr_factor(settings["schedule"], seen, (step * batch) / total, settings["warmup"])
        set_rate(optimizer, settings["lr"] * factor)
        optimizer.zero_grad(set_to_none=True)
        loss, parts = net.loss(images, generator=seeded(seed, 2, step))
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(parameters, settings["clip"])
        if not torch.isfinite(norm):
            raise SystemExit(f"step {step}: the gradient's norm is {float(norm)}")
        optimizer.step()
        since.extend(parts["bits_per_dim"].tolist())
        spent += time.process_time() - cpu
        wall += time.monotonic() - clock
        if seen % (total // settings["looks"]) == 0:
            look(seen)
    return {
        "parameters": sum(p.numel() for p in parameters),
        "baseline": baseline(data, held_out, model["n_bits"]),
        "curve": rows,
        "training_seconds": {"cpu": round(spent, 1), "wall": round(wall, 1)},
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", default=[""], help="how the names begin")
    parser.add_argument("--seeds", type=int, default=3, help="at most this many of each")
    parser.add_argument("--data-dir", metavar="FOLDER", help="real CIFAR-10 instead of faces")
    parser.add_argument("--list", action="store_true", help="say what is done, and stop")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    OUT.mkdir(parents=True, exist_ok=True)
    if arguments.data_dir:
        runs, settings, about = CIFAR10, CIFAR10_TRAIN, "CIFAR-10"
        kind, options = "cifar10", {"data_dir": arguments.data_dir}
    else:
        runs, settings, about = FACES, FACES_TRAIN, "faces 16 × 16"
        kind, options = "faces", {"size": 16}
    command = COMMAND + " --data-dir FOLDER" * (kind == "cifar10")
    sets: list[np.ndarray] = []
    for name, seed in jobs(runs):
        if seed >= arguments.seeds or not name.startswith(tuple(arguments.names)):
            continue
        file = path(name, seed)
        if arguments.list:
            print(f"{file.name:<36} {'done' if file.exists() else 'to do'}")
        elif not file.exists():
            model = runs[name][0]
            where = surroundings(command)
            sets = sets or [load(kind, split, **options).images for split in ("train", "test")]
            result = train(model, settings, seed, *sets)
            row = {"name": name, "seed": seed, **where, "note": NOTE, "data": about}
            write_json(file, {**row, "model": model, "train": settings, **result})
            last = result["curve"][-1]
            print(f"{name} seed {seed}: {with_error(last['test'], last['standard_error'], 3)} "
                  f"({result['parameters']:,} parameters, "
                  f"{result['training_seconds']['cpu']:.0f} s of CPU)", flush=True)  # fmt: skip
    return 0


if __name__ == "__main__":
    sys.exit(main())
