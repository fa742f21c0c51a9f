"""Exercises of notebook 07, the coupling layers."""

import numpy as np

from course.exercise import Case, Exercise, Mutant, register
from course.judge import judge_layer
from course.predict import ask
from reference import AdditiveCoupling, AffineCoupling, jacobian

NOTEBOOK = "07_coupling"


class _Net:
    """(N, H, W, c_in) -> (N, H, W, c_out): smooth, non-linear, never near 0, and not invertible.

    It mixes channels and looks at the pixel to the left, so that what it returns is different in
    every place.
    """

    def __init__(self, c_in, c_out, seed):
        rng = np.random.default_rng(seed)
        self.A, self.B = rng.normal(size=(2, c_in, c_out))
        self.bias = rng.uniform(0.4, 0.9, c_out) * np.where(np.arange(c_out) % 2, 1, -1)

    def __call__(self, x_b):
        return np.sin(x_b @ self.A) + np.roll(x_b, 1, axis=2) ** 2 @ self.B * 0.2 + self.bias


def _case(name, shape, seed, outputs=2):
    """Images, not square, and a net with `outputs` times the channels it takes."""
    half = shape[-1] // 2
    x = np.random.default_rng(seed).normal(size=shape)
    return Case(name, (x, _Net(half, outputs * half, seed)))


_SHAPES = (
    ("two images 3 × 5 with 4 channels", (2, 3, 5, 4), 1),
    ("one image 4 × 2 with 6 channels", (1, 4, 2, 6), 2),
    ("three images 2 × 3 with 2 channels", (3, 2, 3, 2), 3),
)
_POINTS = tuple(_case(*shape) for shape in _SHAPES)
_PLAIN = tuple(_case(*shape, outputs=1) for shape in _SHAPES)


def _two(a):
    half = a.shape[-1] // 2
    return a[..., :half], a[..., half:]


def _join(a, b):
    return np.concatenate([a, b], axis=-1)


def _each(a):
    """The sum over each example."""
    return a.reshape(len(a), -1).sum(1)


def _measured(layer):
    """y of the reference's layer, with its log-det measured rather than derived."""

    def truth(x, net):
        y = layer(net).forward(x)[0]
        dets = [jacobian(lambda a: layer(net).forward(a[None])[0][0], a).logabsdet for a in x]
        return y, np.array(dets)

    return truth


# --- affine, forward ------------------------------------------------------------------------------


def affine_coupling(x, net):
    half = x.shape[-1] // 2
    x_a, x_b = x[..., :half], x[..., half:]
    out = net(x_b)
    log_s, t = out[..., :half], out[..., half:]
    y_a = np.exp(log_s) * x_a + t
    return np.concatenate([y_a, x_b], axis=-1), log_s.sum(axis=(1, 2, 3))


def _affine(y_a=lambda x_a, log_s, t: np.exp(log_s) * x_a + t, logdet=_each):
    """A mutant of the affine coupling: another y_a, or another log-det made of log_s."""

    def mutant(x, net):
        x_a, x_b = _two(x)
        log_s, t = _two(net(x_b))
        return _join(y_a(x_a, log_s, t), x_b), logdet(log_s)

    return mutant


def _other_half(x, net):
    x_a, x_b = _two(x)
    log_s, t = _two(net(x_a))
    return _join(x_a, np.exp(log_s) * x_b + t), _each(log_s)


def _reads_itself(x, net):
    x_a, x_b = _two(x)
    log_s, t = _two(net(x_a))
    return _join(np.exp(log_s) * x_a + t, x_b), _each(log_s)


def _t_first(x, net):
    x_a, x_b = _two(x)
    t, log_s = _two(net(x_b))
    return _join(np.exp(log_s) * x_a + t, x_b), _each(log_s)


def _swapped(x, net):
    y, logdet = affine_coupling(x, net)
    return _join(*_two(y)[::-1]), logdet


_MEAN = (
    "y is right. The log-det is a *mean* of log s; determinants multiply, so their logs are "
    "summed, over all pixels and channels of x_a."
)

