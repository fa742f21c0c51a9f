"""Exercises of notebook 01, the change of variables."""

import numpy as np

from course.exercise import Case, Exercise, Mutant, register
from course.judge import judge_layer
from course.predict import ask
from reference import Flow, jacobian

NOTEBOOK = "01_change_of_variables"
HALF_LOG_2PI = 0.5 * np.log(2 * np.pi)


# --- a density in one dimension -------------------------------------------------------------------


def log_density(x, f, df):
    z = f(x)
    log_p_z = -0.5 * z**2 - 0.5 * np.log(2 * np.pi)
    return log_p_z + np.log(np.abs(df(x)))


def _log_normal(z):
    return -0.5 * z**2 - HALF_LOG_2PI


def _measured(x, f, df):
    """The truth, without df: dz/dx is measured."""
    slope = [jacobian(f, np.array([v])).value[0, 0] for v in x]
    return _log_normal(f(x)) + np.log(np.abs(slope))


register(
    Exercise(
        id="change.density",
        notebook=NOTEBOOK,
        title="The log-density of x = g(z)",
        minutes=5,
        difficulty=1,
        stub='''
def log_density(x, f, df):
    """log p(x) at each entry of x, where z = f(x) ~ N(0, 1) and df(x) is dz/dx."""
    ...
''',
        solution=log_density,
        truth=_measured,
        returns=("log p(x)",),
        cases=(
            Case(
                "the falling map z = −2x + 1",
                (np.array([-1.3, 0.2, 0.7, 2.1]), lambda x: -2 * x + 1, lambda x: -2 + 0 * x),
            ),
            Case(
                "the two-humped z = sinh(x)/5",
                (np.array([-2.5, -0.4, 1.1]), lambda x: np.sinh(x) / 5, lambda x: np.cosh(x) / 5),
            ),
            Case(
                "the falling cubic z = −x − x³",
                (
                    np.array([-0.8, 0.3, 0.9, 1.2, 1.4]),
                    lambda x: -x - x**3,
                    lambda x: -1 - 3 * x**2,
                ),
            ),
        ),
        hints=(
            "Two terms: the log-density of the standard normal at z = f(x), and the log of how "
            "much f stretches there.",
            "log N(z; 0, 1) = −z²/2 − ½ log(2π). The second term is log|dz/dx|, with bars, for f "
            "may fall.",
        ),
        explanation="log p(x) = log p(z) + log|dz/dx|, the slide's formula with one dimension.",
        mutants=(
            Mutant(
                "no log|dz/dx|",
                lambda x, f, df: _log_normal(f(x)),
                "log|dz/dx| is missing: this carries the height of p(z) over to x and forgets that "
                "f stretches. It does not integrate to 1.",
            ),
            Mutant(
                "no |·|",
                lambda x, f, df: _log_normal(f(x)) + np.log(df(x)),
                "It takes log(dz/dx) without |·|: where f falls, dz/dx is negative and its log is "
                "not a number. A density does not care which way f runs.",
            ),
            Mutant(
                "minus",
                lambda x, f, df: _log_normal(f(x)) - np.log(np.abs(df(x))),
                "It subtracts log|dz/dx|. That would be right with dx/dz: where f stretches x, the "
                "same x-interval catches more of the noise, so the density is higher.",
            ),
            Mutant(
                "the density itself",
                lambda x, f, df: np.exp(_measured(x, f, df)),
                "That is p(x); the logarithm log p(x) is asked for.",
            ),
            Mutant(
                "the normal at x",
                lambda x, f, df: _log_normal(x) + np.log(np.abs(df(x))),
                "It evaluates the normal density at x. The noise is z = f(x): put that in.",
            ),
            Mutant(
                "no constant",
                lambda x, f, df: -0.5 * f(x) ** 2 + np.log(np.abs(df(x))),
                "The constant −½ log(2π) of the normal density is missing; without it p(x) "
                "integrates to √(2π), about 2.5.",
            ),
            Mutant(
                "|dz/dx| without log",
                lambda x, f, df: _log_normal(f(x)) + np.abs(df(x)),
                "It adds |dz/dx| itself: densities multiply, so their logs add. Take log|dz/dx|.",
            ),
            Mutant(
                "base 2",
                lambda x, f, df: _log_normal(f(x)) + np.log2(np.abs(df(x))),
                "It mixes logarithms: log|dz/dx| in base 2 beside a natural one. Use `np.log`.",
            ),
            Mutant(
                "df at z",
                lambda x, f, df: _log_normal(f(x)) + np.log(np.abs(df(f(x)))),
                "It takes the derivative at z. dz/dx is a function of x: df(x), where x is.",
            ),
            Mutant(
                "no half",
                lambda x, f, df: _log_normal(f(x)) - 0.5 * f(x) ** 2 + np.log(np.abs(df(x))),
                "The normal density has −z²/2, not −z².",
            ),
            Mutant(
                "p(z) for log p(z)",
                lambda x, f, df: np.exp(_log_normal(f(x))) + np.log(np.abs(df(x))),
                "It adds p(z) itself to a logarithm: take log p(z).",
            ),
            Mutant(
                "bars outside",
                lambda x, f, df: _log_normal(f(x)) + np.abs(np.log(df(x))),
                "The bars stand outside the log, |log(·)|; they belong inside, log|·|. Where f falls "
                "the log of dz/dx is not a number, and where f squeezes it is rightly negative.",
            ),
            Mutant(
                "multiplies the log",
                lambda x, f, df: _log_normal(f(x)) * np.abs(df(x)),
                "It multiplies log p(z) by |dz/dx|. The density p(z) is multiplied by it; to its "
                "logarithm log|dz/dx| is added.",
            ),
            Mutant(
                "multiplies the logs",
                lambda x, f, df: _log_normal(f(x)) * np.log(np.abs(df(x))),
                "It multiplies two logarithms. The log of a product is the sum of the logs.",
            ),
            Mutant(
                "log 2π whole",
                lambda x, f, df: log_density(x, f, df) - HALF_LOG_2PI,
                "The constant is −½ log(2π); it subtracts log(2π), twice as much.",
            ),
            Mutant(
                "summed", lambda x, f, df: log_density(x, f, df).sum(), deserves="should have shape"
            ),
        ),
    )
)


