"""Slides "Affine coupling" and "Additive coupling": half of the channels rules the other half."""

from __future__ import annotations

from typing import Literal

import numpy as np

from reference._arrays import Array, as_images, halves, per_example
from reference.network import Network, as_network, run


class AffineCoupling:
    """Scale and shift one half by what a network says of the other (slide "Affine coupling").

    forward:  x_a, x_b = split(x);  (log s, t) = NN(x_b);  s = exp(log s)
              y_a = s ⊙ x_a + t;  y_b = x_b;  y = concat(y_a, y_b)
    inverse:  x_a = (y_a − t) / s;  x_b = y_b: NN sees the same x_b again and is never inverted
    log-det:  sum(log|s|), over all pixels and channels of x_a, per example
    initial:  NN's last layer is zero, so s = 1, t = 0: the identity

    scale="exp" is the text of the slide and of the paper (Glow §3.3). scale="sigmoid" is what
    the authors ran: s = sigmoid(NN's first half + 2), in (0, 1), which bounds the gradients,
    and the shift comes first, y_a = s ⊙ (x_a + t).  (Theirs takes every second channel of NN, and
    moves x_b: the same but for the order.)
    """

    def __init__(self, net: Network, scale: Literal["exp", "sigmoid"] = "exp") -> None:
        """Take net: (N, H, W, C/2) -> (N, H, W, C), its channels being (log s, t).

        Raises:
            TypeError: net is not callable.
            ValueError: an unknown scale.
        """
        if scale not in ("exp", "sigmoid"):
            raise ValueError(f"scale is {scale!r}; accepted: 'exp', 'sigmoid'")
        self.net, self.scale = as_network(net), scale

    def _log_s_and_t(self, x_b: Array) -> tuple[Array, Array]:
        raw, t = halves(run(self.net, x_b, 2 * x_b.shape[-1]))
        if self.scale == "sigmoid":
            log_s = -np.logaddexp(0, -(raw + 2))  # log sigmoid, without overflow
            return log_s, np.exp(log_s) * t  # s ⊙ (x_a + t) = s ⊙ x_a + s ⊙ t
        return raw, t

    def forward(self, x: Array) -> tuple[Array, Array]:
        """(N, H, W, C) -> (N, H, W, C), log-det (N,). Raises ValueError if C is odd."""
        x_a, x_b = halves(as_images(x))
        log_s, t = self._log_s_and_t(x_b)
        y = np.concatenate([np.exp(log_s) * x_a + t, x_b], axis=-1)
        return y, per_example(log_s, len(x))

    def inverse(self, y: Array) -> Array:
        """(N, H, W, C) -> (N, H, W, C). Raises ValueError if C is odd."""
        y_a, y_b = halves(as_images(y, "y"), "y")
        log_s, t = self._log_s_and_t(y_b)
        return np.concatenate([(y_a - t) * np.exp(-log_s), y_b], axis=-1)


class AdditiveCoupling:
    """The coupling with s = 1 (slide "Additive coupling"; NICE §3.2).

    forward:  y_a = x_a + NN(x_b);  y_b = x_b
    inverse:  x_a = y_a − NN(y_b);  x_b = y_b
    log-det:  0, as s = 1
    initial:  NN's last layer is zero: the identity
    """

    def __init__(self, net: Network) -> None:
        """Take net: (N, H, W, C/2) -> (N, H, W, C/2). Raises TypeError if it is not callable."""
        self.net = as_network(net)

    def forward(self, x: Array) -> tuple[Array, Array]:
        """(N, H, W, C) -> (N, H, W, C), zeros (N,). Raises ValueError if C is odd."""
        x_a, x_b = halves(as_images(x))
        t = run(self.net, x_b, x_b.shape[-1])
        return np.concatenate([x_a + t, x_b], axis=-1), np.zeros(len(x))

    def inverse(self, y: Array) -> Array:
        """(N, H, W, C) -> (N, H, W, C). Raises ValueError if C is odd."""
        y_a, y_b = halves(as_images(y, "y"), "y")
        t = run(self.net, y_b, y_b.shape[-1])
        return np.concatenate([y_a - t, y_b], axis=-1)
