"""The fast path computes what the layers compute, and so do its derivatives."""

from __future__ import annotations

import copy
import itertools
import math
import pickle

import pytest
import torch
from torch.func import grad, jacrev, vmap

import glowlite
from glowlite import fused
from glowlite.flow import MEMORY_MODES, Flow
from glowlite.glow import Level, Step
from glowlite.network import CouplingNet, ZeroConv
from glowlite.schedule import make_optimizer
from glowlite.verify import dense_jacobian

KINDS = [
    {"permutation": permutation, "padding": padding, "net_actnorm": net_actnorm, **coupling}
    for permutation, padding, net_actnorm, coupling in itertools.product(
        ["lu", "plain", "shuffle", "reverse"],
        ["edge", "zero"],
        [True, False],
        [{"scale": "sigmoid"}, {"scale": "exp"}, {"coupling": "additive"}],
    )
]


def name(kind) -> str:
    return "-".join(str(value) for value in kind.values())


def make(dtype=torch.float64, **options):
    """A model with every parameter moved, det W of both signs, and images with h ≠ w."""
    options = {"shape": (3, 8, 12), "levels": 2, "depth": 3, "width": 6, **options}
    model = glowlite.Glow(**options).to(dtype)
    g = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for p in model.parameters():
            p += 0.1 * torch.randn(p.shape, dtype=p.dtype, generator=g)
    x = torch.rand(3, *model.shape, dtype=dtype, generator=g) - 0.5
    return model, x.requires_grad_()


def everything(model, x) -> list[torch.Tensor]:
    """Latents, log-dets, and all gradients of a sum in which nothing cancels."""
    z, logdet = model(x)
    weights = torch.linspace(0.5, 1.5, z.numel(), dtype=z.dtype).view_as(z)
    loss = (weights * z.square()).sum() + (torch.arange(1, len(x) + 1) * logdet).sum()
    used = [p for p in model.parameters() if p.requires_grad]
    return [z, logdet, *torch.autograd.grad(loss, [x, *used], materialize_grads=True)]


def largest_gap(a, b) -> float:
    pairs = [(p.detach(), q.detach()) for p, q in zip(a, b, strict=True)]
    return max(float(((p - q).abs() / (1 + q.abs())).max()) for p, q in pairs)


@pytest.mark.parametrize("kind", KINDS, ids=name)
def test_the_same_numbers_and_gradients_as_the_layers(kind):
    model, x = make(**kind)
    model.fast = False
    expected = everything(model, x)
    model.fast = True
    for mode in MEMORY_MODES:
        model.memory = mode
        # the reversible mode carries the rounding of the inverse
        assert largest_gap(everything(model, x), expected) < (
            1e-11 if mode == "reversible" else 1e-12
        )


@pytest.mark.parametrize("together", [1, 2, None])  # None: all, as on a GPU; such steps are small
@pytest.mark.parametrize("kind", KINDS, ids=name)
def test_steps_made_ready_together(kind, together, monkeypatch):
    model, x = make(**kind)
    expected = everything(model, x)
    monkeypatch.setattr(fused, "TOGETHER", together)
    made, ready = [], fused.ready
    monkeypatch.setattr(fused, "ready", lambda p, *args: made.append(len(p.A)) or ready(p, *args))
    first = None
    for mode in ("default", "half", "checkpoint"):
        model.memory = mode
        made.clear()
        found = everything(model, x)
        groups = {1: [1, 1, 1], 2: [2, 1], None: [3]}[together]
        assert made == 2 * groups + 2 * groups[::-1], "the two levels there, and back"
        assert largest_gap(found, expected) < 1e-12
        first = first or found
        assert all(torch.equal(a, b) for a, b in zip(found, first, strict=True))
    with torch.no_grad():
        assert (model.inverse(found[0]) - x).abs().max() < 1e-12


def test_a_cpu_makes_ready_what_its_cache_holds(monkeypatch):
    model, x = make()
    steps = list(next(m for m in model.modules() if isinstance(m, Flow)))
    z = torch.zeros(1, 4, 6, 12, dtype=x.dtype)

    def groups():
        return [len(group) for group in fused.Ready(steps, z).groups]

    assert groups() == [3]
    numbers = sum(v.numel() for v in fused.Ready(steps, z).groups[0][0] if v is not None)
    for cached, expected in ((2 * numbers, [2, 1]), (2 * numbers - 1, [1, 1, 1]), (1, [1, 1, 1])):
        monkeypatch.setattr(fused, "CACHED", cached)
        assert groups() == expected
    monkeypatch.setattr(fused, "TOGETHER", 3)
    assert groups() == [3], "where it is said, it is said"


