"""`check` accepts what is right in any clothes, refuses what it cannot prove, and says it well."""

import json
import threading
import warnings
from functools import partial

import numpy as np
import pytest
import torch
from mutants import Wrong

import reference as ref
from reference import check, from_torch
from reference.structure import describe

X = np.random.default_rng(0).standard_normal((2, 5, 7, 3))
S = np.array([0.5, -2.0, 1.5])


def scale(x):
    return S * x, np.full(len(x), 35 * np.log(np.abs(S)).sum())


def test_the_names_others_rely_on():
    report = check(ref.ActNorm(S, np.zeros(3)), X)
    assert isinstance(report, ref.Report)
    assert bool(report) is True and report.mistake is None
    assert "agrees" in report.message and "diagonal" in report.message
    wrong = check(lambda x: (S * x, np.full(len(x), np.log(np.abs(S)).sum())), X)
    assert bool(wrong) is False
    assert wrong.mistake == "h·w missing"
    assert "35" in wrong.message
    assert callable(ref.check) and callable(ref.jacobian)


def test_a_plain_function_with_and_without_its_inverse():
    without = check(scale, X)
    assert without and "inverse not given, not checked" in without.message
    assert without.round_trip is None
    given = check(scale, X, lambda y: y / S)
    assert given and given.round_trip < 1e-14
    assert not check(scale, X, lambda y: y * S)


def test_the_given_inverse_replaces_the_layers_own():
    assert not check(ref.ActNorm(S, np.zeros(3)), X, inverse=lambda y: y)


@pytest.mark.parametrize("gap", [1e-6, 1e-8])
def test_errors_far_below_a_millionth_are_noticed(gap):
    report = check(lambda x: (S * x, scale(x)[1] + gap), X)
    assert not report
    assert report.smallest < gap
    assert np.allclose(report.difference, gap, rtol=1e-3)


def test_the_stated_smallest_error_is_true():
    right = check(scale, X)
    for factor in (1.01, -1.01):
        assert not check(lambda x, e=factor * right.smallest: (S * x, scale(x)[1] + e), X)


def test_vectors_and_scalars():
    w = np.array([[2.0, 1.0], [0.0, -3.0]])
    x = np.array([[0.3, -0.4], [1.0, 2.0]])
    report = check(
        lambda v: (v @ w.T, np.full(len(v), np.log(6.0))), x, lambda y: y @ np.linalg.inv(w).T
    )
    assert report and report.structure == "upper triangular"
    lower, dense = np.array([[2.0, 0.0], [1.0, -3.0]]), np.array([[1.0, 2.0], [3.0, 4.0]])
    assert (
        check(lambda v: (v @ lower.T, np.full(2, np.log(6.0))), x).structure == "lower triangular"
    )
    assert check(lambda v: (v @ dense.T, np.full(2, np.log(2.0))), x).structure == "dense"
    points = np.array([0.2, 0.9, -1.3])
    assert check(lambda v: (np.sinh(v), np.log(np.cosh(v))), points, np.arcsinh)  # N scalars
    bare = check(lambda v: (w @ v, np.log(6.0)), x[0], lambda y: np.linalg.solve(w, y))
    assert bare, bare.message  # one vector
    assert check(lambda v: (w @ v, np.log(7.0)), x[0]).mistake is None


def test_domains_are_respected():
    x = np.random.default_rng(1).uniform(0.1, 0.9, (1, 4))
    logit = lambda u: (np.log(u / (1 - u)), -np.log(u * (1 - u)).sum(1))  # noqa: E731
    report = check(logit, x, lambda y: 1 / (1 + np.exp(-y)))
    assert report, report.message


def test_one_example_at_a_time_is_fine_and_said():
    def single(x):
        if len(x) != 1:
            raise ValueError("one at a time")
        return scale(x)

    report = check(single, X[:1])
    assert report and any("one" in n or "at a time" in n for n in report.notes)
    assert all(f"note: {note}" in str(report) for note in report.notes)


def test_mixing_is_found_though_x_has_one_example():
    centred = lambda x: (x - x.mean(0) / 2, np.full(len(x), 0.0))  # noqa: E731
    assert check(centred, X[:1]).mistake == "mixes examples"


def test_channels_first():
    x = np.moveaxis(X, -1, 1)
    s = S[:, None, None]
    right = 35 * np.log(np.abs(S)).sum()
    assert check(lambda v: (s * v, np.full(len(v), right)), x)
    assert check(lambda v: (s * v, np.full(len(v), right / 35)), x).mistake == "h·w missing"


def test_structures():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((2, 3, 4, 2))

    def seen(layer):
        return check(layer, x).structure

    assert seen(ref.Split()) == "identity"
    assert describe(ref.jacobian(lambda v: v[:2], np.ones(3)), (3,)) == "not square (2 × 3)"
    assert seen(ref.Permutation.reverse(2)) == "permutation"
    assert seen(ref.ActNorm(np.array([2.0, 3.0]), np.zeros(2))) == "diagonal"
    blocks = "block diagonal: 2×2 blocks, "
    assert seen(ref.Conv1x1(np.array([[1.0, 2], [3, 4]]))) == blocks + "the same at every pixel"
    inside = ref.AffineCoupling(lambda h: np.concatenate([h, h], -1))
    assert seen(inside) == blocks + "one per pixel"
    net = ref.CouplingNet.random(1, 4, 2, rng)
    assert seen(ref.AffineCoupling(net)) == "upper triangular, channel by channel"
    mask = ref.MaskedCoupling(ref.checkerboard_mask(3, 4), ref.CouplingNet.random(2, 4, 4, rng))
    assert seen(mask) == "triangular after reordering"
    w = rng.standard_normal((24, 24))
    log = np.linalg.slogdet(w)[1]
    dense = lambda v: ((v.reshape(-1, 24) @ w.T).reshape(v.shape), np.full(len(v), log))  # noqa: E731
    assert seen(dense) == "dense"


