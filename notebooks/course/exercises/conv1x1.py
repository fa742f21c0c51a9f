"""Exercises of notebook 05, the invertible 1×1 convolution."""

import numpy as np

from course.exercise import Case, Exercise, Mutant, register
from course.judge import judge_layer
from course.predict import ask
from reference import Conv1x1, Permutation, jacobian

NOTEBOOK = "05_invertible_1x1_conv"


def _matrix(c, seed, det=None):
    """A full matrix, neither symmetric nor orthogonal, with the determinant asked for."""
    W = np.random.default_rng(seed).normal(size=(c, c)) + 0.3
    if det is not None:
        W *= (abs(det) / abs(np.linalg.det(W))) ** (1 / c)
        if np.sign(np.linalg.det(W)) != np.sign(det):
            W[0] *= -1
    return W


def _images(shape, seed):
    return np.random.default_rng(seed).normal(size=shape)


_POINTS = (
    (
        "two images 5 × 7 with 3 channels, det W < 0",
        _images((2, 5, 7, 3), 1),
        _matrix(3, 1, det=-2.3),
    ),
    ("three images 2 × 3 with 4 channels", _images((3, 2, 3, 4), 2), _matrix(4, 2, det=0.37)),
    (
        "one image 5 × 4 with 5 channels, as many as rows, det W < 0",
        _images((1, 5, 4, 5), 3),
        _matrix(5, 3, det=-0.6),
    ),
)

# 192 channels, each scaled by about 0.01: det W = 10^-384 is 0 in floating point, log|det W| fine.
_DEEP = (
    "one image 1 × 3 with 192 channels and a small W",
    _images((1, 1, 3, 192), 4),
    0.01 * np.linalg.qr(np.random.default_rng(4).normal(size=(192, 192)))[0],
)


# --- forward --------------------------------------------------------------------------------------


def conv1x1_forward(x, W):
    return x @ W.T


register(
    Exercise(
        id="conv1x1.forward",
        notebook=NOTEBOOK,
        title="One matrix at every pixel",
        minutes=4,
        difficulty=1,
        stub='''
def conv1x1_forward(x, W):
    """y_ij = W x_ij at every pixel, for x of shape (N, H, W, C) and W of shape (C, C)."""
    ...
''',
        solution=conv1x1_forward,
        truth=lambda x, W: Conv1x1(W).forward(x)[0],
        returns=("y",),
        cases=tuple(Case(name, (x, W)) for name, x, W in _POINTS),
        hints=(
            "Write out one channel: y[n, i, j, a] = Σ_b W[a, b] · x[n, i, j, b]. The sum runs over "
            "the *second* index of W and the last axis of x.",
            "`np.einsum` can say exactly that. So can `x @ M`, which sums over the last axis of x and "
            "the *first* axis of M: which matrix M has W's second axis first?",
        ),
        explanation="x @ W.T treats every pixel as a row vector: xᵀ Wᵀ = (W x)ᵀ.",
        mutants=(
            Mutant(
                "transposed",
                lambda x, W: x @ W,
                "It applies Wᵀ. `x @ W` sums over the first index of W; (W x)_a = Σ_b W[a, b] x_b "
                "sums over the second. With a symmetric W you would never notice.",
            ),
            Mutant(
                "the inverse",
                lambda x, W: x @ np.linalg.inv(W).T,
                "That is the inverse, W⁻¹ x_ij. The forward map multiplies by W.",
            ),
            Mutant(
                "elementwise",
                lambda x, W: x * np.diag(W),
                "It multiplies each channel by a number, the diagonal of W, as actnorm would. A "
                "1×1 convolution mixes the channels: each output needs all inputs.",
            ),
            Mutant(
                "row sums",
                lambda x, W: x * W.sum(axis=1),
                "It multiplies x by the sums of W's rows. Multiply first, then sum: "
                "Σ_b W[a, b] · x_b.",
            ),
            Mutant(
                "the mean pixel",
                lambda x, W: np.broadcast_to(x.mean((1, 2), keepdims=True) @ W.T, x.shape) + 0,
                "Every pixel of the result is the same. W is shared by the pixels, but each pixel "
                "keeps its own x_ij.",
            ),
            Mutant(
                "normalised",
                lambda x, W: x @ (W / np.abs(np.linalg.det(W))).T,
                "It divides W by |det W|. The layer uses W as it is; the log-determinant accounts "
                "for the change of volume.",
            ),
            Mutant("a list", lambda x, W: (x @ W.T).tolist(), deserves="is a list"),
            Mutant("one image", lambda x, W: (x @ W.T)[0], deserves="should have shape"),
            Mutant(
                "changes x",
                lambda x, W: np.matmul(x.copy(), W.T, out=x),
                deserves="changed its argument x in place",
            ),
        ),
    )
)


