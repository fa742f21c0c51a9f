"""A run: its folder and all that changes in it; begun, saved, and taken up again.

Everything random is addressed by (seed, step), see `evaluate.seeded`, so the step counter is both
the random state and the position in the data.  A run's whole state is therefore the weights, their
average, the optimiser's moments and that counter, and it is saved as one file, state.safetensors.
A run resumed on a CPU goes on bit for bit as if it had never stopped (with --epochs; with
--minutes the learning rate follows the clock, and no two clocks agree).
"""

from __future__ import annotations

import contextlib
import copy
import errno
import itertools
import json
import math
import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from glowlite import checkpoint
from glowlite.batches import Batches, classes_of
from glowlite.data import ImageSet
from glowlite.evaluate import INITIALIZATION, baseline, seeded
from glowlite.model import FlowModel
from glowlite.parallel import World
from glowlite.plots import read_metrics
from glowlite.presets import TrainConfig
from glowlite.registry import build, describe
from glowlite.schedule import make_optimizer

_OURS = ("config.json", "model.safetensors", "ema.safetensors", "state.safetensors")
_OURS += ("metrics.jsonl", "curve.png")
_UNSAVED = "nothing was saved yet; start it again with glowlite train --force"


@dataclass
class Run:
    """A run and all that changes in it."""

    folder: Path
    config: TrainConfig
    model: FlowModel
    average: FlowModel
    optimizer: torch.optim.Optimizer
    baseline: float
    step: int = 0
    seconds: float = 0.0
    classes: tuple[str, ...] = ()

    @property
    def images(self) -> int:
        """Training images seen."""
        return self.step * self.config.batch

    def steps(self, n: int) -> int | None:
        """How many steps the whole run is on n training images; None where the clock decides."""
        config = self.config
        if not config.epochs:
            return None
        return max(1, round(config.epochs * (config.epoch_images or n) / config.batch))

    def progress(self, n: int) -> float:
        """How much of the run is done, 0 to 1, with n training images.

        Raises ValueError if the config names neither minutes nor epochs.
        """
        steps, minutes = self.steps(n), self.config.minutes
        if (steps is None) == (minutes is None):
            raise ValueError("a run needs either minutes or epochs")
        return min(1.0, self.step / steps if steps else self.seconds / (60 * minutes))

    def epochs(self, n: int) -> float:
        """How many epochs of n training images were done."""
        return self.images / (self.config.epoch_images or n)

    def generator(self, stream: int) -> torch.Generator:
        """Of this step's random numbers for one use, on the model's device; see `seeded`."""
        device = next(self.model.parameters()).device
        return seeded(self.config.seed, stream, self.step, device=device)

    def header(self) -> dict[str, Any]:
        """What every file of the run says about itself."""
        return {
            "model": describe(self.model),
            "train": asdict(_public(self.config)),
            "step": self.step,
            "images": self.images,
            "seconds": round(self.seconds, 3),
            "baseline": self.baseline,
            # Their names, by number: see `batches.numbered`.
            **({"classes": list(self.classes)} if self.model.n_classes else {}),
        }

    def save(self) -> None:
        """Write the state, then the two files for use, each atomically.

        The state alone is what `resume` reads: a run killed between the three loses nothing.
        """
        parts = {
            "model": self.model.state_dict(),
            "average": self.average.state_dict(),
            "optimizer": {
                f"{i}/{key}": value
                for i, state in self.optimizer.state_dict()["state"].items()
                for key, value in state.items()
            },
        }
        tensors = {f"{part}/{k}": v for part, state in parts.items() for k, v in state.items()}
        checkpoint.save_tensors(self.folder / "state.safetensors", tensors, self.header())
        checkpoint.save_model(self.folder / "model.safetensors", self.model, self.header())
        checkpoint.save_model(self.folder / "ema.safetensors", self.average, self.header())

    def load(self) -> None:
        """Take up the state that `save` wrote; raises CheckpointError if it is not this run's."""
        if not any(self.folder.glob("*.safetensors")):  # killed between its config and the first
            raise FileNotFoundError(2, _UNSAVED, str(self.folder))
        path = self.folder / "state.safetensors"
        tensors, header = checkpoint.load_tensors(path)
        parts: dict[str, dict[str, Tensor]] = {"model": {}, "average": {}, "optimizer": {}}
        for name, tensor in tensors.items():
            part, _, rest = name.partition("/")
            parts.setdefault(part, {})[rest] = tensor
        checkpoint.fill(self.model, parts["model"], path)
        checkpoint.fill(self.average, parts["average"], path)
        state: dict[int, dict[str, Tensor]] = {}
        parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
        try:
            for name, tensor in parts["optimizer"].items():
                i, _, key = name.partition("/")
                like = parameters[int(i)]
                if tensor.shape == like.shape:  # in its memory format: a fused optimiser walks both
                    tensor = torch.empty_like(like, dtype=tensor.dtype).copy_(tensor)
                state.setdefault(int(i), {})[key] = tensor
            groups = self.optimizer.state_dict()["param_groups"]
            self.optimizer.load_state_dict({"state": state, "param_groups": groups})
            self.step, self.seconds = int(header["step"]), float(header["seconds"])
            self.baseline = float(header["baseline"])
            self.classes = tuple(header.get("classes", self.classes))
        except (IndexError, KeyError, TypeError, ValueError) as error:
            what = f"{type(error).__name__}: {error}"
            raise checkpoint.CheckpointError(f"{path} is not a run's state ({what})") from None


