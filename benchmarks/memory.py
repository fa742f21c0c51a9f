"""Bytes of activations in a training step, against K, each case in a fresh process.

    python -m benchmarks.memory --depth 2 4 8 --only glowlite glowlite-checkpoint

What is counted. torch's profiler logs every allocation and every free of tensor memory; their
running sum is exact, misses nothing that a custom function hides from autograd's hooks, and
leaves out what RSS mixes in (the interpreter, freed pages that malloc keeps, kernels' scratch
space). Two readings of it over a forward and a backward pass, above the level before them:

kept  when the forward pass has ended: what waits for the backward pass
peak  the highest point

The gradients are there before, from the step before, and are added to. What has the size of the
weights does not depend on the batch, so cases come in two batch sizes: kept(N) = fixed + N · per
image. The slopes of the two against K are reported: bytes an image and unit of K (one step at
each level), and bytes a unit of K whatever the batch. The peak moves from place to place with K
and N, so it has no slope: that of the largest case is given, and beside it, as a check of
magnitude, the largest RSS of the process.
"""

from __future__ import annotations

import argparse
import itertools
import json
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
from torch.profiler import ProfilerActivity, profile, record_function

from benchmarks.programs import Setting
from benchmarks.speed import BUILDERS, add_options, make, setting_of
from benchmarks.surroundings import ROOT

BATCHES = (8, 16)
DEPTHS = [4, 8, 16]
MIB = 2**20


def one(name: str, setting: Setting) -> dict[str, Any]:
    """Bytes of one case: kept, peak, and the process's largest RSS. For a new process."""
    program = make(name, setting)
    x = setting.noise_images().contiguous(memory_format=program.layout)
    for _ in range(2):  # Adam's state is made at the first step
        program.train_step(x)
    rss = largest_rss()

    def mark() -> None:
        with record_function("forward ended"):
            pass

    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as found:
        program.backward(x, mark)
    events = sorted(found.profiler.kineto_results.events(), key=lambda e: e.start_ns())
    level = peak = 0
    kept = None
    for event in events:
        if event.name() == "[memory]":
            level += event.nbytes()
            peak = max(peak, level)
        elif event.name() == "forward ended":
            kept = level
    return {
        "name": name, "depth": setting.depth, "batch": setting.batch,
        "kept": kept, "peak": peak, "rss": rss,
    }  # fmt: skip


def largest_rss() -> int | None:
    """Bytes; None where there is no /proc. (ru_maxrss would begin with that of the parent.)"""
    status = Path("/proc/self/status")
    if not status.is_file():
        return None
    (line,) = [s for s in status.read_text().splitlines() if s.startswith("VmHWM")]
    return int(line.split()[1]) * 1024


def measure(
    names: Iterable[str],
    depths: Iterable[int],
    options: argparse.Namespace,
    say: Callable[[str], object] = print,
) -> list[dict[str, Any]]:
    """All cases, one process after the other."""
    rows = []
    for name, depth, batch in itertools.product(names, depths, BATCHES):
        asked = [sys.executable, "-m", "benchmarks.memory", "--one", "--only", name]
        for option, value in (
            ("--depth", depth), ("--batch", batch), ("--width", options.width),
            ("--size", options.size), ("--levels", options.levels),
        ):  # fmt: skip
            asked += [option, str(value)]
        answer = subprocess.run(asked, cwd=ROOT, capture_output=True, text=True)
        if answer.returncode:
            raise RuntimeError(f"{' '.join(asked)}\n{answer.stderr}")
        rows.append(json.loads(answer.stdout.splitlines()[-1]))
        say(f"memory: {name}, K {depth}, batch {batch}")
    return rows


def line(rows: list[dict[str, Any]], name: str, what: str) -> dict[int, tuple[float, float]]:
    """K -> (MiB an image, MiB whatever the batch), from the two batch sizes."""
    found = {(r["depth"], r["batch"]): r[what] / MIB for r in rows if r["name"] == name}
    small, large = BATCHES
    lines = {}
    for depth in sorted({depth for depth, _ in found}):
        per_image = (found[depth, large] - found[depth, small]) / (large - small)
        lines[depth] = per_image, found[depth, small] - small * per_image
    return lines


def slopes(rows: list[dict[str, Any]], name: str, what: str) -> tuple[float, float]:
    """MiB a unit of K: an image, and whatever the batch; least squares through `line`."""
    points = line(rows, name, what)
    per_image, fixed = np.polyfit(list(points), list(points.values()), 1)[0]
    return round(float(per_image), 6) + 0.0, round(float(fixed), 6) + 0.0  # no −0.000


def default_names() -> list[str]:
    """The modes of glowlite with the authors' nets, and the peers; those that are trained."""
    others = ("plain-nets", "bf16", "frozen", "floor")
    return [n for n in BUILDERS if not any(word in n for word in others)]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_options(parser)
    parser.set_defaults(depth=DEPTHS, only=default_names())
    parser.add_argument("--one", action="store_true", help="one case, as a line of JSON")
    options = parser.parse_args()
    if options.one:
        print(json.dumps(one(options.only[0], setting_of(options, options.depth[0]))))
        return
    from benchmarks.report import memory_table

    print(memory_table(measure(options.only, options.depth, options)))


if __name__ == "__main__":
    main()
