"""Exercises of notebook 11, the three questions."""

# ruff: noqa: E741  (l is the slide's name)

import numpy as np
import scipy.linalg
from scipy.linalg import lu

from course.attempt import attempt
from course.counting import Tally, counted
from course.exercise import Case, Exercise, Mutant, register
from course.formula import LAYERS, grade
from course.judge import RIGHT, Verdict, judge_values
from course.matching import is_empty, mistakes
from course.predict import ask

from .lu_decomposition import UNCOUNTED, watched

NOTEBOOK = "11_questions"


# --- question 1: the formulas ---------------------------------------------------------------------


def formulas():
    return {
        "flow": "log p(z) + log|det dz/dx|",
        "actnorm": "h w sum(log|s|)",
        "conv1x1": "h w log|det W|",
        "lu": "sum(log|s|)",
        "affine_coupling": "sum(log|s|)",
        "additive_coupling": "0",
    }


def _answer(fn, filled: str) -> tuple[dict | None, Verdict | None]:
    """The dict that `fn()` returns, or the verdict on what else came of it."""
    outcome = attempt(fn, ())
    if outcome.trouble:
        return None, Verdict("wrong", outcome.trouble, outcome.printed)
    if not isinstance(outcome.value, dict):
        kind = type(outcome.value).__name__
        return None, Verdict("wrong", f"It should return the dict {filled}; it returned a {kind}.")
    return outcome.value, None


def _judge_formulas(exercise: Exercise, fn) -> Verdict:
    answer, verdict = _answer(fn, "with a formula for each layer")
    if verdict:
        return verdict
    lines, wrong, missing = [], False, []
    for layer in LAYERS:
        text = answer.get(layer, "")
        if not isinstance(text, str):
            lines.append(f"{layer}: the formula is a text, in quotes.")
            wrong = True
        elif not text.strip():
            missing.append(layer)
        else:
            mark = grade(layer, text)
            lines.append(f"{layer}: {mark.message}")
            wrong |= not mark
    unknown = [str(name)[:20] for name in answer if name not in LAYERS]
    if unknown:
        lines.append(f"There is no layer {', '.join(unknown)}.")
    if missing:
        lines.append("Still empty: " + ", ".join(missing) + ".")
    status = "wrong" if wrong or unknown else "not done" if missing else "right"
    return Verdict(status, "\n".join(lines) if status != "right" else "All six formulas agree.")


def _formulas(**changed):
    return lambda: {**formulas(), **changed}


register(
    Exercise(
        id="questions.formulas",
        notebook=NOTEBOOK,
        title="Six log-determinants, written down",
        minutes=8,
        difficulty=2,
        stub='''
def formulas():
    """The log-determinant of each, as a text: plain, Unicode or LaTeX, symbols as on the slides."""
    return {
        "flow": r"",              # log|det dz/dx|, or the whole log p(x)
        "actnorm": r"",
        "conv1x1": r"",
        "lu": r"",                # of W, as on the LU slide, or of the layer
        "affine_coupling": r"",
        "additive_coupling": r"",
    }
''',
        solution=formulas,
        judge=_judge_formulas,
        cases=(Case("the six layers", ()),),
        hints=(
            "Ask of each layer: what does it multiply volumes by at one pixel, and at how many pixels? "
            "Then take the logarithm of the absolute value.",
            "Plain text will do: `h w log|det W|`, `sum(log|s|)`, `log p(z) + log|det dz/dx|`.",
        ),
        explanation="Two of them look alike: in actnorm s has one number per channel, so h·w stands "
        "in front; in the coupling s has one number per pixel and channel already.",
        mutants=(
            Mutant("no bars", _formulas(conv1x1="h w log det W"), deserves="|·|"),
            Mutant(
                "no h·w in actnorm",
                _formulas(actnorm="sum(log|s|)"),
                deserves="actnorm: Not yet: h·w",
            ),
            Mutant(
                "no h·w in the convolution",
                _formulas(conv1x1="log|det W|"),
                deserves="conv1x1: Not yet: h·w",
            ),
            Mutant(
                "h·w in the coupling",
                _formulas(affine_coupling="h w sum(log|s|)"),
                deserves="affine_coupling: Not yet",
            ),
            Mutant(
                "additive like affine",
                _formulas(additive_coupling="sum(log|s|)"),
                deserves="in additive coupling s = 1",
            ),
            Mutant(
                "determinant kept in LU",
                _formulas(lu="log|det W|"),
                deserves="still takes a determinant",
            ),
            Mutant("sign", _formulas(flow="log p(z) - log|det dz/dx|"), deserves="flow: Not yet"),
            Mutant(
                "p(x) in the answer",
                _formulas(flow="log p(x)"),
                deserves="p(x) is what we want to find",
            ),
            Mutant("a word", _formulas(actnorm="scale"), deserves="actnorm: Not yet"),
            Mutant(
                "a number for a text", _formulas(additive_coupling=0), deserves="a text, in quotes"
            ),
            Mutant("unknown layer", _formulas(squeeze="0"), deserves="no layer squeeze"),
            Mutant("a list", lambda: list(formulas().values()), deserves="it returned a list"),
            Mutant("raises", lambda: {"flow": undefined}, deserves="raised NameError"),  # noqa: F821
        ),
    )
)


