"""Whole models: bijections, likelihoods, the same numbers as reference, parameter counts."""

from __future__ import annotations

import copy
import json
import math

import numpy as np
import pytest
import torch
from torch import nn

import glowlite
from glowlite import glow, likelihood
from glowlite.realnvp import RealNVPConfig
from glowlite.registry import build, configure, describe

GLOW = {"model": "glow", "shape": (3, 4, 8), "levels": 2, "depth": 2, "width": 6}
# name -> description; together they use every value of every option.
MODELS = {
    "glow": GLOW,
    "additive-plain": {**GLOW, "coupling": "additive", "permutation": "plain", "n_bits": 5},
    "exp-shuffle-zero": {
        **GLOW, "scale": "exp", "permutation": "shuffle", "padding": "zero", "n_bits": 1,
    },
    "reverse-biases": {**GLOW, "permutation": "reverse", "net_actnorm": False, "n_bits": 3},
    "fixed-priors": {**GLOW, "learn_split_prior": False, "learn_top": False},
    "one-level-grey": {**GLOW, "shape": (1, 6, 2), "levels": 1},
    "two-channels": {**GLOW, "shape": (2, 8, 4), "levels": 2, "depth": 1},
    "realnvp": {"model": "realnvp", "shape": (3, 4, 6), "levels": 2, "width": 4, "blocks": 1},
    "realnvp-edge": {
        "model": "realnvp", "shape": (1, 8, 4), "levels": 3, "width": 3, "blocks": 0,
        "padding": "edge", "logit": False,
    },
    "nice": {"model": "nice", "shape": (3, 3, 4), "width": 7, "hidden": 2, "couplings": 3},
}  # fmt: skip
CONDITIONAL = {**GLOW, "n_classes": 3, "weight_y": 0.5}

models = pytest.mark.parametrize("name", MODELS)


def some_images(model, n: int = 4, seed: int = 0) -> torch.Tensor:
    g = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (n, *model.shape), dtype=torch.uint8, generator=g)


def make(description) -> glowlite.FlowModel:
    """In float64, with every parameter away from its initial value."""
    model = build(description).double()
    g = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for p in model.parameters():
            p += 0.04 * torch.randn(p.shape, dtype=p.dtype, generator=g)
    return model


def nhwc(tensor: torch.Tensor) -> np.ndarray:
    return tensor.detach().permute(0, 2, 3, 1).numpy()


class Noise:
    """Stands in for a NumPy generator and hands out given noise."""

    def __init__(self, values: np.ndarray) -> None:
        self.values = values

    def random(self, shape):
        assert shape == self.values.shape
        return self.values


@models
def test_logdet_is_that_of_the_whole_jacobian(name):
    model = make(MODELS[name])
    x = model.dequantize(some_images(model, 2))

    def flat(v):
        return model(v.reshape(1, *model.shape))[0][0]

    z, logdet = model(x)
    v = x[0].reshape(-1)
    exact = torch.func.jacrev(flat)(v)
    torch.testing.assert_close(
        torch.linalg.slogdet(exact).logabsdet, logdet[0], rtol=1e-11, atol=1e-11
    )
    step, eye = 1e-6, torch.eye(model.dims, dtype=torch.float64)
    with torch.no_grad():
        numeric = torch.stack(
            [(flat(v + step * e) - flat(v - step * e)) / (2 * step) for e in eye], 1
        )
    scale = exact.abs().max().item()
    torch.testing.assert_close(exact, numeric, rtol=0, atol=1e-7 * scale)
    assert z.shape == (2, model.dims) and logdet.dtype == torch.float64


