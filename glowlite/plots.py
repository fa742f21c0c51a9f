"""The curve of a run, drawn from its metrics.jsonl."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from glowlite.checkpoint import write_atomically

if TYPE_CHECKING:
    from glowlite.grading import Score


def read_metrics(path: str | Path) -> list[dict[str, Any]]:
    """The rows of a metrics file; a last line cut off by a killed process is left out.

    Raises ValueError if any other line is not a row in JSON.
    """
    path = Path(path)
    text = path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""
    lines = text.splitlines()
    rows = []
    for number, line in enumerate(lines, 1):
        try:
            row = json.loads(line)
            rows.append({**row, "step": int(row["step"])})
        except (KeyError, TypeError, ValueError):
            if number < len(lines):
                raise ValueError(f"{path}, line {number} is not a row of metrics") from None
    return rows


def save_curve(run: str | Path) -> Path:
    """Draw RUN/curve.png: bits/dim against images seen, training, test, and the baseline."""
    from matplotlib.figure import Figure

    run = Path(run)
    rows = read_metrics(run / "metrics.jsonl")
    train = [(r["images"], r["bits_per_dim"]) for r in rows if "bits_per_dim" in r]
    # A run with held-out images looks at those, and at the test images once, at its end.
    kind = "held_out" if any("held_out" in r for r in rows) else "test"
    looks = [r for r in rows if kind in r]
    figure = Figure(figsize=(7, 4.2), layout="constrained")
    axes = figure.subplots()
    if train:
        axes.plot(*zip(*train, strict=True), color="#9db7d5", lw=1, label="training batches")
    if looks:
        name = kind.replace("_", " ")
        seen = [r["images"] for r in looks]
        mean = [r[kind]["mean"] for r in looks]
        known = [r[kind]["standard_error"] for r in looks]  # None: of a single image
        error = [math.nan if e is None else 2 * e for e in known]
        axes.errorbar(
            seen, mean, error, color="#1f4e79", marker="o", ms=4, capsize=2,
            label=f"{name}, averaged weights (± 2 standard errors)",
        )  # fmt: skip
        line = looks[-1]["baseline"]
        axes.axhline(line, color="#b5523b", ls="--", lw=1.2)
        axes.annotate(
            f"every number by itself: {line:.2f}", (1, line), xycoords=("axes fraction", "data"),
            xytext=(-4, 4), textcoords="offset points", ha="right", color="#b5523b", fontsize=9,
        )  # fmt: skip
        # The first moments lie far above everything that follows; they may leave the picture.
        low, high = min([line, *mean, *(value for _, value in train)]), max(line, mean[-1])
        room = high - low + 0.1
        axes.set_ylim(low - 0.08 * room, high + 0.25 * room)
        axes.set_title(f"{name} {mean[-1]:.3f} bits/dim after {seen[-1]:,} images", loc="left")
    axes.set(xlabel="training images seen", ylabel="bits/dim (lower is better)")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, loc="best")
    return write_atomically(run / "curve.png", lambda p: figure.savefig(p, format="png", dpi=130))


def save_scores(path: str | Path, score: Score) -> Path:
    """A matrix: rows are what was added, columns what the reader saw change, in per cent."""
    from matplotlib.figure import Figure

    names = [name.replace("_", " ") for name in score.names]
    figure = Figure(figsize=(8.4, 7.4), layout="constrained")
    axes = figure.subplots()
    image = axes.imshow(100 * score.change, cmap="RdBu_r", vmin=-100, vmax=100)
    ticks = range(len(names))
    axes.set_xticks(ticks, names, rotation=45, ha="left", rotation_mode="anchor")
    axes.set_yticks(ticks, names)
    axes.tick_params(top=True, labeltop=True, bottom=False, labelbottom=False, length=0)
    axes.spines[:].set_visible(False)
    for i in ticks:
        for j in ticks:
            value = 100 * score.change[i, j]
            colour = "white" if abs(value) > 60 else "black" if abs(value) >= 5 else "#999999"
            axes.text(j, i, f"{value:+.0f}", ha="center", va="center", fontsize=8, color=colour)
    axes.set_ylabel("attribute added, strength 1, to faces that lack it")
    axes.set_xlabel("attribute read: change of the share of faces that have it, in per cent points")
    figure.colorbar(image, shrink=0.6)
    return write_atomically(path, lambda p: figure.savefig(p, format="png", dpi=120))