# --- question 2: matching -------------------------------------------------------------------------


def matching():
    return {
        "actnorm": ("F3", "I2", "D4"),
        "1×1 convolution": ("F5", "I1", "D3"),
        "affine coupling": ("F1", "I5", "D2"),
        "additive coupling": ("F4", "I3", "D1"),
        "squeeze": ("F2", "I4", "D1"),
    }


def _judge_matching(exercise: Exercise, fn) -> Verdict:
    answer, verdict = _answer(fn, "with three cards for each layer")
    if verdict:
        return verdict
    if is_empty(answer):
        return Verdict("not done", "No card is chosen yet.")
    found = mistakes(answer)
    if found:
        return Verdict("wrong", "\n".join(found))
    return Verdict("right", "Every function is undone, and every log-determinant is as measured.")


def _match(**changed):
    names = {
        "conv": "1×1 convolution",
        "affine": "affine coupling",
        "additive": "additive coupling",
    }
    return lambda: {**matching(), **{names.get(k, k): v for k, v in changed.items()}}


register(
    Exercise(
        id="questions.matching",
        notebook=NOTEBOOK,
        title="Layer, function, inverse, log-determinant",
        minutes=6,
        difficulty=1,
        stub='''
def matching():
    """For each layer the cards of its function (F…), inverse (I…) and log-determinant (D…)."""
    return {
        "actnorm": ("", "", ""),
        "1×1 convolution": ("", "", ""),
        "affine coupling": ("", "", ""),
        "additive coupling": ("", "", ""),
        "squeeze": ("", "", ""),
    }
''',
        solution=matching,
        judge=_judge_matching,
        cases=(Case("the cards", ()),),
        hints=(
            "Begin with the functions: which one has one number per channel, which one a matrix, which "
            "ones ask a network?",
            "An inverse undoes the last thing first. A layer that only shifts or rearranges keeps "
            "volume; one D card serves twice.",
        ),
        explanation="Nothing was looked up: the functions were run, undone, and measured.",
        mutants=(
            Mutant(
                "actnorm and convolution swapped",
                _match(actnorm=("F5", "I1", "D3"), conv=("F3", "I2", "D4")),
                deserves="actnorm: F5 mixes the channels of each pixel by one matrix",
            ),
            Mutant(
                "the couplings swapped",
                _match(affine=("F4", "I3", "D1"), additive=("F1", "I5", "D2")),
                deserves="without scaling; that is another layer",
            ),
            Mutant(
                "wrong inverse",
                _match(affine=("F1", "I3", "D2")),
                deserves="affine coupling: I3 does not undo F1",
            ),
            Mutant(
                "inverse of another shape",
                _match(squeeze=("F2", "I1", "D1")),
                deserves="I1 does not even take what F2 gives",
            ),
            Mutant(
                "actnorm's log-det for the coupling",
                _match(affine=("F1", "I5", "D4")),
                deserves="affine coupling: measured, the log-determinant of F1 is",
            ),
            Mutant(
                "coupling's log-det for additive",
                _match(additive=("F4", "I3", "D2")),
                deserves="additive coupling: measured, the log-determinant of F4 is 0.000",
            ),
            Mutant(
                "0 for the convolution", _match(conv=("F5", "I1", "D1")), deserves="D1 gives 0.000"
            ),
            Mutant(
                "two of three",
                _match(squeeze=("F2", "I4")),
                deserves="squeeze: three card names belong here",
            ),
            Mutant(
                "one left out",
                _match(squeeze=("F2", "", "D1")),
                deserves="no card for its inverse yet",
            ),
            Mutant(
                "cards in another order",
                _match(actnorm=("I2", "F3", "D4")),
                deserves="I2 is not a card for the function; those begin with F",
            ),
            Mutant(
                "a layer missing",
                lambda: {k: v for k, v in matching().items() if k != "squeeze"},
                deserves="squeeze: three card names belong here",
            ),
            Mutant("a list", lambda: list(matching().values()), deserves="it returned a list"),
        ),
    )
)


