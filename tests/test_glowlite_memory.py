"""Memory modes give the gradients of the same function; float32 stays close to float64."""

from __future__ import annotations

import copy

import pytest
import torch

import glowlite
from glowlite.registry import build

OPTIONS = {
    "affine-lu": {},
    "exp-plain": {"scale": "exp", "permutation": "plain"},
    "additive-shuffle": {"coupling": "additive", "permutation": "shuffle"},
    "biases": {"net_actnorm": False, "padding": "zero"},
}
MODELS = {
    name: {"model": "glow", "shape": (3, 4, 8), "levels": 2, "depth": 3, "width": 6, **options}
    for name, options in OPTIONS.items()
} | {
    "realnvp": {"model": "realnvp", "shape": (3, 4, 6), "levels": 2, "width": 4, "blocks": 1},
    "nice": {"model": "nice", "shape": (3, 3, 4), "width": 7, "hidden": 2, "couplings": 3},
}  # fmt: skip


def make(description, dtype: torch.dtype):
    model = build(description).to(dtype)
    g = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for p in model.parameters():
            p += 0.04 * torch.randn(p.shape, dtype=p.dtype, generator=g)
    x = torch.rand(3, *model.shape, dtype=dtype, generator=g) - 0.5
    return model, x.requires_grad_()


def gradients(model, x, mode: str) -> list[torch.Tensor]:
    model.memory = mode
    # frozen parameters and unequal weights of the examples, so that nothing cancels
    weights = torch.arange(1, len(x) + 1)
    used = [p for p in model.parameters() if p.requires_grad]
    found = torch.autograd.grad(
        (weights * model.log_prob(x)).sum(), [x, *used], materialize_grads=True
    )
    return list(found)


@pytest.mark.parametrize("fast", [True, False])
@pytest.mark.parametrize("mode", ["half", "checkpoint"])
@pytest.mark.parametrize("name", MODELS)
def test_checkpointed_gradients_are_equal_bit_for_bit(name, mode, fast):
    model, x = make(MODELS[name], torch.float32)
    model.fast = fast
    pairs = zip(gradients(model, x, "default"), gradients(model, x, mode), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)


@pytest.mark.parametrize("fast", [True, False])
@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("name", MODELS)
def test_reversible_gradients_are_equal_to_rounding(name, frozen, fast):
    model, x = make(MODELS[name], torch.float64)
    model.fast = fast
    if frozen:
        for p in list(model.parameters())[::3]:
            p.requires_grad_(False)
    expected, found = gradients(model, x, "default"), gradients(model, x, "reversible")
    for a, b in zip(expected, found, strict=True):
        torch.testing.assert_close(b, a, rtol=1e-10, atol=1e-10)


class LogProb(torch.nn.Module):
    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, x):
        return self.model.log_prob(x).sum()


