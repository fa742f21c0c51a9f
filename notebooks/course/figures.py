"""Figures with words: alt text for a screen reader, and a fingerprint of the plotted data.

nbval compares text and ignores pixels. `show` therefore stores beside the picture a text that
says, for each axes, how many artists of which kind, how many points, their ranges, and a hash of
projections of the data. A wrong curve changes the text and fails the test.

The hash must not change with the last bits, in which processors differ. Every number is rounded
to a grid of 10⁻⁴ of its data's range, and the grid is shifted by an irrational part of a step, so
that the round numbers of which plots are full never lie on an edge. Noise of relative size ε
flips a number with a probability of about ε·10⁴: none in practice for float64.
"""

from __future__ import annotations

import hashlib
import io
import math
from collections.abc import Iterable
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.figure import Figure

_SHIFT = (math.sqrt(5) - 1) / 2
_ZERO = 1e-14
"""Data smaller than this throughout is rounding noise around 0 and counts as 0."""


def show(fig: Figure, alt: str, *, digits: int = 4, unstable: Iterable[Artist] = ()) -> None:
    """Display `fig` with its alt text and data fingerprint, and close it.

    `alt` says in one or two sentences what the picture shows and what to conclude. `digits` is
    the resolution of the fingerprint, 10^-digits of each range: 4 for float64, 2 for results of
    float32 training. Artists in `unstable` (rounding noise itself, as on the left branch of the
    V-shaped error curve) count with their number of points only.

    Raises:
        ValueError: `alt` shorter than 20 characters, or a figure without data.
    """
    import matplotlib.pyplot as plt
    from IPython.core.interactiveshell import InteractiveShell
    from IPython.display import display

    alt = " ".join(alt.split())
    if len(alt) < 20:
        raise ValueError(f"alt must describe the picture in a sentence; it was {alt!r}")
    text = f"Figure: {alt}\n{fingerprint(fig, digits=digits, unstable=unstable)}"
    if not InteractiveShell.initialized():
        print(text)
        plt.close(fig)
        return
    # Closed before it is drawn: the end of a cell draws all open figures, without words; and a
    # slider's function runs in a thread beside the cells, so both would draw the same figure.
    plt.close(fig)
    buffer = io.BytesIO()
    # Around all that is drawn: a title above an axis of fixed aspect would else be cut off.
    fig.savefig(buffer, format="png", metadata={"Software": None}, bbox_inches="tight")
    # JupyterLab gives an image output no alt attribute (nbconvert's classic template does, from
    # the metadata), so the words follow as a fold that a screen reader reaches next.
    display(
        {"image/png": buffer.getvalue(), "text/plain": text},
        metadata={"image/png": {"alt": alt}},
        raw=True,
    )
    display(
        {
            "text/plain": f"In words: {alt}",
            "text/html": "<details><summary>This picture in words</summary>"
            f"{escape(alt)}</details>",
        },
        raw=True,
    )


def fingerprint(fig: Figure, *, digits: int = 4, unstable: Iterable[Artist] = ()) -> str:
    """One line for each kind of artist in each axes: counts, ranges, and a hash of the data.

    Raises:
        ValueError: nothing is plotted.
    """
    skip = {id(artist) for artist in unstable}
    lines = []
    for number, ax in enumerate(fig.axes, 1):
        for kind, artists in _artists(ax).items():
            if not artists:
                continue
            firm = [_arrays(a) for a in artists if id(a) not in skip]
            loose = [_arrays(a) for a in artists if id(a) in skip]
            points = sum(_points(arrays) for arrays in firm + loose)
            parts = [f"axes {number}: {len(artists)} {kind}, {points} points"]
            for name in sorted({name for arrays in firm for name in arrays}):
                values = [arrays[name] for arrays in firm if name in arrays]
                flat = np.concatenate([np.ravel(v) for v in values])
                parts.append(f"{name} {_range(flat)}")
            marks = [_mark(arrays, digits) for arrays in firm]
            if marks:
                parts.append("#" + hashlib.sha256(repr(marks).encode()).hexdigest()[:8])
            if loose:
                parts.append(f"{len(loose)} of them not compared")
            lines.append(", ".join(parts))
        words = _words(ax)
        if words:
            lines.append(f"axes {number}: text " + " | ".join(words))
    if not any("points" in line for line in lines):
        raise ValueError("fig has nothing plotted in it: plot first, then show")
    return "\n".join(lines)


def _artists(ax: Any) -> dict[str, list]:
    return {
        "lines": [a for a in ax.lines if a.get_visible()],
        "images": [a for a in ax.images if a.get_visible()],
        "collections": [a for a in ax.collections if a.get_visible()],
        "patches": [a for a in ax.patches if a.get_visible()],
    }


def _words(ax: Any) -> list[str]:
    found = [ax.get_title(), ax.get_xlabel(), ax.get_ylabel()]
    found += [t.get_text() for t in ax.texts]
    legend = ax.get_legend()
    if legend is not None:
        found += [t.get_text() for t in legend.get_texts()]
    scales = [s for s in (ax.get_xscale(), ax.get_yscale()) if s != "linear"]
    return [" ".join(t.split()) for t in found if t.strip()] + scales


