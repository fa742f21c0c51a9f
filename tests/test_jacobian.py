"""The numeric Jacobian is right, knows how right it is, and agrees with three witnesses."""

import numpy as np
import pytest
import torch
from mutants import RIGHT

import reference as ref
from reference import jacobian, witnesses


def honest(J: ref.Jacobian, truth: np.ndarray) -> None:
    """No entry errs by more than it admits."""
    assert np.all(np.abs(J.value - truth) <= J.error)


def linear(seed: int, dims: int = 12, scale: float = 1.0):
    w = scale * np.random.default_rng(seed).standard_normal((dims, dims))
    return w, lambda x: x @ w.T


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
@pytest.mark.parametrize("size", [1e-6, 1.0, 1e6])
def test_linear_maps_at_every_scale(scale, size):
    w, f = linear(0, scale=scale)
    J = jacobian(f, size * np.random.default_rng(1).standard_normal(12))
    honest(J, w)
    assert J.error.max() < 1e-9 * scale
    sign, logabsdet = np.linalg.slogdet(w)
    assert J.sign == sign
    assert abs(J.logabsdet - logabsdet) <= J.logabsdet_error < 1e-7


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_a_smooth_map_whose_rows_differ_in_scale(seed, scale):
    w, f = linear(seed)
    row = scale ** np.linspace(-1, 1, 12)
    x = np.random.default_rng(seed).standard_normal(12)
    J = jacobian(lambda x: row * np.exp(np.sin(f(x))), x)
    honest(J, (row * np.exp(np.sin(w @ x)) * np.cos(w @ x))[:, None] * w)
    assert np.all(J.error < 1e-8 * np.abs(J.value).max(axis=1, keepdims=True))


@pytest.mark.parametrize("x", [1e-6, 1e-3, 1.0, 1e6])
def test_log_near_the_edge_of_its_domain(x):
    J = jacobian(np.log, np.array([x]))
    honest(J, np.array([[1 / x]]))
    assert J.error[0, 0] * x < 1e-8


@pytest.mark.parametrize("distance", [0, 1e-12, 1e-9, 1e-8, 1e-7, 1e-5, 1e-3, 0.1])
@pytest.mark.parametrize("side", [-1, 1])
def test_a_corner_nearby_is_seen_or_admitted(distance, side):
    at = 0.3
    J = jacobian(lambda x: x + np.maximum(x - at, 0), np.array([at + side * distance]))
    slope = 2.0 if side > 0 or distance == 0 else 1.0  # at the corner itself either is a slope
    honest(J, np.array([[slope]]))
    if distance >= 1e-5:
        assert J.error[0, 0] < 1e-8
        assert J.kink < 1e-9
    if distance < 1e-9:
        assert J.kink > 0.4


@pytest.mark.parametrize("seed", range(10))
def test_relu_networks(seed):
    rng = np.random.default_rng(seed)
    v, u = rng.standard_normal((200, 20)), rng.standard_normal((20, 200)) / 10
    b, x = rng.standard_normal(200), rng.standard_normal((1, 20))
    J = jacobian(lambda x: x + np.maximum(x @ v.T + b, 0) @ u.T, x)
    truth = np.eye(20) + (u * ((x @ v.T + b) > 0)) @ v
    honest(J, truth)
    assert abs(J.logabsdet - np.linalg.slogdet(truth)[1]) <= J.logabsdet_error < 1e-6


def test_a_float32_function_admits_its_noise():
    J = jacobian(lambda x: (x.astype("f4") * np.float32(1.3)).astype(float), np.array([0.3, 1.7]))
    honest(J, 1.3 * np.eye(2))
    assert J.logabsdet_error > 1e-8


def test_bounds_of_the_log_det_hold_for_badly_conditioned_maps():
    rng = np.random.default_rng(5)
    for power in range(0, 11, 2):
        q, r = (np.linalg.qr(rng.standard_normal((8, 8)))[0] for _ in range(2))
        d = np.logspace(0, -power, 8)
        J = jacobian(lambda x, w=q * d @ r: x @ w.T, rng.standard_normal(8))
        assert abs(J.logabsdet - np.log(d).sum()) <= J.logabsdet_error


