"""Models that come with the project, so that one can look at samples before training anything."""

from __future__ import annotations

from pathlib import Path

from glowlite.checkpoint import load
from glowlite.model import FlowModel

# name -> the command that made it.  The file's header holds every setting.
_MADE_BY = {
    "faces32": "glowlite train faces --epochs 11",
    "cifar10": "glowlite train cifar10 --data-dir FOLDER --epochs 8 --n-bits 8 --holdout "
    "--batch 32 --optimizer muon --lr 4e-3 --clip 100 --ema 0.998",
}
_FOLDER = Path(__file__).parent / "weights"


def pretrained(name: str = "faces32") -> FlowModel:
    """A model that ships with glowlite, in eval mode, its weights float32.

    name: "faces32", a small Glow of the drawn faces, 32 × 32 pixels in 5 bits; "cifar10", one of
    as many parameters of CIFAR-10's photographs, 8 bits.

    `model.header` says how it was trained: settings, images seen, seconds.

    Raises:
        ValueError: there is no such model.
        FileNotFoundError: this installation lacks its file; the message says how to get one.
        CheckpointError: the file is damaged.
    """
    if name not in _MADE_BY:
        raise ValueError(f"name is {name!r}; accepted: {', '.join(map(repr, _MADE_BY))}")
    path = _FOLDER / f"{name}.safetensors"
    if not path.is_file():
        raise FileNotFoundError(
            2,
            f"the model {name!r} is missing from this installation. Fetch the project's files "
            f"again, or train one: {_MADE_BY[name]} --out runs/{name}, then "
            f'glowlite.load("runs/{name}"). Looked for',
            str(path),
        )
    return load(path)
