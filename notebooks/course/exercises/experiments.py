"""Exercises of notebook 10, experiments."""

import numpy as np

from course.exercise import Case, Exercise, Mutant, register
from course.predict import ask

NOTEBOOK = "10_experiments"
_SHAPES = (((6, 4, 2), (4, 2, 8), (2, 1, 16)), ((3, 5, 6), (1, 2, 24)))


def _latents(n, shapes, seed):
    """Latents of n images, finest level first, none of them near 0 on average."""
    rng = np.random.default_rng(seed)
    return tuple(rng.normal(0.3, 1.0, (n, *shape)) for shape in shapes)


def _levels(fn):
    """A mutant that does `fn` on every level."""
    return lambda latents, *rest: tuple(fn(z, *rest) for z in latents)


# --- temperature ----------------------------------------------------------------------------------


def cool(latents, temperature):
    return tuple(temperature * z for z in latents)


register(
    Exercise(
        id="experiments.temperature",
        notebook=NOTEBOOK,
        title="Temperature, at every level",
        minutes=3,
        difficulty=1,
        stub='''
def cool(latents, temperature):
    """Latents drawn from N(0, 1), made those of N(0, temperature²), as a tuple, finest first."""
    ...
''',
        solution=cool,
        returns=("finest", "next", "top"),
        cases=(
            Case("three levels at 0.7", (_latents(2, _SHAPES[0], 1), 0.7)),
            Case("two levels at 0.25", (_latents(3, _SHAPES[1], 2), 0.25)),
            Case("three levels at 1.3", (_latents(1, _SHAPES[0], 3), 1.3)),
            Case("two levels at 0", (_latents(1, _SHAPES[1], 4), 0.0)),
        ),
        hints=(
            "temperature is the standard deviation. What does a factor do to a standard deviation?",
            "One factor for each array: `tuple(… for z in latents)`.",
        ),
        explanation="N(0, 1) times T is N(0, T²). Every level takes part: a cool top with hot fine "
        "levels is a clean face with the noise left on it.",
        mutants=(
            Mutant(
                "top only",
                lambda z, t: (*z[:-1], t * z[-1]),
                "Only the top latents are cooled. The fine levels hold most of the numbers, and "
                "their noise stays.",
            ),
            Mutant(
                "all but the top",
                lambda z, t: (*(t * a for a in z[:-1]), z[-1]),
                "The top latents keep their temperature 1; they take part too.",
            ),
            Mutant(
                "finest only",
                lambda z, t: (t * z[0], *z[1:]),
                "Only the finest level is cooled; the others take part too.",
            ),
            Mutant(
                "squared",
                _levels(lambda z, t: t**2 * z),
                "It multiplies by temperature². That is the variance; the standard deviation is "
                "the temperature itself.",
            ),
            Mutant(
                "root",
                _levels(lambda z, t: np.sqrt(t) * z),
                "It multiplies by the root of the temperature: then the variance would be T, not "
                "T².",
            ),
            Mutant(
                "divided",
                _levels(lambda z, t: z / t if t else z * 0),
                "It divides: small temperatures would make wild samples.",
            ),
            Mutant(
                "added",
                _levels(lambda z, t: z + t),
                "It adds the temperature: that moves the mean and leaves the spread as it was.",
            ),
            Mutant(
                "shifted",
                _levels(lambda z, t: z.mean() + t * (z - z.mean())),
                "It shrinks towards the mean of these samples. The mean of N(0, T²) is 0.",
            ),
            Mutant("unchanged", lambda z, t: z, "Nothing is cooled: temperature is not used."),
            Mutant(
                "clipped",
                _levels(lambda z, t: np.clip(z, -t, t)),
                "It cuts the latents off at ±temperature. That is another distribution, with heaps "
                "at both ends; a temperature scales.",
            ),
            Mutant("a list", lambda z, t: [t * a for a in z], deserves="it returned a list"),
        ),
    )
)


# --- a broken interpolation -----------------------------------------------------------------------


def between(a, b, t):
    return tuple((1 - t) * p + t * q for p, q in zip(a, b, strict=True))


def _mixed(rule):
    return lambda a, b, t: tuple(rule(p, q, t) for p, q in zip(a, b, strict=True))


