"""A bank of wrong layers: common student errors and the field's own bugs (one line each).

Every entry must be rejected by `check`; where ``mistake`` is given, it must be named.  Each is a
right layer with one thing changed, at points that expose it: h ≠ w, det < 0, non-zero parameters.
"""

# Small one-off functions are this file's whole point; naming each would bury the mistakes.
# ruff: noqa: B008, B023, E731, E741

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

import reference as ref
from reference._arrays import halves
from reference.nice import Flatten, mlp


class Wrong:
    """``layer`` with its log-det, its forward or its inverse replaced.

    logdet(x, y, right) -> what is said instead; forward(x) -> (y, logdet); inverse(y) -> x.
    """

    def __init__(self, layer, logdet=None, forward=None, inverse=None) -> None:
        self.layer, self._logdet = layer, logdet
        self._forward, self._inverse = forward or layer.forward, inverse or layer.inverse

    def forward(self, x):
        y, right = self._forward(x)
        return y, (right if self._logdet is None else self._logdet(x, y, right))

    def inverse(self, y):
        return self._inverse(y)


@dataclass(frozen=True)
class Mutant:
    layer: str
    name: str
    make: Callable[[], tuple[object, np.ndarray]]
    mistake: str | None = None

    def __str__(self) -> str:
        return f"{self.layer}: {self.name}"


H, W, C = 4, 5, 6  # no two alike, none half of another


def images(h: int = H, w: int = W, c: int = C, seed: int = 3) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((2, h, w, c))


def each(value) -> Callable:
    """A log-det that ignores everything but says ``value`` for each example."""
    return lambda x, y, right: np.full(len(x), value)


def scaled(factor: float) -> Callable:
    return lambda x, y, right: right * factor


def common(make: Callable[[], tuple[object, np.ndarray]]) -> list[tuple]:
    """Mistakes that every layer whose log-det is not 0 can make."""
    return [
        ("log-det 0", lambda: _with(make, each(0.0)), "zero"),
        ("sign flipped", lambda: _with(make, scaled(-1.0)), "sign flipped"),
        ("log of base 2", lambda: _with(make, scaled(1 / np.log(2))), "log of base 2"),
        ("log of base 10", lambda: _with(make, scaled(1 / np.log(10))), "log of base 10"),
        ("h·w missing", lambda: _with(make, lambda x, y, r: r / pixels(x)), "h·w missing"),
        ("h·w twice", lambda: _with(make, lambda x, y, r: r * pixels(x)), "h·w twice"),
        ("h missing", lambda: _with(make, lambda x, y, r: r / x.shape[1]), "h missing"),
        ("w missing", lambda: _with(make, lambda x, y, r: r / x.shape[2]), "w missing"),
        ("sign and h·w", lambda: _with(make, lambda x, y, r: -r / pixels(x)), "sign flipped and"),
        ("mean over channels", lambda: _with(make, lambda x, y, r: r / x.shape[3]), "mean for sum"),
        ("mean over all", lambda: _with(make, lambda x, y, r: r / x[0].size), "mean for sum"),
        ("log of the square", lambda: _with(make, scaled(2.0)), "factor 2"),
        ("half", lambda: _with(make, scaled(0.5)), "factor 1/2"),
        ("determinant", lambda: _with(make, lambda x, y, r: np.exp(r)), "log missing"),
        ("summed over the batch", lambda: _with(make, lambda x, y, r: r.sum()), "summed over the"),
        ("sum for each", lambda: _with(make, lambda x, y, r: np.full(len(x), r.sum())), "batch"),
        ("one for all", lambda: _with(make, lambda x, y, r: r[:1]), "sum over the wrong axis"),
        ("prior added", lambda: _with(make, with_prior), "prior added"),
        ("float32 log-det", lambda: _with(make, lambda x, y, r: r.astype(np.float32)), "float32"),
        ("float32 inside", lambda: _with(make, lambda x, y, r: r.astype("f4") * 1.0), "float32"),
        ("off by 1e-6", lambda: _with(make, lambda x, y, r: r + 1e-6), None),
        ("off by 1e-6 of it", lambda: _with(make, scaled(1 + 1e-6)), None),
        ("NaN", lambda: _with(make, each(np.nan)), None),
        ("infinite", lambda: _with(make, each(np.inf)), None),
        ("None", lambda: _with(make, lambda x, y, r: None), "not done"),
        ("inverse is the identity", lambda: _with(make, inverse=lambda y: y), "is the identity"),
        (
            "inverse is the forward",
            lambda: _with(make, inverse=lambda y, l=make()[0]: l.forward(y)[0]),
            "inverse is the forward",
        ),
        (
            "inverse in float32",
            lambda: _with(make, inverse=lambda y, l=make()[0]: l.inverse(y).astype("f4") * 1.0),
            "float32",
        ),
        ("inverse returns None", lambda: _with(make, inverse=lambda y: None), "not done"),
        (
            "inverse returns a pair",
            lambda: _with(make, inverse=lambda y, l=make()[0]: (l.inverse(y), 0.0)),
            "inverse returns a pair",
        ),
        ("identity stub", lambda: (Stub(), make()[1]), None),
        ("in place", lambda: (InPlace(make()[0]), make()[1]), "changes its input"),
        ("remembers", lambda: (Remembers(make()[0]), make()[1]), "needs forward first"),
        ("batch statistics", lambda: (BatchMean(make()[0]), make()[1]), "mixes examples"),
        ("noise", lambda: (Noisy(make()[0]), make()[1]), "not deterministic"),
        ("float32 y", lambda: (Float32(make()[0]), make()[1]), "float32"),
        ("float32 y, cast back", lambda: (Float32(make()[0], back=True), make()[1]), "float32"),
    ]