register(
    Exercise(
        id="coupling.affine",
        notebook=NOTEBOOK,
        title="The affine coupling and its log-determinant",
        minutes=8,
        difficulty=2,
        stub='''
def affine_coupling(x, net):
    """The slide's coupling. net(x_b) returns (log s, t), joined along the channels.

    Return y, shaped as x (N, H, W, C), and its logdet (N,).
    """
    ...
''',
        solution=affine_coupling,
        truth=_measured(AffineCoupling),
        returns=("y", "logdet"),
        cases=_POINTS,
        judge=judge_layer,
        hints=(
            "half = x.shape[-1] // 2; x_a is the first half of the channels, x_b the rest. What net "
            "returns is cut in the same way: log s first, then t.",
            "y_a = np.exp(log_s) * x_a + t, and y_b = x_b; join with `np.concatenate(…, axis=-1)`.",
            "The diagonal of the Jacobian holds s for x_a and 1 for x_b. The log of their product is "
            "the sum of log s over everything but the batch: `axis=(1, 2, 3)`.",
        ),
        explanation="log s is there already: no log, no exp and no matrix is needed for the "
        "determinant. s depends on x_b, so each example has its own log-determinant.",
        mutants=(
            Mutant("mean over all", _affine(logdet=lambda ls: ls.mean((1, 2, 3))), _MEAN),
            Mutant(
                "mean over the channels", _affine(logdet=lambda ls: ls.mean(3).sum((1, 2))), _MEAN
            ),
            Mutant(
                "times h·w",
                _affine(logdet=lambda ls: _each(ls) * ls.shape[1] * ls.shape[2]),
                "y is right. The log-det is too large by h·w: unlike actnorm's s, this s has a "
                "value at each pixel already, and the sum runs over them.",
            ),
            Mutant(
                "one pixel",
                _affine(logdet=lambda ls: ls[:, 0, 0].sum(-1)),
                "y is right. The log-det counts a single pixel; s differs from pixel to pixel, so "
                "sum over all of them.",
            ),
            Mutant(
                "sum of s",
                _affine(logdet=lambda ls: _each(np.exp(ls))),
                "y is right. The log-det adds up s itself; logs are to be added, sum(log|s|).",
            ),
            Mutant(
                "sum of |log s|",
                _affine(logdet=lambda ls: _each(np.abs(ls))),
                "y is right. The bars are in the wrong place: sum(|log s|) instead of sum(log|s|). "
                "Where s < 1 the map shrinks, and log s is rightly negative.",
            ),
            Mutant(
                "log of log s",
                _affine(logdet=lambda ls: _each(np.log(ls))),
                "y is right. The log-det takes the logarithm of log s, which is already one (and "
                "negative in places): add up log s itself.",
            ),
            Mutant(
                "minus",
                _affine(logdet=lambda ls: -_each(ls)),
                "y is right. The sign of the log-det is turned over: this is that of the inverse.",
            ),
            Mutant(
                "zero",
                _affine(logdet=lambda ls: np.zeros(len(ls))),
                "y is right. A log-det of 0 belongs to the additive coupling, where s = 1.",
            ),
            Mutant(
                "log_s for s",
                _affine(y_a=lambda a, ls, t: ls * a + t),
                "It multiplies by log s. The net gives the *logarithm* of the scale; "
                "s = exp(log s).",
            ),
            Mutant(
                "shift before scale",
                _affine(y_a=lambda a, ls, t: np.exp(ls) * (a + t)),
                "It shifts before it scales, s·(x_a + t), as the authors' code does. The slide "
                "scales first.",
            ),
            Mutant(
                "divides",
                _affine(y_a=lambda a, ls, t: (a - t) * np.exp(-ls)),
                "That is the inverse, (x_a − t)/s. Forward multiplies by s and adds t.",
            ),
            Mutant("no t", _affine(y_a=lambda a, ls, t: np.exp(ls) * a), "The shift t is missing."),
            Mutant(
                "the other half",
                _other_half,
                "It changes x_b and lets x_a decide. That is a right coupling too, but not the "
                "slide's: there x_b decides and x_a changes.",
            ),
            Mutant(
                "reads itself",
                _reads_itself,
                "The net is given x_a, the half that changes. Then the inverse would need x_a "
                "before it is known, and s·x_a is no longer linear in x_a: hand it x_b.",
            ),
            Mutant(
                "t first",
                _t_first,
                "It reads the net's output as (t, log s). On the slide log s comes first.",
            ),
            Mutant("swapped", _swapped, "The halves of y are swapped: y = concat(y_a, y_b)."),
            Mutant(
                "only y_a",
                lambda x, net: (_two(affine_coupling(x, net)[0])[0], affine_coupling(x, net)[1]),
                deserves="y should have shape",
            ),
            Mutant(
                "whole batch",
                lambda x, net: (affine_coupling(x, net)[0], affine_coupling(x, net)[1].sum()),
                deserves="one per example",
            ),
            Mutant(
                "y alone", lambda x, net: affine_coupling(x, net)[0], deserves="a tuple (y, logdet)"
            ),
        ),
    )
)