def _pair(name, n, shapes, t, seed):
    return Case(name, (_latents(n, shapes, seed), _latents(n, shapes, seed + 50), t))


register(
    Exercise(
        id="experiments.broken",
        notebook=NOTEBOOK,
        title="Broken walk: it never reaches the other face",
        minutes=5,
        difficulty=2,
        stub='''
def between(a, b, t):
    """Latents t of the way from a (t = 0) to b (t = 1): tuples of arrays, finest first."""
    *fine, top = a
    return (*fine, t * top + (1 - t) * b[-1])
''',
        stub_deserves="Two faults",
        solution=between,
        returns=("finest", "next", "top"),
        cases=(
            _pair("three levels at t = 0.25", 2, _SHAPES[0], 0.25, 11),
            _pair("two levels at t = 0.7", 1, _SHAPES[1], 0.7, 12),
            _pair("two levels at the end, t = 1", 1, _SHAPES[1], 1.0, 13),
            _pair("three levels at the start, t = 0", 1, _SHAPES[0], 0.0, 14),
        ),
        hints=(
            "Put t = 0 and t = 1 into the last line. Which face does each give?",
            "`fine` is a's at every t. Walk with every level: `zip(a, b)` pairs them.",
        ),
        explanation="All latents together are the image. A walk that moves only the top ends at a face "
        "with b's outline and a's details.",
        mutants=(
            Mutant(
                "as it stands",
                lambda a, b, t: (*a[:-1], t * a[-1] + (1 - t) * b[-1]),
                "Two faults. Only the top latents move, so every image on the way keeps a's "
                "details; and t is turned round, t = 0 gives b's top. Mend both.",
            ),
            Mutant(
                "order mended only",
                lambda a, b, t: (*a[:-1], (1 - t) * a[-1] + t * b[-1]),
                "One fault is mended, one is left: the fine levels stay those of a, and at t = 1 "
                "the image is not b.",
            ),
            Mutant(
                "levels mended only",
                _mixed(lambda p, q, t: t * p + (1 - t) * q),
                "One fault is mended, one is left: the walk goes from b to a.",
            ),
            Mutant(
                "top from a",
                lambda a, b, t: (*between(a[:-1], b[:-1], t), a[-1]),
                "Now the fine levels move and the top stays a's. All of them move.",
            ),
            Mutant(
                "sum",
                _mixed(lambda p, q, t: p + t * q),
                "It adds t·b to a. On a straight line a's share shrinks as b's grows: 1 − t and t.",
            ),
            Mutant("middle", _mixed(lambda p, q, t: (p + q) / 2), "t is not used."),
            Mutant(
                "switch",
                _mixed(lambda p, q, t: p if t < 0.5 else q),
                "It jumps from a to b in the middle; a walk is gradual.",
            ),
            Mutant(
                "on a circle",
                _mixed(lambda p, q, t: np.cos(np.pi * t / 2) * p + np.sin(np.pi * t / 2) * q),
                "That is a walk on a circle, which keeps the length of the latents. It is a fair "
                "idea; the paper walks straight, and so does this exercise.",
            ),
            Mutant("a list", lambda a, b, t: list(between(a, b, t)), deserves="it returned a list"),
        ),
    )
)


# --- an attribute's direction ---------------------------------------------------------------------


def direction(latents, has):
    return tuple(z[has].mean(axis=0) - z[~has].mean(axis=0) for z in latents)


def _labelled(name, shapes, has, seed):
    return Case(name, (_latents(len(has), shapes, seed), np.array(has, bool)))


