"""Exercises of notebook 04, actnorm."""

from dataclasses import replace
from functools import partial

import numpy as np

from course.exercise import Case, Exercise, Mutant, register
from course.judge import Verdict, judge_values
from course.predict import ask
from reference import ActNorm

NOTEBOOK = "04_actnorm"


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
    # Three: where their number is even, log(s₁·s₂·…) is defined although |·| is missing.
    _case("two images 3 × 2 with 5 channels, three scales negative", (2, 3, 2, 5), 4),
)

register(
    Exercise(
        id="actnorm.forward",
        notebook=NOTEBOOK,
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
            Mutant(
                "shift before scale",
                lambda x, s, b: s * (x + b),
                "It shifts before it scales, s·(x + b), as the authors' code does; the slide "
                "scales first, s·x + b.",
            ),
            Mutant(
                "the inverse",
                lambda x, s, b: (x - b) / s,
                "That is the inverse, (x − b)/s. The forward map multiplies by s and adds b.",
            ),
            Mutant(
                "|s|",
                lambda x, s, b: np.abs(s) * x + b,
                "It scales by |s|. The absolute value belongs to the log-determinant only; a "
                "negative scale turns the channel over.",
            ),
            Mutant("minus b", lambda x, s, b: s * x - b, "It subtracts b; the slide adds it."),
            Mutant("no b", lambda x, s, b: s * x, "The shift b is missing."),
            Mutant(
                "exp(s)",
                lambda x, s, b: np.exp(s) * x + b,
                "It scales by exp(s): here s is the scale itself, not its logarithm.",
            ),
            Mutant("a list", lambda x, s, b: (s * x + b).tolist(), deserves="is a list"),
            Mutant(
                "changes x",
                lambda x, s, b: x.__imul__(s).__iadd__(b),
                deserves="changed its argument x in place",
            ),
        ),
    )
)

register(
    Exercise(
        id="actnorm.logdet",
        notebook=NOTEBOOK,
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
            Mutant(
                "no h·w",
                lambda x, s: np.full(len(x), np.log(np.abs(s)).sum()),
                "The factor h·w is missing: the same s acts at each of the h·w pixels.",
            ),
            Mutant(
                "no |s|",
                lambda x, s: np.full(len(x), x.shape[1] * x.shape[2] * np.log(s).sum()),
                "It takes the logarithm of s without |·|: where a scale is negative the result is "
                "not a number.",
            ),
            Mutant(
                "log of the product, no |s|",
                lambda x, s: np.full(len(x), x.shape[1] * x.shape[2] * np.log(np.prod(s))),
                "It takes the logarithm of the product of s without |·|: where an odd number of "
                "scales is negative the product is too, and the result is not a number.",
            ),
            Mutant(
                "|·| outside",
                lambda x, s: np.full(
                    len(x), x.shape[1] * x.shape[2] * np.abs(np.log(np.abs(s))).sum()
                ),
                "It adds up |log|s||. A scale below 1 squeezes the volume: its logarithm is negative "
                "and counts as such.",
            ),
            Mutant(
                "the pixels inside the log",
                lambda x, s: np.full(len(x), np.log(x.shape[1] * x.shape[2] * np.abs(s)).sum()),
                "h·w stands inside the logarithm. The logarithm of each |s| is counted h·w times: "
                "h·w·sum(log|s|).",
            ),
            Mutant(
                "no log",
                lambda x, s: np.full(len(x), x.shape[1] * x.shape[2] * np.abs(s).sum()),
                "The logarithm is missing: h·w·sum(log|s|), not h·w·sum(|s|).",
            ),
            Mutant(
                "channels first",
                lambda x, s: np.full(len(x), x.shape[2] * x.shape[3] * np.log(np.abs(s)).sum()),
                "It counts the last two axes, w·c. The channels are the last axis here: "
                "n, h, w, c = x.shape.",
            ),
            Mutant(
                "sign",
                lambda x, s: -actnorm_logdet(x, s),
                "The sign is turned over: this is the log-determinant of the inverse.",
            ),
            Mutant(
                "counts c too",
                lambda x, s: actnorm_logdet(x, s) * x.shape[3],
                "It is too large by the factor c: the sum over s already runs over the channels.",
            ),
            Mutant(
                "h² for h·w",
                lambda x, s: actnorm_logdet(x, s) * x.shape[1] / x.shape[2],
                "It counts h·h pixels. These images are not square: there are h·w.",
            ),
            Mutant(
                "h only",
                lambda x, s: actnorm_logdet(x, s) / x.shape[2],
                "It counts the h rows only; each row has w pixels, so h·w.",
            ),
            Mutant(
                "w only",
                lambda x, s: actnorm_logdet(x, s) / x.shape[1],
                "It counts the w columns only; each column has h pixels, so h·w.",
            ),
            Mutant(
                "mean",
                lambda x, s: np.full(len(x), x.shape[1] * x.shape[2] * np.log(np.abs(s)).mean()),
                "It takes the mean of log|s| over the channels; a determinant multiplies, so its "
                "logarithm is the sum.",
            ),
            Mutant(
                "log of the sum",
                lambda x, s: np.full(len(x), x.shape[1] * x.shape[2] * np.log(np.abs(s).sum())),
                "It takes the logarithm of a sum. The sum is of logarithms: sum(log|s|).",
            ),
            Mutant(
                "base 2",
                lambda x, s: actnorm_logdet(x, s) / np.log(2),
                "It uses the logarithm to base 2; log-determinants are in nats, `np.log`.",
            ),
            Mutant(
                "whole batch",
                lambda x, s: actnorm_logdet(x, s) * len(x),
                "It adds up the images of the batch; each image has its own log-determinant.",
            ),
            Mutant(
                "one number", lambda x, s: actnorm_logdet(x, s)[0], deserves="should have shape"
            ),
        ),
    )
)


