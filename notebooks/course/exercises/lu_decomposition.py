"""Exercises of notebook 06, the LU decomposition."""

# ruff: noqa: E741  (l is the slide's name)

from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import scipy.linalg
import torch
from scipy.linalg import lu, solve_triangular

from course.attempt import attempt
from course.exercise import Case, Exercise, Mutant, register
from course.judge import Verdict, judge_layer, judge_values
from course.predict import ask
from reference import Conv1x1LU, jacobian

NOTEBOOK = "06_lu_decomposition"


def _factors(c, seed, size=1.0):
    """p with p ≠ p⁻¹; L and U well away from 0, and s of both signs, with an odd number of −."""
    rng = np.random.default_rng(seed)
    p = np.roll(np.arange(c), 1)
    l = np.tril(rng.uniform(0.3, 0.9, (c, c)) * rng.choice([-1, 1], (c, c)), -1) + np.eye(c)
    u = np.triu(rng.uniform(0.4, 1.5, (c, c)) * rng.choice([-1, 1], (c, c)), 1)
    s = size * rng.uniform(0.4, 2.5, c)
    s[0] = -s[0]
    return p, l, u, s


def _images(shape, seed):
    return np.random.default_rng(seed).normal(size=shape)


# --- building W -----------------------------------------------------------------------------------


def build_matrix(p, l, u, s):
    return (l @ (u + np.diag(s)))[p]


register(
    Exercise(
        id="lu.matrix",
        notebook=NOTEBOOK,
        title="W from its factors",
        minutes=4,
        difficulty=1,
        stub='''
def build_matrix(p, l, u, s):
    """W = P L (U + diag(s)), shape (C, C). P reorders rows: (P v)[i] = v[p[i]].

    l: lower triangular with ones on its diagonal; u: strictly upper triangular; s: shape (C,).
    """
    ...
''',
        solution=build_matrix,
        truth=lambda p, l, u, s: Conv1x1LU(p, l, u, s).W,
        returns=("W",),
        cases=(
            Case("five channels", _factors(5, 1)),
            Case("four channels", _factors(4, 2)),
            Case("three channels", _factors(3, 3)),
        ),
        hints=(
            "`np.diag(s)` makes the diagonal matrix, `@` multiplies matrices.",
            "P on the left reorders rows, and NumPy can do that without a matrix: row i of P M is row "
            "p[i] of M, that is `M[p]`.",
        ),
        explanation="Indexing by p is the product with P, without c³ multiplications by 0 and 1.",
        mutants=(
            Mutant(
                "no P",
                lambda p, l, u, s: l @ (u + np.diag(s)),
                "P is missing: the rows are not reordered yet.",
            ),
            Mutant(
                "P⁻¹",
                lambda p, l, u, s: (l @ (u + np.diag(s)))[np.argsort(p)],
                "That is P⁻¹. (P v)[i] = v[p[i]]: row i comes from row p[i].",
            ),
            Mutant(
                "P on the right",
                lambda p, l, u, s: (l @ (u + np.diag(s)))[:, p],
                "It reorders columns. P stands on the left of the product and reorders rows.",
            ),
            Mutant(
                "P applied to L's columns",
                lambda p, l, u, s: l[:, p] @ (u + np.diag(s)),
                "It reorders the columns of L. P L reorders L's rows.",
            ),
            Mutant(
                "no s",
                lambda p, l, u, s: (l @ u)[p],
                "diag(s) is missing. U alone has zeros on its diagonal, and W would be singular.",
            ),
            Mutant(
                "U − diag(s)",
                lambda p, l, u, s: (l @ (u - np.diag(s)))[p],
                "It subtracts diag(s); the slide adds it.",
            ),
            Mutant(
                "s to every column",
                lambda p, l, u, s: (l @ (u + s))[p],
                "`u + s` adds s to every row of U. diag(s) is a matrix with s on its diagonal: "
                "`np.diag(s)`.",
            ),
            Mutant(
                "|s|",
                lambda p, l, u, s: (l @ (u + np.diag(np.abs(s))))[p],
                "It uses |s|. The bars belong to the log-determinant; W needs the signs.",
            ),
            Mutant(
                "U first",
                lambda p, l, u, s: ((u + np.diag(s)) @ l)[p],
                "It multiplies in the other order, (U + diag s) L. Matrices do not commute.",
            ),
            Mutant(
                "one more 1",
                lambda p, l, u, s: ((l + np.eye(len(s))) @ (u + np.diag(s)))[p],
                "L has ones on its diagonal already; it adds them a second time.",
            ),
            Mutant(
                "p as a matrix",
                lambda p, l, u, s: p @ l @ (u + np.diag(s)),
                "`p @ …` multiplies by the row of numbers p. p is a list of places, not a matrix: "
                "reorder rows with `[p]`.",
            ),
            Mutant(
                "s outside",
                lambda p, l, u, s: (l @ u + np.diag(s))[p],
                "It computes L U + diag(s): the brackets around U + diag(s) are missing.",
            ),
            Mutant(
                "P in the middle",
                lambda p, l, u, s: l @ (u + np.diag(s))[p],
                "`[p]` reorders U + diag(s) here, before L is applied: that is L P (U + diag s). "
                "Brackets around the whole product put P in front.",
            ),
            Mutant(
                "entry by entry",
                lambda p, l, u, s: (l * (u + np.diag(s)))[p],
                "`*` multiplies entry by entry; the product of matrices is `@`.",
            ),
        ),
    )
)


