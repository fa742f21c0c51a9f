"""Slides "The model" and "Composition": a flow is bijections, one after the other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import numpy as np

from reference._arrays import Array


@runtime_checkable
class Layer(Protocol):
    """A bijection that knows how much it stretches space.

    forward:  y = f(x), and log|det ∂y/∂x|, natural logarithm, one number per example, shape (N,)
    inverse:  x = f⁻¹(y)
    """

    def forward(self, x: Array) -> tuple[Array, Array]: ...

    def inverse(self, y: Array) -> Array: ...


class Flow:
    """The composition f = f_K ∘ … ∘ f₂ ∘ f₁ (slide "Composition"; Glow §2, eqs. 6 and 7).

    forward:  h₀ = x,  hᵢ = fᵢ(hᵢ₋₁),  z = h_K
    inverse:  hᵢ₋₁ = fᵢ⁻¹(hᵢ), from h_K = z back to h₀ = x
    log-det:  Σᵢ₌₁ᴷ log|det ∂hᵢ/∂hᵢ₋₁|
    initial:  that of its layers

    The slide sets z = h_{K+1} and lets the sum stop at K; with K maps the last value is h_K.

    >>> import numpy as np, reference as ref
    >>> flow = ref.Flow([ref.Squeeze(), ref.ActNorm(np.full(4, 2.0), np.zeros(4))])
    >>> z, logdet = flow.forward(np.ones((1, 4, 6, 1)))
    >>> z.shape, np.round(logdet / np.log(2), 6).tolist()  # 24 numbers, each doubled
    ((1, 2, 3, 4), [24.0])
    """

    def __init__(self, layers: Sequence[Layer]) -> None:
        """Compose `layers`, the first being applied first.

        Raises:
            TypeError: an element has no forward or no inverse.
        """
        for i, layer in enumerate(layers):
            if not isinstance(layer, Layer):
                raise TypeError(
                    f"layers[{i}] is a {type(layer).__name__}; "
                    "accepted: an object with forward(x) -> (y, logdet) and inverse(y) -> x"
                )
        self.layers = tuple(layers)

    def forward(self, x: Array) -> tuple[Array, Array]:
        """(N, …) -> z and Σ log-dets, shape (N,). Raises what its layers raise."""
        h, total = x, np.zeros(len(x))
        for layer in self.layers:
            h, logdet = layer.forward(h)
            total = total + logdet
        return h, total

    def inverse(self, z: Array) -> Array:
        """z -> x, the layers undone in the opposite order. Raises what its layers raise."""
        for layer in reversed(self.layers):
            z = layer.inverse(z)
        return z

    def forward_steps(self, x: Array) -> list[tuple[str, Array, Array]]:
        """Every hᵢ on the way, as (layer's name, hᵢ, its own log-det)."""
        steps, h = [], x
        for layer in self.layers:
            h, logdet = layer.forward(h)
            steps.append((type(layer).__name__, h, logdet))
        return steps