@pytest.mark.parametrize(
    ("forward", "mistake"),
    [
        (lambda x: None, "not done"),
        (lambda x: ..., "not done"),
        (lambda x: x, "no log-det"),
        (lambda x: (x,), "not a pair"),
        (lambda x: {"y": x}, "not a pair"),
        (lambda x: (x.tolist(), np.zeros(len(x))), "not an array"),
        (lambda x: ("y", np.zeros(len(x))), "not an array"),
        (lambda x: (x + 0j, np.zeros(len(x))), "absolute value missing"),
        (lambda x: (x * np.nan, np.zeros(len(x))), "not finite"),
        (lambda x: (x[:, :2], np.zeros(len(x))), "wrong shape"),
        (lambda x: (x.sum(), np.zeros(len(x))), "wrong shape"),
        (lambda x: (torch.from_numpy(x), np.zeros(len(x))), "torch tensor"),
        (lambda x: (x, torch.zeros(len(x))), "torch tensor"),
        (lambda x: 1 / 0, "raises"),
        (lambda x: (np.abs(x), np.zeros(len(x))), "not invertible"),
        (lambda x: (np.floor(x), np.zeros(len(x))), "not invertible here"),
        (lambda x: (np.zeros_like(x), np.zeros(len(x))), "not invertible here"),
    ],
)
def test_unusable_functions_get_a_report_not_an_exception(forward, mistake):
    report = check(forward, X)
    assert not report
    assert report.mistake == mistake, report.message
    assert len(report.message) > 20
    assert str(report) and report._repr_html_() and json.dumps(report.to_dict(), allow_nan=False)


def test_a_stub_is_not_done():
    def todo(x):
        raise NotImplementedError

    assert check(todo, X).mistake == "not done"


def test_a_corner_exactly_at_x_is_stepped_off():
    def bent(x):  # slope exp x below 0.3, and 1 more above
        return np.exp(x) + np.maximum(x - 0.3, 0), np.log(np.exp(x) + (x > 0.3)).sum(axis=1)

    report = check(bent, np.array([[0.3, 0.1], [0.9, 0.3]]))
    assert report, report.message
    assert any("moved by 0.1 %, away from a corner" in note for note in report.notes)
    assert abs(report.numeric[0] - 0.4) <= 4e-4  # no further than that


def test_blind_spots_are_said():
    identity = check(lambda x: (x + np.roll(x, 1, 3) ** 2 * [1, 0, 0], np.zeros(len(x))), X)
    assert any("log-det is 0 here" in note for note in identity.notes)
    square = check(ref.ActNorm(np.abs(S), np.zeros(3)), X[:, :, :5])
    assert any("h = w" in note for note in square.notes)
    assert any("|·|" in note for note in square.notes)


@pytest.mark.parametrize(
    ("x", "error", "words"),
    [
        (X.astype("f4"), TypeError, "float32"),
        (torch.ones(2, 3), TypeError, r"x\.double\(\)"),
        (np.ones((2, 3), int), TypeError, "int64"),
        ("x", TypeError, "str"),
        (None, TypeError, "NoneType"),
        (np.float64(1.0), TypeError, "float64"),
        (np.ones(()), ValueError, "single number"),
        (np.zeros((0, 3)), ValueError, "empty"),
        (np.array([[np.inf, 1.0]]), ValueError, "NaN"),
        (np.ones((1, 40, 41, 3)), ValueError, "4096"),
    ],
)
def test_bad_x(x, error, words):
    with pytest.raises(error, match=words):
        check(lambda v: (v, np.zeros(len(v))), x)


@pytest.mark.parametrize("layer", [3, None, ref.ActNorm])
def test_what_is_no_layer(layer):
    with pytest.raises(TypeError):
        check(layer, X)
    with pytest.raises(TypeError, match="inverse"):
        check(scale, X, inverse=3)


def test_reports_read_well():
    wrong = check(lambda x: (S * x, scale(x)[1] / 35), X)
    text, page = str(wrong), wrong._repr_html_()
    assert "h·w missing" in text and "✗ wrong" in text and "analytic" in text
    assert "✗ wrong" in page and page.count("<table>") == 2
    right = str(check(scale, X, lambda y: y / S))
    assert "agrees to" in right and "an error above" in right and "x comes back to" in right
    hostile = check(lambda x: 1 / 0, X)
    assert "<script" not in hostile._repr_html_()

    def nasty(x):
        raise ValueError("<script>alert(1)</script>")

    assert "<script" not in check(nasty, X)._repr_html_()
    data = json.loads(json.dumps(wrong.to_dict(), allow_nan=False))
    assert data["ok"] is False and data["mistake"] == "h·w missing"