def _public(config: TrainConfig) -> TrainConfig:
    """Without paths of this machine: they are in config.json, not in the files one hands on."""
    return replace(config, data=without_path(config.data), data_dir=None, cache_dir=None)


def without_path(data: str) -> str:
    """A name of images without where they are: folder:/home/me/pets -> folder:pets."""
    kind, _, path = data.partition(":")
    return f"{kind}:{Path(path).name}" if path else data


def steps_an_epoch(config: TrainConfig, n: int) -> int:
    """How many steps one epoch is, on n training images."""
    return max(1, round((config.epoch_images or n) / config.batch))


def assemble(folder: Path, config: TrainConfig, model: FlowModel, n: int, device: Any) -> Run:
    """A run of `model` on n training images, with average and optimiser; writes nothing."""
    model.to(device)
    if config.channels_last:
        model.to(memory_format=torch.channels_last)
    per_epoch = 1 - 1 / steps_an_epoch(config, n)
    optimizer = make_optimizer(
        config.optimizer,
        model.parameters(),
        lr=config.lr,
        beta1=config.beta1,
        beta2=config.beta2 or per_epoch,
        weight_decay=config.weight_decay,
        graph=_graphed(config, device),
    )
    return Run(folder, config, model, copy.deepcopy(model), optimizer, baseline=math.nan)


def _graphed(config: TrainConfig, device: torch.device) -> bool:
    return config.cuda_graph and device.type == "cuda"


def start(
    folder: str | Path,
    config: TrainConfig,
    model: Mapping[str, Any],
    train: ImageSet,
    watched: ImageSet,
    world: World,
    *,
    force: bool = False,
    notes: Mapping[str, Any] | None = None,
) -> Run:
    """Make the run's folder, its config and an initialised model.

    `model` is what `registry.build` takes, without the shape, which the data decides. `watched` are
    the images the baseline is measured on: those looked at during the run, see `train`.

    Raises FileExistsError if the folder holds anything and `force` is not set; with `force` only
    files of an earlier run are removed.
    """
    folder = Path(folder)
    h, w, c = train.shape
    options = {**model, "shape": [c, h, w], "seed": config.seed}
    built = build(options)  # a bad option is told before anything is written
    if world.first:
        _check_folder(folder, force)
    run = assemble(folder, config, built, len(train), world.device)
    run.classes = train.classes[: built.n_classes]
    batches = Batches(train, config, world)
    images, labels = batches.take(batches.rows(0, min(config.init_images, len(train))))
    built.initialize(images, classes_of(built, labels), generator=run.generator(INITIALIZATION))
    world.same_weights(built)
    run.average.load_state_dict(built.state_dict())
    if world.first:
        run.baseline = baseline(train.images, watched.images, built.config.n_bits)
        header = {"format": checkpoint.FORMAT, **run.header(), "train": asdict(config)}
        about = {"name": train.name, "images": len(train), "fingerprint": train.fingerprint}
        made = {"torch": torch.__version__, **(notes or {})}
        _clear_folder(folder)  # not before there is something to put there
        kept = {k: header[k] for k in ("format", "model", "train")}
        checkpoint.write_json(folder / "config.json", {**kept, "data": about, "made": made})
        run.save()
    return run