def test_the_bound_of_the_log_det_counts_errors_off_the_diagonal():
    """tr(J⁻¹E) is 0 for these, and the log-det moves all the same, by log(1 − e²)."""
    for e in (0.3, 1e-3, 1e-7):
        error = np.array([[0.0, e], [e, 0.0]])
        J = ref.Jacobian(np.eye(2), error, np.ones(2), np.zeros(2), 0.0)
        for sign in (1, -1):
            moved = np.linalg.slogdet(np.eye(2) + error * [[1], [sign]])[1]
            assert abs(moved) <= J.logabsdet_error < 3 * e**2 + 1e-14
    corner = jacobian(lambda x: x + 0.3 * np.abs(x[..., ::-1]), np.zeros(2))
    assert corner.logabsdet_error > -np.log(1 - 0.3**2)  # it is no measurement there


@pytest.mark.parametrize("seed", range(20))
def test_the_bound_of_the_log_det_holds_for_any_error_within_its_entries(seed):
    rng = np.random.default_rng(seed)
    d, size = rng.integers(2, 9), 10.0 ** rng.uniform(-6, -1)
    value = np.linalg.qr(rng.standard_normal((d, d)))[0] * np.exp(rng.standard_normal(d) / 3)
    error = size * rng.random((d, d)) * (rng.random((d, d)) < 0.6)
    J = ref.Jacobian(value, error, np.ones(d), np.zeros(d), 0.0)
    for _ in range(50):
        e = error * rng.choice([-1, 1], (d, d))
        assert abs(np.linalg.slogdet(value + e)[1] - J.logabsdet) <= J.logabsdet_error


def test_a_singular_map_has_no_log_det():
    J = jacobian(lambda x: x @ np.ones((3, 3)), np.ones(3))
    assert J.logabsdet_error == np.inf
    exact = jacobian(lambda x: 0 * x, np.ones(3))
    assert exact.logabsdet == -np.inf and exact.sign == 0


