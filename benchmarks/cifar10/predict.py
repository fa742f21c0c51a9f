"""What the arithmetic and the bytes of a training step allow on one GPU, before measuring.

    python -m benchmarks.cifar10.predict                     the table in results/cifar10/README.md
    python -m benchmarks.cifar10.predict --depth 16 --width 760
    python -m benchmarks.cifar10.predict --device h200

The model is a roofline: each operation takes as long as its arithmetic at the rate of a large
matrix product, or as its bytes at the bandwidth of a large copy, whichever is longer, and one
follows the other.  Counted are the coupling nets, 98 % of a step's arithmetic: per step of flow
three products forward, for each the gradients of its input and of its weights, and the passes
over the two hidden layers.  Around them, in float32, every pass over the C channels of the flow.

Two ways of running the same function bracket what can be had:

fused      ReLU, its gradient and the actnorms are done where a product is written or read: a
           hidden layer is written once and read once by each product that needs it
unfused    each of those is a pass of its own, one read and one write
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from unittest.mock import patch

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from glowlite import Glow, fused
from glowlite.glow import GlowConfig
from glowlite.schedule import make_optimizer

BATCHES = (64, 128, 256, 512, 1024)


@dataclass(frozen=True)
class Device:
    """flops: of a large bf16 product a second; bandwidth: bytes a second, read and written;
    launch: seconds a kernel launched from Python takes the host; kernel: the least it takes on the
    device, replayed from a graph; memory: bytes."""

    name: str
    flops: float
    bandwidth: float
    launch: float
    kernel: float
    memory: float


#: Rate and bandwidth as measured on one such card each (an 8192³ product of random numbers; a
#: large copy).  Launch and kernel are assumptions, to be replaced by measurements.
H100 = Device("NVIDIA H100 80GB HBM3", 798e12, 3.0e12, 6e-6, 2e-6, 78 * 2**30)
H200 = Device("NVIDIA H200", 788e12, 4.3e12, 6e-6, 2e-6, 139 * 2**30)
DEVICES = {"h100": H100, "h200": H200}


@dataclass(frozen=True)
class Work:
    """Of one operation on one image: floating-point operations, and bytes that must move."""

    flops: float
    moved: float

    def seconds(self, device: Device, images: int) -> float:
        """The longer of the two, for a batch."""
        return images * max(self.flops / device.flops, self.moved / device.bandwidth)


def net_work(config: GlowConfig, fused: bool, net_bytes: int = 2) -> Iterator[Work]:
    """Every operation of a training step, per image: forward, then both gradients.

    net_bytes: of a number in the nets, 2 for bf16.  The weights' own bytes do not depend on the
    batch and are left out here, see `step_seconds`.
    """
    c, h, w = config.shape
    width, affine = config.width, config.coupling == "affine"
    for _ in range(config.levels):
        c, h, w = 4 * c, h // 2, w // 2
        pixels = h * w
        products = ((c // 2, 9), (width, 1), (width, 9))
        outs = (width, width, c if affine else c // 2)
        for _ in range(config.depth):
            for (c_in, taps), c_out in zip(products, outs, strict=True):
                flops = 2.0 * pixels * taps * c_in * c_out
                moved = net_bytes * pixels * (c_in + c_out)
                yield from (Work(flops, moved),) * 3
            if not fused:  # actnorm and ReLU forward, their gradients: two layers, four passes
                yield Work(0.0, 2 * 4 * 2 * net_bytes * pixels * width)
            # Actnorm with the 1×1 product, and the coupling: forward, and about twice back.
            yield Work(2.0 * 3 * pixels * c * c, 3 * 2 * 2 * 4 * pixels * c)
        c //= 2


def kernels(config: GlowConfig) -> Iterator[tuple[int, int]]:
    """Rows and columns of every kernel of the coupling nets, as a matrix."""
    c, width = config.shape[0], config.width
    for _ in range(config.levels):
        c *= 4
        last = c if config.coupling == "affine" else c // 2
        yield from ((width, 9 * c // 2), (width, width), (last, 9 * width)) * config.depth
        c //= 2


def parameters(config: GlowConfig) -> int:
    """Weights of the coupling nets and 1×1 convolutions, without the small vectors."""
    mixing = sum((4 * config.shape[0] * 2**level) ** 2 for level in range(config.levels))
    return sum(r * c for r, c in kernels(config)) + config.depth * mixing


def step_seconds(config: GlowConfig, device: Device, batch: int, fused: bool) -> float:
    """A training step of `batch` images, launches not counted."""
    nets = sum(work.seconds(device, batch) for work in net_work(config, fused))
    return nets + sum(work.seconds(device, 1) for work in optimizer_work(config))


def optimizer_work(config: GlowConfig) -> tuple[Work, Work]:
    """Muon's step and the average of the weights, whatever the batch.

    Five times the three products of `muon.orthogonalize` for each kernel.  Moved, in bytes a
    weight: momentum 12, what lies ahead of it 12, stacked 8, in 16 bits 6 and back 6, scaled 8,
    subtracted 12, averaged 12; the products' own traffic is in their rate.
    """
    sides = (sorted(kernel) for kernel in kernels(config))
    flops = sum(2.0 * 5 * (2 * r * r * longer + r**3) for r, longer in sides)
    return Work(flops, 0.0), Work(0.0, 76 * parameters(config))


def training_flops(config: GlowConfig) -> float:
    """Floating-point operations of one training image: forward once, backward twice."""
    return sum(work.flops for work in net_work(config, fused=True))


class _Count(TorchDispatchMode):
    """Counts operations that compute; views and unwritten memory are free."""

    FREE = {
        "empty", "empty_like", "new_empty", "empty_strided", "new_empty_strided", "lift_fresh",
        "view", "_unsafe_view", "reshape", "permute", "transpose", "t", "expand", "slice",
        "select", "unfold", "split", "chunk", "detach", "alias", "as_strided", "diagonal",
        "unsqueeze", "squeeze", "_reshape_alias", "split_with_sizes", "unbind", "movedim",
    }  # fmt: skip

    def __init__(self) -> None:
        super().__init__()
        self.found = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = function.overloadpacket.__name__
        onto_itself = name == "copy_" and args[0].data_ptr() == args[1].data_ptr()  # after +=
        self.found += name not in self.FREE and not onto_itself
        return function(*args, **(kwargs or {}))


def launches(levels: int, depth: int, fast: bool = True) -> int:
    """Operations of one training step, each about one kernel: counted on a CPU.

    Forward, backward and Muon.  Their number depends on how the step is written, not on how wide
    it is.
    """
    side = 2**levels
    model = Glow(shape=(3, side, side), levels=levels, depth=depth, width=4)
    images = torch.zeros(2, 3, side, side, dtype=torch.uint8)
    images[1] = 255
    model.initialize(images, noise=torch.rand(images.shape))
    model.fast = fast
    model.set_net_dtype(torch.bfloat16)
    optimizer = make_optimizer("muon", model.parameters(), lr=1e-3)
    count = _Count()
    with patch.object(fused, "TOGETHER", depth):  # as on a GPU
        for within in (nullcontext(), count):  # the first step makes the optimiser's state
            with within:
                optimizer.zero_grad()
                model.loss(images, noise=torch.full(images.shape, 0.5))[0].backward()
                optimizer.step()
    return count.found


def activation_bytes(config: GlowConfig, net_bytes: int = 2) -> float:
    """What back-propagation keeps of one image in the default mode: both hidden layers of each
    net, and about five float32 numbers a channel and pixel of the flow."""
    c, h, w = config.shape
    total = 0.0
    for _ in range(config.levels):
        c, h, w = 4 * c, h // 2, w // 2
        total += config.depth * h * w * (2 * config.width * net_bytes + 5 * 4 * c)
        c //= 2
    return total


def table(config: GlowConfig, device: Device = H100) -> str:
    """Markdown: predicted images a second at each batch, and what was measured: nothing yet."""
    count = {fast: launches(config.levels, config.depth, fast) for fast in (True, False)}
    flops, kept = training_flops(config), activation_bytes(config)
    lines = [
        f"{flops / 1e9:.1f} GFLOP a training image; at {device.flops / 1e12:.0f} TFLOP/s no more "
        f"than {device.flops / flops:,.0f} images/s.",
        f"Operations of a step: {count[True]:,} fused, {count[False]:,} layer "
        f"by layer; at {device.launch * 1e6:.0f} µs each the host needs "
        f"{1e3 * device.launch * count[True]:.0f} and {1e3 * device.launch * count[False]:.0f} ms "
        f"a step; replayed by a graph, {device.kernel * 1e6:.0f} µs each on the device are "
        f"{1e3 * device.kernel * count[True]:.0f} and "
        f"{1e3 * device.kernel * count[False]:.0f} ms.",
        f"Kept for the way back: {kept / 2**20:.1f} MiB an image; nine tenths of "
        f"{device.memory / 2**30:.0f} GiB hold about {int(0.9 * device.memory / kept):,} images.",
        "",
        "| batch | bound, fused | bound, unfused | graph, about | eager, not above | measured |",
        "|---|---|---|---|---|---|",
    ]
    for batch in BATCHES:
        fused, unfused = (step_seconds(config, device, batch, f) for f in (True, False))
        graph = unfused + device.kernel * count[True]  # nearly all of them are that small
        eager = max(graph, device.launch * count[True])
        speeds = [f"{batch / t:,.0f}" for t in (fused, unfused, graph, eager)]
        lines.append(f"| {batch} | " + " | ".join(speeds) + " | not measured |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, value in (("levels", 3), ("depth", 32), ("width", 512)):
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--device", choices=DEVICES, default="h100")
    options = vars(parser.parse_args())
    device = DEVICES[options.pop("device")]
    print(table(GlowConfig(shape=(3, 32, 32), **options), device))


if __name__ == "__main__":
    main()
