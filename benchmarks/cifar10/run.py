"""The CIFAR-10 runs, one command each: what it measured becomes one JSON in results/cifar10.

    python -m benchmarks.cifar10.run a10 --data-dir FOLDER          track A in ten minutes
    python -m benchmarks.cifar10.run figure3 --data-dir FOLDER      six runs at equal minutes
    python -m benchmarks.cifar10.run a10 --name try --minutes 2 --data-dir FOLDER -- --no-test
    python -m benchmarks.cifar10.run throughput
    python -m benchmarks.cifar10.run --list

A run that was stopped goes on when its command is given again; one that is complete is only
written down anew.  Everything after `--` goes to `glowlite train`.  --rehearse makes every run
small enough for a CPU, to see that all of it works.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import gc
import itertools
import json
import os
import shlex
import shutil
import statistics
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.surroundings import ROOT, surroundings
from glowlite import checkpoint, cli, runs
from glowlite import train as training
from glowlite.batches import Batches
from glowlite.data import ImageSet, load
from glowlite.evaluate import seeded, to_tensor, with_error
from glowlite.flow import MEMORY_MODES
from glowlite.graph import Graphed
from glowlite.parallel import World, use_tf32, without_trials
from glowlite.plots import read_metrics
from glowlite.presets import PRESETS, TrainConfig
from glowlite.registry import build
from glowlite.schedule import make_optimizer, update_average
from glowlite.telemetry import peak_memory

RESULTS = ROOT / "results" / "cifar10"
FIGURE3 = {
    f"figure3-{coupling}-{permutation}": [
        "--preset", "cifar10-a10", "--minutes", "4", "--evals", "8",
        "--coupling", coupling, "--permutation", permutation,
    ]
    for coupling in ("additive", "affine") for permutation in ("reverse", "shuffle", "lu")
}  # fmt: skip
#: name -> options of `glowlite train cifar10`.
RUNS: dict[str, list[str]] = {
    "a10": ["--preset", "cifar10-a10"],
    "a25": ["--preset", "cifar10-a25"],
    "b25": ["--preset", "cifar10-b25"],
    # Small enough to be handed on: 3.3 M parameters, 6.5 MB in half precision.
    "small": ["--preset", "cifar10-a10", "--depth", "16", "--width", "128", "--minutes", "5"],
    **FIGURE3,
    "realnvp-10": ["--preset", "cifar10-a10", "--model", "realnvp", "--width", "64"],
}
GROUPS = {"figure3": list(FIGURE3), "ancestors": ["a10", "realnvp-10"]}
SMALL = {"width": 32, "depth": 2}
REHEARSAL = [
    "--batch", "16", "--init-images", "32", "--minutes", "0.2", "--warmup", "640", "--evals", "2",
    "--eval-images", "64", "--eval-batch", "500", "--draws", "1", "--save-minutes", "0.05",
]  # fmt: skip


def about(command: str) -> dict[str, Any]:
    """Command, commit, device and software; a GPU where there is one."""
    found = surroundings(command)
    if not found["commit"]:  # a copy without its repository is told
        found["commit"] = told = os.environ.get("GLOWLITE_COMMIT")
        found["uncommitted"] = "changes" in told if told else None
    if torch.cuda.is_available():
        gpu = torch.cuda.get_device_properties(0)
        found["device"] |= {"gpu": gpu.name, "gpu_memory_gib": round(gpu.total_memory / 2**30, 1)}
        found["software"] |= {
            "cuda": torch.version.cuda, "cudnn": torch.backends.cudnn.version(),
        }  # fmt: skip
    return found


# -- training runs -----------------------------------------------------------------------------


def train(name: str, options: argparse.Namespace, more: list[str]) -> int:
    """Begin or go on with a run, then write down what its folder says -> exit code."""
    gc.collect()  # of the run before, its memory on the GPU
    kind = next(k for k in (options.run, name) if k in RUNS)
    name = options.name or name
    folder = options.runs / f"{name}-seed{options.seed}"
    where = ["--data-dir", str(options.data_dir)] if options.data_dir else []
    where += ["--cache-dir", str(options.cache_dir)] if options.cache_dir else []
    data = "faces" if options.rehearse and not options.data_dir else "cifar10"
    arguments = ["train", data, *RUNS[kind], "--seed", str(options.seed)]
    if options.rehearse:
        small = SMALL if "realnvp" not in kind else {"width": 8, "blocks": 1}
        arguments += REHEARSAL + [f"--{k}={v}" for k, v in small.items()]
        arguments += ["--size", "32"] if data == "faces" else []
        arguments += [] if torch.cuda.is_available() else ["--no-compile"]
    if options.minutes:
        arguments += ["--minutes", str(options.minutes)]
    arguments += [*more, "--out", str(folder)]
    if (folder / "state.safetensors").exists():
        made = json.loads((folder / "config.json").read_text())["made"]["command"]
        if not f"{made} ".startswith(shlex.join(["glowlite", *arguments]) + " "):
            print(f"{folder} holds another run, give --name:\n  {made}", file=sys.stderr)
            return 1
        arguments = ["resume", str(folder), *where]
    else:  # what was killed before its first save is begun again
        arguments += ["--force", *where]
    sys.argv = ["glowlite", *arguments]  # what the run's config.json says it was made with
    try:
        code = cli.main([*arguments, "--debug"])
    except Exception:  # whole: the machine on which it happened may soon be gone
        traceback.print_exc()
        code = 1
    log = folder / "metrics.jsonl"
    if code == 0 or log.exists() and '"held_out"' in log.read_text():  # what was measured is kept
        options.results.mkdir(parents=True, exist_ok=True)
        out = options.results / f"{name}-seed{options.seed}"
        found = {"complete": code == 0, **record(folder, name, options.command)}
        checkpoint.write_json(out.with_suffix(".json"), found)
        shutil.copy(folder / "metrics.jsonl", out.with_suffix(".metrics.jsonl"))
        shutil.copy(folder / "curve.png", out.with_suffix(".png"))
        print(f"wrote {out.name}.json, .metrics.jsonl and .png in {options.results}", flush=True)
    return code


def record(folder: Path, name: str, command: str) -> dict[str, Any]:
    """Everything a reader needs of a run, without paths of this machine."""
    config = json.loads((folder / "config.json").read_text())
    rows = read_metrics(folder / "metrics.jsonl")
    n = config["data"]["images"]
    curve, since = [], []
    for row in rows:
        if "bits_per_dim" in row:
            since.append(row["bits_per_dim"])
        if "held_out" in row or "test" in row:
            part = {kind: row[kind] for kind in ("held_out", "test", "raw") if kind in row}
            curve.append(
                {
                    "minutes": round(row["seconds"] / 60, 3),
                    "step": row["step"],
                    "images": row["images"],
                    "epochs": round(row["images"] / n, 3),
                    "train": round(float(np.mean(since)), 5) if since else None,
                    **part,
                    "round_trip": row["round_trip"],
                    "smallest_scale": row["smallest_scale"],
                    "condition": row["condition"],
                }
            )
            since = []
    speeds = [r["images_per_s"] for r in rows if "images_per_s" in r]
    memory = [r["memory_mib"] for r in rows if r.get("memory_mib")]
    prepared = [r["prepare_seconds"] for r in rows if "prepare_seconds" in r]
    made = {k: v for k, v in config["made"].items() if k not in ("command", "commit")}
    return {
        "name": name,
        "seed": config["train"]["seed"],
        **about(command),
        "made": made,
        "model": config["model"],
        "train": {**config["train"], "data_dir": None, "cache_dir": None},
        "data": config["data"],
        "note": "the averaged weights, nets in float32; 8 bits, uniform dequantisation; 'held_out' "
        "are training images kept out, 'test' was read once, at the end; minutes count "
        "evaluations and saving, not what came before the first step (prepare_seconds)",
        "prepare_seconds": prepared,
        "images_per_s": round(statistics.median(speeds), 1) if speeds else None,
        "memory_mib": max(memory, default=None),
        "baseline": next((r["baseline"] for r in rows if "baseline" in r), None),
        "curve": curve,
        "final": curve[-1] if curve else None,
    }


# -- measurements ------------------------------------------------------------------------------

Once = Callable[[], object]
Say = Callable[[str], object]
#: What a measurement calls with all it knows so far, after every row: a later one may be the last.
Done = Callable[[dict[str, Any]], object]


def wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def timed(work: Once, device: torch.device, warm: int, count: int, rounds: int) -> float:
    """Seconds of one call: the median over rounds of `count` calls, waited for at the end."""
    for _ in range(warm):
        work()
    wait(device)
    found = []
    for _ in range(rounds):
        began = time.perf_counter()
        for _ in range(count):
            work()
        wait(device)
        found.append((time.perf_counter() - began) / count)
    return statistics.median(found)


def noise_set(n: int, size: int) -> ImageSet:
    """n random images: what is on them costs no time."""
    images = np.random.default_rng(0).integers(0, 256, (n, size, size, 3), dtype=np.uint8)
    return ImageSet(images, None, None, (), "noise", "fit", "noise")


def train_step(
    model: dict[str, Any], size: int, batch: int, world: World, say: Say, **changes: Any
) -> Once:
    """One step as the trainer makes it, its batch and average included."""
    settings = {**PRESETS["cifar10-a10"].train, "compile": False, "cuda_graph": False}
    settings |= {"batch": batch, "device": str(world.device.type), **changes}
    config, data = TrainConfig(**settings), noise_set(max(2 * batch, 64), size)
    net = build({**model, "shape": [3, size, size]}).to(world.device)
    noise = seeded(0, device=world.device)
    with without_trials():
        net.initialize(to_tensor(data.images[: min(64, len(data))], world.device), generator=noise)
    run = runs.assemble(Path(), config, net, len(data), world.device)
    batches = Batches(data, config, world)
    step = training.make_step(run, batches, world, say)

    def once() -> None:
        step(*training.inputs(run, batches, world))
        run.step += 1
        update_average(run.average, run.model, 0.999, run.step)

    return once


def floor_step(model: dict[str, Any], batch: int, world: World, say: Say, graph: bool) -> Once:
    """The coupling nets alone, bf16 and channels-last, with the same optimiser: no flow."""
    from benchmarks.programs import Floor, Setting, wake

    torch.backends.cudnn.benchmark = True  # as the trainer does
    shape = {k: model[k] for k in ("levels", "depth", "width")}
    program, half = Floor(Setting(**shape, batch=batch, n_bits=8)), torch.bfloat16
    wake(program.model)
    program.to(world.device, torch.channels_last, half)
    name = PRESETS["cifar10-a10"].train["optimizer"]
    optimizer = make_optimizer(name, program.model.parameters(), lr=1e-6, graph=graph)

    def step(images: torch.Tensor) -> torch.Tensor:
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(world.device.type, dtype=half):
            program.backward(images)
        optimizer.step()
        return images.sum()

    images = torch.empty(batch, device=world.device)  # only how many there are counts
    run = Graphed(step, say) if graph else step
    return lambda: run(images)


def peer_step(name: str, model: dict[str, Any], batch: int, world: World) -> Once:
    """A public implementation's step, as its users have it: float32, PyTorch's defaults."""
    from benchmarks.peers import PEERS
    from benchmarks.programs import Setting

    torch.backends.cudnn.benchmark = False
    shape = {k: model[k] for k in ("levels", "depth", "width")}
    setting = Setting(**shape, batch=batch, n_bits=8)
    torch.manual_seed(0)
    program = PEERS[name](setting)
    program.prepare(torch.channels_last)
    program.model.to(world.device)
    torch.backends.cudnn.allow_tf32 = True  # the default that `World` takes away
    x = setting.noise_images().to(world.device, memory_format=torch.channels_last)
    return lambda: program.train_step(x)


def fits(work: Callable[[], Any], say: Say) -> Any:
    """work(), or None where it fails and `say` is told why.

    A GPU whose memory is full says so in many ways: any RuntimeError is a result.
    """
    try:
        return work()
    except RuntimeError as error:
        say(f"{type(error).__name__}: {next(iter(str(error).splitlines()), '')}")
        return None
    finally:
        gc.collect()
        if torch.cuda.is_available():
            with contextlib.suppress(RuntimeError):  # after a recording that failed
                torch.cuda.empty_cache()


def throughput(options: argparse.Namespace, done: Done) -> None:
    """images/s of the floor and of the trainer's step in each way of running it."""
    world = World(options.device)
    on_gpu = world.device.type == "cuda"
    model = {**PRESETS["cifar10-a10"].model, **(SMALL if options.rehearse else {})}
    ways: dict[str, dict[str, Any]] = {
        "fused": {},
        "fused, half": {"memory": "half"},
        "layers": {"fast": False},
    }
    if on_gpu:  # what counts first, what may not fit last: see `done`, and `Graphed` of failures
        replayed = {"cuda_graph": True}
        ways = {
            "fused, graph": replayed,
            "fused, compiled, graph": {"compile": True, **replayed},
            **ways,
            "fused, half, graph": {"memory": "half", **replayed},
            "layers, graph": {"fast": False, **replayed},
        }
    batches = options.batches or ([4, 8] if options.rehearse else [128, 512])
    rows = []
    for batch in batches:
        programs: dict[str, Callable[[Say], Once]] = {
            **{
                name: lambda say, b=batch, g=graph: floor_step(model, b, world, say, g)
                for name, graph in (("floor", False), ("floor, graph", True))
                if on_gpu or not graph
            },
            **{
                name: lambda say, b=batch, w=way: train_step(model, 32, b, world, say, **w)
                for name, way in ways.items()
                if "compile" not in way or batch == batches[-1]  # compiling takes a minute
            },
        }
        for name in options.peers:
            programs[name] = lambda _, b=batch, n=name: peer_step(n, model, b, world)
        for name, make in programs.items():
            began, said = time.perf_counter(), []

            def measure(make: Callable[[Say], Once] = make, say: Say = said.append) -> float:
                return timed(make(say), world.device, warm=6 if on_gpu else 1, count=5, rounds=3)

            if on_gpu:
                torch.cuda.reset_peak_memory_stats()
            taken = fits(measure, said.append)
            use_tf32(False)
            row = {
                "program": name, "batch": batch,
                "ms": taken and round(1e3 * taken, 3),
                "images_per_s": taken and round(batch / taken, 1),
                "memory_mib": peak_memory(world.device),
                "seconds_in_all": round(time.perf_counter() - began, 1),
                "said": said,
            }  # fmt: skip
            rows.append(row)
            print(json.dumps(row), flush=True)
            done({"model": model, "rows": rows, "ratios": ratios(rows)})