# --- factorising ----------------------------------------------------------------------------------


def factorise(W):
    p, l, u = lu(W, p_indices=True)
    s = np.diag(u)
    return p, l, u - np.diag(s), s


def _truth_of_factors(W):
    layer = Conv1x1LU.from_matrix(W)
    return layer.p, layer.l + np.eye(len(W)), layer.u, layer.s


def _general(c, seed):
    return Conv1x1LU(*_factors(c, seed)).W


def _with_p(p_of):
    def fn(W):
        p, l, u, s = factorise(W)
        return p_of(p), l, u, s

    return fn


register(
    Exercise(
        id="lu.from_matrix",
        notebook=NOTEBOOK,
        title="The factors of a given W",
        minutes=7,
        difficulty=2,
        stub='''
def factorise(W):
    """p, l, u, s with W = P L (U + diag(s)), as `build_matrix` takes them.

    Use scipy.linalg.lu (its pivoting makes the answer unique). s has the shape (C,).
    """
    ...
''',
        solution=factorise,
        imports="import numpy as np\nfrom scipy.linalg import lu",
        truth=_truth_of_factors,
        returns=("p", "l", "u", "s"),
        cases=(
            Case("a 5 × 5 matrix", (_general(5, 11),)),
            Case("a 4 × 4 matrix with det W < 0", (_general(4, 12),)),
            Case("a 3 × 3 matrix", (_general(3, 23),)),
        ),
        hints=(
            "`lu(W, p_indices=True)` returns p, l and an upper triangular matrix that holds U and s "
            "together, with W = (l @ upper)[p].",
            "`np.diag(upper)` is s; what is left of `upper` without its diagonal is U.",
        ),
        explanation="This happens once, when the layer is made: from then on p stays, and l, u and s "
        "are what is trained.",
        mutants=(
            Mutant(
                "u with its diagonal",
                lambda W: (*lu(W, p_indices=True), np.diag(lu(W)[2])),
                "u still has s on its diagonal, so U + diag(s) holds s twice. Take the diagonal "
                "out of u.",
            ),
            Mutant(
                "p inverted",
                _with_p(np.argsort),
                "p is the inverse permutation. It should satisfy W = (l @ (u + diag s))[p].",
            ),
            Mutant(
                "p forgotten",
                _with_p(lambda p: np.arange(len(p))),
                "p is 0, 1, 2, …: the permutation that pivoting chose is lost, and the product is "
                "not W.",
            ),
            Mutant(
                "signs of s lost",
                lambda W: (*factorise(W)[:3], np.abs(factorise(W)[3])),
                "The signs of s are lost. log|det W| would still be right, and W would not.",
            ),
            Mutant(
                "log s",
                lambda W: (*factorise(W)[:3], np.log(np.abs(factorise(W)[3]))),
                "It returns log|s|; s itself is asked for.",
            ),
            Mutant(
                "l without ones",
                lambda W: (factorise(W)[0], np.tril(factorise(W)[1], -1), *factorise(W)[2:]),
                "The ones on the diagonal of l are gone; L has them.",
            ),
            Mutant(
                "P as a matrix",
                lambda W: (lu(W)[0], *factorise(W)[1:]),
                deserves="p should have shape",
            ),
            Mutant(
                "s as a matrix",
                lambda W: (*factorise(W)[:3], np.diag(factorise(W)[3])),
                deserves="s should have shape",
            ),
            Mutant(
                "lower by another name",
                lambda W: (factorise(W)[0], factorise(W)[1], factorise(W)[2].T, factorise(W)[3]),
                "u is lower triangular here, as the slide's text says; the factorisation needs it "
                "strictly upper.",
            ),
            Mutant(
                "W itself",
                lambda W: (np.arange(len(W)), np.eye(len(W)), W - np.diag(np.diag(W)), np.diag(W)),
                deserves="should be",
            ),
        ),
    )
)