# --- the inverse ----------------------------------------------------------------------------------


def actnorm_inverse(y, s, b):
    return (y - b) / s


register(
    Exercise(
        id="actnorm.inverse",
        notebook=NOTEBOOK,
        title="Undo it",
        minutes=2,
        difficulty=1,
        stub='''
def actnorm_inverse(y, s, b):
    """The x with s ⊙ x_ij + b = y_ij, for y of shape (N, H, W, C) and s, b of shape (C,)."""
    ...
''',
        solution=actnorm_inverse,
        truth=lambda y, s, b: ActNorm(s, b).inverse(y),
        returns=("x",),
        cases=tuple(Case(name, (y, s, b)) for name, y, s, b in _POINTS),
        hints=(
            "Solve y = s·x + b for x. What was done last is undone first.",
            "Take b away, then divide by s; the brackets matter.",
        ),
        explanation="Forward scales, then shifts; so the inverse shifts back first, then divides.",
        mutants=(
            Mutant(
                "no brackets",
                lambda y, s, b: y - b / s,
                "It computes y − b/s. Division binds before subtraction: brackets are missing.",
            ),
            Mutant(
                "the other order",
                lambda y, s, b: y / s - b,
                "It undoes s·(x + b), the form of the authors' code: y/s − b. The slide's layer is "
                "s·x + b, where the shift came last and so is undone first.",
            ),
            Mutant(
                "the forward map",
                lambda y, s, b: s * y + b,
                "That is the forward map once more; take the shift away and divide.",
            ),
            Mutant(
                "multiplies",
                lambda y, s, b: (y - b) * s,
                "It takes b away, and then multiplies by s where it should divide.",
            ),
            Mutant("adds b", lambda y, s, b: (y + b) / s, "It adds b; forward added it already."),
            Mutant("no b", lambda y, s, b: y / s, "It undoes the scale and forgets the shift b."),
            Mutant(
                "|s|",
                lambda y, s, b: (y - b) / np.abs(s),
                "It divides by |s|. A channel turned over by a negative s must be turned back.",
            ),
            *(
                Mutant(
                    f"eps of {eps}",
                    lambda y, s, b, eps=eps: (y - b) / (s + eps),
                    f"It adds ε = {eps} to s. Forward has none, so the two are no exact partners and "
                    "every pass through the flow moves the image a little.",
                )
                for eps in (1e-5, 1e-6, 1e-8)
            ),
            Mutant(
                "changes y",
                lambda y, s, b: y.__isub__(b).__itruediv__(s),
                deserves="changed its argument y in place",
            ),
        ),
    )
)


