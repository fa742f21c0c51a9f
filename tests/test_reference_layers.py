"""The reference's layers against hand-made numbers and independent implementations.

That every log-determinant agrees with finite differences is tested in test_mutants.py.
"""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
from scipy.signal import correlate2d
from scipy.stats import norm

import reference as ref


@pytest.fixture
def rng():
    return np.random.default_rng(7)


# --- squeeze -------------------------------------------------------------------------------


@pytest.mark.parametrize("order", ["glow", "realnvp"])
def test_squeeze_puts_every_number_where_the_docstring_says(rng, order):
    x = rng.standard_normal((2, 4, 6, 3))
    y, logdet = ref.Squeeze(order).forward(x)
    assert y.shape == (2, 2, 3, 12) and np.array_equal(logdet, [0, 0])
    board = [(0, 0), (1, 1), (0, 1), (1, 0)]
    for c in range(3):
        for dy in range(2):
            for dx in range(2):
                k = c * 4 + dy * 2 + dx if order == "glow" else board.index((dy, dx)) * 3 + c
                assert np.array_equal(y[..., k], x[:, dy::2, dx::2, c])
    assert np.array_equal(ref.Squeeze(order).inverse(y), x)


def test_halving_realnvps_channels_halves_the_checkerboard():
    board = np.broadcast_to(ref.checkerboard_mask(4, 6), (1, 4, 6, 3))
    y, _ = ref.Squeeze("realnvp").forward(board)
    assert np.array_equal(y[0, 0, 0], [1] * 6 + [0] * 6)
    y, _ = ref.Squeeze("glow").forward(board)
    assert np.array_equal(y[0, 0, 0], [1, 0, 0, 1] * 3)


# --- actnorm -------------------------------------------------------------------------------


def test_actnorm_by_hand():
    x = np.array([[[[1.0, 2.0]], [[3.0, 4.0]], [[5.0, 6.0]]]])  # h = 3, w = 1, c = 2
    y, logdet = ref.ActNorm(np.array([2.0, -0.5]), np.array([1.0, 10.0])).forward(x)
    assert np.array_equal(y[0, :, 0], [[3, 9], [7, 8], [11, 7]])
    assert logdet == pytest.approx([3 * (np.log(2) + np.log(0.5))], abs=1e-15)


def test_actnorm_starts_with_zero_mean_and_unit_variance(rng):
    x = 5 + rng.standard_normal((4, 3, 5, 3)) * [0.1, 1, 30]
    y, _ = ref.ActNorm.from_data(x).forward(x)
    np.testing.assert_allclose(y.mean(axis=(0, 1, 2)), 0, atol=1e-12)
    np.testing.assert_allclose(y.var(axis=(0, 1, 2)), 1, atol=1e-12)


def test_actnorm_names_the_constant_channel(rng):
    x = rng.standard_normal((2, 3, 5, 3))
    x[..., 1] = 0.1  # whose standard deviation is not exactly 0 in floating point
    with pytest.raises(ValueError, match=r"zero variance in channels \[1\]"):
        ref.ActNorm.from_data(x)


# --- 1×1 convolution -----------------------------------------------------------------------


def test_conv1x1_applies_w_and_not_its_transpose(rng):
    W, x = rng.standard_normal((3, 3)), rng.standard_normal((2, 2, 5, 3))
    y, _ = ref.Conv1x1(W).forward(x)
    np.testing.assert_allclose(y[1, 0, 4], W @ x[1, 0, 4], rtol=1e-14)


