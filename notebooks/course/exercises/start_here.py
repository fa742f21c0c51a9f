"""The exercise of notebook 00: a first layer, to learn how a check works."""

import numpy as np

from course.exercise import Case, Exercise, Mutant, register
from course.judge import judge_layer
from course.predict import ask
from reference import ActNorm


def triple(x):
    y = 3 * x
    logdet = np.full(len(x), x[0].size * np.log(3))
    return y, logdet


def _truth(x):
    c = x.shape[-1]
    return ActNorm(np.full(c, 3.0), np.zeros(c)).forward(x)


def _mutant(logdet):
    return lambda x: (3 * x, logdet(x))


def _images(shape, seed):
    return np.random.default_rng(seed).normal(size=shape)


register(
    Exercise(
        id="start.triple",
        notebook="00_start_here",
        title="A first layer: y = 3x",
        minutes=3,
        difficulty=1,
        stub='''
def triple(x):
    """y = 3x for images x of shape (N, H, W, C); return y and log|det dy/dx|, of shape (N,)."""
    ...
''',
        solution=triple,
        truth=_truth,
        judge=judge_layer,
        returns=("y", "logdet"),
        cases=(
            Case("two images 2 × 3 with 4 channels", (_images((2, 2, 3, 4), 1),)),
            Case("three images 4 × 2 with 1 channel", (_images((3, 4, 2, 1), 2),)),
            Case("one image 3 × 5 with 3 channels", (_images((1, 3, 5, 3), 3),)),
        ),
        hints=(
            "Every number of an image is stretched by 3. With D numbers the volume grows by 3 "
            "multiplied with itself D times; what is the log of that?",
            "D·log 3, with D = `x[0].size`, the same for each image: `np.full(len(x), value)`.",
        ),
        explanation="J is 3 times the identity, D × D, so det J = 3^D and its log is D·log 3.",
        mutants=(
            Mutant(
                "one log 3",
                _mutant(lambda x: np.full(len(x), np.log(3))),
                "y is right. The log-determinant counts one number only, but all H·W·C numbers of "
                "an image are stretched by 3.",
            ),
            Mutant(
                "pixels only",
                _mutant(lambda x: np.full(len(x), x.shape[1] * x.shape[2] * np.log(3))),
                "y is right. The log-determinant counts the pixels, H·W; each pixel has C numbers.",
            ),
            Mutant(
                "channels only",
                _mutant(lambda x: np.full(len(x), x.shape[3] * np.log(3))),
                "y is right. The log-determinant counts the channels of one pixel; there are H·W "
                "pixels.",
            ),
            Mutant(
                "whole batch",
                _mutant(lambda x: np.full(len(x), x.size * np.log(3))),
                "y is right. The log-determinant counts all images together; each image has its "
                "own, over its own H·W·C numbers.",
            ),
            Mutant(
                "no log",
                _mutant(lambda x: np.full(len(x), 3.0 * x[0].size)),
                "y is right. For the log-determinant, log 3 is added once for each number, not 3.",
            ),
            Mutant(
                "the determinant",
                _mutant(lambda x: np.full(len(x), 3.0 ** x[0].size)),
                "y is right. That is the determinant; its logarithm is asked for.",
            ),
            Mutant(
                "base 2",
                _mutant(lambda x: np.full(len(x), x[0].size * np.log2(3))),
                "y is right. The log-determinant is in base 2; this course uses natural "
                "logarithms, `np.log`.",
            ),
            Mutant(
                "sign",
                _mutant(lambda x: np.full(len(x), -x[0].size * np.log(3))),
                "y is right. The sign of the log-determinant is turned over: stretching makes it "
                "positive.",
            ),
            Mutant(
                "one log 3 for all",
                _mutant(lambda x: np.log(3)),
                "y is right. The log-determinant is log 3, for one number only and for the whole "
                "batch: it should count all H·W·C numbers, once for each image.",
            ),
            Mutant(
                "log of y",
                _mutant(lambda x: np.log(3 * x)),
                "y is right. That is the log of y. The log-determinant is about how y *changes* "
                "with x: every number by the factor 3.",
            ),
            Mutant("zero", _mutant(lambda x: np.zeros(len(x))), deserves="log-det"),
            Mutant("y only", lambda x: 3 * x, deserves="a tuple (y, logdet)"),
            Mutant("one number", _mutant(lambda x: x[0].size * np.log(3)), deserves="shape"),
            Mutant(
                "in place",
                lambda x: (x.__imul__(3), np.full(len(x), x[0].size * np.log(3))),
                deserves="changed its argument x in place",
            ),
        ),
    )
)


# --- predictions ----------------------------------------------------------------------------------

ask(
    "start.back",
    "Now go back, from z to x. How much of each face is lost?",
    ["nothing", "the fine detail", "it is another face"],
    "nothing",
    "An invertible map loses nothing: what comes back differs by rounding only.",
)
