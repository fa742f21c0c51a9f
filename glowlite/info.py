"""The architecture as text, from shapes a forward pass really met."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from glowlite.model import FlowModel


@torch.no_grad()
def macs(model: FlowModel) -> int:
    """Multiply-adds that one image more costs forward: convolutions and matrix products, counted
    live, layer by layer. What is done once a batch, such as edge padding's map, is not in it.
    """
    weight = next(model.parameters())
    was, model.fast = model.fast, False

    def flops(n: int) -> int:
        x = weight.new_zeros(n, *model.shape)
        classes = weight.new_zeros(n, dtype=torch.long) if model.n_classes else None
        with FlopCounterMode(display=False) as counter:
            model.encode(x, classes)
        return counter.get_total_flops()

    try:
        return (flops(2) - flops(1)) // 2
    finally:
        model.fast = was


def parameters(module: nn.Module) -> int:
    """Trainable numbers."""
    return sum(p.numel() for p in module.parameters())


@torch.no_grad()
def draw(model: FlowModel) -> str:
    """Boxes for the levels with the shapes that pass between them, and the latents that leave.

    >>> from glowlite import Glow
    >>> print(draw(Glow(shape=(3, 8, 16), levels=2, depth=1, width=4)).splitlines()[0])
    image                        3 × 8 × 16        384 numbers
    """
    shapes: dict[str, tuple[Tensor, Tensor]] = {}

    def watch(name: str) -> Callable[..., None]:
        def hook(_layer: nn.Module, args: tuple, out: tuple) -> None:
            shapes[name] = (args[0], out[0])

        return hook

    hooks = [
        layer.register_forward_hook(watch(name))
        for name, layer in model.named_modules()
        if name and hasattr(layer, "inverse")
    ]
    x = torch.zeros(1, *model.shape, dtype=next(model.parameters()).dtype)
    x = x.to(next(model.parameters()).device)
    classes = torch.zeros(1, dtype=torch.long, device=x.device) if model.n_classes else None
    latents, _ = model.encode(x, classes)
    for hook in hooks:
        hook.remove()

    lines = [_line("image", x)]
    levels = list(getattr(model, "levels", []))
    for i, level in enumerate(levels):
        _, out = shapes[f"levels.{i}"]
        lines += ["  │", f"  ├─ level {i + 1}: {_contents(level)}"]
        lines.append(_line("  │", out, f"{parameters(level):,} parameters"))
        if i < len(latents) - 1:
            note = f"{parameters(model.splits[i]):,} parameters"
            lines.append(_line("  ├──▶ split, latent", latents[i], note))
    if not levels:
        lines += ["  │", f"  ├─ {_contents(model)}"]
    top = getattr(model, "top", None)
    note = f"{parameters(top):,} parameters" if top is not None else ""
    lines += ["  │", _line("  └──▶ top latent", latents[-1], note)]
    config = model.config.to_dict()
    options = ", ".join(f"{k} {v}" for k, v in config.items() if k not in ("model", "shape"))
    lines += [
        "",
        f"{type(model).__name__}: {parameters(model):,} parameters, "
        f"{macs(model) / 1e6:,.4g} million multiply-adds an image forward",
        options,
    ]
    return "\n".join(lines)


def _line(label: str, x: Tensor, note: str = "") -> str:
    shape = " × ".join(str(n) for n in x.shape[1:])
    return f"{label:<24} {shape:>14} {x[0].numel():>10,} numbers" + (f"   {note}" if note else "")


def _contents(module: nn.Module) -> str:
    """The kinds of layers in a level, with how many of each; nets inside couplings left out."""
    count: dict[str, int] = defaultdict(int)

    def visit(parent: nn.Module) -> None:
        for child in parent.children():
            parts = [c for c in child.children() if hasattr(c, "inverse")]
            if (parts and not hasattr(child, "net")) or isinstance(child, nn.ModuleList):
                visit(child)
            elif hasattr(child, "inverse"):
                count[type(child).__name__] += 1

    visit(module)
    return ", ".join(f"{n} × {kind}" if n > 1 else kind for kind, n in count.items())