# --- question 3: the log-determinant, counted -----------------------------------------------------


def fast_logdet(p, l, u, s, h, w):
    return h * w * np.log(np.abs(s)).sum()


def factors(c: int, seed: int, size: float = 1.0) -> tuple:
    """p, l, u, s of a matrix of c channels, s of both signs."""
    rng = np.random.default_rng(seed)
    p, l, upper = lu(size * (rng.normal(size=(c, c)) + np.diag(np.full(c, 1.5))), p_indices=True)
    s = np.diag(upper).copy()
    s[0] = -abs(s[0])
    return p, l, upper - np.diag(np.diag(upper)), s


def _slow_logdet(p, l, u, s, h, w):
    """By the matrix W itself."""
    W = (l @ (u + np.diag(s)))[p]
    return h * w * np.linalg.slogdet(W)[1]


def _elimination(p, l, u, s, h, w):
    """By elimination, written out: about c³/3 multiplications."""
    A = l @ (u + np.diag(s))
    total = 0
    for k in range(len(s)):
        total = total + np.log(np.abs(A[k, k]))
        for i in range(k + 1, len(s)):
            A[i, k:] = A[i, k:] - (A[i, k] / A[k, k]) * A[k, k:]
    return h * w * total


def _by_diagonal(p, l, u, s, h, w):
    return h * w * np.log(np.abs(np.diag(u + np.diag(s)))).sum()


def _every_pixel(p, l, u, s, h, w):
    total = 0
    for _ in range(h * w):
        total = total + np.log(np.abs(s)).sum()
    return total


SIZES = (16, 32)
"""Channels at which operations are counted, the second twice the first."""


def _judge_counted(make, limit, budget: str, advice: str, nearly: str = ""):
    """A judge of values first, then of the operations that ``fn(*make(c, tally))`` took.

    `nearly` takes the place of `advice` where the operations grow as slowly as they should.
    """

    def judge(exercise: Exercise, fn) -> Verdict:
        verdict = judge_values(exercise, fn)
        if verdict.status != "right":
            return verdict
        spent = []
        for c in SIZES:
            tally = Tally()
            outcome = attempt(fn, make(c, tally))
            if outcome.trouble:
                return Verdict(
                    "wrong",
                    "The result is right, but its operations cannot be "
                    "counted: numbers that count go through NumPy's + − · / and log, "
                    f"not through `np.linalg` or `scipy.linalg`. {advice} "
                    f"({outcome.trouble})",
                )
            spent.append(tally.total)
        with watched(UNCOUNTED, fn) as called:
            attempt(fn, exercise.cases[0].args)
        if called:
            return Verdict(
                "wrong",
                f"The result is right. It calls `{called[0]}`, where nothing can be counted: "
                f"write it out. {advice}",
            )
        words = f"{spent[0]:,} operations at c = {SIZES[0]} and {spent[1]:,} at c = {SIZES[1]}"
        if all(n <= limit(c) for c, n in zip(SIZES, spent, strict=True)):
            return Verdict("right", f"{RIGHT.message} It took {words}.")
        power = np.log2(spent[1] / spent[0])
        near = nearly and power < np.log2(limit(SIZES[1]) / limit(SIZES[0])) + 0.5
        return Verdict(
            "wrong",
            f"The result is right, but it took {words}: they grow about like "
            f"c to the power {power:.1f}. {budget} {nearly if near else advice}",
        )

    return judge


