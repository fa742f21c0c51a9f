"""Every wrong layer is rejected and named; every right one passes."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mutants import RIGHT, bank

import reference as ref
from reference.nice import mlp

BANK = bank()


@pytest.mark.parametrize("name", RIGHT)
def test_the_unmutated_layer_passes(name):
    layer, x = RIGHT[name]()
    report = ref.check(layer, x)
    assert report, report.message
    assert report.mistake is None
    assert report.smallest < 1e-6


@pytest.mark.parametrize("mutant", BANK, ids=str)
def test_every_mutant_is_rejected_and_named(mutant):
    layer, x = mutant.make()
    report = ref.check(layer, x)
    assert not report, f"{mutant} survived: {report}"
    assert report.message
    if mutant.mistake is not None:
        assert mutant.mistake in (report.mistake or ""), report.message


def test_the_bank_has_at_least_five_mutants_of_every_layer():
    count = Counter(mutant.layer for mutant in BANK)
    assert set(count) >= set(RIGHT)
    assert min(count[name] for name in RIGHT if name != "ActNorm, s < 0") >= 5


def right(kind, h, w, c, rng):
    """A right layer of this kind for images of c channels (or the next even number), and an x."""
    even = c + c % 2
    padding = str(rng.choice(["edge", "zero"]))
    parity = int(rng.integers(2))

    def net(c_in, c_out):  # convolutions take most of the time, and a coupling takes any net
        if rng.random() < 0.25:
            return ref.CouplingNet.random(c_in, 4, c_out, rng, padding)
        return mlp(c_in, 4, c_out, rng)

    def actnorm(c):
        s = rng.choice([-1, 1], c) * np.exp(rng.standard_normal(c))
        return ref.ActNorm(s, 3 * rng.standard_normal(c))

    def lu(c):
        return ref.Conv1x1LU.from_matrix(rng.standard_normal((c, c)))

    def affine(scale="exp"):
        return ref.AffineCoupling(net(even // 2, even), scale)

    if kind in ("glow", "realnvp"):
        levels = 1 + int(rng.random() < 0.1)
        factor = 2 ** (levels if kind == "glow" else levels - 1)
        shape = (factor * min(h, 2), factor * (w % 2 + 1), c % 2 + 1)
    elif kind in ("actnorm", "conv", "lu", "rotation", "permutation", "top", "logit", "board"):
        shape = (h, w, c)
    else:
        shape = (2 * h, 2 * w, c) if kind == "squeeze" else (h, w, even)
    x = np.exp(rng.uniform(-1, 1)) * rng.standard_normal((int(rng.integers(1, 4)), *shape))
    if kind == "logit":
        x = rng.uniform(-0.5, 0.5, x.shape)
    layer = {
        "actnorm": lambda: actnorm(c),
        "conv": lambda: ref.Conv1x1(rng.standard_normal((c, c))),
        "lu": lambda: lu(c),
        "rotation": lambda: ref.Conv1x1.random(c, rng),
        "permutation": lambda: ref.Permutation.shuffle(c, rng),
        "squeeze": lambda: ref.Squeeze(str(rng.choice(["glow", "realnvp"]))),
        "affine": affine,
        "sigmoid": lambda: affine("sigmoid"),
        "additive": lambda: ref.AdditiveCoupling(net(even // 2, even // 2)),
        "split": lambda: ref.Split(ref.ConvPrior.random(even // 2, rng, padding)),
        "top": lambda: ref.TopPrior(rng.standard_normal(c), rng.standard_normal(c)),
        "board": lambda: ref.MaskedCoupling(ref.checkerboard_mask(h, w, parity), net(c, 2 * c)),
        "masked": lambda: ref.MaskedCoupling(ref.channel_mask(even, parity), net(even, 2 * even)),
        "logit": lambda: ref.Logit(rng.uniform(0.01, 0.4)),
        "step": lambda: ref.Step(actnorm(even), lu(even), affine()),
        "nice": lambda: ref.NICE.random(shape, 5, rng),
        "glow": lambda: ref.Glow.random(shape, levels, 1, 2, rng, padding=padding),
        "realnvp": lambda: ref.RealNVP.random(shape, levels, 2, rng, padding),
    }[kind]()
    return layer, x


@pytest.mark.parametrize(
    "kind",
    "actnorm conv lu rotation permutation squeeze affine sigmoid additive split top board masked "
    "logit step nice glow realnvp".split(),
)
@settings(
    max_examples=200, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck)
)
@given(
    h=st.integers(1, 3), w=st.integers(1, 4), c=st.integers(1, 4), seed=st.integers(0, 2**32 - 1)
)
def test_no_right_layer_is_rejected(kind, h, w, c, seed):
    layer, x = right(kind, h, w, c, np.random.default_rng(seed))
    report = ref.check(layer, x)
    assert report, report.message