def ratios(rows: list[dict[str, Any]]) -> dict[str, float]:
    """Batch -> the fastest of our ways over the faster floor.

    Of those that ran as their name says: who could not have a graph or a compiler said so.
    """
    from benchmarks.peers import PEERS

    found = {}
    for batch in {row["batch"] for row in rows}:
        mine = [r for r in rows if r["batch"] == batch and r["images_per_s"] and not r["said"]]
        floors = [r["images_per_s"] for r in mine if r["program"].startswith("floor")]
        others = ("floor", *PEERS)
        ours = [r["images_per_s"] for r in mine if not r["program"].startswith(others)]
        if floors and ours:
            found[str(batch)] = round(max(ours) / max(floors), 4)
    return found


def memory(options: argparse.Namespace, done: Done) -> None:
    """Peak of a training step against K in each mode, and the largest batch at 32² and 256²."""
    world = World(options.device)
    if world.device.type != "cuda":
        raise SystemExit("memory: needs a GPU; on a CPU: python -m benchmarks.memory")
    small, large = PRESETS["cifar10-a10"].model, PRESETS["paper-celebahq"].model
    rows = []

    def peak(model: dict[str, Any], size: int, batch: int, mode: str) -> float | None:
        def once() -> float:
            step = train_step(model, size, batch, world, print, memory=mode)
            step()
            torch.cuda.reset_peak_memory_stats()
            step()
            return peak_memory(world.device)

        return fits(once, print)

    def tell(**row: Any) -> None:
        rows.append(row)
        print(json.dumps(row), flush=True)
        done({"rows": rows})

    for mode in MEMORY_MODES:
        for depth in (4, 8, 16, 32):
            mib = peak({**small, "depth": depth}, 32, 64, mode)
            tell(mode=mode, size=32, depth=depth, batch=64, peak_mib=mib)
        for size, model, batch in ((32, small, 256), (256, large, 4)):
            while peak(model, size, 2 * batch, mode) is not None:
                batch *= 2
            tell(mode=mode, size=size, depth=32, largest_power_of_two=batch)