# --- the log-determinant --------------------------------------------------------------------------


def conv1x1_logdet(x, W):
    n, h, w, c = x.shape
    return np.full(n, h * w * np.linalg.slogdet(W)[1])


def _measured(x, W):
    """By the Jacobian; at 192 channels by W's singular values (their product is |det W|)."""
    n, h, w, c = x.shape
    if c > 10:
        return np.full(n, h * w * np.log(np.linalg.svd(W, compute_uv=False)).sum())
    return np.array([jacobian(lambda image: image @ W.T, image).logabsdet for image in x])


def _full(value):
    """A mutant from a wrong number: the same for each image."""
    return lambda x, W: np.full(len(x), value(x.shape[1] * x.shape[2], W))


def _log_abs_det(W):
    return np.linalg.slogdet(W)[1]


_HW = "The factor h·w is missing: W acts at each of the h·w pixels, and each multiplies the volume."
_BARS = (
    "It takes the logarithm of det W without |·|: where W turns space over (det W < 0) the "
    "result is not a number."
)
_UNDERFLOW = (
    "Right for the small matrices. With 192 channels det W is about 10⁻³⁸⁴, which is 0 "
    "in floating point, and log 0 = −∞; log|det W| itself is only −884. "
    "`np.linalg.slogdet` adds logarithms and never forms the product."
)