def read_config(folder: str | Path) -> dict[str, Any]:
    """A run's config.json, with its "train" part as a TrainConfig.

    Raises FileNotFoundError if there is none, CheckpointError if it cannot be used.
    """
    path = Path(folder) / "config.json"
    if not path.is_file():
        left = path.parent.iterdir() if path.parent.is_dir() else [path]
        if all(p.suffix == ".tmp" for p in left):  # of a run killed before its first save
            raise FileNotFoundError(2, _UNSAVED, str(folder))
        raise FileNotFoundError(2, "no such file: this is not a run folder", str(path))
    value = checkpoint.read_json(path)
    try:
        str(value["data"]["fingerprint"])  # it is there
        return {**value, "train": TrainConfig(**value["train"]), "model": dict(value["model"])}
    except (KeyError, TypeError, ValueError) as error:
        raise checkpoint.CheckpointError(f"{path} cannot be used: {error}") from None


def restart(folder: str | Path, train: ImageSet, world: World, **changes: Any) -> Run:
    """The run in `folder`, where it was last saved; `changes` replace fields of its TrainConfig.

    Raises FileNotFoundError, CheckpointError, or ValueError if the data are others than before.
    """
    folder = Path(folder)
    saved = read_config(folder)
    config = replace(saved["train"], **changes)
    if saved["data"]["fingerprint"] != train.fingerprint:
        raise ValueError(
            f"{train.name} holds other images than when {folder} was started; "
            "start a new run, or give it the old data"
        )
    run = assemble(folder, config, build(saved["model"]), len(train), world.device)
    run.classes = train.classes[: run.model.n_classes]  # if the state is too old to say
    run.load()
    if world.first:
        _remove_half_written(folder)
        # Rows written after the last save would otherwise stand twice, and what comes before the
        # first step is done again.
        rows = [r for r in read_metrics(folder / "metrics.jsonl") if r["step"] <= run.step]
        rows = rows if run.step else []
        text = "".join(json.dumps(r) + "\n" for r in rows)
        checkpoint.write_atomically(folder / "metrics.jsonl", lambda p: p.write_text(text))
        if not (finished(run) and run.progress(len(train)) >= 1):  # one that is over keeps its end
            checkpoint.write_json(folder / "config.json", {**saved, "train": asdict(config)})
    return run


def finished(run: Run) -> bool:
    """Whether the last evaluation, which ends a run, has been made where the run stands."""
    rows = read_metrics(run.folder / "metrics.jsonl")
    return any("raw" in row and row["step"] == run.step for row in rows)


def next_folder(data: str, parent: str | Path = "runs") -> Path:
    """runs/<data>-<n>, the first n that is free; made, so that no other run takes it meanwhile."""
    kind = data.partition(":")[0].replace(os.sep, "-")
    for n in itertools.count(1):
        folder = Path(parent) / f"{kind}-{n}"
        try:
            folder.mkdir(parents=True)
            return folder
        except FileExistsError:
            continue


@contextlib.contextmanager
def alone(folder: str | Path) -> Iterator[None]:
    """Within it, no other process trains in `folder`; the system lets go when this one dies.

    Raises BlockingIOError, naming the folder, if another one does.  No folder, or a system or disk
    without such locks: nothing is locked.
    """
    try:
        import fcntl  # not on Windows

        handle = os.open(folder, os.O_RDONLY)
    except (ImportError, OSError):
        yield
        return
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            what = "another process is training in this folder"
            raise BlockingIOError(errno.EAGAIN, what, str(folder)) from None
        except OSError:  # a disk without locks
            pass
        yield
    finally:
        os.close(handle)


def _check_folder(folder: Path, force: bool) -> None:
    if folder.exists() and not folder.is_dir():
        raise FileExistsError(17, "there is a file of that name", str(folder))
    if not force and folder.is_dir() and any(folder.iterdir()):
        raise FileExistsError(17, "this folder is not empty; --force starts over", str(folder))


def _clear_folder(folder: Path) -> None:
    """Make the folder, without an earlier run's files in it; what else is there stays."""
    folder.mkdir(parents=True, exist_ok=True)
    _remove_half_written(folder)
    old = ("samples/[0-9]*.png", "tensorboard/events.*", "jacobian-*.npy")
    for path in [folder / name for name in _OURS] + [p for kind in old for p in folder.glob(kind)]:
        path.unlink(missing_ok=True)


def _remove_half_written(folder: Path) -> None:
    """A process killed while it saves leaves a temporary file as large as a model."""
    for pattern in (*(f".{name}.*.tmp" for name in _OURS), "samples/.*.tmp"):
        for path in folder.glob(pattern):
            path.unlink(missing_ok=True)
