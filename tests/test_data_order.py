"""The order of an epoch."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from glowlite.data import epoch_order


def test_a_permutation_fixed_by_seed_and_epoch():
    orders = {(s, e): epoch_order(97, s, e) for s in range(3) for e in range(3)}
    for (s, e), order in orders.items():
        assert np.array_equal(np.sort(order), np.arange(97))
        assert np.array_equal(order, epoch_order(97, s, e))
    assert len({order.tobytes() for order in orders.values()}) == 9


def test_uniform():
    # First places of 4,000 orders of 8: each expected 500 times, sd 21.
    first = [epoch_order(8, 5, e)[0] for e in range(4000)]
    assert np.abs(np.bincount(first) - 500).max() < 5 * 21


@pytest.mark.parametrize(
    "n, seed, epoch, name", [(0, 0, 0, "n"), (3, -1, 0, "seed"), (3, 0, -1, "epoch")]
)
def test_bad_arguments(n, seed, epoch, name):
    with pytest.raises(ValueError, match=f"^{name} must be"):
        epoch_order(n, seed, epoch)


def test_importing_the_data_sets_needs_no_torch():
    code = "import sys, glowlite.data; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