class TorchScale(torch.nn.Module):
    """Channels first; the log-det may be got wrong."""

    def __init__(self, factor=35.0, dtype=torch.float32):
        super().__init__()
        self.s = torch.nn.Parameter(torch.tensor(S, dtype=dtype))
        self.factor = factor

    def forward(self, x):
        return self.s.view(-1, 1, 1) * x, (self.factor * self.s.abs().log().sum()).expand(len(x))

    def inverse(self, y):
        return y / self.s.view(-1, 1, 1)


def test_torch_modules():
    module = TorchScale()
    report = check(module, X)
    assert report, report.message
    assert report.round_trip < 1e-14
    assert any("float64" in note for note in report.notes)
    assert module.s.dtype == torch.float32  # the caller's module is left alone
    assert check(TorchScale(1.0), X).mistake == "h·w missing"
    assert check(TorchScale(), torch.from_numpy(np.moveaxis(X, -1, 1).copy()))
    assert check(from_torch(module), X)
    assert from_torch(TorchScale()).notes and not from_torch(TorchScale().double()).notes
    assert check(module, X, inverse=lambda y: y).mistake.startswith("inverse is the identity")


class TorchLinear(torch.nn.Module):
    """A float32 matrix, which unlike a product by numbers refuses float64 vectors."""

    def __init__(self):
        super().__init__()
        self.linear = torch.nn.Linear(3, 3, bias=False)
        torch.nn.init.orthogonal_(self.linear.weight)
        self.linear.weight.data[0] *= -2.5

    def forward(self, x):
        self.seen = self.linear(x)  # kept with its graph, as students' modules do
        return self.seen, torch.linalg.slogdet(self.linear.weight)[1].expand(len(x))

    def inverse(self, y):
        return torch.linalg.solve(self.linear.weight, y.T).T

    def both(self, y):
        return self.inverse(y), torch.zeros(len(y))


def test_a_torch_inverse_sees_the_float64_copy_too():
    module, x = TorchLinear(), np.random.default_rng(3).standard_normal((4, 3))
    before = [p.clone() for p in module.parameters()]
    for _ in range(2):
        given = check(module, x, inverse=module.inverse)
        assert given, given.message
        assert given.round_trip < 1e-14
        assert check(from_torch(module.forward, module.inverse), x)
        module(torch.ones(2, 3))  # leaves a tensor in the module that deepcopy refuses
    assert not check(module, x, inverse=module.linear)
    assert all(torch.equal(a, b) for a, b in zip(before, module.parameters(), strict=True))

    around = check(module, x, inverse=lambda y: module.both(y)[0])
    assert around.mistake == "raises" and "check module.double()" in around.message
    assert check(module.double(), x, inverse=lambda y: module.both(y)[0])


def test_functions_on_tensors():
    x = torch.from_numpy(X.reshape(2, -1)[:, :4].copy())
    double = lambda t: (2 * t, torch.full((len(t),), 4 * np.log(2), dtype=t.dtype))  # noqa: E731
    assert check(double, x, lambda y: y / 2)
    single = lambda t: (2 * t.float(), torch.zeros(len(t)))  # noqa: E731
    assert check(single, x).mistake == "float32"

    def greedy(t):
        t *= 2
        return t, torch.full((len(t),), 4 * np.log(2), dtype=t.dtype)

    assert check(greedy, x).mistake == "changes its input"