register(
    Exercise(
        id="conv1x1.logdet",
        notebook=NOTEBOOK,
        title="Its log-determinant",
        minutes=6,
        difficulty=2,
        stub='''
def conv1x1_logdet(x, W):
    """log|det dy/dx| of the layer y_ij = W x_ij, one number for each image: shape (N,)."""
    ...
''',
        solution=conv1x1_logdet,
        truth=_measured,
        returns=("the log-determinant",),
        rtol=1e-8,
        cases=tuple(Case(name, (x, W)) for name, x, W in (*_POINTS, _DEEP)),
        hints=(
            "The Jacobian has h·w copies of W on its diagonal and 0 elsewhere, so its determinant is "
            "(det W)^(h·w).",
            "`np.linalg.slogdet(W)` returns two numbers, the sign and log|det W|. All images of the "
            "batch get the same value; `np.full(n, value)` repeats it.",
        ),
        explanation="h·w·log|det W|. It depends on W and on the size of the image, not on its content.",
        mutants=(
            Mutant("no h·w", _full(lambda hw, W: _log_abs_det(W)), _HW),
            Mutant(
                "no h·w, by det",
                _full(lambda hw, W: np.log(np.abs(np.linalg.det(W)))),
                _HW + " And with 192 channels det W underflows to 0: `np.linalg.slogdet`.",
            ),
            Mutant(
                "no h·w, no |·|",
                _full(lambda hw, W: np.log(np.linalg.det(W))),
                "Two things. " + _HW + " And where det W < 0 its logarithm is not a number: |·| is "
                "missing.",
            ),
            Mutant("no |·|", _full(lambda hw, W: hw * np.log(np.linalg.det(W))), _BARS),
            Mutant(
                "det, then log",
                _full(lambda hw, W: hw * np.log(np.abs(np.linalg.det(W)))),
                _UNDERFLOW,
            ),
            Mutant(
                "sign",
                _full(lambda hw, W: -hw * _log_abs_det(W)),
                "The sign is turned over: this is the log-determinant of the inverse.",
            ),
            Mutant(
                "|·| outside",
                _full(lambda hw, W: hw * np.abs(_log_abs_det(W))),
                "The bars stand outside the log, |log(·)|. They belong inside, log|det W|: where W "
                "shrinks volume the log-determinant is rightly negative.",
            ),
            Mutant(
                "counts c too",
                _full(lambda hw, W: hw * len(W) * _log_abs_det(W)),
                "It is too large by the factor c: det W already covers all c channels. Only the "
                "pixels are counted, h·w.",
            ),
            Mutant(
                "h only",
                lambda x, W: np.full(len(x), x.shape[1] * _log_abs_det(W)),
                "It counts h copies of W. There is one for each pixel: h·w.",
            ),
            Mutant(
                "w only",
                lambda x, W: np.full(len(x), x.shape[2] * _log_abs_det(W)),
                "It counts w copies of W. There is one for each pixel: h·w.",
            ),
            Mutant(
                "channels first",
                lambda x, W: np.full(len(x), x.shape[2] * x.shape[3] * _log_abs_det(W)),
                "It counts the last two axes, w·c. The channels are the last axis here: "
                "n, h, w, c = x.shape.",
            ),
            Mutant(
                "to the power",
                _full(lambda hw, W: _log_abs_det(W) ** hw),
                "It takes log|det W| to the power h·w. The *determinant* has that power, and the log "
                "of a power is a factor: h·w·log|det W|.",
            ),
            Mutant(
                "eps",
                _full(lambda hw, W: hw * np.log(np.abs(np.linalg.det(W)) + 1e-12)),
                "Right for the small matrices. With 192 channels det W is 0 in floating point, and the "
                "10⁻¹² added to it is all that is left. `np.linalg.slogdet` needs no such rescue.",
            ),
            Mutant(
                "diagonal of W",
                _full(lambda hw, W: hw * np.log(np.abs(np.diag(W))).sum()),
                "It uses the diagonal of W only. That would do for a triangular W; this one is "
                "full, so its determinant needs all entries.",
            ),
            Mutant(
                "trace",
                _full(lambda hw, W: hw * np.log(np.abs(np.trace(W)))),
                "It takes the trace of W, the sum of the diagonal, where the determinant is meant.",
            ),
            Mutant(
                "the sign of det",
                _full(lambda hw, W: hw * np.linalg.slogdet(W)[0]),
                "That is h·w times the *sign* of det W. `slogdet` returns a pair; log|det W| is the "
                "second.",
            ),
            Mutant(
                "base 2",
                _full(lambda hw, W: hw * _log_abs_det(W) / np.log(2)),
                "It uses the logarithm to base 2; log-determinants are in nats, `np.log`.",
            ),
            Mutant(
                "no log",
                _full(lambda hw, W: hw * np.abs(np.linalg.det(W))),
                "The logarithm is missing: h·w·log|det W|, not h·w·|det W|.",
            ),
            Mutant(
                "whole batch",
                lambda x, W: conv1x1_logdet(x, W) * len(x),
                "It adds up the images of the batch; each image has its own log-determinant.",
            ),
            Mutant(
                "one number", lambda x, W: conv1x1_logdet(x, W)[0], deserves="should have shape"
            ),
        ),
    )
)


# --- a permutation as W ---------------------------------------------------------------------------


def permutation_matrix(indices):
    return np.eye(len(indices))[indices]


def _by_forward(indices):
    """The columns of W are where the reference's Permutation sends the unit vectors."""
    c = len(indices)
    return Permutation(indices).forward(np.eye(c).reshape(c, 1, 1, c))[0].reshape(c, c).T


