"""Every wrong layer is rejected and named; every right one passes."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mutants import RIGHT, bank

import reference as ref

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


KINDS = (
    "actnorm", "conv", "lu", "rotation", "permutation", "squeeze", "affine", "sigmoid",
    "additive", "split", "top", "masked", "step", "nice",
)  # fmt: skip


@settings(
    max_examples=200, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck)
)
@given(
    kind=st.sampled_from(KINDS),
    h=st.integers(1, 3),
    w=st.integers(1, 4),
    c=st.integers(1, 4),
    n=st.integers(1, 3),
    padding=st.sampled_from(["edge", "zero"]),
    seed=st.integers(0, 2**32 - 1),
)
def test_no_right_layer_is_rejected(kind, h, w, c, n, padding, seed):
    rng = np.random.default_rng(seed)
    even = c + c % 2
    sd = np.exp(rng.uniform(-1, 1))  # of x, too

    def net(c_in, c_out):
        return ref.CouplingNet.random(c_in, 4, c_out, rng, padding)

    s = rng.choice([-1, 1], even) * np.exp(rng.standard_normal(even))
    actnorm = ref.ActNorm(s, 3 * rng.standard_normal(even))
    affine = ref.AffineCoupling(net(even // 2, even))
    lu = ref.Conv1x1LU.from_matrix(rng.standard_normal((even, even)))
    layer = {
        "actnorm": lambda: actnorm,
        "conv": lambda: ref.Conv1x1(rng.standard_normal((even, even))),
        "lu": lambda: lu,
        "rotation": lambda: ref.Conv1x1.random(even, rng),
        "permutation": lambda: ref.Permutation.shuffle(even, rng),
        "squeeze": lambda: ref.Squeeze(str(rng.choice(["glow", "realnvp"]))),
        "affine": lambda: affine,
        "sigmoid": lambda: ref.AffineCoupling(net(even // 2, even), "sigmoid"),
        "additive": lambda: ref.AdditiveCoupling(net(even // 2, even // 2)),
        "split": lambda: ref.Split(ref.ConvPrior.random(even // 2, rng, padding)),
        "top": lambda: ref.TopPrior(rng.standard_normal(even), rng.standard_normal(even)),
        "masked": lambda: ref.MaskedCoupling(ref.checkerboard_mask(h, w), net(even, 2 * even)),
        "step": lambda: ref.Step(actnorm, lu, affine),
        "nice": lambda: ref.NICE.random((h, w, even), 5, rng),
    }[kind]()
    factor = 2 if kind == "squeeze" else 1
    x = sd * rng.standard_normal((n, factor * h, factor * w, even))
    report = ref.check(layer, x)
    assert report, report.message
