"""Slide "Affine coupling layers": one half of the channels moves, told by the other how."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from glowlite._tensors import halves, per_example, same_for_all
from glowlite.flow import Gradients, gradients
from glowlite.network import check_output

SCALES = ("sigmoid", "exp")


class Conditioned(nn.Module):
    """A layer with a net inside that is evaluated, never inverted.

    `net_dtype` (torch.bfloat16, say) runs the net alone in that dtype under autocast; the flow
    and its log-dets stay as they are. None: the net computes as the flow does.
    """

    net_dtype: torch.dtype | None = None

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def condition(self, x: Tensor) -> Tensor:
        """The net's output for x, in the flow's dtype."""
        if self.net_dtype is None:
            return self.net(x)
        with torch.autocast(x.device.type, dtype=self.net_dtype):
            h = self.net(x)
        return h.to(x.dtype)


class Coupling(Conditioned):
    """What both couplings share: y_a = T(x_a; net(x_b)), y_b = x_b, y = concat(y_a, y_b).

    A subclass gives `transform` and `inverse_transform` of x_a, given the net's output h, and how
    many numbers of it there are for each of x_a: `outputs`.
    """

    outputs: int

    def condition(self, x: Tensor) -> Tensor:
        """The net's output for x. Raises ValueError for another shape than is used."""
        h = super().condition(x)
        check_output(h, x, self.outputs * x.shape[1], "the coupling net's output")
        return h

    def transform(self, x_a: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        """y_a and the log-det, (N,) float64."""
        raise NotImplementedError

    def inverse_transform(self, y_a: Tensor, h: Tensor) -> Tensor:
        """x_a."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(N, C, H, W) -> (N, C, H, W), log-det (N,) float64. Raises ValueError on odd C."""
        x_a, x_b = halves(x)
        y_a, logdet = self.transform(x_a, self.condition(x_b))
        return torch.cat([y_a, x_b], 1), logdet

    def inverse(self, y: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C, H, W). Raises ValueError on odd C."""
        y_a, y_b = halves(y, "y")
        return torch.cat([self.inverse_transform(y_a, self.condition(y_b)), y_b], 1)

    def rewind(self, y: Tensor, gy: Tensor, glogdet: Tensor) -> tuple[Tensor, Tensor, Gradients]:
        """As `flow.rewind`, but one evaluation of the net serves both inverse and gradient."""
        y_a, y_b = halves(y)
        gy_a, gy_b = halves(gy)
        x_b = y_b.detach().requires_grad_()
        with torch.enable_grad():
            h = self.condition(x_b)
        h_leaf = h.detach().requires_grad_()
        x_a = self.inverse_transform(y_a, h_leaf).requires_grad_()
        with torch.enable_grad():
            outputs = self.transform(x_a, h_leaf)
        gx_a, gh = gradients(outputs, (gy_a, glogdet), (x_a, h_leaf))
        parameters = [p for p in self.net.parameters() if p.requires_grad]
        gx_b, *found = gradients([h], [gh], [x_b, *parameters])
        x = torch.cat([x_a, y_b], 1)
        gx = torch.cat([gx_a, gy_b + gx_b], 1)
        return x, gx, dict(zip(parameters, found, strict=True))


class AffineCoupling(Coupling):
    """Scale and shift one half by what a net reads in the other (Glow §3.3, Table 1).

    (raw, t) = halves(net(x_b)), and y_b = x_b in both forms:

    forward:  scale="exp", the slide:            s = exp(raw),         y_a = s ⊙ x_a + t
              scale="sigmoid", the authors' code: s = sigmoid(raw + 2), y_a = s ⊙ (x_a + t)
    inverse:  exp: x_a = (y_a − t) / s;  sigmoid: x_a = y_a / s − t
    log-det:  sum(log s), over channels and pixels
    initial:  the net's last layer is zero: s = 1 (exp) or sigmoid(2) ≈ 0.88, t = 0

    The sigmoid bounds s and its gradient, so early training does not blow up; small s still
    makes a large inverse. Raises ValueError for another scale.
    """

    outputs = 2

    def __init__(self, net: nn.Module, scale: str = "sigmoid") -> None:
        super().__init__(net)
        if scale not in SCALES:
            raise ValueError(f"scale is {scale!r}; accepted: {', '.join(SCALES)}")
        self.scale = scale

    def transform(self, x_a: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        raw, t = halves(h, "the coupling net's output")
        if self.scale == "exp":
            return raw.exp() * x_a + t, per_example(raw)
        return torch.sigmoid(raw + 2) * (x_a + t), per_example(F.logsigmoid(raw + 2))

    def inverse_transform(self, y_a: Tensor, h: Tensor) -> Tensor:
        raw, t = halves(h, "the coupling net's output")
        if self.scale == "exp":
            return (y_a - t) / raw.exp()
        return y_a / torch.sigmoid(raw + 2) - t

    def extra_repr(self) -> str:
        return f"scale={self.scale!r}"


class AdditiveCoupling(Coupling):
    """The affine coupling with s = 1 (slide "Additive coupling"; NICE §3.2, Glow §3.3).

    forward:  y_a = x_a + net(x_b), y_b = x_b
    inverse:  x_a = y_a − net(y_b)
    log-det:  0: it moves points and never changes a volume
    initial:  the net's last layer is zero: the identity
    """

    outputs = 1

    def transform(self, x_a: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        return x_a + h, same_for_all(0.0, x_a)

    def inverse_transform(self, y_a: Tensor, h: Tensor) -> Tensor:
        return y_a - h