def _logdet_numbers(c, tally):
    p, l, u, s = factors(c, c)
    return p, counted(l, tally), counted(u, tally), counted(s, tally), 3, 5


register(
    Exercise(
        id="questions.logdet",
        notebook=NOTEBOOK,
        title="The speed-up, counted",
        minutes=6,
        difficulty=2,
        stub='''
def fast_logdet(p, l, u, s, h, w):
    """log|det dy/dx| of the 1×1 convolution with W = P L (U + diag(s)), for h × w pixels.

    A number. Its operations are counted: at most about 4c are allowed.
    """
    ...
''',
        solution=fast_logdet,
        truth=_slow_logdet,
        judge=_judge_counted(
            _logdet_numbers,
            lambda c: 4 * c + 8,
            "At most about 4c are allowed.",
            "A determinant of W costs about c³; which of the four factors has one other than ±1?",
            "Is something added up anew at each pixel? They are all alike: multiply once, by h·w.",
        ),
        returns=("the log-determinant",),
        cases=(
            Case("5 channels, 3 × 7 pixels", (*factors(5, 1), 3, 7)),
            Case("8 channels, 2 × 1 pixels", (*factors(8, 2), 2, 1)),
            Case("1 channel, 4 × 4 pixels", (*factors(1, 3), 4, 4)),
            Case("384 channels, 2 × 3 pixels", (*factors(384, 4), 2, 3)),
            Case("6 channels, |det W| < 1", (*factors(6, 5, size=0.3), 2, 3)),
        ),
        hints=(
            "det P = ±1 and det L = 1. U + diag(s) is triangular.",
            "So only s is needed: c logarithms, c − 1 additions, and once h·w.",
        ),
        explanation="c logarithms, c − 1 additions, two products: 2c + 1 operations, where W itself "
        "would take about c³/3 multiplications.",
        mutants=(
            Mutant("slogdet of W", _slow_logdet, deserves="not through `np.linalg`"),
            Mutant("elimination", _elimination, deserves="like c to the power 3.0"),
            Mutant("diagonal of a matrix", _by_diagonal, deserves="like c to the power 1.9"),
            Mutant("pixel by pixel", _every_pixel, deserves="multiply once, by h·w"),
            Mutant(
                "no h·w",
                lambda p, l, u, s, h, w: fast_logdet(p, l, u, s, 1, 1),
                "The factor h·w is missing: the slide's log|det W| is one pixel's share.",
            ),
            Mutant(
                "no |·|",
                lambda p, l, u, s, h, w: h * w * np.log(s).sum(),
                "It takes log(s) without |·|: s has negative entries.",
            ),
            Mutant(
                "sign",
                lambda p, l, u, s, h, w: -fast_logdet(p, l, u, s, h, w),
                "The sign is turned over: that is the inverse's.",
            ),
            Mutant(
                "|sum|",
                lambda *a: abs(fast_logdet(*a)),
                "It takes |·| of the sum. The bars belong to each s, before the log: a map that "
                "shrinks volume has a negative log-determinant.",
            ),
            Mutant(
                "slogdet of plain numbers",
                lambda p, l, u, s, h, w: h * w * np.linalg.slogdet(np.diag(s.astype(float)))[1],
                deserves="It calls `numpy.linalg.slogdet`",
            ),
            Mutant(
                "product first",
                lambda p, l, u, s, h, w: h * w * np.log(np.abs(np.prod(s))),
                "It multiplies the entries of s and takes the logarithm afterwards. On paper that "
                "is the same; at 384 channels the product leaves the range of float64, which ends "
                "near 10³⁰⁸ and, downwards, near 10⁻³²⁴. Take the logarithms first, then add.",
            ),
            Mutant(
                "log of the sum",
                lambda p, l, u, s, h, w: h * w * np.log(np.abs(s.sum())),
                "It takes the log of a sum. The entries of s multiply, so their logs add.",
            ),
            Mutant(
                "per channel",
                lambda p, l, u, s, h, w: h * w * np.log(np.abs(s)),
                deserves="should have shape ()",
            ),
            Mutant(
                "log of l too",
                lambda p, l, u, s, h, w: (
                    h * w * (np.log(np.abs(s)).sum() + np.log(np.abs(l[l != 0])).sum())
                ),
                "Entries of L are in the sum. Its diagonal is 1, so det L = 1 whatever stands "
                "below.",
            ),
        ),
    )
)