register(
    Exercise(
        id="conv1x1.permutation",
        notebook=NOTEBOOK,
        title="A permutation is a 1×1 convolution",
        minutes=4,
        difficulty=2,
        stub='''
def permutation_matrix(indices):
    """The W of shape (C, C) for which (W x)[k] = x[indices[k]], whatever x is."""
    ...
''',
        solution=permutation_matrix,
        truth=_by_forward,
        returns=("W",),
        cases=(
            Case("five channels in a cycle of five", (np.array([2, 4, 1, 0, 3]),)),
            Case("four channels moved round by one", (np.array([1, 2, 3, 0]),)),
            Case("six channels back to front", (np.arange(6)[::-1].copy(),)),
        ),
        hints=(
            "Row k of W picks one entry of x. What must stand in that row, and where?",
            "Row k is the unit vector number indices[k]. `np.eye(c)` holds all unit vectors as rows.",
        ),
        explanation="Row k of the identity matrix picks x[k]; taking its rows in the order `indices` "
        "gives W. Its determinant is +1 or −1, so the log-determinant is 0.",
        mutants=(
            Mutant(
                "transposed",
                lambda indices: np.eye(len(indices))[:, indices],
                "This is Wᵀ, which undoes the permutation: it sends x[k] *to* place indices[k]. "
                "Wanted is the one that takes y[k] *from* place indices[k]. Reversing is its own "
                "inverse, so it cannot show the difference; a cycle does.",
            ),
            Mutant(
                "does nothing",
                lambda indices: np.eye(len(indices)),
                "This is the identity matrix: it leaves every channel where it was.",
            ),
            Mutant(
                "reverse always",
                lambda indices: np.eye(len(indices))[::-1],
                "It reverses the channels whatever `indices` says.",
            ),
            Mutant(
                "the indices on the diagonal",
                lambda indices: np.diag(indices).astype(float),
                "It puts the indices on the diagonal and so scales the channels. A permutation "
                "moves them: its entries are 0 and 1.",
            ),
            Mutant(
                "counts from 1",
                lambda indices: np.eye(len(indices))[indices - 1],
                "It is off by one: the channels are counted from 0.",
            ),
            Mutant(
                "on the wrong side",
                lambda indices: np.eye(len(indices))[indices][::-1],
                "The rows are the right ones, but upside down: row k belongs to indices[k].",
            ),
            Mutant(
                "whole rows",
                lambda indices: np.ones((len(indices), len(indices))),
                "Every entry is 1. `W[indices] = 1` fills whole rows; a permutation has one 1 in each "
                "row and column: `W[np.arange(c), indices] = 1`.",
            ),
            Mutant("the numbers", lambda indices: indices, deserves="its first argument unchanged"),
            Mutant(
                "back as numbers", lambda indices: np.argsort(indices), deserves="should have shape"
            ),
            Mutant(
                "a list",
                lambda indices: np.eye(len(indices))[indices].tolist(),
                deserves="is a list",
            ),
        ),
    )
)


# --- the inverse ----------------------------------------------------------------------------------


def conv1x1_inverse(y, W):
    c = len(W)
    return np.linalg.solve(W, y.reshape(-1, c).T).T.reshape(y.shape)


_BACK = tuple(Case(name, (Conv1x1(W).forward(x)[0], W)) for name, x, W in _POINTS)

