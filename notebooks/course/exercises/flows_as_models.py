"""Exercises of notebook 02, flows as models: likelihood, sampling, dequantisation, bits/dim."""

import numpy as np
from scipy.integrate import quad
from scipy.special import ndtr

import reference
from course.exercise import Case, Exercise, Mutant, register
from course.predict import ask

NOTEBOOK = "02_flows_as_models"
LOG_2PI = np.log(2 * np.pi)


def _batch(n, d, seed):
    return np.random.default_rng(seed).normal(size=(n, d))


# --- the likelihood of a flow ---------------------------------------------------------------------


def log_prob(x, forward):
    z, logdet = forward(x)
    log_p_z = -0.5 * (z**2 + np.log(2 * np.pi)).sum(axis=1)
    return log_p_z + logdet


def _shrink(x):
    """Three or more numbers, each squeezed towards 0, the first mirrored."""
    signs = np.where(np.arange(x.shape[1]), 1.0, -1.0)
    return signs * np.arcsinh(2 * x), np.log(2 / np.sqrt(1 + 4 * x**2)).sum(1)


def _stretch(x):
    return np.sinh(x) + 0.3, np.log(np.cosh(x)).sum(1)


def _parts(x, forward):
    z, logdet = forward(x)
    return reference.gaussian_log_prob(z), logdet, z


register(
    Exercise(
        id="flows.log_prob",
        notebook=NOTEBOOK,
        title="The likelihood of a flow",
        minutes=5,
        difficulty=1,
        stub='''
def log_prob(x, forward):
    """log p(x) in nats, one number for each of the N examples in x of shape (N, D).

    forward(x) -> (z, logdet), with z of shape (N, D) and logdet of shape (N,); z ~ N(0, I).
    """
    ...
''',
        solution=log_prob,
        truth=lambda x, forward: _parts(x, forward)[0] + _parts(x, forward)[1],
        returns=("log p(x)",),
        cases=(
            Case("four examples of three numbers, squeezed", (_batch(4, 3, 1), _shrink)),
            Case("three examples of five numbers, stretched", (_batch(3, 5, 2), _stretch)),
            Case("two examples of one number", (_batch(2, 1, 3) + 1, _stretch)),
            Case(
                "three examples of four numbers far out, squeezed: log-dets below 0",
                (3 * _batch(3, 4, 5), _shrink),
            ),
        ),
        hints=(
            "Call `forward` once. It hands you z and log|det dz/dx|; two terms are to be added.",
            "log N(z; 0, I) = −½ Σ (z² + log 2π), the sum over the D numbers of one example: "
            "`axis=1`.",
        ),
        explanation="log p(x) = log p(z) + log|det dz/dx|. There is one constant ½ log 2π for each of "
        "the D numbers.",
        mutants=(
            Mutant(
                "no log-det",
                lambda x, f: _parts(x, f)[0],
                "The log-determinant is missing. Without it a flow could win by sending all data "
                "to z = 0, at no cost.",
            ),
            Mutant(
                "minus",
                lambda x, f: _parts(x, f)[0] - _parts(x, f)[1],
                "It subtracts the log-determinant. It is that of dz/dx, from data to noise, and is "
                "added.",
            ),
            Mutant(
                "constant once",
                lambda x, f: -0.5 * (_parts(x, f)[2] ** 2).sum(1) - 0.5 * LOG_2PI + _parts(x, f)[1],
                "The constant ½ log 2π stands there once; there are D numbers in z, and each brings "
                "its own.",
            ),
            Mutant(
                "no constant",
                lambda x, f: -0.5 * (_parts(x, f)[2] ** 2).sum(1) + _parts(x, f)[1],
                "The constant −(D/2) log 2π of the normal density is missing. Training does not "
                "mind; bits per dimension do.",
            ),
            Mutant(
                "mean over D",
                lambda x, f: -0.5 * (_parts(x, f)[2] ** 2 + LOG_2PI).mean(1) + _parts(x, f)[1],
                "It averages over the D numbers of z but not in the log-determinant. Independent "
                "densities multiply, so their logs add: take the sum.",
            ),
            Mutant(
                "the normal at x",
                lambda x, f: reference.gaussian_log_prob(x) + _parts(x, f)[1],
                "It evaluates the normal density at x. The noise is z: use what `forward` returns.",
            ),
            Mutant(
                "no half",
                lambda x, f: (
                    -(_parts(x, f)[2] ** 2).sum(1) - 0.5 * x.shape[1] * LOG_2PI + _parts(x, f)[1]
                ),
                "The normal density has −z²/2, not −z².",
            ),
            Mutant(
                "not a log",
                lambda x, f: np.exp(log_prob(x, f)),
                "That is p(x); its logarithm is asked for.",
            ),
            Mutant(
                "base 2",
                lambda x, f: log_prob(x, f) / np.log(2),
                "That is in bits; log-likelihoods are kept in nats until the very end.",
            ),
            Mutant(
                "log-det of the batch",
                lambda x, f: _parts(x, f)[0] + _parts(x, f)[1].sum(),
                "It adds up the log-determinants of all examples. Each example has its own.",
            ),
            Mutant(
                "|log-det|",
                lambda x, f: _parts(x, f)[0] + np.abs(_parts(x, f)[1]),
                "It takes the absolute value of the log-determinant. The bars of log|det| are inside "
                "the log; where f squeezes space the logarithm is rightly negative.",
            ),
            Mutant(
                "log of the log-det",
                lambda x, f: _parts(x, f)[0] + np.log(np.abs(_parts(x, f)[1])),
                "It takes the logarithm of the log-determinant. `forward` hands over log|det|, the "
                "logarithm already: add it as it is.",
            ),
            Mutant(
                "the batch's normal",
                lambda x, f: _parts(x, f)[0].sum() + _parts(x, f)[1],
                "It adds up log p(z) over all examples. The sum runs over the D numbers of one "
                "example: `axis=1`.",
            ),
            Mutant(
                "product of logs",
                lambda x, f: (-0.5 * (_parts(x, f)[2] ** 2 + LOG_2PI)).prod(1) + _parts(x, f)[1],
                "It multiplies the log-densities of the D numbers. Densities multiply; logs add.",
            ),
            Mutant("one number", lambda x, f: log_prob(x, f).mean(), deserves="should have shape"),
        ),
    )
)