# --- the initial values ---------------------------------------------------------------------------


def initial_values(x):
    mean = x.mean(axis=(0, 1, 2))
    std = x.std(axis=(0, 1, 2))
    return 1 / std, -mean / std


def _truth_of_initial_values(x):
    layer = ActNorm.from_data(x)
    return layer.s, layer.b


def _per(x, axis):
    """The initial values by statistics over other axes."""
    mean, std = x.mean(axis=axis), x.std(axis=axis)
    return 1 / std, -mean / std


def _batch(name: str, shape: tuple[int, int, int, int], seed: int) -> Case:
    """Channels of different means and spreads; each image and each row has its own level."""
    rng = np.random.default_rng(seed)
    n, h, _, c = shape
    x = rng.normal(size=shape) + rng.normal(size=(n, 1, 1, 1)) + rng.normal(size=(1, h, 1, 1))
    return Case(name, (x * rng.uniform(0.2, 3, c) + rng.normal(size=c) * 4,))


register(
    Exercise(
        id="actnorm.from_data",
        notebook=NOTEBOOK,
        title="The initial s and b, from one batch",
        minutes=6,
        difficulty=2,
        stub='''
def initial_values(x):
    """s and b, each of shape (C,), such that each channel of s ⊙ x_ij + b has mean 0, variance 1.

    x is one batch of images, of shape (N, H, W, C).
    """
    ...
''',
        solution=initial_values,
        truth=_truth_of_initial_values,
        returns=("s", "b"),
        cases=(
            _batch("four images 3 × 5 with 2 channels", (4, 3, 5, 2), 11),
            _batch("two images 6 × 4 with 5 channels", (2, 6, 4, 5), 12),
            _batch("one image 7 × 3 with 3 channels", (1, 7, 3, 3), 13),
        ),
        hints=(
            "A channel's mean runs over the images and over all pixels: three of the four axes. "
            "`axis=(0, 1, 2)` names them.",
            "The spread is divided out: s = 1/σ. Then s·μ + b must be 0, which gives b.",
        ),
        explanation="(x − μ)/σ = (1/σ)·x + (−μ/σ): read off s and b. The statistics are over the "
        "batch and all pixels, because one s serves every pixel.",
        mutants=(
            Mutant(
                "b is minus the mean",
                lambda x: (_per(x, (0, 1, 2))[0], -x.mean(axis=(0, 1, 2))),
                "b = −μ belongs to s·(x + b), the authors' form. Here the shift comes after the "
                "scale, so the mean that must go is s·μ.",
            ),
            Mutant(
                "b of the wrong sign",
                lambda x: (_per(x, (0, 1, 2))[0], -_per(x, (0, 1, 2))[1]),
                "b has the wrong sign: the mean afterwards is 2μ/σ, not 0.",
            ),
            Mutant(
                "s is the spread",
                lambda x: (x.std(axis=(0, 1, 2)), -x.mean(axis=(0, 1, 2))),
                "s = σ makes wide channels wider. To bring σ to 1, divide by it.",
            ),
            Mutant(
                "variance for spread",
                lambda x: (
                    1 / x.var(axis=(0, 1, 2)),
                    -x.mean(axis=(0, 1, 2)) / x.var(axis=(0, 1, 2)),
                ),
                "It divides by the variance σ². The spread σ, its root, is what scales with x.",
            ),
            Mutant(
                "over the batch only",
                lambda x: _per(x, 0),
                "It averages over the images only and keeps one value for each pixel. Actnorm has "
                "one s for each channel, shared by all pixels: average over them too.",
            ),
            Mutant(
                "over the channels",
                lambda x: _per(x, (1, 2, 3)),
                "It averages over the channels and keeps the images apart. It should be the other "
                "way round: the channel is the last axis, and it stays.",
            ),
            Mutant(
                "one for all channels",
                lambda x: tuple(np.full(x.shape[-1], v) for v in _per(x, None)),
                "All channels get the same s and b. Each channel has its own mean and spread.",
            ),
            Mutant(
                "one image only",
                lambda x: _per(x[0], (0, 1)),
                "It looks at the first image of the batch only; the statistics are over all of it.",
            ),
            Mutant(
                "mirrored",
                lambda x: (-_per(x, (0, 1, 2))[0], -_per(x, (0, 1, 2))[1]),
                "Mean 0 and variance 1, but every channel comes out turned over. Take the positive "
                "root, s = 1/σ.",
            ),
            Mutant(
                "n − 1",
                lambda x: (
                    1 / x.std(axis=(0, 1, 2), ddof=1),
                    -x.mean(axis=(0, 1, 2)) / x.std(axis=(0, 1, 2), ddof=1),
                ),
                "It divides by n − 1 (ddof=1), which estimates the variance of a larger population. "
                "Asked for is variance 1 on this batch: divide by n, NumPy's default.",
            ),
            Mutant(
                "the spread and the mean",
                lambda x: (x.std(axis=(0, 1, 2)), x.mean(axis=(0, 1, 2))),
                "Those are σ and μ themselves. s and b must undo them: scale by s, then add b.",
            ),
            Mutant(
                "b is the mean",
                lambda x: (_per(x, (0, 1, 2))[0], x.mean(axis=(0, 1, 2))),
                "s is right; b is μ, which adds the mean once more. It must cancel s·μ.",
            ),
            Mutant(
                "b is the spread's",
                lambda x: (x.std(axis=(0, 1, 2)), _per(x, (0, 1, 2))[1]),
                "b is right; s is σ, which makes wide channels wider. Divide by the spread.",
            ),
            Mutant(
                "b before s",
                lambda x: _per(x, (0, 1, 2))[::-1],
                "Both are there, in the wrong order: s first, then b.",
            ),
            *(
                Mutant(
                    f"eps of {eps}",
                    lambda x, eps=eps: (
                        1 / (x.std(axis=(0, 1, 2)) + eps),
                        -x.mean(axis=(0, 1, 2)) / (x.std(axis=(0, 1, 2)) + eps),
                    ),
                    f"It adds ε = {eps} to σ, so that the variance is not quite 1. A channel with σ = 0 "
                    "does need care, but ε in all channels is not what the slide asks for.",
                )
                for eps in (1e-3, 1e-5, 1e-6, 1e-8)
            ),
            *(
                Mutant(
                    f"eps of {eps} in the variance",
                    lambda x, eps=eps: (
                        1 / np.sqrt(x.var(axis=(0, 1, 2)) + eps),
                        -x.mean(axis=(0, 1, 2)) / np.sqrt(x.var(axis=(0, 1, 2)) + eps),
                    ),
                    f"It adds ε = {eps} to σ², as batch norm does, so that the variance is not quite 1.",
                )
                for eps in (1e-3, 1e-5, 1e-6)
            ),
            Mutant(
                "s and b in one array",
                lambda x: np.array(_per(x, (0, 1, 2))),
                deserves="a tuple (s, b); it returned an array",
            ),
            Mutant(
                "y itself",
                lambda x: (x - x.mean(axis=(0, 1, 2))) / x.std(axis=(0, 1, 2)),
                deserves="a tuple (s, b)",
            ),
            Mutant(
                "keepdims",
                lambda x: (
                    1 / x.std(axis=(0, 1, 2), keepdims=True),
                    -x.mean(axis=(0, 1, 2), keepdims=True),
                ),
                deserves="should have shape",
            ),
        ),
    )
)


