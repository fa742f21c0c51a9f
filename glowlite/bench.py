"""How long a step, a likelihood and a sample take here, beside what the arithmetic alone needs."""

from __future__ import annotations

import copy
import statistics
import time
from collections.abc import Callable

import torch

from glowlite.info import macs
from glowlite.model import FlowModel
from glowlite.schedule import make_optimizer


def seconds(work: Callable[[], object], device: torch.device, repeats: int = 5) -> float:
    """Median time of `work` after one call to warm up; waits for the device."""

    def once() -> float:
        began = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return time.perf_counter() - began

    once()
    return statistics.median(once() for _ in range(repeats))


def multiply_adds_a_second(device: torch.device, n: int = 1024) -> float:
    """What this device reaches on an n × n float32 matrix product."""
    a = torch.randn(n, n, device=device)
    return n**3 / seconds(lambda: a @ a, device)


def measure(model: FlowModel, batch: int = 64, optimizer: str = "adam") -> str:
    """A table: milliseconds for a batch, images a second, and the floor.

    optimizer: what a training step ends with, a name that `make_optimizer` takes.

    The floor is the time the model's multiply-adds take at the speed of a large matrix product on
    the same device: forward once, and for training twice more backward.  It is not reachable:
    3 × 3 convolutions on few channels never run at that speed.
    """
    device = next(model.parameters()).device
    generator = torch.Generator(device).manual_seed(0)
    images = torch.randint(
        256, (batch, *model.shape), dtype=torch.uint8, generator=generator, device=device
    )
    classes = torch.zeros(batch, dtype=torch.long, device=device) if model.n_classes else None
    if not model.initialized:  # by noise: the caller's own is left as it is
        model = copy.deepcopy(model)
        model.initialize(images, classes, generator=generator)
    stepper = make_optimizer(optimizer, model.parameters(), lr=0.0)  # moves nothing

    def step() -> None:
        stepper.zero_grad(set_to_none=True)
        model.loss(images, classes, generator=generator)[0].backward()
        stepper.step()

    @torch.no_grad()
    def likelihood() -> None:
        model.bits_per_dim(images, classes, generator=generator)

    speed = multiply_adds_a_second(device)
    floor = batch * macs(model) / speed
    rows = [
        ("training step", step, 3),
        ("bits/dim", likelihood, 1),
        ("sampling", lambda: model.sample(batch, temperature=0.7, classes=classes), 1),
    ]
    lines = [
        f"batch {batch} of {' × '.join(map(str, model.shape))} on {device}, "
        f"{torch.get_num_threads()} threads, trained by {optimizer}; a large matrix product: "
        f"{speed / 1e9:.1f} billion multiply-adds a second",
        f"{'':<14} {'ms a batch':>11} {'images/s':>9} {'floor, ms':>10}",
    ]
    for name, work, passes in rows:
        taken = seconds(work, device)
        lines.append(
            f"{name:<14} {1e3 * taken:>11.1f} {batch / taken:>9.0f} {1e3 * floor * passes:>10.1f}"
        )
    return "\n".join(lines)