# --- sampling is the inverse ----------------------------------------------------------------------


def sample(z, inverses, temperature):
    x = temperature * z
    for inverse in reversed(inverses):
        x = inverse(x)
    return x


def _undo_shift(y):
    return y - np.linspace(0.5, 2.0, y.shape[1])


def _undo_scale(y):
    return y / np.linspace(-1.5, 0.4, y.shape[1])


def _undo_sinh(y):
    return np.arcsinh(y)


def _divided(z, temperature):
    with np.errstate(all="ignore"):
        return z / temperature


def _in_order(z, inverses):
    for inverse in inverses:
        z = inverse(z)
    return z


register(
    Exercise(
        id="flows.sample",
        notebook=NOTEBOOK,
        title="Sampling runs the flow backwards",
        minutes=4,
        difficulty=1,
        stub='''
def sample(z, inverses, temperature):
    """Images from noise: z ~ N(0, I) of shape (N, D), made N(0, temperature²) first.

    The flow is f = f_K ∘ … ∘ f_1; inverses[0] undoes f_1, inverses[-1] undoes f_K.
    """
    ...
''',
        solution=sample,
        truth=lambda z, inverses, temperature: _in_order(temperature * z, inverses[::-1]),
        returns=("x",),
        cases=(
            Case(
                "three layers at temperature 0.7",
                (_batch(3, 4, 1), [_undo_shift, _undo_sinh, _undo_scale], 0.7),
            ),
            Case(
                "four layers at temperature 0.4",
                (_batch(2, 3, 2), [_undo_scale, _undo_shift, _undo_sinh, _undo_shift], 0.4),
            ),
            Case("two layers at temperature 0", (_batch(2, 3, 4), [_undo_sinh, _undo_shift], 0.0)),
        ),
        hints=(
            "The last layer of f was applied last, so it is undone first.",
            "Scale the noise once, before anything else; then loop over `reversed(inverses)`.",
        ),
        explanation="x = f⁻¹(T·z): socks go on before shoes, and come off after them. T² is the "
        "variance of the noise, so T multiplies z.",
        mutants=(
            Mutant(
                "first layer first",
                lambda z, i, t: _in_order(t * z, i),
                "It undoes f_1 first. f_1 was applied first, so it is undone last: run through "
                "`inverses` from the back.",
            ),
            Mutant(
                "temperature on x",
                lambda z, i, t: t * sample(z, i, 1.0),
                "It shrinks the finished samples x. Temperature belongs to the noise: scale z "
                "before the inverse, or faces turn grey rather than typical.",
            ),
            Mutant(
                "no temperature", lambda z, i, t: sample(z, i, 1.0), "The temperature is not used."
            ),
            Mutant(
                "T squared",
                lambda z, i, t: sample(z, i, t**2),
                "It multiplies by temperature². That is the variance; the noise itself is scaled "
                "by the temperature.",
            ),
            Mutant(
                "square root",
                lambda z, i, t: sample(z, i, t**0.5),
                "It multiplies by √temperature. The temperature is the standard deviation of the "
                "noise, not its variance.",
            ),
            Mutant(
                "every layer",
                lambda z, i, t: _in_order(z, [lambda y, f=f: f(t * y) for f in i[::-1]]),
                "It applies the temperature before every layer. Only the noise z is scaled, once.",
            ),
            Mutant(
                "divides",
                lambda z, i, t: sample(_divided(z, t), i, 1.0),
                "It divides by the temperature; a low temperature means *less* noise, so multiply.",
            ),
            Mutant(
                "keeps no result",
                lambda z, i, t: t * z,
                "It returns the scaled noise. `inverse(x)` changes nothing by itself: keep what it "
                "returns, x = inverse(x).",
            ),
            Mutant(
                "one layer",
                lambda z, i, t: i[-1](t * z),
                "It undoes one layer only, or calls every inverse on the same noise. Hand each one "
                "what the one before returned.",
            ),
            Mutant(
                "both faults",
                lambda z, i, t: t * _in_order(z, i),
                "Two things: it undoes f_1 first, and it scales x rather than the noise z.",
            ),
            Mutant(
                "each on the noise",
                lambda z, i, t: i[0](t * z),
                "It calls every inverse on the noise itself, or undoes f_1 only. Hand each one what "
                "the one before returned.",
            ),
            Mutant(
                "f_1 stays",
                lambda z, i, t: sample(z, i[1:], t),
                "It never undoes f_1: the loop stops one short. `inverses[0]` comes last.",
            ),
            Mutant(
                "first layer first, no temperature",
                lambda z, i, t: _in_order(z, i),
                "Two things: it undoes f_1 first, and the temperature is not used.",
            ),
            Mutant(
                "changes z",
                lambda z, i, t: sample(z.__imul__(t), i, 1.0),
                deserves="changed its argument z in place",
            ),
            Mutant(
                "turns the list round",
                lambda z, i, t: i.reverse() or _in_order(t * z, i),
                deserves="changed its argument inverses in place",
            ),
        ),
    )
)