# --- question 3: the inverse, counted -------------------------------------------------------------


def fast_solve(p, l, u, s, y):
    c = len(s)
    v = [None] * c
    x = [None] * c
    for i in range(c):
        v[p[i]] = y[i]
    for i in range(c):
        for j in range(i):
            v[i] = v[i] - l[i, j] * v[j]
    for i in reversed(range(c)):
        x[i] = v[i]
        for j in range(i + 1, c):
            x[i] = x[i] - u[i, j] * x[j]
        x[i] = x[i] / s[i]
    return np.array(x)


def _solve(p, l, u, s, y):
    return np.linalg.solve((l @ (u + np.diag(s)))[p], y)


def _vector(c, seed):
    return np.random.default_rng(seed + 100).normal(size=c)


def _solve_numbers(c, tally):
    p, l, u, s = factors(c, c)
    return (p, *(counted(a, tally) for a in (l, u, s)), counted(_vector(c, c), tally))


def _gauss_jordan(p, l, u, s, y):
    """Elimination on W, written out."""
    W = (l @ (u + np.diag(s)))[p]
    A = np.concatenate([W, y[:, None]], axis=1)
    c = len(s)
    for k in range(c):
        pivot = max(range(k, c), key=lambda i: abs(A[i, k]))
        A[[k, pivot]] = A[[pivot, k]]
        A[k] = A[k] / A[k, k]
        for i in range(c):
            if i != k:
                A[i] = A[i] - A[i, k] * A[k]
    return A[:, -1]


def _whole_rows(p, l, u, s, y):
    """Right, with as many products by 0 as others."""
    v, x = 0 * y, 0 * y
    for i in range(len(s)):
        v[i] = y[np.argsort(p)][i] - l[i] @ v
    for i in reversed(range(len(s))):
        x[i] = (v[i] - u[i] @ x) / s[i]
    return x


def _by_scipy(p, l, u, s, y):
    v = scipy.linalg.solve_triangular(l, y[np.argsort(p.astype(int))], lower=True)
    return scipy.linalg.solve_triangular(u + np.diag(s), v)


def _by(change):
    return lambda p, l, u, s, y: _solve(*change(p, l, u, s), y)


