"""Files that are whole or absent, and that cannot run code.

Every file is written beside its final name, flushed to the disk, and renamed: a reader sees the
old file or the new one, never half of one.  Tensors live in safetensors, everything else in JSON.
A header in the file says what the tensors are, and a digest says that nothing was altered.
"""

from __future__ import annotations

import errno
import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_bytes
from safetensors.torch import save_file
from torch import Tensor, nn

from glowlite._files import write_atomically

FORMAT = 1


class CheckpointError(ValueError):
    """A file that is not what it should be: the message names the file and what is wrong."""


def write_json(path: str | Path, value: Any) -> Path:
    """Write `value` as indented JSON, atomically."""
    text = json.dumps(value, indent=2, allow_nan=False) + "\n"
    return write_atomically(path, lambda p: p.write_text(text, encoding="utf-8"))


def read_json(path: str | Path) -> Any:
    """Read JSON; raises CheckpointError naming the file when it is not JSON."""
    path = Path(path)
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise CheckpointError(f"{path} is not valid JSON: {error}") from None


def digest(tensors: Mapping[str, Tensor], header: Mapping[str, Any]) -> str:
    """SHA-256 of the header and of every tensor's name, type, shape and bytes."""
    sha = hashlib.sha256(json.dumps(header, sort_keys=True).encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        sha.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        sha.update(tensor.reshape(-1).view(torch.uint8).numpy())
    return sha.hexdigest()


def save_tensors(
    path: str | Path, tensors: Mapping[str, Tensor], header: Mapping[str, Any]
) -> Path:
    """Write tensors and a JSON header into one safetensors file, atomically, with a digest.

    Tensors are copied to the CPU and made contiguous (channels-last weights are not).
    """
    header = json.loads(json.dumps(header, allow_nan=False))  # what will be read back
    plain = {
        name: tensor.detach().to("cpu", copy=True).contiguous() for name, tensor in tensors.items()
    }
    note = {"format": FORMAT, "digest": digest(plain, header), "header": header}
    metadata = {"glowlite": json.dumps(note)}

    def write(temporary: Path) -> None:
        try:
            save_file(plain, temporary, metadata)
        except SafetensorError as error:  # it reports a full disk in its own class
            found = re.search(r"([^:]*) \(os error (\d+)\)", str(error))
            number, text = (int(found[2]), found[1].strip()) if found else (errno.EIO, str(error))
            raise OSError(number, text, str(path)) from error

    return write_atomically(path, write)


def load_tensors(path: str | Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read a file of `save_tensors` -> (tensors on the CPU, header).

    Raises FileNotFoundError, or CheckpointError for a file that is not safetensors, is cut short,
    was altered, or was not written by glowlite.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(errno.ENOENT, "no such checkpoint", str(path))
    # Opened once: safetensors' own reader opens the path twice, header and then tensors, and a
    # training run that saves in between would hand it the header of one file with the other's data.
    data = path.read_bytes()
    try:
        tensors = load_bytes(data)
    except SafetensorError as error:
        raise CheckpointError(
            f"{path} is not a whole safetensors file (cut short, or another format): {error}"
        ) from None
    metadata = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")]).get("__metadata__", {})
    if "glowlite" not in metadata:
        raise CheckpointError(f"{path} is a safetensors file, but glowlite did not write it")
    try:
        note = json.loads(metadata["glowlite"])
        version, expected, header = note["format"], note["digest"], note["header"]
    except (json.JSONDecodeError, KeyError, TypeError):
        raise CheckpointError(f"{path}: its glowlite header cannot be read") from None
    if version != FORMAT:
        raise CheckpointError(f"{path} has format {version}; this glowlite reads format {FORMAT}")
    if digest(tensors, header) != expected:
        raise CheckpointError(f"{path} was altered: its contents do not match its digest")
    return tensors, header


def save_model(path: str | Path, model: nn.Module, header: Mapping[str, Any]) -> Path:
    """Write one file that `glowlite.load` turns back into `model`: weights, buffers, config."""
    from glowlite.registry import describe

    return save_tensors(path, model.state_dict(), {**header, "model": describe(model)})


def load(run_or_file: str | Path, *, weights: str = "ema", device: str = "cpu") -> nn.Module:
    """Load a trained model from a run folder or from a single .safetensors file.

    Parameters
    ----------
    run_or_file : a folder written by `glowlite train`, or one of its .safetensors files
    weights : "ema" (the averaged weights, evaluated and sampled by default) or "model";
        looked at for folders only
    device : where to put it

    Returns the model in eval mode, actnorm initialised, ready for `log_prob` and `sample`.
    float64 weights stay float64.  Nothing in the file is executed.  Raises FileNotFoundError,
    CheckpointError, or ValueError for other weights than these two.
    """
    path = Path(run_or_file)
    if weights not in ("ema", "model"):
        raise ValueError(f"weights is {weights!r}; it must be 'ema' or 'model'")
    if path.is_dir():
        path = path / f"{weights}.safetensors"
        if not path.is_file():
            raise FileNotFoundError(
                errno.ENOENT, "no such file: this folder holds no checkpoint", str(path)
            )
    tensors, header = load_tensors(path)
    return restore(tensors, header, path).to(device).eval()


def restore(tensors: Mapping[str, Tensor], header: Mapping[str, Any], path: Path) -> nn.Module:
    """Build the model that `header` describes and fill it.

    Raises CheckpointError, naming `path`, if it cannot be built or is not what the tensors are of.
    """
    from glowlite.registry import build

    try:
        model = build(header["model"])
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise CheckpointError(
            f"{path} describes a model this glowlite cannot build: {error}"
        ) from None
    if torch.float64 in {t.dtype for t in tensors.values()}:
        model.double()
    fill(model, tensors, path)
    model.header = dict(header)
    return model


def fill(model: nn.Module, tensors: Mapping[str, Tensor], path: Path) -> None:
    """Copy tensors into a model of exactly that architecture.

    Raises CheckpointError that says what differs first, or which tensor is not finite.
    """
    state = model.state_dict()
    problems = [f"{name} is missing" for name in state if name not in tensors]
    problems += [f"{name} is not part of this model" for name in tensors if name not in state]
    problems += [
        f"{name} is {tuple(tensors[name].shape)}, the model needs {tuple(value.shape)}"
        for name, value in state.items()
        if name in tensors and tensors[name].shape != value.shape
    ]
    if problems:
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        raise CheckpointError(f"{path} belongs to another architecture: {problems[0]}{more}")
    for name, value in tensors.items():
        if value.is_floating_point() and not bool(torch.isfinite(value).all()):
            raise CheckpointError(f"{path}: {name} holds NaN or infinity")
    model.load_state_dict(dict(tensors))