@pytest.mark.parametrize("name", RIGHT)
def test_layers_against_scipy_and_complex_steps(name):
    layer, x = RIGHT[name]()
    x = x[:1, :, :, :] if x[0].size <= 130 else x[:1, :2]
    J = jacobian(layer.forward, x)
    others = witnesses(layer.forward, x)
    if others["complex step"] is not None:
        honest(J, others["complex step"])
    smooth = (
        name not in ("Glow", "RealNVP", "Step", "MaskedCoupling", "NICE") and "Coupling" not in name
    )
    if smooth:  # scipy's steps do not shrink at the corners of a ReLU
        assert np.allclose(J.value, others["scipy"], rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("name", ["ActNorm", "Conv1x1LU", "AffineCoupling, exp", "Step", "Split"])
def test_our_layers_follow_complex_numbers(name):
    layer, x = RIGHT[name]()
    assert witnesses(layer.forward, x[:1, :2, :3])["complex step"] is not None


def test_against_autograd():
    torch.manual_seed(0)
    net = torch.nn.Sequential(
        torch.nn.Linear(7, 9), torch.nn.SiLU(), torch.nn.Linear(9, 7)
    ).double()
    x = torch.randn(7, dtype=torch.float64)
    truth = torch.autograd.functional.jacobian(net, x).numpy()
    with torch.no_grad():
        J = jacobian(lambda a: net(torch.from_numpy(a)).numpy(), x.numpy())
    honest(J, truth)
    assert J.error.max() < 1e-9


def test_examples_may_be_bare_or_a_batch_of_one_and_f_may_insist():
    layer, x = RIGHT["ActNorm"]()
    batch, bare = jacobian(layer.forward, x[:1]), jacobian(layer.forward, x[0])
    assert np.array_equal(batch.value, bare.value)
    w, _ = linear(3, 4)
    honest(jacobian(lambda v: w @ v, np.ones(4)), w)  # not made for stacks
    assert jacobian(np.exp, np.array(0.5)).value.shape == (1, 1)


def test_layers_modules_and_functions_on_tensors_have_a_jacobian_too():
    layer, x = RIGHT["ActNorm"]()
    assert np.array_equal(jacobian(layer, x[:1]).value, jacobian(layer.forward, x[:1]).value)
    module = torch.nn.Linear(3, 3)
    honest(jacobian(module, np.ones((1, 3))), module.weight.detach().double().numpy())
    honest(jacobian(torch.sin, torch.ones(2).double()), np.cos(1.0) * np.eye(2))
    with pytest.raises(TypeError, match="f must be"):
        jacobian(3, np.ones(2))


@pytest.mark.parametrize("tread", [2.0**-8, 2.0**-20, 1e-6])
def test_a_staircase_has_no_sure_slope(tread):
    J = jacobian(lambda x: 0.7 * np.round(x / tread) * tread, np.array([0.3, -1.2, 0.4321]))
    assert J.logabsdet_error > 1e-5


def test_functions_that_mix_the_batch_are_evaluated_one_by_one():
    def centred(x):
        return 3 * x - x.mean(axis=0) / 2

    honest(jacobian(centred, np.ones((1, 3))), 2.5 * np.eye(3))


def test_maps_between_spaces_of_different_size_have_a_jacobian_but_no_determinant():
    J = jacobian(lambda x: x[:2] ** 2, np.array([1.0, 2.0, 3.0]))
    honest(J, np.array([[2.0, 0, 0], [0, 4.0, 0]]))
    with pytest.raises(ValueError, match="square"):
        _ = J.logabsdet


def test_f_may_change_its_argument_without_harm():
    def greedy(x):
        x *= 2
        return x

    point = np.array([1.0, 2.0])
    honest(jacobian(greedy, point), 2 * np.eye(2))
    assert np.array_equal(point, [1.0, 2.0])


@pytest.mark.parametrize(
    ("x", "error", "words"),
    [
        (np.ones(3, int), TypeError, "float64"),
        (np.ones(3, np.float32), TypeError, "float32"),
        (np.ones(0), ValueError, "empty"),
        (np.array([np.nan]), ValueError, "NaN"),
        (np.ones((2, 3, 4, 1)), ValueError, "2 images"),
        (np.ones(5000), ValueError, "4096"),
    ],
)
def test_bad_x(x, error, words):
    with pytest.raises(error, match=words):
        jacobian(np.exp, x)


def test_errors_of_f_come_through():
    def broken(x):
        raise KeyError("inside")

    with pytest.raises(KeyError, match="inside"):
        jacobian(broken, np.ones(3))
    with pytest.raises(TypeError, match="real"):
        jacobian(lambda x: x + 1j, np.ones(3))


def test_the_dense_jacobian_of_a_whole_glow_equals_the_sum_of_its_steps():
    rng = np.random.default_rng(0)
    model = ref.Glow.random((4, 8, 3), 2, 2, 8, rng)
    x = rng.standard_normal((1, 4, 8, 3))
    _, said = model.forward(x)
    J = jacobian(model.forward, x)
    assert abs(said[0] - J.logabsdet) <= 1e-8 * abs(J.logabsdet)
    assert abs(said[0] - J.logabsdet) <= J.logabsdet_error


@pytest.mark.parametrize("base", [1.0, np.pi])
@pytest.mark.parametrize("power", range(2, 16))
def test_a_wave_is_seen_though_every_step_is_a_whole_number_of_its_lengths(base, power):
    w, x = 2.0**power * base, np.random.default_rng(power).standard_normal(4)
    for size in (0.3, 3e-4, 1e-6):
        J = jacobian(lambda x, a=size: x + a * np.sin(w * x) / w, x)
        honest(J, np.diag(1 + size * np.cos(w * x)))
        assert J.logabsdet_error < 1e-7


@pytest.mark.parametrize("seed", range(20))
def test_waves_of_any_length(seed):
    rng = np.random.default_rng(seed)
    for w in 10 ** rng.uniform(0, 4, 20):
        size, x = 10 ** rng.uniform(-4, -0.5), rng.standard_normal(3)
        J = jacobian(lambda x, a=size, w=w: x + a * np.sin(w * x) / w, x)
        honest(J, np.diag(1 + size * np.cos(w * x)))


def test_a_pair_may_be_a_list_and_what_is_no_array_is_named():
    x = np.array([1.0, 2.0])
    honest(jacobian(lambda x: [x**2, 0], x), np.diag(2 * x))
    honest(jacobian(lambda x: [x[0] ** 2, x[1]], x), np.diag([2.0, 1.0]))  # numbers: they are y
    with pytest.raises(TypeError, match="f must return an array"):
        jacobian(lambda x: [x, x[:1], 0], x)
