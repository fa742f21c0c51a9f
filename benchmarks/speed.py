"""Training step, log-prob and sampling, timed side by side.

    python -m benchmarks.speed --depth 8 --rounds 5 --only floor glowlite normflows

Programs take turns, round by round, in one process with the same threads: whatever slows the
machine for a minute slows all of them. A ratio is the median over rounds of the quotient of two
times of the same round. Memory that is freed stays with the process: otherwise who pays for getting
it back from the system depends on who ran before.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch

from benchmarks.peers import PEERS
from benchmarks.programs import PROGRAMS, Program, Setting
from glowlite.bench import seconds

LAYOUTS = {"channels-last": torch.channels_last, "NCHW": torch.contiguous_format}
CPU = torch.device("cpu")
BUILDERS: dict[str, Callable[[Setting], Program]] = {**PROGRAMS, **PEERS}


def default_names() -> list[str]:
    """All there is here, but with the peers' nets the default mode, frozen and bfloat16 alone."""
    alike = {f"glowlite-plain-nets{mode}" for mode in ("", "-frozen", "-bf16")}
    return [n for n in BUILDERS if not n.startswith("glowlite-plain-nets") or n in alike]


def keep_freed_memory() -> None:
    """Where the C library is glibc; elsewhere nothing."""
    trim_threshold, mmap_threshold = -1, -3  # names in malloc.h; the second has a limit of 32 MiB
    if set_option := getattr(ctypes.CDLL(None), "mallopt", None):
        set_option(trim_threshold, 2**31 - 1)
        set_option(mmap_threshold, 2**25)


def make(name: str, setting: Setting, layout: str = "channels-last") -> Program:
    """The program, ready to be measured; the same weights at every call."""
    torch.manual_seed(0)
    program = BUILDERS[name](setting)
    program.prepare(LAYOUTS[layout])
    return program


def fastest_layout(name: str, setting: Setting) -> tuple[str, dict[str, float]]:
    """The layout a peer trains fastest in, and the seconds of each; ours are channels-last."""
    if name not in PEERS:
        return "channels-last", {}
    taken = {}
    for layout in LAYOUTS:
        program = make(name, replace(setting, depth=min(setting.depth, 4)), layout)
        x = setting.noise_images().contiguous(memory_format=program.layout)
        taken[layout] = seconds(lambda program=program, x=x: program.train_step(x), CPU, repeats=3)
    return min(taken, key=taken.get), taken


def measure(
    names: Sequence[str],
    setting: Setting,
    *,
    rounds: int,
    minutes: float | None = None,
    say: Callable[[str], object] = print,
) -> list[dict[str, Any]]:
    """One row a program: what it is, and for each part the seconds of every round.

    One round to warm up is not kept. After `minutes`, counted from the beginning, no further round
    starts, but three are made in any case.
    A row's `not_finite` counts the rounds whose log-prob or sample had a NaN or an infinity.
    """
    keep_freed_memory()
    programs, rows, began = [], [], time.monotonic()
    for name in names:
        layout, tried = fastest_layout(name, setting)
        program = make(name, setting, layout)
        programs.append(program)
        rows.append(
            {
                "name": name, "family": program.family, "about": program.about, "layout": layout,
                "layouts_tried": tried, "parameters": program.parameters,
                "net_macs": program.net_macs(),
                "seconds": {part: [] for part in program.measured}, "not_finite": 0,
            }
        )  # fmt: skip
        say(f"K {setting.depth}: {name} is ready ({layout})")
    batches = {p.layout: setting.noise_images().contiguous(memory_format=p.layout)
               for p in programs}  # fmt: skip
    for round_ in range(rounds + 1):
        if round_ > 3 and minutes is not None and time.monotonic() - began > 60 * minutes:
            break
        for program, row in zip(programs, rows, strict=True):
            taken, finite = _once(program, batches[program.layout])
            row["not_finite"] += not finite
            for part in taken if round_ else ():
                row["seconds"][part].append(taken[part])
        say(f"K {setting.depth}: round {round_} of {rounds}" if round_ else "warm")
    del programs
    gc.collect()
    return rows


def _once(program: Program, x: torch.Tensor) -> tuple[dict[str, float], bool]:
    """Seconds of each part, once; whether what came out is finite."""
    taken, out = {}, {}
    for part in program.measured:
        began = time.perf_counter()
        if part == "train":
            program.train_step(x)
        else:
            with torch.no_grad():
                out[part] = program.log_prob(x) if part == "log_prob" else program.sample(len(x))
        taken[part] = time.perf_counter() - began
    program.optimizer.zero_grad(set_to_none=True)  # the next program may need the memory
    return taken, all(bool(result.isfinite().all()) for result in out.values())


def quotient(rows: list[dict[str, Any]], name: str, part: str, of: str) -> float | None:
    """How many times as fast as `of` the program is: the median over rounds."""
    by_name = {row["name"]: row["seconds"] for row in rows}
    if part not in by_name[name] or part not in by_name.get(of, {}):
        return None
    pairs = zip(by_name[of][part], by_name[name][part], strict=True)
    return statistics.median(other / own for other, own in pairs)


def best_peer(rows: list[dict[str, Any]], part: str) -> str | None:
    """The peer with the smallest median."""
    peers = [row for row in rows if row["family"] == "peer"]
    fastest = min(peers, key=lambda row: statistics.median(row["seconds"][part]), default=None)
    return fastest and fastest["name"]


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of a setting and of a measurement."""
    parser.add_argument("--depth", type=int, nargs="+", default=[8, 32], help="K, one or several")
    parser.add_argument("--width", type=int, default=512, help="hidden channels")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--size", type=int, default=32, help="height and width of the images")
    parser.add_argument("--levels", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--minutes", type=float, default=20.0, help="for all depths together")
    parser.add_argument("--only", nargs="+", metavar="NAME", choices=BUILDERS,
                        default=default_names(), help=", ".join(BUILDERS))  # fmt: skip


def setting_of(arguments: argparse.Namespace, depth: int) -> Setting:
    """The setting that the options describe."""
    return Setting(
        shape=(3, arguments.size, arguments.size), levels=arguments.levels, depth=depth,
        width=arguments.width, batch=arguments.batch,
    )  # fmt: skip


def run(arguments: argparse.Namespace, say: Callable[[str], object] = print) -> dict[str, Any]:
    """{K: rows}; each depth may use its even share of the minutes that are left."""
    found, left = {}, 60 * arguments.minutes
    for done, depth in enumerate(arguments.depth):
        began = time.monotonic()
        found[str(depth)] = measure(
            arguments.only, setting_of(arguments, depth), rounds=arguments.rounds,
            minutes=left / 60 / (len(arguments.depth) - done), say=say,
        )  # fmt: skip
        left -= time.monotonic() - began
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_options(parser)
    from benchmarks.report import speed_table

    for depth, rows in run(parser.parse_args()).items():
        print(f"\nK = {depth}\n" + speed_table(rows))


if __name__ == "__main__":
    main()