register(
    Exercise(
        id="conv1x1.inverse",
        notebook=NOTEBOOK,
        title="And back",
        minutes=6,
        difficulty=2,
        stub='''
def conv1x1_inverse(y, W):
    """The x for which y_ij = W x_ij at every pixel; y has shape (N, H, W, C)."""
    ...
''',
        solution=conv1x1_inverse,
        truth=lambda y, W: Conv1x1(W).inverse(y),
        returns=("x",),
        cases=_BACK,
        hints=(
            "Every pixel asks for the solution of the same system, W x_ij = y_ij. `np.linalg.solve(W, "
            "B)` solves for all columns of B at once.",
            "Make the pixels columns: `y.reshape(-1, c).T` has shape (C, N·H·W). Solve, then go the "
            "same way back: `.T.reshape(y.shape)`.",
        ),
        explanation="One factorisation of W serves all pixels. `y @ np.linalg.inv(W).T` is accepted "
        "too; the text above says when the two differ.",
        mutants=(
            Mutant(
                "transpose for inverse",
                lambda y, W: y @ W,
                "It multiplies by Wᵀ. That undoes an orthogonal W, where W⁻¹ = Wᵀ; W is orthogonal "
                "at the start of training and no longer afterwards.",
            ),
            Mutant(
                "inverse, transposed",
                lambda y, W: y @ np.linalg.inv(W),
                "It applies the transpose of W⁻¹: `y @ M` sums over the first index of M.",
            ),
            Mutant(
                "forward",
                lambda y, W: y @ W.T,
                "That is the forward map once more; the inverse must undo it.",
            ),
            Mutant(
                "one over each entry",
                lambda y, W: y @ (1 / W).T,
                "It divides entry by entry. 1 / W is not the inverse matrix.",
            ),
            Mutant(
                "diagonal",
                lambda y, W: y / np.diag(W),
                "It divides by the diagonal, as the inverse of actnorm would; W mixes channels.",
            ),
            Mutant(
                "divided by det",
                lambda y, W: y @ W.T / np.linalg.det(W),
                "It multiplies by W / det W. Dividing by the determinant does not undo W.",
            ),
            Mutant(
                "not turned back",
                lambda y, W: np.linalg.solve(W, y.reshape(-1, len(W)).T).reshape(y.shape),
                "The solution has the pixels as columns, (C, N·H·W); reshaped like that, it mixes "
                "pixels and channels. Transpose first: `.T.reshape(y.shape)`.",
            ),
            Mutant(
                "flat",
                lambda y, W: np.linalg.solve(W, y.reshape(-1, len(W)).T).T,
                deserves="should have shape",
            ),
            Mutant(
                "scrambled",
                lambda y, W: np.linalg.solve(W, y.reshape(len(W), -1)).reshape(y.shape),
                "It reshapes y to (C, N·H·W) directly, which cuts the pixels into pieces: the "
                "channels are the *last* axis. Reshape to (−1, C), then transpose.",
            ),
        ),
    )
)


# --- a broken layer to mend -----------------------------------------------------------------------


def conv1x1_layer(x, W):
    n, h, w, c = x.shape
    y = x @ W.T
    logdet = np.full(n, h * w * np.linalg.slogdet(W)[1])
    return y, logdet


def _layer(logdet):
    return lambda x, W: (x @ W.T, _full(logdet)(x, W))