# --- which routines does an answer call? ----------------------------------------------------------


def _routines(*names):
    """Those of NumPy, SciPy and PyTorch of these names."""
    modules = (np.linalg, scipy.linalg, torch.linalg, torch)
    return tuple((m, name) for m in modules for name in names if hasattr(m, name))


_FACTORISATIONS = _routines(
    *("lu", "lu_factor", "qr", "svd", "svdvals", "eig", "eigvals", "eigh", "eigvalsh"),
    *("cholesky", "cho_factor"),
)
_DETERMINANTS = _routines("det", "slogdet", "logdet") + _FACTORISATIONS  # or read from one
_INVERSES = _routines("inv", "inverse", "pinv", "pinverse", "matrix_power", "tensorinv")
_SOLVERS = _routines("solve", "lstsq", "tensorsolve") + _FACTORISATIONS
UNCOUNTED = _DETERMINANTS + _INVERSES + _SOLVERS + _routines("solve_triangular", "lu_solve")


@contextmanager
def watched(routines, fn):
    """Yield a list that collects which routines `fn` calls meanwhile, under whatever name."""
    called, undo = [], []

    def watch(module, name, original):
        def wrapper(*args, **kwargs):
            called.append(f"{module.__name__}.{name}")
            return original(*args, **kwargs)

        setattr(module, name, wrapper)
        undo.append(lambda: setattr(module, name, original))
        scope = getattr(fn, "__globals__", {})
        for alias in [key for key, value in scope.items() if value is original]:
            scope[alias] = wrapper  # from scipy.linalg import inv
            undo.append(lambda alias=alias: scope.__setitem__(alias, original))

    try:
        for module, name in routines:
            watch(module, name, getattr(module, name))
        yield called
    finally:
        for restore in reversed(undo):
            restore()


def _judge_without(*forbidden):
    """A judge: right values, reached without the routines in `forbidden`, pairs (which, says)."""

    def judge(exercise: Exercise, fn) -> Verdict:
        verdict = judge_values(exercise, fn)
        if verdict.status != "right":
            return verdict
        for routines, says in forbidden:
            with watched(routines, fn) as called:
                attempt(fn, exercise.cases[0].args)
            if called:
                return replace(verdict, status="wrong", message=says.format(f"`{called[0]}`"))
        return verdict

    return judge


# --- the log-determinant --------------------------------------------------------------------------


def lu_logdet(x, p, l, u, s):
    n, h, w, c = x.shape
    return np.full(n, h * w * np.log(np.abs(s)).sum())


def _gram(W):
    return W @ W.T


def _measured(x, p, l, u, s):
    """Measured: the log-det of W at one pixel, times the number of pixels."""
    W = Conv1x1LU(p, l, u, s).W
    return np.full(len(x), x.shape[1] * x.shape[2] * jacobian(lambda v: W @ v, s).logabsdet)


