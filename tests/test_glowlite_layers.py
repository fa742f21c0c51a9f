"""Every layer of glowlite: exact Jacobian, inverse, log-det, and the same numbers as reference."""

from __future__ import annotations

import copy
import math

import numpy as np
import pytest
import torch
from torch import nn

import glowlite
import reference
from glowlite import conv1x1, coupling, flow, glow, network, nice, realnvp, split
from glowlite._tensors import per_example
from glowlite.likelihood import gaussian_log_prob


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def randomise(module: nn.Module, std: float = 0.1, seed: int = 1) -> nn.Module:
    """Float64, and every parameter moved away from its initial value, which hides mistakes."""
    module = module.double()
    g = generator(seed)
    with torch.no_grad():
        for p in module.parameters():
            p += std * torch.randn(p.shape, dtype=p.dtype, generator=g)
    return module


def net(c_in: int, c_out: int, padding: str = "edge", actnorm: bool = True) -> nn.Module:
    return network.CouplingNet(
        c_in, 5, c_out, padding=padding, actnorm=actnorm, generator=generator(3)
    )


H, W = 2, 6  # not square, both even so that a squeeze fits


def flow_of_all() -> nn.Module:
    g = generator(4)
    step = glow.Step(
        glowlite.ActNorm(8),
        glowlite.Conv1x1LU(8, g),
        glowlite.AffineCoupling(net(4, 8)),
    )
    return flow.Flow([glowlite.Squeeze(), step, glowlite.Split(8)])


# name -> (channels, layer); odd channel counts wherever they are allowed.
LAYERS = {
    "squeeze": (3, glowlite.Squeeze),
    "squeeze-realnvp": (3, lambda: glowlite.Squeeze("realnvp")),
    "actnorm": (5, lambda: glowlite.ActNorm(5)),
    "conv1x1-det-0": (3, lambda: glowlite.Conv1x1(3, generator(0))),
    "conv1x1-det-1": (3, lambda: glowlite.Conv1x1(3, generator(7))),
    "conv1x1-even": (4, lambda: glowlite.Conv1x1(4, generator(2))),
    "lu-0": (5, lambda: glowlite.Conv1x1LU(5, generator(0))),
    "lu-1": (5, lambda: glowlite.Conv1x1LU(5, generator(1))),
    "lu-even": (6, lambda: glowlite.Conv1x1LU(6, generator(2))),
    "shuffle": (5, lambda: glowlite.Permutation.shuffle(5, generator(0))),
    "reverse": (4, lambda: glowlite.Permutation.reverse(4)),
    "affine-sigmoid": (4, lambda: glowlite.AffineCoupling(net(2, 4))),
    "affine-exp": (6, lambda: glowlite.AffineCoupling(net(3, 6, "zero"), "exp")),
    "affine-biases": (2, lambda: glowlite.AffineCoupling(net(1, 2, actnorm=False))),
    "additive": (4, lambda: glowlite.AdditiveCoupling(net(2, 2))),
    "split": (4, lambda: glowlite.Split(4)),
    "split-zero": (6, lambda: glowlite.Split(6, padding="zero")),
    "split-fixed": (4, lambda: glowlite.Split(4, learned=False)),
    "top": (3, lambda: glowlite.TopPrior(3)),
    "step": (
        4,
        lambda: glow.Step(
            glowlite.ActNorm(4),
            glowlite.Conv1x1(4, generator(5)),
            glowlite.AffineCoupling(net(2, 4)),
        ),
    ),
    "flow": (2, flow_of_all),
    "logit": (3, realnvp.Logit),
    "masked-board": (
        3,
        lambda: realnvp.MaskedCoupling(
            realnvp.checkerboard_mask(H, W, 1),
            realnvp.ResidualNet(3, 4, 1, generator=generator(6)),
        ),
    ),
    "masked-channel": (
        4,
        lambda: realnvp.MaskedCoupling(
            realnvp.channel_mask(4), realnvp.ResidualNet(4, 4, 1, generator=generator(7))
        ),
    ),
    "flatten": (3, lambda: nice.Flatten((3, H, W))),
}  # fmt: skip