register(
    Exercise(
        id="questions.solve",
        notebook=NOTEBOOK,
        title="The inverse, counted: two triangular solves",
        minutes=12,
        difficulty=3,
        stub='''
def fast_solve(p, l, u, s, y):
    """The x with P L (U + diag(s)) x = y, for one pixel y of shape (C,); (P v)[i] = v[p[i]].

    Written out, without np.linalg or scipy. At most about 2c² operations are allowed, which are
    counted. l has ones on its diagonal.
    """
    ...
''',
        solution=fast_solve,
        truth=_solve,
        judge=_judge_counted(
            _solve_numbers,
            lambda c: 2 * c * c + 8 * c,
            "At most about 2c² are allowed.",
            "Undo P, then go down through L row by row, then up through U + diag(s).",
            "The power is right; what is too much are numbers that are 0: in row i of l only j < i "
            "counts, in row i of u only j > i. P is an order, not a matrix, and `u + np.diag(s)` "
            "adds c² numbers to change c.",
        ),
        returns=("x",),
        cases=(
            Case("5 channels", (*factors(5, 11), _vector(5, 1))),
            Case("8 channels", (*factors(8, 12), _vector(8, 2))),
            Case("1 channel", (*factors(1, 13), _vector(1, 3))),
        ),
        hints=(
            "Three equations in a row: P a = y, then L v = a, then (U + diag(s)) x = v.",
            "a[p[i]] = y[i]. Then from the top: v[i] = a[i] − Σ_{j<i} l[i, j] v[j].",
            "Then from the bottom: x[i] = (v[i] − Σ_{j>i} u[i, j] x[j]) / s[i].",
        ),
        explanation="Each entry of L and U is used once, with one product and one subtraction: c² − c "
        "of each, and c divisions.",
        mutants=(
            Mutant("np.linalg.solve", _solve, deserves="not through `np.linalg`"),
            Mutant("elimination", _gauss_jordan, deserves="like c to the power 3.0"),
            Mutant("whole rows", _whole_rows, deserves="what is too much are numbers that are 0"),
            Mutant(
                "P as a matrix",
                lambda p, l, u, s, y: fast_solve(
                    np.arange(len(p)), l, u, s, np.eye(len(p))[p].T @ y
                ),
                deserves="P is an order, not a matrix",
            ),
            Mutant(
                "SciPy on plain numbers",
                lambda *a: _by_scipy(*(np.asarray(v, float) for v in a)),
                deserves="It calls `scipy.linalg.solve_triangular`",
            ),
            Mutant(
                "p forgotten",
                _by(lambda p, l, u, s: (np.arange(len(p)), l, u, s)),
                "P is not undone: y has to be put back in order first.",
            ),
            Mutant(
                "p the wrong way",
                _by(lambda p, l, u, s: (np.argsort(p), l, u, s)),
                "P is applied once more where it should be undone: a[p[i]] = y[i].",
            ),
            Mutant(
                "s forgotten",
                _by(lambda p, l, u, s: (p, l, u, np.ones_like(s))),
                "The division by s is missing: the last triangle is U + diag(s).",
            ),
            Mutant(
                "|s|",
                _by(lambda p, l, u, s: (p, l, u, np.abs(s))),
                "It divides by |s|. The bars belong to the log-determinant; here the sign counts.",
            ),
            Mutant(
                "l forgotten",
                _by(lambda p, l, u, s: (p, np.eye(len(s)), u, s)),
                "The solve with L is missing.",
            ),
            Mutant(
                "u forgotten",
                _by(lambda p, l, u, s: (p, l, 0 * u, s)),
                "The entries of U are missing: it only divides by s.",
            ),
            Mutant(
                "forward",
                lambda p, l, u, s, y: (l @ (u + np.diag(s)))[p] @ y,
                "That multiplies by W; asked for is the x that W takes to y.",
            ),
            Mutant(
                "triangles in the wrong order",
                lambda p, l, u, s, y: np.linalg.solve(
                    l, np.linalg.solve(u + np.diag(s), y[np.argsort(p)])
                ),
                "It solves with U + diag(s) first. W applies L after it, so L is undone before.",
            ),
            Mutant("a list", lambda *a: fast_solve(*a).tolist(), deserves="is a list"),
        ),
    )
)


# --- a broken layer to mend -----------------------------------------------------------------------


def log_abs_det(s, h, w):
    return h * w * np.log(np.abs(s)).sum()


