"""Glow's parent (RealNVP, Dinh et al. 2017): masks instead of permutations."""

from __future__ import annotations

from typing import Literal

import numpy as np

from reference._arrays import Array, as_images, halves, per_example
from reference.flow import Flow
from reference.glow import MultiScale
from reference.network import CouplingNet, Network, as_network, run
from reference.split import Split, TopPrior
from reference.squeeze import Squeeze


def checkerboard_mask(h: int, w: int, parity: int = 0) -> Array:
    """A chess board, shape (h, w, 1): 1 where (i + j) is even (odd with parity 1) (RealNVP fig. 3).

    Not `arange(h·w) % 2`, which gives columns, not a board, whenever w is even.

    Raises ValueError if parity is neither 0 nor 1.

    >>> checkerboard_mask(2, 4)[..., 0].astype(int).tolist()
    [[1, 0, 1, 0], [0, 1, 0, 1]]
    """
    _check_parity(parity)
    i, j = np.indices((h, w))
    return ((i + j + parity) % 2 == 0).astype(np.float64)[..., None]


def channel_mask(c: int, parity: int = 0) -> Array:
    """Shape (1, 1, c): 1 on the first half of the channels (the second with parity 1).

    Raises ValueError if c is odd, or parity neither 0 nor 1.
    """
    _check_parity(parity)
    if c % 2:
        raise ValueError(f"c is {c}; a channel mask takes half of an even number")
    return ((np.arange(c) < c // 2) == (parity == 0)).astype(np.float64)[None, None]


def _check_parity(parity: int) -> None:
    if parity not in (0, 1):
        raise ValueError(f"parity is {parity!r}; accepted: 0, 1")


class MaskedCoupling:
    """Affine coupling through a mask b of zeros and ones (RealNVP §3.4, eq. 9).

    forward:  y = b ⊙ x + (1 − b) ⊙ (x ⊙ s + t),  (log s, t) = NN(b ⊙ x)
    inverse:  x = b ⊙ y + (1 − b) ⊙ (y − t) / s: b ⊙ y = b ⊙ x, so NN says the same
    log-det:  sum((1 − b) ⊙ log s)
    initial:  NN's last layer is zero: the identity
    """

    def __init__(self, mask: Array, net: Network) -> None:
        """Take mask, broadcastable to (H, W, C), and net: (N, H, W, C) -> (N, H, W, 2C).

        Raises:
            TypeError: net is not callable.
            ValueError: the mask has other values than 0 and 1.
        """
        self.mask = np.asarray(mask, dtype=np.float64)
        if not np.isin(self.mask, (0.0, 1.0)).all():
            raise ValueError("mask has values other than 0 and 1")
        self.net = as_network(net)

    def _log_s_and_t(self, kept: Array) -> tuple[Array, Array]:
        log_s, t = halves(run(self.net, kept, 2 * kept.shape[-1]))
        return (1 - self.mask) * log_s, (1 - self.mask) * t

    def forward(self, x: Array) -> tuple[Array, Array]:
        """(N, H, W, C) -> (N, H, W, C), log-det (N,)."""
        x = as_images(x)
        log_s, t = self._log_s_and_t(self.mask * x)
        return x * np.exp(log_s) + t, per_example(log_s, len(x))

    def inverse(self, y: Array) -> Array:
        """(N, H, W, C) -> (N, H, W, C)."""
        y = as_images(y, "y")
        log_s, t = self._log_s_and_t(self.mask * y)
        return (y - t) * np.exp(-log_s)


class Logit:
    """RealNVP's preprocessing, unit interval to the whole line (RealNVP §4.1).

    forward:  y = logit(α + (1 − 2α)·u),  u = x + ½ in [0, 1],  α = 0.05
    inverse:  u = (sigmoid(y) − α) / (1 − 2α)
    log-det:  sum(log(1 − 2α) − log p − log(1 − p)),  p = α + (1 − 2α)·u
    initial:  nothing to learn

    The paper writes logit(α + (1 − α)·u), which reaches logit(1) = ∞ at u = 1; its code scales
    by 1 − 2α, which stays inside at both ends. That is what we do.
    """

    def __init__(self, alpha: float = 0.05) -> None:
        """Raises ValueError unless 0 < alpha < ½."""
        if not 0 < alpha < 0.5:
            raise ValueError(f"alpha is {alpha}; accepted: between 0 and ½")
        self.alpha = alpha

    def forward(self, x: Array) -> tuple[Array, Array]:
        """(N, H, W, C) in [−½, ½] -> real numbers, log-det (N,). ValueError outside."""
        x = as_images(x)
        if np.abs(x.real).max() > 0.5:
            raise ValueError(f"x reaches {np.abs(x.real).max():.3g}; accepted: −½ to ½")
        p = self.alpha + (1 - 2 * self.alpha) * (x + 0.5)
        log_p, log_q = np.log(p), np.log1p(-p)
        return log_p - log_q, per_example(np.log(1 - 2 * self.alpha) - log_p - log_q, len(x))

    def inverse(self, y: Array) -> Array:
        """Real numbers -> (N, H, W, C)."""
        p = 1 / (1 + np.exp(-as_images(y, "y")))
        return (p - self.alpha) / (1 - 2 * self.alpha) - 0.5


class RealNVP(MultiScale):
    """The multi-scale RealNVP (§3.6): three checkerboard couplings, squeeze, three by channel.

    Half of the channels leaves after each level but the last, which has four checkerboard
    couplings and no squeeze. All priors are N(0, 1).

    forward, inverse, log-det, initial: the composition, see `MultiScale` and `MaskedCoupling`.
    """

    @classmethod
    def random(
        cls,
        shape: tuple[int, int, int],
        levels: int,
        width: int,
        rng: np.random.Generator,
        padding: Literal["edge", "zero"] = "zero",
        logit: bool = False,
    ) -> RealNVP:
        """Random non-zero parameters; `logit` puts the preprocessing in front.

        Raises:
            ValueError: a height or width not divisible by 2^(levels − 1).
        """
        h, w, c = shape
        if h % 2 ** (levels - 1) or w % 2 ** (levels - 1):
            raise ValueError(f"{h}×{w} pixels; {levels} levels halve them {levels - 1} times")

        def coupling(mask: Array, c: int) -> MaskedCoupling:
            return MaskedCoupling(mask, CouplingNet.random(c, width, 2 * c, rng, padding))

        flows = []
        for level in range(levels):
            last = level == levels - 1
            layers = [coupling(checkerboard_mask(h, w, k % 2), c) for k in range(4 if last else 3)]
            if not last:
                layers.append(Squeeze("realnvp"))
                h, w, c = h // 2, w // 2, 4 * c
                layers += [coupling(channel_mask(c, k % 2), c) for k in range(3)]
                c //= 2
            flows.append(Flow([Logit(), *layers] if logit and level == 0 else layers))
        top = TopPrior(np.zeros(c), np.zeros(c))
        return cls(shape, flows, [Split() for _ in range(levels - 1)], top)
