"""The scoreboard of a trained model: what its layers say against exact Jacobians.

A layer's log-det is one computation, the Jacobian of its y another: automatic differentiation
gives every entry of ∂y/∂x, an LU factorisation its determinant.  Both in float64, on a real image.
"""

from __future__ import annotations

import copy
import hashlib
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from glowlite.actnorm import ActNorm
from glowlite.bench import seconds
from glowlite.checkpoint import write_atomically
from glowlite.conv1x1 import Conv1x1, Conv1x1LU
from glowlite.coupling import Coupling
from glowlite.model import FlowModel
from glowlite.permutation import Permutation
from glowlite.realnvp import Logit, MaskedCoupling
from glowlite.registry import build, describe
from glowlite.split import Split, TopPrior
from glowlite.squeeze import Squeeze

MAX_DIMS = 4096
# Nats.  A comparison that would not notice this much proves nothing.
MAX_TOLERANCE = 1e-3
_EPS = torch.finfo(torch.float64).eps


@dataclass(frozen=True)
class Line:
    """One comparison, in nats: `says` by the layer, `is_` by the Jacobian of size dims × dims."""

    name: str
    dims: int
    says: float
    is_: float
    tolerance: float
    round_trip: float

    @property
    def difference(self) -> float:
        """|says − is|."""
        return abs(self.says - self.is_)

    @property
    def verdict(self) -> str:
        """ "ok", "WRONG", or "UNCERTAIN" where rounding would hide an error of 10⁻³ nats."""
        if not (self.difference <= self.tolerance and self.round_trip <= 1e-6):
            return "WRONG"  # as is anything NaN
        return "ok" if self.tolerance <= MAX_TOLERANCE else "UNCERTAIN"

    @property
    def ok(self) -> bool:
        """Both the log-det and the inverse agree, and a disagreement would have been seen."""
        return self.verdict == "ok"

    def __str__(self) -> str:
        return (
            f"{self.name:<42} {self.dims:>5} {self.says + 0.0:>14.6f} {self.is_ + 0.0:>14.6f} "
            f"{self.difference:>9.1e} {self.tolerance:>9.1e} {self.round_trip:>9.1e}  "
            f"{self.verdict}"
        )


HEAD = (
    f"{'layer':<42} {'D':>5} {'log-det says':>14} {'Jacobian says':>14} {'differ':>9} "
    f"{'allowed':>9} {'and back':>9}"
)


def dense_jacobian(
    f: Callable[[Tensor], Tensor],
    x: Tensor,
    *,
    chunk: int = 128,
    progress: Callable[[int], object] | None = None,
    keep: Path | None = None,
) -> Tensor:
    """∂f/∂x at one example: x (1, …) with D numbers -> (D_out, D), by reverse differentiation.

    Cost: D_out backward passes, `chunk` at a time; memory is one forward pass's activations, and
    `chunk` times the gradient of the largest.  `progress` is called with the rows done.

    keep: a .npy file the rows are written to as they come.  Where it exists the rows in it are
    taken as they are, so a computation that was stopped goes on.  Give each f and x its own.
    """
    x = x.detach().requires_grad_()
    y = f(x).flatten()
    shape = (len(y), x.numel())
    J = np.full(shape, np.nan)
    if keep:
        if not keep.exists():
            # Whole, or not there: zeros would pass for rows that are done.  And by plain writes: on
            # a full disk these raise, where writing through a map kills the process.
            write_atomically(keep, lambda p: _save(p, J))
        J = np.lib.format.open_memmap(keep, mode="r+")
    for start in range(0, len(y), chunk):
        rows = slice(start, min(start + chunk, len(y)))
        if np.isnan(J[rows]).any():
            seeds = torch.eye(len(y), dtype=y.dtype, device=y.device)[rows]
            (part,) = torch.autograd.grad(y, x, seeds, retain_graph=True, is_grads_batched=True)
            J[rows] = part.flatten(1).cpu().numpy()
        if progress:
            progress(rows.stop - rows.start)
    return torch.from_numpy(np.array(J)).to(y)


