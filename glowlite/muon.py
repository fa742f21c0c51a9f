"""Muon: steps that turn a weight matrix by the same amount in every direction."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

_QUINTIC = (3.4445, -4.7750, 2.0315)


def orthogonalize(g: Tensor) -> Tensor:
    """U Vᵀ, nearly, for each matrix g = U S Vᵀ of a batch (N, rows, columns).

    X ← a X + (b A + c A²) X,  A = X Xᵀ,  from X = g / ‖g‖, five times: the Newton–Schulz iteration
    with the quintic of Jordan's Muon.  It maps singular values above ‖g‖/500 to within
    0.68 … 1.21, not to 1: steps of training need no more.

    A matrix of zeros stays one.  Cost: 5·(2·r²·c + r³) multiply-adds a matrix, with r the
    smaller and c the larger of its sides.
    """
    a, b, c = _QUINTIC
    tall = g.shape[-2] > g.shape[-1]
    x = g.mT if tall else g
    x = x / torch.linalg.matrix_norm(x, keepdim=True).clamp(min=1e-7)
    for _ in range(5):
        gram = x @ x.mT
        both = torch.baddbmm(gram, gram, gram, beta=b, alpha=c)  # b A + c A², in one pass
        x = torch.baddbmm(x, both, x, beta=a)
    return x.mT if tall else x


class Muon(torch.optim.Optimizer):
    """Muon for the convolution kernels in the nets, AdamW for every other parameter.

    A kernel (c_out, c_in, k, k) is the matrix W of shape (c_out, c_in·k²).  With its gradient G:

        M ← β·M + (1 − β)·G
        W ← W − lr·0.2·sqrt(max(rows, columns))·orthogonalize((1 − β)·G + β·M)

    with β = 0.95.  The factor makes the step's root mean square 0.2·lr, about Adam's, so that one
    learning rate serves both.  Weight decay is decoupled: W ← (1 − lr·decay)·W before that.

    Muon: K. Jordan and others, "Muon: An optimizer for hidden layers in neural networks" (2024);
    the factor: Liu and others, "Muon is scalable for LLM training" (arXiv 2502.16982).
    `torch.optim.Muon` computes the same, of matrices only and one at a time, and asks the device
    for the learning rate; here all kernels of one shape are one batch, and a CUDA graph can hold
    the step.  The products are in bfloat16 on a GPU, on a CPU in the kernels' own type.

    State: `momentum_buffer` of a kernel; AdamW's of the others.

    Raises ValueError, as AdamW does, if there are no others.
    """

    def __init__(
        self,
        parameters: Iterable[nn.Parameter],
        *,
        lr: float | Tensor,
        betas: tuple[float, float] = (0.9, 0.999),
        weight_decay: float = 0.0,
        momentum: float = 0.95,
        **adam: Any,
    ) -> None:
        """`betas` and what else there is are AdamW's."""
        parameters = list(parameters)
        groups = [
            {"params": [p for p in parameters if p.ndim == 4]},
            {"params": [p for p in parameters if p.ndim != 4]},
        ]
        options = {"lr": lr, "betas": betas, "weight_decay": weight_decay}
        self.adam = torch.optim.AdamW(groups[1]["params"], **options, **adam)
        super().__init__(groups, {**options, "momentum": momentum})
        self.adam.state = self.state

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self.adam.state = self.state

    @torch.no_grad()
    def step(self) -> None:
        """Change every parameter that has a gradient."""
        kernels, others = self.param_groups
        self.adam.param_groups[0]["lr"] = others["lr"]
        self.adam.step()
        alike: dict[torch.Size, list[nn.Parameter]] = {}
        for p in kernels["params"]:
            if p.grad is not None:
                alike.setdefault(p.shape, []).append(p)
        for several in alike.values():
            self._turn(several, **kernels)

    def _turn(
        self,
        kernels: list[nn.Parameter],
        lr: float | Tensor,
        weight_decay: float,
        momentum: float,
        **_: Any,
    ) -> None:
        """Muon's step for kernels of one shape."""
        for p in kernels:
            if "momentum_buffer" not in self.state[p]:
                self.state[p]["momentum_buffer"] = torch.zeros_like(p)
        buffers = [self.state[p]["momentum_buffer"] for p in kernels]
        gradients = [p.grad for p in kernels]
        torch._foreach_lerp_(buffers, gradients, 1 - momentum)
        ahead = torch.stack(torch._foreach_lerp(gradients, buffers, momentum)).flatten(2)
        turn = orthogonalize(ahead.bfloat16() if ahead.is_cuda else ahead).to(ahead.dtype)
        turn *= 0.2 * max(turn.shape[1:]) ** 0.5 * lr
        if weight_decay:
            torch._foreach_mul_(kernels, 1 - lr * weight_decay)
        torch._foreach_sub_(kernels, list(turn.view(-1, *kernels[0].shape)))