@pytest.mark.parametrize("kind", KINDS[::7], ids=name)
def test_a_batch_in_pieces_is_the_same_batch(kind, monkeypatch):
    model, x = make(**kind)
    whole = everything(model, x)
    monkeypatch.setattr(fused, "PIECE", 6 * 50)  # pixels of the first level in two pieces
    first = None
    for mode in MEMORY_MODES:
        model.memory = mode
        found = everything(model, x)
        assert largest_gap(found, whole) < (1e-11 if mode == "reversible" else 1e-12)
        first = first or found
        if mode != "reversible":
            assert all(torch.equal(a, b) for a, b in zip(found, first, strict=True))
    with torch.no_grad():
        assert (model.inverse(whole[0]) - x).abs().max() < 1e-12


@pytest.mark.parametrize("kind", KINDS[::5], ids=name)
def test_the_same_inverse_as_the_layers(kind):
    model, x = make(**kind)
    with torch.no_grad():
        z, _ = model(x)
        assert (model.inverse(z) - x).abs().max() < 1e-12
        fast = model.inverse(z)
        model.fast = False
        assert (model.inverse(z) - fast).abs().max() < 1e-12


def test_without_gradients_the_same_numbers():
    model, x = make()
    z, logdet = model(x)
    with torch.no_grad():
        again, logdet_again = model(x)
    assert torch.equal(z, again) and torch.equal(logdet, logdet_again)


def test_an_affine_map_is_not_rounded_before_it_is_applied():
    """Its results are, each its own way; a rounded map would be off the same way at every pixel."""
    model = glowlite.Glow(shape=(3, 64, 64), levels=1, depth=1, width=4, coupling="additive")
    g = torch.Generator().manual_seed(1)
    with torch.no_grad():  # the coupling is the identity
        model.levels[0].steps[0].actnorm.logs += 0.03 * torch.randn(12, generator=g)
        x = torch.rand(4, *model.shape, generator=g) + 0.5
        exact = copy.deepcopy(model).double().levels[0](x.double())[0]
        error = model.levels[0](x)[0] - exact
    assert error.abs().max() > 3e-8
    assert error.mean((0, 2, 3)).abs().max() < 3e-9


# -- the comparison can fail -------------------------------------------------------------------


def shifted(x, beside):
    return fused_columns(x.roll(1, 1), beside)


def of_the_transpose(c, channels):
    return fused_columns(c[..., :channels], c[0, :, :, :0])[..., :channels]


def nowhere(*args):
    return torch.zeros_like(fused_place(*args))


def without_log_s(steps):
    W, a, log_det = fused_affine_maps(steps)
    return W, a, log_det - sum(step.actnorm.log_s.sum() for step in steps)


def transposed(steps):
    W, a, log_det = fused_affine_maps(steps)
    return W.mT, a, log_det


fused_columns, fused_place, fused_affine_maps = fused.columns, fused.place, fused.affine_maps
MUTANTS = {
    "columns": ("columns", shifted),
    "fold": ("fold", of_the_transpose),
    "place": ("place", nowhere),
    "the actnorm left out": ("affine_maps", without_log_s),
    "W transposed": ("affine_maps", transposed),
    "ReLU's gradient": ("_relu_backward", lambda g, h: g),
    "pieces": ("_rows", lambda x, w: x.reshape(-1, x.shape[3]).flip(0).split(30)),
    "a scale's gradient": ("LOG_SCALE_FACTOR", 1.0),
}


@pytest.mark.parametrize("mutant", MUTANTS)
def test_a_mistake_is_seen(mutant, monkeypatch):
    model, x = make()
    model.fast = False
    expected = everything(model, x)
    model.fast = True
    monkeypatch.setattr(fused, *MUTANTS[mutant])
    assert largest_gap(everything(model, x), expected) > 1e-6


# -- the step by itself ------------------------------------------------------------------------