def test_torch_in_training_mode_with_batch_norm_mixes_examples():
    class Norm(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.norm = torch.nn.BatchNorm1d(4)

        def forward(self, x):
            return x + self.norm(x), torch.zeros(len(x), dtype=x.dtype)

    report = check(Norm(), X.reshape(2, -1)[:, :4])
    assert not report
    assert report.mistake in ("mixes examples", "raises")


# -- found by attacking from outside ---------------------------------------------------------
S = np.array([2.0, -0.5, 3.0])
LOG_S = float(np.log(np.abs(S)).sum())
VECTORS = np.random.default_rng(7).standard_normal((4, 3))


def test_a_pair_may_be_a_list():
    report = ref.check(lambda x: [S * x, np.full(len(x), LOG_S)], VECTORS)
    assert report, report.message


def test_a_batch_of_one_that_gives_nan_mixes_examples():
    def batch_norm(x):
        return (x - x.mean(0)) / x.std(0), np.full(len(x), -np.log(x.std(0)).sum())

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert ref.check(batch_norm, VECTORS).mistake == "mixes examples"


def test_a_logdet_right_in_company_and_wrong_alone():
    def squeezed(x):
        return S * x, np.squeeze(np.full((len(x), 1), LOG_S))

    def lonely(x):
        return S * x, np.full(len(x), LOG_S + (len(x) == 1))

    def others(x):
        return S * x, LOG_S + x.sum() - x.sum(1)

    assert "(1,) is expected" in ref.check(squeezed, VECTORS).message
    assert "mixes examples" in ref.check(lonely, VECTORS).mistake
    assert "mixes examples" in ref.check(others, VECTORS).mistake


def test_a_called_object_has_its_own_inverse_checked():
    class Called:
        def __call__(self, x):
            return S * x, np.full(len(x), LOG_S)

        def inverse(self, y):
            return y

    assert "inverse is the identity" in ref.check(Called(), VECTORS).mistake


def test_a_small_relative_error_is_no_eps_in_the_log():
    wrong = ref.check(lambda x: (S * x, np.full(len(x), LOG_S * (1 + 1e-8))), VECTORS)
    assert not wrong
    assert wrong.mistake is None


def test_a_scalar_zero_was_not_summed_over_the_batch():
    layer = ref.AdditiveCoupling(ref.CouplingNet.random(2, 4, 2, np.random.default_rng(0)))
    x = np.random.default_rng(1).standard_normal((2, 3, 5, 4))
    report = ref.check(lambda x: (layer.forward(x)[0], 0.0), x)
    assert not report and "the number itself is right" in str(report)
    assert "summed over the batch" not in (report.mistake or "")


@pytest.mark.parametrize("tail", [(1,), (1, 1, 1), (5, 7), (5, 7, 3)])
def test_a_logdet_with_axes_left_over_is_judged_by_their_sum(tail):
    share = 35 * np.log(np.abs(S)).sum() / np.prod(tail)
    right = check(lambda x: (S * x, np.full((len(x), *tail), share)), X)
    assert not right and right.mistake == "sum over too few axes"
    assert ".sum(1), it is right" in right.message
    wrong = check(lambda x: (S * x, np.full((len(x), *tail), -share)), X)
    assert wrong.mistake == "sum over too few axes; sign flipped"
    assert "it is right" not in wrong.message


def test_a_logdet_of_another_shape_is_told_the_n_it_was_tried_with():
    x = X[:, :2, :3, :2]
    for wrong in (lambda x: np.full((len(x), 1), 12 * np.log(2)), lambda x: 12 * np.log(2)):
        said = check(lambda x, w=wrong: (2 * x, w(x)), x).message
        assert "expected" in said and "(N,), tried with N = " in said


def test_x_is_left_alone_whatever_the_layer_does_to_it():
    def greedy(x):
        x *= 2
        return x, len(x) * np.log(2)

    def greedy_inverse(y):
        y /= 2
        return y

    for x in (np.array([1.0, 2.0]), np.array([[1.0, 2.0], [0.5, -1.0]])):
        before = x.copy()
        report = check(greedy, x, greedy_inverse)
        assert "changes its input" in report.mistake
        assert np.array_equal(x, before)
        assert str(report).count("forward leaves its input alone") == 1
    fine = lambda v: (2 * v, np.log(4.0))  # noqa: E731
    assert check(fine, np.array([1.0, 2.0]), greedy_inverse).mistake == "changes its input"


def test_a_single_vector_is_checked_without_warnings():
    def rough(x):  # NumPy would complain here, and the report needs no second voice
        return x, np.log(-1.0 + 0 * x.sum())

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert not check(rough, np.array([1.0, 2.0]))


def test_the_steps_of_a_flow_are_held_to_the_limit_that_was_given(monkeypatch):
    monkeypatch.setitem(check.__kwdefaults__, "max_dim", 8)  # 4096, where it would take minutes
    right = ref.ActNorm(S, np.zeros(3))
    x = X[:, :2, :2]
    bad_inverse = Wrong(right, inverse=lambda y: y)
    bad_logdet = Wrong(right, logdet=lambda x, y, right: right / 4)
    for wrong, mistake in ((bad_inverse, "inverse is the identity"), (bad_logdet, "h·w missing")):
        report = check(ref.Flow([ref.Permutation.reverse(3), wrong]), x, max_dim=12)
        assert mistake in report.mistake and "in step 2 (Wrong)" in report.message


def test_the_layers_of_a_net_are_not_taken_for_the_steps_of_a_flow():
    rng = np.random.default_rng(0)

    class Dense:
        def __init__(self, w):
            self.w = w

        def forward(self, x):
            return np.tanh(x @ self.w)

    class Coupling:
        def __init__(self):
            self.layers = [Dense(rng.standard_normal((2, 8))), Dense(rng.standard_normal((8, 4)))]

        def _net(self, x):
            for layer in self.layers:
                x = layer.forward(x)
            return np.split(x, 2, axis=1)

        def forward(self, x):
            log_s, t = self._net(x[:, 2:])
            y = np.concatenate([np.exp(log_s) * x[:, :2] + t, x[:, 2:]], axis=1)
            return y, self.sign * log_s.sum(axis=1)

        def inverse(self, y):
            log_s, t = self._net(y[:, 2:])
            return np.concatenate([y[:, :2] * np.exp(-log_s) - t, y[:, 2:]], axis=1)

    layer, x = Coupling(), rng.standard_normal((3, 4))
    layer.sign = -1
    wrong = check(layer, x)
    assert wrong.mistake.startswith("sign flipped"), wrong.message
    assert "shift and scale in the wrong order" in wrong.mistake
    assert "step 1" not in wrong.message


def test_an_answer_may_differ_in_its_last_bits_from_call_to_call():
    rng = np.random.default_rng(0)

    def threaded(a):  # sums in another order each time
        return a + 1e-16 * rng.choice([-1, 1], a.shape) * np.abs(a).max()

    inverse = lambda y: threaded(y / S)  # noqa: E731
    report = check(lambda x: (S * x, np.full(len(x), LOG_S)), VECTORS, inverse)
    assert report, report.message
    noisy = lambda y: y / S + 1e-9 * rng.standard_normal(y.shape)  # noqa: E731
    said = check(lambda x: (S * x, np.full(len(x), LOG_S)), VECTORS, noisy)
    assert said.mistake == "not deterministic"


@pytest.mark.parametrize("small", [1e-2, 3e-4, 1e-5])
def test_rounding_beside_a_constant_is_no_mistake(small):
    """x + ½ and back loses the last digits of a small x, and that is right."""
    for seed in range(20):
        u = np.random.default_rng(seed).random((2, 1, 1, 1))
        report = check(ref.Logit(0.36), small * (1 + u))
        assert report, report.message


def test_a_second_answer_of_another_kind_gets_a_report():
    class Fickle:
        def __init__(self, later):
            self.calls, self.later = 0, later

        def __call__(self, x):
            self.calls += 1
            right = S * x, np.full(len(x), LOG_S)
            return right if self.calls < 2 else self.later

    for later in (None, {}, ("y", 1.0), [1], np.zeros(2)):
        assert not check(Fickle(later), VECTORS)

    class Once:
        calls = 0

        def __call__(self, y):
            self.calls += 1
            if self.calls > 1:
                raise RuntimeError("once only")
            return y / S

    right = lambda x: (S * x, np.full(len(x), LOG_S))  # noqa: E731
    assert check(right, VECTORS, Once()).mistake == "raises"


def test_a_logdet_that_is_too_small_by_a_number_is_not_called_a_mean_for_certain():
    said = check(lambda x: (2 * x, np.log(2)), X[:, :2, :3, :2]).message
    assert "divided by 12: a mean taken for a sum, or only one number in 12 counted" in said


@pytest.mark.parametrize("tread", [2.0**-8, 2.0**-20, 1e-6, 1e-8])
def test_a_staircase_is_seen_though_its_treads_divide_every_step(tread):
    def rounded(x):  # 8-bit images, six digits, …: singular, whatever its average slope
        return S * (np.round(x / tread) * tread) + 0.1, np.full(len(x), LOG_S)

    assert check(rounded, VECTORS).mistake in ("float32", "not invertible here")
    assert check(lambda x: (S * x + 0.1, np.full(len(x), LOG_S)), VECTORS)


def test_a_net_that_computes_in_float32_is_seen_beside_a_half_that_does_not():
    def forward(x):
        t = np.tanh(x[:, 1:].astype(np.float32) * np.float32(1.3)).astype(float)
        return np.concatenate([x[:, :1] + t.sum(1, keepdims=True), x[:, 1:]], 1), np.zeros(len(x))

    assert not check(forward, VECTORS)


@pytest.mark.parametrize(("scale", "shift"), [(1e-8, 1.0), (1e-6, 3.0), (1.0, 1e6), (1e8, 1.0)])
def test_scale_and_shift_of_very_different_size(scale, shift):
    s = scale * S
    right = 35 * np.log(np.abs(s)).sum()
    for wrong in (0.0, 1e-4):
        forward = lambda x, e=wrong: (s * x + shift, np.full(len(x), right + e))  # noqa: E731
        report = check(forward, X, lambda y: (y - shift) / s)
        assert bool(report) == (wrong == 0), report.message


def test_a_batch_is_tried_at_its_last_example_too():
    def sick(x):
        return S * x, scale(x)[1] + np.where(x[:, 0, 0, 0] < 0, 1e-4, 0)

    x = np.abs(np.concatenate([X, X]))
    x[-1] *= -1
    assert not check(sick, x)
    assert check(scale, x)


class TorchShift(torch.nn.Module):
    """Its log-det of 0 is made anew, in torch's default float32."""

    def forward(self, x):
        return torch.cat([x[:, :1] + x[:, 1:].sin().sum(1, True), x[:, 1:]], 1), torch.zeros(len(x))

    def inverse(self, y):
        return torch.cat([y[:, :1] - y[:, 1:].sin().sum(1, True) * torch.ones(1), y[:, 1:]], 1)


def test_tensors_that_a_module_makes_anew_are_float64_meanwhile():
    assert check(TorchShift(), X)
    assert check(TorchShift(), torch.from_numpy(np.moveaxis(X, -1, 1).copy()))
    assert torch.zeros(1).dtype == torch.float32  # as before
    late = lambda x: (2 * x, torch.full((len(x),), x[0].numel() * np.log(2)).float())  # noqa: E731
    assert check(late, torch.from_numpy(X)).mistake == "float32"


@pytest.mark.parametrize("shape", [(7, 3), (2, 3, 5, 3)])
def test_signals_and_films_have_pixels_too(shape):
    pixels = np.prod(shape[:-1])
    x = np.random.default_rng(1).standard_normal((2, *shape))
    assert check(lambda x: (S * x, np.full(len(x), pixels * LOG_S)), x, lambda y: y / S)
    assert check(lambda x: (S * x, np.full(len(x), LOG_S)), x).mistake == "h·w missing"


def test_an_inverse_that_is_nearly_right_is_given_no_name_that_does_not_fit():
    def one_pixel(y):
        x = y / S
        x[:, 0, 0, 0] *= 1 + 1e-7
        return x

    for inverse in (one_pixel, lambda y: y / (S * [1, 1, 1 + 1e-8])):
        assert check(scale, X, inverse).mistake == "imprecise"
    assert check(scale, X, lambda y: y / (S + 1e-8)).mistake == "eps in one only"


@pytest.mark.parametrize("size", [0.3, 3e-4])
def test_a_fourier_feature_hides_nothing(size):
    """sin(2ᵏπx): its length divides the numeric Jacobian's first steps, which see none of it."""
    w = 2.0**7 * np.pi
    forward = lambda x: x + size * np.sin(w * x) / w  # noqa: E731
    right = check(lambda x: (forward(x), np.log1p(size * np.cos(w * x)).sum(1)), VECTORS)
    assert right, right.message
    assert check(lambda x: (forward(x), np.zeros(len(x))), VECTORS).mistake == "zero"

    def coupling(x):
        log_s = np.sin(w * x[:, 1:]).sum(1, keepdims=True)
        return np.concatenate([x[:, :1] * np.exp(log_s), x[:, 1:]], 1), log_s[:, 0]

    assert check(coupling, VECTORS)


class ZeroCoupling(torch.nn.Module):
    """The trap: the net's last layer starts at zero, and so no mistake in the log-det shows."""

    def __init__(self, permute=False):
        super().__init__()
        self.net, self.permute = torch.nn.Linear(2, 4), permute
        torch.nn.init.zeros_(self.net.weight)
        torch.nn.init.zeros_(self.net.bias)

    def forward(self, x):
        x = x.flip(1) if self.permute else x
        log_s, t = self.net(x[:, :2]).chunk(2, 1)
        return torch.cat([x[:, :2], x[:, 2:] * log_s.exp() + t], 1), -2 * log_s.sum(1)


@pytest.mark.parametrize("permute", [False, True])
def test_a_layer_at_its_start_is_told_that_this_proves_little(permute):
    x = np.random.default_rng(0).standard_normal((3, 4))
    layer = ZeroCoupling(permute)
    assert any("the log-det is 0 here" in note for note in check(layer, x).notes)
    untouched = check(lambda x: (x * 1.0, np.full(len(x), np.log(1.0))), X)  # h·w is left out
    assert any("not at their start" in note for note in untouched.notes)
    torch.nn.init.normal_(layer.net.weight)
    assert not check(layer, x)  # as the note says


@pytest.mark.parametrize("layer", [ref.Permutation.reverse(3), ref.Squeeze(), ref.Split()])
def test_the_note_about_a_log_det_of_0_is_true_of_layers_that_keep_volume(layer):
    channels = [0, 1, 2, 0] if isinstance(layer, ref.Split) else [0, 1, 2]
    report = check(layer, X[:, :4, :6, channels])
    assert report
    assert any("nothing is missed in a layer that always keeps volume" in n for n in report.notes)


class ByAutograd(torch.nn.Module):
    """y = x + a·sigmoid(x), its log-det asked of torch, as monotone networks do."""

    def __init__(self):
        super().__init__()
        self.a = torch.nn.Parameter(torch.rand(4) + 0.5)

    def forward(self, x):
        x = x.clone().requires_grad_()
        y = x + self.a * torch.sigmoid(x)
        (slope,) = torch.autograd.grad(y.sum(), x, create_graph=True)
        return y, slope.log().sum(1)


def test_a_layer_may_take_its_log_det_by_autograd():
    layer, x = ByAutograd(), np.random.default_rng(0).standard_normal((3, 4))
    report = check(layer, x)
    assert report, report.message
    assert np.all(np.diag(ref.jacobian(layer, x[:1]).value) > 1)
    assert layer.a.requires_grad
    by_hand = lambda t: layer(t.float())  # noqa: E731
    assert check(by_hand, torch.from_numpy(x)).mistake == "float32"


def test_a_torch_inverse_that_changes_its_input_is_caught():
    class Greedy(torch.nn.Module):
        def forward(self, x):
            return 2 * x, torch.full((len(x),), 4 * np.log(2))

        def inverse(self, y):
            return y.div_(2)

    for x in (np.random.default_rng(0).standard_normal((3, 4)), np.ones((2, 1, 2, 2)) / 3):
        report = check(Greedy(), x)
        assert report.mistake == "changes its input", report.message
        assert "inverse leaves its input alone" in report.message


@pytest.mark.parametrize("distance", [1e-3, 1e-4, 1e-5])
def test_a_right_layer_close_to_the_edge_of_its_domain(distance):
    """There J·δ is far beyond what y ever is, though δ is small."""

    class FromUnit:
        def forward(self, x):
            self.x = x
            return np.log(x) - np.log1p(-x), -(np.log(x) + np.log1p(-x)).sum(1)

        def inverse(self, y):
            return 1 / (1 + np.exp(-y))

    x = np.array([[1 - distance, 0.5, distance], [1 - 2 * distance, 0.3, 3 * distance]])
    layer = FromUnit()
    report = check(layer, x)
    assert report, report.message
    assert check(layer, x, lambda y: layer.x).mistake == "needs forward first"


@pytest.mark.parametrize(
    "error",  # of the batch's size; of the example's place in it
    [lambda n: np.full(n, n > 3), lambda n: np.arange(n) > 4],
)
def test_a_log_det_that_is_wrong_in_a_batch_as_large_as_was_given(error):
    x = np.random.default_rng(0).standard_normal((8, 3))
    wrong = check(lambda x: (S * x, LOG_S + 0.1 * error(len(x))), x)
    assert wrong.mistake == "mixes examples", wrong.message
    moved = check(lambda x: (S * x + (len(x) > 3), np.full(len(x), LOG_S)), x)
    assert moved.mistake == "mixes examples"
    assert check(lambda x: (S * x, np.full(len(x), LOG_S)), x)


class Hoarder(torch.nn.Module):
    """Keeps things that cannot be copied: outputs with their graphs, or a lock."""

    def __init__(self, **kept):
        super().__init__()
        self.s = torch.nn.Parameter(torch.tensor([2.0, 0.5, 3.0]))
        self.seen, self.kept = {"y": []}, kept

    def forward(self, x):
        y = x * self.s
        self.seen["y"].append(y)
        return y, self.s.log().sum().expand(len(x))

    def inverse(self, y):
        return y / self.s


def test_a_module_that_keeps_what_cannot_be_copied():
    layer = Hoarder()
    layer(torch.ones(2, 3))
    report = check(layer, VECTORS)
    assert report, report.message
    assert len(layer.seen["y"]) == 1

    locked = Hoarder(lock=threading.Lock())
    with pytest.raises(TypeError, match=r"cannot be copied .*pass module\.double\(\)"):
        check(locked, VECTORS)
    for inverse in (None, locked.inverse):
        report = check(locked.double(), VECTORS, inverse)
        assert report and report.round_trip < 1e-14
        assert any("the module itself was called" in note for note in report.notes)
    assert locked.s.requires_grad


class FromFirstBatch(torch.nn.Module):
    """An actnorm that takes its scale from the first batch; its inverse returns a pair."""

    def __init__(self):
        super().__init__()
        self.log_s = torch.nn.Parameter(torch.zeros(3))
        self.register_buffer("ready", torch.tensor(False))

    def forward(self, x):
        if not self.ready:
            self.log_s.data, self.ready = -torch.log(x.std(0)), torch.tensor(True)
        return x * self.log_s.exp(), self.log_s.sum().expand(len(x))

    def inverse(self, y):
        return y * (-self.log_s).exp(), -self.log_s.sum().expand(len(y))


def test_an_inverse_that_cannot_see_what_forward_sets_is_told_so():
    for layer in (FromFirstBatch(), FromFirstBatch().double()):
        around = check(layer, VECTORS, lambda y, m=layer: m.inverse(y)[0])
        assert around.mistake in ("needs forward first", "raises")
    assert "call module(x) once first, or give module.inverse" in around.message
    assert not layer.ready
    layer(torch.from_numpy(VECTORS))
    report = check(layer, VECTORS, lambda y: layer.inverse(y)[0])
    assert report, report.message


def test_a_pair_from_the_inverse_is_refused_and_its_first_half_checked_all_the_same():
    report = check(FromFirstBatch(), VECTORS)
    assert report.mistake == "inverse returns a pair"
    assert report.round_trip < 1e-14
    assert str(report).count("returned a pair") == 1
    assert check(lambda x: (S * x, np.full(len(x), LOG_S)), VECTORS, lambda y: ()).mistake


def test_numbers_that_look_alike_are_told_apart():
    said = check(lambda x: (S * x, np.full(len(x), LOG_S + 3e-7)), VECTORS).message
    assert "they differ by up to 3.0e-07" in said


def test_a_forgotten_pixel_is_no_eps_in_the_log():
    s = np.array([0.5, -2, 3, 0.7, -0.3, 1.4])
    x = np.random.default_rng(0).normal(size=(4, 3, 5, 6))
    logs = np.log(np.abs(s)).sum()
    assert check(lambda x: (s * x, np.full(len(x), 14 * logs)), x).mistake is None
    inside = 15 * np.log(np.abs(s) + 1e-3).sum()
    assert check(lambda x: (s * x, np.full(len(x), inside)), x).mistake == "eps in the log"


@pytest.mark.parametrize(("eps", "mistake"), [(1e-6, "eps in one only"), (0, "imprecise")])
def test_a_coupling_that_is_nearly_undone_has_no_wrong_input(eps, mistake):
    """y_b = (x_b + t) · s, undone with s + ε, or to seven digits."""
    w = np.random.default_rng(1).standard_normal((2, 2, 2))
    scale_and_shift = lambda a: (np.exp(np.tanh(a @ w[0])), a @ w[1])  # noqa: E731

    def forward(x):
        s, t = scale_and_shift(x[:, :2])
        return np.concatenate([x[:, :2], (x[:, 2:] + t) * s], 1), np.log(s).sum(1)

    def inverse(y):
        s, t = scale_and_shift(y[:, :2])
        back = y[:, 2:] / (s + eps) - t
        return np.concatenate([y[:, :2], back if eps else back * (1 + 1e-7 * np.sin(9 * back))], 1)

    x = np.random.default_rng(2).standard_normal((3, 4))
    assert check(forward, x, inverse).mistake == mistake


@pytest.mark.parametrize(("by", "leaves"), [((-1, -1), False), ((3, 1), True)])
def test_it_is_said_which_half_an_inverse_changes(by, leaves):
    x = VECTORS[:, :2]
    report = check(lambda x: (x * [1, 2], np.full(len(x), np.log(2))), x, lambda y: y * by)
    assert report.mistake == "wrong half"
    assert ("and leaves the other" in report.message) == leaves


@pytest.mark.parametrize(
    ("shape", "factor", "mistake"),
    [
        ((5, 7, 3), 1 / 7, "w missing"),  # h, were the channels first
        ((8, 3, 5), 1 / 4, "mean for sum"),  # half the channels, if they are first
        ((5, 7, 3), -1 / np.log(10), "log of base 10 and sign flipped"),
        ((5, 7, 3), 1 / np.log(2) / 35, "log of base 2 and h·w missing"),
        ((1, 1, 3), -1 / np.log(2), "log of base 2 and sign flipped"),
    ],
)
def test_a_factor_gets_its_name_and_no_other(shape, factor, mistake):
    s = np.linspace(1.5, 3, shape[-1])
    said = factor * shape[0] * shape[1] * np.log(s).sum()
    x = np.random.default_rng(0).standard_normal((2, *shape))
    assert check(lambda x: (s * x, np.full(len(x), said)), x).mistake == mistake


def test_an_inverse_of_another_shape_is_not_called_the_identity():
    assert check(scale, X, lambda y: y[:, :2]).mistake == "wrong shape"
    flat = lambda x: (x.reshape(len(x), -1), np.zeros(len(x)))  # noqa: E731
    assert check(flat, X, lambda y: y).mistake == "inverse is the identity"


def test_no_mistake_is_named_twice():
    """Where s = −1, dividing before the subtraction is subtracting after a division."""
    report = check(lambda x: (S - x, np.zeros(len(x))), VECTORS, lambda y: -y - S)
    names = ["shift and scale in the wrong order", "shift added", "multiplies by the scale"]
    assert report.mistake.split(" or ") == names


def scale3(x):
    return S * x, np.full(len(x), LOG_S)


def test_examples_that_are_made_are_said():
    few, many = (check(scale3, VECTORS[:k]).notes for k in (1, 4))
    assert any("were made from x" in note for note in few)
    assert not any("were made from x" in note for note in many)


def test_refusals_are_in_the_layers_own_words_with_a_hint():
    def none_exists(y):
        raise NotImplementedError("this flow has no algebraic inverse")

    assert "no algebraic inverse" in check(scale3, VECTORS, none_exists).message
    assert "NaN" in check(scale3, VECTORS, lambda y: y * np.nan).message

    class Plain(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.w = torch.eye(3)  # neither a parameter nor a buffer

        def forward(self, x):
            return x @ self.w, torch.zeros(len(x))

    assert "register plain tensors as buffers" in check(Plain(), VECTORS).message
    channels_first = X[:, :4, :3]  # as an array (N, C, H, W), C = 4
    said = check(torch.nn.Conv2d(4, 4, 1), channels_first).message
    assert "a tensor as (N, C, H, W)" in said


@pytest.mark.parametrize("black", [1, 12, 24])
def test_black_pixels_round_as_others_do(black):
    """y of 0 has no rounding, but the y beside it that the inverse is tried at has."""
    x = np.random.default_rng(0).random((2, 4, 6, 4)) - 0.5
    x.reshape(2, 24, 4)[:, :black] = 0
    for seed in range(6):
        report = check(ref.Conv1x1(np.random.default_rng(seed).standard_normal((4, 4))), x)
        assert report, report.message
    remembered = {}
    x = x[..., :3]

    def forward(x):
        remembered["x"] = x.copy()
        return S * x, np.full(len(x), 24 * np.log(np.abs(S)).sum())

    assert check(forward, x, lambda y: y / S)
    assert check(forward, x, lambda y: remembered["x"]).mistake == "needs forward first"


@pytest.mark.parametrize("size", [1e-2, 1e-4, 1e-6, 1e-8])
@pytest.mark.parametrize(
    ("f", "logdet", "inverse"),
    [
        (lambda x: np.exp(x) - 1, lambda x: x, lambda y: np.log(1 + y)),
        (lambda x: (np.exp(x) - np.exp(-x)) / 2, lambda x: np.log(np.cosh(x)), None),
        (
            lambda x: np.log(x + 0.5) - np.log(0.5 - x),
            lambda x: -np.log(0.25 - x**2),
            lambda y: 1 / (1 + np.exp(-y)) - 0.5,
        ),
        (lambda x: 3 * (x + 0.7) - 2.1, lambda x: np.log(3.0) + 0 * x, None),
    ],
    ids=["exp(x) - 1", "sinh", "logit", "affine"],
)
def test_a_constant_inside_rounds_however_small_x_is(size, f, logdet, inverse):
    """exp(x) − 1 rounds as 1 does: its treads are wider than steps of x's own size."""

    def layer(x, error=0.0):
        return f(x), logdet(x).reshape(len(x), -1).sum(1) + error

    for seed in range(5):
        x = size * np.random.default_rng(seed).standard_normal((3, 2, 4))
        right = check(layer, x, inverse)
        assert right, right.message
        assert right.smallest < 1e-6
        assert not check(partial(layer, error=2 * right.smallest), x, inverse)


def test_a_number_lost_beside_another_is_no_fold():
    x = np.cos(np.arange(12) * np.pi / 2).reshape(3, 4)  # 6e-17 and 1
    assert check(lambda x: (x + 3, np.zeros(len(x))), x, lambda y: y - 3)
    folded = check(lambda x: (np.abs(x) + 3, np.zeros(len(x))), x + 1.5)
    assert folded.mistake == "not invertible"


def test_the_edge_of_a_domain_is_called_by_its_name():
    x = np.random.default_rng(0).integers(0, 256, (2, 3, 4, 1)) / 256 - 0.5
    x[:, 0, 0] = -0.5
    report = check(ref.Logit(), x)
    assert report.mistake == "not differentiable here"
    assert "the edge of its domain" in report.message


def test_the_number_of_examples_is_not_half_the_channels():
    x = np.random.default_rng(0).standard_normal((2, 3, 5, 4))

    def forward(x):
        log_s = 0.3 * x[..., 2:]
        return np.concatenate([np.exp(log_s) * x[..., :2], x[..., 2:]], -1), log_s.sum((0, 1, 2))

    assert check(forward, x).mistake == "sum over the wrong axis"
