"""What was measured, as a text table and a picture, both made from the JSON alone.

python -m benchmarks.report     results/speed/speed.json -> table.txt and speed.png beside it
"""

from __future__ import annotations

import argparse
import statistics
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.memory import MIB, line, slopes
from benchmarks.programs import PARTS
from benchmarks.speed import best_peer, quotient
from benchmarks.surroundings import ROOT
from glowlite.checkpoint import read_json, write_atomically

OUT = ROOT / "results" / "speed"
TITLES = {"train": "training step", "log_prob": "log-prob", "sample": "sampling"}
# Okabe and Ito's colours, told apart by (almost) everyone.
COLOURS = {"floor": "#999999", "glowlite": "#0072B2", "peer": "#E69F00"}

Rows = list[dict[str, Any]]


def table(head: Sequence[str], body: Sequence[Sequence[str]]) -> str:
    """Columns as wide as they need; the first to the left, the others to the right."""
    widths = [max(len(line[i]) for line in (head, *body)) for i in range(len(head))]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if i else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in (head, *body)
    )


def _spread(seconds: list[float]) -> float:
    """Interquartile range over median."""
    if len(seconds) < 2:
        return 0.0
    low, middle, high = statistics.quantiles(seconds, n=4, method="inclusive")
    return (high - low) / middle


def speed_table(rows: Rows) -> str:
    """Milliseconds (interquartile range in per cent), and how many times as fast as what."""
    head = ["", "parameters", "nets' MMAC"]
    for part in PARTS:
        head += [f"{part}, ms", "±", "/ floor", "/ peer"]
    body = []
    for row in rows:
        line = [row["name"], f"{row['parameters']:,}", f"{row['net_macs'] / 1e6:,.0f}"]
        for part in PARTS:
            taken = row["seconds"].get(part)
            if not taken:
                line += ["", "", "", ""]
                continue
            peer = best_peer(rows, part)
            ratios = (
                quotient(rows, row["name"], part, of=other) if other else None
                for other in ("floor", peer)
            )
            line += [f"{1e3 * statistics.median(taken):,.1f}", f"{100 * _spread(taken):.0f}%"]
            line += ["" if ratio is None else f"{ratio:.2f}" for ratio in ratios]
        body.append(line)
    notes = [f"{row['name']}: {row['about']}; {row['layout']}" for row in rows]
    notes += [
        f"{row['name']}: in {row['not_finite']} rounds a log-prob or sample was not finite"
        for row in rows
        if row.get("not_finite")
    ]
    named = {TITLES[part]: best_peer(rows, part) for part in PARTS}
    best = ", ".join(f"{what} {peer}" for what, peer in named.items() if peer)
    rounds = max(len(taken) for row in rows for taken in row["seconds"].values())
    key = [
        f"Medians of {rounds} rounds; ±: interquartile range. / floor, / peer: how many times as "
        "fast as the floor and as the fastest peer, the median of the rounds' quotients.",
        *([f"Fastest peer: {best}."] if best else []),
    ]
    return "\n".join([table(head, body), "", *map(_wrapped, key + notes)])


def _wrapped(text: str) -> str:
    return textwrap.fill(text, 110, subsequent_indent="  ")


def memory_table(rows: Rows) -> str:
    """MiB an image at each K, the slopes, and the peak RSS of the largest case."""
    names = list(dict.fromkeys(row["name"] for row in rows))
    depths = sorted({row["depth"] for row in rows})
    head = ["", *(f"K {k}" for k in depths), "kept a K", "fixed a K", "peak", "peak RSS"]
    body = []
    for name in names:
        kept = line(rows, name, "kept")
        peak, rss = (max(row[what] or 0 for row in rows if row["name"] == name) / MIB
                     for what in ("peak", "rss"))  # fmt: skip
        per_image, fixed = slopes(rows, name, "kept")
        body.append(
            [
                name, *(f"{kept[k][0]:.2f}" for k in depths), f"{per_image:.3f}",
                f"{fixed:.1f}", f"{peak:,.0f}", f"{rss:,.0f}",
            ]
        )  # fmt: skip
    key = (
        "MiB. K …: kept for the backward pass, an image. kept a K: its slope, an image and unit "
        "of K (one step at each level). fixed a K: what is kept whatever the batch, such as "
        f"copies of weights. With K {max(depths)} and {max(row['batch'] for row in rows)} images, "
        "peak: the highest point of forward and backward above weights, gradients and Adam's "
        "state; peak RSS: of the process."
    )
    return "\n".join([table(head, body), "", _wrapped(key)])