layers = pytest.mark.parametrize("name", LAYERS)


def make(name: str) -> tuple[nn.Module, torch.Tensor]:
    channels, build = LAYERS[name]
    layer = randomise(build())
    # away from the middle of 0 by design; inside the range that the logit accepts
    x = torch.rand(3, channels, H, W, dtype=torch.float64, generator=generator(8)) * 0.9 - 0.45
    return layer, x


def exact_jacobian(f, x: torch.Tensor) -> torch.Tensor:
    """∂f/∂x at one example, (D, D), by torch.func."""
    J = torch.func.jacrev(lambda v: f(v[None])[0].reshape(-1))(x)
    return J.reshape(x.numel(), x.numel())


def numeric_jacobian(f, x: torch.Tensor, step: float = 1e-5) -> torch.Tensor:
    """The same by central differences: no derivative of ours or of torch's is involved."""
    columns = []
    with torch.no_grad():
        for i in range(x.numel()):
            e = torch.zeros(x.numel(), dtype=x.dtype)
            e[i] = step
            e = e.reshape(x.shape)
            columns.append((f((x + e)[None])[0] - f((x - e)[None])[0]).reshape(-1) / (2 * step))
    return torch.stack(columns, 1)


def disagreement(layer, x: torch.Tensor) -> float:
    """The largest |log-det − log|det J|| over the batch."""
    with torch.no_grad():
        _, logdet = layer(x)
    numeric = [torch.linalg.slogdet(numeric_jacobian(layer, v)).logabsdet for v in x]
    return float((logdet - torch.stack(numeric)).abs().max())


@layers
def test_logdet_is_that_of_the_jacobian(name):
    layer, x = make(name)
    _, logdet = layer(x)
    assert logdet.shape == (3,) and logdet.dtype == torch.float64
    exact = [exact_jacobian(layer, v) for v in x]
    log_dets = torch.stack([torch.linalg.slogdet(J).logabsdet for J in exact])
    torch.testing.assert_close(logdet, log_dets, rtol=1e-11, atol=1e-11)
    torch.testing.assert_close(exact[0], numeric_jacobian(layer, x[0]), rtol=1e-7, atol=1e-7)
    assert disagreement(layer, x) < 1e-7


