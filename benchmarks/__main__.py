"""Speed, memory and exactness of glowlite beside the floor and the peers; `make bench` runs it.

    python -m benchmarks                               everything, into results/speed
    python -m benchmarks --parts speed --depth 8 --only floor glowlite --out /tmp/try

speed.json holds each part as soon as it is measured; table.txt and speed.png are made from it at
the end, or by `python -m benchmarks.report`. A part that is not asked for keeps what the folder's
speed.json has, if that is of the same commit, device and setting, and nothing was changed since the
commit: changes are not compared.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from dataclasses import asdict
from pathlib import Path

from benchmarks import exactness, memory, report, speed
from benchmarks.peers import MISSING, PEERS
from benchmarks.programs import has_bf16
from benchmarks.surroundings import surroundings
from glowlite.checkpoint import read_json, write_json

STAGES = ("speed", "memory", "exactness")
SAME = ("commit", "uncommitted", "device", "software", "setting")


def left_out() -> list[str]:
    """What could not be measured here, and why."""
    missing = [f'{name} is not installed (pip install -e ".[peers]")' for name in MISSING]
    if not has_bf16():
        missing.append("bfloat16 nets: this CPU has no bfloat16 instructions")
    return missing


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    speed.add_options(parser)
    parser.add_argument("--parts", nargs="+", choices=STAGES, default=STAGES)
    parser.add_argument("--memory-depth", type=int, nargs="+", default=memory.DEPTHS)
    parser.add_argument("--exact-width", type=int, default=256)
    parser.add_argument("--exact-steps", type=int, default=30)
    parser.add_argument("--exact-warmup", type=int, default=exactness.DEFAULTS.warmup)
    parser.add_argument("--out", type=Path, default=report.OUT)
    options = parser.parse_args()

    setting = asdict(speed.setting_of(options, 0))
    del setting["depth"]
    about = surroundings(shlex.join(["python", "-m", "benchmarks", *sys.argv[1:]]))
    command = about.pop("command")
    about |= {"left_out": left_out(), "setting": {**setting, "shape": list(setting["shape"])}}
    file = options.out / "speed.json"
    before = read_json(file) if file.exists() else {}
    kept = not about["uncommitted"] and all(before.get(key) == about[key] for key in SAME)
    result = {**(before if kept else {}), **about}

    def done(part: str) -> None:
        result["commands"] = {**result.get("commands", {}), part: command}
        options.out.mkdir(parents=True, exist_ok=True)
        write_json(file, result)

    if "speed" in options.parts:
        result["speed"] = speed.run(options)
        done("speed")
    if "memory" in options.parts:
        names = [n for n in memory.default_names() if n in options.only]
        result["memory"] = memory.measure(names, options.memory_depth, options)
        done("memory")
    if "exactness" in options.parts:
        result["whole"] = [exactness.whole(name) for name in ("glowlite", *PEERS)]
        result["exactness"] = []
        exact = argparse.Namespace(**{**vars(options), "width": options.exact_width})
        for depth in options.depth:
            setting_ = speed.setting_of(exact, depth)
            steps, warmup = options.exact_steps, options.exact_warmup
            result["exactness"] += exactness.measure(setting_, steps, warmup)
        done("exactness")
    report.write(result, options.out)
    print("\n" + report.text(result), end="")


if __name__ == "__main__":
    main()