def _save(path: Path, array: np.ndarray) -> None:
    with open(path, "wb") as file:  # np.save would add .npy to the name
        np.save(file, array)


def compare(
    name: str,
    layer: nn.Module,
    x: Tensor,
    forward: Callable[[Tensor], tuple[Tensor, Tensor]] | None = None,
    inverse: Callable[[Tensor], Tensor] | None = None,
    progress: Callable[[int], object] | None = None,
    keep: Path | None = None,
) -> Line:
    """Compare one bijection's log-det at x, (1, …) float64, with its Jacobian's determinant.

    The tolerance bounds what rounding can do to the determinant: 16·ε·D·κ, κ the condition
    number of J (1-norm), but at least 10⁻⁹.
    """
    forward, inverse = forward or layer.forward, inverse or layer.inverse
    y, says = forward(x)
    J = dense_jacobian(lambda v: forward(v)[0], x, progress=progress, keep=keep)
    with torch.no_grad():
        _, is_ = torch.linalg.slogdet(J)
        condition = float(torch.linalg.cond(J, 1)) if bool(torch.isfinite(is_)) else math.nan
        back = float((inverse(y.detach()) - x).abs().max())
    tolerance = max(1e-9, 16 * _EPS * len(J) * condition)
    return Line(name, len(J), float(says[0].detach()), float(is_), tolerance, back)


