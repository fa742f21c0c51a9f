"""Exercises of notebook 03: squeeze, unsqueeze, the checkerboard, split and its prior."""

import numpy as np

from course.exercise import Case, Exercise, Mutant, register
from course.predict import ask
from reference import Glow, Split, Squeeze, checkerboard_mask

NOTEBOOK = "03_squeeze_and_split"


def _images(shape, seed):
    return np.random.default_rng(seed).normal(size=shape)


# --- squeeze --------------------------------------------------------------------------------------


def squeeze(x):
    n, h, w, c = x.shape
    y = np.empty((n, h // 2, w // 2, 4 * c))
    for ch in range(c):
        for dy in range(2):
            for dx in range(2):
                y[..., ch * 4 + dy * 2 + dx] = x[:, dy::2, dx::2, ch]
    return y


def _blocks(x):
    """(N, H/2, 2, W/2, 2, C)"""
    n, h, w, c = x.shape
    return x.reshape(n, h // 2, 2, w // 2, 2, c)


def _to(x, *axes):
    """Squeeze with the axes of a block in another order: 2 is dy, 4 is dx, 5 is the channel."""
    n, h, w, c = x.shape
    return _blocks(x).transpose(0, 1, 3, *axes).reshape(n, h // 2, w // 2, 4 * c)


_SQUEEZED = tuple(
    Case(name, (_images(shape, seed),))
    for seed, (name, shape) in enumerate(
        (
            ("one grey image 4 × 6", (1, 4, 6, 1)),
            ("two images 6 × 4 with 3 channels", (2, 6, 4, 3)),
            ("three images 2 × 8 with 2 channels", (3, 2, 8, 2)),
        ),
        1,
    )
)

register(
    Exercise(
        id="squeeze.forward",
        notebook=NOTEBOOK,
        title="Fold 2 × 2 blocks into channels",
        minutes=6,
        difficulty=2,
        stub='''
def squeeze(x):
    """(N, H, W, C) -> (N, H/2, W/2, 4C): y[:, i, j, ch·4 + dy·2 + dx] = x[:, 2i + dy, 2j + dx, ch].

    dy and dx are 0 or 1.
    """
    ...
''',
        solution=squeeze,
        truth=lambda x: Squeeze().forward(x)[0],
        returns=("y",),
        cases=_SQUEEZED,
        hints=(
            "`x[:, dy::2, dx::2, ch]` is every second pixel, starting at row dy and column dx: one "
            "channel of the result.",
            "Make an empty y of shape (N, H/2, W/2, 4C) and loop over ch, dy and dx. (Or without a "
            "loop: reshape to (N, H/2, 2, W/2, 2, C), transpose, reshape.)",
        ),
        explanation="Without loops: `x.reshape(n, h//2, 2, w//2, 2, c).transpose(0, 1, 3, 5, 2, 4)"
        ".reshape(n, h//2, w//2, 4*c)`.",
        mutants=(
            Mutant(
                "bare reshape",
                lambda x: x.reshape(len(x), x.shape[1] // 2, x.shape[2] // 2, 4 * x.shape[3]),
                "A bare reshape keeps the numbers in memory order, so it gathers neighbours along a "
                "row, not a 2 × 2 block. Pixels of different blocks end up together.",
            ),
            Mutant(
                "position first",
                lambda x: _to(x, 2, 4, 5),
                "The position comes first here, channel index (dy·2 + dx)·C + ch. That is another "
                "code's order; asked for is ch·4 + dy·2 + dx. With one channel they coincide.",
            ),
            Mutant(
                "dx before dy",
                lambda x: _to(x, 5, 4, 2),
                "dy and dx are exchanged: channel index ch·4 + dx·2 + dy. It runs down the columns "
                "of a block; asked for is along the rows.",
            ),
            Mutant(
                "position first, dx before dy",
                lambda x: _to(x, 4, 2, 5),
                "Two things: the position comes before the channel, and dx before dy.",
            ),
            Mutant(
                "RealNVP's board",
                lambda x: Squeeze("realnvp").forward(x)[0],
                "That is RealNVP's order, the diagonal of the block first. Glow's goes row by row: "
                "ch·4 + dy·2 + dx.",
            ),
            Mutant(
                "halves, not blocks",
                lambda x: np.concatenate(
                    [
                        x[:, a : a + x.shape[1] // 2, b : b + x.shape[2] // 2]
                        for a in (0, x.shape[1] // 2)
                        for b in (0, x.shape[2] // 2)
                    ],
                    axis=-1,
                ),
                "It stacks the four quarters of the image. A block is 2 × 2 neighbouring pixels: "
                "take every second row and column.",
            ),
            Mutant(
                "rows and columns exchanged",
                lambda x: Squeeze().forward(x.transpose(0, 2, 1, 3))[0].transpose(0, 2, 1, 3),
                "dy and dx are exchanged: channel index ch·4 + dx·2 + dy. It runs down the columns "
                "of a block; asked for is along the rows.",
            ),
            Mutant(
                "reversed",
                lambda x: (
                    _blocks(x)[:, :, ::-1, :, ::-1]
                    .transpose(0, 1, 3, 5, 2, 4)
                    .reshape(Squeeze().forward(x)[0].shape)
                ),
                "Each block is read from its last pixel to its first; start at dy = dx = 0.",
            ),
            Mutant(
                "mean of the block",
                lambda x: np.repeat(_blocks(x).mean(axis=(2, 4)), 4, axis=-1),
                "It averages each block. Nothing may be lost: all four numbers become channels.",
            ),
            Mutant("only the shape", lambda x: x[:, ::2, ::2], deserves="should have shape"),
        ),
    )
)


def unsqueeze(y):
    n, h, w, channels = y.shape
    x = np.empty((n, 2 * h, 2 * w, channels // 4))
    for dy in range(2):
        for dx in range(2):
            x[:, dy::2, dx::2] = y[..., dy * 2 + dx :: 4]
    return x


def _back(y, split, order):
    """Reshape the channels to `split`, then order the axes so that blocks open again."""
    n, h, w, k = y.shape
    parts = y.reshape(n, h, w, *(k // 4 if s is None else s for s in split))
    return parts.transpose(order).reshape(n, 2 * h, 2 * w, k // 4)


register(
    Exercise(
        id="squeeze.inverse",
        notebook=NOTEBOOK,
        title="Unfold them again",
        minutes=5,
        difficulty=2,
        stub='''
def unsqueeze(y):
    """The inverse of the squeeze above: (N, H, W, 4C) -> (N, 2H, 2W, C)."""
    ...
''',
        solution=unsqueeze,
        truth=lambda y: Squeeze().inverse(y),
        returns=("x",),
        cases=tuple(
            Case(name, (_images(shape, seed),))
            for seed, (name, shape) in enumerate(
                (
                    ("one image 2 × 3 with 4 channels", (1, 2, 3, 4)),
                    ("two images 3 × 2 with 12 channels", (2, 3, 2, 12)),
                    ("three images 1 × 4 with 8 channels", (3, 1, 4, 8)),
                ),
                11,
            )
        ),
        hints=(
            "Read the same table backwards: channel ch·4 + dy·2 + dx of y fills the pixels "
            "`x[:, dy::2, dx::2, ch]`.",
            "For a fixed dy and dx the channels needed are `y[..., dy*2 + dx :: 4]`, one for each ch.",
        ),
        explanation="A permutation is undone by reading its table backwards. No number is computed, "
        "so the round trip is exact to the last bit.",
        mutants=(
            Mutant(
                "bare reshape",
                lambda y: y.reshape(len(y), 2 * y.shape[1], 2 * y.shape[2], y.shape[3] // 4),
                "A bare reshape keeps the numbers in memory order; the blocks do not open into "
                "2 × 2 pixels.",
            ),
            Mutant(
                "position first",
                lambda y: _back(y, (2, 2, None), (0, 1, 3, 2, 4, 5)),
                "It reads the channels as (dy·2 + dx)·C + ch, position first. Ours are "
                "ch·4 + dy·2 + dx: use every fourth channel.",
            ),
            Mutant(
                "dx before dy",
                lambda y: _back(y, (None, 2, 2), (0, 1, 5, 2, 4, 3)),
                "dy and dx are exchanged: each 2 × 2 block comes back transposed.",
            ),
            Mutant(
                "RealNVP's board",
                lambda y: Squeeze("realnvp").inverse(y),
                "That undoes RealNVP's order, in which the diagonal of the block comes first.",
            ),
            Mutant(
                "turned blocks",
                lambda y: unsqueeze(y[..., ::-1])[..., ::-1],
                "Each block comes back turned by 180°: the last channel of a group went to the "
                "first pixel.",
            ),
            Mutant(
                "quarters",
                lambda y: np.concatenate(
                    [
                        np.concatenate([y[..., 0::4], y[..., 1::4]], axis=2),
                        np.concatenate([y[..., 2::4], y[..., 3::4]], axis=2),
                    ],
                    axis=1,
                ),
                "It lays four small images side by side. The four numbers of a group are "
                "neighbours: fill every second row and column.",
            ),
            Mutant(
                "first of four",
                lambda y: np.repeat(np.repeat(y[..., ::4], 2, 1), 2, 2),
                "It repeats one number four times and drops three. All four channels of a group "
                "have a pixel of their own.",
            ),
            Mutant("squeezes again", lambda y: y.reshape(len(y), -1), deserves="should have shape"),
        ),
    )
)


# --- the checkerboard -----------------------------------------------------------------------------


def checkerboard(h, w):
    i, j = np.indices((h, w))
    return ((i + j) % 2 == 0).astype(float)


_STRIPES = (
    "These are stripes when w is even: the count runs on from row to row, and an even row "
    "length starts every row with the same colour. A chess board alternates downwards too."
)

register(
    Exercise(
        id="squeeze.checkerboard",
        notebook=NOTEBOOK,
        title="Broken mask: a board that is none",
        minutes=4,
        difficulty=1,
        stub='''
def checkerboard(h, w):
    """1 where i + j is even and 0 elsewhere, for row i and column j: a chess board (h, w)."""
    return 1.0 - np.arange(h * w).reshape(h, w) % 2
''',
        stub_deserves="stripes when w is even",
        solution=checkerboard,
        truth=lambda h, w: checkerboard_mask(h, w)[..., 0],
        returns=("the mask",),
        cases=(
            Case("3 × 5", (3, 5)),
            Case("4 × 6", (4, 6)),
            Case("5 × 4", (5, 4)),
            Case("1 × 2", (1, 2)),
        ),
        hints=(
            "Print the broken mask for 4 × 6 and for 4 × 5. What decides the colour that a row starts "
            "with?",
            "`i, j = np.indices((h, w))` gives the row and the column of every pixel; colour by the "
            "parity of i + j.",
        ),
        explanation="i·w + j and i + j have the same parity only if w is odd. Images nearly never "
        "have an odd width, so the bug is always on, and half of what the mask should "
        "mix is never mixed.",
        mutants=(
            Mutant("stripes", lambda h, w: 1.0 - np.arange(h * w).reshape(h, w) % 2, _STRIPES),
            Mutant(
                "stripes, other colour",
                lambda h, w: 1.0 * (np.arange(h * w).reshape(h, w) % 2),
                "Stripes when w is even, and the colours exchanged: 1 where i + j is even.",
            ),
            Mutant(
                "odd",
                lambda h, w: 1 - checkerboard(h, w),
                "The colours are exchanged: the corner i = j = 0 is even, so it is 1.",
            ),
            Mutant(
                "rows",
                lambda h, w: 1.0 - np.indices((h, w))[0] % 2,
                "These are rows: the column j has no influence.",
            ),
            Mutant(
                "columns",
                lambda h, w: 1.0 - np.indices((h, w))[1] % 2,
                "These are columns: the row i has no influence.",
            ),
            Mutant(
                "product",
                lambda h, w: 1.0 * (np.prod(np.indices((h, w)), axis=0) % 2 == 0),
                "It colours by the parity of i·j, which is odd for one pixel in four only; the sum "
                "i + j is meant.",
            ),
            Mutant(
                "divides by h",
                lambda h, w: (
                    1.0 * ((np.arange(h * w) // h + np.arange(h * w) % h) % 2 == 0).reshape(h, w)
                ),
                "It finds row and column with h; a row holds w pixels, so they are k // w and "
                "k % w.",
            ),
            Mutant(
                "signs",
                lambda h, w: 2 * checkerboard(h, w) - 1,
                "The mask holds −1 and 1. A mask multiplies, so it holds 0 and 1.",
            ),
            Mutant(
                "one in four",
                lambda h, w: 1.0 * ((1 - np.indices((h, w)) % 2).prod(axis=0)),
                "It keeps the pixels whose row *and* column are even, one in four. On a chess board "
                "odd rows with odd columns are kept too: their sum is even.",
            ),
            Mutant(
                "count down the columns",
                lambda h, w: 1.0 - np.arange(h * w).reshape(w, h).T % 2,
                "The count runs down the columns now: stripes again, where h is even.",
            ),
            Mutant("transposed", lambda h, w: checkerboard(w, h), deserves="should have shape"),
        ),
    )
)


# --- split and its prior --------------------------------------------------------------------------


def split_log_prob(x, prior):
    c = x.shape[-1] // 2
    h, z = x[..., :c], x[..., c:]
    out = prior(h)
    mean, log_sd = out[..., :c], out[..., c:]
    eps = (z - mean) * np.exp(-log_sd)
    log_p = -0.5 * (eps**2 + np.log(2 * np.pi)) - log_sd
    return h, log_p.sum(axis=(1, 2, 3))


class _Prior:
    """A prior h -> (mean, log sd) that looks at its input, with fixed random weights."""

    def __init__(self, c, seed):
        rng = np.random.default_rng(seed)
        self.w, self.b = 0.5 * rng.normal(size=(c, 2 * c)), 0.4 * rng.normal(size=2 * c)

    def __call__(self, h):
        return np.tanh(h) @ self.w + self.b


def _from_reference(x, prior):
    y, logdet = Split(prior).forward(x)
    c = x.shape[-1] // 2
    eps = y[..., c:].reshape(len(x), -1)
    log_n = -0.5 * (eps**2).sum(1) - 0.5 * eps.shape[1] * np.log(2 * np.pi)
    return y[..., :c], log_n + logdet


def _wrong_split(density, keep=None, swap=False):
    """A wrong answer: `density(z, mean, log_sd)` summed over one example."""

    def fn(x, prior):
        c = x.shape[-1] // 2
        h, z = x[..., :c], x[..., c:]
        if swap:
            h, z = z, h
        out = prior(h)
        log_p = density(z, out[..., :c], out[..., c:])
        return (h if keep is None else keep(h, z)), log_p.sum(axis=(1, 2, 3))

    return fn


_LOG = np.log(2 * np.pi)


def _log_normal(z, m, ls):
    return -0.5 * (((z - m) * np.exp(-ls)) ** 2 + _LOG) - ls


def _log_normal_of_sd(z, m, sd):
    """As scipy does it: not a number where sd is not positive."""
    with np.errstate(invalid="ignore"):
        return -0.5 * (((z - m) / sd) ** 2 + _LOG) - np.log(sd)


register(
    Exercise(
        id="split.log_prob",
        notebook=NOTEBOOK,
        title="Split, and the price of what leaves",
        minutes=8,
        difficulty=2,
        stub='''
def split_log_prob(x, prior):
    """h, z = the halves of x along the channels. Return h, and log N(z; mean, sd²) of shape (N,).

    prior(h) -> (N, H, W, 2C): C channels of mean, then C channels of log sd, for C channels of z.
    """
    ...
''',
        solution=split_log_prob,
        truth=_from_reference,
        returns=("h", "log p(z | h)"),
        cases=(
            Case("two images 3 × 2 with 4 channels", (_images((2, 3, 2, 4), 21), _Prior(2, 1))),
            Case("one image 2 × 5 with 6 channels", (_images((1, 2, 5, 6), 22), _Prior(3, 2))),
            Case("three images 1 × 2 with 2 channels", (_images((3, 1, 2, 2), 23), _Prior(1, 3))),
        ),
        hints=(
            "Three cuts at the middle of the channels: x into h and z; prior(h) into mean and log sd.",
            "With ε = (z − mean)/sd, log N(z; mean, sd²) = −½(ε² + log 2π) − log sd for each number; "
            "add up over rows, columns and channels: `axis=(1, 2, 3)`.",
        ),
        explanation="log N(z; mean, sd²) = log N(ε; 0, 1) − log sd: the second term is the "
        "log-determinant of whitening.",
        mutants=(
            Mutant(
                "no log sd",
                _wrong_split(lambda z, m, ls: -0.5 * (((z - m) * np.exp(-ls)) ** 2 + _LOG)),
                "The term −log sd is missing: this is the density of ε, not of z. Whitening "
                "stretches space, and its log-determinant counts.",
            ),
            Mutant(
                "no half",
                _wrong_split(lambda z, m, ls: -(((z - m) * np.exp(-ls)) ** 2) - 0.5 * _LOG - ls),
                "The normal density has −ε²/2, not −ε².",
            ),
            Mutant(
                "minus sd",
                _wrong_split(
                    lambda z, m, ls: -0.5 * (((z - m) * np.exp(-ls)) ** 2 + _LOG) - np.exp(ls)
                ),
                "It subtracts sd itself; the term is −log sd, and the prior hands over log sd.",
            ),
            Mutant(
                "the density of h",
                lambda x, prior: (
                    x[..., : x.shape[-1] // 2],
                    split_log_prob(
                        np.concatenate([x[..., : x.shape[-1] // 2]] * 2, axis=-1), prior
                    )[1],
                ),
                "It asks how likely h is. The half that leaves is z; h only says what to expect of it.",
            ),
            Mutant(
                "plus log sd",
                _wrong_split(lambda z, m, ls: -0.5 * (((z - m) * np.exp(-ls)) ** 2 + _LOG) + ls),
                "It adds log sd; a wider normal is lower, so log sd is subtracted.",
            ),
            Mutant(
                "standard normal",
                _wrong_split(lambda z, m, ls: -0.5 * (z**2 + _LOG)),
                "It does not use the prior: this is log N(z; 0, 1).",
            ),
            Mutant(
                "sd for log sd",
                _wrong_split(
                    lambda z, m, ls: -0.5 * (((z - m) / ls) ** 2 + _LOG) - np.log(np.abs(ls))
                ),
                "It takes the prior's second half for sd. It is log sd, which may be negative: "
                "sd = exp(log sd).",
            ),
            Mutant(
                "negative sd",
                _wrong_split(_log_normal_of_sd),
                "It takes the prior's second half for sd. It is log sd, which may be negative: "
                "sd = exp(log sd).",
            ),
            Mutant(
                "sd squared",
                _wrong_split(lambda z, m, ls: _log_normal(z, m, 2 * ls)),
                "It uses the variance, exp(2 log sd), where the standard deviation belongs.",
            ),
            Mutant(
                "prior of z",
                lambda x, prior: (
                    x[..., : x.shape[-1] // 2],
                    split_log_prob(
                        np.concatenate([x[..., x.shape[-1] // 2 :]] * 2, axis=-1), prior
                    )[1],
                ),
                "It asks the prior about z itself. When sampling, z is not known yet: the prior may "
                "look at h only.",
            ),
            Mutant(
                "every second channel",
                lambda x, prior: split_log_prob(
                    np.concatenate([x[..., ::2], x[..., 1::2]], axis=-1), prior
                ),
                "It takes every second channel for h. The slide cuts in the middle: the first half "
                "stays, the second leaves.",
            ),
            Mutant(
                "prior interleaved",
                lambda x, prior: split_log_prob(
                    x, lambda h: np.concatenate([prior(h)[..., ::2], prior(h)[..., 1::2]], axis=-1)
                ),
                "It takes mean and log sd from alternate channels of the prior. Here the first C "
                "channels are the mean and the last C are log sd.",
            ),
            Mutant(
                "multiplies by sd",
                _wrong_split(lambda z, m, ls: -0.5 * (((z - m) * np.exp(ls)) ** 2 + _LOG) - ls),
                "It multiplies by sd; ε = (z − mean)/sd divides.",
            ),
            Mutant(
                "variance",
                _wrong_split(
                    lambda z, m, ls: -0.5 * ((z - m) ** 2 * np.exp(-ls) + _LOG) - 0.5 * ls
                ),
                "It treats the prior's second half as the log of the variance; it is that of the "
                "standard deviation, log sd.",
            ),
            Mutant(
                "plus mean",
                _wrong_split(lambda z, m, ls: _log_normal(z, -m, ls)),
                "It adds the mean: ε = (z − mean)/sd.",
            ),
            Mutant(
                "log sd first",
                _wrong_split(lambda z, m, ls: _log_normal(z, ls, m)),
                "Mean and log sd are exchanged: the prior's first half is the mean.",
            ),
            Mutant(
                "halves exchanged",
                _wrong_split(_log_normal, swap=True),
                "The halves are exchanged: the first half stays, the second leaves and is judged "
                "by the prior.",
            ),
            Mutant(
                "returns z",
                _wrong_split(_log_normal, keep=lambda h, z: z),
                "The likelihood is right, but it returns z, the half that leaves. The flow goes on "
                "with h.",
            ),
            Mutant(
                "no constant",
                _wrong_split(lambda z, m, ls: -0.5 * ((z - m) * np.exp(-ls)) ** 2 - ls),
                "The constant −½ log 2π, once for each number of z, is missing.",
            ),
            Mutant(
                "mean of the logs",
                lambda x, prior: (
                    split_log_prob(x, prior)[0],
                    split_log_prob(x, prior)[1] / (x[0].size / 2),
                ),
                "It averages over the numbers of z; independent densities multiply, so their logs "
                "add.",
            ),
            Mutant(
                "per number",
                lambda x, prior: (
                    x[..., : x.shape[-1] // 2],
                    _log_normal(
                        x[..., x.shape[-1] // 2 :],
                        *np.split(prior(x[..., : x.shape[-1] // 2]), 2, axis=-1),
                    ),
                ),
                deserves="should have shape",
            ),
        ),
    )
)


# --- latent shapes --------------------------------------------------------------------------------


def latent_shapes(h, w, c, levels):
    shapes = []
    for level in range(levels):
        h, w, c = h // 2, w // 2, 4 * c  # squeeze
        if level < levels - 1:
            c = c // 2  # split: half leaves, half goes on
        shapes.append((h, w, c))
    return np.array(shapes)


def _shapes(h, w, c, levels, last_splits=False, split=True):
    out = []
    for level in range(levels):
        h, w, c = h // 2, w // 2, 4 * c
        if split and (last_splits or level < levels - 1):
            c //= 2
        out.append((h, w, c))
    return np.array(out)


def _model(h, w, c, levels):
    model = Glow.random((h, w, c), levels, 0, 1, np.random.default_rng(0), padding="zero")
    return np.array(model.latent_shapes)


register(
    Exercise(
        id="split.shapes",
        notebook=NOTEBOOK,
        title="The shapes of all latents",
        minutes=5,
        difficulty=2,
        stub='''
def latent_shapes(h, w, c, levels):
    """An array (levels, 3): height, width, channels of each latent, the finest first.

    Every level squeezes; every level but the last then splits.
    """
    ...
''',
        solution=latent_shapes,
        truth=_model,
        returns=("the table",),
        cases=(
            Case("16 × 24 × 3 with L = 3", (16, 24, 3, 3)),
            Case("16 × 16 × 1 with L = 4", (16, 16, 1, 4)),
            Case("4 × 2 × 5 with L = 1", (4, 2, 5, 1)),
        ),
        hints=(
            "Keep h, w, c in a loop over the levels. A squeeze halves h and w, and makes 4c of c.",
            "A split hands out half of the channels and goes on with as many. The last level hands "
            "out everything.",
        ),
        explanation="Each level but the last hands out half of what it was given: the shapes' "
        "products are D/2, D/4, …, and the last one is as large as the one before.",
        mutants=(
            Mutant(
                "the last splits too",
                lambda *a: _shapes(*a, last_splits=True),
                "It splits after the last level too: then half of the top is lost, and the "
                "dimensions no longer add up to h·w·c.",
            ),
            Mutant(
                "no split",
                lambda *a: _shapes(*a, split=False),
                "It never splits: every level but the last hands out only half of its channels.",
            ),
            Mutant(
                "c is not halved",
                lambda h, w, c, L: np.array(
                    [(h >> k, w >> k, (4**k * c) // (2 if k < L else 1)) for k in range(1, L + 1)]
                ),
                "What leaves is halved, but what goes on is not: after a split the flow keeps half "
                "of the channels too.",
            ),
            Mutant(
                "times two",
                lambda h, w, c, L: np.array(
                    [(h >> k, w >> k, c * 2 ** (k - 1)) for k in range(1, L + 1)]
                ),
                "The channels double from level to level, but the first squeeze already makes 4c, "
                "of which 2c leave.",
            ),
            Mutant(
                "squeeze makes 2c",
                lambda h, w, c, L: np.array(
                    [(h >> k, w >> k, c if k < L else 2 * c) for k in range(1, L + 1)]
                ),
                "A squeeze makes 4c of c, not 2c: a block of 2 × 2 holds four numbers.",
            ),
            Mutant(
                "splits before squeezing",
                lambda h, w, c, L: np.array(
                    [(h >> k, w >> k, 2 ** (k + 1) * c) for k in range(1, L + 1)]
                ),
                "It gives what enters each split, before half of it leaves.",
            ),
            Mutant(
                "one level behind",
                lambda h, w, c, L: np.array([(h >> k, w >> k, c << k) for k in range(L)]),
                "It starts with the image's own height and width; the first level squeezes before "
                "anything leaves.",
            ),
            Mutant(
                "always 2c",
                lambda h, w, c, L: np.array([(h >> k, w >> k, 2 * c) for k in range(1, L + 1)]),
                "Every level gets the image's own c. What goes on after a split has 2c channels, and "
                "the next level starts from those.",
            ),
            Mutant(
                "coarsest first",
                lambda *a: latent_shapes(*a)[::-1],
                "The order is turned round: the finest latent leaves first.",
            ),
            Mutant(
                "h and w exchanged",
                lambda *a: latent_shapes(*a)[:, [1, 0, 2]],
                "Height and width are exchanged.",
            ),
            Mutant("counts", lambda *a: latent_shapes(*a).prod(1), deserves="should have shape"),
            Mutant("a list", lambda *a: latent_shapes(*a).tolist(), deserves="is a list"),
        ),
    )
)


# --- predictions ----------------------------------------------------------------------------------

ask(
    "squeeze.first_pixel",
    "Which four numbers make up the first pixel of the squeezed image, in order?",
    ["0, 1, 2, 3", "0, 1, 6, 7", "0, 6, 12, 18"],
    "0, 1, 6, 7",
    "The first 2 × 2 block: 0 and 1 in the first row, 6 and 7 below them.",
)

ask(
    "squeeze.half",
    "Halve the 12 channels of an RGB image. What is in the first half, with Glow's order?",
    ["two of four pixels, in full colour", "all red, half of the green", "all red and green"],
    "all red, half of the green",
    "Glow's order puts all four pixels of a colour together.",
)

ask(
    "squeeze.chess",
    "For which images does arange(h·w) % 2, reshaped to (h, w), give a chess board?",
    ["all", "those with odd w", "those with even w"],
    "those with odd w",
    "The count runs on from row to row. If w is even, each row starts with the same colour.",
)

ask(
    "split.share",
    "L = 6. What share of the image's numbers goes through all six levels, to the top?",
    ["1/6", "1/32", "1/64"],
    "1/32",
    "Half leaves at each split, and six levels have five splits: the last one keeps what it has.",
)