# --- a broken layer to mend -----------------------------------------------------------------------


class SavedActNorm:
    def __init__(self, saved=None):
        self.s, self.b, self.initialised = saved or (None, None, False)

    def forward(self, x):
        if not self.initialised:
            self.s = 1 / x.std(axis=(0, 1, 2))
            self.b = -self.s * x.mean(axis=(0, 1, 2))
            self.initialised = True
        n, h, w, _ = x.shape
        return self.s * x + self.b, np.full(n, h * w * np.log(np.abs(self.s)).sum())

    def inverse(self, y):
        return (y - self.b) / self.s

    def save(self):
        return self.s, self.b, self.initialised


def _life(layer_class, first, trained_s, trained_b, later, last):
    """Initialise on one batch, train, save, load, meet two more batches; then undo the last."""
    layer = layer_class()
    start = layer.forward(first)
    layer.s, layer.b = trained_s.copy(), trained_b.copy()
    here = layer.forward(later)
    loaded = layer_class(layer.save())
    there, after = loaded.forward(later), loaded.forward(last)
    back = loaded.inverse(last)
    parts = (*start, *here, *there, *after, back)
    return ... if all(part is None for part in parts) else parts


def _life_by_reference(first, trained_s, trained_b, later, last):
    start, trained = ActNorm.from_data(first), ActNorm(trained_s, trained_b)
    here = trained.forward(later)
    return (*start.forward(first), *here, *here, *trained.forward(last), trained.inverse(last))