# --- the log-determinant by finite differences ----------------------------------------------------


def log_abs_det(f, x, h):
    columns = []
    for j in range(len(x)):
        e = np.zeros(len(x))
        e[j] = h
        columns.append((f(x + e) - f(x - e)) / (2 * h))
    return np.linalg.slogdet(np.stack(columns, axis=1))[1]


def _differences(f, x, h, lower=1, upper=1):
    """Rows dy/dx_j by differences from x − lower·h to x + upper·h."""
    steps = h * np.eye(len(x))
    return np.stack([(f(x + upper * e) - f(x - lower * e)) / ((lower + upper) * h) for e in steps])


def _in_place(f, x, h):
    columns = []
    for j in range(len(x)):
        x[j] += h
        columns.append(f(x).copy())
        x[j] -= 2 * h
        columns[-1] = (columns[-1] - f(x)) / (2 * h)
        x[j] += h + 1e-12
    return np.linalg.slogdet(np.stack(columns))[1]


def _wave(x):
    """A 2-D map that keeps orientation."""
    a = x[..., 0] * np.exp(0.8 * np.sin(x[..., 1])) + x[..., 1] ** 2
    return np.stack([a, x[..., 1] + 0.5 * np.tanh(a)], axis=-1)


def _mirror(x):
    """The same in a mirror: det J < 0."""
    return _wave(x)[..., ::-1]


def _three(x):
    a, b, c = np.moveaxis(x, -1, 0)
    return np.stack([2.5 * a + b * c, np.sinh(b) - 0.4 * a, 0.3 * c + a * b], axis=-1)


