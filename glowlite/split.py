"""Slide "Split": half of the channels leave the flow early, as latents."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from glowlite._tensors import check_channels, halves, per_example, same_for_all
from glowlite.actnorm import LOG_SCALE_FACTOR
from glowlite.network import ZeroConv, ZeroLinear, check_output


class Split(nn.Module):
    """Factor half of the channels out, whitened by a Gaussian learned from the other half
    (slide "Split"; RealNVP §3.6, Glow §3, fig. 2).

    (mean, log_sd) = halves(prior(h)), where (h, x₂) = halves(x):

    forward:  y = concat(h, ε), ε = (x₂ − mean) / exp(log_sd)
    inverse:  x₂ = mean + exp(log_sd) · ε
    log-det:  −sum(log_sd)
    initial:  the prior is a zero convolution: mean 0, sd 1, so y = x

    Writing x₂ ~ N(mean, sd²) is the same as ε ~ N(0, I) with this log-det: the prior is an
    affine coupling in disguise, and the model can keep ε as a latent and go on with h.
    learned=False leaves x₂ as it is.

    Raises ValueError for an odd number of channels.
    """

    def __init__(self, channels: int, *, learned: bool = True, padding: str = "edge") -> None:
        super().__init__()
        if channels % 2:
            raise ValueError(f"channels is {channels}; a split needs an even number")
        self.prior = ZeroConv(channels // 2, channels, padding=padding) if learned else None

    def _moments(self, h: Tensor) -> tuple[Tensor, Tensor]:
        moments = self.prior(h)
        check_output(moments, h, 2 * h.shape[1], "the prior's output")
        return halves(moments)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(N, C, H, W) -> (N, C, H, W), log-det (N,) float64.

        Raises ValueError on odd C, or where the prior gives another shape than is used.
        """
        h, x2 = halves(x)
        if self.prior is None:
            return x, same_for_all(0.0, x)
        mean, log_sd = self._moments(h)
        return torch.cat([h, (x2 - mean) * (-log_sd).exp()], 1), -per_example(log_sd)

    def inverse(self, y: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C, H, W). Raises ValueError on odd C."""
        h, eps = halves(y, "y")
        if self.prior is None:
            return y
        mean, log_sd = self._moments(h)
        return torch.cat([h, mean + eps * log_sd.exp()], 1)


class TopPrior(nn.Module):
    """The Gaussian of the last latents, as one more bijection (Glow's code, `learntop`).

    (mean, log_sd) = halves(bias · exp(3·logs) + class offset), one number per channel:

    forward:  ε_ij = (z_ij − mean) / exp(log_sd)
    inverse:  z_ij = mean + exp(log_sd) · ε_ij
    log-det:  −h · w · sum(log_sd)
    initial:  mean 0, sd 1, whatever the class

    The authors apply a zero convolution to an image of zeros, whose weights multiply nothing
    but zeros (and, with edge padding, ones along the border): only its bias and scale are kept.
    The class offset (`n_classes` > 0, the authors' `ycond`) is a zero linear map of the one-hot
    class.
    """

    def __init__(self, channels: int, *, learned: bool = True, n_classes: int = 0) -> None:
        super().__init__()
        self.channels, self.n_classes = channels, n_classes
        self.bias = nn.Parameter(torch.zeros(2 * channels)) if learned else None
        self.logs = nn.Parameter(torch.zeros(2 * channels)) if learned else None
        self.offset = ZeroLinear(n_classes, 2 * channels) if n_classes else None

    def moments(self, like: Tensor, classes: Tensor | None) -> tuple[Tensor, Tensor]:
        """mean and log_sd for the latents `like`: (1, C, 1, 1), or (N, C, 1, 1) with classes.

        Raises:
            ValueError: `like` has not C channels;
                the prior is class-conditional and `classes` is None, or the reverse;
                there is not one class for each of the latents; or, but on a GPU, where that would
                make the host wait, a class is no int64 in 0 … n_classes − 1.
            TypeError: classes is no tensor.
        """
        check_channels(like, self.channels, "z")
        if (classes is None) != (self.offset is None):
            wanted = f"(N,) int64 in 0 … {self.n_classes - 1}" if self.offset else "None"
            raise ValueError(f"classes is {classes!r}; this model takes {wanted}")
        if classes is not None and not isinstance(classes, Tensor):
            raise TypeError(f"classes is a {type(classes).__name__}; accepted: a tensor or None")
        if classes is not None and classes.shape != like.shape[:1]:
            raise ValueError(
                f"classes has shape {tuple(classes.shape)}; accepted: {tuple(like.shape[:1])}, "
                "one for each image"
            )
        m = like.new_zeros(1, 2 * self.channels)
        if self.bias is not None:
            m = m + self.bias * (LOG_SCALE_FACTOR * self.logs).exp()
        if self.offset is not None:
            try:
                one_hot = F.one_hot(classes, self.n_classes)
            except RuntimeError as error:  # PyTorch has looked, and says neither number
                raise ValueError(
                    f"classes are {classes.dtype}, {classes.min()} … {classes.max()}; accepted: "
                    f"torch.int64, 0 … {self.n_classes - 1}"
                ) from error
            m = m + self.offset(one_hot.to(like.dtype))
        return halves(m[:, :, None, None])

    def forward(self, z: Tensor, classes: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """(N, C, H, W), classes (N,) int64 -> (N, C, H, W), log-det (N,) float64."""
        mean, log_sd = self.moments(z, classes)
        pixels = math.prod(z.shape[2:])
        logdet = -pixels * per_example(log_sd)
        return (z - mean) * (-log_sd).exp(), logdet.expand(z.shape[0])

    def inverse(self, eps: Tensor, classes: Tensor | None = None) -> Tensor:
        """(N, C, H, W), classes (N,) int64 -> (N, C, H, W)."""
        mean, log_sd = self.moments(eps, classes)
        return mean + eps * log_sd.exp()
