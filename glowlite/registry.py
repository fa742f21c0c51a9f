"""From a plain dictionary to a model and back: what a checkpoint's header holds."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any

from glowlite.config import FlowConfig
from glowlite.model import FlowModel

# name -> (module, model class, config class); modules are imported when asked for.
_MODELS = {
    "glow": ("glowlite.glow", "Glow", "GlowConfig"),
    "realnvp": ("glowlite.realnvp", "RealNVP", "RealNVPConfig"),
    "nice": ("glowlite.nice", "NICE", "NICEConfig"),
}


def build(description: Mapping[str, Any]) -> FlowModel:
    """The model, with its initial weights, from {"model": "glow" | "realnvp" | "nice", options}.

    >>> model = build({"model": "glow", "shape": [1, 4, 4], "levels": 1, "depth": 1, "width": 2})
    >>> describe(model)["shape"]
    [1, 4, 4]

    Raises:
        TypeError: the shape is missing.
        ValueError: an unknown model or option, or an option out of range.
    """
    config = configure(description)
    module, model_class, _ = _MODELS[config.model]
    return getattr(import_module(module), model_class)(config)


def configure(description: Mapping[str, Any]) -> FlowConfig:
    """The checked config of what `build` would make, for nothing; raises as `build`."""
    name = description.get("model", "glow")
    if not isinstance(name, str) or name not in _MODELS:
        raise ValueError(f"model is {name!r}; accepted: {', '.join(map(repr, _MODELS))}")
    module, _, config_class = _MODELS[name]
    return getattr(import_module(module), config_class).from_dict(dict(description))


def describe(model: FlowModel) -> dict[str, Any]:
    """The dictionary that `build` turns into a model of this architecture; plain JSON."""
    return model.config.to_dict()
