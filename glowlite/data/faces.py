"""Drawn faces whose attributes are known exactly.

A data set that needs no download: each face is thirteen independent yes/no attributes (the ones
the deck manipulates in CelebA) and some chance (pose, light, colours, proportions). Because a face
is *drawn* from these, the same person can be drawn again with one attribute changed, so an edit
made by a model can be compared with the truth.

>>> images, labels = make_faces(4, size=32, seed=0)
>>> images.shape, images.dtype, labels.shape
((4, 32, 32, 3), dtype('uint8'), (4, 13))
>>> people = sample_factors(4, seed=0)
>>> smiling = draw(with_attribute(people, "smiling", True), size=32)

`python -m glowlite.data.faces --sheet docs/faces.png` draws the contact sheet (needs matplotlib).
"""

from __future__ import annotations

import argparse
import operator
from dataclasses import dataclass, replace

import numpy as np

from ._face import paint_faces

# CelebA's names, in small letters, and how often each is true.
_TABLE = (
    ("eyeglasses", 0.35),
    ("wearing_hat", 0.30),
    ("bangs", 0.40),
    ("wavy_hair", 0.50),
    ("pointy_nose", 0.50),
    ("mustache", 0.25),
    ("oval_face", 0.50),
    ("smiling", 0.50),
    ("pale_skin", 0.50),
    ("blond_hair", 0.35),
    ("narrow_eyes", 0.40),
    ("young", 0.60),
    ("male", 0.50),
)
ATTRIBUTES: tuple[str, ...] = tuple(row[0] for row in _TABLE)
#: P(attribute = True). The thirteen are independent of one another and of all chance.
PROBABILITIES: tuple[float, ...] = tuple(row[1] for row in _TABLE)

#: What varies besides the attributes: one number in [0, 1) each.
CHANCE: tuple[str, ...] = (
    "shift_x", "shift_y", "roll", "zoom", "turn",
    "light", "light_side", "warmth",
    "backdrop", "backdrop_2", "backdrop_tone", "backdrop_slant",
    "skin", "hair", "iris", "clothes", "hat", "frames",
    "face_width", "face_length", "eye_spacing", "eye_size", "gaze", "brow",
    "nose", "mouth", "mouth_bend", "moustache_width",
    "hair_volume", "hair_length", "hair_phase", "parting", "fringe",
    "hat_kind", "glasses_shape", "neckline",
)  # fmt: skip

SIZES = (16, 32, 64)
SPLITS = ("train", "test")
# Numbers drawn per face. A Philox counter yields four, so a multiple of four lets a stream start
# at any face; the few left over keep old faces as they are when a chance is added.
_NUMBERS = 52
# Faces painted at once: enough to amortise NumPy's calls, few enough to stay in the cache.
_CHUNK_PIXELS = 64 * 32 * 32


@dataclass(frozen=True)
class Faces:
    """The factors of n faces: all that `draw` needs.

    attributes: bool (n, 13), columns as in `ATTRIBUTES`.
    chance: float64 (n, 36) in [0, 1), columns as in `CHANCE`.
    """

    attributes: np.ndarray
    chance: np.ndarray

    def __len__(self) -> int:
        return len(self.attributes)

    def __getitem__(self, rows: slice | np.ndarray) -> Faces:
        """Some of the faces, by slice, indices or mask."""
        return Faces(self.attributes[rows], self.chance[rows])