def sampling(options: argparse.Namespace, done: Done) -> None:
    """Milliseconds from z to images, untrained weights: the paper's 130 ms were at 256²."""
    world = World(options.device)
    rows = []
    settings = [("paper-cifar10", 32, (1, 64)), ("paper-celebahq", 256, (1, 8))]
    for name, size, counts in settings:
        model = {**PRESETS[name].model, **(SMALL if options.rehearse else {})}
        size = 64 if options.rehearse and size > 64 else size
        net = build({**model, "shape": [3, size, size]}).to(world.device).eval()
        noise = seeded(0, device=world.device)
        net.initialize(to_tensor(noise_set(4, size).images, world.device), generator=noise)
        for n, frozen in itertools.product(counts, (False, True)):
            with net.frozen() if frozen else contextlib.nullcontext():
                sample = functools.partial(net.sample, n, temperature=0.7)
                taken = timed(sample, world.device, 2, 1, 9)
            row = {"preset": name, "size": size, "images": n, "frozen": frozen}
            rows.append({**row, "ms": round(1e3 * taken, 2)})
            print(json.dumps(rows[-1]), flush=True)
            done({"rows": rows, "note": "float32, launched from Python, no graph"})


def verify(options: argparse.Namespace, done: Done) -> None:
    """The dense Jacobian of a trained model (--of RUN) against its log-det, float64."""
    from glowlite.verify import float32_gap, verify_map

    if options.of is None:
        raise SystemExit("verify: name the run's folder with --of")
    world = World(options.device)
    model = checkpoint.load(options.of, device=world.device)
    where = {"data_dir": options.data_dir, "cache_dir": options.cache_dir}
    images = to_tensor(load("cifar10", "test", **where).images[:8], world.device)
    rows, began = [0], time.perf_counter()

    def progress(count: int) -> None:
        rows[0] += count
        print(f"{rows[0]} rows, {time.perf_counter() - began:.0f} s", flush=True)

    line = verify_map(model, images[:1], full=True, progress=progress, folder=Path(options.of))
    wait(world.device)
    taken = time.perf_counter() - began
    print(line)
    done({
        "of": Path(options.of).name, "step": model.header["step"], "model": model.config.to_dict(),
        "dims": line.dims, "says": line.says, "is": line.is_, "difference_nats": line.difference,
        "allowed": line.tolerance, "round_trip": line.round_trip, "ok": line.ok,
        "seconds": round(taken, 1), "float32": float32_gap(model, images),
    })  # fmt: skip