def exactness_table(rows: Rows) -> str:
    """Errors of float32 after training."""
    head = ["", "K", "bits/dim", "round trip", "log-det, nats", "gradient", "= default's"]
    equal = {None: "", True: "yes", False: "no"}

    def number(value: float | None, how: str) -> str:
        return "not finite" if value is None else format(value, how)

    body = [
        [
            row["name"], str(row["depth"]), number(row["bits_per_dim"], ".3f"),
            *(number(row[what], ".1e") for what in ("round_trip", "logdet", "gradient")),
            equal[row.get("gradient_equals_default")],
        ]
        for row in rows
    ]  # fmt: skip
    key = (
        f"float32 against a float64 copy after {rows[0]['steps']} training steps (the rate rises "
        f"to 1e-3 over {rows[0]['warmup']:,} images), hidden width {rows[0]['width']}: the "
        "largest error of a round trip, of a log-det, the relative error of the gradient; whether "
        "the gradient equals the default mode's bit for bit."
    )
    return "\n".join([table(head, body), "", _wrapped(key)])


def whole_table(rows: Rows) -> str:
    """Whether a library's log-det and inverse are right at all."""
    body = [[row["name"], f"{row['logdet']:.1e}", f"{row['round_trip']:.1e}"] for row in rows]
    key = (
        "Tiny models with random weights in float64: log-det against a dense Jacobian, and the "
        "round trip. FrEIA keeps its rotation in float32, hence its errors."
    )
    return "\n".join([table(["", "log-det, nats", "round trip"], body), "", _wrapped(key)])


def text(result: dict[str, Any]) -> str:
    """Everything that `result` holds."""
    device, software = result["device"], result["software"]
    setting = result["setting"]
    shape = " × ".join(map(str, setting["shape"]))
    parts = [
        "\n".join(dict.fromkeys(result["commands"].values())) + "\n"
        f"{result['date']}, commit {str(result['commit'])[:7]}"
        f"{' with changes not committed' if result['uncommitted'] else ''}; {device['cpu']} "
        f"({device['instructions']}), {device['threads']} threads; torch {software['torch']}\n"
        f"images {shape}, L {setting['levels']}, width {setting['width']}, "
        f"batch {setting['batch']}, float32"
    ]
    parts += [_wrapped(f"Left out: {what}") for what in result.get("left_out", [])]
    for depth, rows in result.get("speed", {}).items():
        parts.append(f"Speed, K = {depth}\n\n{speed_table(rows)}")
    if "memory" in result:
        parts.append(f"Activation memory\n\n{memory_table(result['memory'])}")
    if "exactness" in result:
        parts.append(f"Exactness\n\n{exactness_table(result['exactness'])}")
    if "whole" in result:
        parts.append(f"Is it right at all?\n\n{whole_table(result['whole'])}")
    return "\n\n\n".join(parts) + "\n"