@pytest.mark.parametrize("c", [1, 4])
def test_fold_is_the_transpose_of_columns(c):
    g = torch.Generator().manual_seed(0)
    x = torch.randn(2, 3, 5, c, dtype=torch.float64, generator=g)
    y = torch.randn(2, 3, 5, 9 * c, dtype=torch.float64, generator=g)
    cols = fused.columns(x, beside=y.new_zeros(3, 5, 2))
    y = torch.cat([y, torch.randn(2, 3, 5, 2, dtype=torch.float64, generator=g)], 3)
    torch.testing.assert_close((cols * y).sum(), (x * fused.fold(y, c)).sum())


@pytest.mark.parametrize("keep", fused.KEPT.values(), ids=fused.KEPT)
@pytest.mark.parametrize("scale", ["sigmoid", "exp", None])
def test_a_step_by_finite_differences_first_and_second(scale, keep):
    g = torch.Generator().manual_seed(0)
    kind = fused.Kind(scale, net_dtype=None, keep=keep)
    n, h, w, c, width = 2, 2, 3, 4, 3
    place = fused.place((h, w), c // 2, True, torch.zeros((), dtype=torch.float64))
    c_out = c // 2 if scale is None else c
    shapes = [(n, h, w, c), (c, c), (c,)]
    shapes += [(width, c // 2, 3, 3), (width, 1, 3, 3), (width,), (width,)]
    shapes += [(width, width, 1, 1), (width,), (width,)]
    shapes += [(c_out, width, 3, 3), (c_out, 1, 3, 3), (c_out,), (c_out,)]
    tensors = [
        (0.3 * torch.randn(s, dtype=torch.float64, generator=g)).requires_grad_() for s in shapes
    ]

    def step(*inputs):
        return fused._Steps.apply(kind, place, *inputs)[:2]

    assert torch.autograd.gradcheck(step, tensors, fast_mode=True)
    assert torch.autograd.gradgradcheck(step, tensors, fast_mode=True)


@pytest.mark.parametrize("options", [{}, {"padding": "zero"}, {"net_actnorm": False}], ids=name)
@pytest.mark.parametrize("together", [1, None])
def test_derivatives_by_torch_func(together, options, monkeypatch):
    monkeypatch.setattr(fused, "TOGETHER", together)
    model, x = make(shape=(3, 4, 8), **options)  # of 12 and 24 channels: rows with zeros, and none
    x = x.detach()

    def both():
        def z(v):
            return model(v[None])[0][0]

        def logdet(v):
            return model(v[None])[1][0]

        return [
            jacrev(z)(x[0]),
            dense_jacobian(lambda v: model(v)[0], x[:1]),  # gradients in batches
            vmap(z)(x),
            vmap(grad(logdet))(x),
            grad(lambda v: grad(logdet)(v).square().sum())(x[0]),
        ]

    fast = both()
    model.fast = False
    assert largest_gap(fast, both()) < 1e-12


def test_dense_jacobian_of_the_whole_model_is_its_log_det():
    model, x = make()
    (says,) = model(x[:1])[1]
    J = jacrev(lambda v: model(v[None])[0][0])(x[0].detach()).reshape(-1, model.dims)
    torch.testing.assert_close(says, torch.linalg.slogdet(J).logabsdet, rtol=1e-10, atol=1e-9)


# -- when it is used ---------------------------------------------------------------------------


def calls_of_the_fast_path(monkeypatch) -> list:
    calls = []
    run = fused.run
    monkeypatch.setattr(fused, "run", lambda *args: calls.append(args) or run(*args))
    return calls


def test_it_is_used_by_default(monkeypatch):
    calls = calls_of_the_fast_path(monkeypatch)
    model, x = make()
    model(x)
    assert len(calls) == 2
    model.fast = False
    model(x)
    assert len(calls) == 2


def test_a_watched_layer_is_called(monkeypatch):
    calls = calls_of_the_fast_path(monkeypatch)
    model, x = make()
    seen = []
    hook = (
        model.levels[0].steps[1].coupling.net.norm1.register_forward_hook(lambda *_: seen.append(1))
    )
    model(x)
    assert len(seen) == 1 and len(calls) == 1  # the other level is still fast
    hook.remove()
    model(x)
    assert len(calls) == 3


class OtherNet(glowlite.CouplingNet):
    """A net one writes oneself."""

    def forward(self, x):
        return super().forward(x).tanh()


def test_steps_it_does_not_know_are_run_as_they_are():
    model, x = make()
    before, _ = model(x)
    coupling = model.levels[0].steps[0].coupling
    coupling.net.__class__ = OtherNet
    after, logdet = model(x)
    assert not torch.allclose(before, after)
    assert (model.inverse(after) - x).abs().max() < 1e-12
    model.fast = False
    assert (model(x)[0] - after).abs().max() < 1e-12


def test_steps_of_two_kinds_are_run_as_they_are():
    model, x = make()
    model.levels[0].steps[0].coupling.scale = "exp"
    assert not fused.fits(model.levels[0].steps) and fused.fits(model.levels[1].steps)
    fast = model(x)[0]
    model.fast = False
    assert (model(x)[0] - fast).abs().max() < 1e-12


class Doubling(glowlite.ActNorm):
    def forward(self, x):
        y, logdet = super().forward(x)
        return 2 * y, logdet + math.log(2) * x[0].numel()

    def inverse(self, y):
        return super().inverse(y / 2)


class Negative(Step):
    def forward(self, x):
        y, logdet = super().forward(x)
        return -y, logdet

    def inverse(self, y):
        return super().inverse(-y)


@pytest.mark.parametrize(
    "second",
    [
        {"padding": "zero"},
        {"actnorm": False},
        {"width": 7},
        {"norm": Doubling},
        {"kind": Negative},
        {"last": {"padding": "zero"}},
    ],
    ids=str,
)
@pytest.mark.parametrize("first", [0, 1])
def test_steps_that_differ_in_anything_are_not_stacked(second, first):
    """A parameter that one of them lacks would be left out of all, the inverse being as wrong."""

    def step(width=6, norm=glowlite.ActNorm, kind=Step, last=None, **options):
        net = CouplingNet(2, width, 4, **options)
        if last:
            net.conv3 = ZeroConv(width, 4, **last)
        return kind(norm(4), glowlite.Conv1x1LU(4), glowlite.AffineCoupling(net))

    steps = [step(), step(**second)]
    level = Level(steps[::-1] if first else steps).double()
    g = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for p in level.parameters():
            p += 0.2 * torch.randn(p.shape, dtype=p.dtype, generator=g)
    x = torch.randn(2, 1, 8, 6, dtype=torch.float64, generator=g)
    assert not fused.fits(level.steps)
    fast = level(x)
    level.steps.fast = False
    for a, b in zip(fast, level(x), strict=True):
        assert (a - b).abs().max() < 1e-12


def replaced(**layers):
    """Layers inside the net set anew."""

    def change(step):
        for name, layer in layers.items():
            inside = step.coupling.net
            *path, last = name.split("__")
            for part in path:
                inside = getattr(inside, part)
            setattr(inside, last, copy.deepcopy(layer))

    return change


def own_transform(step):
    transform = step.coupling.transform
    step.coupling.transform = lambda x_a, h: transform(2 * x_a, h)


def own_matrix(step):
    W = torch.diag(torch.tensor([1.0, -2.0, 3.0, 0.5], dtype=torch.float64))
    step.permutation.matrix = lambda: (W, torch.linalg.slogdet(W).logabsdet)


def another_scale(step):
    step.coupling.scale = "sigmoid "  # what is not "exp" is a sigmoid there


def conv(c_in, c_out, kernel=3, bias=False, padding="edge"):
    return glowlite.network.Conv(c_in, c_out, kernel, bias=bias, padding=padding)


def number(*shape):
    return torch.nn.Parameter(torch.full(shape, 0.3))


#: change of a step of 4 channels and width 6, with actnorms in its net, and whether it is fused.
CHANGES = {
    "nothing": (lambda step: None, True),
    "the same again": (replaced(conv1=conv(2, 6), norm1=glowlite.ActNorm(6)), True),
    "all zero-padded": (replaced(conv1__edge=None, conv3__conv__edge=None), True),
    "the last zero-padded": (replaced(conv3__conv__edge=None), True),
    "the first zero-padded": (replaced(conv1__edge=None), False),
    "a bias before norm1": (replaced(conv1=conv(2, 6, bias=True)), False),
    "a bias before norm2": (replaced(conv2=conv(6, 6, 1, bias=True)), False),
    "no bias at last": (replaced(conv3__conv=conv(6, 4)), False),
    "norm1 only": (replaced(norm2=None), False),
    "norm2 only": (replaced(norm1=None), False),
    "no norms, no biases": (replaced(norm1=None, norm2=None), False),
    "5×5 first": (replaced(conv1=conv(2, 6, 5)), False),
    "1×1 first": (replaced(conv1=conv(2, 6, 1)), False),
    "3×3 second": (replaced(conv2=conv(6, 6)), False),
    "1×1 last": (replaced(conv3=ZeroConv(6, 4, 1)), False),
    "one scale for all": (replaced(conv3__logs=number(1)), False),
    "one bias for all": (replaced(norm2__b=number(1)), False),
    "an edge for all": (replaced(conv1__edge=number(6, 1, 1, 1)), False),
    "transform of its own": (own_transform, False),
    "matrix of its own": (own_matrix, False),
    "another scale": (another_scale, False),
}  # fmt: skip


@pytest.mark.parametrize("of", ["first", "all"])
@pytest.mark.parametrize("change", CHANGES)
def test_what_it_does_not_compute_is_not_fused(change, of):
    def outcome(f):
        try:
            return [p.detach() for p in f()]
        except (RuntimeError, ValueError) as error:
            return str(error)

    change, fits = CHANGES[change]
    model, x = make(shape=(1, 8, 12), levels=1, permutation="plain")
    g = torch.Generator().manual_seed(2)
    steps = model.levels[0].steps
    for step in steps[: 1 if of == "first" else 3]:
        change(step)
    model.double()
    with torch.no_grad():
        for p in model.parameters():
            p += 0.1 * torch.randn(p.shape, dtype=p.dtype, generator=g)
    if fits and of == "all":
        assert fused.fits(steps)
    if not fits:
        assert not fused.fits(steps)
    for call in (lambda: everything(model, x), lambda: [model.inverse(x.detach().flatten(1))]):
        model.fast = True
        fast = outcome(call)
        model.fast = False
        slow = outcome(call)
        assert fast == slow if isinstance(slow, str) else largest_gap(fast, slow) < 1e-11


def test_whoever_watches_the_way_back_is_called():
    model, x = make()
    called = []
    coupling = model.levels[0].steps[1].coupling
    coupling.register_full_backward_hook(lambda *_: called.append(1))
    everything(model, x)
    assert called == [1]


def test_bfloat16_nets_stay_inside_the_nets():
    model, x = make(torch.float32, width=32)
    exact = everything(model, x)
    model.set_net_dtype(torch.bfloat16)
    found = everything(model, x)
    assert [p.dtype for p in found] == [p.dtype for p in exact]
    assert 0 < (found[0] - exact[0]).abs().max() < 0.1
    with torch.no_grad():  # the net rounds the same on the way back: it reads the same numbers
        assert (model.inverse(model(x)[0]) - x).abs().max() < 1e-2


def test_channels_last_weights_and_images_change_nothing():
    model, x = make()
    expected = everything(model, x)
    model.to(memory_format=torch.channels_last)
    x = x.detach().contiguous(memory_format=torch.channels_last).requires_grad_()
    assert largest_gap(everything(model, x), expected) < 1e-13


# -- frozen ------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS[::11], ids=name)
def test_frozen_the_same_numbers_and_the_weights_made_ready_once(kind, monkeypatch):
    model, x = make(**kind)
    with torch.no_grad():
        expected = *model(x), model.inverse(model(x)[0])
    made = []
    ready = fused.ready
    monkeypatch.setattr(fused, "ready", lambda p, *args: made.append(len(p.A)) or ready(p, *args))
    with torch.no_grad(), model.frozen(), model.frozen():
        for _ in range(3):
            z, logdet = model(x)
            found = z, logdet, model.inverse(z)
            assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))
    assert made == [3, 3]  # steps of each level


def test_frozen_keeps_as_much_as_its_docstring_says():
    model = glowlite.Glow(shape=(3, 32, 32))  # the paper's
    with torch.no_grad(), model.frozen():
        model.sample(1)
        tensors = []
        for level in model.levels:
            ((_, ready),) = level.steps.kept.values()
            tensors += [ready.A, ready.inverses, *(m for g in ready.weights for w in g for m in w)]
        own = {p.untyped_storage().data_ptr() for p in model.parameters()}
        made = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors}
    megabytes = sum(n for pointer, n in made.items() if pointer not in own) / 1e6
    assert f"({megabytes:.0f} MB\n" in model.frozen.__doc__