@pytest.mark.parametrize("c", [1, 2, 5, 12])
def test_lu_is_the_same_layer_as_plain(rng, c):
    W, x = rng.standard_normal((c, c)), rng.standard_normal((2, 3, 5, c))
    plain, lu = ref.Conv1x1(W), ref.Conv1x1LU.from_matrix(W)
    np.testing.assert_allclose(lu.W, W, atol=1e-14)
    for a, b in zip(plain.forward(x), lu.forward(x), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(plain.inverse(x), lu.inverse(x), rtol=1e-8, atol=1e-10)


def test_no_inverse_matrix_is_ever_made(rng, monkeypatch):
    def refuse(*_):
        raise AssertionError("an inverse matrix was computed")

    monkeypatch.setattr(np.linalg, "inv", refuse)
    monkeypatch.setattr("scipy.linalg.inv", refuse)
    layer, x = ref.Conv1x1LU.random(6, rng), rng.standard_normal((1, 2, 3, 6))
    np.testing.assert_allclose(layer.inverse(layer.forward(x)[0]), x, atol=1e-14)


def test_lu_keeps_its_permutation_to_itself(rng):
    p, (l, u, s) = np.array([1.0, 0.0]), LU  # noqa: E741
    layer, x = ref.Conv1x1LU(p, l, u, s), rng.standard_normal((1, 2, 3, 2))
    p[:] = 0
    np.testing.assert_array_equal(layer.forward(x)[0], x[..., ::-1])
    np.testing.assert_array_equal(layer.inverse(x), x[..., ::-1])


def test_random_rotations_are_orthogonal_and_half_are_reflections(rng):
    dets = [np.linalg.det(ref.random_rotation(4, rng)) for _ in range(200)]
    np.testing.assert_allclose(np.abs(dets), 1, atol=1e-12)
    assert 60 < np.count_nonzero(np.array(dets) < 0) < 140


def test_a_permutation_is_a_1x1_convolution(rng):
    permutation, x = ref.Permutation.shuffle(5, rng), rng.standard_normal((2, 2, 3, 5))
    y, logdet = ref.Conv1x1(np.eye(5)[permutation.indices]).forward(x)
    assert np.array_equal(permutation.forward(x)[0], y) and np.array_equal(logdet, [0, 0])


# --- coupling and its network --------------------------------------------------------------


def test_coupling_by_hand():
    x = np.arange(1.0, 5.0).reshape(1, 1, 1, 4)  # x_a = (1, 2), x_b = (3, 4)

    def net(b):
        return np.concatenate([0.5 * b, 10 * b], axis=-1)  # log s = (1.5, 2), t = (30, 40)

    y, logdet = ref.AffineCoupling(net).forward(x)
    assert y.ravel() == pytest.approx([np.exp(1.5) + 30, 2 * np.exp(2) + 40, 3, 4])
    assert logdet == pytest.approx([3.5])
    y, logdet = ref.AffineCoupling(net, scale="sigmoid").forward(x)
    s = 1 / (1 + np.exp(-np.array([3.5, 4.0])))
    assert y.ravel() == pytest.approx([s[0] * 31, s[1] * 42, 3, 4])  # the shift comes first
    assert logdet == pytest.approx([np.log(s).sum()])
    y, logdet = ref.AdditiveCoupling(lambda b: 10 * b).forward(x)
    assert np.array_equal(y.ravel(), [31, 42, 3, 4]) and np.array_equal(logdet, [0])


def test_zero_last_layer_makes_the_coupling_the_identity(rng):
    net = ref.CouplingNet.random(2, 8, 4, rng, zero_last=True)
    x = rng.standard_normal((2, 3, 5, 4))
    y, logdet = ref.AffineCoupling(net).forward(x)
    assert np.array_equal(y, x) and np.array_equal(logdet, [0, 0])


def test_conv2d_against_scipy(rng):
    x, k = rng.standard_normal((2, 5, 7, 2)), rng.standard_normal((3, 3, 2, 4))
    for n in range(2):
        for o in range(4):
            want = sum(correlate2d(x[n, ..., i], k[..., i, o], mode="same") for i in range(2))
            np.testing.assert_allclose(ref.conv2d(x, k)[n, ..., o], want, atol=1e-13)


def test_edge_padding_marks_the_border_only(rng):
    x = np.zeros((1, 4, 5, 2))
    kernel = np.zeros((3, 3, 3, 1))
    kernel[:, :, 2] = 1.0  # counts, at each pixel, the neighbours that lie outside
    outside = ref.conv2d(x, kernel, padding="edge")[0, ..., 0]
    assert np.array_equal(outside[:2], [[5, 3, 3, 3, 5], [3, 0, 0, 0, 3]])


# --- split and priors ----------------------------------------------------------------------


def test_whitening_is_the_gaussian_prior(rng):
    split, x = ref.Split(ref.ConvPrior.random(3, rng)), rng.standard_normal((2, 2, 5, 6))
    y, logdet = split.forward(x)
    out = split.prior(x[..., :3])
    direct = norm.logpdf(x[..., 3:], out[..., :3], np.exp(out[..., 3:])).sum(axis=(1, 2, 3))
    np.testing.assert_allclose(ref.gaussian_log_prob(y[..., 3:]) + logdet, direct, rtol=1e-12)


# --- whole models --------------------------------------------------------------------------


def test_latent_shapes_at_256_with_six_levels(rng):
    model = ref.Glow.random((256, 256, 3), levels=6, depth=0, width=1, rng=rng)
    sides = [128, 64, 32, 16, 8, 4]
    channels = [6, 12, 24, 48, 96, 384]
    assert model.latent_shapes == [(s, s, c) for s, c in zip(sides, channels, strict=True)]


def test_temperature_reaches_every_level(rng):
    model = ref.Glow.random((8, 4, 3), levels=2, depth=1, width=4, rng=rng)
    zeros = [np.zeros((1, *shape)) for shape in model.latent_shapes]
    cold = model.sample(3, rng, temperature=0.0)
    np.testing.assert_allclose(cold, np.repeat(model.decode(zeros), 3, axis=0), atol=1e-13)
    hot = model.sample(3, np.random.default_rng(1), temperature=2.0)
    z = 2 * np.random.default_rng(1).standard_normal((3, 96))
    np.testing.assert_allclose(model.forward(hot)[0], z, atol=1e-6)


def test_the_sum_of_the_parts_is_the_whole(rng):
    """The model's log-det is the sum of those of its steps, splits and prior, no more, no less."""
    model = ref.Glow.random((8, 4, 3), levels=2, depth=2, width=4, rng=rng)
    x = rng.standard_normal((2, 8, 4, 3))
    h, total = x, 0.0
    for i, level in enumerate(model.levels):
        steps = level.forward_steps(h)
        h, total = steps[-1][1], total + sum(logdet for _, _, logdet in steps)
        if i == 0:
            y, logdet = model.splits[0].forward(h)
            h, total = y[..., :6], total + logdet
    total = total + model.top.forward(h)[1]
    z, logdet = model.forward(x)
    np.testing.assert_allclose(logdet, total, rtol=1e-13)
    np.testing.assert_allclose(model.log_prob(x), norm.logpdf(z).sum(axis=1) + total, rtol=1e-12)


def test_glow_is_that_of_the_paper(rng):
    """L levels of squeeze and K steps; a step is actnorm, permutation, coupling."""
    model = ref.Glow.random((8, 16, 3), levels=3, depth=2, width=4, rng=rng, permutation="reverse")
    for level in model.levels:
        squeeze, *steps = level.layers
        assert squeeze.order == "glow" and len(steps) == 2
        for step in steps:
            kinds = [type(layer) for layer in step.layers]
            assert kinds == [ref.ActNorm, ref.Permutation, ref.AffineCoupling]
            c = len(step.layers[0].s)
            assert step.layers[1].indices.tolist() == [*range(c - 1, -1, -1)]


def test_realnvp_is_that_of_the_paper(rng):
    """Three couplings by board, squeeze, three by channel; at the last level four by board."""
    model = ref.RealNVP.random((4, 6, 2), 2, 3, rng, logit=True)
    first, last = (list(level.layers) for level in model.levels)
    assert isinstance(first.pop(0), ref.Logit)
    assert first.pop(3).order == "realnvp"

    def board(h, w):
        return (np.add.outer(np.arange(h), np.arange(w)) % 2 == 0)[..., None]

    black, kept = board(4, 6), np.arange(8)[None, None] < 4
    masks = [black, ~black, black, kept, ~kept, kept]
    assert all(np.array_equal(a.mask, b) for a, b in zip(first, masks, strict=True))
    black = board(2, 3)
    masks = [black, ~black, black, ~black]
    assert all(np.array_equal(a.mask, b) for a, b in zip(last, masks, strict=True))


def test_logit_by_hand():
    x = np.array([[[[-0.5, 0.0, 0.5]]]])
    y, logdet = ref.Logit().forward(x)  # p = 0.05, ½, 0.95, and dp/dx = 0.9
    assert y.ravel() == pytest.approx([-np.log(19), 0, np.log(19)])
    assert logdet == pytest.approx([3 * np.log(0.9) - 2 * np.log(0.05 * 0.95) - np.log(0.25)])


def test_nice_leaves_no_number_alone(rng):
    """Even components first, then odd; after two couplings nothing is a mere copy of an input."""
    model, x = ref.NICE.random((2, 3, 2), 5, rng, couplings=2), rng.standard_normal((1, 2, 3, 2))
    ordered, _ = ref.Flow(model.layers[:2]).forward(x)
    assert np.array_equal(ordered.ravel(), np.concatenate([x.ravel()[0::2], x.ravel()[1::2]]))
    J = ref.jacobian(ref.Flow(model.layers[:-1]).forward, x).value
    assert ((np.abs(J) > 1e-9).sum(axis=1) > 1).all()
    z, logdet = model.forward(x)
    direct = norm.logpdf(z).sum(axis=(1, 2, 3)) + logdet
    np.testing.assert_allclose(model.log_prob(x), direct, rtol=1e-12)


@pytest.mark.parametrize("n_bits", [1, 5, 8])
def test_bits_per_dim_of_a_uniform_density_is_n_bits(rng, n_bits):
    images = rng.integers(0, 256, (3, 2, 5, 3), dtype=np.uint8)
    x = ref.dequantize(images, n_bits, rng)
    assert -0.5 <= x.min() and x.max() < 0.5  # the density 1 on [−½, ½) covers all of it
    assert np.array_equal(ref.bits_per_dim(np.zeros(3), 30, n_bits), [n_bits] * 3)
    assert np.array_equal(ref.to_images(x, n_bits), images >> (8 - n_bits) << (8 - n_bits))


def test_dequantisation_noise_fills_the_cell_without_gap(rng):
    images = np.full((1, 100, 100, 1), 200, dtype=np.uint8)
    for n_bits in (5, 8):
        cell = (ref.dequantize(images, n_bits, rng) + 0.5) * 2**n_bits - (200 >> (8 - n_bits))
        assert 0 <= cell.min() < 0.01 and 0.99 < cell.max() < 1


@pytest.mark.parametrize("n_bits", [1, 5, 8])
def test_what_is_outside_the_range_is_shown_as_black_or_white(n_bits):
    x = np.array([-9.0, -0.6, -0.5, 0.4999, 0.5, 9.0, np.inf])
    white = 256 - 2 ** (8 - n_bits)
    assert ref.to_images(x, n_bits).tolist() == [0, 0, 0, white, white, white, white]


# --- bad input -----------------------------------------------------------------------------

RNG = np.random.default_rng(0)
X = RNG.standard_normal((2, 4, 6, 4))
NET = ref.CouplingNet.random(2, 4, 4, np.random.default_rng(0))
LU = np.eye(2), np.eye(2), np.ones(2)
GLOW = ref.Glow.random((4, 6, 1), 1, 1, 2, np.random.default_rng(0))
random_glow = partial(ref.Glow.random, (4, 6, 1), 1, 1, 2, RNG)
PICTURES = np.zeros((2, 4, 6, 1), dtype=np.uint8)


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: ref.Squeeze().forward(X[0]), ValueError, r"x has shape \(4, 6, 4\).*batch of one"),
        (lambda: ref.Squeeze().forward(X[:, :3]), ValueError, "3×6 pixels.*even"),
        (lambda: ref.Squeeze().inverse(X[..., :3]), ValueError, "3 channels.*multiple of four"),
        (lambda: ref.Squeeze("tf"), ValueError, "order is 'tf'; accepted"),
        (lambda: ref.Squeeze().forward(X.astype(np.float16)), TypeError, "x has dtype float16"),
        (lambda: ref.Squeeze().forward(X.astype(int)), TypeError, "x has dtype int64"),
        (lambda: ref.Squeeze().forward(X[:0]), ValueError, r"\(0, 4, 6, 4\); accepted: \(≥1"),
        (lambda: ref.Squeeze().forward(X * np.nan), ValueError, "192 NaN or infinite"),
        (lambda: ref.ActNorm(np.zeros(3), np.zeros(3)), ValueError, r"channels \[0, 1, 2\]"),
        (lambda: ref.ActNorm(np.ones(3), np.ones(2)), ValueError, r"b has shape \(2,\).*\(3\)"),
        (lambda: ref.ActNorm(np.ones(3), np.ones(3)).forward(X), ValueError, "x has shape"),
        (lambda: ref.Conv1x1(np.ones((3, 3))), ValueError, "W is singular"),
        (lambda: ref.Conv1x1(np.diag([1.0, 1e-17])), ValueError, "W is singular.*1.0e.17"),
        (lambda: ref.Conv1x1(np.ones((3, 2))), ValueError, "square"),
        (lambda: ref.Conv1x1LU.from_matrix(np.ones((3, 3))), ValueError, "singular"),
        (lambda: ref.Conv1x1(np.eye(3, dtype=np.float32)), TypeError, "W has dtype float32"),
        (lambda: ref.Permutation([0, 0, 1]), ValueError, "exactly once"),
        (lambda: ref.AffineCoupling(NET).forward(X[..., :3]), ValueError, "3 channels.*even"),
        (lambda: ref.AffineCoupling(NET, "tanh"), ValueError, "scale is 'tanh'"),
        (lambda: ref.AffineCoupling(None), TypeError, "net is a NoneType"),
        (lambda: ref.AdditiveCoupling(3), TypeError, "net is a int"),
        (lambda: ref.MaskedCoupling(np.ones(1), None), TypeError, "net is a NoneType"),
        (lambda: ref.Split(3), TypeError, "prior is a int"),
        # Two channels for four would be broadcast: ε right, the log-det by a factor too small.
        (lambda: ref.Split(lambda h: h).forward(X), ValueError, "prior gave shape.*, 4\\)"),
        (lambda: ref.Split(lambda h: h).inverse(X), ValueError, "prior gave shape"),
        (lambda: ref.MaskedCoupling(np.ones(1), NET).forward(X), ValueError, "kernel takes"),
        (lambda: ref.MaskedCoupling(np.ones(1), lambda x: x).forward(X), ValueError, "net gave"),
        (lambda: ref.Conv1x1LU([0, 2], *LU), ValueError, r"p is \[0, 2\]; accepted: each of 0 … 1"),
        (lambda: ref.Conv1x1LU([0, 1, 2], *LU), ValueError, "each of 0 … 1 exactly once"),
        (lambda: ref.Conv1x1LU([0, 1], *LU).forward(X), ValueError, "x has shape"),
        (lambda: ref.Conv1x1LU([0, 1], *LU).inverse(X), ValueError, "y has shape"),
        (lambda: ref.Conv1x1LU([0, 1], *LU[:2], np.array([2.0, 0])), ValueError, "a zero in s"),
        (lambda: ref.Permutation([]), ValueError, r"indices is \[\]"),
        (lambda: ref.to_images(np.array([0.1, np.nan]), 8), ValueError, "1 NaN"),
        (lambda: ref.to_images(X, 9), ValueError, "n_bits is 9"),
        (lambda: ref.quantize(PICTURES, 9), ValueError, "n_bits is 9"),
        (lambda: GLOW.bits_per_dim(PICTURES, 8, None), TypeError, "rng is None"),
        (lambda: ref.AdditiveCoupling(NET).forward(X), ValueError, "net gave shape"),
        (lambda: ref.MaskedCoupling(np.array([0.5]), NET), ValueError, "mask has values"),
        (lambda: ref.Logit().forward(X), ValueError, "accepted: −½ to ½"),
        (lambda: ref.Logit().forward(np.full((1, 1, 1, 1), 0.51)), ValueError, "x reaches 0.51"),
        (lambda: ref.Logit(0.0), ValueError, "alpha is 0.0"),
        (lambda: ref.Logit(0.5), ValueError, "alpha is 0.5"),
        (lambda: ref.RealNVP.random((6, 8, 1), 3, 2, RNG), ValueError, "6×8 pixels"),
        (lambda: ref.Glow.random((4, 6, 1), 2, 1, 2, RNG), ValueError, "4×6 pixels.*of 4"),
        (lambda: GLOW.forward(X), ValueError, "this model takes"),
        (lambda: random_glow(permutation="qr"), ValueError, "permutation is 'qr'; accepted: lu, "),
        (lambda: random_glow(coupling="cubic"), ValueError, "coupling is 'cubic'"),
        (lambda: random_glow(scale="tanh"), ValueError, "scale is 'tanh'"),
        (lambda: random_glow(padding="mirror"), ValueError, "padding is 'mirror'"),
        (lambda: ref.conv2d(X, np.ones((1, 1, 4, 1)), "mirror"), ValueError, "is 'mirror'"),
        (lambda: ref.checkerboard_mask(2, 2, 2), ValueError, "parity is 2"),
        (lambda: ref.channel_mask(4, 2), ValueError, "parity is 2"),
        (lambda: ref.channel_mask(3), ValueError, "c is 3"),
        (lambda: GLOW.sample(1, RNG, temperature=-0.1), ValueError, "temperature -0.1"),
        (lambda: ref.conv2d(X, np.ones((3, 2, 4, 1))), ValueError, "kernel is 3×2"),
        (lambda: ref.ActNorm(np.ones(2), np.ones(2)).s.fill(0), ValueError, "read-only"),
        (lambda: ref.Permutation([1, 0]).indices.fill(0), ValueError, "read-only"),
        (lambda: ref.ActNorm(np.ones(2) + 0j, np.ones(2)), TypeError, "s has dtype complex128"),
        (lambda: ref.Flow([ref.Squeeze(), "x"]), TypeError, r"layers\[1\] is a str"),
        (lambda: ref.quantize(X, 8), TypeError, "accepted: uint8"),
        (lambda: ref.bits_per_dim(np.zeros(1), 3, 9), ValueError, "n_bits is 9"),
        (lambda: ref.bits_per_dim(np.zeros(1), 3, 0), ValueError, "n_bits is 0"),
        (lambda: ref.bits_per_dim(np.zeros(1), 0, 8), ValueError, "dims is 0"),
    ],
)
def test_bad_input_is_named(call, error, words):
    with pytest.raises(error, match=words):
        call()


def test_layers_leave_their_input_alone():
    x = X.copy()
    for layer in (ref.Squeeze(), ref.ActNorm.from_data(X), ref.AffineCoupling(NET), ref.Split()):
        layer.inverse(layer.forward(x)[0])
    assert np.array_equal(x, X)


@pytest.mark.parametrize("bad", [None, "z", [[1.0]]])
def test_glow_names_a_latent_that_is_no_array(bad):
    glow = ref.Glow.random((4, 6, 2), 1, 1, 4, np.random.default_rng(0))
    with pytest.raises(TypeError, match="z must be an array"):
        glow.inverse(bad)
