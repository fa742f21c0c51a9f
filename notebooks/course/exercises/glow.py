"""Exercises of notebook 08, Glow: the step of flow and the multi-scale model."""

import numpy as np

from course.attempt import attempt
from course.exercise import Case, Exercise, Mutant, register
from course.judge import Verdict, judge_layer, judge_values
from course.predict import ask
from reference import (
    ActNorm,
    AffineCoupling,
    Conv1x1,
    CouplingNet,
    Flow,
    Glow,
    MultiScale,
    Step,
    gaussian_log_prob,
)
from reference.conv1x1 import random_matrix

NOTEBOOK = "08_glow"


# --- the step of flow -----------------------------------------------------------------------------


def step_of_flow(x, s, b, W, net):
    n, h, w, c = x.shape
    y = s * x + b
    y = y @ W.T
    y_a, y_b = y[..., : c // 2], y[..., c // 2 :]
    log_s, t = np.split(net(y_b), 2, axis=-1)
    y = np.concatenate([np.exp(log_s) * y_a + t, y_b], axis=-1)
    per_image = h * w * (np.log(np.abs(s)).sum() + np.linalg.slogdet(W)[1])
    return y, per_image + log_s.sum(axis=(1, 2, 3))


def _step_case(name: str, shape: tuple[int, int, int, int], seed: int) -> Case:
    """Scales of both signs, det W < 0, a net that is not zero."""
    rng = np.random.default_rng(seed)
    c = shape[-1]
    s = rng.uniform(0.4, 2.5, c) * np.where(np.arange(c) % 3, 1.0, -1.0)
    W = random_matrix(c, rng)
    if np.linalg.det(W) > 0:
        W[0] *= -1
    net = CouplingNet.random(c // 2, 8, c, rng)
    return Case(name, (rng.normal(size=shape), s, rng.normal(size=c), W, net))


def _true_step(x, s, b, W, net):
    return Step(ActNorm(s, b), Conv1x1(W), AffineCoupling(net)).forward(x)


def _pieces(x, s, b, W, net):
    """y, and the three shares of the log-determinant, each of shape (N,)."""
    n, h, w, _ = x.shape
    y, total = _true_step(x, s, b, W, net)
    first = np.full(n, h * w * np.log(np.abs(s)).sum())
    second = np.full(n, h * w * np.linalg.slogdet(W)[1])
    return y, first, second, total - first - second


def _shares(*keep):
    """A step with the right y whose log-det is the given multiples of the three shares."""

    def fn(x, s, b, W, net):
        y, *parts = _pieces(x, s, b, W, net)
        return y, sum(k * p for k, p in zip(keep, parts, strict=True))

    return fn


def _without_pixels(*which):
    def fn(x, *parameters):
        y, *parts = _pieces(x, *parameters)
        for k in which:
            parts[k] = parts[k] / (x.shape[1] * x.shape[2])
        return y, sum(parts)

    return fn


def _rows_for_columns(x, s, b, W, net):
    return _true_step(x, s, b, W.T.copy(), net)


def _convolution_first(x, s, b, W, net):
    return Flow([Conv1x1(W), ActNorm(s, b), AffineCoupling(net)]).forward(x)


def _coupling_first(x, s, b, W, net):
    return Flow([AffineCoupling(net), ActNorm(s, b), Conv1x1(W)]).forward(x)


def _other_half(x, s, b, W, net):
    h, logdet = Flow([ActNorm(s, b), Conv1x1(W)]).forward(x)
    a, kept = np.split(h, 2, axis=-1)
    log_s, t = np.split(net(a), 2, axis=-1)
    y = np.concatenate([a, np.exp(log_s) * kept + t], axis=-1)
    return y, logdet + log_s.sum(axis=(1, 2, 3))


def _shift_read_as_scale(x, s, b, W, net):
    return _true_step(x, s, b, W, lambda z: np.roll(net(z), net(z).shape[-1] // 2, axis=-1))


def _halves_swapped(x, *parameters):
    y, logdet = _true_step(x, *parameters)
    return np.roll(y, y.shape[-1] // 2, axis=-1), logdet


def _pixels_twice(x, *parameters):
    y, first, second, third = _pieces(x, *parameters)
    return y, first + second + third * x.shape[1] * x.shape[2]


def _no_exp(x, s, b, W, net):
    h, logdet = Flow([ActNorm(s, b), Conv1x1(W)]).forward(x)
    a, kept = np.split(h, 2, axis=-1)
    scale, t = np.split(net(kept), 2, axis=-1)
    y = np.concatenate([scale * a + t, kept], axis=-1)
    return y, logdet + np.log(np.abs(scale)).sum(axis=(1, 2, 3))


register(
    Exercise(
        id="glow.step",
        notebook=NOTEBOOK,
        title="One step of flow",
        minutes=10,
        difficulty=2,
        stub='''
def step_of_flow(x, s, b, W, net):
    """actnorm (s, b), then 1×1 convolution W, then affine coupling, for x of shape (N, H, W, C).

    net(h_b) holds log s in the first half of its channels and t in the second.
    Return y and log|det dy/dx|, of shape (N,).
    """
    ...
''',
        solution=step_of_flow,
        truth=_true_step,
        judge=judge_layer,
        returns=("y", "logdet"),
        cases=(
            _step_case("two images 3 × 5 with 4 channels, det W < 0", (2, 3, 5, 4), 1),
            _step_case("three images 2 × 3 with 6 channels, det W < 0", (3, 2, 3, 6), 2),
            _step_case("one image 4 × 2 with 2 channels, det W < 0", (1, 4, 2, 2), 3),
        ),
        hints=(
            "Write the three layers one under the other, each from the one before: `s * x + b`, then "
            "`h @ W.T`, then the two halves along the last axis.",
            "`np.split(h, 2, axis=-1)` gives the halves. The net sees the second; the first becomes "
            "exp(log s) ⊙ h_a + t.",
            "The shares: h·w·sum(log|s|), h·w·log|det W| from `np.linalg.slogdet(W)[1]`, and the "
            "coupling's sum(log s) over pixels and channels, image by image.",
        ),
        explanation="Three layers, three log-determinants, one sum. Only the coupling's depends on "
        "the image.",
        mutants=(
            Mutant(
                "no actnorm share",
                _shares(0, 1, 1),
                "y is right. Of the three shares of the log-determinant, actnorm's is missing.",
            ),
            Mutant(
                "no 1×1 share",
                _shares(1, 0, 1),
                "y is right. Of the three shares of the log-determinant, that of the 1×1 "
                "convolution is missing. It is 0 only while W is a rotation or reflection, as at "
                "the start of training.",
            ),
            Mutant(
                "no coupling share",
                _shares(1, 1, 0),
                "y is right. Of the three shares of the log-determinant, the coupling's is "
                "missing: sum(log|s|) of the s that the net gave.",
            ),
            Mutant(
                "coupling's sign",
                _shares(1, 1, -1),
                "y is right; the coupling's share of the log-determinant has the wrong sign.",
            ),
            Mutant(
                "actnorm without h·w",
                _without_pixels(0),
                "y is right; actnorm's share lacks the factor h·w: the same s acts at every pixel.",
            ),
            Mutant(
                "1×1 without h·w",
                _without_pixels(1),
                "y is right; the share of the 1×1 convolution lacks the factor h·w: the same W "
                "acts at every pixel.",
            ),
            Mutant(
                "no h·w at all",
                _without_pixels(0, 1),
                "y is right; the shares of actnorm and of the 1×1 convolution lack the factor h·w: "
                "the same s and the same W act at every pixel.",
            ),
            Mutant(
                "x W for W x",
                _rows_for_columns,
                "It multiplies by the transpose of W. A pixel is a row here, so W x_ij for all "
                "pixels at once is `h @ W.T`.",
            ),
            Mutant(
                "1×1 before actnorm",
                _convolution_first,
                "It convolves before it normalises. The step is actnorm, 1×1 convolution, "
                "coupling. Their own two shares are the same in either order; y is not.",
            ),
            Mutant(
                "coupling first",
                _coupling_first,
                "It couples first. In a step of flow the coupling comes last, so that what it "
                "leaves unchanged has already been mixed.",
            ),
            Mutant(
                "the other half",
                _other_half,
                "It changes the second half and shows the first to the net. On the slide "
                "(log s, t) = NN(x_b), and x_a is changed.",
            ),
            Mutant(
                "t and log s swapped",
                _shift_read_as_scale,
                "It takes the first half of the net's channels for t; they are log s.",
            ),
            Mutant(
                "halves swapped",
                _halves_swapped,
                "The halves of y stand in the wrong order: y = concat(y_a, y_b), the changed half "
                "first.",
            ),
            Mutant(
                "h·w for the coupling",
                _pixels_twice,
                "y is right; the coupling's share is h·w times too large. Its s has one number for "
                "each pixel already, so the sum runs over them.",
            ),
            Mutant(
                "no exp", _no_exp, "It scales by log s itself; s = exp(log s), which is never 0."
            ),
            Mutant("y only", lambda *a: _true_step(*a)[0], deserves="a tuple (y, logdet)"),
            Mutant(
                "one number",
                lambda *a: (_true_step(*a)[0], _true_step(*a)[1].sum()),
                deserves="one per example is expected",
            ),
        ),
    )
)


# --- the likelihood of the multi-scale model ------------------------------------------------------


def log_prob(latents, logdets):
    total = 0
    for z in latents:
        total = total - 0.5 * (z**2 + np.log(2 * np.pi)).sum(axis=(1, 2, 3))
    for share in logdets["levels"] + logdets["splits"] + [logdets["top"]]:
        total = total + share
    return total


def _model(shape, levels, seed, depth=2):
    return Glow.random(shape, levels, depth, 6, np.random.default_rng(seed))


def shares(model: MultiScale, x: np.ndarray) -> tuple[list, dict]:
    """The latents of `model` at x, finest first, and the log-dets by where they arose."""
    h, latents, logdets = x, [], {"levels": [], "splits": [], "top": None}
    for i, level in enumerate(model.levels):
        h, logdet = level.forward(h)
        logdets["levels"].append(logdet)
        if i < len(model.splits):
            y, logdet = model.splits[i].forward(h)
            logdets["splits"].append(logdet)
            h, eps = np.split(y, 2, axis=-1)
            latents.append(eps)
    top, logdets["top"] = model.top.forward(h)
    return [*latents, top], logdets


def _book_case(name, n, shape, levels, seed):
    x = np.random.default_rng(seed).normal(size=(n, *shape))
    return Case(name, shares(_model(shape, levels, seed + 1), x))


def _book(gauss, **factors):
    """A bookkeeper with its own Gaussian and multiples of the shares."""

    def fn(latents, logdets):
        total = gauss(latents)
        for where, shares_ in (
            ("levels", logdets["levels"]),
            ("splits", logdets["splits"]),
            ("top", [logdets["top"]]),
        ):
            total = total + factors.get(where, 1) * sum(shares_)
        return total

    return fn


def _gauss(latents):
    return sum(gaussian_log_prob(z) for z in latents)


register(
    Exercise(
        id="glow.log_prob",
        notebook=NOTEBOOK,
        title="The books of the multi-scale model",
        minutes=6,
        difficulty=2,
        stub='''
def log_prob(latents, logdets):
    """log p(x) in nats, shape (N,), from what one pass through the model has left behind.

    latents: a list of arrays of shape (N, h, w, c), the shape differing from level to level.
    logdets: {"levels": [(N,), …], "splits": [(N,), …], "top": (N,)}.
    Under the model every number of every latent is N(0, 1).
    """
    ...
''',
        solution=log_prob,
        truth=lambda latents, logdets: _book(_gauss)(latents, logdets),
        returns=("log p(x)",),
        cases=(
            _book_case(
                "two images 8 × 4 × 3, three latents of different shapes on 2 levels",
                2,
                (8, 4, 3),
                2,
                11,
            ),
            _book_case("three images 4 × 12 × 1 on 2 levels", 3, (4, 12, 1), 2, 21),
            _book_case("two images 8 × 16 × 1 on 3 levels", 2, (8, 16, 1), 3, 31),
        ),
        hints=(
            "log p(x) = log p(z) + log|det dz/dx|, where z is all latents together.",
            "Each number of each latent adds −½(z² + log 2π). Sum over everything but the first axis.",
            "Then add every log-determinant there is: all levels, all splits, the top.",
        ),
        explanation="Every latent is part of z, and every layer that changed a number has its share: "
        "the splits' learned priors and the top prior too.",
        mutants=(
            Mutant(
                "top latent only",
                _book(lambda latents: gaussian_log_prob(latents[-1])),
                "It counts the last latent only. What left at the splits is part of z too.",
            ),
            Mutant(
                "no top latent",
                _book(lambda latents: _gauss(latents[:-1])),
                "It leaves out the last latent, the one that went through all levels.",
            ),
            Mutant(
                "splits forgotten",
                _book(_gauss, splits=0),
                "The splits' log-determinants are missing. Whitening ε = (z − μ)/σ stretches space "
                "by 1/σ; without its −Σ log σ the density is not normalised.",
            ),
            Mutant(
                "top forgotten",
                _book(_gauss, top=0),
                "The top prior's log-determinant is missing: it whitens too.",
            ),
            Mutant(
                "levels only",
                _book(_gauss, splits=0, top=0),
                "It adds the log-determinants of the levels only; splits and top whiten their "
                "latents, and that changes volumes too.",
            ),
            Mutant(
                "no levels",
                _book(_gauss, levels=0),
                "The levels' log-determinants are missing: that is most of the flow.",
            ),
            Mutant(
                "minus",
                _book(_gauss, levels=-1, splits=-1, top=-1),
                "It subtracts log|det dz/dx|. That sign belongs to the map from z to x.",
            ),
            Mutant(
                "splits subtracted",
                _book(_gauss, splits=-1),
                "It subtracts the splits' log-determinants. What is handed over is log|det| of the "
                "forward map already, −Σ log σ: add it.",
            ),
            Mutant(
                "no 2π",
                _book(lambda latents: sum(-0.5 * (z**2).sum(axis=(1, 2, 3)) for z in latents)),
                "The Gaussian's constant is missing: −½ log 2π for every number, or its integral is "
                "not 1.",
            ),
            Mutant(
                "2π once a latent",
                _book(
                    lambda latents: sum(
                        -0.5 * ((z**2).sum(axis=(1, 2, 3)) + np.log(2 * np.pi)) for z in latents
                    )
                ),
                "It takes −½ log 2π once for each latent. Each of its h·w·c numbers has its own.",
            ),
            Mutant(
                "no half",
                _book(
                    lambda latents: sum(
                        -(z**2 + np.log(2 * np.pi)).sum(axis=(1, 2, 3)) for z in latents
                    )
                ),
                "The factor ½ of the Gaussian is missing: log N(z; 0, 1) = −½(z² + log 2π).",
            ),
            Mutant(
                "density first",
                _book(
                    lambda latents: sum(
                        np.log(np.exp(-(z**2) / 2) / np.sqrt(2 * np.pi)).sum(axis=(1, 2, 3))
                        for z in latents
                    )
                ),
                "It computes the density first and takes its logarithm afterwards: from |z| ≈ 39 on "
                "exp(−z²/2) is 0 in float64, and the log of that −∞. Write the logarithm out.",
            ),
            Mutant(
                "Gaussian's sign",
                _book(lambda latents: -_gauss(latents)),
                "The Gaussian has the wrong sign: log N(z; 0, 1) = −½(z² + log 2π), less where z is "
                "far out.",
            ),
            Mutant(
                "no Gaussian",
                _book(lambda latents: 0),
                "It adds the log-determinants and leaves out log p(z).",
            ),
            Mutant(
                "in bits",
                lambda *a: _book(_gauss)(*a) / np.log(2),
                "That is log p(x) in bits. Nats are asked for: natural logarithms throughout.",
            ),
            Mutant("whole batch", lambda *a: _book(_gauss)(*a).sum(), deserves="should have shape"),
        ),
    )
)


# --- decode ---------------------------------------------------------------------------------------


def decode(latents, levels, splits, top):
    h = top.inverse(latents[-1])
    for i in reversed(range(len(levels))):
        if i < len(splits):
            h = splits[i].inverse(np.concatenate([h, latents[i]], axis=-1))
        h = levels[i].inverse(h)
    return h


def _decode_case(name, n, shape, levels, seed):
    model = _model(shape, levels, seed)
    z = np.random.default_rng(seed + 1).normal(size=(n, int(np.prod(shape))))
    return Case(name, (model.unflatten(z), list(model.levels), list(model.splits), model.top))


def _true_decode(latents, levels, splits, top):
    h, w, c = latents[0].shape[1:] if splits else latents[-1].shape[1:]
    shape = (2 * h, 2 * w, c // 2 if splits else c // 4)
    return MultiScale(shape, levels, splits, top).decode(latents)


def _decoder(join=lambda h, eps: [h, eps], unwhiten=True, top_prior=True):
    def fn(latents, levels, splits, top):
        h = top.inverse(latents[-1]) if top_prior else latents[-1]
        for i in reversed(range(len(levels))):
            if i < len(splits):
                h = np.concatenate(join(h, latents[i]), axis=-1)
                h = splits[i].inverse(h) if unwhiten else h
            h = levels[i].inverse(h)
        return h

    return fn


def _judge_decode(exercise: Exercise, fn) -> Verdict:
    """By values; then ask whether the latents of the splits matter at all."""
    verdict = judge_values(exercise, fn)
    if verdict.status != "wrong" or verdict.message in {m.says for m in exercise.mutants}:
        return verdict
    latents, *rest = exercise.cases[0].args
    changed = [1 - z for z in latents[:-1]] + latents[-1:]
    first, again, other = (attempt(fn, (z, *rest)) for z in (latents, latents, changed))
    if first.trouble or again.trouble or other.trouble:
        return verdict
    if not np.array_equal(first.value, again.value) or np.array_equal(first.value, other.value):
        return Verdict("wrong", NEW_LATENTS)
    return verdict


NEW_LATENTS = (
    "It does not use the latents that left at the splits. With something new in their "
    "place one gets a variation of the image, not the image; many published "
    '"reconstructions" do this.'
)


def _forward_order(latents, levels, splits, top):
    h = top.inverse(latents[-1])
    for i, level in enumerate(levels):
        if i < len(splits):
            h = splits[i].inverse(np.concatenate([h, latents[i]], axis=-1))
        h = level.inverse(h)
    return h


def _level_then_split(latents, levels, splits, top):
    h = top.inverse(latents[-1])
    for i in reversed(range(len(levels))):
        h = levels[i].inverse(h)
        if i < len(splits):
            h = splits[i].inverse(np.concatenate([h, latents[i]], axis=-1))
    return h


register(
    Exercise(
        id="glow.decode",
        notebook=NOTEBOOK,
        title="Back: from the latents to the image",
        minutes=8,
        difficulty=3,
        stub='''
def decode(latents, levels, splits, top):
    """The images whose latents these are, exactly; latents[0] left first, latents[-1] is the top's.

    levels[i], splits[i] and top are layers with .inverse(y); there are L levels, L − 1 splits.
    splits[i].inverse takes concat(h, ε) along the channels and gives back h_i before the split.
    """
    ...
''',
        solution=decode,
        truth=_true_decode,
        judge=_judge_decode,
        returns=("x",),
        cases=(
            _decode_case("two latents on 2 levels, images 8 × 4 × 3", 2, (8, 4, 3), 2, 41),
            _decode_case("three levels, images 8 × 16 × 1", 2, (8, 16, 1), 3, 51),
            _decode_case("one level, images 4 × 6 × 2", 2, (4, 6, 2), 1, 61),
        ),
        hints=(
            "Undo the last thing first: the top prior, then the last level, which has no split.",
            "Then from level L − 1 down to the first: take back the latent that left there, undo the "
            "split, undo the level.",
            "`for i in reversed(range(len(levels)))`, and inside `if i < len(splits): …`.",
        ),
        explanation="Encoding ends with the top; decoding begins there. At each level the ε that left "
        "comes back before the level is undone.",
        mutants=(
            Mutant(
                "ε first",
                _decoder(join=lambda h, eps: [eps, h]),
                "It puts ε before h. The split took ε from the second half of the channels, so it "
                "goes back there: concat(h, ε).",
            ),
            Mutant(
                "not unwhitened",
                _decoder(unwhiten=False),
                "It puts ε back as it is. The split's inverse turns it into z = μ(h) + σ(h) ⊙ ε "
                "first.",
            ),
            Mutant(
                "top prior forgotten",
                _decoder(top_prior=False),
                "It begins with the top latent as it is. The top prior whitened it; undo that "
                "first.",
            ),
            Mutant(
                "zeros for the lost half",
                _decoder(join=lambda h, eps: [h, 0 * eps]),
                "It puts zeros where the split-off latents belong: an average image, not the "
                "image. Exact reconstruction needs every latent.",
            ),
            Mutant(
                "fresh noise",
                _decoder(join=lambda h, eps: [h, np.random.default_rng(1).normal(size=eps.shape)]),
                deserves=NEW_LATENTS,
            ),
            Mutant(
                "fresh noise each time",
                _decoder(join=lambda h, eps: [h, np.random.default_rng().normal(size=eps.shape)]),
                deserves=NEW_LATENTS,
            ),
            Mutant("first level first", _forward_order, deserves="raised ValueError"),
            Mutant("level before split", _level_then_split, deserves="raised ValueError"),
            Mutant(
                "top only",
                lambda latents, levels, splits, top: levels[-1].inverse(top.inverse(latents[-1])),
                deserves=NEW_LATENTS,
            ),
            Mutant(
                "forward",
                lambda latents, levels, splits, top: levels[-1].forward(latents[-1]),
                deserves="raised",
            ),
        ),
    )
)


# --- memory: every activation from the last -------------------------------------------------------


def rewind(z, layers):
    h = [z]
    for layer in reversed(layers):
        h.append(layer.inverse(h[-1]))
    return h[::-1]


def _rewind_case(name, n, shape, depth, seed):
    rng = np.random.default_rng(seed)
    c = shape[-1]
    layers = [
        Step(
            ActNorm(rng.uniform(0.5, 2, c), rng.normal(size=c)),
            Conv1x1(random_matrix(c, rng)),
            AffineCoupling(CouplingNet.random(c // 2, 6, c, rng)),
        )
        for _ in range(depth)
    ]
    return Case(name, (rng.normal(size=(n, *shape)), layers))


def _rewind_in_order(z, layers):
    h = [z]
    for layer in layers:
        h.append(layer.inverse(h[-1]))
    return h[::-1]


def _play(z, layers):
    h = [z]
    for layer in layers:
        h.append(layer.forward(h[-1])[0])
    return h


register(
    Exercise(
        id="glow.rewind",
        notebook=NOTEBOOK,
        title="Every activation, from the last one alone",
        minutes=4,
        difficulty=2,
        stub='''
def rewind(z, layers):
    """[h_0, h_1, …, h_K] from z = h_K alone; layers[0] was applied first.

    A layer has .forward(h) -> (next h, logdet) and .inverse(next h) -> h.
    """
    ...
''',
        solution=rewind,
        truth=rewind,
        returns=("the list",),
        cases=(
            _rewind_case("three steps on two images 2 × 3 × 4", 2, (2, 3, 4), 3, 71),
            _rewind_case("two steps on one image 3 × 2 × 6", 1, (3, 2, 6), 2, 81),
        ),
        hints=(
            "h_(i−1) = f_i⁻¹(h_i): the last layer is undone first.",
            "Collect from the end, `for layer in reversed(layers)`, then turn the list round.",
        ),
        explanation="Nothing was stored on the way forward but z. Reversible back-propagation does "
        "this one step at a time and computes each step's gradient as it passes.",
        mutants=(
            Mutant(
                "wrong order of layers",
                _rewind_in_order,
                "It undoes the first layer first. z came out of the last layer, so that one is "
                "undone first.",
            ),
            Mutant(
                "backwards list",
                lambda z, layers: rewind(z, layers)[::-1],
                "All activations are there, from z to x. Asked for is the order of the forward "
                "pass: h_0 = x first.",
            ),
            Mutant("x only", lambda z, layers: rewind(z, layers)[0], deserves="should have shape"),
            Mutant(
                "without z", lambda z, layers: rewind(z, layers)[:-1], deserves="should have shape"
            ),
            Mutant(
                "forward again",
                _play,
                "It runs the layers forward from z. z is the end of the flow; go back from it.",
            ),
            Mutant(
                "forward, turned round",
                lambda z, layers: _play(z, layers)[::-1],
                "It runs the layers forward from z and turns the list round. The layers themselves "
                "must be undone, with .inverse.",
            ),
            Mutant(
                "z repeated",
                lambda z, layers: [z] * (len(layers) + 1),
                "Every entry is z. Undo one layer more for each entry to the left.",
            ),
        ),
    )
)


# --- a broken model to mend -----------------------------------------------------------------------


def encode(x, levels, splits, top):
    h, total, latents = x, np.zeros(len(x)), []
    for i, level in enumerate(levels):
        h, logdet = level.forward(h)
        total = total + logdet
        if i < len(splits):
            y, logdet = splits[i].forward(h)
            total = total + logdet
            h, eps = np.split(y, 2, axis=-1)
            latents.append(eps.reshape(len(x), -1))
    h, logdet = top.forward(h)
    return np.concatenate([*latents, h.reshape(len(x), -1)], axis=1), total + logdet


def _encode_case(name, n, shape, levels, seed):
    model = _model(shape, levels, seed, depth=1)
    x = np.random.default_rng(seed + 1).normal(size=(n, *shape))
    return Case(name, (x, list(model.levels), list(model.splits), model.top))


def _encoder(last=1.0, split=1.0, top=1.0, wrong_half=False, raw=False):
    """An encoder whose log-det holds multiples of the shares; 1 everywhere is right."""

    def fn(x, levels, splits, top_):
        h, total, latents = x, np.zeros(len(x)), []
        for i, level in enumerate(levels):
            h, logdet = level.forward(h)
            total = total + logdet * (last if i == len(splits) else 1.0)
            if i < len(splits):
                y, logdet = splits[i].forward(h)
                total = total + split * logdet
                before = np.split(h, 2, axis=-1)
                h, eps = np.split(y, 2, axis=-1)
                h, eps = (eps, h) if wrong_half else (h, before[1] if raw else eps)
                latents.append(eps.reshape(len(x), -1))
        h, logdet = top_.forward(h)
        z = np.concatenate([*latents, h.reshape(len(x), -1)], axis=1)
        return z, total + top * logdet

    return fn


def _true_encode(x, levels, splits, top):
    return MultiScale(x.shape[1:], levels, splits, top).forward(x)


register(
    Exercise(
        id="glow.broken",
        notebook=NOTEBOOK,
        title="Broken model: perfect round trip, wrong likelihood",
        minutes=8,
        difficulty=3,
        stub='''
def encode(x, levels, splits, top):
    """The latents of x in one vector (N, D), and the log-determinant (N,)."""
    h, total, latents = x, np.zeros(len(x)), []
    for i, level in enumerate(levels):
        h, logdet = level.forward(h)
        if i < len(splits):
            total = total + logdet
            y, logdet = splits[i].forward(h)
            h, eps = np.split(y, 2, axis=-1)
            latents.append(eps.reshape(len(x), -1))
    h, logdet = top.forward(h)
    return np.concatenate([*latents, h.reshape(len(x), -1)], axis=1), total + logdet
''',
        stub_deserves="Two shares",
        solution=encode,
        truth=_true_encode,
        judge=judge_layer,
        returns=("z", "logdet"),
        cases=(
            _encode_case("two images 4 × 8 × 3 on 2 levels", 2, (4, 8, 3), 2, 91),
            _encode_case("two images 8 × 8 × 1 on 3 levels", 2, (8, 8, 1), 3, 101),
            _encode_case("two images 2 × 6 × 3 on 1 level, no split", 2, (2, 6, 3), 1, 111),
        ),
        hints=(
            "Follow the name `logdet`: it is set four times in a run over two levels. Which of the "
            "values reach `total` before they are overwritten?",
            "The line `total = total + logdet` is indented one step too far, and after the split "
            "there is none.",
        ),
        explanation="Every value of `logdet` must reach `total` before the next overwrites it. The "
        "round trip cannot see any of this: z is right all the time.",
        mutants=(
            Mutant(
                "as it stands",
                _encoder(last=0, split=0),
                "Two shares of the log-determinant are lost: that of the splits, and that of the "
                "last level, which has no split. z itself is right.",
            ),
            Mutant(
                "only the level mended",
                _encoder(split=0),
                "One share is still lost: the splits' log-determinants, −Σ log σ. On one level "
                "there is no split, and no error.",
            ),
            Mutant(
                "only the split mended",
                _encoder(last=0),
                "One share is still lost: the log-determinant of the last level, which has no "
                "split after it.",
            ),
            Mutant(
                "split's sign",
                _encoder(split=-1),
                "The splits' log-determinants are subtracted; they are those of the forward map "
                "already.",
            ),
            Mutant(
                "split twice",
                _encoder(split=2),
                "The splits' log-determinants are added twice: once is enough.",
            ),
            Mutant(
                "top lost",
                _encoder(top=0),
                "Now the top prior's log-determinant is lost; it was there before.",
            ),
            Mutant(
                "last level twice",
                _encoder(last=2),
                "The last level's log-determinant is added twice.",
            ),
            Mutant(
                "no whitening",
                _encoder(raw=True),
                "Now the latent that leaves is not whitened, while the log-determinant says it is. "
                "The latent is ε, the second half of what the split gives.",
            ),
            Mutant("wrong half leaves", _encoder(wrong_half=True), deserves="z[0, "),
        ),
    )
)


# --- predictions ----------------------------------------------------------------------------------

ask(
    "glow.dense",
    "Each layer's Jacobian is mostly zeros. How many steps until nearly every number of a 4 × 6"
    " × 4 image influences every other?",
    ["one", "three", "it stays mostly zeros"],
    "three",
    "A coupling changes one half only, and its two 3 × 3 convolutions look two pixels far. The "
    "1×1 convolutions in between bring every channel into both halves.",
)

ask(
    "glow.memory",
    "From K = 2 to K = 8, four times as many steps, ordinary back-propagation keeps nearly four "
    "times as much. And the other two?",
    [
        "nearly four times as much, too",
        "checkpointed about twice as much, reversible no more",
        "neither keeps more",
    ],
    "checkpointed about twice as much, reversible no more",
    "Checkpointing keeps one h a step, beside what does not depend on K. Rewinding keeps the "
    "output of each level, whatever K is.",
)