def test_frozen_ends_with_its_block_and_leaves_gradients_alone():
    model, x = make()
    with model.frozen():
        with torch.no_grad():
            before = model.log_prob(x)
        expected = everything(model, x)
    assert largest_gap(everything(model, x), expected) == 0
    with torch.no_grad():
        for p in model.parameters():
            p += 0.01
        assert not torch.isclose(model.log_prob(x), before).any()


def test_frozen_reads_each_dtype_anew():
    model, x = make(dtype=torch.float32)
    with torch.no_grad(), model.frozen():
        narrow = model.log_prob(x)
        model.set_net_dtype(torch.bfloat16)
        assert not torch.equal(model.log_prob(x), narrow)
        model.set_net_dtype(None)
        assert torch.equal(model.log_prob(x), narrow)


def test_frozen_bears_a_weight_that_is_not_a_number():
    model, x = make()
    with torch.no_grad(), model.frozen():
        model.log_prob(x)
    with torch.no_grad():
        next(model.parameters())[0] = torch.nan
        with model.frozen():
            assert model.log_prob(x).isnan().all()


def test_frozen_says_when_a_weight_was_changed():
    model, x = make()
    with pytest.raises(RuntimeError, match="changed inside `frozen`"), torch.no_grad():
        with model.frozen():
            model.log_prob(x)
            next(model.parameters()).mul_(2)
    optimizer = make_optimizer("adam", model.parameters(), lr=1e-3)  # fused: nothing counts it
    with pytest.raises(RuntimeError, match="changed inside `frozen`"), model.frozen():
        model.log_prob(x).sum().backward()
        optimizer.step()
    with pytest.raises(ValueError, match="images|shape"), model.frozen():  # the first error stays
        with torch.no_grad():
            next(model.parameters()).mul_(2)
        model.log_prob(x[:, :, 1:])
    assert all(m.kept is None for m in model.modules() if isinstance(m, glowlite.flow.Flow))