register(
    Exercise(
        id="experiments.direction",
        notebook=NOTEBOOK,
        title="The direction of an attribute",
        minutes=5,
        difficulty=2,
        stub='''
def direction(latents, has):
    """Mean latents of the images with the attribute, minus those of the images without it.

    latents: a tuple of arrays (N, …), finest first. has: N booleans. Returns a tuple, without N.
    """
    ...
''',
        solution=direction,
        returns=("finest", "next", "top"),
        cases=(
            _labelled("seven images, two of them smiling", _SHAPES[0], [0, 1, 0, 0, 1, 0, 0], 21),
            _labelled("five images, four with it", _SHAPES[1], [1, 1, 0, 1, 1], 22),
            _labelled("four images, half and half", _SHAPES[1], [1, 0, 0, 1], 23),
        ),
        hints=(
            "`z[has]` are the images with the attribute, `z[~has]` those without.",
            "`.mean(axis=0)` averages over images and keeps every place and channel.",
        ),
        explanation="Everything that faces with and without a smile have in common cancels; what "
        "differs on average stays. The labels enter here for the first time: the flow was "
        "trained without them.",
        mutants=(
            Mutant(
                "turned round",
                _levels(lambda z, h: z[~h].mean(0) - z[h].mean(0)),
                "The sign is turned round: adding this takes the attribute away.",
            ),
            Mutant(
                "with only",
                _levels(lambda z, h: z[h].mean(0)),
                "That is the mean of the images with the attribute. It holds an average face too; "
                "subtract the mean of those without.",
            ),
            Mutant(
                "minus all",
                _levels(lambda z, h: z[h].mean(0) - z.mean(0)),
                "It subtracts the mean of all images, those with the attribute among them: the "
                "direction is right and too short, the more so the more images have it.",
            ),
            Mutant(
                "sums",
                _levels(lambda z, h: z[h].sum(0) - z[~h].sum(0)),
                "It subtracts sums. With more images without than with the attribute, most of what "
                "is left is their number.",
            ),
            Mutant(
                "divided by N",
                _levels(lambda z, h: (z[h].sum(0) - z[~h].sum(0)) / len(z)),
                "Each group is divided by the number of all images; divide by its own.",
            ),
            Mutant(
                "top only",
                lambda latents, h: (*(0 * z[0] for z in latents[:-1]), direction(latents, h)[-1]),
                "Only the top level has a direction. Glasses are thin lines: fine levels matter.",
            ),
            Mutant(
                "averaged over pixels",
                _levels(
                    lambda z, h: np.broadcast_to(
                        (z[h].mean((0, 1, 2)) - z[~h].mean((0, 1, 2))), z.shape[1:]
                    ).copy()
                ),
                "It averages over the pixels as well: a smile would be spread over the whole face.",
            ),
            Mutant(
                "unit length",
                _levels(
                    lambda z, h: (
                        (z[h].mean(0) - z[~h].mean(0))
                        / np.linalg.norm(z[h].mean(0) - z[~h].mean(0))
                    )
                ),
                "It is scaled to length 1. The length matters: strength 1 should be a whole smile.",
            ),
            Mutant(
                "paired",
                _levels(lambda z, h: (z[h][:1] - z[~h][:1])[0]),
                "It compares the first image of each group only; two faces differ in everything.",
            ),
            Mutant(
                "median",
                _levels(lambda z, h: np.median(z[h], 0) - np.median(z[~h], 0)),
                "It takes medians; asked for are means.",
            ),
            Mutant(
                "keeps N",
                _levels(lambda z, h: z[h].mean(0, keepdims=True) - z[~h].mean(0, keepdims=True)),
                deserves="should have shape",
            ),
        ),
    )
)


# --- what is strange ------------------------------------------------------------------------------


def strange(known, new, share):
    low, high = np.quantile(known, [share / 2, 1 - share / 2])
    return (new < low) | (new > high)


def _scores(name, share, seed):
    rng = np.random.default_rng(seed)
    known = rng.normal(2.2, 0.1, 200) + rng.exponential(0.1, 200)
    new = np.r_[rng.normal(2.3, 0.1, 12), 0.4, 4.9, 2.0, 2.65, 2.1, 2.55]
    return Case(name, (known, new, share))