register(
    Exercise(
        id="conv1x1.broken",
        notebook=NOTEBOOK,
        title="Broken layer: three faults to mend",
        minutes=6,
        difficulty=2,
        stub='''
def conv1x1_layer(x, W):
    """y_ij = W x_ij; return y and its logdet (N,)."""
    n, h, w, c = x.shape
    y = x @ W.T
    logdet = np.full(n, np.log(np.linalg.det(W)))
    return y, logdet
''',
        solution=conv1x1_layer,
        truth=lambda x, W: (x @ W.T, _measured(x, W)),
        returns=("y", "logdet"),
        rtol=1e-8,
        cases=tuple(Case(name, (x, W)) for name, x, W in (*_POINTS, _DEEP)),
        judge=judge_layer,
        stub_deserves="Three faults",
        hints=(
            "Only the line of `logdet` is at fault. What is log(−2.3)? How many pixels are there? "
            "And what is 0.01 to the power of 192?",
            "`np.linalg.slogdet(W)[1]` mends two of the three. The third is how often W acts.",
        ),
        explanation="slogdet adds the logs of the pivots' absolute values: |·| is built in, and no "
        "product is formed that could leave the range of floating point.",
        mutants=(
            Mutant(
                "as it stands",
                _layer(lambda hw, W: np.log(np.linalg.det(W))),
                "Three faults, all in one line. Where det W < 0 its logarithm is not a number; W "
                "acts at h·w pixels, and it is counted once; and with 192 channels det W underflows "
                "to 0. Mend all three.",
            ),
            Mutant(
                "h·w mended",
                _layer(lambda hw, W: hw * np.log(np.linalg.det(W))),
                "h·w is right now. Two faults are left: where det W < 0 its logarithm is not a "
                "number, and with 192 channels det W underflows to 0.",
            ),
            Mutant(
                "|·| mended",
                _layer(lambda hw, W: np.log(np.abs(np.linalg.det(W)))),
                "|·| is right now. Two faults are left: W acts at h·w pixels, and with 192 channels "
                "det W underflows to 0.",
            ),
            Mutant(
                "h·w and |·| mended",
                _layer(lambda hw, W: hw * np.log(np.abs(np.linalg.det(W)))),
                "One fault is left: with 192 channels det W is about 10⁻³⁸⁴, which is 0 in floating "
                "point, and log 0 = −∞. Never form the product.",
            ),
            Mutant(
                "slogdet",
                _layer(lambda hw, W: _log_abs_det(W)),
                "One fault is left: W acts at each of the h·w pixels, and it is counted once.",
            ),
            Mutant(
                "slogdet's sign",
                _layer(lambda hw, W: hw * np.linalg.slogdet(W)[0]),
                "`slogdet` returns the sign of det W first; log|det W| is the second.",
            ),
            Mutant(
                "counts c too",
                _layer(lambda hw, W: hw * len(W) * _log_abs_det(W)),
                "It is too large by the factor c: det W already covers all c channels. Only the "
                "pixels are counted, h·w.",
            ),
            Mutant(
                "clipped",
                _layer(lambda hw, W: hw * np.log(np.maximum(np.linalg.det(W), 1e-12))),
                "Clipping det W makes the warning go away and the number wrong: a negative "
                "determinant and one that underflowed both become 10⁻¹². Take |·|, and add logs.",
            ),
            Mutant(
                "|W|",
                _layer(lambda hw, W: hw * np.linalg.slogdet(np.abs(W))[1]),
                "The bars belong to the determinant, |det W|, not to the entries of W: taking the "
                "absolute value of each entry makes another matrix.",
            ),
            Mutant(
                "transposed",
                lambda x, W: (x @ W, conv1x1_layer(x, W)[1]),
                "The log-determinant is right, and y was right before: now it applies Wᵀ.",
            ),
            Mutant(
                "one number",
                lambda x, W: (x @ W.T, conv1x1_layer(x, W)[1][0]),
                deserves="one number for the whole batch",
            ),
        ),
    )
)


# --- predictions ----------------------------------------------------------------------------------

ask(
    "conv1x1.entries",
    "The image has 2 · 3 · 3 = 18 numbers, so the Jacobian is 18 × 18. How many of its 324 "
    "entries can differ from 0?",
    ["9", "54", "324"],
    "54",
    "Each of the 6 pixels has its own 3 × 3 block, and no pixel looks at another: 6 · 9 = 54.",
)

ask(
    "conv1x1.rotations",
    "Of 200 orthogonal 12 × 12 matrices, drawn evenly from all of them, how many are rotations?",
    ["all 200", "about half", "none"],
    "about half",
    "Evenly drawn, one in two. Raw QR, below, does something else.",
)

ask(
    "conv1x1.towards_zero",
    "As t goes to 0, what does log|det W(t)| do?",
    ["goes to 0", "goes to −∞", "jumps from +1 to −1"],
    "goes to −∞",
    "|det W| = |t|: areas vanish, and the log of the area's factor has no lower end. A "
    "flattened cloud cannot be unflattened.",
)