# --- affine, inverse ------------------------------------------------------------------------------


def affine_coupling_inverse(y, net):
    half = y.shape[-1] // 2
    y_a, y_b = y[..., :half], y[..., half:]
    out = net(y_b)
    log_s, t = out[..., :half], out[..., half:]
    return np.concatenate([(y_a - t) * np.exp(-log_s), y_b], axis=-1)


def _back(x_a, feed=lambda y_a, y_b: y_b):
    def mutant(y, net):
        y_a, y_b = _two(y)
        log_s, t = _two(net(feed(y_a, y_b)))
        return _join(x_a(y_a, log_s, t), y_b)

    return mutant


register(
    Exercise(
        id="coupling.inverse",
        notebook=NOTEBOOK,
        title="Undo it without undoing the net",
        minutes=5,
        difficulty=2,
        stub='''
def affine_coupling_inverse(y, net):
    """The x that the affine coupling maps to y. You may call net; it has no inverse."""
    ...
''',
        solution=affine_coupling_inverse,
        truth=lambda y, net: AffineCoupling(net).inverse(y),
        returns=("x",),
        cases=tuple(
            Case(c.name, (AffineCoupling(c.args[1]).forward(c.args[0])[0], c.args[1]))
            for c in _POINTS
        ),
        hints=(
            "y_b = x_b, so the net can be asked the same question again and gives the same log s, t.",
            "Solve y_a = s ⊙ x_a + t for x_a.",
        ),
        explanation="x_a = (y_a − t)/s. The net runs forwards in both directions, which is why it may "
        "be anything.",
        mutants=(
            Mutant(
                "wrong order",
                _back(lambda a, ls, t: a * np.exp(-ls) - t),
                "It divides first and subtracts t afterwards. Forward scales and then shifts; going "
                "back, the last step is undone first.",
            ),
            Mutant(
                "bracket missing",
                _back(lambda a, ls, t: a - t * np.exp(-ls)),
                "Brackets: it computes y_a − t/s, where (y_a − t)/s is meant.",
            ),
            Mutant(
                "forward",
                _back(lambda a, ls, t: np.exp(ls) * a + t),
                "That is the forward map once more.",
            ),
            Mutant(
                "s for 1/s",
                _back(lambda a, ls, t: (a - t) * np.exp(ls)),
                "It multiplies by s. Forward multiplied; the inverse divides.",
            ),
            Mutant(
                "divides by log s",
                _back(lambda a, ls, t: (a - t) / ls),
                "It divides by log s, where s = exp(log s) is meant.",
            ),
            Mutant(
                "plus t",
                _back(lambda a, ls, t: (a + t) * np.exp(-ls)),
                "It adds t. Forward added it; the inverse takes it away.",
            ),
            Mutant("no t", _back(lambda a, ls, t: a * np.exp(-ls)), "The shift t is not undone."),
            Mutant(
                "asks y_a",
                _back(lambda a, ls, t: (a - t) * np.exp(-ls), feed=lambda a, b: a),
                "It asks the net about y_a. Forward asked it about x_b, and y_b = x_b is still "
                "there.",
            ),
            Mutant(
                "net of y_b undone",
                lambda y, net: -affine_coupling_inverse(-y, net),
                "The net sees −y_b in place of y_b, so log s and t are not those of forward.",
            ),
            Mutant(
                "swapped",
                lambda y, net: _join(*_two(affine_coupling_inverse(y, net))[::-1]),
                "The halves are swapped: x = concat(x_a, x_b).",
            ),
            Mutant(
                "a pair",
                lambda y, net: _two(affine_coupling_inverse(y, net)),
                deserves="x is a tuple",
            ),
        ),
    )
)