register(
    Exercise(
        id="lu.logdet",
        notebook=NOTEBOOK,
        title="The log-determinant of the layer",
        minutes=4,
        difficulty=2,
        stub='''
def lu_logdet(x, p, l, u, s):
    """log|det dy/dx| of y_ij = W x_ij, shape (N,), for x of shape (N, H, W, C).

    In O(C): no determinant of a matrix.
    """
    ...
''',
        solution=lu_logdet,
        truth=_measured,
        judge=_judge_without(
            (
                _DETERMINANTS,
                (
                    "It computes a determinant, with {}. The number is right, and cost about c³/3 "
                    "multiplications or more. The factors give it away for nothing: which of p, l, u and s are needed?"
                ),
            )
        ),
        returns=("the log-determinant",),
        cases=(
            Case("two images 5 × 7 with 4 channels", (_images((2, 5, 7, 4), 1), *_factors(4, 21))),
            Case(
                "three images 2 × 3 with 5 channels", (_images((3, 2, 3, 5), 2), *_factors(5, 22))
            ),
            Case(
                "one image 3 × 3 with 3 channels, |det W| < 1",
                (_images((1, 3, 3, 3), 3), *_factors(3, 23, size=0.3)),
            ),
        ),
        hints=(
            "|det P| = 1 and det L = 1. U + diag(s) is triangular with s on its diagonal.",
            "That is log|det W|, one pixel. The layer applies W at each of the h·w pixels.",
        ),
        explanation="log|det W| = sum(log|s|) is the slide. The layer's log-det is h·w times that.",
        mutants=(
            Mutant(
                "no h·w",
                lambda x, p, l, u, s: lu_logdet(x[:, :1, :1], p, l, u, s),
                "The factor h·w is missing. The slide gives log|det W|, one pixel's share; the "
                "layer applies W at each of the h·w pixels.",
            ),
            Mutant(
                "no |·|",
                lambda x, p, l, u, s: np.full(len(x), x.shape[1] * x.shape[2] * np.log(s).sum()),
                "It takes log(s) without |·|: one s is negative, and the log of that is not a "
                "number.",
            ),
            Mutant(
                "sign",
                lambda x, p, l, u, s: -lu_logdet(x, p, l, u, s),
                "The sign is turned over: this is the log-determinant of the inverse.",
            ),
            Mutant(
                "|sum|",
                lambda x, p, l, u, s: np.abs(lu_logdet(x, p, l, u, s)),
                "It takes |·| of the sum. The bars belong to each s, before the log: a map that "
                "shrinks volume has a negative log-determinant.",
            ),
            Mutant(
                "trace of log|W|",
                lambda x, p, l, u, s: np.full(
                    len(x),
                    x.shape[1]
                    * x.shape[2]
                    * np.log(np.abs(np.diag(build_matrix(p, l, u, s)))).sum(),
                ),
                "It reads the diagonal of W. W is not triangular; its factor U + diag(s) is, and s "
                "stands on that diagonal.",
            ),
            Mutant(
                "log of the sum",
                lambda x, p, l, u, s: np.full(
                    len(x), x.shape[1] * x.shape[2] * np.log(np.abs(s.sum()))
                ),
                "It takes the log of a sum. The entries of s multiply, so their logs add.",
            ),
            Mutant(
                "mean",
                lambda x, p, l, u, s: np.full(
                    len(x), x.shape[1] * x.shape[2] * np.log(np.abs(s)).mean()
                ),
                "It takes the mean of log|s|; a determinant is a product, so its log is a sum.",
            ),
            Mutant(
                "h·w·c",
                lambda x, p, l, u, s: np.full(len(x), x[0].size * np.log(np.abs(s)).sum()),
                "It is too large by the factor c: the sum over s runs over the channels already.",
            ),
            Mutant(
                "counts u's",
                lambda x, p, l, u, s: np.full(
                    len(x),
                    x.shape[1]
                    * x.shape[2]
                    * (np.log(np.abs(s)).sum() + np.log(np.abs(u[u != 0])).sum()),
                ),
                "Entries of U are in the sum. Off the diagonal they do not change the determinant.",
            ),
            Mutant(
                "one number",
                lambda x, p, l, u, s: lu_logdet(x, p, l, u, s)[0],
                deserves="should have shape",
            ),
            Mutant(
                "slogdet",
                lambda x, p, l, u, s: np.full(
                    len(x), x.shape[1] * x.shape[2] * np.linalg.slogdet(build_matrix(p, l, u, s))[1]
                ),
                deserves="It computes a determinant, with `numpy.linalg.slogdet`",
            ),
            Mutant(
                "slogdet of PyTorch",
                lambda x, p, l, u, s: np.full(
                    len(x),
                    x.shape[1]
                    * x.shape[2]
                    * torch.slogdet(torch.tensor(build_matrix(p, l, u, s)))[1].item(),
                ),
                deserves="It computes a determinant, with `torch.slogdet`",
            ),
            Mutant(
                "Cholesky",
                lambda x, p, l, u, s: np.full(
                    len(x),
                    x.shape[1]
                    * x.shape[2]
                    * np.log(np.diag(np.linalg.cholesky(_gram(build_matrix(p, l, u, s))))).sum(),
                ),
                deserves="It computes a determinant, with `numpy.linalg.cholesky`",
            ),
            Mutant(
                "singular values",
                lambda x, p, l, u, s: np.full(
                    len(x),
                    x.shape[1]
                    * x.shape[2]
                    * np.log(np.linalg.svd(build_matrix(p, l, u, s))[1]).sum(),
                ),
                deserves="It computes a determinant, with `numpy.linalg.svd`",
            ),
            Mutant(
                "eigenvalues",
                lambda x, p, l, u, s: np.full(
                    len(x),
                    x.shape[1]
                    * x.shape[2]
                    * np.log(np.abs(scipy.linalg.eigvals(build_matrix(p, l, u, s)))).sum(),
                ),
                deserves="It computes a determinant, with `scipy.linalg.eigvals`",
            ),
            Mutant(
                "h only",
                lambda x, p, l, u, s: lu_logdet(x[:, :, :1], p, l, u, s),
                "It counts the h rows only; each row has w pixels, so h·w.",
            ),
            Mutant(
                "w only",
                lambda x, p, l, u, s: lu_logdet(x[:, :1], p, l, u, s),
                "It counts the w columns only; each column has h pixels, so h·w.",
            ),
            Mutant(
                "no log",
                lambda x, p, l, u, s: np.full(len(x), x.shape[1] * x.shape[2] * np.abs(s).sum()),
                "The log is missing: sum(log|s|), not sum(|s|).",
            ),
        ),
    )
)