MEASUREMENTS = {f.__name__: f for f in (throughput, memory, sampling, verify)}


def picture(results: Path) -> Path:
    """All curves in one picture: bits/dim on held-out images against minutes."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4.8), layout="constrained")
    axes = figure.subplots()
    for path in sorted(results.glob("*-seed*.json")):
        run = json.loads(path.read_text())
        points = [(p["minutes"], p["held_out"]["mean"]) for p in run["curve"] if "held_out" in p]
        test = run["final"].get("test")
        told = f": test {with_error(test['mean'], test['standard_error'], 3)}" if test else ""
        axes.plot(*zip(*points, strict=True), marker="o", ms=3, label=path.stem + told)
    axes.set(xlabel="minutes", ylabel="bits/dim on held-out training images")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=8)
    out = results / "curves.png"
    figure.savefig(out, dpi=130)
    return out


def main(arguments: list[str] | None = None) -> int:
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    here, more = arguments, []
    if "--" in arguments:
        cut = arguments.index("--")
        here, more = arguments[:cut], arguments[cut + 1 :]
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    names = [*RUNS, *GROUPS, *MEASUREMENTS, "picture"]
    parser.add_argument("run", nargs="?", choices=names, metavar="RUN")
    parser.add_argument("--list", action="store_true", help="the names there are")
    parser.add_argument("--data-dir", type=Path, help="folder with the original CIFAR-10 files")
    parser.add_argument("--cache-dir", type=Path, help="folder for decoded images")
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="where runs are kept")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--name", help="of a run with options of its own")
    parser.add_argument("--minutes", type=float)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--batches", type=int, nargs="+", help="of throughput")
    parser.add_argument("--peers", nargs="*", default=[], help="of throughput: normflows …")
    parser.add_argument("--of", help="of verify: a run's folder")
    parser.add_argument("--rehearse", action="store_true", help="everything small, for a CPU")
    options = parser.parse_args(here)
    if options.list or options.run is None:
        print("\n".join(names))
        return 0
    options.command = command(options, more)
    if options.run == "picture":
        print(f"wrote {picture(options.results)}")
        return 0
    if options.run in MEASUREMENTS:
        head = {"name": options.run, **about(options.command)}
        options.results.mkdir(parents=True, exist_ok=True)
        path = options.results / f"{options.name or options.run}.json"
        MEASUREMENTS[options.run](
            options, lambda found: checkpoint.write_json(path, {**head, **found})
        )
        print(f"wrote {path.name}", flush=True)
        return 0
    if options.name and options.run in GROUPS:
        parser.error(f"--name: {options.run} is several runs")
    worst = 0
    for name in GROUPS.get(options.run, [options.run]):
        code = train(name, options, more)
        if code == 130:  # stopped: the others are not wanted now either
            return code
        worst = max(worst, code)
    return worst


def command(options: argparse.Namespace, more: list[str]) -> str:
    """What a reader types to repeat it: folders of this machine by a word."""
    words = ["python", "-m", "benchmarks.cifar10.run", options.run]
    for name in ("name", "minutes", "batches", "peers", "rehearse"):
        value = getattr(options, name)
        if value:
            words.append(f"--{name}")
            words += [] if value is True else map(str, value if type(value) is list else [value])
    words += ["--seed", str(options.seed)] if options.seed else []
    words += ["--of", f"runs/{Path(options.of).name}"] if options.of else []
    words += ["--data-dir", "FOLDER"] if options.data_dir else []
    return shlex.join(words + (["--", *more] if more else []))


if __name__ == "__main__":
    sys.exit(main())
