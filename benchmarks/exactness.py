"""How far float32 is from float64, after training: round trip, log-det, gradient.

    python -m benchmarks.exactness --depth 8 --width 64

Recipe: a run of glowlite's trainer, begun. The built-in drawn faces in 5 bits, actnorms from the
first batch, `--steps` steps of fused Adam on batches of 16, the rate rising linearly to 1e-3 over
`--warmup` images (with 480 it is there after 30 steps), gradients cut to norm 1. glowlite is
trained once, in the default mode, and measured in every mode with those weights; each peer is
trained the same way and measured on its own weights. The truth is a float64 copy of the same
weights on the same x, 16 other faces; glowlite's goes layer by layer.

round trip  max |f⁻¹(f(x)) − x|, float32
log-det     max |log-det − float64's|, nats, the worst of the images
gradient    ‖g − g₆₄‖ / ‖g₆₄‖, all parameters as one vector

`whole` compares encode's log-det with a dense Jacobian (automatic differentiation, float64, a
tiny model with random weights): whether a library's log-det is right at all.
"""

from __future__ import annotations

import argparse
import copy
import gc
import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from benchmarks.peers import PEERS
from benchmarks.programs import PROGRAMS, Program, Setting
from benchmarks.speed import BUILDERS, LAYOUTS, add_options, setting_of
from glowlite.data import make_faces
from glowlite.evaluate import to_tensor
from glowlite.flow import MEMORY_MODES
from glowlite.likelihood import dequantize
from glowlite.presets import TrainConfig

DEFAULTS = TrainConfig()


def faces(setting: Setting, n: int, split: str) -> Tensor:
    """n dequantised faces, (n, C, H, W) float32."""
    images, _ = make_faces(n, setting.shape[1], 0, split)
    return dequantize(to_tensor(images), setting.n_bits, torch.Generator().manual_seed(1))


def trained(name: str, setting: Setting, steps: int, warmup: int) -> Program:
    """The program after the recipe."""
    torch.manual_seed(0)
    program = BUILDERS[name](setting)
    data = faces(setting, steps * setting.batch, "train").split(setting.batch)
    program.prepare(LAYOUTS["channels-last"], data[0])
    for step, x in enumerate(data, 1):
        for group in program.optimizer.param_groups:
            group["lr"] = DEFAULTS.lr * min(1, step * setting.batch / warmup)
        program.optimizer.zero_grad(set_to_none=True)
        program.backward(x)
        torch.nn.utils.clip_grad_norm_(program.model.parameters(), DEFAULTS.clip)
        program.optimizer.step()
    del program.optimizer
    return program


def gradient(program: Program, x: Tensor) -> list[Tensor]:
    """Of every trainable parameter, in their order."""
    program.model.zero_grad(set_to_none=True)
    program.backward(x)
    used = [p for p in program.model.parameters() if p.requires_grad]
    found = [torch.zeros_like(p) if p.grad is None else p.grad for p in used]
    program.model.zero_grad(set_to_none=True)
    return found


def in_double(program: Program) -> Program:
    """The truth: the same weights in float64, layer by layer where there is a choice."""
    double = copy.copy(program)
    double.model = copy.deepcopy(program.model).double()
    if program.family == "glowlite":
        double.model.memory, double.model.fast = "default", False
    return double


def errors(program: Program, x: Tensor, exact: tuple[Tensor, list[Tensor]]) -> dict[str, Any]:
    """Round trip, log-det and gradient against (log-det, gradient) in float64; None: not finite."""
    latents, logdet = program.encode(x)  # with autograd's graph: memory modes need it to differ
    logdet = logdet.detach()
    with torch.no_grad():
        back = program.decode([z.detach() for z in latents])
        bits = -program.log_prob(x).mean() / (program.setting.dims * math.log(2))
    del latents
    found = gradient(program, x)
    squared = [(((g - e) ** 2).sum(), (e**2).sum()) for g, e in zip(found, exact[1], strict=True)]
    wrong, size = (math.sqrt(float(sum(terms))) for terms in zip(*squared, strict=True))
    row = {
        "bits_per_dim": float(bits) + program.setting.n_bits,
        "round_trip": float((back - x).abs().max()),
        "logdet": float((logdet - exact[0]).abs().max()),
        "gradient": wrong / size,
    }
    return {name: value if math.isfinite(value) else None for name, value in row.items()}


def measure(
    setting: Setting, steps: int, warmup: int, say: Callable[[str], object] = print
) -> list[dict[str, Any]]:
    """A row a mode of glowlite and a peer."""
    rows = []
    x = faces(setting, setting.batch, "test")
    for name in ("glowlite", *PEERS):
        program = trained(name, setting, steps, warmup)
        truth = in_double(program)
        logdet = truth.encode(x.double())[1].detach()
        exact = logdet, gradient(truth, x.double())
        del truth
        about = {"depth": setting.depth, "width": setting.width, "steps": steps, "warmup": warmup}
        if name in PEERS:
            rows.append({"name": name, **about, **errors(program, x, exact)})
        else:
            default = gradient(program, x)
            for mode in MEMORY_MODES:
                program.model.memory = mode
                row = {"name": f"{name} {mode}", **about, **errors(program, x, exact)}
                pairs = zip(gradient(program, x), default, strict=True)
                row["gradient_equals_default"] = all(torch.equal(a, b) for a, b in pairs)
                rows.append(row)
        say(f"exactness: {name}, K {setting.depth}")
        del program, exact
        gc.collect()
    return rows


def whole(name: str) -> dict[str, Any]:
    """A tiny model in float64 against its dense Jacobian, and its round trip."""
    setting = Setting(shape=(3, 4, 8), levels=2, depth=2, width=10, batch=8)
    torch.manual_seed(0)
    program = {**PROGRAMS, **PEERS}[name](setting)
    program.prepare(torch.contiguous_format)
    program = in_double(program)
    g = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for p in program.model.parameters():
            if p.requires_grad:
                p += 0.05 * torch.randn(p.shape, generator=g, dtype=p.dtype)
    x = replace(setting, batch=2).noise_images().double()

    def flat(x: Tensor) -> Tensor:
        return torch.cat([z.flatten(1) for z in program.encode(x)[0]], 1)

    logdet = program.encode(x)[1].detach()
    jacobian = torch.stack([
        torch.autograd.functional.jacobian(lambda one: flat(one[None])[0], image).flatten(1)
        for image in x
    ])  # fmt: skip
    dense = torch.linalg.slogdet(jacobian).logabsdet
    with torch.no_grad():
        back = program.decode(program.encode(x)[0])
    return {
        "name": name,
        "logdet": float((logdet - dense).abs().max()),
        "round_trip": float((back - x).abs().max()),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_options(parser)
    parser.set_defaults(width=256)
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--warmup", type=int, default=DEFAULTS.warmup, metavar="IMAGES")
    options = parser.parse_args()
    from benchmarks.report import exactness_table, whole_table

    print(whole_table([whole(name) for name in ("glowlite", *PEERS)]))
    rows = []
    for depth in options.depth:
        rows += measure(setting_of(options, depth), options.steps, options.warmup)
    print(exactness_table(rows))


if __name__ == "__main__":
    main()