@models
def test_reference_computes_the_same(name):
    model = make(MODELS[name])
    theirs = glowlite.to_reference(model)
    images = some_images(model)
    noise = torch.rand(
        images.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(3)
    )
    x = model.dequantize(images, noise=noise)
    latents, logdet = model.encode(x)
    if name == "nice":
        z, logdet_ref = theirs.forward(nhwc(x))
        latents_ref, decoded = [z], theirs.inverse(z)
        bits_ref = glowlite.likelihood.bits_per_dim(
            torch.tensor(theirs.log_prob(nhwc(x))), model.dims, model.config.n_bits
        )
    else:
        latents_ref, logdet_ref = theirs.encode(nhwc(x))
        decoded = theirs.decode(latents_ref)
        bits_ref = theirs.bits_per_dim(nhwc(images), model.config.n_bits, Noise(nhwc(noise)))
    for ours, ref in zip(latents, latents_ref, strict=True):
        np.testing.assert_allclose(nhwc(ours), ref, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(logdet.detach(), logdet_ref, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(nhwc(model.decode(latents)), decoded, rtol=1e-12, atol=1e-12)
    ours = model.bits_per_dim(images, noise=noise).detach()
    np.testing.assert_allclose(ours, bits_ref, rtol=1e-12, atol=1e-12)


@models
def test_encode_and_decode_are_exact_inverses(name):
    model = make(MODELS[name])
    x = model.dequantize(some_images(model))
    latents, _ = model.encode(x)
    assert [tuple(z.shape[1:]) for z in latents] == model.latent_shapes
    torch.testing.assert_close(model.decode(latents), x, rtol=0, atol=1e-11)
    z, _ = model(x)
    torch.testing.assert_close(model.inverse(z), x, rtol=0, atol=1e-11)
    for part, again in zip(model.unflatten(z), latents, strict=True):
        assert torch.equal(part, again)


@models
def test_log_prob_is_gaussian_plus_logdet(name):
    model = make(MODELS[name])
    x = model.dequantize(some_images(model))
    z, logdet = model(x)
    normal = torch.distributions.Normal(0.0, 1.0).log_prob(z).sum(1)
    torch.testing.assert_close(model.log_prob(x), normal + logdet, rtol=1e-12, atol=1e-12)


@models
def test_images_survive_the_whole_way(name):
    """uint8 -> x -> latents -> x -> uint8, in float32, up to the bits that n_bits drops."""
    model = make(MODELS[name]).float()
    images = some_images(model)
    noise = torch.full(images.shape, 0.5)
    back = model.to_images(model.decode(model.encode(model.dequantize(images, noise=noise))[0]))
    shift = 8 - model.config.n_bits
    assert torch.equal(back, images >> shift << shift)


@models
def test_initialize_is_explicit_once_and_saved(name):
    model = build(MODELS[name])
    images = some_images(model, 32)
    before = copy.deepcopy(model.state_dict())
    model.bits_per_dim(images)
    model.sample(2)
    for key, value in model.state_dict().items():
        assert torch.equal(value, before[key]), f"{key} changed without being asked"
    assert not model.initialized
    with pytest.raises(RuntimeError, match="call model.initialize"):
        model.loss(images)

    generator = torch.Generator().manual_seed(5)
    model.initialize(images, generator=generator)
    twin = build(MODELS[name])  # another rank, with the same images and noise
    twin.initialize(images, generator=generator.manual_seed(5))
    for a, b in zip(model.state_dict().values(), twin.state_dict().values(), strict=True):
        assert torch.equal(a, b) and torch.isfinite(a).all()
    for options in ({"noise": torch.zeros(images.shape)}, {"generator": generator}):
        generator.manual_seed(6)
        bits = model.bits_per_dim(images, **options)
        generator.manual_seed(6)
        loss, parts = model.loss(images, **options)
        assert torch.equal(parts["bits_per_dim"], bits) and torch.equal(loss, bits.mean())
    loss.backward()

    loaded = build(describe(model))
    loaded.load_state_dict(model.state_dict())
    assert loaded.initialized and copy.deepcopy(model).initialized
    x = model.dequantize(images)
    assert torch.equal(loaded.log_prob(x), model.log_prob(x))
    with pytest.raises(RuntimeError, match="initialised already"):
        loaded.initialize(images)


def test_initialize_normalises_what_leaves_every_actnorm():
    model = build({**GLOW, "shape": (3, 8, 8)})
    images = some_images(model, 64)
    noise = torch.rand(images.shape)
    model.initialize(images, noise=noise)
    outputs = []
    hooks = [
        layer.register_forward_hook(lambda _layer, _x, y: outputs.append(y[0]))
        for layer in model.modules()
        if isinstance(layer, glowlite.ActNorm)
    ]
    with torch.no_grad():
        model.bits_per_dim(images, noise=noise)
    assert len(outputs) == len(hooks) == 12
    for y in outputs:
        assert y.mean((0, 2, 3)).abs().max() < 1e-4
        assert (y.var((0, 2, 3), correction=0) - 1).abs().max() < 1e-3


def test_sampling_scales_every_level_and_follows_its_generator():
    model = make(GLOW)
    x = {
        t: model.sample(5, temperature=t, generator=torch.Generator().manual_seed(0))
        for t in (0.0, 0.5, 1.0)
    }
    z = {t: model.encode(v)[0] for t, v in x.items()}
    for level in range(2):
        torch.testing.assert_close(z[0.5][level], 0.5 * z[1.0][level], rtol=0, atol=1e-9)
        assert z[0.0][level].abs().max() < 1e-9
    again = model.sample(5, generator=torch.Generator().manual_seed(0))
    assert torch.equal(again, x[1.0]) and again.shape == (5, 3, 4, 8)
    # white noise at every level, not at the top only
    wide = model.encode(model.sample(300, generator=torch.Generator().manual_seed(1)))[0]
    for eps in wide:
        assert eps.std().item() == pytest.approx(1, abs=0.03)


def test_bits_per_dim_of_the_identity_is_known():
    """A flow that is the identity: z = x, so bits/dim follow from the Gaussian alone."""
    model = build({**GLOW, "permutation": "reverse", "scale": "exp", "n_bits": 5}).double()
    images = some_images(model)
    noise = torch.zeros(images.shape, dtype=torch.float64)
    x = (images >> 3).double() / 32 - 0.5
    nats = 0.5 * (x**2 + math.log(2 * math.pi)).flatten(1).sum(1)
    expected = nats / (96 * math.log(2)) + 5
    torch.testing.assert_close(model.bits_per_dim(images, noise=noise), expected)


@pytest.mark.parametrize("n_bits", range(1, 9))
def test_dequantisation_fills_the_cells_and_nothing_else(n_bits):
    images = torch.arange(256, dtype=torch.uint8).reshape(1, 1, 16, 16)
    low = likelihood.dequantize(images, n_bits, noise=torch.zeros(images.shape))
    high = likelihood.dequantize(images, n_bits, noise=torch.full(images.shape, 1 - 2**-24))
    assert low.min() == -0.5 and high.max() < 0.5
    levels = low.unique()
    assert len(levels) == 2**n_bits
    torch.testing.assert_close(levels.diff(), torch.full((2**n_bits - 1,), 2.0**-n_bits))
    for x in (low, high):
        shift = 8 - n_bits
        assert torch.equal(likelihood.to_images(x, n_bits), images >> shift << shift)


@pytest.mark.parametrize("n_bits", [5, 8])
def test_fresh_noise_is_uniform_in_its_cell(n_bits):
    images = torch.randint(
        0, 256, (4, 3, 40, 40), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )
    x = likelihood.dequantize(images, n_bits, torch.Generator().manual_seed(1))
    u = (x.double() + 0.5) * 2**n_bits - likelihood.quantize(images, n_bits)
    assert 0 <= u.min() < 0.001 and 0.999 < u.max() < 1
    assert u.mean().item() == pytest.approx(1 / 2, abs=0.01)
    assert u.var().item() == pytest.approx(1 / 12, abs=0.002)
    assert len(u.unique()) > 10_000, "fine, not a few levels"


@pytest.mark.parametrize(
    ("dtype", "n_bits"), [(torch.bfloat16, 8), (torch.bfloat16, 7), (torch.float8_e4m3fn, 8)]
)
def test_no_likelihood_where_there_is_no_room_for_noise(dtype, n_bits):
    images = torch.zeros(1, 1, 4, 4, dtype=torch.uint8)
    message = f"dtype is {dtype}, too coarse.*accepted: torch.float32 or torch.float64.*set_net_dt"
    with pytest.raises(ValueError, match=message):
        likelihood.dequantize(images, n_bits, dtype=dtype)
    if dtype == torch.bfloat16:
        model = glowlite.Glow(shape=(1, 4, 4), levels=1, depth=1, width=2, n_bits=n_bits)
        with pytest.raises(ValueError, match=message):
            model.to(dtype).bits_per_dim(images)
    for dtype, n_bits in ((torch.float16, 8), (torch.bfloat16, 6)):  # as few as they are
        x = likelihood.dequantize(images.expand(99, -1, -1, -1), n_bits, dtype=dtype)
        assert len(x.unique()) >= 4


@pytest.mark.parametrize("n_bits", [1, 5, 8])
def test_what_is_outside_the_range_is_shown_as_black_or_white(n_bits):
    x = torch.tensor([-9.0, -0.6, -0.5, 0.4999, 0.5, 9.0, math.inf])
    white = 256 - 2 ** (8 - n_bits)
    shown = likelihood.to_images(x, n_bits)
    assert shown.tolist() == [0, 0, 0, white, white, white, white]


@pytest.mark.parametrize("permutation", glow.PERMUTATIONS)
@pytest.mark.parametrize("coupling", ["sigmoid", "exp", None])
def test_options_reach_every_step_of_every_level(permutation, coupling):
    """Code has been published whose last level ignored them."""
    chosen = {"coupling": "affine", "scale": coupling} if coupling else {"coupling": "additive"}
    layer = glowlite.AffineCoupling if coupling else glowlite.AdditiveCoupling
    kind = {"lu": glowlite.Conv1x1LU, "plain": glowlite.Conv1x1}.get(
        permutation, glowlite.Permutation
    )
    for padding, net_actnorm in (("edge", True), ("zero", False)):
        more = {"padding": padding, "net_actnorm": net_actnorm, "permutation": permutation}
        model = build({**GLOW, "shape": (3, 8, 16), "levels": 3, **chosen, **more})
        steps = [level.steps for level in model.levels]
        assert [len(level) for level in steps] == [2, 2, 2]
        for step in (step for level in steps for step in level):
            assert type(step.permutation) is kind and type(step.coupling) is layer
            assert getattr(step.coupling, "scale", None) == coupling
            net, c = step.coupling.net, step.actnorm.b.numel()
            assert (net.conv1.edge is None) == (net.conv3.conv.edge is None) == (padding == "zero")
            assert (net.norm1 is None) == (net.norm2 is None) == (not net_actnorm)
            if permutation == "reverse":
                assert step.permutation.indices.tolist() == [*range(c - 1, -1, -1)]
        for split in model.splits:
            assert (split.prior.conv.edge is None) == (padding == "zero")


def test_the_defaults_are_the_authors():
    config = glowlite.GlowConfig(shape=(3, 32, 32))
    assert (config.levels, config.depth, config.width, config.n_bits) == (3, 32, 512, 8)
    assert (config.coupling, config.scale, config.permutation) == ("affine", "sigmoid", "lu")
    assert config.learn_top and config.learn_split_prior and config.net_actnorm
    assert config.padding == "edge"


def test_realnvp_is_that_of_the_paper():
    """Three couplings by board, squeeze, three by channel; at the last level four by board."""
    model = build({**MODELS["realnvp"], "blocks": 0})
    first, last = map(list, model.levels)
    assert first.pop(0).alpha == 0.05
    assert first.pop(3).order == "realnvp"

    def board(h, w):
        return ((torch.arange(h)[:, None] + torch.arange(w)) % 2 == 0)[None]

    black, kept = board(4, 6), torch.arange(12)[:, None, None] < 6
    masks = [black, ~black, black, kept, ~kept, kept]
    assert all(torch.equal(a.mask.bool(), b) for a, b in zip(first, masks, strict=True))
    black = board(2, 3)
    masks = [black, ~black, black, ~black]
    assert all(torch.equal(a.mask.bool(), b) for a, b in zip(last, masks, strict=True))
    assert not list(model.top.parameters()) and not [k for k in model.state_dict() if "mask" in k]


def test_nice_leaves_no_number_alone():
    """Even components first, then odd; after two couplings nothing is a mere copy of an input."""
    model = make({**MODELS["nice"], "couplings": 2})
    x = model.dequantize(some_images(model, 1))
    flat = x.permute(0, 2, 3, 1).flatten()
    ordered = model.flow[1](model.flow[0](x)[0])[0].flatten()
    assert torch.equal(ordered, torch.cat([flat[0::2], flat[1::2]]))
    J = torch.func.jacrev(lambda v: model(v)[0][0])(x).reshape(36, 36)
    assert ((J.abs() > 1e-9).sum(1) > 1).all()
    hidden = build({**MODELS["nice"], "width": 100}).flow[2].net.hidden
    assert hidden[1].weight.std().item() == pytest.approx(math.sqrt(2 / 100), rel=0.03)


# -- classes ----------------------------------------------------------------------------------


def test_classes_condition_the_top_and_average_out():
    model = make(CONDITIONAL)
    images = some_images(model)
    x = model.dequantize(images)
    per_class = torch.stack([model.log_prob(x, torch.full((4,), y)) for y in range(3)])
    assert (per_class[0] - per_class[1]).abs().min() > 1e-6
    torch.testing.assert_close(model.log_prob(x), per_class.logsumexp(0) - math.log(3))
    classes = torch.tensor([2, 0, 1, 1])
    latents, _ = model.encode(x, classes)
    torch.testing.assert_close(model.decode(latents, classes), x, rtol=0, atol=1e-11)
    theirs = glowlite.to_reference(model, label=1)
    np.testing.assert_allclose(
        per_class[1].detach(), theirs.log_prob(nhwc(x)), rtol=1e-12, atol=1e-12
    )
    assert model.sample(4, classes=classes).shape == x.shape
    with pytest.raises(ValueError, match="classes is None"):
        model.encode(x)
    with pytest.raises(ValueError, match="this model has none|this model takes None"):
        make(GLOW).encode(x, classes)


def test_the_classification_loss_is_weighted_and_in_bits():
    model = make(CONDITIONAL)
    model.initialize(some_images(model, 16), torch.arange(16) % 3)
    images, classes = some_images(model), torch.tensor([0, 1, 2, 0])
    g = torch.Generator()
    loss, parts = model.loss(images, classes, generator=g.manual_seed(2))
    x = model.dequantize(images, g.manual_seed(2))
    bits = nn.functional.cross_entropy(model.classify(x), classes, reduction="none") / math.log(2)
    torch.testing.assert_close(parts["class_bits"], bits.detach())
    plain = model.bits_per_dim(images, classes, generator=g.manual_seed(2))
    torch.testing.assert_close(parts["bits_per_dim"], plain.detach())
    torch.testing.assert_close(loss, plain.mean() + 0.5 * bits.mean())
    right = model.classify(x).argmax(1) == classes
    assert torch.equal(parts["correct"], right.float())


# -- parameters -------------------------------------------------------------------------------


def authors_count(affine: bool) -> dict[str, int]:
    """What the released code creates for CIFAR-10: L 3, K 32, width 512, edge padding."""
    width, depth, c = 512, 32, 3
    count = {"actnorm": 0, "1x1": 0, "nets": 0, "splits": 0}
    for level in range(3):
        c *= 4
        out = c if affine else c // 2
        net = 9 * (c // 2 + 1) * width + 2 * width  # 3×3 with the indicator, actnorm
        net += width * width + 2 * width  # 1×1, actnorm
        net += 9 * (width + 1) * out + 2 * out  # 3×3 with the indicator, bias, logs
        count["actnorm"] += depth * 2 * c
        count["1x1"] += depth * c * c
        count["nets"] += depth * net
        if level < 2:
            c //= 2
            count["splits"] += 9 * (c + 1) * 2 * c + 2 * 2 * c
    count["top"] = 9 * (2 * c + 1) * 2 * c + 2 * 2 * c  # a 3×3 convolution of zeros
    return count


def our_count(model: glowlite.Glow) -> dict[str, int]:
    def size(modules) -> int:
        return sum(p.numel() for module in modules for p in module.parameters())

    steps = [step for level in model.levels for step in level.steps]
    return {
        "actnorm": size(step.actnorm for step in steps),
        "1x1": size(step.permutation for step in steps),
        "nets": size(step.coupling for step in steps),
        "splits": size(model.splits),
        "top": size([model.top]),
    }


@pytest.mark.parametrize(("coupling", "millions"), [("affine", 44.60), ("additive", 38.40)])
@pytest.mark.parametrize("permutation", ["lu", "plain"])
def test_cifar10_model_has_the_published_size(coupling, millions, permutation):
    """All equal to the authors' count, LU included, but for the top prior: theirs is a 3×3
    convolution of an image of zeros, 83,808 weights of which 82,944 multiply zeros and 864 the
    padding indicator; ours keeps its bias and its scale."""
    theirs = authors_count(coupling == "affine")
    assert round(sum(theirs.values()) / 1e6, 2) == millions
    with torch.device("meta"):
        model = glowlite.Glow(shape=(3, 32, 32), coupling=coupling, permutation=permutation)
    ours = our_count(model)
    assert theirs.pop("top") - ours.pop("top") == 83_808 == 82_944 + 864
    assert ours == theirs
    assert sum(p.numel() for p in model.parameters()) == sum(ours.values()) + 192


def test_latent_shapes_of_the_published_256_model():
    with torch.device("meta"):
        model = glowlite.Glow(shape=(3, 256, 256), levels=6, depth=1, width=8, coupling="additive")
    assert model.latent_shapes == [
        (6, 128, 128), (12, 64, 64), (24, 32, 32), (48, 16, 16), (96, 8, 8), (384, 4, 4),
    ]  # fmt: skip
    assert sum(map(math.prod, model.latent_shapes)) == model.dims


# -- configs and errors -----------------------------------------------------------------------


@models
def test_a_config_survives_json(name):
    model = build(MODELS[name])
    again = build(json.loads(json.dumps(describe(model))))
    assert again.config == model.config
    for a, b in zip(model.state_dict().values(), again.state_dict().values(), strict=True):
        assert torch.equal(a, b)  # the seed fixes the initial weights
    other = build({**MODELS[name], "seed": 1})
    states = zip(model.state_dict().values(), other.state_dict().values(), strict=True)
    assert not all(torch.equal(a, b) for a, b in states)


def test_numbers_of_numpy_survive_json():
    options = {"learn_top": np.bool_(True), "weight_y": np.float32(0.5), "n_classes": np.int64(2)}
    config = glowlite.GlowConfig(shape=(1, 4, 4), levels=1, **options)
    assert json.loads(json.dumps(config.to_dict())) == config.to_dict()
    assert (config.learn_top, config.weight_y) == (True, 0.5)
    config = RealNVPConfig(shape=(1, 4, 4), logit=np.bool_(False))
    assert json.loads(json.dumps(config.to_dict()))["logit"] is False


def test_building_leaves_the_global_generator_alone():
    torch.manual_seed(0)
    expected = torch.rand(1)
    torch.manual_seed(0)
    build(GLOW)
    assert torch.equal(torch.rand(1), expected)


@pytest.mark.parametrize("name", MODELS)
def test_a_model_is_built_without_memory(name):
    """On the meta device, where nothing has a value: to count parameters, say."""
    with torch.device("meta"):
        model = build(MODELS[name])
    assert all(p.is_meta for p in model.parameters())


@pytest.mark.parametrize("assign", [False, True])
@pytest.mark.parametrize("name", MODELS)
def test_a_model_built_without_memory_is_whole_once_loaded(name, assign):
    """What is not saved, RealNVP's masks say, is made again."""
    model = make(MODELS[name])
    x = model.dequantize(some_images(model))
    with torch.device("meta"):
        again = build(MODELS[name]).double()
    if not assign:
        again.to_empty(device="cpu")
        for b in again.buffers():
            b.fill_(7)  # what stood there
    again.load_state_dict(model.state_dict(), assign=assign)
    assert all(torch.equal(a, b) for a, b in zip(again(x), model(x), strict=True))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"shape": (3, 30, 32)}, r"30×32 pixels.*multiples of 2\^2 = 4"),
        ({"shape": (3, 32)}, r"shape is \(3, 32\); accepted"),
        ({"shape": 32}, "shape is 32"),
        ({"shape": (3, 32.5, 32)}, r"shape is \(3, 32.5, 32\); accepted"),
        ({"shape": "345"}, "shape is '345'; accepted"),
        ({"n_bits": 5.0}, "n_bits is 5.0; accepted: 1 to 8"),
        ({"seed": "x"}, "seed is 'x'; accepted"),
        ({"seed": 2**63}, "seed is 9223372036854775808; accepted"),
        ({"levels": 10**6}, r"must be multiples of 2\^1000000$"),
        ({"levels": 0}, "levels is 0; accepted: an integer, at least 1"),
        ({"depth": 2.5}, "depth is 2.5"),
        ({"coupling": "cubic"}, "coupling is 'cubic'; accepted: 'affine', 'additive'"),
        ({"scale": "tanh"}, "scale is 'tanh'"),
        ({"permutation": "qr"}, "permutation is 'qr'"),
        ({"padding": "mirror"}, "padding is 'mirror'"),
        ({"n_bits": 9}, "n_bits is 9; accepted: 1 to 8"),
        ({"n_classes": -1}, "n_classes is -1"),
        ({"weight_y": math.nan}, "weight_y is nan"),
        ({"net_actnorm": "no"}, "net_actnorm is 'no'; accepted: True, False"),
        ({"learn_top": "false"}, "learn_top is 'false'"),
        ({"weight_y": 0.1}, "nothing to classify"),
        ({"weight_y": "a"}, "weight_y is 'a'; accepted: a finite number"),
        ({"model": [1]}, r"model is \[1\]; accepted: 'glow'"),
        ({"layers": 3}, r"unknown options \['layers'\]"),
        ({"model": "glove"}, "model is 'glove'; accepted: 'glow', 'realnvp', 'nice'"),
        ({"model": "nice", "shape": (3, 3, 3)}, "27 numbers"),
        ({"model": "nice", "couplings": 0}, "couplings is 0; accepted: an integer, at least 1"),
        ({"model": "nice", "width": 0}, "width is 0"),
        ({"model": "nice", "hidden": 0}, "hidden is 0"),
        ({"model": "realnvp", "levels": 0}, "levels is 0"),
        ({"model": "realnvp", "width": 0}, "width is 0"),
        ({"model": "realnvp", "blocks": -1}, "blocks is -1; accepted: an integer, at least 0"),
        ({"model": "realnvp", "shape": (3, 5, 6)}, r"5×6 pixels.*multiples of 2\^1 = 2"),
        ({"model": "realnvp", "padding": "mirror"}, "padding is 'mirror'"),
        ({"model": "realnvp", "logit": "no"}, "logit is 'no'; accepted: True, False"),
    ],
)
def test_wrong_options_are_named(change, message):
    description = {**MODELS.get(str(change.get("model")), GLOW), **change}
    with pytest.raises(ValueError, match=message):
        configure(description)  # before a layer is built, which would refuse some of them itself