register(
    Exercise(
        id="change.logdet",
        notebook=NOTEBOOK,
        title="A log-determinant, measured",
        minutes=8,
        difficulty=2,
        stub='''
def log_abs_det(f, x, h):
    """log|det J| of f at the point x of shape (D,), by central differences with step h."""
    ...
''',
        solution=log_abs_det,
        truth=lambda f, x, h: jacobian(f, x).logabsdet,
        returns=("log|det J|",),
        rtol=1e-6,
        cases=(
            Case("a 2-D warp", (_wave, np.array([0.7, -1.2]), 1e-4)),
            Case("a 2-D warp in a mirror, det J < 0", (_mirror, np.array([-0.4, 0.9]), 1e-4)),
            Case("a map of three numbers", (_three, np.array([0.6, 1.1, -1.7]), 1e-4)),
        ),
        hints=(
            "One column at a time: with e the j-th unit vector times h, column j of J is "
            "(f(x + e) − f(x − e)) / 2h.",
            "Stack the columns into a matrix; `np.linalg.slogdet(J)` returns the sign and "
            "log|det J|.",
        ),
        explanation="Two evaluations of f for each number in x. The transpose has the same "
        "determinant, so rows in place of columns would do.",
        mutants=(
            Mutant(
                "forward difference",
                lambda f, x, h: np.linalg.slogdet(_differences(f, x, h, lower=0))[1],
                "It takes differences to one side, (f(x + h) − f(x))/h, whose error shrinks like "
                "h. Central differences err like h², and cost the same.",
            ),
            Mutant(
                "one-sided, backwards",
                lambda f, x, h: np.linalg.slogdet(_differences(f, x, h, upper=0))[1],
                "It takes differences to one side, (f(x) − f(x − h))/h, whose error shrinks like "
                "h. Central differences err like h².",
            ),
            Mutant(
                "divides by h",
                lambda f, x, h: np.linalg.slogdet(2 * _differences(f, x, h))[1],
                "The two points are 2h apart, and it divides by h: every entry of J is doubled, so "
                "log|det J| is too large by D·log 2.",
            ),
            Mutant(
                "2*h without brackets",
                lambda f, x, h: np.linalg.slogdet(h**2 * _differences(f, x, h))[1],
                "It divides by 2 and *multiplies* by h: Python reads `a / 2*h` as (a/2)·h. Brackets: "
                "`/ (2*h)`.",
            ),
            Mutant(
                "does not divide",
                lambda f, x, h: np.linalg.slogdet(2 * h * _differences(f, x, h))[1],
                "The differences are not divided by the distance of the two points, 2h.",
            ),
            Mutant(
                "a step of 1",
                lambda f, x, h: np.linalg.slogdet(_differences(f, x, 1.0) / h)[1],
                "It nudges x_j by 1, a whole unit vector, and divides by 2h. Nudge by h: x + h·e_j.",
            ),
            Mutant(
                "no |·|",
                lambda f, x, h: np.log(np.linalg.det(_differences(f, x, h))),
                "It takes log(det J) without |·|: the mirror has det J < 0, and the log of that is "
                "not a number.",
            ),
            Mutant(
                "no log",
                lambda f, x, h: abs(np.linalg.det(_differences(f, x, h))),
                "That is |det J|; its logarithm is asked for.",
            ),
            Mutant(
                "the sign",
                lambda f, x, h: np.linalg.slogdet(_differences(f, x, h))[0],
                "That is the sign of det J. `slogdet` returns a pair; log|det J| is the second.",
            ),
            Mutant(
                "the inverse's",
                lambda f, x, h: -np.linalg.slogdet(_differences(f, x, h))[1],
                "The sign is turned over: that is the log-determinant of the inverse map.",
            ),
            Mutant(
                "diagonal only",
                lambda f, x, h: np.log(np.abs(np.diag(_differences(f, x, h)))).sum(),
                "It uses the diagonal of J only. That is enough when J is triangular; here it is "
                "full.",
            ),
            Mutant(
                "det with its sign",
                lambda f, x, h: np.linalg.det(_differences(f, x, h)),
                "That is det J with its sign. Take |·| and then the logarithm.",
            ),
            Mutant(
                "bars outside",
                lambda f, x, h: np.abs(np.log(np.linalg.det(_differences(f, x, h)))),
                "The bars stand outside the log, |log(·)|; they belong inside, log|·|.",
            ),
            Mutant(
                "log of every entry",
                lambda f, x, h: np.log(np.abs(_differences(f, x, h))).sum(),
                "It adds up the logs of all entries of J. The determinant of the matrix is "
                "wanted first, then one logarithm.",
            ),
            Mutant(
                "all at once",
                lambda f, x, h: np.log(np.abs((f(x + h) - f(x - h)) / (2 * h))).sum(),
                "It nudges all numbers of x at once, which gives one direction, not a matrix. "
                "Nudge one x_j at a time: each gives a column of J.",
            ),
            Mutant(
                "trace",
                lambda f, x, h: np.log(np.abs(np.trace(_differences(f, x, h)))),
                "It takes the trace. Volumes multiply: the determinant is wanted.",
            ),
            Mutant(
                "base 2",
                lambda f, x, h: np.linalg.slogdet(_differences(f, x, h))[1] / np.log(2),
                "It uses the logarithm to base 2; log-determinants are in nats, `np.log`.",
            ),
            Mutant("moves x in place", _in_place, deserves="changed its argument x in place"),
            Mutant(
                "slogdet whole",
                lambda f, x, h: tuple(np.linalg.slogdet(_differences(f, x, h))),
                "`slogdet` returns a pair, the sign and log|det J|. Return the second alone.",
            ),
        ),
    )
)