def _scales(name: str, c: int, size: float, h: int, w: int, seed: int) -> Case:
    rng = np.random.default_rng(seed)
    s = size * rng.uniform(0.7, 1.4, c) * np.where(np.arange(c) % 2, 1.0, -1.0)
    return Case(name, (s, h, w))


register(
    Exercise(
        id="questions.broken",
        notebook=NOTEBOOK,
        title="Broken layer: the determinant first, its logarithm afterwards",
        minutes=5,
        difficulty=2,
        stub='''
def log_abs_det(s, h, w):
    """log|det dy/dx| of the LU layer on h × w pixels; s has shape (C,)."""
    det = np.prod(s)
    return h * w * np.log(det)
''',
        stub_deserves="Two faults",
        solution=log_abs_det,
        truth=log_abs_det,
        returns=("the log-determinant",),
        cases=(
            _scales("s with an odd number of negative entries", 5, 1.0, 2, 3, 1),
            _scales("384 channels, |s| near 0.1", 384, 0.1, 4, 4, 2),
            _scales("384 channels, |s| near 10", 384, 10.0, 1, 3, 3),
            _scales("2,600 numbers, |s| near 0.01", 2600, 0.01, 1, 1, 4),
        ),
        hints=(
            "Print `det` at 384 channels: 0.1 to the 384th is smaller than any float64.",
            "The logarithm of a product is the sum of the logarithms. Take the bars before them.",
        ),
        explanation="log first, then add: every term is an ordinary number, however many there are. "
        "In float32, as networks run, 0.1 to the 46th is 0 already.",
        mutants=(
            Mutant(
                "as it stands",
                lambda s, h, w: h * w * np.log(np.prod(s)),
                "Two faults. A negative product has no logarithm: |·| is missing. And the product "
                "of 384 numbers leaves the range of float64: 0, or infinity.",
            ),
            Mutant(
                "bars only",
                lambda s, h, w: h * w * np.log(np.abs(np.prod(s))),
                "One fault is mended, one is left: at 384 channels the product is 0 or infinite "
                "before the logarithm sees it.",
            ),
            Mutant(
                "sum only",
                lambda s, h, w: h * w * np.log(s).sum(),
                "One fault is mended, one is left: log(s) of a negative s is not a number. Take "
                "|s|.",
            ),
            Mutant(
                "an eps",
                lambda s, h, w: h * w * np.log(np.abs(np.prod(s)) + 1e-12),
                "An ε keeps the logarithm finite and makes it wrong: log(0 + 1e-12) has nothing to "
                "do with s.",
            ),
            Mutant(
                "h·w lost",
                lambda s, h, w: np.log(np.abs(s)).sum(),
                "h·w is lost; it was there before.",
            ),
            Mutant(
                "float32",
                lambda s, h, w: float(h * w * np.log(np.abs(s.astype(np.float32)).prod())),
                deserves="should be",
            ),
            Mutant(
                "clipped",
                lambda s, h, w: h * w * np.log(np.clip(s, 1e-6, None)).sum(),
                "It clips s at a small positive number. Negative entries of s are legitimate; only "
                "their size counts: |s|.",
            ),
        ),
    )
)


# --- predictions ----------------------------------------------------------------------------------

ask(
    "questions.six",
    "How many of the six are right?",
    ["one", "two", "three"],
    "one",
    "Every stroke counts: h·w, the bars, the sign, the base of the logarithm, the logarithm.",
)

ask(
    "questions.corner",
    "Sort the numbers channel by channel. Whose Jacobian keeps a filled corner above its diagonal?",
    ["actnorm's", "the 1×1 convolution's", "affine coupling's"],
    "affine coupling's",
    "∂y_a/∂x_b is the derivative of a network: anything at all. It stands off the diagonal, so "
    "the determinant does not see it.",
)

ask(
    "questions.wall_clock",
    "At c = 48 that is a factor of 765. How much faster did it make the authors' networks?",
    ["about 765 times", "about twice", "hardly"],
    "hardly",
    "They measured no large difference in wall-clock time: a coupling's network costs far more "
    "than a determinant.",
)