def test_one_class_for_each_image():
    model = build({**GLOW, "n_classes": 3})
    x = torch.rand(4, *model.shape) - 0.5
    for classes in (
        torch.tensor([1]),
        torch.tensor([0, 1, 2]),
        torch.zeros(4, 1, dtype=torch.long),
    ):
        with pytest.raises(ValueError, match=r"accepted: \(4,\), one for each image"):
            model.log_prob(x, classes)
    for classes, told in (
        (torch.tensor([0, 1, 2, 3]), r"torch.int64, 0 … 3"),
        (torch.tensor([0, -1, 2, 1]), r"torch.int64, -1 … 2"),
        (torch.tensor([0.0, 1.0, 2.0, 1.0]), r"torch.float32, 0.0 … 2.0"),
    ):
        for use in (lambda c: model.log_prob(x, c), lambda c: model.sample(4, classes=c)):
            with pytest.raises(ValueError, match=told + r"; accepted: torch.int64, 0 … 2"):
                use(classes)
    with pytest.raises(TypeError, match="classes is a list; accepted: a tensor or None"):
        model.log_prob(x, [0, 1, 2, 0])


def test_a_label_for_a_model_or_layer_without_classes():
    model = build(GLOW)
    for layer in (model, model.levels[0], model.levels[0].steps[0].actnorm):
        with pytest.raises(ValueError, match="label is 0; .*no classes"):
            glowlite.to_reference(layer, label=0)