# --- composition ----------------------------------------------------------------------------------


def compose(x, layers):
    h, total = x, np.zeros(len(x))
    for layer in layers:
        h, logdet = layer(h)
        total = total + logdet
    return h, total


class _Function:
    """A layer for `Flow` from a function h -> (h, logdet)."""

    def __init__(self, forward):
        self.forward = forward

    def inverse(self, y):
        raise NotImplementedError


def _stretch(h):
    return np.sinh(h), np.log(np.cosh(h)).sum(1)


def _shear(h):
    return np.concatenate([h[:, :1] + h[:, 1:2] ** 2, h[:, 1:]], axis=1), np.zeros(len(h))


def _scale(h):
    return h * np.linspace(-1.5, 0.7, h.shape[1]), np.full(
        len(h), np.log(np.abs(np.linspace(-1.5, 0.7, h.shape[1]))).sum()
    )


def _wobble(h):
    return h + 0.5 * np.tanh(h), np.log(1 + 0.5 / np.cosh(h) ** 2).sum(1)


def _batch(n, d, seed):
    return np.random.default_rng(seed).normal(size=(n, d))


def _each(x, layers):
    """The log-dets along the way, (K, N)."""
    out = []
    for layer in layers:
        x, logdet = layer(x)
        out.append(logdet)
    return np.array(out)


