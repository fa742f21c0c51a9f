"""`glowlite info`: the multiply-adds it prints are those of a pen-and-paper count."""

from __future__ import annotations

import pytest

from glowlite import Glow
from glowlite.info import draw, macs


def by_hand(c, h, w, levels, depth, width, permutation):
    """A pixel of a step: c² for a 1×1 convolution, (9·c/2 + width + 9·c)·width for the net; of a
    split: 3×3 from half of the channels to a mean and a scale for each of the others."""
    total = 0
    for level in range(levels):
        c, h, w = 4 * c, h // 2, w // 2
        mix = c**2 if permutation == "plain" else 0
        total += depth * h * w * (mix + (9 * (c // 2) + width + 9 * c) * width)
        if level < levels - 1:
            c //= 2
            total += h * w * 9 * c * 2 * c
    return total


@pytest.mark.parametrize("permutation", ["plain", "shuffle"])
@pytest.mark.parametrize("size", [(3, 8, 16, 2, 3, 5), (1, 24, 8, 3, 1, 7), (5, 2, 4, 1, 2, 3)])
def test_multiply_adds_are_those_of_theory(size, permutation):
    c, h, w, levels, depth, width = size
    options = {"levels": levels, "depth": depth, "width": width, "permutation": permutation}
    model = Glow(shape=(c, h, w), padding="zero", **options)
    count = by_hand(*size, permutation)
    assert macs(model) == count
    assert f"{count / 1e6:,.4g} million multiply-adds" in draw(model)


def test_what_is_done_once_a_batch_is_not_counted_nor_how_it_is_computed():
    """Edge padding's maps, and the wider rows that `fused` makes of them."""
    size, options = (3, 8, 16, 2, 3, 5), {"levels": 2, "depth": 3, "width": 5}
    model = Glow(shape=(3, 8, 16), permutation="shuffle", **options)
    assert macs(model) == by_hand(*size, "shuffle")
    assert model.fast


def test_the_papers_model_has_its_published_count():
    assert f"{by_hand(3, 32, 32, 3, 32, 512, 'plain') / 1e9:.2f}" == "4.01"