register(
    Exercise(
        id="experiments.strange",
        notebook=NOTEBOOK,
        title="Which images are strange?",
        minutes=5,
        difficulty=2,
        stub='''
def strange(known, new, share):
    """For each bits/dim in new: does it lie outside the middle 1 − share of the known ones?

    Too low counts as well as too high, share / 2 on each side (np.quantile). Returns booleans.
    """
    ...
''',
        solution=strange,
        returns=("strange",),
        cases=(
            _scores("200 known faces and a share of 5 %", 0.05, 31),
            _scores("other faces and a share of 20 %", 0.2, 32),
            _scores("a share of 1 %", 0.01, 33),
        ),
        hints=(
            "`np.quantile(known, [share / 2, 1 - share / 2])` gives both ends of the usual range.",
            "Strange is below the lower end *or* above the upper one: `|` between two comparisons.",
        ),
        explanation="A mid-grey wall is *more* likely than nearly every face, and no face. The usual "
        "range has two ends.",
        mutants=(
            Mutant(
                "unlikely only",
                lambda k, n, s: n > np.quantile(k, 1 - s / 2),
                "It flags only images that cost more bits than usual. A flat grey image costs far "
                "less than any face and passes.",
            ),
            Mutant(
                "unlikely only, whole share",
                lambda k, n, s: n > np.quantile(k, 1 - s),
                "It flags only images that cost more bits than usual, with the whole share on that "
                "side. A flat grey image costs far less than any face and passes.",
            ),
            Mutant(
                "likely only",
                lambda k, n, s: n < np.quantile(k, s / 2),
                "It flags only images that cost fewer bits than usual; noise costs more and "
                "passes.",
            ),
            Mutant(
                "the usual ones",
                lambda k, n, s: ~strange(k, n, s),
                "True and False are exchanged: it flags what is usual.",
            ),
            Mutant(
                "share on each side",
                lambda k, n, s: (n < np.quantile(k, s)) | (n > np.quantile(k, 1 - s)),
                "It takes the whole share on each side: twice as many known faces as agreed would "
                "be called strange.",
            ),
            Mutant(
                "both at once",
                lambda k, n, s: (n < np.quantile(k, s / 2)) & (n > np.quantile(k, 1 - s / 2)),
                "Nothing is below the lower and above the upper end at once: `|`, not `&`.",
            ),
            Mutant(
                "quantiles of new",
                lambda k, n, s: strange(n, n, s),
                "The range comes from the new images themselves: then a fixed share of them is "
                "strange whatever they are.",
            ),
            Mutant(
                "beyond the extremes",
                lambda k, n, s: (n < k.min()) | (n > k.max()),
                "It compares with the smallest and largest known value and ignores share; the more "
                "faces you know, the less would be strange.",
            ),
            Mutant(
                "two sigma",
                lambda k, n, s: np.abs(n - k.mean()) > 2 * k.std(),
                "Mean ± 2 standard deviations fits a bell curve and one share; the known values "
                "lean to one side. Use quantiles.",
            ),
            Mutant(
                "two sigma, one side",
                lambda k, n, s: n > k.mean() + 2 * k.std(),
                "It flags only images that cost more than usual, by mean + 2 standard deviations. "
                "Both sides count, and share says how much: use quantiles.",
            ),
            Mutant(
                "one answer",
                lambda k, n, s: bool(strange(k, n, s).any()),
                deserves="should have shape",
            ),
            Mutant(
                "indices",
                lambda k, n, s: np.flatnonzero(strange(k, n, s)),
                deserves="should have shape",
            ),
        ),
    )
)


# --- predictions ----------------------------------------------------------------------------------

ask(
    "experiments.trade",
    "Each row below is one temperature, each column one draw ε. What does T trade?",
    ["colour against shape", "variety against plausibility", "speed against quality"],
    "variety against plausibility",
    "At 0 there is one image. At 1 the model's own distribution, with all its mistakes.",
)

ask(
    "experiments.top",
    "Drawn anew: the latents of the top level, 48 channels of 4 × 4. What changes?",
    ["fine texture", "who it is", "nothing visible"],
    "who it is",
    "A number of the top level reaches the whole face; one of the finest, a few pixels.",
)

ask(
    "experiments.half_way",
    "A blend of pixels shows both faces at once. What does the walk in latents show half-way?",
    ["both faces, too", "one face in between", "noise"],
    "one face in between",
    "Nearly: as far as the model knows faces. Two outlines give way to one.",
)

ask(
    "experiments.blond",
    "Suppose blond people in the data wore hats more often than others. What would adding "
    "'blond hair' do?",
    ["blond hair", "blond hair, and something of a hat"],
    "blond hair, and something of a hat",
    "A mean difference knows correlations, not causes. In our faces attributes are drawn "
    "independently, so little should come along: measured below.",
)

ask(
    "experiments.likely",
    "Which of these is the most likely under the model?",
    ["a face", "a flat grey", "a face upside down"],
    "a flat grey",
    "A pixel that equals its neighbours is cheap, and a flow is built to learn that.",
)