register(
    Exercise(
        id="change.composition",
        notebook=NOTEBOOK,
        title="Composition: the log-dets add",
        minutes=5,
        difficulty=2,
        stub='''
def compose(x, layers):
    """Apply layers[0] first. A layer is a function h -> (new h, logdet of shape (N,)).

    Return z and log|det dz/dx|, of shape (N,).
    """
    ...
''',
        solution=compose,
        truth=lambda x, layers: Flow([_Function(f) for f in layers]).forward(x),
        returns=("z", "logdet"),
        cases=(
            Case("three maps of two numbers", (_batch(4, 2, 1), [_shear, _scale, _stretch])),
            Case(
                "four maps of four numbers", (_batch(3, 4, 2), [_stretch, _shear, _wobble, _scale])
            ),
            Case(
                "five maps, two of them the same",
                (0.5 * _batch(2, 2, 3), [_wobble, _stretch, _scale, _wobble, _shear]),
            ),
        ),
        hints=(
            "Keep two variables: h, which starts as x, and a total, which starts as zeros of shape "
            "(N,).",
            "Each layer is called with the h that the one before returned; its log-det belongs to "
            "that h.",
        ),
        explanation="det(A·B) = det A · det B, so the logs add. Every log-det is taken where the "
        "point is when the layer meets it, at h_{i−1}.",
        mutants=(
            Mutant(
                "last first",
                lambda x, layers: compose(x, layers[::-1]),
                "It applies the last layer first. On the slide h₁ = f₁(x): `layers[0]` comes "
                "first, whatever the order in which f = f_K ∘ … ∘ f₁ is written.",
            ),
            Mutant(
                "log-dets at x",
                lambda x, layers: (compose(x, layers)[0], sum(f(x)[1] for f in layers)),
                "It takes every log-det at x. The slide has dh_i/dh_{i−1}: each at the point where "
                "its layer is applied, h_{i−1}.",
            ),
            Mutant(
                "the last one only",
                lambda x, layers: (compose(x, layers)[0], _each(x, layers)[-1]),
                "It returns the log-det of the last layer alone; add up those of all layers.",
            ),
            Mutant(
                "one too few",
                lambda x, layers: (compose(x, layers)[0], _each(x, layers)[:-1].sum(0)),
                "The last layer's log-det is missing from the sum. The deck's indices invite this: "
                "with z = h_{K+1} a sum to K stops one early.",
            ),
            Mutant(
                "the first is missing",
                lambda x, layers: (compose(x, layers)[0], _each(x, layers)[1:].sum(0)),
                "The first layer's log-det is missing from the sum.",
            ),
            Mutant(
                "mean",
                lambda x, layers: (compose(x, layers)[0], _each(x, layers).mean(0)),
                "It takes the mean of the log-dets; volumes multiply, so logs add up.",
            ),
            Mutant(
                "product",
                lambda x, layers: (compose(x, layers)[0], _each(x, layers).prod(0)),
                "It multiplies the log-dets. The determinants multiply; their logs add.",
            ),
            Mutant(
                "the determinant",
                lambda x, layers: (compose(x, layers)[0], np.exp(compose(x, layers)[1])),
                "The second part is the determinant itself, a product; log|det| is asked for, the sum "
                "of the log-dets.",
            ),
            Mutant(
                "|log-dets|",
                lambda x, layers: (compose(x, layers)[0], np.abs(_each(x, layers)).sum(0)),
                "It adds up absolute values. A layer that squeezes space has a negative log-det, and "
                "it counts as such.",
            ),
            Mutant(
                "first layer only",
                lambda x, layers: layers[0](x),
                "It stops after the first layer: is the `return` inside the loop?",
            ),
            Mutant(
                "does not pass h on",
                lambda x, layers: (layers[-1](x)[0], sum(f(x)[1] for f in layers)),
                "Every layer is given x. Hand each one what the layer before returned.",
            ),
            Mutant(
                "log-dets too late",
                lambda x, layers: (
                    compose(x, layers)[0],
                    compose(x, [lambda h, f=f: (f(h)[0], f(f(h)[0])[1]) for f in layers])[1],
                ),
                "It takes the log-det of each layer at its output, h_i. It belongs to the point "
                "where the layer is applied, h_{i−1}: one call gives both.",
            ),
            Mutant(
                "whole batch",
                lambda x, layers: (compose(x, layers)[0], compose(x, layers)[1].sum()),
                deserves="should have shape",
            ),
            Mutant(
                "z only", lambda x, layers: compose(x, layers)[0], deserves="a tuple (z, logdet)"
            ),
        ),
    )
)


# --- triangular Jacobians -------------------------------------------------------------------------


