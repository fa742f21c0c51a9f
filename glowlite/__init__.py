"""glowlite: Glow in PyTorch, from images to likelihoods, samples and edits."""

from __future__ import annotations

from importlib import import_module
from typing import Any

# name -> the module it lives in. Imported when first asked for, so that the command line can
# print its help without waiting for torch.
_EXPORTS = {
    "ActNorm": "actnorm",
    "AdditiveCoupling": "coupling",
    "AffineCoupling": "coupling",
    "Conv1x1": "conv1x1",
    "Conv1x1LU": "conv1x1",
    "CouplingNet": "network",
    "Flow": "flow",
    "FlowConfig": "config",
    "FlowModel": "model",
    "Glow": "glow",
    "GlowConfig": "glow",
    "Level": "glow",
    "Logit": "realnvp",
    "MaskedCoupling": "realnvp",
    "MultiScale": "glow",
    "NICE": "nice",
    "NICEConfig": "nice",
    "Permutation": "permutation",
    "RealNVP": "realnvp",
    "RealNVPConfig": "realnvp",
    "Split": "split",
    "Squeeze": "squeeze",
    "Step": "glow",
    "TopPrior": "split",
    "build": "registry",
    "describe": "registry",
    "load": "checkpoint",
    "pretrained": "shipped",
    "to_reference": "export",
}

__all__ = sorted(_EXPORTS)


def __getattr__(name: str) -> Any:
    if name not in _EXPORTS:
        raise AttributeError(f"module 'glowlite' has no attribute {name!r}")
    return getattr(import_module(f"glowlite.{_EXPORTS[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_EXPORTS])