# --- the inverse ----------------------------------------------------------------------------------


def lu_inverse(y, p, l, u, s):
    columns = y.reshape(-1, len(s)).T[np.argsort(p)]
    columns = solve_triangular(l, columns, lower=True)
    columns = solve_triangular(u + np.diag(s), columns)
    return columns.T.reshape(y.shape)


_INSTEAD = " Use `solve_triangular`, once with l and once with u + diag(s)."


def _solved(y, p, first, second):
    """Two solves, whatever the matrices."""
    columns = y.reshape(-1, len(p)).T[p]
    return np.linalg.solve(second, np.linalg.solve(first, columns)).T.reshape(y.shape)


register(
    Exercise(
        id="lu.inverse",
        notebook=NOTEBOOK,
        title="The inverse by two triangular solves",
        minutes=8,
        difficulty=3,
        stub='''
def lu_inverse(y, p, l, u, s):
    """The x with P L (U + diag(s)) x_ij = y_ij at every pixel; y has the shape (N, H, W, C).

    By two triangular solves, without an inverse matrix.
    """
    ...
''',
        solution=lu_inverse,
        truth=lambda y, p, l, u, s: Conv1x1LU(p, l, u, s).inverse(y),
        judge=_judge_without(
            (
                _INVERSES,
                (
                    "It inverts a matrix with {}. The numbers are right here, in float64; in float32 an "
                    "inverse matrix loses digits that two solves keep, and it costs about c³ "
                    "multiplications." + _INSTEAD
                ),
            ),
            (
                _SOLVERS,
                (
                    "It calls {}, which knows nothing of triangles: it factorises again what you have "
                    "been given factorised, c³/3 multiplications each time." + _INSTEAD
                ),
            ),
        ),
        imports="import numpy as np\nfrom scipy.linalg import solve_triangular",
        returns=("x",),
        cases=(
            Case("two images 5 × 3 with 4 channels", (_images((2, 5, 3, 4), 4), *_factors(4, 31))),
            Case(
                "three images 2 × 3 with 5 channels", (_images((3, 2, 3, 5), 5), *_factors(5, 32))
            ),
            # As many columns as channels: a forgotten transpose keeps the shape.
            Case("one image 1 × 3 with 3 channels", (_images((1, 1, 3, 3), 6), *_factors(3, 33))),
        ),
        hints=(
            "Pixels as columns: `columns = y.reshape(-1, len(s)).T` has the shape (C, number of "
            "pixels); `columns.T.reshape(y.shape)` goes back.",
            "Undo P first: it took row p[i] to place i, so `columns[np.argsort(p)]`.",
            "Then L v = columns, `solve_triangular(l, columns, lower=True)`, and after it the same "
            "with u + np.diag(s), upper.",
        ),
        explanation="W was applied right to left: U + diag(s), L, P. The inverse goes back left to "
        "right: P⁻¹, then L, then U + diag(s). One pixel costs about c² multiplications, "
        "as forward does.",
        mutants=(
            Mutant(
                "inv",
                lambda y, p, l, u, s: y @ np.linalg.inv(build_matrix(p, l, u, s)).T,
                deserves="It inverts a matrix with `numpy.linalg.inv`",
            ),
            Mutant(
                "inverse of PyTorch",
                lambda y, p, l, u, s: (
                    y @ torch.inverse(torch.tensor(build_matrix(p, l, u, s))).numpy().T
                ),
                deserves="It inverts a matrix with `torch.inverse`",
            ),
            Mutant(
                "power −1",
                lambda y, p, l, u, s: y @ np.linalg.matrix_power(build_matrix(p, l, u, s), -1).T,
                deserves="It inverts a matrix with `numpy.linalg.matrix_power`",
            ),
            Mutant(
                "solve",
                lambda y, p, l, u, s: _solved(y, np.argsort(p), l, u + np.diag(s)),
                deserves="knows nothing of triangles",
            ),
            Mutant(
                "W solved by SciPy",
                lambda y, p, l, u, s: scipy.linalg.solve(
                    build_matrix(p, l, u, s), y.reshape(-1, len(s)).T
                ).T.reshape(y.shape),
                deserves="It calls `scipy.linalg.solve`, which knows nothing of triangles",
            ),
            Mutant(
                "P forgotten",
                lambda y, p, l, u, s: _solved(y, np.arange(len(s)), l, u + np.diag(s)),
                "P is not undone: before the first solve the rows must go back to their places.",
            ),
            Mutant(
                "P once more",
                lambda y, p, l, u, s: _solved(y, p, l, u + np.diag(s)),
                "It applies P again where P must be undone: the inverse permutation is "
                "`np.argsort(p)`.",
            ),
            Mutant(
                "U first",
                lambda y, p, l, u, s: _solved(y, np.argsort(p), u + np.diag(s), l),
                "It solves with U + diag(s) first. Forward applied L after U, so L is undone "
                "first.",
            ),
            Mutant(
                "L as upper",
                lambda y, p, l, u, s: _solved(y, np.argsort(p), np.triu(l), u + np.diag(s)),
                "The solve with l reads its upper triangle, which is the identity: "
                "`solve_triangular` needs `lower=True` for l.",
            ),
            Mutant(
                "U as lower",
                lambda y, p, l, u, s: _solved(y, np.argsort(p), l, np.diag(s)),
                "The solve with U + diag(s) reads its lower triangle, which is diag(s) alone. U is "
                "upper, whatever the slide says.",
            ),
            Mutant(
                "forward",
                lambda y, p, l, u, s: y @ build_matrix(p, l, u, s).T,
                "That is the forward map, W y.",
            ),
            Mutant(
                "transposed W",
                lambda y, p, l, u, s: np.linalg.solve(
                    build_matrix(p, l, u, s).T, y.reshape(-1, len(s)).T
                ).T.reshape(y.shape),
                "It undoes Wᵀ. A pixel is a column vector in W x; in y.reshape(-1, C) pixels are "
                "rows.",
            ),
            Mutant(
                "transpose for inverse",
                lambda y, p, l, u, s: y @ build_matrix(p, l, u, s),
                "It multiplies by Wᵀ. That is the inverse of a rotation, and W stays one only until "
                "the first training step.",
            ),
            Mutant(
                "cut the wrong way",
                lambda y, p, l, u, s: np.linalg.solve(
                    build_matrix(p, l, u, s), y.reshape(len(s), -1)
                ).T.reshape(y.shape),
                "`y.reshape(C, -1)` cuts the array so that a column is no pixel. Channels are the "
                "last axis: `y.reshape(-1, C).T`.",
            ),
            Mutant(
                "no transpose back",
                lambda y, p, l, u, s: np.linalg.solve(
                    build_matrix(p, l, u, s), y.reshape(-1, len(s)).T
                ).reshape(y.shape),
                "The solves are right; then (C, pixels) is reshaped as it is, and channels and "
                "pixels are mixed up. Transpose back first.",
            ),
        ),
    )
)


