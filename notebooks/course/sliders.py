"""Sliders for notebook 10: a sample's temperature, a walk between faces, an edit's strength.

The notebook shows the same as still strips; the panels only let one stop in between. Under each
picture stand its words, since ipywidgets gives an image no alt text.
"""

from __future__ import annotations

import io
from collections.abc import Mapping

import ipywidgets as widgets
import numpy as np
import torch
from PIL import Image

from glowlite import latent
from glowlite.images import as_bytes, grid
from glowlite.model import FlowModel

_STYLE = {"description_width": "7em"}
_ZOOM = 4


def png(images: torch.Tensor | np.ndarray, columns: int) -> bytes:
    """Integer images, as `glowlite.images.grid` takes them, laid out and enlarged, as a PNG."""
    sheet = grid(as_bytes(images).repeat(_ZOOM, axis=1).repeat(_ZOOM, axis=2), columns)
    buffer = io.BytesIO()
    Image.fromarray(sheet).save(buffer, format="PNG")
    return buffer.getvalue()


def _slider(name: str, value: float, low: float, high: float, step: float) -> widgets.FloatSlider:
    """A slider that speaks when it is let go: each picture is a pass through the model."""
    return widgets.FloatSlider(
        value=value,
        min=low,
        max=high,
        step=step,
        description=name,
        style=_STYLE,
        continuous_update=False,
    )


class TemperaturePanel(widgets.VBox):
    """Samples z ~ N(0, T²) of fixed noise, x = f⁻¹(T·ε); a slider moves T.

    ``panel.temperature.value = 0.5`` redraws ``panel.picture`` (a PNG).
    """

    def __init__(self, model: FlowModel, n: int = 8, seed: int = 0) -> None:
        self.model = model
        noise = torch.Generator().manual_seed(seed)
        like = next(model.parameters())
        self._noise = torch.randn(n, model.dims, generator=noise, dtype=like.dtype)
        self.temperature = _slider("temperature", 0.7, 0.0, 1.2, 0.05)
        self.picture, self.words = widgets.Image(format="png"), widgets.Label()
        self.temperature.observe(self._draw, "value")
        self._draw()
        super().__init__([self.temperature, self.picture, self.words])

    def at(self, temperature: float) -> torch.Tensor:
        """The panel's own draws at a temperature, as integer images."""
        with torch.no_grad():
            x = self.model.inverse(temperature * self._noise)
        return latent.to_pictures(self.model, x)[0]

    def _draw(self, _change: object = None) -> None:
        pictures = self.at(self.temperature.value)
        self.picture.value = png(pictures, len(pictures))
        self.words.value = f"{len(pictures)} samples at temperature {self.temperature.value:g}"

    def __repr__(self) -> str:
        return "A slider for the temperature of samples; run the cell to use it."


class WalkPanel(widgets.VBox):
    """z_t = (1 − t)·f(a) + t·f(b), decoded, between the two images it leads from and to.

    a, b: uint8 (N, C, H, W), a row for each pair. ``panel.t.value = 0.25`` redraws
    ``panel.picture``. The ends are exact: at t = 0 the middle image is a, at 1 it is b.
    """

    def __init__(self, model: FlowModel, a: torch.Tensor, b: torch.Tensor) -> None:
        self.model = model
        self._ends = latent.encode(model, a), latent.encode(model, b)
        self._a, self._b = self._at(0.0), self._at(1.0)
        self.t = _slider("from a to b", 0.5, 0.0, 1.0, 0.05)
        self.picture, self.words = widgets.Image(format="png"), widgets.Label()
        self.t.observe(self._draw, "value")
        self._draw()
        super().__init__([self.t, self.picture, self.words])

    def _at(self, t: float) -> torch.Tensor:
        moved = [p + t * (q - p) for p, q in zip(*self._ends, strict=True)]
        return latent.decode(self.model, moved)[0]

    def _draw(self, _change: object = None) -> None:
        rows = torch.stack([self._a, self._at(self.t.value), self._b], 1)
        self.picture.value = png(rows.flatten(0, 1), 3)
        self.words.value = f"a, the image {self.t.value:.0%} of the way to b, and b"

    def __repr__(self) -> str:
        return "A slider for the walk between two images; run the cell to use it."


class EditPanel(widgets.VBox):
    """x ↦ f⁻¹(f(x) + α·v): a list chooses the attribute's direction v, a slider its strength α.

    images: uint8 (N, C, H, W). vectors: attribute -> direction, see `latent.attribute_vectors`.
    ``panel.attribute.value = "smiling"; panel.strength.value = 1`` redraws ``panel.picture``.
    """

    def __init__(
        self, model: FlowModel, images: torch.Tensor, vectors: Mapping[str, latent.Latents]
    ) -> None:
        self.model, self.vectors = model, dict(vectors)
        self._latents = latent.encode(model, images)
        self.attribute = widgets.Dropdown(
            options=[(name.replace("_", " "), name) for name in vectors],
            description="attribute",
            style=_STYLE,
        )
        self.strength = _slider("strength", 0.0, -1.5, 1.5, 0.25)
        self.picture, self.words = widgets.Image(format="png"), widgets.Label()
        self.attribute.observe(self._draw, "value")
        self.strength.observe(self._draw, "value")
        self._draw()
        super().__init__([self.attribute, self.strength, self.picture, self.words])

    def _draw(self, _change: object = None) -> None:
        vector, s = self.vectors[self.attribute.value], self.strength.value
        moved = [z + s * v for z, v in zip(self._latents, vector, strict=True)]
        pictures, _exploded = latent.decode(self.model, moved)
        self.picture.value = png(pictures, len(pictures))
        name = self.attribute.label
        self.words.value = f"{len(pictures)} images with {name} added at strength {s:g}"

    def __repr__(self) -> str:
        return "A slider for the strength of an attribute; run the cell to use it."
