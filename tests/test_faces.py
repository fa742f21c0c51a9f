"""The drawn faces: exact labels, exact repetition, attributes one can see."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from glowlite.data import faces as F

# Accuracy on 1,000 unseen faces that a linear probe on 3,000 must reach; chance is the commoner
# answer's share, at most 0.75. Measured: wavy_hair 0.87, the others 0.95 to 1.00.
PROBE_FLOOR = dict.fromkeys(F.ATTRIBUTES, 0.92) | {"wavy_hair": 0.82}

# Where in the picture (rows, columns as parts of the side) a change must show, for the attributes
# that belong to one place; the others may change the whole head.
REGION = {
    "eyeglasses": (0.35, 0.70, 0.10, 0.90),
    "wearing_hat": (0.00, 0.50, 0.00, 1.00),
    "bangs": (0.20, 0.55, 0.15, 0.85),
    "pointy_nose": (0.42, 0.80, 0.28, 0.72),
    "mustache": (0.55, 0.85, 0.22, 0.78),
    "smiling": (0.58, 0.92, 0.22, 0.78),
    "narrow_eyes": (0.35, 0.68, 0.15, 0.85),
}


@pytest.fixture(scope="module")
def people() -> F.Faces:
    return F.sample_factors(120, seed=5, split="test")


def test_shapes_types_and_range():
    for size in F.SIZES:
        images, labels = F.make_faces(7, size=size, seed=3)
        assert images.shape == (7, size, size, 3) and images.dtype == np.uint8
        assert labels.shape == (7, 13) and labels.dtype == bool
        assert images.flags.c_contiguous
    images, _ = F.make_faces(400)
    assert images.min() < 25 and images.max() > 245
    assert 100 < images.mean() < 155 and images.std() > 40
    # Little is clipped to pure white or black.
    assert np.mean((images == 255) | (images == 0)) < 0.02


def test_nothing_wraps_round_in_uint8():
    """Were a value beyond [0, 1] cast without clipping, 1.01 would turn black beside white."""
    people = F.sample_factors(300, seed=2)
    # The brightest light on the palest, so that values do pass 1.
    chance = people.chance.copy()
    for name in ("light", "light_side", "warmth", "backdrop_tone"):
        chance[:, F.CHANCE.index(name)] = 0.999
    bright = F.draw(F.with_attribute(F.Faces(people.attributes, chance), "pale_skin", True))
    normal = F.draw(F.with_attribute(people, "pale_skin", True))
    assert (bright == 255).any()
    # The side towards the light: brighter everywhere, save where the shading of the face turns.
    gain = bright[:, :, 24:].astype(int) - normal[:, :, 24:]
    assert gain.min() > -120 and np.mean(gain < 0) < 0.1


def test_same_seed_same_faces_and_other_seeds_and_splits_differ():
    a, la = F.make_faces(40, seed=11)
    b, lb = F.make_faces(40, seed=11)
    assert np.array_equal(a, b) and np.array_equal(la, lb)
    for other in (F.make_faces(40, seed=12), F.make_faces(40, seed=11, split="test")):
        assert not np.array_equal(la, other[1])
        assert all(np.abs(x.astype(int) - y).mean() > 5 for x, y in zip(a, other[0], strict=True))
    numbers = [F.sample_factors(500, s, t).chance.ravel() for s in (0, 1) for t in F.SPLITS]
    assert len(np.unique(np.concatenate(numbers))) == sum(map(len, numbers))


@pytest.mark.parametrize("size", F.SIZES)
def test_a_face_does_not_depend_on_how_many_are_drawn(size):
    step = F._CHUNK_PIXELS // size**2
    n = min(step + 3, 80)
    images, labels = F.make_faces(n, size=size, seed=9)
    for start, count in ((0, 1), (n - 1, 1), (5, 7), (3, n - 3)):
        part, part_labels = F.make_faces(count, size=size, seed=9, start=start)
        assert np.array_equal(part, images[start : start + count])
        assert np.array_equal(part_labels, labels[start : start + count])
    people = F.sample_factors(n, seed=9)
    order = np.random.default_rng(0).permutation(n)
    assert np.array_equal(F.draw(people[order], size), images[order])


def test_the_factors_are_the_ones_of_every_machine():
    """Only the raw stream of Philox and exact arithmetic are used, so a digest can be kept."""
    people = F.sample_factors(50, seed=1, split="test")
    digest = hashlib.sha256(people.attributes.tobytes() + people.chance.astype("<f8").tobytes())
    assert digest.hexdigest()[:16] == "d71bdfb53ded22da"


def test_attributes_are_as_frequent_as_documented_and_independent():
    n = 40_000
    a = F.sample_factors(n, seed=4).attributes.astype(float)
    p = np.array(F.PROBABILITIES)
    assert np.all(np.abs(a.mean(0) - p) < 4.5 * np.sqrt(p * (1 - p) / n))
    correlation = np.corrcoef(a.T) - np.eye(13)
    assert np.abs(correlation).max() < 4.5 / np.sqrt(n)


def test_an_attribute_is_changed_and_nothing_else(people):
    before = people.attributes.copy()
    for k, name in enumerate(F.ATTRIBUTES):
        on, turned = F.with_attribute(people, name, True), F.flip(people, name)
        assert on.attributes[:, k].all()
        assert np.array_equal(turned.attributes[:, k], ~before[:, k])
        others = np.arange(13) != k
        assert np.array_equal(turned.attributes[:, others], before[:, others])
        assert np.array_equal(turned.chance, people.chance)
        assert np.array_equal(F.labels(F.flip(turned, name)), before)
    assert np.array_equal(people.attributes, before)
    wanted = np.arange(len(people)) % 2 == 0
    some = F.with_attribute(people, "male", wanted)
    assert np.array_equal(some.attributes[:, F.ATTRIBUTES.index("male")], wanted)
    F.labels(people)[:] = True
    assert np.array_equal(people.attributes, before), "labels() must be a copy"


@pytest.mark.parametrize("name", F.ATTRIBUTES)
def test_every_attribute_shows(people, name):
    """On every single face, even under a hat or glasses: the 20 pixels that change most change by
    12 of 255 at least, by 25 on average; and a local attribute changes nothing elsewhere."""
    pair = [F.draw(F.with_attribute(people, name, v)).astype(int) for v in (False, True)]
    change = np.abs(pair[1] - pair[0]).max(-1)
    top, bottom, left, right = (round(32 * v) for v in REGION.get(name, (0, 1, 0, 1)))
    inside = change[:, top:bottom, left:right].reshape(len(people), -1)
    strongest = np.sort(inside, axis=1)[:, -20:].mean(1)
    print(f"{name}: mean {strongest.mean():.0f}, least {strongest.min():.0f} of 255")
    assert strongest.min() > 12 and strongest.mean() > 25
    if name in REGION:
        outside = change.copy()
        outside[:, top:bottom, left:right] = 0
        assert outside.sum() < 0.02 * change.sum()


def test_attributes_can_be_read_from_pixels():
    """A ridge regression on the pixels of 3,000 faces, judged on 1,000 faces of the test split."""
    (x, y), (x_test, y_test) = F.make_faces(3000), F.make_faces(1000, split="test")
    a, b = (v.reshape(len(v), -1).astype(np.float32) / 255 for v in (x, x_test))
    mean = a.mean(0)
    a, b = a - mean, b - mean
    target = np.where(y, 1.0, -1.0).astype(np.float32)
    centre = target.mean(0)
    gram = a @ a.T + 10 * np.eye(len(a), dtype=np.float32)
    score = b @ (a.T @ np.linalg.solve(gram, target - centre)) + centre
    accuracy = ((score > 0) == y_test).mean(0)
    chance = np.maximum(y_test.mean(0), 1 - y_test.mean(0))
    for name, got, base in zip(F.ATTRIBUTES, accuracy, chance, strict=True):
        print(f"{name:12s} {got:.3f} (chance {base:.2f})")
    poor = [n for n, v in zip(F.ATTRIBUTES, accuracy, strict=True) if v < PROBE_FLOOR[n]]
    assert not poor
    # The probe itself can fail: with the labels shuffled it must be at chance.
    shuffled = np.random.default_rng(0).permutation(target[:, 7])
    score = b @ (a.T @ np.linalg.solve(gram, shuffled))
    assert abs(((score > 0) == y_test[:, 7]).mean() - 0.5) < 0.08


def test_sizes_show_the_same_face(people):
    large, middle, small = (F.draw(people, s).astype(float) for s in (64, 32, 16))

    def halve(a: np.ndarray) -> np.ndarray:
        n, h, w, c = a.shape
        return a.reshape(n, h // 2, 2, w // 2, 2, c).mean((2, 4))

    # Different faces differ by about 50; the same face at two sizes by the softness of its edges.
    assert np.abs(halve(large) - middle).mean((1, 2, 3)).max() < 4
    assert np.abs(halve(middle) - small).mean((1, 2, 3)).max() < 8
    assert np.abs(halve(large) - middle[::-1]).mean() > 25


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: F.make_faces(0), "n must be a whole number, at least 1, not 0"),
        (lambda: F.make_faces(2.5), "n must be a whole number"),
        (lambda: F.make_faces(4, size=48), r"size must be one of \(16, 32, 64\), not 48"),
        (lambda: F.make_faces(4, seed=-1), "seed must be a whole number, at least 0"),
        (lambda: F.make_faces(4, seed=2**64), "seed must be a whole number.*at most"),
        (lambda: F.make_faces(4, start=-1), "start must be a whole number"),
        (lambda: F.make_faces(4, split="valid"), "split must be one of .*'valid'"),
        (lambda: F.flip(F.sample_factors(1), "beard"), "name must be one of eyeglasses, .*'beard'"),
        (lambda: F.with_attribute(F.sample_factors(1), "Male", True), "name must be one of"),
    ],
)
def test_bad_arguments_are_named(call, words):
    with pytest.raises(ValueError, match=words):
        call()


def test_neither_torch_nor_matplotlib_is_needed_to_draw():
    code = (
        "import sys; import glowlite.data.faces as F; F.make_faces(2);"
        "print([m for m in ('torch', 'matplotlib') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_contact_sheet_is_the_one_the_readme_shows(tmp_path):
    """Whatever moves a pixel of a face makes another data set of the faces; see README.md."""
    path = tmp_path / "sheet.png"
    F.save_sheet(str(path))
    shown = Path(__file__).parents[1] / "docs" / "faces.png"
    drawn, kept = (np.asarray(Image.open(p).convert("RGB")).astype(int) for p in (path, shown))
    assert drawn.shape == kept.shape
    pairs = [832 + 126 * i + j for i in range(7) for j in range(96)]  # the rest is their names
    assert np.abs(drawn - kept)[[*range(800), *pairs]].max() <= 1  # float32 rounds here and there