@pytest.mark.parametrize("fast", [True, False])
@pytest.mark.parametrize("mode", glowlite.flow.MEMORY_MODES)
@pytest.mark.parametrize("name", ["affine-lu", "additive-shuffle", "realnvp", "nice"])
def test_weights_of_a_functional_call_get_their_gradients(name, mode, fast):
    """On the way back the module has its own weights again."""
    model, x = make(MODELS[name], torch.float64)
    other = copy.deepcopy(model)
    with torch.no_grad():
        for p in other.parameters():
            p.mul_(1.1)
    expected = torch.autograd.grad(
        LogProb(other)(x), [x, *other.parameters()], materialize_grads=True
    )
    model.memory, model.fast = mode, fast
    other = LogProb(other)
    given = dict(other.named_parameters()) | dict(other.named_buffers())
    value = torch.func.functional_call(LogProb(model), given, (x,))

    def back():
        return torch.autograd.grad(value, [x, *other.parameters()], materialize_grads=True)

    if mode == "reversible" and not (fast and MODELS[name]["model"] == "glow"):
        with pytest.raises(RuntimeError, match="no longer those of the forward pass"):
            back()
    else:
        for a, b in zip(back(), expected, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("mode", glowlite.flow.MEMORY_MODES)
@pytest.mark.parametrize("name", MODELS)
def test_under_autocast_gradients_are_roughly_those_of_float32(name, mode):
    """Forward in bfloat16, then back outside of autocast, as PyTorch has it."""
    model, x = make(MODELS[name], torch.float32)
    expected = gradients(model, x, "default")
    model.memory = mode
    with torch.autocast("cpu", torch.bfloat16):
        log_prob = model.log_prob(x)
        again = model.inverse(model(x)[0])
    weights = torch.arange(1, len(x) + 1)
    found = torch.autograd.grad((weights * log_prob).sum(), [x, *model.parameters()])
    assert log_prob.dtype == torch.float64 and {g.dtype for g in found} == {torch.float32}
    gap = torch.cat([(a - b).flatten() for a, b in zip(found, expected, strict=True)]).norm()
    assert 0 < gap < 0.03 * torch.cat([g.flatten() for g in expected]).norm()
    assert (again - x).abs().max() < 0.1


@pytest.mark.parametrize("mode", glowlite.flow.MEMORY_MODES)
@pytest.mark.parametrize("name", MODELS)
def test_autocast_begun_after_the_forward_pass_changes_nothing(name, mode):
    model, x = make(MODELS[name], torch.float32)
    expected = gradients(model, x, mode)
    log_prob = model.log_prob(x)
    weights = torch.arange(1, len(x) + 1)
    with torch.autocast("cpu", torch.bfloat16):
        found = torch.autograd.grad((weights * log_prob).sum(), [x, *model.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


def test_a_layer_in_two_places_gets_both_gradients_and_an_unused_weight_none():
    net = glowlite.network.CouplingNet(2, 5, 4)
    net.spare = torch.nn.Parameter(torch.ones(1))
    coupling = glowlite.AffineCoupling(net)
    flow = glowlite.Flow([coupling, glowlite.Permutation.reverse(4), coupling]).double()
    g = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for p in flow.parameters():
            p += 0.2 * torch.randn(p.shape, dtype=p.dtype, generator=g)
    x = torch.randn(3, 4, 3, 5, dtype=torch.float64, generator=g)
    found = {}
    for mode in ("default", "reversible"):
        flow.memory = mode
        y, logdet = flow(x.clone().requires_grad_())
        loss, weights = y.square().sum() + logdet.sum(), dict(flow.named_parameters())
        grads = torch.autograd.grad(loss, list(weights.values()), allow_unused=True)
        found[mode] = dict(zip(weights, grads, strict=True))
        assert found[mode].pop("0.net.spare") is None
    for a, b in zip(*map(dict.values, found.values()), strict=True):
        assert (a - b).abs().max() < 1e-10 * (1 + a.abs().max())


def test_reversible_evaluates_each_net_once_on_the_way_back():
    model, x = make(MODELS["affine-lu"], torch.float64)
    calls = []
    for layer in model.modules():
        if isinstance(layer, glowlite.CouplingNet):
            layer.register_forward_hook(lambda *_: calls.append(1))
    model.memory = "reversible"
    value = model.log_prob(x).sum()
    assert len(calls) == 6
    value.backward()
    assert len(calls) == 12


def saved_bytes(model, x) -> int:
    """Bytes of activations that autograd keeps for the backward pass, parameters left out."""
    weights = {p.untyped_storage().data_ptr() for p in model.parameters()}
    kept: dict[int, int] = {}

    def pack(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        loss = model.log_prob(x).sum()
    del loss
    return sum(kept.values())


def kept_an_image(mode: str, depth: int, fast: bool = True) -> float:
    """Bytes kept for one image more; what is kept once (each step's matrix A) cancels."""
    description = {**MODELS["affine-lu"], "depth": depth, "shape": (3, 16, 16), "width": 16}
    model, x = make(description, torch.float32)
    model.memory, model.fast = mode, fast
    x = x.detach()
    once = saved_bytes(model, x)
    an_image = (saved_bytes(model, torch.cat([x, x])) - once) / len(x)
    if fast:  # some float64 matrices of each step's affine map, no copies of the nets' weights
        assert once - len(x) * an_image < 8 * 8 * depth * (12**2 + 24**2)
    return an_image


@pytest.mark.parametrize("fast", [True, False])
def test_memory_modes_keep_what_they_say(fast):
    kept = {mode: kept_an_image(mode, 9, fast) for mode in glowlite.flow.MEMORY_MODES}
    a_step = {mode: (kept[mode] - kept_an_image(mode, 3, fast)) / 6 for mode in kept}
    assert a_step["reversible"] == 0
    z = 4 * (12 * 8 * 8 + 24 * 4 * 4)  # bytes of a step's input, at both levels together
    hidden = 4 * 16 * (8 * 8 + 4 * 4)
    if fast:  # z and s, then the hidden layers
        assert a_step["checkpoint"] == 1.5 * z
        assert a_step["half"] == 1.5 * z + hidden
        assert a_step["default"] == 1.5 * z + 2 * hidden
    else:
        assert a_step["checkpoint"] == a_step["half"] == z
        assert a_step["default"] > z + 6 * hidden


# -- float32 against float64, at the paper's depth --------------------------------------------


def smooth_images(n: int, size: int) -> torch.Tensor:
    """Waves with noise: neighbouring pixels alike, as in pictures."""
    g = torch.Generator().manual_seed(0)
    t = torch.linspace(0, 1, size)
    kx, ky, phase = torch.randn(3, n, 3, 1, 1, generator=g)
    waves = torch.sin(3 * kx * t + 3 * ky * t[:, None] + 6 * phase)
    x = 0.5 + 0.35 * waves + 0.08 * torch.randn(n, 3, size, size, generator=g)
    return (x.clamp(0, 1) * 255).to(torch.uint8)


@pytest.mark.parametrize("permutation", ["lu", "plain"])
def test_32_steps_a_level_in_float32_after_training(permutation):
    """K = 32, L = 3: log-det within 1e-4 nats of a float64 copy, round trip within 3e-6."""
    images = smooth_images(64, 16)
    model = glowlite.Glow(shape=(3, 16, 16), depth=32, width=16, permutation=permutation)
    g = torch.Generator().manual_seed(1)
    model.initialize(images, generator=g)
    optimizer = torch.optim.Adam(model.parameters())
    first = last = None
    for step in range(12):
        for group in optimizer.param_groups:
            group["lr"] = 1e-5 * (step + 1)  # a warm-up, as in any training of this depth
        optimizer.zero_grad()
        last, _ = model.loss(images[step % 4 * 16 :][:16], generator=g)
        last.backward()
        optimizer.step()
        first = first or last.item()
    assert last.item() < first - 0.05  # it has moved
    with torch.no_grad():
        x = model.dequantize(images[:16], g)
        z, logdet = model(x)
        exact = copy.deepcopy(model).double()(x.double())[1]
        assert (logdet - exact).abs().max() < 1e-4
        assert (model.inverse(z) - x).abs().max() < 3e-6