def sample_factors(n: int, seed: int = 0, split: str = "train", start: int = 0) -> Faces:
    """Faces start, …, start + n − 1 of the endless stream (seed, split): aᵢ ~ Bernoulli(pᵢ).

    Face i depends on (seed, split, i) alone. The splits are different keys of the counter-based
    generator Philox 4×64, so they share no numbers.

    Raises: ValueError for n < 1, a negative seed or start, or an unknown split.
    """
    n = _whole(n, "n", 1)
    seed, start = _whole(seed, "seed", 0, 2**64 - 1), _whole(start, "start", 0)
    if split not in SPLITS:
        raise ValueError(f"split must be one of {SPLITS}, not {split!r}")
    philox = np.random.Philox(key=np.array([seed, SPLITS.index(split)], np.uint64))
    philox.advance(start * (_NUMBERS // 4))
    # The raw stream is fixed for good, unlike the methods of Generator.
    u = (philox.random_raw(n * _NUMBERS) >> np.uint64(11)).reshape(n, _NUMBERS) * 2.0**-53
    k = len(ATTRIBUTES)
    return Faces(u[:, :k] < np.array(PROBABILITIES), u[:, k : k + len(CHANCE)].copy())


def labels(faces: Faces) -> np.ndarray:
    """The truth: a copy of the attributes, bool (n, 13), columns as in `ATTRIBUTES`."""
    return faces.attributes.copy()


def with_attribute(faces: Faces, name: str, value: bool | np.ndarray) -> Faces:
    """The same people with one attribute set to `value` (one bool, or n of them).

    Raises: ValueError if `name` is not in `ATTRIBUTES`.
    """
    column = _column(name)
    attributes = faces.attributes.copy()
    attributes[:, column] = value
    return replace(faces, attributes=attributes)


def flip(faces: Faces, name: str) -> Faces:
    """The same people with one attribute turned round: a ← not a."""
    return with_attribute(faces, name, ~faces.attributes[:, _column(name)])


def draw(faces: Faces, size: int = 32) -> np.ndarray:
    """Paint the faces: uint8 (n, size, size, 3), RGB. Cost: about 0.25 ms a face at 32×32.

    Raises: ValueError if `size` is not 16, 32 or 64.
    """
    if size not in SIZES:
        raise ValueError(f"size must be one of {SIZES}, not {size!r}")
    out = np.empty((len(faces), size, size, 3), np.uint8)
    step = max(1, _CHUNK_PIXELS // size**2)
    for i in range(0, len(faces), step):
        some = faces[i : i + step]
        has = dict(zip(ATTRIBUTES, some.attributes.T.astype(np.float32), strict=True))
        u = dict(zip(CHANCE, some.chance.T.astype(np.float32), strict=True))
        rgb = paint_faces(size, has, u)
        out[i : i + step] = (np.clip(rgb, 0, 1) * 255 + 0.5).transpose(3, 0, 1, 2)
    return out


def make_faces(
    n: int, size: int = 32, seed: int = 0, split: str = "train", start: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """n images, uint8 (n, size, size, 3), and their labels, bool (n, 13).

    `draw(f), labels(f)` of f = `sample_factors(n, seed, split, start)`; the same errors.
    """
    faces = sample_factors(n, seed, split, start)
    return draw(faces, size), labels(faces)


def _column(name: str) -> int:
    if name not in ATTRIBUTES:
        raise ValueError(f"name must be one of {', '.join(ATTRIBUTES)}; not {name!r}")
    return ATTRIBUTES.index(name)


def _whole(value: int, name: str, low: int, high: int | None = None) -> int:
    try:
        number = operator.index(value)
    except TypeError:
        number = None
    if number is None or number < low or (high is not None and number > high):
        top = f" and at most {high}" if high is not None else ""
        raise ValueError(f"{name} must be a whole number, at least {low}{top}, not {value!r}")
    return number


def save_sheet(path: str, seed: int = 0) -> None:
    """The contact sheet: 6×12 faces at 64 px, then each attribute without and with it at 32 px.

    Every pixel of a face becomes a whole square of the sheet, so nothing is smoothed over.
    """
    from matplotlib.figure import Figure

    def tile(images: np.ndarray, rows: int, enlarge: int) -> np.ndarray:
        n, h, w, c = images.shape
        grid = images.reshape(rows, n // rows, h, w, c).transpose(0, 2, 1, 3, 4)
        return grid.reshape(rows * h, -1, c).repeat(enlarge, 0).repeat(enlarge, 1)

    width, height = 1600, 1716
    figure = Figure(figsize=(width / 100, height / 100), dpi=100)

    def place(image: np.ndarray, left: int, top: int) -> None:
        figure.figimage(image, left, height - top - len(image), origin="upper")

    place(tile(draw(sample_factors(72, seed), 64), 6, 2), 32, 16)
    # For the pairs: young people whose faces nothing covers, alternately pale and not.
    crowd = sample_factors(400, seed, start=72)
    crowd = with_attribute(crowd, "young", True)
    for name in ("eyeglasses", "wearing_hat", "mustache", "bangs", "blond_hair"):
        crowd = crowd[~crowd.attributes[:, _column(name)]]
    pale = crowd.attributes[:, _column("pale_skin")]
    people = crowd[np.stack([np.flatnonzero(pale)[:2], np.flatnonzero(~pale)[:2]], 1).ravel()]
    for i, name in enumerate(ATTRIBUTES):
        left, top = 16 + 800 * (i // 7), 832 + 126 * (i % 7)
        pair = [draw(with_attribute(people, name, value), 32) for value in (False, True)]
        strip = tile(np.stack(pair, axis=1).reshape(-1, 32, 32, 3), 1, 3)
        strip[:, [k for k in range(strip.shape[1]) if k % 192 < 2 or k % 192 > 189]] = 255
        place(strip, left, top)
        figure.text(
            (left + 2) / width, 1 - (top - 6) / height, f"{name}: without | with", fontsize=10
        )
    figure.savefig(path)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m glowlite.data.faces", description="Draw the contact sheet of the faces."
    )
    parser.add_argument("--sheet", required=True, metavar="PNG", help="where to write the picture")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    save_sheet(args.sheet, args.seed)


if __name__ == "__main__":
    main()