# --- dequantisation -------------------------------------------------------------------------------


def dequantize(images, n_bits, noise):
    levels = 2**n_bits
    q = images // 2 ** (8 - n_bits)
    return (q + noise) / levels - 0.5


class _Given:
    """A generator that hands out one given array, for `reference.dequantize`."""

    def __init__(self, noise):
        self.noise = noise

    def random(self, shape):
        return self.noise


def _pixels(shape, n_bits, seed):
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, shape, dtype=np.uint8), n_bits, rng.random(shape)


register(
    Exercise(
        id="flows.dequantize",
        notebook=NOTEBOOK,
        title="From integers to numbers a density can live on",
        minutes=6,
        difficulty=2,
        stub='''
def dequantize(images, n_bits, noise):
    """uint8 images -> float64 in [−½, ½): keep the n_bits highest bits, fill each level's cell.

    noise: uniform in [0, 1), of the images' shape.
    """
    ...
''',
        solution=dequantize,
        truth=lambda images, n_bits, noise: reference.dequantize(images, n_bits, _Given(noise)),
        returns=("x",),
        cases=(
            Case("two images 5 × 7 × 3 in 5 bits", _pixels((2, 5, 7, 3), 5, 1)),
            Case("one image 3 × 4 × 1 in 8 bits", _pixels((1, 3, 4, 1), 8, 2)),
            Case("three images 2 × 3 × 3 in 3 bits", _pixels((3, 2, 3, 3), 3, 3)),
        ),
        hints=(
            "There are 2^n_bits levels, and each stands for 2^(8 − n_bits) values of the byte: an "
            "integer division finds it.",
            "(level + noise) runs over [0, 2^n_bits) without gaps. Divide by that number, then "
            "subtract ½.",
        ),
        explanation="The cells [q, q + 1)/2^n_bits − ½ tile the interval: no gap, no overlap. "
        "`images >> (8 − n_bits)` would do as well.",
        mutants=(
            Mutant(
                "never quantises",
                lambda i, b, u: (i + u) / 256 - 0.5,
                "It never quantises: n_bits has no influence. Adding n_bits to the bits of 8-bit "
                "data later would flatter the model by 8 − n_bits.",
            ),
            Mutant(
                "divides by 255",
                lambda i, b, u: (i // 2 ** (8 - b) + u) / (2**b - 1) - 0.5,
                "It divides by 2^n_bits − 1, so the top cell sticks out of [−½, ½). There are "
                "2^n_bits levels, 0 included.",
            ),
            Mutant(
                "k/255 with noise 1/256",
                lambda i, b, u: (i // 2 ** (8 - b)) / (2**b - 1) + u / 2**b - 0.5,
                "The levels are 1/(2^n_bits − 1) apart but the noise is only 1/2^n_bits wide: gaps "
                "stay between the cells. Use 2^n_bits for both.",
            ),
            Mutant(
                "not centred",
                lambda i, b, u: (i // 2 ** (8 - b) + u) / 2**b,
                "The shift by −½ is missing: the values should lie around 0.",
            ),
            Mutant(
                "noise of width 1",
                lambda i, b, u: (i // 2 ** (8 - b)) / 2**b + u - 0.5,
                "The noise is not scaled: it is as wide as the whole range of the pixel. It should "
                "fill one cell, 1/2^n_bits wide.",
            ),
            Mutant(
                "noise of 8 bits",
                lambda i, b, u: (i // 2 ** (8 - b)) / 2**b + u / 256 - 0.5,
                "The noise is always 1/256 wide. With fewer bits the cells are wider, and gaps stay "
                "between them: noise/2^n_bits.",
            ),
            Mutant(
                "no floor",
                lambda i, b, u: (i / 2 ** (8 - b) + u) / 2**b - 0.5,
                "It divides without rounding down, so the lower bits of the byte survive. Keep "
                "whole levels: integer division.",
            ),
            Mutant(
                "centred noise",
                lambda i, b, u: (i // 2 ** (8 - b) + u - 0.5) / 2**b - 0.5,
                "The noise lies around each level, ±½; then floor would give another level for "
                "half of the pixels. It runs from the level up to the next: U(0, 1).",
            ),
            Mutant(
                "no noise",
                lambda i, b, u: (i // 2 ** (8 - b)) / 2**b - 0.5,
                "The noise is missing: the numbers still sit on 2^n_bits points, where a density "
                "can grow without bound.",
            ),
            Mutant(
                "byte not shifted",
                lambda i, b, u: i / 2**b + u / 2**b - 0.5,
                "It divides the byte itself by 2^n_bits, and so leaves [−½, ½). First the level: "
                "integer division by 2^(8 − n_bits).",
            ),
            Mutant(
                "level over 256",
                lambda i, b, u: (i // 2 ** (8 - b) + u) / 256 - 0.5,
                "The levels are divided by 256 whatever n_bits is: 5-bit data would fill only an "
                "eighth of [−½, ½). There are 2^n_bits levels.",
            ),
            Mutant(
                "rounds",
                lambda i, b, u: (np.round(i / 2 ** (8 - b)) + u) / 2**b - 0.5,
                "It rounds to the nearest level, so the brightest bytes get a level too many. "
                "Keeping the highest bits means rounding down.",
            ),
            Mutant(
                "low bits",
                lambda i, b, u: ((i & (2**b - 1)) + u) / 2**b - 0.5,
                "It keeps the lowest bits, the remainder. The picture is in the highest ones: "
                "divide by 2^(8 − n_bits).",
            ),
        ),
    )
)


# --- the probability of an integer ----------------------------------------------------------------


def cell_bits(k, mean, sd):
    p = ndtr((k + 1 - mean) / sd) - ndtr((k - mean) / sd)
    return -np.log2(p)


def _normal(x, mean, sd):
    return np.exp(-0.5 * ((x - mean) / sd) ** 2) / (sd * np.sqrt(2 * np.pi))


def _quadrature(k, mean, sd):
    return np.array(
        [-np.log2(quad(_normal, a, a + 1, args=(mean, sd), epsabs=0, epsrel=1e-12)[0]) for a in k]
    )


def _bound(k, mean, sd):
    """−E_u log₂ p(k + u): the mean of a parabola over the cell."""
    d = k - mean
    square = (d**2 + d + 1 / 3) / sd**2
    return (0.5 * square + np.log(sd) + 0.5 * LOG_2PI) / np.log(2)


register(
    Exercise(
        id="flows.cell",
        notebook=NOTEBOOK,
        title="What an integer really costs",
        minutes=5,
        difficulty=2,
        stub='''
def cell_bits(k, mean, sd):
    """−log₂ P(k) for the integers k, where P(k) is the N(mean, sd²) mass of the cell [k, k + 1).

    ndtr(t) is the mass of a standard normal below t.
    """
    ...
''',
        solution=cell_bits,
        truth=_quadrature,
        returns=("bits",),
        rtol=1e-8,
        imports="import numpy as np\nfrom scipy.special import ndtr",
        cases=(
            Case("a normal narrower than a cell", (np.array([1.0, 2.0, 3.0]), 2.3, 0.4)),
            Case("a normal a few cells wide", (np.array([-6.0, -2.0, 0.0, 3.0]), -1.2, 2.5)),
            Case("a normal a hundred cells wide", (np.array([20.0, 128.0, 200.0]), 110.0, 100.0)),
        ),
        hints=(
            "The mass between a and b is (mass below b) − (mass below a).",
            "`ndtr` wants standard units: (k − mean)/sd and (k + 1 − mean)/sd. Then −log₂ of the "
            "difference.",
        ),
        explanation="This is what dequantisation bounds: −log₂ of an average over the cell, where "
        "training uses the average of −log₂.",
        mutants=(
            Mutant(
                "density at k",
                lambda k, m, s: -np.log2(_normal(k, m, s)),
                "It takes the density at the edge k. A density is no probability; integrate it over "
                "the cell.",
            ),
            Mutant(
                "density in the middle",
                lambda k, m, s: -np.log2(_normal(k + 0.5, m, s)),
                "It takes the density in the middle of the cell, which is close only where the "
                "density is nearly constant across it.",
            ),
            Mutant(
                "the bound",
                _bound,
                "That is the average of −log₂ p over the cell, the bound that dequantisation gives. "
                "Average (integrate) first, then take the log.",
            ),
            Mutant(
                "cell around k",
                lambda k, m, s: -np.log2(ndtr((k + 0.5 - m) / s) - ndtr((k - 0.5 - m) / s)),
                "It integrates from k − ½ to k + ½. The cell here is [k, k + 1), as the noise "
                "U(0, 1) fills it.",
            ),
            Mutant(
                "nats",
                lambda k, m, s: cell_bits(k, m, s) * np.log(2),
                "That is in nats, with the natural logarithm. Bits are asked for: `np.log2`.",
            ),
            Mutant(
                "sign",
                lambda k, m, s: -cell_bits(k, m, s),
                "The sign is turned over: a probability below 1 costs a positive number of bits.",
            ),
            Mutant(
                "no log",
                lambda k, m, s: 2 ** -cell_bits(k, m, s),
                "That is the probability P(k). Its cost in bits is −log₂ of it.",
            ),
            Mutant(
                "variance",
                lambda k, m, s: -np.log2(ndtr((k + 1 - m) / s**2) - ndtr((k - m) / s**2)),
                "It divides by sd². Standard units are (x − mean)/sd.",
            ),
            Mutant(
                "unit sd",
                lambda k, m, s: -np.log2(ndtr(k + 1 - m) - ndtr(k - m)),
                "It forgets sd: `ndtr` is the *standard* normal.",
            ),
            Mutant(
                "always standard",
                lambda k, m, s: -np.log2(ndtr(k + 1) - ndtr(k)),
                "It ignores mean and sd: `ndtr` is the *standard* normal, so first go to standard "
                "units, (x − mean)/sd.",
            ),
            Mutant(
                "difference of logs",
                lambda k, m, s: -np.log2(ndtr((k + 1 - m) / s)) + np.log2(ndtr((k - m) / s)),
                "It subtracts logs, which divides the two masses. Subtract the masses, then take "
                "the log.",
            ),
            Mutant(
                "divides by sd",
                lambda k, m, s: cell_bits(k, m, s) + np.log2(s),
                "It divides the mass by sd. A mass needs no such factor; densities do.",
            ),
            Mutant(
                "only below",
                lambda k, m, s: -np.log2(ndtr((k + 1 - m) / s)),
                "That is the mass of everything below k + 1; subtract the mass below k.",
            ),
        ),
    )
)


# --- a broken count to mend -----------------------------------------------------------------------


def bits_per_dim(log_p, shape, n_bits):
    h, w, c = shape
    dims = h * w * c
    nats = -log_p + dims * n_bits * np.log(2)
    return nats / (dims * np.log(2))


def _count(log_p, dims_log, bits, dims_divide):
    return (-log_p + dims_log * bits * np.log(2)) / (dims_divide * np.log(2))


def _likelihoods(n, dims, seed):
    return dims * np.random.default_rng(seed).normal(1.1, 0.3, n)


_BOTH = (
    "Two faults. The cells are 1/2^n_bits wide, not always 1/256; and an image has h·w·c "
    "numbers, channels included."
)

register(
    Exercise(
        id="flows.bits",
        notebook=NOTEBOOK,
        title="Broken count: two faults to mend",
        minutes=6,
        difficulty=2,
        stub='''
def bits_per_dim(log_p, shape, n_bits):
    """Bits per dimension of images of shape (h, w, c), dequantised from n_bits to [−½, ½).

    log_p: log p(x) in nats, one for each image.
    """
    h, w, c = shape
    nats = -log_p + h * w * np.log(256)
    return nats / (h * w * np.log(2))


''',
        stub_deserves="Two faults",
        solution=bits_per_dim,
        truth=lambda log_p, shape, n_bits: reference.bits_per_dim(
            log_p, int(np.prod(shape)), n_bits
        ),
        returns=("bits/dim",),
        cases=(
            Case("three images 5 × 7 × 3 in 5 bits", (_likelihoods(3, 105, 1), (5, 7, 3), 5)),
            Case("two images 4 × 6 × 3 in 8 bits", (_likelihoods(2, 72, 2), (4, 6, 3), 8)),
            Case("four grey images 8 × 3 in 3 bits", (_likelihoods(4, 24, 3), (8, 3, 1), 3)),
        ),
        hints=(
            "A model that knows nothing, p(x) = 1 on [−½, ½)ᴰ, has log p = 0 and must cost exactly "
            "n_bits per dimension. What does the broken count give for 5 bits and c = 3?",
            "How many numbers does an image have? And how wide is a cell of 5-bit data?",
        ),
        explanation="P ≈ p(x) · 2^(−n_bits·D) with D = h·w·c, so bits/dim = −log p/(D ln 2) + n_bits. "
        "It is right for 8-bit grey images by accident: there c = 1 and 2^8 = 256.",
        mutants=(
            Mutant("as broken", lambda p, s, b: _count(p, s[0] * s[1], 8, s[0] * s[1]), _BOTH),
            Mutant(
                "log 256",
                lambda p, s, b: _count(p, np.prod(s), 8, np.prod(s)),
                "It still takes log 256 for every n_bits: 5-bit data then cost 3 bits too much.",
            ),
            Mutant(
                "no c",
                lambda p, s, b: _count(p, s[0] * s[1], b, s[0] * s[1]),
                "The channels are still missing: an image has h·w·c numbers, both in the volume "
                "of a cell and in the divisor.",
            ),
            Mutant(
                "no c in the divisor",
                lambda p, s, b: _count(p, np.prod(s), b, s[0] * s[1]),
                "The divisor is h·w, the number of pixels. Per *dimension* means h·w·c: a colour "
                "image then looks three times as costly.",
            ),
            Mutant(
                "no c in the volume",
                lambda p, s, b: _count(p, s[0] * s[1], b, np.prod(s)),
                "The volume of a cell counts h·w numbers; it has h·w·c sides, so the channels are "
                "missing in the first line.",
            ),
            Mutant(
                "no n_bits",
                lambda p, s, b: _count(p, 0, b, np.prod(s)),
                "The cells' volume, 2^(−n_bits·D), is missing: without it this is the cost of a "
                "density, which may be negative, not of integers.",
            ),
            Mutant(
                "subtracts n_bits",
                lambda p, s, b: _count(p, -np.prod(s), b, np.prod(s)),
                "It subtracts n_bits. A smaller cell has less probability and costs more bits: "
                "add.",
            ),
            Mutant(
                "sign of log p",
                lambda p, s, b: _count(-p, np.prod(s), b, np.prod(s)),
                "The sign of log p is turned over: the likelier an image, the fewer bits.",
            ),
            Mutant(
                "nats",
                lambda p, s, b: bits_per_dim(p, s, b) * np.log(2),
                "That is nats per dimension; divide by log 2 as well to get bits.",
            ),
            Mutant(
                "nats plus bits",
                lambda p, s, b: -p / np.prod(s) + b,
                "It adds nats and bits: log p has to be divided by log 2 before n_bits is added.",
            ),
            Mutant(
                "log n_bits",
                lambda p, s, b: -p / (np.prod(s) * np.log(2)) + np.log2(b),
                "It takes log n_bits. The cells are 1/2^n_bits wide, and the log of 2^n_bits is "
                "n_bits · log 2.",
            ),
            Mutant(
                "all images at once",
                lambda p, s, b: bits_per_dim(p.mean(), s, b),
                deserves="should have shape",
            ),
        ),
    )
)


# --- predictions ----------------------------------------------------------------------------------

ask(
    "flows.noise",
    "Now add noise U(0, 1) to every k before asking for -log2 p. As w shrinks, the average …",
    ["falls without end too", "stops at 0", "never goes below H"],
    "never goes below H",
    "The noise fills the whole cell, and a narrow bump leaves most of the cell without mass. "
    "Over a cell the average of -log2 p is at least -log2 of the cell's mass.",
)

ask(
    "flows.levels",
    "Another: levels k/255, noise U(0, 1/256). How many 8-bit pixels survive the way back, "
    "floor(256 x)?",
    ["all", "99.6 %", "about half"],
    "about half",
    "256·k/255 = k + k/255: the levels creep ahead, until at the top nearly every noise value "
    "falls into the next cell.",
)

ask(
    "flows.cold",
    "T goes to 0. Where do the samples x = arcsinh(5·T·z) go?",
    ["to the two humps", "to the valley between them", "to ±∞"],
    "to the valley between them",
    "T = 0 is z = 0, so x = g(0) = 0. The mode of the noise is not carried to a mode of the "
    "data: the log-determinant has a say too.",
)