def _arrays(artist: Any) -> dict[str, np.ndarray]:
    """The data behind an artist, by name, as float arrays."""
    from matplotlib.contour import ContourSet

    found: dict[str, Any] = {}
    if hasattr(artist, "get_data_3d"):  # a line in space
        found["x"], found["y"], found["z"] = artist.get_data_3d()
    elif hasattr(artist, "get_xdata"):
        found["x"], found["y"] = artist.get_xdata(), artist.get_ydata()
    elif isinstance(artist, ContourSet):
        # The number of vertices may change with the last bit; extent and length do not.
        found["level"] = artist.levels
        paths = [np.asarray(p.vertices) for p in artist.get_paths() if len(p.vertices)]
        found["extent"] = [[*p.min(0), *p.max(0)] for p in paths]
        found["length"] = [np.linalg.norm(np.diff(p, axis=0), axis=1).sum() for p in paths]
    elif hasattr(artist, "get_coordinates"):  # pcolormesh
        found["corner"] = artist.get_coordinates()
    elif getattr(artist, "_offsets3d", None) is not None:  # a scatter in space
        found["x"], found["y"], found["z"] = artist._offsets3d
    elif getattr(artist, "_vec", None) is not None:  # a surface in space
        found["vertex"] = artist._vec
    elif hasattr(artist, "U") and hasattr(artist, "V"):  # arrows
        found["x"], found["y"] = np.asarray(artist.XY).T
        found["u"], found["v"] = artist.U, artist.V
    elif hasattr(artist, "get_offsets"):
        offsets = np.ma.getdata(artist.get_offsets())
        if len(offsets) > 1 or np.any(offsets):
            found["x"], found["y"] = offsets[:, 0], offsets[:, 1]
            found["size"] = artist.get_sizes() if hasattr(artist, "get_sizes") else []
        else:
            paths = [p.vertices for p in artist.get_paths() if len(p.vertices)]
            if paths:
                found["x"], found["y"] = np.concatenate(paths).T
    elif hasattr(artist, "get_path"):
        path = artist.get_path().transformed(artist.get_patch_transform())
        found["x"], found["y"] = path.vertices.T
    if hasattr(artist, "get_array") and artist.get_array() is not None:
        found["value"] = np.ma.filled(np.ma.asarray(artist.get_array(), dtype=float), np.nan)
    if hasattr(artist, "get_facecolors") and len(artist.get_facecolors()) > 1:
        if "value" not in found:  # otherwise the colours are made from the values
            found["colour"] = artist.get_facecolors()
    if hasattr(artist, "get_extent") and "value" in found and hasattr(artist, "origin"):
        found["extent"] = artist.get_extent()
    return {name: _floats(v) for name, v in found.items() if np.size(v)}


def _floats(values: Any) -> np.ndarray:
    try:
        return np.asarray(np.ma.filled(np.ma.asarray(values, dtype=float), np.nan), dtype=float)
    except (TypeError, ValueError):  # categories or dates: their text, as numbers
        text = "\n".join(map(str, np.ravel(np.asarray(values, dtype=object))))
        return np.frombuffer(text.encode(), dtype=np.uint8).astype(float)


def _points(arrays: dict[str, np.ndarray]) -> int:
    return max((a.size for a in arrays.values()), default=0)


def _mark(arrays: dict[str, np.ndarray], digits: int) -> list:
    """Integers that stand for the data: extremes and two projections, on the shifted grid."""
    mark: list = []
    for name, array in sorted(arrays.items()):
        flat = np.ravel(array)
        finite = np.isfinite(flat)
        values = flat[finite]
        mark += [name, array.shape, int(finite.sum())]
        if not values.size:
            continue
        top = np.abs(values).max()
        spread = np.ptp(values)
        # A constant array's spread is 0 or last-bit noise: then its size is the measure.
        scale = spread if spread > 1e-9 * top else top
        if scale < _ZERO:
            mark.append(0)
            continue
        where = np.flatnonzero(finite) + 1.0
        numbers = [values.min(), values.max()]
        if spread > 1e-9 * top:
            centred = values - values.min()
            for frequency in (0.7548776662, 0.5698402910):  # quasi-random signs, no generator
                weights = np.cos(2 * np.pi * frequency * where) * np.sqrt(2)
                numbers.append((weights @ centred) / math.sqrt(values.size))
            numbers.append(centred.mean())
        mark += [_grid(v / scale, digits) for v in numbers]
        mark.append(_grid(math.log10(scale), digits - 1))
    return mark


def _grid(value: float, digits: int) -> int:
    return math.floor(value * 10**digits + _SHIFT)


def _range(values: np.ndarray) -> str:
    """`smallest … largest` in three digits, rounded so that last bits cannot show."""
    values = values[np.isfinite(values)]
    if not values.size:
        return "nothing finite"
    low, high = float(values.min()), float(values.max())
    scale = max(abs(low), abs(high))
    if scale < _ZERO:
        return "0 … 0"
    step = 10.0 ** (math.floor(math.log10(scale) + _SHIFT / 10) - 2)
    return " … ".join(f"{math.floor(v / step + _SHIFT) * step + 0.0:.4g}" for v in (low, high))