def _with(make, logdet=None, forward=None, inverse=None):
    layer, x = make()
    return Wrong(layer, logdet, forward, inverse), x


def pixels(x: np.ndarray) -> int:
    return x.shape[1] * x.shape[2]


def with_prior(x, y, right):
    return right - 0.5 * (y.reshape(len(y), -1) ** 2 + np.log(2 * np.pi)).sum(1)


class Stub:
    def forward(self, x):
        return x, np.full(len(x), 1.0)

    def inverse(self, y):
        return y


class InPlace(Wrong):
    def forward(self, x):
        y, logdet = self.layer.forward(x)
        x += 1.0
        return y, logdet


class Remembers(Wrong):
    """The inverse hands back the x that forward saw last, if y is of its shape."""

    def forward(self, x):
        self.x = x.copy()
        return self.layer.forward(x)

    def inverse(self, y):
        return self.x


class BatchMean(Wrong):
    """Batch norm's mistake: y depends on who else is in the batch."""

    def forward(self, x):
        y, logdet = self.layer.forward(x)
        return y - y.mean(axis=0, keepdims=True) / 2, logdet


class Noisy(Wrong):
    rng = np.random.default_rng(0)

    def forward(self, x):
        y, logdet = self.layer.forward(x)
        return y + 1e-6 * self.rng.standard_normal(y.shape), logdet


class Float32(Wrong):
    def __init__(self, layer, back=False):
        super().__init__(layer)
        self.back = back

    def forward(self, x):
        y, logdet = self.layer.forward(x)
        y = y.astype(np.float32)
        return (y.astype(np.float64) if self.back else y), logdet


# --- one maker of a right layer and its x for each room -------------------------------------------


def actnorm():
    rng = np.random.default_rng(1)
    s = np.exp(0.5 * rng.standard_normal(C) + 0.4)
    return ref.ActNorm(s, rng.standard_normal(C)), images()


def actnorm_negative():
    layer, x = actnorm()
    return ref.ActNorm(layer.s * np.array([1, -1, 1, 1, -1, -1]), layer.b), x


def matrix(c: int = C) -> np.ndarray:
    w = np.random.default_rng(4).standard_normal((c, c))
    w[0] *= -np.sign(np.linalg.det(w))
    return w


def conv():
    return ref.Conv1x1(matrix()), images()


def lu():
    return ref.Conv1x1LU.from_matrix(matrix()), images()


def net(c_in: int, c_out: int, seed: int = 5) -> ref.CouplingNet:
    return ref.CouplingNet.random(c_in, 4, c_out, np.random.default_rng(seed))


