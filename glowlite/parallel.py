"""Several processes, one model: what `torchrun` starts, and what they have to agree on."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import timedelta

import torch
from torch import Tensor, distributed, nn


def use_tf32(allowed: bool) -> None:
    """Whether a GPU may round the factors of float32 products to TF32's ten bits.

    PyTorch allows it in convolutions unless told; a flow's round trips and log-dets need all 23.
    """
    torch.backends.cuda.matmul.allow_tf32 = allowed
    torch.backends.cudnn.allow_tf32 = allowed


@contextmanager
def without_trials() -> Iterator[None]:
    """Within it cuDNN times no algorithms, which takes a second or more for every new shape of a
    convolution: an evaluation has many that come a few times each.
    """
    before, torch.backends.cudnn.benchmark = torch.backends.cudnn.benchmark, False
    try:
        yield
    finally:
        torch.backends.cudnn.benchmark = before


class World:
    """The processes of a run: `rank` of `size`, each with its `device`.  One process is a world.

    Every process draws the same batch of numbers and keeps rows rank, rank + size, …, so that
    two processes compute what one would.  Nothing wraps the model: gradients are summed after
    the backward pass, in one message, by `sum_gradients`.

    Raises ValueError for a device that is not there, or none of cpu, cuda and auto.
    """

    def __init__(self, device: str = "auto") -> None:
        self.rank = int(os.environ.get("RANK", 0))
        self.size = int(os.environ.get("WORLD_SIZE", 1))
        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        if device == "cuda" and "LOCAL_RANK" in os.environ:
            device = f"cuda:{os.environ['LOCAL_RANK']}"
        try:
            self.device = torch.device(device)
        except RuntimeError:  # a line with every device PyTorch ever heard of
            raise ValueError(f"device is {device!r}; it must be cpu, cuda or auto") from None
        if self.device.type not in ("cpu", "cuda"):
            raise ValueError(f"device is {device!r}; it must be cpu, cuda or auto")
        if self.device.type == "cuda" and not torch.cuda.is_available():
            raise ValueError("device is 'cuda', but torch sees no GPU; use cpu or auto")
        if self.device.index is not None and self.device.type == "cuda":
            torch.cuda.set_device(self.device)  # streams, events and graphs are the current one's
        use_tf32(False)
        if self.size > 1 and not distributed.is_initialized():
            backend = "nccl" if self.device.type == "cuda" else "gloo"
            # Evaluation on rank 0 may take long, and the others wait for it in the next step.
            distributed.init_process_group(backend, timeout=timedelta(hours=6))

    @property
    def first(self) -> bool:
        """Whether this process writes files and talks."""
        return self.rank == 0

    def share(self, n: int) -> slice:
        """This process's rows of a batch of n; the shares may differ by one row."""
        return slice(self.rank, n, self.size)

    def same_weights(self, model: nn.Module) -> None:
        """Everyone takes rank 0's weights: GPUs need not round alike."""
        if self.size > 1:
            for tensor in model.state_dict().values():
                distributed.broadcast(tensor, 0)

    def sum_gradients(self, parameters: Iterable[nn.Parameter], *extra: Tensor) -> list[Tensor]:
        """Add up the gradients of all processes, and the numbers in `extra`, which are returned.

        With each process's loss divided by the size of the *whole* batch the sum is the gradient
        of the whole batch's mean, whatever the shares.  A parameter without gradient counts as 0.
        """
        if self.size == 1:
            return list(extra)
        parameters = list(parameters)
        grads = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
        like = grads[0]
        message = torch.cat([g.reshape(-1) for g in grads] + [e.to(like).reshape(1) for e in extra])
        distributed.all_reduce(message)
        sizes = [g.numel() for g in grads] + [1] * len(extra)
        parts = message.split(sizes)
        for parameter, grad, part in zip(parameters, grads, parts, strict=False):
            # Into the gradient, whose memory format is its parameter's: a fused optimiser walks
            # both from end to end.
            parameter.grad = grad.copy_(part.view_as(grad))
        return [part[0] for part in parts[len(parameters) :]]

    def agree(self, *values: float) -> list[float]:
        """Rank 0's numbers for everyone: whose clock it is, and whether to stop."""
        if self.size == 1:
            return list(values)
        message = torch.tensor(values, dtype=torch.float64, device=self.device)
        distributed.broadcast(message, 0)
        return message.tolist()

    def close(self) -> None:
        """Leave the group, if there is one."""
        if self.size > 1 and distributed.is_initialized():
            distributed.destroy_process_group()