# --- a broken layer to mend -----------------------------------------------------------------------


def lu_layer(x, p, l, u, s):
    lower = np.tril(l, -1) + np.eye(len(s))
    upper = np.triu(u, 1) + np.diag(s)
    n, h, w, _ = x.shape
    y = x @ (lower @ upper)[p].T
    return y, np.full(n, h * w * np.log(np.abs(s)).sum())


def _full(c, seed):
    """As a network stores them: l and u as full matrices, of which one triangle is used."""
    rng = np.random.default_rng(seed + 100)
    p, _, _, s = _factors(c, seed)
    return p, rng.normal(size=(c, c)), rng.normal(size=(c, c)), s


def _layer(u_of=lambda u: np.triu(u, 1), hw=True, signs=True, unit=True, bars=True):
    def fn(x, p, l, u, s):
        lower = (np.tril(l, -1) + np.eye(len(s))) if unit else np.tril(l)
        upper = u_of(u) + np.diag(s if signs else np.abs(s))
        pixels = x.shape[1] * x.shape[2] if hw else 1
        logs = np.log(np.abs(s) if bars else s)
        return x @ (lower @ upper)[p].T, np.full(len(x), pixels * logs.sum())

    return fn


def _slides_u(u):
    return np.tril(u, -1)


register(
    Exercise(
        id="lu.broken",
        notebook=NOTEBOOK,
        title="Broken layer: the slide, taken at its word",
        minutes=6,
        difficulty=2,
        stub='''
def lu_layer(x, p, l, u, s):
    """y_ij = W x_ij and logdet (N,). Of l and u, full matrices, one triangle each is used."""
    lower = np.tril(l, -1) + np.eye(len(s))
    upper = np.tril(u, -1) + np.diag(s)
    y = x @ (lower @ upper)[p].T
    return y, np.full(len(x), np.log(np.abs(s)).sum())
''',
        stub_deserves="Two faults",
        solution=lu_layer,
        truth=lambda x, p, l, u, s: Conv1x1LU(p, l, u, s).forward(x),
        judge=judge_layer,
        returns=("y", "logdet"),
        cases=(
            Case("two images 2 × 3 with 4 channels", (_images((2, 2, 3, 4), 7), *_full(4, 41))),
            Case("one image 5 × 1 with 3 channels", (_images((1, 5, 1, 3), 8), *_full(3, 42))),
        ),
        hints=(
            "`np.tril(a, -1)` keeps what is below the diagonal. Which triangle should U fill?",
            "The slide's log|det W| is that of one pixel. How many pixels does the layer have?",
        ),
        explanation="U is strictly upper, so that P L (U + diag s) can be any W that P allows; and the "
        "layer's log-determinant is h·w times the slide's log|det W|.",
        mutants=(
            Mutant(
                "as it stands",
                _layer(_slides_u, hw=False),
                "Two faults. U is filled below the diagonal, as the slide's text says, where W "
                "needs it strictly upper; and the log-determinant is that of one pixel, h·w is "
                "missing. Mend both.",
            ),
            Mutant(
                "U mended only",
                _layer(hw=False),
                "One fault is mended, one is left: log|det W| is one pixel's share; W acts at each "
                "of the h·w pixels.",
            ),
            Mutant(
                "h·w mended only",
                _layer(_slides_u),
                "One fault is mended, one is left: U is still lower triangular, so L (U + diag s) "
                "is, too, and channel 1 never learns of channel 2. (The log-determinant cannot "
                "show it: it is right for this W as well.)",
            ),
            Mutant(
                "U with its diagonal",
                _layer(np.triu),
                "`np.triu(u)` keeps the diagonal of u, which is added to s: then sum(log|s|) is not "
                "the log-determinant. Strictly upper: `np.triu(u, 1)`.",
            ),
            Mutant(
                "U whole",
                _layer(lambda u: u),
                "All of u is used. Only its strictly upper triangle belongs to U.",
            ),
            Mutant(
                "transposed U",
                _layer(lambda u: np.tril(u, -1).T),
                "It takes the lower triangle of u and transposes it. Upper it is, but from the "
                "wrong entries: U is what stands above the diagonal of u.",
            ),
            Mutant(
                "L without ones",
                _layer(unit=False),
                "L has lost the ones on its diagonal, and with them det L = 1.",
            ),
            Mutant(
                "transposed W",
                lambda x, p, l, u, s: (x @ Conv1x1LU(p, l, u, s).W, lu_layer(x, p, l, u, s)[1]),
                "It applies Wᵀ. Pixels are rows of x, so y_ij = W x_ij is `x @ W.T`; that was right "
                "before.",
            ),
            Mutant(
                "signs lost",
                _layer(signs=False),
                "W is built with |s|. The signs of s belong to W; only the log-determinant has "
                "bars.",
            ),
            Mutant(
                "no bars",
                _layer(bars=False),
                "The bars are gone: one s is negative, and its log is not a number.",
            ),
            Mutant(
                "y only",
                lambda x, p, l, u, s: lu_layer(x, p, l, u, s)[0],
                deserves="a tuple (y, logdet)",
            ),
        ),
    )
)


