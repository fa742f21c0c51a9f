"""Numbers that count: nothing is computed on them unseen, and the counts are those of theory."""

from __future__ import annotations

import copy
import operator

import numpy as np
import pytest

from course.counting import Tally, counted

rng = np.random.default_rng(0)


@pytest.mark.parametrize("n, m, k", [(2, 3, 4), (5, 1, 2)])
def test_a_matrix_product_costs_nmk(n, m, k):
    tally = Tally()
    a, b = rng.normal(size=(n, m)), rng.normal(size=(m, k))
    product = counted(a, tally) @ counted(b, tally)
    assert tally["*"] == n * m * k
    assert tally["+"] <= n * m * k  # NumPy may begin its sums with 0 +
    np.testing.assert_allclose(product.astype(float), a @ b, rtol=1e-14)


@pytest.mark.parametrize(
    "operation",
    [
        lambda x, y: x + y,
        lambda x, y: x - y,
        lambda x, y: x * y,
        lambda x, y: x / y,
        lambda x, y: 2 - x,
        lambda x, y: 2 / x,
        lambda x, y: x**2,
        lambda x, y: np.log(np.abs(x)),
        lambda x, y: np.exp(x),
        lambda x, y: np.sqrt(np.abs(x)),
        lambda x, y: x[0] * y,
        lambda x, y: y * x[0],
        lambda x, y: np.where(x > y, x, y) + 0,
    ],
)
def test_values_are_right_and_each_operation_is_booked(operation):
    x, y = rng.normal(size=7), rng.normal(size=7)
    tally = Tally()
    got = operation(counted(x, tally), counted(y, tally))
    assert tally.total == 7
    np.testing.assert_allclose(got.astype(float), operation(x, y), rtol=1e-14)


def test_reading_is_booked_and_linalg_refuses():
    tally = Tally()
    a = counted(rng.normal(size=(4, 4)), tally)
    a.astype(float)
    assert tally == {"read": 16}
    with pytest.raises(TypeError):
        np.linalg.slogdet(a)
    with pytest.raises(TypeError):
        np.linalg.solve(a, a[0])


def test_a_copy_books_in_the_same_tally():
    s = counted([1.0, 2.0])
    copy.deepcopy(s).sum()
    assert s[0].tally.total == 1


def test_free_of_charge():
    s = counted([1.0, -2.0])
    -s, np.abs(s), np.fabs(s), s[0].item(), s[0] < s[1], s[0] == 1, np.sort(s)  # noqa: B018
    assert s[0].tally.total == 0


@pytest.mark.parametrize(
    "compare", [operator.lt, operator.le, operator.gt, operator.ge, operator.eq]
)
def test_comparisons_are_those_of_the_values(compare):
    for a, b in ((1.0, 2.0), (2.0, 1.0), (2.0, 2.0)):
        x, y = counted([a, b])
        assert compare(x, y) is compare(x, b) is compare(a, y) is compare(a, b)


@pytest.mark.parametrize("value", [-1.0, 0.0])
def test_the_log_of_what_is_not_positive_is_not_a_number(value):
    assert np.isnan(float(counted([value])[0].log()))