# --- additive -------------------------------------------------------------------------------------


def additive_coupling(x, net):
    half = x.shape[-1] // 2
    x_a, x_b = x[..., :half], x[..., half:]
    return np.concatenate([x_a + net(x_b), x_b], axis=-1), np.zeros(len(x))


def _additive(y_a, logdet=lambda x, t: np.zeros(len(x))):
    def mutant(x, net):
        x_a, x_b = _two(x)
        t = net(x_b)
        return _join(y_a(x_a, t), x_b), logdet(x, t)

    return mutant


register(
    Exercise(
        id="coupling.additive",
        notebook=NOTEBOOK,
        title="The additive coupling",
        minutes=3,
        difficulty=1,
        stub='''
def additive_coupling(x, net):
    """The coupling with s = 1. net(x_b) returns t alone, shaped as x_b. Return y and logdet."""
    ...
''',
        solution=additive_coupling,
        truth=lambda x, net: AdditiveCoupling(net).forward(x),
        returns=("y", "logdet"),
        cases=_PLAIN,
        judge=judge_layer,
        hints=(
            "Put s = 1 into the affine coupling: what is left of y_a, and of sum(log|s|)?",
            "The log-det is one 0 for each image: `np.zeros(len(x))`.",
        ),
        explanation="A shift moves volume and never changes it, however wild the net is.",
        mutants=(
            Mutant(
                "minus t", _additive(lambda a, t: a - t), "It subtracts t: that is the inverse."
            ),
            Mutant(
                "scales",
                _additive(lambda a, t: a * t, lambda x, t: _each(np.log(np.abs(t)))),
                "It multiplies by the net's output; the additive coupling adds it.",
            ),
            Mutant(
                "s = 1 in the log-det",
                _additive(lambda a, t: a + t, lambda x, t: np.ones(len(x))),
                "y is right. The log-det is 1; it is the *log* of s = 1, summed: 0.",
            ),
            Mutant(
                "counts t",
                _additive(lambda a, t: a + t, lambda x, t: _each(t)),
                "y is right. The log-det adds up t. A shift does not change volume: ∂y_a/∂x_a = 1.",
            ),
            Mutant(
                "log|t|",
                _additive(lambda a, t: a + t, lambda x, t: _each(np.log(np.abs(t)))),
                "y is right. The log-det adds up log|t|. The Jacobian's diagonal is 1, not t.",
            ),
            Mutant(
                "only t",
                _additive(lambda a, t: t),
                "x_a is gone: y_a is the net's output alone, and nothing could bring x_a back.",
            ),
            Mutant(
                "both halves",
                lambda x, net: (
                    _join(_two(x)[0] + net(_two(x)[1]), _two(x)[1] + net(_two(x)[0])),
                    np.zeros(len(x)),
                ),
                "It changes both halves at once. Then the inverse has no half left to ask the net "
                "about, and the Jacobian is no longer triangular.",
            ),
            Mutant(
                "x_b moves too",
                lambda x, net: (
                    _join(_two(x)[0] + net(_two(x)[1]), _two(x)[1] + net(_two(x)[1])),
                    np.zeros(len(x)),
                ),
                "It shifts x_b as well. x_b must pass unchanged, or the way back could not ask the "
                "net the same question.",
            ),
            Mutant(
                "one zero",
                lambda x, net: (additive_coupling(x, net)[0], 0.0),
                deserves="one per example",
            ),
        ),
    )
)


# --- the authors' form ----------------------------------------------------------------------------


def sigmoid_coupling(x, net):
    half = x.shape[-1] // 2
    x_a, x_b = x[..., :half], x[..., half:]
    out = net(x_b)
    s = 1 / (1 + np.exp(-(out[..., :half] + 2)))
    y_a = s * (x_a + out[..., half:])
    return np.concatenate([y_a, x_b], axis=-1), np.log(s).sum(axis=(1, 2, 3))


def _sigmoid(v):
    return 1 / (1 + np.exp(-v))


