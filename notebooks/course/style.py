"""One look for every figure: colours that colour-blind readers can tell apart, and line styles
that tell curves apart without any colour.

>>> COLOURS["blue"]
'#0072B2'
"""

from __future__ import annotations

COLOURS = {
    "blue": "#0072B2",
    "orange": "#E69F00",
    "green": "#009E73",
    "red": "#D55E00",
    "purple": "#CC79A7",
    "sky": "#56B4E9",
    "black": "#000000",
}
"""The palette of Okabe and Ito (2008), without its yellow, which is too pale for lines."""

SEQUENTIAL = "cividis"
DIVERGING = "PuOr"
"""Colour maps for quantities and for signed quantities; both safe for colour-blind readers."""

_LINES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (1, 3)), (0, (8, 3)))


def use() -> None:
    """Set matplotlib's defaults: palette with line styles, readable sizes, 96 dots an inch."""
    import matplotlib as mpl
    from cycler import cycler

    mpl.rcParams.update(
        {
            "axes.prop_cycle": cycler(color=list(COLOURS.values()), linestyle=_LINES),
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.titlesize": 12,
            "axes.labelsize": 11,
            "figure.dpi": 96,
            "figure.figsize": (7.0, 3.6),
            "figure.constrained_layout.use": True,
            "font.size": 11,
            "image.cmap": SEQUENTIAL,
            "image.interpolation": "nearest",
            "legend.frameon": False,
            "lines.linewidth": 1.8,
            "savefig.dpi": 96,
            "savefig.facecolor": "white",
        }
    )
