"""Exercises of notebook 09, training."""

import numpy as np

from course.exercise import Case, Exercise, Mutant, register
from course.predict import ask
from glowlite.schedule import lr_factor

NOTEBOOK = "09_training"


# --- the learning rate ----------------------------------------------------------------------------


def learning_rate(images, total, base, warmup):
    rise = min(1.0, images / warmup)
    fall = 0.5 * (1 + np.cos(np.pi * images / total))
    return base * rise * fall


def _rate(rise, fall):
    """A wrong schedule from its two factors, each of (images, total, warmup)."""
    return lambda images, total, base, warmup: (
        base * rise(images, total, warmup) * fall(images, total, warmup)
    )


def _rise(images, total, warmup):
    return min(1.0, images / warmup)


def _fall(images, total, warmup):
    return 0.5 * (1 + np.cos(np.pi * images / total))


register(
    Exercise(
        id="training.schedule",
        notebook=NOTEBOOK,
        title="A learning rate that warms up and fades out",
        minutes=5,
        difficulty=2,
        stub='''
def learning_rate(images, total, base, warmup):
    """base · min(1, images / warmup) · ½(1 + cos(π · images / total)).

    images: seen so far, of `total`; over the first `warmup` of them the rate rises in a line.
    """
    ...
''',
        solution=learning_rate,
        truth=lambda images, total, base, warmup: (
            base * lr_factor("cosine", images, images / total, warmup)
        ),
        returns=("the rate",),
        cases=(
            Case("320 images of 19,200, in the warm-up of 1,280", (320, 19_200, 2e-3, 1_280)),
            Case("9,000 images of 19,200, long after it", (9_000, 19_200, 2e-3, 1_280)),
            Case("the last of 5,000 images", (5_000, 5_000, 0.1, 700)),
            Case("the very first image of 1,000", (1, 1_000, 1.0, 400)),
        ),
        hints=(
            "Two factors: one rises from 0 to 1 and stays there, the other falls from 1 to 0. `min` "
            "makes the first one stay.",
            "`np.cos(np.pi * images / total)` runs from 1 to −1; add 1 and halve.",
        ),
        explanation="The base rate enters once. At first it is held down, because the first gradients "
        "come from a model that knows nothing; at the end it fades, so that the noise of "
        "single batches is averaged out.",
        mutants=(
            Mutant(
                "base twice",
                lambda i, t, b, w: b * b * _rise(i, t, w) * _fall(i, t, w),
                "The base rate is multiplied in twice. That is the bug of this notebook: 10⁻³ "
                "becomes 10⁻⁶, nothing crashes, and nothing is learned.",
            ),
            Mutant(
                "no warm-up",
                _rate(lambda *a: 1.0, _fall),
                "The warm-up is missing: the very first step already takes the full rate.",
            ),
            Mutant(
                "never levels off",
                _rate(lambda i, t, w: i / w, _fall),
                "The rise never stops: after the warm-up images / warmup is larger than 1. Cut it "
                "at 1.",
            ),
            Mutant(
                "max",
                _rate(lambda i, t, w: max(1.0, i / w), _fall),
                "`max` where `min` is meant: the factor of the warm-up is never above 1.",
            ),
            Mutant(
                "upside down",
                _rate(lambda i, t, w: min(1.0, w / i), _fall),
                "It divides warmup by images: the rate is held down after the warm-up, not in it.",
            ),
            Mutant(
                "no fading",
                _rate(_rise, lambda *a: 1.0),
                "It warms up and stays there (the authors' schedule); the cosine is missing.",
            ),
            Mutant(
                "not halved",
                _rate(_rise, lambda i, t, w: 1 + np.cos(np.pi * i / t)),
                "1 + cos starts at 2: halve it, or the rate is twice what you asked for.",
            ),
            Mutant(
                "half a wave too much",
                _rate(_rise, lambda i, t, w: 0.5 * (1 + np.cos(2 * np.pi * i / t))),
                "2π is a whole wave: the rate comes back up at the end. Half a wave is π.",
            ),
            Mutant(
                "cosine of the warm-up",
                _rate(_rise, lambda i, t, w: 0.5 * (1 + np.cos(np.pi * min(1.0, i / w)))),
                "The cosine runs over the warm-up; it should run over all images, `total`.",
            ),
            Mutant(
                "after the warm-up",
                _rate(
                    _rise,
                    lambda i, t, w: (
                        0.5 * (1 + np.cos(np.pi * max(0.0, i - w) / (t - w) if t > w else 0.0))
                    ),
                ),
                "The cosine starts only where the warm-up ends. Many schedules do that; this one "
                "runs it over all images from the first.",
            ),
            Mutant(
                "degrees",
                _rate(_rise, lambda i, t, w: 0.5 * (1 + np.cos(180 * i / t))),
                "`np.cos` takes radians: half a wave is π, not 180.",
            ),
            Mutant(
                "whole division",
                _rate(lambda i, t, w: min(1, i // w), _fall),
                "`//` rounds down: the factor of the warm-up is 0 until its end. Use `/`.",
            ),
            Mutant(
                "added",
                lambda i, t, b, w: b * (_rise(i, t, w) + _fall(i, t, w)) / 2,
                "It adds the two factors. They are multiplied: either can hold the rate at 0.",
            ),
            Mutant(
                "a straight fall",
                _rate(_rise, lambda i, t, w: 1 - i / t),
                "It falls in a straight line; the schedule asked for is half a cosine wave.",
            ),
        ),
    )
)


# --- the bug of 103 epochs ------------------------------------------------------------------------


def rates(base, warmup, steps):
    def factor(step):
        return min((step + 1) / warmup, 1.0)

    return np.array([base * factor(step) for step in range(steps)])


def _rates(factor):
    return lambda base, warmup, steps: np.array(
        [base * factor(step, base, warmup) for step in range(steps)]
    )


register(
    Exercise(
        id="training.broken",
        notebook=NOTEBOOK,
        title="Broken loop: the run that sat at 4.0",
        minutes=6,
        difficulty=2,
        stub='''
def rates(base, warmup, steps):
    """The learning rate of each step: in a line up to `base` at the warmup-th step, then flat."""
    def factor(step):  # handed to torch's LambdaLR, which uses base · factor(step)
        return base * min(step / warmup, 1.0)

    return np.array([base * factor(step) for step in range(steps)])
''',
        stub_deserves="Two faults",
        solution=rates,
        truth=lambda base, warmup, steps: np.array(
            [base * lr_factor("constant", step + 1, 0.0, warmup) for step in range(steps)]
        ),
        returns=("the rates",),
        cases=(
            Case("base 10⁻³, 6 steps of warm-up, 10 steps", (1e-3, 6, 10)),
            Case("base 0.5, 4 steps of warm-up, 7 steps", (0.5, 4, 7)),
            Case("base 3, 1 step of warm-up, 3 steps", (3.0, 1, 3)),
        ),
        hints=(
            "Read the last line together with the body of `factor`: how often is `base` multiplied in?",
            "Now the first step, step = 0. At what rate does it go, and what does it learn? The steps "
            "are counted from 0; the warmup-th of them is number warmup − 1.",
        ),
        explanation="LambdaLR wants a factor, not a rate: it multiplies by the base rate itself. And "
        "step 0 is the first step that is taken, so it deserves 1/warmup, not 0.",
        mutants=(
            Mutant(
                "as it stands",
                _rates(lambda k, b, w: b * min(k / w, 1.0)),
                "Two faults. `base` is multiplied in twice, once in `factor` and once by whoever "
                "calls it, so 10⁻³ becomes 10⁻⁶; and the first step has the rate 0, it computes a "
                "gradient and learns nothing. Mend both.",
            ),
            Mutant(
                "base mended only",
                _rates(lambda k, b, w: min(k / w, 1.0)),
                "One fault is mended, one is left: step 0 has the rate 0. The warm-up should reach "
                "1/warmup at its first step and 1 at its last.",
            ),
            Mutant(
                "step mended only",
                _rates(lambda k, b, w: b * min((k + 1) / w, 1.0)),
                "One fault is mended, one is left: `factor` still multiplies by base, and so does "
                "the line that calls it. lr² is all that is left of lr.",
            ),
            Mutant(
                "base nowhere",
                lambda b, w, n: np.array([min((k + 1) / w, 1.0) for k in range(n)]),
                "Now base is gone from both places; one of the two should keep it.",
            ),
            Mutant(
                "no warm-up",
                _rates(lambda k, b, w: 1.0),
                "The warm-up is gone. It should stay: a line from 1/warmup to 1.",
            ),
            Mutant(
                "no end",
                _rates(lambda k, b, w: (k + 1) / w),
                "The rate goes on rising after the warm-up; `min` kept it at 1.",
            ),
            Mutant(
                "divided out",
                _rates(lambda k, b, w: min(k / w, 1.0) + 1 / w),
                "Adding 1/warmup outside of `min` overshoots: the rate ends above base. Add 1 to "
                "the step.",
            ),
            Mutant(
                "step − 1",
                _rates(lambda k, b, w: min((k - 1) / w, 1.0)),
                "The first step now has a negative rate: it climbs instead of descending. Which way "
                "is step 0 off?",
            ),
            Mutant(
                "one step late",
                _rates(lambda k, b, w: min((k + 1) / (w + 1), 1.0)),
                "base is mended, and step 0 learns; but the full rate comes one step late: "
                "divide by warmup, not by warmup + 1.",
            ),
            Mutant(
                "root",
                _rates(lambda k, b, w: min((k + 1) / w, 1.0) / b**0.5),
                "Taking a root of base is a repair of the symptom; multiply by base once.",
            ),
            Mutant("a list", lambda b, w, n: list(rates(b, w, n)), deserves="is a list"),
        ),
    )
)


# --- the moving average ---------------------------------------------------------------------------


def update(average, weights, decay):
    return decay * average + (1 - decay) * weights


def _averages(name, shape, decay, seed):
    rng = np.random.default_rng(seed)
    return Case(name, (rng.normal(size=shape), rng.normal(size=shape) + 1.0, decay))


register(
    Exercise(
        id="training.ema",
        notebook=NOTEBOOK,
        title="Averaging the weights as they move",
        minutes=3,
        difficulty=1,
        stub='''
def update(average, weights, decay):
    """The new average: decay parts of the old one, 1 − decay parts of the weights."""
    ...
''',
        solution=update,
        returns=("the average",),
        cases=(
            _averages("a 3 × 5 matrix and decay 0.9", (3, 5), 0.9, 1),
            _averages("7 numbers and decay 0.999", (7,), 0.999, 2),
            _averages("a 2 × 2 matrix and decay 0.25", (2, 2), 0.25, 3),
        ),
        hints=(
            "A mixture: the two parts add up to 1.",
            "With decay 0.999 the new weights count one part in a thousand.",
        ),
        explanation="The average remembers about 1/(1 − decay) steps: 1000 of them for 0.999. It is "
        "this average that is evaluated, sampled and saved.",
        mutants=(
            Mutant(
                "swapped",
                lambda a, w, d: (1 - d) * a + d * w,
                "The parts are swapped: with decay 0.999 this forgets nearly all of the old average "
                "at each step.",
            ),
            Mutant(
                "no 1 − decay",
                lambda a, w, d: d * a + w,
                "The weights enter whole. The parts must add up to 1, or the average grows to "
                "1/(1 − decay) times the weights.",
            ),
            Mutant("half and half", lambda a, w, d: (a + w) / 2, "decay is not used."),
            Mutant(
                "the weights",
                lambda a, w, d: w + 0.0,
                "That is no average: it hands the weights on.",
            ),
            Mutant(
                "the old average",
                lambda a, w, d: a + 0.0,
                "The average never moves: it stays with the untrained model for ever.",
            ),
            Mutant(
                "away from it",
                lambda a, w, d: a - (1 - d) * (w - a),
                "The sign is turned round: the average moves away from the weights.",
            ),
            Mutant(
                "only decays",
                lambda a, w, d: d * a,
                "The old average decays, and nothing takes its place: it goes to 0.",
            ),
            Mutant(
                "bias-corrected",
                lambda a, w, d: (d * a + (1 - d) * w) / (1 - d),
                "Dividing by 1 − decay is the first step of Adam's bias correction, for an average "
                "that starts at 0. This one starts at the weights.",
            ),
            Mutant(
                "in place",
                lambda a, w, d: a.__imul__(d).__iadd__((1 - d) * w),
                deserves="changed its argument average in place",
            ),
        ),
    )
)


# --- clipping -------------------------------------------------------------------------------------


def clip(g_1, g_2, largest):
    norm = np.sqrt((g_1**2).sum() + (g_2**2).sum())
    factor = min(1.0, largest / norm)
    return factor * g_1, factor * g_2


def _gradients(name, scale, largest, seed):
    rng = np.random.default_rng(seed)
    return Case(name, (scale * rng.normal(size=(3, 4)), 5 * scale * rng.normal(size=6), largest))


def _each(g, largest):
    return min(1.0, largest / np.sqrt((g**2).sum())) * g


def _by(norm):
    def fn(g_1, g_2, largest):
        factor = min(1.0, largest / norm(g_1, g_2))
        return factor * g_1, factor * g_2

    return fn


def _always(g_1, g_2, largest):
    norm = np.sqrt((g_1**2).sum() + (g_2**2).sum())
    return largest / norm * g_1, largest / norm * g_2


register(
    Exercise(
        id="training.clip",
        notebook=NOTEBOOK,
        title="Clipping a gradient",
        minutes=5,
        difficulty=2,
        stub='''
def clip(g_1, g_2, largest):
    """g_1 and g_2 scaled by one factor, so that the norm of both together is at most `largest`.

    The norm is the root of the sum of all squares. A gradient that is short enough stays.
    """
    ...
''',
        solution=clip,
        returns=("g_1", "g_2"),
        rtol=1e-6,  # torch's own divides by the norm + 1e-6
        cases=(
            _gradients("a gradient that is too long", 10.0, 1.0, 1),
            _gradients("a gradient that is short enough", 0.01, 1.0, 2),
            _gradients("a longer limit", 2.0, 4.0, 3),
        ),
        hints=(
            "All parameters form one long vector; g_1 and g_2 are two parts of it. Its squared norm is "
            "the sum of theirs.",
            "factor = largest / norm, but never more than 1.",
        ),
        explanation="One factor for all keeps the direction of the gradient and shortens the step. It "
        "is what `torch.nn.utils.clip_grad_norm_` does.",
        mutants=(
            Mutant(
                "one by one",
                lambda a, b, m: (_each(a, m), _each(b, m)),
                "Each part is clipped by its own norm. Then the parts are shortened by different "
                "factors and the step goes in another direction.",
            ),
            Mutant(
                "value by value",
                lambda a, b, m: (np.clip(a, -m, m), np.clip(b, -m, m)),
                "Each number is cut off by itself. That bends the gradient; the norm of the whole "
                "is what should be limited.",
            ),
            Mutant(
                "always",
                _always,
                "It brings every gradient to the norm `largest`, short ones too: near the optimum "
                "the steps would never get smaller. The factor is at most 1.",
            ),
            Mutant(
                "max",
                lambda a, b, m: tuple(
                    max(1.0, g) * part
                    for g, part in zip(
                        [m / np.sqrt((a**2).sum() + (b**2).sum())] * 2, (a, b), strict=True
                    )
                ),
                "`max` where `min` is meant: it lengthens short gradients and leaves long ones.",
            ),
            Mutant(
                "no root",
                _by(lambda a, b: (a**2).sum() + (b**2).sum()),
                "That is the squared norm; the root is missing.",
            ),
            Mutant(
                "sum of norms",
                _by(lambda a, b: np.sqrt((a**2).sum()) + np.sqrt((b**2).sum())),
                "Norms do not add, their squares do: the root of the sum of all squares.",
            ),
            Mutant(
                "largest entry",
                _by(lambda a, b: max(np.abs(a).max(), np.abs(b).max())),
                "It measures the largest entry; the norm is the root of the sum of all squares.",
            ),
            Mutant(
                "mean",
                _by(lambda a, b: np.sqrt(np.mean(np.r_[a.ravel(), b] ** 2))),
                "It takes the mean of the squares; the norm sums them.",
            ),
            Mutant(
                "first part only",
                _by(lambda a, b: np.sqrt((a**2).sum())),
                "It measures g_1 only; g_2 may be as long as it likes.",
            ),
            Mutant("unchanged", lambda a, b, m: (a, b), "Nothing is clipped."),
            Mutant("one of two", lambda a, b, m: clip(a, b, m)[0], deserves="a tuple (g_1, g_2)"),
        ),
    )
)


# --- the average over a test set ------------------------------------------------------------------


def mean_bits(batches):
    return np.concatenate(batches).mean()


def _refuses(batches):
    if not np.isfinite(np.concatenate(batches)).all():
        raise ValueError("not finite")
    return mean_bits(batches)


def _batches(name, sizes, seed, nan=False):
    rng = np.random.default_rng(seed)
    found = [rng.normal(3.4 + k, 0.3, size) for k, size in enumerate(sizes)]
    if nan:
        found[1][2] = np.nan
    return Case(name, (found,))


register(
    Exercise(
        id="training.average",
        notebook=NOTEBOOK,
        title="bits/dim of a test set, from batches of unequal size",
        minutes=4,
        difficulty=2,
        stub='''
def mean_bits(batches):
    """The mean bits/dim over all images. batches: a list of arrays, one number for each image.

    If an image's number is NaN, so is the result: return it, do not raise.
    """
    ...
''',
        solution=mean_bits,
        truth=lambda batches: sum(b.sum() for b in batches) / sum(len(b) for b in batches),
        returns=("the mean",),
        cases=(
            _batches("batches of 8, 8 and 3 images", (8, 8, 3), 1),
            _batches("batches of 5, 4 and 1", (5, 4, 1), 2),
            _batches("batches of 4, 4 and 2 with one NaN among them", (4, 4, 2), 3, nan=True),
        ),
        hints=(
            "The last batch is smaller. How much should each of its images count?",
            "Sum over images, divide by the number of images: `np.concatenate` makes one array.",
        ),
        explanation="Every image counts once. A NaN in the mean says that something is wrong; a mean "
        "without it says that nothing is.",
        mutants=(
            Mutant(
                "mean of means",
                lambda batches: np.mean([b.mean() for b in batches]),
                "It averages the averages of the batches: an image in the small last batch then "
                "counts more than the others.",
            ),
            Mutant(
                "NaN left out",
                lambda batches: np.nanmean(np.concatenate(batches)),
                "It leaves NaN out. The images on which a flow breaks down are its worst; without "
                "them the score looks better than the model is.",
            ),
            Mutant(
                "both",
                lambda batches: np.mean([np.nanmean(b) for b in batches]),
                "Two faults: NaN is left out, and each batch counts the same whatever its size.",
            ),
            Mutant(
                "finite images only",
                lambda batches: (
                    np.concatenate(batches)[np.isfinite(np.concatenate(batches))].sum()
                    / sum(map(len, batches))
                ),
                "It sums over the images with a finite number and divides by all of them: a broken "
                "image counts as a perfect one, 0 bits.",
            ),
            Mutant(
                "NaN as 0 in means",
                lambda batches: np.mean([np.nan_to_num(b).mean() for b in batches]),
                "NaN becomes 0, the best score there is, and each batch counts the same.",
            ),
            Mutant(
                "last batch dropped",
                lambda batches: np.concatenate(batches[:-1]).mean(),
                "The last, smaller batch is missing: those images were never tested.",
            ),
            Mutant(
                "equal batches assumed",
                lambda batches: sum(b.sum() for b in batches) / (len(batches) * len(batches[0])),
                "It divides as if every batch had the size of the first.",
            ),
            Mutant(
                "sum over number of batches",
                lambda batches: np.concatenate(batches).sum() / len(batches),
                "It divides by the number of batches; divide by the number of images.",
            ),
            Mutant(
                "first image of each",
                lambda batches: np.mean([b[0] for b in batches]),
                "It looks at the first image of each batch only.",
            ),
            Mutant(
                "median",
                lambda batches: np.median(np.concatenate(batches)),
                "That is the median. The likelihood of the test set is a sum over images, so its "
                "mean is what is reported.",
            ),
            Mutant(
                "sum",
                lambda batches: np.concatenate(batches).sum(),
                "That is the sum; divide by the number of images.",
            ),
            Mutant("raises", _refuses, deserves="with one NaN among them: it raised ValueError"),
            Mutant(
                "one for each batch",
                lambda batches: np.array([b.mean() for b in batches]),
                deserves="should have shape ()",
            ),
        ),
    )
)


# --- predictions ----------------------------------------------------------------------------------

ask(
    "training.fastest",
    "250 steps of 32 images. Where does bits/dim fall fastest?",
    ["in the first 50 steps", "evenly", "at the end"],
    "in the first 50 steps",
    "Colours, brightness and smoothness are learned at once; shapes take longer.",
)

ask(
    "training.lambda_lr",
    "Look at the two rates. What does LambdaLR do with the function's value?",
    ["uses it as the rate", "multiplies the base rate with it", "adds it to the base rate"],
    "multiplies the base rate with it",
    "0.01 · 0.01 = 0.0001: the rate is lr².",
)

ask(
    "training.lowest",
    "Which curve ends lowest?",
    ["reverse", "shuffle", "1×1 convolution"],
    "1×1 convolution",
    "It can learn which channels each coupling should see. In the paper too, for both couplings.",
)