def draw(result: dict[str, Any], path: Path) -> None:
    """Bars relative to the floor for each K, and memory against K."""
    from matplotlib.figure import Figure

    speed = result["speed"]
    most = max(len(rows) for rows in speed.values())
    figure = Figure(figsize=(14, 1.4 + len(speed) * (0.9 + 0.26 * most)), layout="constrained")
    with_memory = "memory" in result
    grid = figure.add_gridspec(len(speed), 4 if with_memory else 3, width_ratios=[1, 1, 1, 1.15][
        : 4 if with_memory else 3])  # fmt: skip
    for i, (depth, rows) in enumerate(speed.items()):
        for j, part in enumerate(PARTS):
            axes = figure.add_subplot(grid[i, j])
            _bars(axes, rows, part)
            axes.set_title(f"{TITLES[part]}, K = {depth}", fontsize=10, loc="left")
            if j:
                axes.set_yticklabels([])
            if i == len(speed) - 1:
                axes.set_xlabel("speed; 1 = the nets' convolutions alone", fontsize=9)
    if with_memory:
        _memory(figure.add_subplot(grid[:, 3]), result["memory"])
    device = result["device"]
    figure.suptitle(
        f"{device['cpu']}, {device['threads']} threads, torch {result['software']['torch']}, "
        f"batch {result['setting']['batch']}, width {result['setting']['width']}, float32",
        fontsize=10, x=0.01, ha="left",
    )  # fmt: skip
    write_atomically(path, lambda p: figure.savefig(p, dpi=130, format="png"))


def _bars(axes: Any, rows: Rows, part: str) -> None:
    shown = rows[::-1]  # matplotlib counts from below
    values = [quotient(rows, row["name"], part, of="floor") for row in shown]
    for y, (row, value) in enumerate(zip(shown, values, strict=True)):
        if value is None:
            axes.text(0.02, y, "as the default mode", va="center", fontsize=8, color="#777777")
            continue
        axes.barh(y, value, color=COLOURS[row["family"]], height=0.72)
        on_white = {"facecolor": "white", "edgecolor": "none", "pad": 0.5}  # not on the line at 1
        axes.text(value + 0.02, y, f"{value:.2f}", va="center", fontsize=8, bbox=on_white)
    axes.axvline(1, color="#444444", lw=1, ls="--", zorder=2)
    axes.set_yticks(range(len(shown)), [row["name"] for row in shown], fontsize=9)
    axes.set_xlim(0, 0.2 + max(1, *(value or 0 for value in values)))
    axes.tick_params(axis="x", labelsize=8)
    axes.spines[["top", "right"]].set_visible(False)


def _memory(axes: Any, rows: Rows) -> None:
    names = list(dict.fromkeys(row["name"] for row in rows))
    depths = sorted({row["depth"] for row in rows})
    ends = []
    for name in names:
        points = line(rows, name, "kept")
        family = "glowlite" if name.startswith("glowlite") else "peer"
        mib = [points[k][0] for k in depths]
        axes.plot(depths, mib, color=COLOURS[family], marker="o", ms=3.5, lw=1.4)
        ends.append((mib[-1], f"{name}: {slopes(rows, name, 'kept')[0]:.3f} a K", family))
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.set_xticks(depths, [str(k) for k in depths])
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_formatter("")
    axes.set_xlim(depths[0] * 0.85, depths[-1] * 6)
    low, high = axes.get_ylim()
    gap, below = (high / low) ** 0.035, 0.0
    for value, label, family in sorted(ends):  # labels that would touch move up
        below = max(value, below * gap)
        axes.annotate(
            label, (depths[-1], value), xytext=(depths[-1] * 1.18, below), va="center",
            fontsize=8.5, color=COLOURS[family],
            arrowprops={"arrowstyle": "-", "color": "#cccccc", "lw": 0.7},
        )  # fmt: skip
    axes.set_ylim(low, max(high, below * gap))
    axes.set_xlabel("K, steps a level", fontsize=9)
    axes.set_title("kept for the backward pass, MiB an image", fontsize=10, loc="left")
    axes.spines[["top", "right"]].set_visible(False)


def write(result: dict[str, Any], folder: Path = OUT) -> None:
    """table.txt, and speed.png where speeds were measured."""
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / "table.txt", lambda p: p.write_text(text(result), encoding="utf-8"))
    if result.get("speed"):
        draw(result, folder / "speed.png")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", nargs="?", type=Path, default=OUT, help="where speed.json lies")
    folder = parser.parse_args().folder
    result = read_json(folder / "speed.json")
    write(result, folder)
    print(text(result), end="")


if __name__ == "__main__":
    main()
