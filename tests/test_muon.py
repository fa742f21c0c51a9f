"""Muon: the polar factor it steps along, PyTorch's own as the oracle, and AdamW for the rest."""

from __future__ import annotations

import copy

import pytest
import torch

import glowlite
from glowlite.muon import Muon, orthogonalize
from glowlite.schedule import make_optimizer, set_rate

SHAPES = [(6, 4, 3, 3), (6, 4, 3, 3), (12, 6, 1, 1), (12, 6, 1, 1), (4, 12, 3, 3), (6, 1, 3, 3)]
OTHERS = [(3, 3), (7,), (5, 5)]


def parameters(shapes, seed=0):
    generator = torch.Generator().manual_seed(seed)
    made = (torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes)
    return [torch.nn.Parameter(p) for p in made]


def give_gradients(some, seed):
    generator = torch.Generator().manual_seed(seed)
    for p in some:
        p.grad = torch.randn(p.shape, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("shape", [(5, 9), (9, 5), (8, 8), (1, 7), (7, 1)])
def test_the_polar_factor_up_to_its_singular_values(shape):
    g = torch.randn(3, *shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    g *= torch.tensor([1e-4, 1.0, 1e5], dtype=torch.float64)[:, None, None]
    u, s, vh = torch.linalg.svd(g, full_matrices=False)
    inside = u.mT @ orthogonalize(g) @ vh.mT  # diagonal: the same singular vectors
    assert torch.allclose(inside, torch.diag_embed(inside.diagonal(dim1=-2, dim2=-1)), atol=1e-9)
    found = inside.diagonal(dim1=-2, dim2=-1)
    large = s > torch.linalg.matrix_norm(g)[:, None] / 500
    assert large.double().mean() > 0.8
    assert (found[large] > 0.68).all() and (found[large] < 1.21).all()


def test_a_matrix_of_zeros_stays_one():
    assert not orthogonalize(torch.zeros(2, 3, 4)).any()


@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_kernels_move_as_pytorchs_muon_has_it(monkeypatch, decay):
    monkeypatch.setattr(torch.Tensor, "bfloat16", lambda self: self)  # it would round its products
    ours, others = parameters(SHAPES), parameters(OTHERS, 1)
    theirs = [torch.nn.Parameter(p.detach().flatten(1).clone()) for p in ours]
    mine = Muon([*others, *ours], lr=0.02, weight_decay=decay)
    oracle = torch.optim.Muon(
        theirs, lr=0.02, weight_decay=decay, momentum=0.95, adjust_lr_fn="match_rms_adamw"
    )
    for i in range(5):
        give_gradients([*ours, *others], i)
        for p, q in zip(ours, theirs, strict=True):
            q.grad = p.grad.flatten(1).clone()
        mine.step()
        oracle.step()
        for p, q in zip(ours, theirs, strict=True):
            assert torch.allclose(p.flatten(1), q, rtol=0, atol=1e-12)


def test_everything_else_moves_as_adamw_has_it():
    mine, theirs = parameters(OTHERS), parameters(OTHERS)
    options = {"lr": 0.02, "betas": (0.8, 0.9), "weight_decay": 0.1}
    ours = Muon([*mine, *parameters(SHAPES, 1)], **options)
    oracle = torch.optim.AdamW(theirs, **options)
    for i in range(4):
        for some, optimizer in ((mine, ours), (theirs, oracle)):
            give_gradients(some, i)
            set_rate(optimizer, 0.02 / (1 + i))
            optimizer.step()
    assert all(torch.equal(p, q) for p, q in zip(mine, theirs, strict=True))


@pytest.mark.parametrize("shape", [(64, 6, 3, 3), (64, 64, 1, 1), (12, 64, 3, 3)])
def test_a_step_is_as_large_as_adams_about(shape):
    (p,) = parameters([shape])
    before = p.detach().clone()
    give_gradients([p], 0)
    Muon([p, *parameters(OTHERS)], lr=0.01).step()
    assert (p - before).square().mean().sqrt().item() == pytest.approx(0.2 * 0.01, rel=0.2)


def test_a_rate_on_the_device_is_the_same_rate():
    """As a CUDA graph needs it, which reads the rate anew whenever it is replayed."""
    results = []
    for graph in (False, True):
        some = [torch.nn.Parameter(p.float()) for p in parameters([*SHAPES, *OTHERS])]
        optimizer = make_optimizer("muon", some, lr=0.5, weight_decay=0.1, graph=graph)
        assert all(isinstance(g["lr"], torch.Tensor) is graph for g in optimizer.param_groups)
        for i in range(3):
            set_rate(optimizer, 0.02 / (1 + i))
            for p, g in zip(some, parameters([*SHAPES, *OTHERS], 9 + i), strict=True):
                p.grad = g.detach().float()
            optimizer.step()
        results.append(some)
    assert all(torch.allclose(p, q, rtol=1e-5, atol=1e-6) for p, q in zip(*results, strict=True))


def test_what_is_saved_is_all_it_knows():
    some = parameters([*SHAPES, *OTHERS])
    optimizer = Muon(some, lr=0.02)
    for i in range(2):
        give_gradients(some, i)
        optimizer.step()
    copies = copy.deepcopy(some)
    again = Muon(copies, lr=0.02)
    again.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    for every, stepping in ((some, optimizer), (copies, again)):
        give_gradients(every, 7)
        stepping.step()
    assert all(torch.equal(p, q) for p, q in zip(some, copies, strict=True))


def test_of_a_glow_it_turns_the_kernels_and_no_flow_layer():
    model = glowlite.Glow(shape=(3, 8, 8), levels=2, depth=2, width=8)
    kernels, others = make_optimizer("muon", model.parameters(), lr=1e-3).param_groups
    names = {id(p): name for name, p in model.named_parameters()}
    turned = {names[id(p)].rpartition(".")[2] for p in kernels["params"]}
    assert turned == {"weight", "edge"}
    assert not any("conv1x1" in names[id(p)] for p in kernels["params"])
    assert len(kernels["params"]) + len(others["params"]) == len(names)


def test_a_parameter_without_a_gradient_stays():
    some = parameters([*SHAPES, *OTHERS])
    before = [p.detach().clone() for p in some]
    give_gradients(some[1:2], 0)
    Muon(some, lr=0.1).step()
    moved = [not torch.equal(p, q) for p, q in zip(some, before, strict=True)]
    assert moved == [i == 1 for i in range(len(some))]