def log_abs_det_triangular(J):
    return np.log(np.abs(np.diag(J))).sum()


def _triangular(diagonal, seed, lower=False, unknown=False):
    """A triangular matrix; with `unknown`, nobody has computed the entries off the diagonal."""
    d = len(diagonal)
    off = np.random.default_rng(seed).normal(size=(d, d))
    if unknown:
        off[:] = np.nan
    J = np.tril(off, -1) if lower else np.triu(off, 1)
    J[np.diag_indices(d)] = diagonal
    return J


_MANY = np.random.default_rng(5).uniform(0.001, 0.01, 300)

register(
    Exercise(
        id="change.triangular",
        notebook=NOTEBOOK,
        title="log|det| of a triangular matrix in O(D)",
        minutes=3,
        difficulty=1,
        stub='''
def log_abs_det_triangular(J):
    """log|det J| of a triangular J of shape (D, D), looking at D of its entries only."""
    ...
''',
        solution=log_abs_det_triangular,
        truth=lambda J: float(sum(np.log(abs(J[k, k])) for k in range(len(J)))),
        returns=("log|det J|",),
        cases=(
            Case(
                "an upper triangular 5 × 5 matrix with det J < 0",
                (_triangular([-1.4, 2.2, 0.3, 1.7, 0.9], 1),),
            ),
            Case(
                "a lower triangular 4 × 4 matrix",
                (_triangular([0.6, -2.4, -1.3, 3.1], 2, lower=True),),
            ),
            Case(
                "an upper triangular 300 × 300 matrix with small entries on its diagonal",
                (_triangular(_MANY, 3),),
            ),
            Case(
                "a 6 × 6 matrix whose entries off the diagonal nobody computed (they are NaN)",
                (_triangular([1.2, -0.7, 2.9, 0.4, -1.9, 0.8], 4, unknown=True),),
            ),
        ),
        hints=(
            "For a triangular matrix the determinant is the product of the diagonal.",
            "`np.diag(J)` is the diagonal. Take |·| and log of each entry, then add up.",
        ),
        explanation="sum(log|diag|), as on the slide. The sum of logs does not underflow where the "
        "product of 300 small numbers does.",
        mutants=(
            Mutant(
                "slogdet",
                lambda J: np.linalg.slogdet(J)[1],
                "Right for the first points, but it factorises the whole matrix, about ⅔ D³ "
                "operations, and so needs entries that a triangular determinant does not depend "
                "on. One point has NaN there. The diagonal is enough.",
            ),
            Mutant(
                "det, then log",
                lambda J: np.log(np.abs(np.linalg.det(J))),
                "It computes the whole determinant and then its log. It reads entries that do not "
                "matter (NaN at one point), and the product of 300 small numbers underflows to 0. "
                "Add logs of the diagonal.",
            ),
            Mutant(
                "no |·|",
                lambda J: np.log(np.diag(J)).sum(),
                "It takes the log of the diagonal without |·|: some entries are negative, and "
                "their log is not a number.",
            ),
            Mutant(
                "|·| after the log",
                lambda J: np.abs(np.log(np.diag(J))).sum(),
                "The bars stand outside the log, |log(·)|; they belong inside, log|·|.",
            ),
            Mutant(
                "log of the product",
                lambda J: np.log(np.abs(np.prod(np.diag(J)))),
                "It multiplies first: 300 small numbers multiplied give 0 in floating point, and "
                "log 0 = −∞. Take logs first, then add.",
            ),
            Mutant(
                "log of the product, no |·|",
                lambda J: np.log(np.prod(np.diag(J))),
                "It multiplies first and leaves |·| out: a negative product has no log, and 300 small "
                "numbers multiplied give 0 in floating point. Add up log|·| of each.",
            ),
            Mutant(
                "the determinant",
                lambda J: np.prod(np.diag(J)),
                "That is det J itself. The log of its absolute value is asked for: sum(log|diag|).",
            ),
            Mutant(
                "nansum",
                lambda J: np.nansum(np.log(np.diag(J))),
                "It skips in silence what is not a number, and with it all negative entries. Ask where "
                "it comes from: log of a negative number.",
            ),
            Mutant(
                "log of the sum",
                lambda J: np.log(np.abs(np.diag(J).sum())),
                "It takes the log of a sum, log|trace|. The sum is of logs: sum(log|diag|).",
            ),
            Mutant(
                "mean",
                lambda J: np.log(np.abs(np.diag(J))).mean(),
                "It takes the mean of log|diag|; a determinant multiplies, so its log is the sum.",
            ),
            Mutant(
                "sign",
                lambda J: -np.log(np.abs(np.diag(J))).sum(),
                "The sign is turned over: this is log|det| of the inverse.",
            ),
            Mutant(
                "no log",
                lambda J: np.abs(np.diag(J)).sum(),
                "The log is missing: sum(log|diag|), not sum(|diag|).",
            ),
            Mutant(
                "trace",
                lambda J: np.diag(J).sum(),
                "That is the trace. The diagonal entries multiply, so their logs add: "
                "sum(log|diag|).",
            ),
            Mutant(
                "every entry",
                lambda J: np.log(np.abs(J)).sum(),
                "It takes the log of entries off the diagonal, zeros among them (log 0 = −∞). Only "
                "the diagonal counts.",
            ),
            Mutant(
                "det, no |·|",
                lambda J: np.log(np.linalg.det(J)),
                "It takes log(det J), of the whole matrix and without |·|. Where det J is "
                "negative that is not a number, and the diagonal alone is enough.",
            ),
            Mutant(
                "not summed", lambda J: np.log(np.abs(np.diag(J))), deserves="should have shape"
            ),
        ),
    )
)