def _judge_life(exercise: Exercise, layer_class) -> Verdict:
    """Judge a class by the values of one life of it, as `judge_values` judges a function."""
    lived = replace(
        exercise,
        solution=partial(_life, exercise.solution),
        mutants=tuple(replace(m, fn=partial(_life, m.fn)) for m in exercise.mutants),
    )
    return judge_values(lived, partial(_life, layer_class))


def _life_case(name: str, n: int, h: int, w: int, c: int, seed: int) -> Case:
    first, later, last = (_batch("", (n + k, h, w, c), seed + k).args[0] for k in range(3))
    s = np.random.default_rng(seed).uniform(0.3, 2.5, c) * np.where(np.arange(c) % 2, -1.0, 1.0)
    return Case(name, (first, s, np.linspace(-2.0, 3.0, c), later, last))


class _AsItStands(SavedActNorm):
    def __init__(self, saved=None):
        self.s, self.b = saved or (None, None)
        self.initialised = False

    def inverse(self, y):
        return y / self.s - self.b

    def save(self):
        return self.s, self.b


class _OtherOrder(SavedActNorm):
    def inverse(self, y):
        return y / self.s - self.b


class _Multiplies(SavedActNorm):
    def inverse(self, y):
        return (y - self.b) * self.s


class _FlagLost(_AsItStands):
    inverse = SavedActNorm.inverse


class _BatchNorm(SavedActNorm):
    def forward(self, x):
        self.initialised = False
        return super().forward(x)


class _NeverInitialises(SavedActNorm):
    def __init__(self, saved=None):
        self.s, self.b, self.initialised = saved or (1.0, 0.0, True)

    def forward(self, x):
        n, h, w, c = x.shape
        s = self.s * np.ones(c)
        return s * x + self.b, np.full(n, h * w * np.log(np.abs(s)).sum())


class _NoPixels(SavedActNorm):
    def forward(self, x):
        y, logdet = super().forward(x)
        return y, logdet / (x.shape[1] * x.shape[2])


def _claims(self, saved=None):
    self.s, self.b, self.initialised = *(saved or (None, None)), True


class _SavesSpread(SavedActNorm):
    def save(self):
        return np.abs(self.s), self.b, self.initialised