def affine(scale: str = "exp"):
    return ref.AffineCoupling(net(C // 2, C), scale), images(4, 3)


def affine_sigmoid():
    return affine("sigmoid")


def additive():
    return ref.AdditiveCoupling(net(C // 2, C // 2)), images(4, 3)


def split():
    prior = ref.ConvPrior.random(C // 2, np.random.default_rng(6))
    return ref.Split(prior), images(4, 3)


def top():
    rng = np.random.default_rng(7)
    return ref.TopPrior(rng.standard_normal(C), 0.4 * rng.standard_normal(C) - 0.2), images()


def squeeze(order: str = "glow"):
    return ref.Squeeze(order), images(4, 6, 3)


def squeeze_realnvp():
    return squeeze("realnvp")


def permutation():
    return ref.Permutation([2, 5, 0, 1, 3, 4]), images()


def masked(parity: int = 0):
    mask = ref.checkerboard_mask(5, 4, parity)
    return ref.MaskedCoupling(mask, net(3, 6)), images(5, 4, 3)


def logit():
    x = np.random.default_rng(8).uniform(-0.45, 0.45, (2, 3, 5, 4))
    return ref.Logit(), x


def step():
    layer, x = actnorm_negative()
    x = x[:, :3, :4]
    return ref.Step(layer, ref.Conv1x1LU.from_matrix(matrix()), affine()[0]), x


def nice():
    return ref.NICE.random((3, 4, 2), 12, np.random.default_rng(9)), images(3, 4, 2)


def glow():
    rng = np.random.default_rng(10)
    return ref.Glow.random((4, 8, 2), 2, 1, 4, rng), images(4, 8, 2)


def realnvp():
    rng = np.random.default_rng(11)
    return ref.RealNVP.random((2, 6, 2), 2, 4, rng), images(2, 6, 2)


RIGHT = {
    "ActNorm": actnorm,
    "ActNorm, s < 0": actnorm_negative,
    "Conv1x1": conv,
    "Conv1x1LU": lu,
    "AffineCoupling, exp": affine,
    "AffineCoupling, sigmoid": affine_sigmoid,
    "AdditiveCoupling": additive,
    "Split": split,
    "TopPrior": top,
    "Squeeze": squeeze,
    "Squeeze, realnvp": squeeze_realnvp,
    "Permutation": permutation,
    "MaskedCoupling": masked,
    "Logit": logit,
    "Step": step,
    "NICE": nice,
    "Glow": glow,
    "RealNVP": realnvp,
}
# Layers on which every one of the common mistakes is tried.
FULL = ["ActNorm", "Conv1x1", "AffineCoupling, exp", "MaskedCoupling"]
# Their log-det is 0, or they are large: the mistakes that can still show.
SOME = {"log-det 0", "sign flipped", "off by 1e-6", "inverse is the identity", "None"}
SHAPED = {"Squeeze", "Squeeze, realnvp", "NICE", "Glow", "RealNVP", "Logit"}  # y unlike x
SOME |= {
    "h·w missing",
    "log of base 2",
    "mean over all",
    "inverse is the forward",
    "in place",
    "remembers",
    "float32 y",
    "inverse in float32",
}
OF_LOGDET = {"log-det 0", "sign flipped", "h·w missing", "log of base 2", "mean over all"}
ZERO = {"Squeeze", "Squeeze, realnvp", "Permutation", "AdditiveCoupling"}


def specific() -> Iterator[tuple]:
    """(layer, name, make, mistake) of mistakes that belong to one layer."""
    yield from _actnorm()
    yield from _conv()
    yield from _coupling()
    yield from _split()
    yield from _shuffles()
    yield from _compositions()


def _actnorm():
    layer, x = actnorm_negative()
    s, b = layer.s, layer.b
    positive, _ = actnorm()
    hw = H * W

    def say(value):
        return lambda: (Wrong(layer, each(value)), x)

    def undo(inverse, of=layer):
        return lambda: (Wrong(of, inverse=inverse), x)

    log = np.log(np.abs(s))
    with np.errstate(invalid="ignore"):
        yield "ActNorm", "|·| missing: NaN", say(hw * np.log(s).sum()), "absolute value missing"
        yield "ActNorm", "|·| missing: nansum", say(hw * np.nansum(np.log(s))), "absolute value mis"
    yield "ActNorm", "|log s|", say(hw * np.abs(log).sum()), "absolute value outside the log"
    yield "ActNorm", "Σ s", say(hw * s.sum()), "log missing"
    yield "ActNorm", "Σ |s|", say(hw * np.abs(s).sum()), "log missing"
    yield "ActNorm", "Σ |s|, no h·w", say(np.abs(s).sum()), "log missing"
    yield "ActNorm", "Σ 1/s", say(hw * (1 / s).sum()), "log missing"
    yield "ActNorm", "−Σ 1/s", say(-hw * (1 / s).sum()), "log missing"
    yield "ActNorm", "log Σ |s|", say(hw * np.log(np.abs(s).sum())), "log of the sum"
    yield "ActNorm", "Σ b", say(hw * b.sum()), "shift for scale"
    yield "ActNorm", "Σ log |b|", say(hw * np.log(np.abs(b)).sum()), "shift for scale"
    yield "ActNorm", "h² for h·w", say(H * H * log.sum()), "h² for h·w"
    yield "ActNorm", "h·w·c", say(hw * len(s) * log.sum()), "c twice"
    yield "ActNorm", "log(|s| + 1e-6)", say(hw * np.log(np.abs(s) + 1e-6).sum()), "eps in the log"
    yield "ActNorm", "(h·w − 1)", say((hw - 1) * log.sum()), None
    wrong_axis = "sum over the wrong axis"
    yield "ActNorm", "shape (C,)", lambda: (Wrong(layer, lambda *_: hw * log), x), wrong_axis
    too_few = "sum over too few axes"
    shape_nhw = lambda a, y, r: np.full((len(a), H, W), log.sum())
    yield "ActNorm", "shape (N, H, W)", lambda: (Wrong(layer, shape_nhw), x), too_few
    shape_nc = lambda a, y, r: np.tile(hw * log, (len(a), 1))
    yield "ActNorm", "shape (N, C)", lambda: (Wrong(layer, shape_nc), x), too_few
    shape_full = lambda a, y, r: np.broadcast_to(log, a.shape)
    yield "ActNorm", "shape (N, H, W, C)", lambda: (Wrong(layer, shape_full), x), too_few
    yield (
        "ActNorm",
        "−log s, not summed",
        lambda: (Wrong(layer, lambda a, *_: -shape_full(a, 0, 0)), x),
        "sign flipped",
    )
    shape_n1 = lambda a, y, r: r[:, None]
    yield "ActNorm", "shape (N, 1)", lambda: (Wrong(layer, shape_n1), x), too_few
    scalar = lambda a, y, r: hw * log.sum()
    yield "ActNorm", "scalar", lambda: (Wrong(layer, scalar), x), "not per example"
    order = "shift and scale in the wrong order"
    yield "ActNorm", "y/s − b", undo(lambda y: y / s - b), order
    yield "ActNorm", "y/s", undo(lambda y: y / s), "shift forgotten"
    yield "ActNorm", "y − b", undo(lambda y: y - b), "scale forgotten"
    yield "ActNorm", "(y + b)/s", undo(lambda y: (y + b) / s), "shift added"
    yield "ActNorm", "(y − b)·s", undo(lambda y: (y - b) * s), "multiplies by the scale"
    yield "ActNorm", "1/(s + 1e-6)", undo(lambda y: (y - b) / (s + 1e-6)), "eps in one only"
    mixed = lambda a: (s * (a + b), layer.forward(a)[1])
    yield "ActNorm", "s(x + b) forward", lambda: (Wrong(layer, None, mixed), x), order
    absolute = lambda a: (np.abs(s * a), layer.forward(a)[1])
    yield "ActNorm", "|s x|", lambda: (Wrong(layer, None, absolute), x), "not invertible"
    squared = lambda a: (a**2, np.log(2 * np.abs(a)).reshape(len(a), -1).sum(1))
    yield "ActNorm", "x²", lambda: (squared, x), "not invertible"
    dead = lambda a: (a * (np.arange(C) > 0), np.zeros(len(a)))
    yield "ActNorm", "a zero scale", lambda: (dead, x), "not invertible here"
    relu = lambda a: (np.maximum(a, 0), np.zeros(len(a)))
    yield "ActNorm", "ReLU", lambda: (relu, x), "not invertible here"
    rounded = lambda a: (np.round(a, 1), np.zeros(len(a)))
    yield "ActNorm", "rounds", lambda: (rounded, x), "not invertible here"
    yield "ActNorm", "mean over pixels", lambda: _with(actnorm, scaled(1 / hw)), "h·w missing"
    swapped = lambda a, y, r: r * a[:, 0, 0, 0] / a[::-1, 0, 0, 0]
    yield "ActNorm", "depends on x", lambda: (Wrong(positive, swapped), x), None


def _conv():
    right, x = conv()
    w, hw = right.W, H * W
    det = np.linalg.det(w)
    log = np.log(abs(det))

    def say(value):
        return lambda: (Wrong(right, each(value)), x)

    def undo(inverse):
        return lambda: (Wrong(right, inverse=inverse), x)

    for name in ("Conv1x1", "Conv1x1LU"):
        with np.errstate(invalid="ignore"):
            yield name, "log det W", say(hw * np.log(det)), "absolute value missing"
        yield name, "det W", say(hw * det), "log missing"
        yield name, "|det W|", say(hw * abs(det)), "log missing"
        yield name, "|det W|, no h·w", say(abs(det)), "log missing"
        yield name, "LU slide without h·w", say(log), "h·w missing"
        diagonal = hw * np.log(np.abs(np.diag(w))).sum()
        yield name, "Σ log|W_ii|", say(diagonal), "diagonal for determinant"
        yield name, "h·w·|log|det W||", say(hw * abs(log) * (1 if log < 0 else -1)), "sign flipped"
        yield name, "Wᵀ for W⁻¹", undo(lambda y: y @ w), "transpose for inverse"
        yield name, "W for W⁻¹", undo(lambda y: y @ w.T), "inverse is the forward"
        inverse = np.linalg.inv(w)
        yield name, "(W⁻¹)ᵀ", undo(lambda y, i=inverse: y @ i), "transpose for"
        near = np.linalg.inv(w + 1e-9 * np.eye(C))
        yield name, "W + 1e-9 in one only", undo(lambda y, i=near: y @ i.T), "imprecise"
        single = np.linalg.inv(w.astype(np.float32)).astype(np.float64)
        yield name, "inv in float32", undo(lambda y, i=single: y @ i.T), "imprecise"
    lu_right, _ = lu()
    parts = np.log(np.abs(lu_right.s))
    yield "Conv1x1LU", "Σ s", lambda: _with(lu, each(hw * lu_right.s.sum())), None
    yield "Conv1x1LU", "Σ|log s|", lambda: _with(lu, each(hw * np.abs(parts).sum())), None
    singular = lambda a: (a @ np.ones((C, C)), np.zeros(len(a)))
    yield "Conv1x1", "singular W", lambda: (singular, x), "not invertible here"


class BareCoupling:
    """The affine coupling with its parts open, to be got wrong."""

    def __init__(self, scale="exp", **wrong) -> None:
        self.net, self.scale, self.wrong = net(C // 2, C), scale, wrong

    def parts(self, x_b):
        raw, t = halves(self.net(x_b))
        s = np.exp(raw) if self.scale == "exp" else 1 / (1 + np.exp(-raw - 2))
        return raw, s, t

    def forward(self, x):
        x_a, x_b = halves(x)
        raw, s, t = self.parts(x_b)
        y_a = s * x_a + t if self.scale == "exp" else s * (x_a + t)
        logdet = self.wrong.get("logdet", lambda raw, s, t: np.log(s))(raw, s, t)
        return np.concatenate([y_a, x_b], -1), logdet.reshape(len(x), -1).sum(1)

    def inverse(self, y):
        if "inverse" in self.wrong:
            return self.wrong["inverse"](self, y)
        y_a, y_b = halves(y)
        _, s, t = self.parts(y_b)
        x_a = (y_a - t) / s if self.scale == "exp" else y_a / s - t
        return np.concatenate([x_a, y_b], -1)


def _coupling():
    x = images(4, 3)

    def bare(scale="exp", **wrong):
        return lambda: (BareCoupling(scale, **wrong), x)

    def undo(rule):
        def inverse(self, y):
            y_a, y_b = halves(y)
            _, s, t = self.parts(y_b)
            return np.concatenate([rule(y_a, s, t), y_b], -1)

        return inverse

    def other_half(self, y):
        y_a, y_b = halves(y)
        _, s, t = self.parts(y_a)
        return np.concatenate([y_a, (y_b - t) / s], -1)

    def from_y_a(self, y):
        y_a, y_b = halves(y)
        _, s, t = self.parts(y_a)
        return np.concatenate([(y_a - t) / s, y_b], -1)

    order = "shift and scale in the wrong order"
    e, g = "AffineCoupling, exp", "AffineCoupling, sigmoid"
    yield e, "Σ s", bare(logdet=lambda raw, s, t: s), "log missing"
    yield e, "Σ t", bare(logdet=lambda raw, s, t: t), "shift for scale"
    yield e, "Σ |log s|", bare(logdet=lambda raw, s, t: np.abs(raw)), "absolute value outside"
    yield e, "exp twice", bare(logdet=lambda raw, s, t: np.exp(s)), None
    yield e, "log(s + 1e-5)", bare(logdet=lambda raw, s, t: np.log(s + 1e-5)), "eps in the log"
    yield e, "mean", lambda: _with(affine, lambda a, y, r: r / (a[0].size / 2)), "mean for sum"
    yield (
        e,
        "first example for all",
        lambda: _with(affine, lambda a, y, r: np.full(len(a), r[0])),
        "first example for all",
    )
    yield e, "examples swapped", lambda: _with(affine, lambda a, y, r: r[::-1]), "examples swapped"
    yield e, "y_a/s − t", bare(inverse=undo(lambda y, s, t: y / s - t)), order
    yield e, "(y_a + t)/s", bare(inverse=undo(lambda y, s, t: (y + t) / s)), "shift added"
    yield e, "y_a/s", bare(inverse=undo(lambda y, s, t: y / s)), "shift forgotten"
    yield e, "y_a − t", bare(inverse=undo(lambda y, s, t: y - t)), "scale forgotten"
    yield e, "(y_a − t)·s", bare(inverse=undo(lambda y, s, t: (y - t) * s)), "multiplies by the"
    eps = undo(lambda y, s, t: (y - t) / (s + 1e-6))
    yield e, "1/(s + 1e-6)", bare(inverse=eps), "eps in one only"
    yield e, "the other half", bare(inverse=other_half), "wrong half"
    yield e, "net sees y_a", bare(inverse=from_y_a), "wrong input to the net"
    yield g, "Σ raw", bare("sigmoid", logdet=lambda raw, s, t: raw), "scale before the sigmoid"
    yield (
        g,
        "+2 forgotten",
        bare("sigmoid", logdet=lambda raw, s, t: -np.log1p(np.exp(-raw))),
        "scale before the sigmoid",
    )
    yield g, "Σ s", bare("sigmoid", logdet=lambda raw, s, t: s), "log missing"
    yield g, "Σ t", bare("sigmoid", logdet=lambda raw, s, t: t), "shift for scale"
    yield g, "(y_a − t)/s", bare("sigmoid", inverse=undo(lambda y, s, t: (y - t) / s)), order
    yield g, "the other half", bare("sigmoid", inverse=other_half), "wrong half"

    right, _ = additive()

    def add_undo(rule):
        def inverse(y):
            y_a, y_b = halves(y)
            return np.concatenate(rule(y_a, y_b), -1)

        return lambda: (Wrong(right, inverse=inverse), x)

    a = "AdditiveCoupling"
    yield a, "y_a + t", add_undo(lambda p, q: [p + right.net(q), q]), "shift added"
    yield a, "the other half", add_undo(lambda p, q: [p, q - right.net(p)]), "wrong half"
    yield a, "net sees y_a", add_undo(lambda p, q: [p - right.net(p), q]), "wrong input"
    summed = lambda x, y, r: (y - x).reshape(len(x), -1).sum(1)
    yield a, "Σ t", lambda: (Wrong(right, summed), x), "shift for scale"

    def both(v):  # y_b is changed with y_a's new value used for the log-det only
        p, q = halves(v)
        return np.concatenate([p * q, q], -1), np.zeros(len(v))

    yield a, "multiplies", lambda: (both, x), "zero"
    blind = lambda v: (np.concatenate([halves(v)[1]] * 2, -1), np.zeros(len(v)))
    yield a, "x_a lost", lambda: (blind, x), "not invertible here"

    m_right, m_x = masked()
    m = "MaskedCoupling"
    other, _ = masked(1)
    yield m, "other parity", lambda: (Wrong(m_right, inverse=other.inverse), m_x), "wrong half"
    log_s = lambda v: halves(m_right.net(m_right.mask * v))[0]
    everything = lambda v, y, r: log_s(v).reshape(len(v), -1).sum(1)
    yield m, "log s not masked", lambda: (Wrong(m_right, everything), m_x), None
    stripes = (np.arange(20) % 2).reshape(5, 4, 1).astype(float)
    striped = ref.MaskedCoupling(stripes, m_right.net)
    yield m, "stripes in one only", lambda: (Wrong(m_right, inverse=striped.inverse), m_x), None


def _split():
    right, x = split()

    def parts(v):
        h, z = halves(v)
        return (h, z, *right._mean_and_log_sd(h))

    def undo(rule):
        def inverse(y):
            h, eps, mean, log_sd = parts(y)
            return np.concatenate([h, rule(eps, mean, np.exp(log_sd))], -1)

        return lambda: (Wrong(right, inverse=inverse), x)

    yield (
        "Split",
        "Σ σ",
        lambda: _with(split, lambda v, y, r: -np.exp(parts(v)[3]).reshape(len(v), -1).sum(1)),
        "log missing",
    )
    yield (
        "Split",
        "Σ μ",
        lambda: _with(split, lambda v, y, r: parts(v)[2].reshape(len(v), -1).sum(1)),
        None,
    )
    yield "Split", "σ(ε + μ)", undo(lambda e, mean, sd: sd * (e + mean)), "shift and scale"
    yield "Split", "μ forgotten", undo(lambda e, mean, sd: sd * e), "shift forgotten"
    yield "Split", "σ forgotten", undo(lambda e, mean, sd: e + mean), "scale forgotten"
    rng = np.random.default_rng(0)
    fresh = undo(lambda e, mean, sd: mean + sd * rng.standard_normal(e.shape))
    yield "Split", "latents drawn anew", fresh, "not deterministic"
    lost = lambda v: (halves(v)[0], np.zeros(len(v)))
    yield "Split", "z thrown away", lambda: (lost, x), "wrong shape"
    top_right, _ = top()
    yield (
        "TopPrior",
        "Σ σ",
        lambda: _with(top, each(H * W * np.exp(-top_right.log_sd).sum())),
        "log missing",
    )


def _shuffles():
    for name, make, other in (
        ("Squeeze", squeeze, "realnvp"), ("Squeeze, realnvp", squeeze_realnvp, "glow")
    ):  # fmt: skip
        right, x = make()
        order = "entries in the wrong order"
        swapped = ref.Squeeze(other).inverse
        yield (
            name,
            "the other order",
            lambda r=right, i=swapped, x=x: (Wrong(r, inverse=i), x),
            order,
        )
        flat = lambda y: y.reshape(len(y), 4, 6, 3)
        yield name, "reshape alone", lambda r=right, i=flat, x=x: (Wrong(r, inverse=i), x), order
        hw = each(4.0 * 6.0)
        yield name, "log-det h·w", lambda r=right, x=x: (Wrong(r, hw), x), "should be 0"
        pooled = lambda v: (v.reshape(len(v), -1)[:, ::4], np.zeros(len(v)))
        yield name, "drops pixels", lambda x=x: (pooled, x), "wrong shape"
        same = lambda v: (v[..., [0, 0, 1]], np.zeros(len(v)))
        yield name, "repeats a channel", lambda x=x: (same, x), "not invertible here"
    right, x = permutation()
    again = lambda y: right.forward(y)[0]
    twice = "inverse is the forward"
    yield "Permutation", "indices for argsort", lambda: (Wrong(right, inverse=again), x), twice
    back = lambda y: y[..., ::-1]
    order = "entries in the wrong order"
    yield "Permutation", "reversed", lambda: (Wrong(right, inverse=back), x), order
    spatial = lambda y: right.inverse(y)[:, ::-1]
    yield "Permutation", "flips rows too", lambda: (Wrong(right, inverse=spatial), x), order
    rng = np.random.default_rng(0)
    anew = lambda v: (v[..., rng.permutation(C)], np.zeros(len(v)))
    yield "Permutation", "drawn at each call", lambda: (anew, x), "not deterministic"
    batch = lambda v: (v[::-1], np.zeros(len(v)))
    yield "Permutation", "shuffles examples", lambda: (batch, x), "mixes examples"
    yield "Permutation", "log c!", lambda: (Wrong(right, each(np.log(720.0))), x), "should be 0"


class Chain(ref.Flow):
    """A composition with its sum or its order got wrong."""

    def __init__(self, layers, total=None, order=reversed) -> None:
        super().__init__(layers)
        self.total, self.order = total, order

    def forward(self, x):
        parts = []
        for layer in self.layers:
            x, logdet = layer.forward(x)
            parts.append(logdet)
        return x, (sum(parts) if self.total is None else self.total(parts))

    def inverse(self, z):
        for layer in self.order(self.layers):
            z = layer.inverse(z)
        return z


def _compositions():
    right, x = step()
    steps = right.layers
    left_out = lambda p: sum(p[1:])
    yield "Step", "one left out", lambda: (Chain(steps, left_out), x), "step forgotten"
    yield "Step", "last only", lambda: (Chain(steps, lambda p: p[-1]), x), "one step only"
    doubled = lambda p: sum(p) + p[1]
    yield "Step", "one counted twice", lambda: (Chain(steps, doubled), x), "step counted twice"
    product = lambda p: p[0] * p[1] * p[2]
    yield "Step", "product", lambda: (Chain(steps, product), x), None
    yield "Step", "order kept", lambda: (Chain(steps, order=list), x), "steps in the wrong order"
    sick = Wrong(steps[1], lambda v, y, r: r / pixels(v))
    yield "Step", "h·w missing inside", lambda: (ref.Flow([steps[0], sick, steps[2]]), x), "h·w mis"
    bent = Wrong(steps[0], inverse=lambda y: y / steps[0].s - steps[0].b)
    wrong = "shift and scale in the wrong order"
    yield "Step", "inverse wrong inside", lambda: (ref.Flow([bent, *steps[1:]]), x), wrong

    model, x_nice = nice()
    no_scale = lambda v, y, r: np.zeros(len(v))
    yield "NICE", "scale forgotten", lambda: (Wrong(model, no_scale), x_nice), "zero"
    flat = Flatten((3, 4, 2))
    coupling = ref.AdditiveCoupling(mlp(12, 12, 12, np.random.default_rng(0)))
    twisted = Wrong(coupling, inverse=lambda y: coupling.forward(y)[0])
    yield "NICE", "coupling's sign", lambda: (ref.Flow([flat, twisted]), x_nice), "shift added"

    big, x_big = glow()
    no_split = lambda v, y, r: r - _split_part(big, v)
    yield "Glow", "split prior left out", lambda: (Wrong(big, no_split), x_big), None
    zero_eps = lambda y: big.decode([np.zeros_like(z) if i == 0 else z
                                     for i, z in enumerate(big.unflatten(y))])  # fmt: skip
    yield "Glow", "latents resampled", lambda: (Wrong(big, inverse=zero_eps), x_big), None


def _split_part(model, x):
    h, _ = model.levels[0].forward(x)
    return model.splits[0].forward(h)[1]


def bank() -> list[Mutant]:
    """Every mutant."""
    every = []
    for layer, make in RIGHT.items():
        for name, wrong, mistake in common(make):
            if layer in FULL or name in SOME:
                if layer in ZERO and name in OF_LOGDET:
                    continue  # not a mistake there
                if layer in SHAPED and name == "inverse is the forward":
                    mistake = "raises"
                every.append(Mutant(layer, name, wrong, mistake))
    names = {m.layer for m in every}
    for layer, name, make, mistake in specific():
        assert layer in names, layer
        every.append(Mutant(layer, name, make, mistake))
    return every