# --- predictions ----------------------------------------------------------------------------------

ask(
    "lu.orthogonal",
    "W is orthogonal (a rotation, perhaps with a mirror). Which of its factors are?",
    ["all", "only P", "P and L"],
    "only P",
    "The product of L and U + diag(s) is orthogonal; each alone is sheared.",
)

ask(
    "lu.directions",
    "c = 6: W has 36 numbers. With U lower, in how many directions can it move?",
    ["36", "21", "6"],
    "21",
    "Lower times lower is lower triangular: c(c+1)/2 = 21 entries, whatever the 36 numbers do.",
)

ask(
    "lu.cost",
    "W applied at 4 × 4 pixels takes 16 c² multiplications. From how many channels on does the "
    "determinant cost more than that?",
    ["from 4 on", "from about 48 on", "at none of these sizes"],
    "from about 48 on",
    "c³/3 = 16 c² at c = 48, which is Glow's c at its last level on 32 × 32 images. The sum of "
    "log|s| stays far below both.",
)

ask(
    "lu.residual",
    "W gets harder to invert. What happens to |W x̂ − y|, relative to |y|?",
    ["grows for both", "grows for the inverse matrix only", "grows for the solves only"],
    "grows for the inverse matrix only",
    "Each solve answers its triangle nearly exactly, whatever the condition.",
)