def test_no_image_initialises_nothing():
    model = build(GLOW)
    with pytest.raises(ValueError, match="images is empty"):
        model.initialize(torch.zeros(0, *model.shape, dtype=torch.uint8))
    assert not model.initialized
    assert all(bool(p.isfinite().all()) for p in model.parameters())


def test_a_model_takes_a_config_or_options():
    config = glowlite.GlowConfig(shape=(1, 4, 4), levels=1, depth=1, width=2)
    assert glowlite.Glow(config).config is config
    with pytest.raises(TypeError, match="config or options, not both"):
        glowlite.Glow(config, depth=2)
    with pytest.raises(TypeError, match="config is a dict; accepted: a GlowConfig"):
        glowlite.Glow({"shape": (1, 4, 4)})
    with pytest.raises(TypeError, match="layers"):
        glowlite.Glow(shape=(1, 4, 4), layers=2)
    with pytest.raises(ValueError, match="memory is 'small'"):
        glowlite.Glow(config, memory="small")
    for kind in (glowlite.Glow, glowlite.RealNVP, glowlite.NICE):
        assert kind(shape=(1, 8, 8), width=2, memory="half").memory == "half"


def test_wrong_images_are_named():
    model = build(GLOW)
    good = some_images(model)
    with pytest.raises(TypeError, match=r"images is torch.float32; accepted: a torch.uint8"):
        model.bits_per_dim(good.float())
    for takes in (model.bits_per_dim, model.middle):
        with pytest.raises(TypeError, match="images is ndarray"):
            takes(good.numpy())
    assert model.dequantize(good, noise=torch.zeros(good.shape).double()).dtype == torch.float32
    for wrong in (good.permute(0, 2, 3, 1), good[0], good[:, :1]):
        with pytest.raises(ValueError, match=r"accepted: \(N, C, H, W\) = \(N, 3, 4, 8\)"):
            model.bits_per_dim(wrong)
    with pytest.raises(ValueError, match="noise has shape"):
        model.bits_per_dim(good, noise=torch.zeros(1))
    for layers in (build(MODELS[name]) for name in ("glow", "realnvp", "nice")):
        x = layers.dequantize(some_images(layers)).double()
        with pytest.raises(TypeError, match="x is torch.float64; accepted: torch.float32"):
            layers.log_prob(x)
        with pytest.raises(TypeError, match="uint8 images see `dequantize`"):
            layers.encode(x.to(torch.uint8))
        with pytest.raises(TypeError, match="z is torch.float64; accepted: torch.float32"):
            layers.inverse(x.flatten(1))
        with pytest.raises(TypeError, match="a latent is torch.float64; accepted: torch.float32"):
            layers.decode(layers.unflatten(x.flatten(1)))
        with pytest.raises(ValueError, match="x is empty"):
            layers.encode(x[:0].float())
        with pytest.raises(TypeError, match="x is a ndarray of float32; accepted: torch.float32"):
            layers.encode(x.float().numpy())
        for wrong, told in ((None, "NoneType"), ([[0.0]], "list")):
            with pytest.raises(TypeError, match=f"x is a {told}; accepted: torch.float32"):
                layers.log_prob(wrong)
            with pytest.raises(TypeError, match=f"z is a {told}; accepted: torch.float32"):
                layers.inverse(wrong)
        with pytest.raises(TypeError, match="z is a ndarray of float32; accepted: torch.float32"):
            layers.inverse(np.zeros((2, layers.dims), np.float32))
        for wrong, told in ((None, "NoneType"), (x.flatten(1), "Tensor")):
            with pytest.raises(TypeError, match=f"latents is a {told}; accepted: a list of"):
                layers.decode(wrong)
        with pytest.raises(TypeError, match="a latent is a int; accepted: torch.float32"):
            layers.decode([1] * len(layers.latent_shapes))
        with pytest.raises(ValueError, match="latents are empty"):
            layers.inverse(torch.zeros(0, layers.dims))
    with pytest.raises(ValueError, match=r"z has shape \(2, 5\); accepted: \(N, 96\)"):
        model.inverse(torch.zeros(2, 5))
    one, three = (model.unflatten(torch.zeros(n, 96)) for n in (1, 3))
    with pytest.raises(ValueError, match=r"latents are of \[1, 3\] images"):
        model.decode([one[0], three[1]])
    with pytest.raises(ValueError, match="latents have shapes"):
        model.decode([torch.zeros(1, 6, 2, 4)])
    for wrong in (-1, math.inf, math.nan):
        with pytest.raises(ValueError, match=f"temperature {wrong}"):
            model.sample(1, temperature=wrong)
    for wrong in ("a", None, torch.tensor([0.5, 1.0])):
        with pytest.raises(TypeError, match="temperature is .*; accepted: a number ≥ 0"):
            model.sample(1, temperature=wrong)
    for wrong in (1.5, True):
        with pytest.raises(TypeError, match=f"n is {wrong}; accepted: an integer"):
            model.sample(wrong)
    with pytest.raises(ValueError, match="n is 0"):
        model.sample(0)
    with pytest.raises(ValueError, match="dims is 0"):
        likelihood.bits_per_dim(torch.zeros(1), 0, 8)
    for takes_bits in (
        lambda: likelihood.bits_per_dim(torch.zeros(1), 1, 9),
        lambda: likelihood.quantize(good, 9),
        lambda: likelihood.to_images(torch.zeros(1), 9),
    ):
        with pytest.raises(ValueError, match="n_bits is 9; accepted: 1 to 8"):
            takes_bits()
    assert likelihood.bits_per_dim(torch.zeros(1), 1, 8) == 8
    with pytest.raises(ValueError, match="the inverse has exploded"):
        model.to_images(torch.tensor([0.1, math.nan]))
    with pytest.raises(ValueError, match="n_classes is 0"):
        model.classify(model.dequantize(good))