register(
    Exercise(
        id="actnorm.broken",
        notebook=NOTEBOOK,
        title="Broken layer: saved, loaded, and not the same",
        minutes=8,
        difficulty=3,
        stub="""
class SavedActNorm:
    def __init__(self, saved=None):  # saved: what save() returned
        self.s, self.b = saved or (None, None)
        self.initialised = False

    def forward(self, x):
        if not self.initialised:
            self.s = 1 / x.std(axis=(0, 1, 2))
            self.b = -self.s * x.mean(axis=(0, 1, 2))
            self.initialised = True
        n, h, w, _ = x.shape
        return self.s * x + self.b, np.full(n, h * w * np.log(np.abs(self.s)).sum())

    def inverse(self, y):
        return y / self.s - self.b

    def save(self):
        return self.s, self.b
""",
        stub_deserves="Two faults",
        solution=SavedActNorm,
        truth=_life_by_reference,
        judge=_judge_life,
        returns=(
            "y of the first batch",
            "its logdet",
            "y before saving",
            "its logdet",
            "y after loading",
            "its logdet",
            "y of a batch after that",
            "its logdet",
            "the inverse",
        ),
        cases=(
            _life_case("images 3 × 5 with 2 channels", 3, 3, 5, 2, 21),
            _life_case("images 4 × 2 with 3 channels", 2, 4, 2, 3, 31),
        ),
        hints=(
            "Follow `initialised` through a life: a new layer, first batch, save, load, next batch. "
            "What is it when the loaded layer meets its first batch, and what happens then?",
            "Let `save` return three things and `__init__` take them. Then compare `inverse` with the "
            "last line of `forward`: which came last there, the scale or the shift?",
        ),
        explanation="The flag is part of the layer's state, like s and b: save it, load it. And the "
        "inverse undoes the shift first, because forward applied it last.",
        mutants=(
            Mutant(
                "as it stands",
                _AsItStands,
                "Two faults. The loaded layer does not know that it was initialised and takes new "
                "s and b from the next batch; and inverse undoes s·(x + b), which is not what "
                "forward does. Mend both.",
            ),
            Mutant(
                "flag mended only",
                _OtherOrder,
                "One fault is mended, one is left: inverse computes y/s − b, but forward scales "
                "first and shifts last, so the shift is undone first.",
            ),
            Mutant(
                "inverse mended only",
                _FlagLost,
                "One fault is mended, one is left: after loading, `initialised` is False again, so "
                "the trained s and b are overwritten from the next batch.",
            ),
            Mutant(
                "initialises on every batch",
                _BatchNorm,
                "It takes s and b from every batch anew. That is batch normalisation: what was "
                "trained is lost, and y of one image depends on the others in its batch.",
            ),
            Mutant(
                "inverse multiplies",
                _Multiplies,
                "The flag is mended, and the shift is undone first, as it should; but then inverse "
                "multiplies by s where it should divide.",
            ),
            Mutant(
                "never initialises",
                _NeverInitialises,
                "Now a new layer never takes its s and b from the first batch. It should, once, if "
                "nothing was loaded.",
            ),
            Mutant(
                "h·w lost",
                _NoPixels,
                "The factor h·w of the log-determinant is gone; it was right before.",
            ),
            Mutant(
                "signs lost",
                _SavesSpread,
                "It saves |s|. The sign of s is part of the layer: it says which channels are "
                "turned over.",
            ),
            Mutant(
                "says it is initialised",
                type("Claims", (SavedActNorm,), {"__init__": _claims}),
                deserves="(line ",
            ),
            Mutant(
                "save returns nothing",
                type("Forgets", (SavedActNorm,), {"save": lambda self: None}),
                deserves="after loading, `initialised` is False again",
            ),
        ),
    )
)


# --- predictions ----------------------------------------------------------------------------------

ask(
    "actnorm.negative",
    "Scale red by −1, and leave green and blue alone. What is the log-determinant?",
    ["negative", "0", "not defined"],
    "0",
    "log|−1| = 0. Red is turned over, like a film negative; no volume is gained or lost.",
)

ask(
    "actnorm.diagonal",
    "How often does s₁ = 1.5 stand on the diagonal of this 24 × 24 matrix?",
    ["once", "4 times", "6 times"],
    "6 times",
    "Once for each of the h·w = 2·3 pixels.",
)

ask(
    "actnorm.histogram",
    "The histogram of red is lopsided, with a spike where red is as bright as it can be. And "
    "after actnorm?",
    ["a bell curve", "lopsided, with the spike"],
    "lopsided, with the spike",
    "s·x + b moves and stretches. The shape stays, however unlike a normal it is.",
)

ask(
    "actnorm.company",
    "The same face, in two different batches. Is its y the same?",
    ["with both", "with actnorm only", "with batch norm only"],
    "with actnorm only",
    "Actnorm's s and b are numbers of the layer; batch norm's come with the company.",
)