def _theirs(s=lambda raw: _sigmoid(raw + 2), y_a=lambda a, s, t: s * (a + t), logdet=None):
    def mutant(x, net):
        x_a, x_b = _two(x)
        raw, t = _two(net(x_b))
        scale = s(raw)
        log_s = np.log(np.abs(scale)) if logdet is None else logdet(raw, scale)
        return _join(y_a(x_a, scale, t), x_b), _each(log_s)

    return mutant


register(
    Exercise(
        id="coupling.sigmoid",
        notebook=NOTEBOOK,
        title="The form the authors ran",
        minutes=6,
        difficulty=2,
        stub='''
def sigmoid_coupling(x, net):
    """net(x_b) returns (raw, t). s = sigmoid(raw + 2), and the shift comes before the scale.

    Return y and logdet.
    """
    ...
''',
        solution=sigmoid_coupling,
        truth=_measured(lambda net: AffineCoupling(net, scale="sigmoid")),
        returns=("y", "logdet"),
        cases=_POINTS,
        judge=judge_layer,
        hints=(
            "sigmoid(v) = 1 / (1 + exp(−v)). The 2 is added to raw, inside.",
            "Shift, then scale: y_a = s ⊙ (x_a + t). The log-det is that of any affine coupling.",
        ),
        explanation="sum(log s) once more: the order of shift and scale does not enter the "
        "determinant, since ∂y_a/∂x_a = s either way.",
        mutants=(
            Mutant(
                "scale before shift",
                _theirs(y_a=lambda a, s, t: s * a + t),
                "It scales before it shifts. The authors' code shifts first: s·(x_a + t).",
            ),
            Mutant(
                "no 2",
                _theirs(s=_sigmoid),
                "The + 2 is missing: sigmoid(raw) starts at ½, so that each layer would begin by "
                "halving its half of the image.",
            ),
            Mutant(
                "2 outside",
                _theirs(s=lambda raw: _sigmoid(raw) + 2),
                "The 2 is added outside the sigmoid; it belongs inside, sigmoid(raw + 2), so that s "
                "stays below 1.",
            ),
            Mutant(
                "minus 2",
                _theirs(s=lambda raw: _sigmoid(raw - 2)),
                "It subtracts 2: that starts at s = 0.12. Add it: s then starts at 0.88.",
            ),
            Mutant(
                "sign in the sigmoid",
                _theirs(s=lambda raw: _sigmoid(-(raw + 2))),
                "A sign is turned over: 1 / (1 + exp(+v)) is sigmoid(−v). It should rise with raw.",
            ),
            Mutant(
                "exp",
                _theirs(s=np.exp),
                "It uses exp(raw), the slide's form. Here s = sigmoid(raw + 2).",
            ),
            Mutant(
                "log-det of exp",
                _theirs(logdet=lambda raw, s: raw),
                "y is right. The log-det adds up raw, which was log s in the slide's form; now "
                "log s = log sigmoid(raw + 2).",
            ),
            Mutant(
                "log-det of exp, + 2",
                _theirs(logdet=lambda raw, s: raw + 2),
                "y is right. The log-det adds up raw + 2: that is the log of exp(raw + 2), not of "
                "sigmoid(raw + 2).",
            ),
            Mutant(
                "sum of s",
                _theirs(logdet=lambda raw, s: s),
                "y is right. The log-det adds up s; add up log s.",
            ),
            Mutant(
                "derivative of the sigmoid",
                _theirs(logdet=lambda raw, s: np.log(s * (1 - s))),
                "y is right. The log-det uses the slope of the sigmoid, s·(1 − s). That would be "
                "∂s/∂raw; the Jacobian's diagonal is ∂y_a/∂x_a = s.",
            ),
            Mutant(
                "mean",
                lambda x, net: (
                    sigmoid_coupling(x, net)[0],
                    sigmoid_coupling(x, net)[1] / (x[0].size // 2),
                ),
                _MEAN,
            ),
            Mutant(
                "y alone",
                lambda x, net: sigmoid_coupling(x, net)[0],
                deserves="a tuple (y, logdet)",
            ),
        ),
    )
)


# --- a broken layer to mend -----------------------------------------------------------------------


def coupling_layer(x, net):
    half = x.shape[-1] // 2
    x_a, x_b = x[..., :half], x[..., half:]
    out = net(x_b)
    log_s, t = out[..., :half], out[..., half:]
    y_a = x_a * np.exp(log_s) + t
    logdet = log_s.sum(axis=(1, 2, 3))
    return np.concatenate([y_a, x_b], axis=-1), logdet


def _in_place(x, net):
    x_a, x_b = _two(x)
    log_s, t = _two(net(x_b))
    x_a *= np.exp(log_s)
    x_a += t
    return _join(x_a, x_b), _each(log_s)


register(
    Exercise(
        id="coupling.broken",
        notebook=NOTEBOOK,
        title="Broken layer: two faults to mend",
        minutes=6,
        difficulty=2,
        stub='''
def coupling_layer(x, net):
    """The affine coupling of the slide; return y and its logdet (N,)."""
    half = x.shape[-1] // 2
    x_a, x_b = x[..., :half], x[..., half:]
    out = net(x_b)
    log_s, t = out[..., :half], out[..., half:]
    x_a *= np.exp(log_s)
    x_a += t
    logdet = log_s.mean(axis=(1, 2, 3))
    return np.concatenate([x_a, x_b], axis=-1), logdet
''',
        solution=coupling_layer,
        truth=_measured(AffineCoupling),
        returns=("y", "logdet"),
        cases=_POINTS,
        judge=judge_layer,
        stub_deserves="changed its argument x in place",
        hints=(
            "x_a is a *view*: it shows the memory of x, and `*=` writes there. Print x before and "
            "after.",
            "Make a new array, y_a = np.exp(log_s) * x_a + t. Then check says what else is wrong.",
            "mean, or sum? What does a determinant do with the factors on the diagonal?",
        ),
        explanation="`*=` on a slice writes into the caller's batch, which is spoilt for whoever uses "
        "it next; in torch it can also break the backward pass. And logs of factors add.",
        mutants=(
            Mutant("in place, sum", _in_place, deserves="changed its argument x in place"),
            Mutant(
                "mean",
                _affine(logdet=lambda ls: ls.mean((1, 2, 3))),
                "x is left in peace now. One fault remains: the log-det is the *mean* of log s. "
                "Determinants multiply, so their logs are summed.",
            ),
            Mutant(
                "axis 3 mean",
                _affine(logdet=lambda ls: ls.mean(3).sum((1, 2))),
                "The log-det is still a mean over one axis. Sum over all of them.",
            ),
            Mutant("axis 3 only", _affine(logdet=lambda ls: ls.sum(3)), deserves="shape"),
            Mutant(
                "whole batch",
                _affine(logdet=lambda ls: np.full(len(ls), ls.sum())),
                "The log-det adds up the whole batch. Each image has its own: leave out axis 0.",
            ),
            Mutant(
                "times half",
                _affine(logdet=lambda ls: ls.mean((1, 2, 3)) * ls[0].size * 2),
                "The mean is multiplied by all h·w·c numbers of x. Only those of x_a are scaled, "
                "h·w·c/2: the other half contributes log 1 = 0.",
            ),
            Mutant(
                "no t",
                _affine(y_a=lambda a, ls, t: np.exp(ls) * a),
                "The log-det is right, but the shift t got lost.",
            ),
            Mutant(
                "zero",
                _affine(logdet=lambda ls: np.zeros(len(ls))),
                "The log-det is 0. That is right at zero initialisation, where s = 1, and nowhere "
                "else.",
            ),
        ),
    )
)


# --- predictions ----------------------------------------------------------------------------------

ask(
    "coupling.same_net",
    "Let x_a rule and x_b change instead, with the same net. What becomes of the log-determinant?",
    ["it stays as it was", "its sign changes", "it is another number"],
    "it is another number",
    "The net is now asked about x_a and says other scales. Its derivatives move to the bottom "
    "left; only the diagonal counts.",
)

ask(
    "coupling.mixing",
    "With the channels reversed in between, how many couplings until no channel is a mere copy "
    "of an input?",
    ["1", "2", "4"],
    "2",
    "What the first left alone, the second changes.",
)

ask(
    "coupling.float32",
    "Which of the three keeps float32's rounding errors smallest on the way back through 32 "
    "layers?",
    ["exp", "sigmoid", "additive"],
    "additive",
    "It never divides. Sigmoid tames the way forward; its inverse still divides by small s.",
)