def _bijections(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """The layers of the flow by name; what is inside a coupling's net is not one of them."""
    kinds = (ActNorm, Conv1x1, Conv1x1LU, Permutation, Coupling, MaskedCoupling, Logit)
    kinds += (Split, TopPrior, Squeeze)
    inside: list[str] = []
    for name, layer in model.named_modules():
        if any(name.startswith(prefix) for prefix in inside):
            continue
        if isinstance(layer, kinds):
            inside.append(name + ".")
            yield name, layer


def exact_copy(model: FlowModel, shape: tuple[int, int, int] | None = None) -> FlowModel:
    """The model in float64; with `shape`, for images of that shape, weights the same.

    Raises RuntimeError or ValueError if its weights depend on the image's size.
    """
    if shape is None:
        clone = copy.deepcopy(model)
    else:
        clone = build({**describe(model), "shape": list(shape)})
        clone.load_state_dict(model.state_dict())
    clone.memory = "default"
    clone.set_net_dtype(None)
    return clone.to(next(model.parameters()).device).double().eval()


def crop_shape(model: FlowModel) -> tuple[int, int, int]:
    """The smallest size, twice as wide as high, that the model's levels can halve; square where
    twice as wide is more than `MAX_DIMS`."""
    c, h, w = model.shape
    unit = 2 ** getattr(model.config, "levels", 1)
    wide = 1 if c * unit * 2 * unit > MAX_DIMS else 2
    return c, min(unit, h), min(wide * unit, w)


def verify_layers(
    model: FlowModel, images: Tensor, classes: Tensor | None = None
) -> Iterator[Line]:
    """Every layer, at the activations it meets inside the model, cut to 2 × 3 pixels.

    images: uint8 (1, C, H, W).  A layer of more than 4096 dimensions even so is cut to one pixel.
    """
    exact = exact_copy(model)
    met: dict[str, tuple[Tensor, ...]] = {}

    def watch(name: str) -> Callable[..., None]:
        def hook(_layer: nn.Module, args: tuple[Tensor, ...]) -> None:
            met[name] = args

        return hook

    hooks = [layer.register_forward_pre_hook(watch(name)) for name, layer in _bijections(exact)]
    with torch.no_grad():
        exact.encode(exact.middle(images), classes)
    for hook in hooks:
        hook.remove()
    for name, layer in _bijections(exact):
        if name not in met:
            continue
        x, *rest = met[name]
        h, w = (2, 4) if isinstance(layer, Squeeze) else (2, 3)
        if x[0, :, :h, :w].numel() > MAX_DIMS:
            h, w = (2, 2) if isinstance(layer, Squeeze) else (1, 1)
        x = x[..., :h, :w].contiguous()
        if isinstance(layer, MaskedCoupling):
            layer = copy.deepcopy(layer)
            layer.mask = layer.mask[..., :h, :w]
        yield compare(
            f"{name} {type(layer).__name__}",
            layer,
            x,
            forward=lambda v, layer=layer, rest=rest: layer(v, *rest),
            inverse=lambda v, layer=layer, rest=rest: layer.inverse(v, *rest),
        )


def verify_map(
    model: FlowModel,
    images: Tensor,
    classes: Tensor | None = None,
    *,
    full: bool = False,
    progress: Callable[[int], object] | None = None,
    folder: Path | None = None,
) -> Line:
    """The whole map x -> z: its accumulated log-det against its dense Jacobian.

    images: uint8 (1, C, H, W), cut to `crop_shape` unless `full`.  folder: where rows are kept
    while it runs, in a file for these weights and this image; stopped, the next call goes on.

    Raises ValueError above 4096 dimensions: the matrix alone would take more than 128 MB and the
    determinant minutes.
    """
    shape = model.shape if full else crop_shape(model)
    try:
        exact = exact_copy(model, None if full else shape)
    except (RuntimeError, ValueError):  # NICE: no crop of its own
        shape, exact = model.shape, exact_copy(model)
    if math.prod(shape) > MAX_DIMS:
        raise ValueError(
            f"an image of shape {shape} has {math.prod(shape)} dimensions; "
            f"the dense Jacobian is for at most {MAX_DIMS}"
        )
    _, h, w = shape
    images = images[:, :, :h, :w].to(next(exact.parameters()).device)
    x = exact.middle(images)
    name = f"the whole map, {h}×{w}"
    keep = folder and folder / f"jacobian-{_fingerprint(exact, x)}.npy"
    line = compare(
        name,
        exact,
        x,
        forward=lambda v: exact(v, classes),
        inverse=lambda z: exact.inverse(z, classes),
        progress=progress,
        keep=keep,
    )
    if keep:
        keep.unlink()
    return line


def _fingerprint(model: nn.Module, x: Tensor) -> str:
    digest = hashlib.sha256()
    for tensor in (*model.state_dict().values(), x):
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


def estimate_seconds(model: FlowModel, images: Tensor, classes: Tensor | None = None) -> float:
    """How long `verify_map(full=True)` will take here: one chunk of rows timed, times their number.

    The determinant of the matrix is timed on a smaller one, D³.
    """
    exact = exact_copy(model)
    device = next(exact.parameters()).device
    images = images.to(device)
    x = exact.middle(images).requires_grad_()
    y = exact(x, classes)[0].flatten()
    chunk, dims = 16, len(y)
    seeds = torch.eye(dims, dtype=y.dtype, device=device)[:chunk]

    def once() -> None:
        torch.autograd.grad(y, x, seeds, is_grads_batched=True, retain_graph=True)

    small = torch.eye(512, dtype=torch.float64, device=device)

    def solve() -> None:
        torch.linalg.slogdet(small)
        torch.linalg.inv(small)

    rows = seconds(once, device, repeats=1) * dims / chunk
    return rows + seconds(solve, device, repeats=1) * (dims / 512) ** 3


@torch.no_grad()
def float32_gap(
    model: FlowModel, images: Tensor, classes: Tensor | None = None
) -> dict[str, float]:
    """The model as it runs against its float64 copy: largest gap of the log-dets in nats, and
    both round trips."""
    exact = exact_copy(model)
    x = model.middle(images)
    latents, logdet = model.encode(x, classes)
    exact_latents, exact_logdet = exact.encode(x.double(), classes)
    back = model.decode(latents, classes)
    exact_back = exact.decode(exact_latents, classes)
    return {
        "logdet": float((logdet - exact_logdet).abs().max()),
        "round_trip": float((back - x).abs().max()),
        "round_trip_float64": float((exact_back - x.double()).abs().max()),
    }