# --- a broken layer to mend -----------------------------------------------------------------------


def sinh_layer(x, s):
    y = s * np.sinh(x)
    logdet = np.sum(np.log(np.abs(s)) + np.log(np.cosh(x)), axis=1)
    return y, logdet


def _sinh_truth(x, s):
    """y, and the log-det measured rather than derived."""
    J = [jacobian(lambda row: s * np.sinh(row), row) for row in x]
    return s * np.sinh(x), np.array([j.logabsdet for j in J])


def _sinh_mutant(logdet):
    return lambda x, s: (s * np.sinh(x), logdet(x, s))


_AXIS = (
    "It adds up over axis 0, the examples of the batch. Each example has its own "
    "log-determinant: add up over the numbers of one example."
)

register(
    Exercise(
        id="change.broken",
        notebook=NOTEBOOK,
        title="Broken layer: two faults to mend",
        minutes=6,
        difficulty=2,
        stub='''
def sinh_layer(x, s):
    """y = s ⊙ sinh(x) for x of shape (N, D), s of shape (D,); return y and logdet (N,)."""
    y = s * np.sinh(x)
    logdet = np.sum(np.log(s) + np.log(np.cosh(x)), axis=0)
    return y, logdet
''',
        stub_deserves="Two faults",
        solution=sinh_layer,
        truth=_sinh_truth,
        judge=judge_layer,
        returns=("y", "logdet"),
        rtol=1e-8,
        cases=(
            # N = D: the shape cannot give the wrong axis away.
            Case(
                "three examples of three numbers, one scale negative",
                (_batch(3, 3, 6), np.array([1.8, -0.6, 0.4])),
            ),
            Case(
                "four examples of two numbers, both scales negative",
                (_batch(4, 2, 7), np.array([-2.1, -0.3])),
            ),
            Case(
                "one example of five numbers",
                (_batch(1, 5, 8), np.array([0.5, 2.2, -1.1, 1.3, 0.7])),
            ),
        ),
        hints=(
            "What does `sum` run over? x has the shape (N, D); the result must have shape (N,).",
            "Where s is negative, what is `np.log(s)`? J is diagonal, with entries s_k cosh(x_k).",
        ),
        explanation="J is diagonal with entries s_k·cosh(x_k), so log|det J| = Σ_k log|s_k| + "
        "log cosh(x_k), for each example. (cosh is always positive and needs no bars.)",
        mutants=(
            Mutant(
                "as it stands",
                _sinh_mutant(lambda x, s: np.sum(np.log(s) + np.log(np.cosh(x)), axis=0)),
                "Two faults. It sums over axis 0, the batch, where each example should get its own "
                "number; and where s is negative, log(s) is not a number. Mend both.",
            ),
            Mutant(
                "axis mended only",
                _sinh_mutant(lambda x, s: np.sum(np.log(s) + np.log(np.cosh(x)), axis=1)),
                "One fault is mended, one is left: where a scale s is negative, log(s) is not a "
                "number. The volume is stretched by |s|.",
            ),
            Mutant(
                "|·| mended only",
                _sinh_mutant(lambda x, s: np.sum(np.log(np.abs(s)) + np.log(np.cosh(x)), axis=0)),
                "One fault is mended, one is left. " + _AXIS,
            ),
            Mutant(
                "drops s",
                _sinh_mutant(lambda x, s: np.log(np.cosh(x)).sum(1)),
                "log|s| is gone: the NaN is cured, and so is the scale's share of the volume.",
            ),
            Mutant(
                "nansum",
                _sinh_mutant(lambda x, s: np.nansum(np.log(s) + np.log(np.cosh(x)), axis=1)),
                "It skips the NaN in silence, and with them everything the negative scales "
                "contribute. Ask where they come from: log of a negative number.",
            ),
            Mutant(
                "mean",
                _sinh_mutant(lambda x, s: np.mean(np.log(np.abs(s)) + np.log(np.cosh(x)), axis=1)),
                "It takes the mean over the numbers of an example; the log-det is their sum.",
            ),
            Mutant(
                "everything summed",
                _sinh_mutant(lambda x, s: np.sum(np.log(np.abs(s)) + np.log(np.cosh(x)))),
                deserves="one number",
            ),
            Mutant(
                "|s| in y too",
                lambda x, s: (np.abs(s) * np.sinh(x), sinh_layer(x, s)[1]),
                "It changed y: the layer itself was right, s may be negative. The bars belong to "
                "the log-det only.",
            ),
            Mutant(
                "log of J's sum",
                _sinh_mutant(lambda x, s: np.log(np.abs(np.sum(s * np.cosh(x), axis=1)))),
                "It takes the log of a sum. The diagonal entries multiply, so the sum is of logs.",
            ),
        ),
    )
)