@layers
def test_inverse_undoes_forward_both_ways(name):
    layer, x = make(name)
    with torch.no_grad():
        y, _ = layer(x)
        torch.testing.assert_close(layer.inverse(y), x, rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(layer(layer.inverse(y))[0], y, rtol=1e-12, atol=1e-12)


@layers
def test_nobody_changes_the_callers_tensor(name):
    layer, x = make(name)
    before = x.clone()
    with torch.no_grad():
        y, _ = layer(x)
        kept = y.clone()
        layer.inverse(y)
    assert torch.equal(x, before) and torch.equal(y, kept)


@layers
def test_reference_computes_the_same(name):
    layer, x = make(name)
    theirs = glowlite.to_reference(layer)
    with torch.no_grad():
        y, logdet = layer(x)
        back = layer.inverse(y)
    nhwc = x.permute(0, 2, 3, 1).numpy()
    y_ref, logdet_ref = theirs.forward(nhwc)
    np.testing.assert_allclose(y.permute(0, 2, 3, 1), y_ref, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(logdet, logdet_ref, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(
        back.permute(0, 2, 3, 1), theirs.inverse(y_ref), rtol=1e-12, atol=1e-12
    )


@layers
def test_everything_that_matters_is_saved(name):
    """The weights of one layer make another, built from another seed, compute the same."""
    layer, x = make(name)
    channels, build = LAYERS[name]
    torch.manual_seed(123)
    other = build().double()
    # Random buffers of the other layer must not survive: P, the signs of s, the shuffle.
    for buffer in other.buffers():
        if buffer.dtype == torch.long:
            buffer.copy_(buffer.flip(0))
        elif buffer.ndim == 1:
            buffer.neg_()
    other.load_state_dict(layer.state_dict())
    with torch.no_grad():
        assert torch.equal(other(x)[0], layer(x)[0])


@layers
def test_vmap_and_batch_agree(name):
    layer, x = make(name)
    with torch.no_grad():
        y, logdet = layer(x)
        y_each, logdet_each = torch.vmap(lambda v: layer(v[None]))(x)
    torch.testing.assert_close(y_each[:, 0], y, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(logdet_each[:, 0], logdet, rtol=1e-12, atol=1e-12)


# -- the checks above can fail ----------------------------------------------------------------

MISTAKES = {
    "h·w forgotten": lambda d: d / (H * W),
    "sign flipped": lambda d: -d,
    "log of base 2": lambda d: d / math.log(2),
    "left out": lambda d: 0 * d,
    "mean for sum": lambda d: d / (4 * H * W),
    "batch summed": lambda d: d.sum().expand(len(d)),
}


@pytest.mark.parametrize("mistake", MISTAKES)
@pytest.mark.parametrize("name", ["actnorm", "conv1x1-even", "lu-0", "affine-sigmoid", "split"])
def test_a_wrong_logdet_is_seen(name, mistake):
    layer, x = make(name)

    def wrong(v):
        y, logdet = layer(v)
        return y, MISTAKES[mistake](logdet)

    assert disagreement(layer, x) < 1e-7 < 1e-3 < disagreement(wrong, x)


# -- what single layers promise ---------------------------------------------------------------


def test_both_signs_of_the_determinant_occur():
    signs = {
        torch.linalg.slogdet(glowlite.Conv1x1(3, generator(seed)).W.double()).sign.item()
        for seed in (0, 7)
    }
    drawn = {  # raw QR has one sign for each c: + for odd, − for even
        c: {torch.linalg.slogdet(conv1x1.random_rotation(c, generator(seed))).sign.item()
            for seed in range(12)}
        for c in (3, 4)
    }  # fmt: skip
    lu_signs = {
        torch.linalg.slogdet(glowlite.Conv1x1LU(5, generator(seed)).matrix()[0]).sign.item()
        for seed in range(4)
    }
    assert signs == drawn[3] == drawn[4] == lu_signs == {-1.0, 1.0}


def test_a_rotation_is_one_to_float64():
    W = conv1x1.random_rotation(7, generator())
    torch.testing.assert_close(W @ W.T, torch.eye(7, dtype=torch.float64), atol=1e-14, rtol=0)


def test_a_prior_that_is_not_learned_has_nothing_to_learn():
    for fixed in (glowlite.Split(4, learned=False), split.TopPrior(4, learned=False)):
        assert not list(fixed.parameters())


@pytest.mark.parametrize("kind", [glowlite.Conv1x1, glowlite.Conv1x1LU])
def test_1x1_starts_as_a_rotation_or_reflection(kind):
    W, log_det = kind(7, generator()).matrix()
    torch.testing.assert_close(W @ W.T, torch.eye(7), atol=1e-6, rtol=0)
    assert abs(log_det) < 1e-6


def test_lu_has_as_many_parameters_as_its_matrix():
    layer = glowlite.Conv1x1LU(6, generator())
    assert sum(p.numel() for p in layer.parameters()) == 36
    assert set(dict(layer.named_buffers())) == {"p", "sign_s"}


def test_squeeze_order_is_the_authors():
    x = torch.arange(2 * 4 * 6.0).reshape(1, 2, 4, 6)
    y, _ = glowlite.Squeeze()(x)
    for c in range(2):
        for dy in range(2):
            for dx in range(2):
                assert torch.equal(y[0, c * 4 + dy * 2 + dx], x[0, c, dy::2, dx::2])


def test_edge_padding_is_one_more_input_channel():
    conv = randomise(network.Conv(3, 4, generator=generator()))
    x = torch.randn(2, 3, 5, 4, dtype=torch.float64, generator=generator(1))
    outside = nn.functional.pad(torch.zeros(2, 1, 5, 4).double(), (1, 1, 1, 1), value=1.0)
    padded = torch.cat([nn.functional.pad(x, (1, 1, 1, 1)), outside], 1)
    literal = nn.functional.conv2d(padded, torch.cat([conv.weight, conv.edge], 1))
    torch.testing.assert_close(conv(x), literal, rtol=1e-13, atol=1e-13)


def test_actnorm_initialises_to_mean_0_and_variance_1():
    x = torch.randn(6, 3, 4, 5, generator=generator()) * torch.tensor([3.0, 0.1, 40]).view(3, 1, 1)
    layer = glowlite.ActNorm(3)
    layer.initialize(x + 2)
    y, _ = layer(x + 2)
    torch.testing.assert_close(y.mean((0, 2, 3)), torch.zeros(3), atol=1e-5, rtol=0)
    torch.testing.assert_close(y.var((0, 2, 3), correction=0), torch.ones(3), atol=1e-5, rtol=0)


def test_a_constant_channel_gives_no_infinity():
    layer = glowlite.ActNorm(2)
    x = torch.full((4, 2, 3, 3), 0.25)
    x[:, 1] = torch.randn(4, 3, 3, generator=generator())
    layer.initialize(x)
    y, logdet = layer(x)
    assert torch.isfinite(y).all() and torch.isfinite(logdet).all()
    assert layer.log_s.exp()[0].item() == pytest.approx(1e4, rel=1e-5)
    torch.testing.assert_close(layer.inverse(y), x, atol=1e-6, rtol=0)


def test_hidden_weights_start_as_the_authors():
    made = network.CouplingNet(16, 64, 8, generator=generator())
    for weights in (made.conv1.weight, made.conv1.edge, made.conv2.weight):
        assert weights.std().item() == pytest.approx(0.05, rel=0.1)


@pytest.mark.parametrize("scale", coupling.SCALES)
def test_a_new_coupling_hardly_moves_anything(scale):
    layer = glowlite.AffineCoupling(net(2, 4), scale)
    x = torch.randn(2, 4, 3, 5, generator=generator())
    y, logdet = layer(x)
    s = 1.0 if scale == "exp" else 1 / (1 + math.exp(-2))
    torch.testing.assert_close(y[:, :2], s * x[:, :2])
    assert torch.equal(y[:, 2:], x[:, 2:])
    torch.testing.assert_close(logdet, torch.full((2,), 30 * math.log(s), dtype=torch.float64))


def test_a_split_with_its_prior_is_the_conditional_density():
    """log N(x₂; mean, sd²) = log N(ε; 0, I) + log-det: whitening loses nothing."""
    layer = randomise(glowlite.Split(4))
    x = torch.randn(3, 4, 2, 3, dtype=torch.float64, generator=generator())
    y, logdet = layer(x)
    mean, log_sd = layer.prior(x[:, :2]).chunk(2, 1)
    direct = torch.distributions.Normal(mean, log_sd.exp()).log_prob(x[:, 2:]).sum((1, 2, 3))
    torch.testing.assert_close(gaussian_log_prob(y[:, 2:]) + logdet, direct)


def test_class_offsets_move_the_top_prior():
    prior = randomise(split.TopPrior(2, n_classes=3), std=0.5)
    z = torch.randn(2, 2, 3, 5, dtype=torch.float64, generator=generator())
    classes = torch.tensor([0, 2])
    eps, logdet = prior(z, classes)
    torch.testing.assert_close(prior.inverse(eps, classes), z)
    for i, label in enumerate(classes.tolist()):
        theirs = glowlite.to_reference(prior, label=label)
        eps_ref, logdet_ref = theirs.forward(z[i : i + 1].permute(0, 2, 3, 1).numpy())
        np.testing.assert_allclose(eps[i].permute(1, 2, 0).detach(), eps_ref[0], rtol=1e-12)
        np.testing.assert_allclose(logdet[i].detach(), logdet_ref[0], rtol=1e-12)
    for label in (None, 3, -1):
        with pytest.raises(ValueError, match=f"label is {label}; accepted: 0 … 2"):
            glowlite.to_reference(prior, label=label)


def test_a_net_in_bfloat16_leaves_the_flow_in_float32():
    layer = glowlite.AffineCoupling(net(2, 4))
    with torch.no_grad():
        for p in layer.parameters():
            p += 0.1 * torch.randn(p.shape, generator=generator())
    x = torch.randn(2, 4, 4, 6, generator=generator(1))
    y32, _ = layer(x)
    layer.net_dtype = torch.bfloat16
    y16, logdet = layer(x)
    assert y16.dtype == torch.float32 and logdet.dtype == torch.float64
    assert torch.equal(y16[:, 2:], x[:, 2:])
    assert 0 < (y16 - y32).abs().max() < 0.1  # another net, slightly, and nothing else
    torch.testing.assert_close(layer.inverse(y16), x, atol=1e-5, rtol=0)


@pytest.mark.parametrize("kind", [glowlite.ActNorm, glowlite.Conv1x1, glowlite.Conv1x1LU])
def test_float32_layers_account_and_solve_in_float64(kind):
    """det W = 10⁻⁶², which float32 cannot hold; its logarithm and the inverse lose nothing."""
    torch.manual_seed(0)
    layer = kind(48)
    with torch.no_grad():
        for p in layer.parameters():
            p += 0.01 * torch.randn(p.shape, generator=generator())
        if kind is glowlite.Conv1x1:
            layer.W *= 0.05
    exact = copy.deepcopy(layer).double()
    x = torch.randn(2, 48, 3, 5, generator=generator(1))
    y, logdet = layer(x)
    assert logdet.isfinite().all() and torch.equal(logdet, exact(x.double())[1])
    if kind is not glowlite.ActNorm:
        assert torch.equal(layer.inverse(y), exact.inverse(y.double()).float())


NOTHING = torch.zeros(1, 3, 2, 2)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: glowlite.Squeeze("rows"), "order is 'rows'; accepted: glow, realnvp"),
        (lambda: glowlite.Squeeze()(torch.zeros(1, 1, 3, 4)), "3×4 pixels"),
        (lambda: glowlite.Squeeze().inverse(torch.zeros(1, 6, 2, 2)), "multiple of 4"),
        (lambda: glowlite.AffineCoupling(net(1, 2), "tanh"), "scale is 'tanh'"),
        (lambda: glowlite.AffineCoupling(net(1, 2))(torch.zeros(1, 3, 2, 2)), "3 channels"),
        (lambda: glowlite.Split(5), "channels is 5"),
        (lambda: network.Conv(1, 1, padding="mirror"), "padding is 'mirror'"),
        (lambda: network.Conv(1, 1, kernel=2), "kernel is 2; accepted: odd"),
        (lambda: realnvp.channel_mask(3), "c is 3"),
        (lambda: realnvp.Logit(0.7), "alpha is 0.7"),
        (lambda: realnvp.MaskedCoupling(torch.tensor([[0, 0.5]]), net(3, 6)), "other than 0 and 1"),
        (lambda: realnvp.MaskedCoupling(torch.tensor([[0, 2]]), net(3, 6)), "other than 0 and 1"),
        (lambda: split.TopPrior(2)(torch.zeros(1, 2, 1, 1), torch.tensor([1])), "classes is"),
        # One number for many channels would be taken, by broadcasting, and counted once.
        (lambda: glowlite.AffineCoupling(net(2, 2))(torch.zeros(1, 4, 2, 2)), r"\(1, 2, 2, 2\)"),
        (
            lambda: glowlite.AdditiveCoupling(net(2, 1)).inverse(torch.zeros(1, 4, 2, 2)),
            r"\(1, 1, 2",
        ),
        (
            lambda: realnvp.MaskedCoupling(torch.ones(3, 1, 1), net(3, 2))(NOTHING),
            r"output has shape \(1, 2",
        ),
        (lambda: glowlite.ActNorm(1)(NOTHING), "x has 3 channels; this layer is for 1"),
        (lambda: glowlite.ActNorm(1).inverse(NOTHING), "y has 3 channels; this layer is for 1"),
        (lambda: glowlite.ActNorm(1).initialize(NOTHING), "x has 3 channels; this layer is for 1"),
        (lambda: split.TopPrior(1)(NOTHING), "z has 3 channels; this layer is for 1"),
        (lambda: glowlite.Conv1x1(1)(NOTHING), "x has 3 channels; this layer is for 1"),
        (lambda: glowlite.Conv1x1(1).inverse(NOTHING), "y has 3 channels; this layer is for 1"),
        (lambda: glowlite.Conv1x1LU(6)(NOTHING), "x has 3 channels; this layer is for 6"),
        (lambda: glowlite.Conv1x1LU(6).inverse(NOTHING), "y has 3 channels; this layer is for 6"),
        (lambda: glowlite.Conv1x1LU(1).inverse(NOTHING), "y has 3 channels; this layer is for 1"),
        # conv2d takes one image too, and the log-det would count its rows for its pixels.
        (lambda: glowlite.Conv1x1(3)(torch.zeros(3, 3, 5)), r"\(3, 3, 5\); accepted: \(N, 3, H, W"),
        (lambda: glowlite.Conv1x1LU(3)(torch.zeros(3, 3, 5)), r"x has shape \(3, 3, 5\); accepted"),
        (lambda: glowlite.Permutation.reverse(2)(NOTHING), "x has 3 channels; this layer is for 2"),
        (lambda: glowlite.Permutation.reverse(2).inverse(NOTHING), "y has 3 channels"),
        (lambda: glowlite.Permutation(torch.tensor([0, 0, 1])), r"indices is \[0, 0, 1\]; each of"),
    ],
)
def test_errors_name_the_argument(call, message):
    with pytest.raises(ValueError, match=message):
        call()


class Pooled(nn.Module):
    """One pixel for the whole picture, or one image for all."""

    def __init__(self, net: nn.Module, dims: tuple[int, ...]) -> None:
        super().__init__()
        self.net, self.dims = net, dims

    def forward(self, x):
        return self.net(x).mean(self.dims, keepdim=True)


@pytest.mark.parametrize("dims", [(2, 3), (2,), (3,), (0,)])
@pytest.mark.parametrize(
    "name", ["affine-exp", "affine-sigmoid", "additive", "masked-board", "masked-channel", "split"]
)
def test_a_net_that_does_not_keep_the_size_is_refused(name, dims):
    """Its numbers would meet all pixels by broadcasting, each counted once in the log-det."""
    layer, x = make(name)
    inner = "prior" if name == "split" else "net"
    setattr(layer, inner, Pooled(getattr(layer, inner), dims))
    shape = list(x.shape)
    for d in dims:
        shape[d] = 1
    got, size = rf"\({shape[0]}, \d+, {shape[2]}, {shape[3]}\)", rf"{x.shape[2]}, {x.shape[3]}"
    for call in (layer.forward, layer.inverse):
        with pytest.raises(ValueError, match=rf"has shape {got}; accepted: \(\d+, \d+, {size}\)"):
            call(x)


def test_a_mask_of_truth_values_is_one_of_zeros_and_ones():
    layer, x = make("masked-board")
    bools = realnvp.MaskedCoupling(layer.mask.bool(), layer.net).double()
    assert torch.equal(bools(x)[0], layer(x)[0]) and torch.equal(bools.inverse(x), layer.inverse(x))


def test_every_layer_states_its_four_formulas():
    for package in (glowlite, reference):
        for name in set(dir(package)) - {"Layer", "FlowModel", "from_torch"}:
            layer = getattr(package, name)
            if isinstance(layer, type) and hasattr(layer, "forward") and hasattr(layer, "inverse"):
                for word in ("forward", "inverse", "log-det", "initial"):
                    assert word in layer.__doc__, f"{package.__name__}.{name}: {word}?"


def test_reference_says_what_it_lacks():
    with pytest.raises(TypeError, match="layer is a ReLU"):
        glowlite.to_reference(nn.ReLU())


def test_terms_are_added_up_in_float64():
    """A million float32 terms: a float32 sum is off by some 1e-8 of its value."""
    terms = torch.rand(2, 3, 700, 500, generator=generator())
    exact = terms.double().sum((1, 2, 3))
    assert per_example(terms).dtype == torch.float64
    torch.testing.assert_close(per_example(terms), exact, rtol=1e-13, atol=0)
