"""Exercises of notebook 04, actnorm."""

import numpy as np

from course.exercise import Case, Exercise, Mutant, register
from reference import ActNorm


def actnorm_forward(x, s, b):
    return s * x + b


def actnorm_logdet(x, s):
    n, h, w, c = x.shape
    return np.full(n, h * w * np.log(np.abs(s)).sum())


def _case(name: str, shape: tuple[int, int, int, int], seed: int) -> tuple[str, np.ndarray, ...]:
    """Images that are not square, scales of both signs, none of them near 1."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=shape)
    s = rng.uniform(0.4, 2.5, shape[-1]) * np.where(np.arange(shape[-1]) % 2, 1.0, -1.0)
    return name, x, s, rng.normal(size=shape[-1])


_POINTS = (
    _case("two images 5 × 7 with 3 channels, two scales negative", (2, 5, 7, 3), 1),
    _case("three images 2 × 3 with 4 channels", (3, 2, 3, 4), 2),
    _case("one image 4 × 4 with 4 channels, as many as pixels a side", (1, 4, 4, 4), 3),
)

register(Exercise(
    id="actnorm.forward",
    notebook="04_actnorm",
    title="Scale and shift each channel",
    minutes=3,
    difficulty=1,
    stub='''
def actnorm_forward(x, s, b):
    """y_ij = s ⊙ x_ij + b, for images x of shape (N, H, W, C) and s, b of shape (C,)."""
    ...
''',
    solution=actnorm_forward,
    truth=lambda x, s, b: ActNorm(s, b).forward(x)[0],
    returns=("y",),
    cases=tuple(Case(name, (x, s, b)) for name, x, s, b in _POINTS),
    hints=(
        "The channels are the last axis of x, and s has one number for each of them.",
        "NumPy's broadcasting lines up last axes: `s * x` already scales channel by channel.",
    ),
    explanation="The last axis of x is the channel, so broadcasting does the ⊙ of the slide.",
    mutants=(
        Mutant("shift before scale", lambda x, s, b: s * (x + b),
               "It shifts before it scales, s·(x + b), as the authors' code does; the slide "
               "scales first, s·x + b."),
        Mutant("the inverse", lambda x, s, b: (x - b) / s,
               "That is the inverse, (x − b)/s. The forward map multiplies by s and adds b."),
        Mutant("|s|", lambda x, s, b: np.abs(s) * x + b,
               "It scales by |s|. The absolute value belongs to the log-determinant only; a "
               "negative scale turns the channel over."),
        Mutant("minus b", lambda x, s, b: s * x - b, "It subtracts b; the slide adds it."),
        Mutant("no b", lambda x, s, b: s * x, "The shift b is missing."),
        Mutant("exp(s)", lambda x, s, b: np.exp(s) * x + b,
               "It scales by exp(s): here s is the scale itself, not its logarithm."),
        Mutant("a list", lambda x, s, b: (s * x + b).tolist(), deserves="is a list"),
        Mutant("changes x", lambda x, s, b: x.__imul__(s).__iadd__(b),
               deserves="changed its argument x in place"),
    ),
))

register(Exercise(
    id="actnorm.logdet",
    notebook="04_actnorm",
    title="The log-determinant of actnorm",
    minutes=5,
    difficulty=2,
    stub='''
def actnorm_logdet(x, s):
    """log|det dy/dx| of actnorm, one number for each image: shape (N,)."""
    ...
''',
    solution=actnorm_logdet,
    truth=lambda x, s: ActNorm(s, np.zeros_like(s)).forward(x)[1],
    returns=("the log-determinant",),
    cases=tuple(Case(name, (x, s)) for name, x, s, _ in _POINTS),
    hints=(
        "The Jacobian is diagonal: every pixel of channel k is multiplied by s_k, and there are "
        "h·w such pixels.",
        "So each log|s_k| is counted h·w times. All images of the batch get the same number; "
        "`np.full(n, value)` repeats it.",
    ),
    explanation="Each of the h·w pixels contributes sum(log|s|). The value does not depend on x.",
    mutants=(
        Mutant("no h·w", lambda x, s: np.full(len(x), np.log(np.abs(s)).sum()),
               "The factor h·w is missing: the same s acts at each of the h·w pixels."),
        Mutant("no |s|", lambda x, s: np.full(len(x), x.shape[1] * x.shape[2] * np.log(s).sum()),
               "It takes the logarithm of s without |·|: where a scale is negative the result is "
               "not a number."),
        Mutant("sign", lambda x, s: -actnorm_logdet(x, s),
               "The sign is turned over: this is the log-determinant of the inverse."),
        Mutant("counts c too", lambda x, s: actnorm_logdet(x, s) * x.shape[3],
               "It is too large by the factor c: the sum over s already runs over the channels."),
        Mutant("mean", lambda x, s: np.full(
            len(x), x.shape[1] * x.shape[2] * np.log(np.abs(s)).mean()),
               "It takes the mean of log|s| over the channels; a determinant multiplies, so its "
               "logarithm is the sum."),
        Mutant("log of the sum", lambda x, s: np.full(
            len(x), x.shape[1] * x.shape[2] * np.log(np.abs(s).sum())),
               "It takes the logarithm of a sum. The sum is of logarithms: sum(log|s|)."),
        Mutant("base 2", lambda x, s: actnorm_logdet(x, s) / np.log(2),
               "It uses the logarithm to base 2; log-determinants are in nats, `np.log`."),
        Mutant("whole batch", lambda x, s: actnorm_logdet(x, s) * len(x),
               "It adds up the images of the batch; each image has its own log-determinant."),
        Mutant("one number", lambda x, s: actnorm_logdet(x, s)[0], deserves="should have shape"),
    ),
))