@pytest.mark.parametrize("change", ["assign", "sign", "order"])
def test_frozen_says_when_a_weight_was_changed_behind_its_back(change):
    """Nothing counts these, and the last two keep every norm."""
    model, x = make()
    other = {name: p + 0.1 for name, p in model.state_dict().items()}
    b = model.levels[0].steps[0].actnorm.b
    with pytest.raises(RuntimeError, match="changed inside `frozen`"), model.frozen():
        if change == "assign":
            model.load_state_dict(other, assign=True)
        elif change == "sign":
            b.data.neg_()
        else:
            b.data.copy_(b.data.flip(0))


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
def test_a_copy_of_a_frozen_model_is_not_frozen(copied):
    model, x = make()
    with torch.no_grad(), model.frozen():
        before = model.log_prob(x)
        twin = copied(model)
        assert torch.equal(twin.log_prob(x), before)
        for p in twin.levels.parameters():
            p += 0.01
        assert not torch.isclose(twin.log_prob(x), before).any()
        assert torch.equal(model.log_prob(x), before)


def test_frozen_reads_weights_of_a_functional_call():
    model, x = make()
    other = {name: p.detach() + 0.01 for name, p in model.named_parameters()}
    with torch.no_grad():
        expected = torch.func.functional_call(model, other, (x,))
        own = model(x)
        with model.frozen():
            for weights, values in ((other, expected), ({}, own), (other, expected)):
                found = torch.func.functional_call(model, weights, (x,))
                assert all(torch.equal(a, b) for a, b in zip(found, values, strict=True))


def test_frozen_keeps_nothing_of_a_transform():
    model, x = make()
    x = x.detach()
    with torch.no_grad():
        own = model.log_prob(x)
        with model.frozen():
            each = vmap(lambda v: model.log_prob(v[None])[0])
            for _ in range(2):
                torch.testing.assert_close(each(x), own)
                torch.testing.assert_close(model.log_prob(x), own)