# --- predictions ----------------------------------------------------------------------------------

ask(
    "change.humps",
    "The noise z has one hump, at 0. How many humps has x = g(z) = arcsinh(5z)?",
    ["one, at 0, but wider", "two", "one, moved to the right"],
    "two",
    "g is steepest at z = 0: it pulls the middle of the noise apart and leaves the tails close "
    "together. Where things are pulled apart, the density falls.",
)

ask(
    "change.area",
    "A cell lies where log|det J| = −0.7. What does the warp do to its area?",
    ["turns it over", "takes 0.7 away", "about halves it"],
    "about halves it",
    "The factor is exp(−0.7), about 0.5. A log-determinant of 0 keeps the area.",
)

ask(
    "change.error",
    "h has come down to 1e-3 and the central error has fallen 100-fold at each step. From 1e-6 "
    "on to 1e-13, the error …",
    ["goes on falling", "stays where it is", "rises again"],
    "rises again",
    "f is computed to about 16 digits. The two values then differ only in their last digits, "
    "and the rounding left there is divided by 2h.",
)

ask(
    "change.other_half",
    "The slide says 'upper triangular'. And if the other half is changed?",
    ["still upper", "lower", "full"],
    "lower",
    "The block of ∂y_b/∂x_a stands below the diagonal. Either way only the diagonal counts.",
)
