"""Training: a loop to be read from top to bottom.

Everything random is addressed by (seed, step), see `evaluate.seeded`, so the step counter is both
the random state and the position in the data.  A run's whole state is therefore the weights, their
average, the optimiser's moments and that counter, and it is saved as one file, state.safetensors.
A run resumed on a CPU goes on bit for bit as if it had never stopped (with --epochs; with
--minutes the learning rate follows the clock, and no two clocks agree).
"""

from __future__ import annotations

import copy
import json
import math
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from glowlite import checkpoint
from glowlite.data import ImageSet, epoch_order
from glowlite.evaluate import Evaluation, NotFinite, baseline, evaluate, seeded, to_tensor
from glowlite.glow import Glow
from glowlite.graph import CompiledSteps, Graphed, Leash
from glowlite.images import save_grid
from glowlite.latent import to_pictures
from glowlite.likelihood import FlowModel
from glowlite.models import build, describe
from glowlite.parallel import World, use_tf32, without_trials
from glowlite.plots import read_metrics, save_curve
from glowlite.presets import TrainConfig
from glowlite.schedule import lr_factor, make_optimizer, set_rate, update_average
from glowlite.telemetry import telemetry

# Streams of random numbers, one for each use.
_NOISE, _SAMPLES, _INIT, _SHIFT = 10, 11, 12, 13
# Paths of this machine: in the run's config.json, not in the files one hands on.
_PRIVATE = {"data_dir": None, "cache_dir": None}
_OURS = ("config.json", "model.safetensors", "ema.safetensors", "state.safetensors")
_OURS += ("metrics.jsonl", "curve.png")


class TrainingStopped(RuntimeError):
    """The run cannot go on: the message says why, and what was kept."""


class Batches:
    """Training images as an endless row of shuffled epochs; step t takes the next `batch` of it.

    Every batch is full, every image comes once an epoch, and a batch depends on its number alone.
    On a GPU the images are kept there as uint8, where they fit in a third of its memory.
    """

    def __init__(self, data: ImageSet, config: TrainConfig, world: World) -> None:
        self.images, self.labels, self.config, self.world = data.images, data.labels, config, world
        self.on_device = None
        if world.device.type == "cuda":
            if data.images.nbytes < torch.cuda.get_device_properties(world.device).total_memory / 3:
                self.on_device = to_tensor(data.images, world.device)
        self._orders: dict[int, Any] = {}

    def rows(self, first: int, count: int) -> np.ndarray:
        """Which images stand at positions first, …, first + count − 1 of the endless row."""
        n = len(self.images)
        start, stop = first // n, (first + count - 1) // n + 1
        self._orders = {
            e: self._orders[e] if e in self._orders else epoch_order(n, self.config.seed, e)
            for e in range(start, stop)
        }
        endless = np.concatenate([self._orders[e] for e in range(start, stop)])
        return endless[first - start * n :][:count]

    def __call__(self, step: int) -> tuple[Tensor, Tensor | None]:
        """This process's share of batch `step`: uint8 (n, C, H, W), int64 (n,) or None."""
        rows = self.rows(step * self.config.batch, self.config.batch)
        share = self.world.share(len(rows))
        images, labels = self.take(rows[share])
        return self._augment(images, step, share), labels

    def take(self, rows: np.ndarray) -> tuple[Tensor, Tensor | None]:
        """Images and labels by number, on this process's device."""
        if self.on_device is not None:
            images = self.on_device[self._send(torch.from_numpy(rows))]
        else:
            images = self._send(to_tensor(self.images[rows]))
        labels = None if self.labels is None else self._send(torch.from_numpy(self.labels[rows]))
        return images, labels

    def _send(self, tensor: Tensor) -> Tensor:
        """To the device; a GPU fetches it from pinned memory while the host goes on."""
        if self.world.device.type != "cuda":
            return tensor
        return tensor.pin_memory().to(self.world.device, non_blocking=True)

    def _augment(self, images: Tensor, step: int, share: slice) -> Tensor:
        """Shift by whole pixels, the border repeated; flip left and right."""
        config = self.config
        if not config.shift and not config.flip or not len(images):
            return images
        n, _, h, w = images.shape
        device = images.device
        generator = seeded(config.seed, _SHIFT, step, device=device)
        u = torch.rand(config.batch, 3, generator=generator, device=device)[share]
        rows = torch.arange(h, device=device) + _whole(u[:, :1], config.shift * h)
        columns = torch.arange(w, device=device) + _whole(u[:, 1:2], config.shift * w)
        columns = torch.where((u[:, 2:] < 0.5) & config.flip, w - 1 - columns, columns)
        example = torch.arange(n, device=device)[:, None, None]
        rows, columns = rows.clamp(0, h - 1), columns.clamp(0, w - 1)
        moved = images.movedim(1, 3)[example, rows[:, :, None], columns[:, None, :]]
        return moved.movedim(3, 1).contiguous()


def _whole(u: Tensor, reach: float) -> Tensor:
    """u in [0, 1) -> a whole number in −reach … reach, each as likely."""
    reach = math.floor(reach)
    return (u * (2 * reach + 1)).floor().long() - reach


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

    def header(self) -> dict[str, Any]:
        """What every file of the run says about itself."""
        return {
            "model": describe(self.model),
            "train": asdict(replace(self.config, **_PRIVATE)),
            "step": self.step,
            "images": self.images,
            "seconds": round(self.seconds, 3),
            "baseline": self.baseline,
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
        path = self.folder / "state.safetensors"
        tensors, header = checkpoint.load_tensors(path)
        parts: dict[str, dict[str, Tensor]] = {"model": {}, "average": {}, "optimizer": {}}
        for name, tensor in tensors.items():
            part, _, rest = name.partition("/")
            parts.setdefault(part, {})[rest] = tensor
        checkpoint.fill(self.model, parts["model"], path)
        checkpoint.fill(self.average, parts["average"], path)
        state: dict[int, dict[str, Tensor]] = {}
        parameters = list(self.model.parameters())
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
        except (IndexError, KeyError, TypeError, ValueError) as error:
            what = f"{type(error).__name__}: {error}"
            raise checkpoint.CheckpointError(f"{path} is not a run's state ({what})") from None


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

    `model` is what `models.build` takes, without the shape, which the data decides.  `watched` are
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
    batches = Batches(train, config, world)
    images, labels = batches.take(batches.rows(0, min(config.init_images, len(train))))
    built.initialize(images, _classes(built, labels), generator=_generator(run, _INIT))
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
    run.load()
    if world.first:
        _remove_half_written(folder)
        # Rows written after the last save would otherwise stand twice, and what comes before the
        # first step is done again.
        rows = [r for r in read_metrics(folder / "metrics.jsonl") if r["step"] <= run.step]
        rows = rows if run.step else []
        text = "".join(json.dumps(r) + "\n" for r in rows)
        checkpoint.write_atomically(folder / "metrics.jsonl", lambda p: p.write_text(text))
        checkpoint.write_json(folder / "config.json", {**saved, "train": asdict(config)})
    return run


def finished(run: Run) -> bool:
    """Whether the last evaluation, which ends a run, has been made where the run stands."""
    rows = read_metrics(run.folder / "metrics.jsonl")
    return any("raw" in row and row["step"] == run.step for row in rows)


def train(
    run: Run,
    train_set: ImageSet,
    test_set: ImageSet,
    world: World,
    say: Callable[[str], object] = tqdm.write,
    watched: ImageSet | None = None,
) -> Evaluation | None:
    """Train until the run's minutes or epochs are over; -> the last evaluation, on all test images.

    With `watched`, held-out training images, the evaluations during the run are on those, and the
    test set is read once, at the end (never, and the last evaluation is on all of `watched`, in a
    run that only tries settings, config.test False); without, they are on the first test images.

    Returns None when Ctrl-C (or SIGTERM) stopped it: the state is saved.  Raises TrainingStopped
    when a loss or gradient is not finite: the last saved state is left as it is.  It also does
    when the last evaluation is not finite; one during the run is told, and training goes on.

    No step waits for a GPU.  What a step returns stays there until somebody asks: for the log,
    once a second, and before anything is evaluated or saved.
    """
    config, model = run.config, run.model
    watched = watched or test_set
    batches = Batches(train_set, config, world)
    n = len(train_set)
    run.progress(n)  # a config without an end is told now
    decay = config.ema or 1 - 1 / steps_an_epoch(config, n)
    run.average.fast = config.fast  # evaluated as it is trained
    paused = time.monotonic()
    step = make_step(run, batches, world, say if world.first else _silent)
    leash = Leash(world.device)
    began = time.monotonic() - run.seconds
    saved = logged = time.monotonic()
    window: list[Tensor] = []  # of the steps since the log was written: see make_step
    log = Log(run, world)
    log.write(prepare_seconds=round(logged - paused, 2))
    bar = Bar(run, n, quiet=not world.first)
    with log, bar, Interrupt() as interrupt:
        looked = math.floor(run.progress(n) * config.evals) if run.step else -1
        while True:
            run.seconds = time.monotonic() - began
            progress, stop = world.agree(run.progress(n), float(interrupt.asked))
            due = math.floor(progress * config.evals)
            if world.first and progress < 1 and due > looked:
                check(run, window)
                paused = time.monotonic()
                try:
                    say(look(run, watched, log, config.eval_images)[0])
                except NotFinite as error:  # it may recover; a bad loss would have stopped it
                    say(f"step {run.step:>6}  {error}; training goes on")
                    log.write(not_finite=str(error))
                logged += time.monotonic() - paused  # images/s is of training alone
            looked = max(due, looked)
            if world.first and (stop or time.monotonic() - saved > 60 * config.save_minutes):
                check(run, window)
                run.save()
                saved = time.monotonic()
            if progress >= 1 or stop:
                break

            # One step.
            rate = config.lr * lr_factor(
                config.schedule, run.images + config.batch, progress, config.warmup
            )
            set_rate(run.optimizer, rate)
            window.append(step(*inputs(run, batches, world)))
            run.step += 1
            update_average(run.average, model, decay, run.step)
            leash()

            # Tell.
            if time.monotonic() - logged > 1.0:
                bits, norm = check(run, window)
                now = time.monotonic()
                speed = len(window) * config.batch / (now - logged)
                bar.show(run, now - began, bits, speed)
                log.write(bits_per_dim=bits, lr=rate, grad_norm=norm, images_per_s=speed)
                window, logged = [], now
        if stop:
            return None
        check(run, window)
        run.seconds = time.monotonic() - began
        if not world.first:
            return None
        bar.finish()
        run.save()
        last = test_set if config.test else watched
        try:
            _, found = look(run, watched, log, len(watched), config.draws, last=last)
        except NotFinite as error:
            raise TrainingStopped(
                f"trained to the end, step {run.step}, and kept in {run.folder}; but the last "
                f"evaluation found: {error}"
            ) from error
        return Evaluation(**found[_kind(last)])


def inputs(run: Run, batches: Batches, world: World) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """What step `run.step` works on: uint8 images, classes or None, noise; this process's rows."""
    config, like = run.config, next(run.model.parameters())
    images, labels = batches(run.step)
    # Noise for the whole batch, the same everywhere; each process uses its rows of it.
    shape = (config.batch, *images.shape[1:])
    generator = _generator(run, _NOISE)
    noise = torch.rand(shape, generator=generator, dtype=like.dtype, device=world.device)
    return images, _classes(run.model, labels), noise[world.share(config.batch)]


def gradients(
    run: Run,
    world: World,
    loss_of: Callable[..., Any],
    images: Tensor,
    classes: Tensor | None,
    noise: Tensor,
) -> tuple[Tensor, Tensor]:
    """Gradients of the mean loss of one batch, over all processes, clipped.

    Returns the batch's mean bits/dim and the norm of the gradient before clipping.
    """
    config, parameters = run.config, list(run.model.parameters())
    run.optimizer.zero_grad(set_to_none=True)
    bits = torch.zeros((), dtype=torch.float64, device=world.device)
    if len(images):  # a process may have no row of a small batch
        loss, parts = loss_of(images, classes, noise=noise)
        (loss * (len(images) / config.batch)).backward()
        bits = parts["bits_per_dim"].sum() / config.batch
    (bits,) = world.sum_gradients(parameters, bits)
    return bits, torch.nn.utils.clip_grad_norm_(parameters, config.clip or math.inf)


def make_step(
    run: Run, batches: Batches, world: World, say: Callable[[str], object]
) -> Callable[..., Tensor]:
    """-> a function of `inputs`: changes the weights, and returns (bits/dim, gradient norm)."""
    loss_of, within = prepare(run.model, run.config, batches, say)

    def step(images: Tensor, classes: Tensor | None, noise: Tensor) -> Tensor:
        with within:
            bits, norm = gradients(run, world, loss_of, images, classes, noise)
        told = torch.stack([bits, norm.to(bits.dtype)])
        if told.device.type == "cpu":  # asking costs nothing: the weights never see a bad step
            check(run, [told], run.step)
        run.optimizer.step()
        return told

    if not run.config.cuda_graph:
        return step
    if world.device.type != "cuda" or world.size > 1:
        say("cuda graph: not possible here (it needs one process on one GPU); training without it")
        return step
    return Graphed(step, say)


def check(run: Run, window: Sequence[Tensor], first: int | None = None) -> tuple[float, float]:
    """Wait for the steps in `window` -> their mean bits/dim, and the last norm of the gradient.

    `first` is the number of the first of them; by default they are the last ones done.

    Raises TrainingStopped, naming the first step at which either was not finite.
    """
    if not window:
        return math.nan, math.nan
    told = torch.stack(list(window)).cpu()
    bad = ~told.isfinite().all(1)
    if bad.any():
        i = int(bad.nonzero()[0])
        first = run.step - len(window) if first is None else first
        raise TrainingStopped(_not_finite(run, first + i, *told[i].tolist()))
    return float(told[:, 0].mean()), float(told[-1, 1])


def prepare(
    model: FlowModel, config: TrainConfig, batches: Batches, say: Callable[[str], object]
) -> tuple[Callable[..., tuple[Tensor, dict[str, Tensor]]], AbstractContextManager]:
    """Switch on what the config asks for; what cannot be had is said and done without.

    -> the loss function, and what gradients are to be computed within.
    """
    if config.bf16:
        device = next(model.parameters()).device
        if device.type == "cuda" and not torch.cuda.is_bf16_supported():
            say("bf16: this GPU has none; training in float32")
        else:
            model.set_net_dtype(torch.bfloat16)
    model.memory, model.fast = config.memory, config.fast
    if next(model.parameters()).device.type == "cuda":
        use_tf32(config.tf32)
        torch.backends.cudnn.benchmark = True  # shapes never change: try, then take the fastest
    plain = model.loss, nullcontext()
    if not config.compile:
        return plain
    if not (config.fast and isinstance(model, Glow)):
        say("compile: only a Glow's fused steps are compiled; training without it")
        return plain
    within = CompiledSteps(dynamic=False)
    try:  # compiling happens at the first call: make one that leaves no trace
        images, labels = batches(0)
        noise = torch.full(images.shape, 0.5, dtype=next(model.parameters()).dtype)
        with within:
            loss, _ = model.loss(images, _classes(model, labels), noise=noise.to(images.device))
            loss.backward()
    except Exception as error:
        if isinstance(error, MemoryError):
            raise
        what = next(iter(str(error).splitlines()), "no message")
        say(f"compile: not possible here ({type(error).__name__}: {what}); training without it")
        return plain
    finally:
        model.zero_grad(set_to_none=True)
    return model.loss, within


@without_trials()
def look(
    run: Run,
    images: ImageSet,
    log: Log,
    count: int,
    draws: int = 1,
    last: ImageSet | None = None,
) -> tuple[str, dict[str, dict[str, float]]]:
    """Evaluate the averaged weights, measure invertibility, draw samples, and redraw the curve.

    -> the line to print, and the evaluations, on the first `count` of `images`.  In the last look
    `last` is the test set, read as well where it is another set than `images`; the weights
    themselves are then told beside their average.
    """
    config, model = run.config, run.average
    batch = config.eval_batch or config.batch

    def bits(model: FlowModel, images: ImageSet, count: int, draws: int) -> dict[str, float]:
        labels = images.labels[:count] if model.n_classes else None
        options = {"draws": draws, "batch": batch, "seed": config.seed}
        # The last look takes all images, which may be many times the rest of the run.
        hide = None if last is not None else True
        with tqdm(total=count, desc="evaluating", unit=" images", disable=hide, leave=False) as bar:
            found = evaluate(model, images.images[:count], labels, progress=bar.update, **options)
        return found.as_dict()

    # The rows say whose bits/dim they hold: "test", or "held_out" of the training images.
    row = {_kind(images): bits(model, images, count, draws)}
    if last is not None:
        if last is not images:
            row[_kind(last)] = bits(model, last, len(last), draws)
        run.model.set_net_dtype(None)  # in float32, as its average is and as it will be loaded
        row["raw"] = bits(run.model, images, count, 1)
    few = to_tensor(images.images[:16], next(model.parameters()).device)
    classes = (
        torch.from_numpy(np.array(images.labels[:16])).to(few.device) if model.n_classes else None
    )
    health = telemetry(model, few, classes)
    pictures, exploded = draw_samples(model, 64, config.temperature, config.seed)
    save_grid(run.folder / "samples" / f"{run.step:07d}.png", pictures)
    memory = {"memory_mib": peak_memory(few.device)}
    log.write(**row, baseline=run.baseline, **health, exploded=exploded, **memory)
    save_curve(run.folder)
    told = "  ".join(
        f"{kind.replace('_', ' ')} {row[kind]['mean']:.3f} ± {row[kind]['standard_error']:.3f}"
        for kind in ("test", "held_out")
        if kind in row
    )
    line = (
        f"step {run.step:>6}  {told} bits/dim "
        f"(baseline {run.baseline:.3f})  round trip {health['round_trip']:.0e}  "
        f"smallest scale {health['smallest_scale']:.2g}  cond W {health['condition']:.2g}"
        + (f"  {exploded} of 64 samples exploded" if exploded else "")
    )
    return line, row


def _kind(images: ImageSet) -> str:
    return "test" if images.split == "test" else "held_out"


def peak_memory(device: torch.device) -> float | None:
    """The most this process has held so far, MiB: on the GPU, or on a CPU in all."""
    if device.type == "cuda":
        return round(torch.cuda.max_memory_allocated(device) / 2**20, 1)
    try:
        import resource
    except ImportError:  # not on Windows
        return None
    unit = 2**20 if sys.platform == "darwin" else 2**10
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit, 1)


def draw_samples(
    model: FlowModel, n: int, temperature: float, seed: int, classes: Tensor | None = None
) -> tuple[Tensor, int]:
    """-> uint8 (n, C, H, W), and how many of them exploded; see `latent.to_pictures`."""
    model.eval()
    if model.n_classes and classes is None:
        classes = torch.arange(n) % model.n_classes
    if classes is not None:
        classes = classes.to(next(model.parameters()).device)
    noise = seeded(seed, _SAMPLES)
    x = model.sample(n, temperature=temperature, classes=classes, generator=noise)
    pictures, exploded = to_pictures(model, x)
    return pictures, int(exploded.sum())


def _classes(model: FlowModel, labels: Tensor | None) -> Tensor | None:
    if not model.n_classes:
        return None
    if labels is None:
        raise ValueError("the model is class-conditional, but these images have no labels")
    return labels


def _generator(run: Run, stream: int) -> torch.Generator:
    return seeded(run.config.seed, stream, run.step, device=next(run.model.parameters()).device)


def _not_finite(run: Run, step: int, bits: float, norm: float) -> str:
    what = f"bits/dim is {bits}" if not math.isfinite(bits) else f"the gradient's norm is {norm}"
    rate = float(run.optimizer.param_groups[0]["lr"])
    return (
        f"stopped at step {step}: {what} (learning rate {rate:.2g}). The last saved state is "
        f"kept in {run.folder}\nwhat helps: a smaller --lr, a longer --warmup, --clip 1, "
        "--scale sigmoid"
    )


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


def _in_json(value: Any) -> bool:
    return not isinstance(value, float) or math.isfinite(value)


def _silent(_message: str) -> None:
    pass


class Log:
    """Appends rows to metrics.jsonl, and to TensorBoard where it is wanted and installed."""

    def __init__(self, run: Run, world: World) -> None:
        self.run, self.first, self.board = run, world.first, None
        if run.config.tensorboard and world.first:
            try:
                from torch.utils.tensorboard import SummaryWriter
            except ImportError:
                tqdm.write("tensorboard: not installed; metrics.jsonl has all of it")
            else:
                # What a run wrote after the state it goes on from is not shown twice.
                after = run.images + 1 if run.step else None
                self.board = SummaryWriter(run.folder / "tensorboard", purge_step=after)

    def __enter__(self) -> Log:
        return self

    def __exit__(self, *_: object) -> None:
        if self.board is not None:
            self.board.close()

    def write(self, **values: Any) -> None:
        """One row: where the run is, and `values`."""
        if not self.first:
            return
        run = self.run
        values = {k: v if _in_json(v) else None for k, v in values.items()}
        row = {"step": run.step, "images": run.images, "seconds": round(run.seconds, 2), **values}
        with open(run.folder / "metrics.jsonl", "a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
        if self.board is not None:
            for key, value in values.items():
                value = value["mean"] if isinstance(value, dict) else value
                if isinstance(value, int | float):
                    self.board.add_scalar(key, value, run.images)


class Bar:
    """Progress with bits/dim, images/s and the time left, in steps or, with a limit, in seconds."""

    def __init__(self, run: Run, n: int, quiet: bool) -> None:
        total = run.steps(n)
        self.by_step = total is not None
        total = total or 60 * run.config.minutes
        self.bar = tqdm(
            total=total,
            initial=min(total, run.step if self.by_step else run.seconds),
            disable=quiet,
            mininterval=0.5 if sys.stderr.isatty() else 15.0,
            bar_format="{percentage:3.0f}% |{bar}| {elapsed} < {remaining} left{postfix}",
        )

    def __enter__(self) -> Bar:
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.close()

    def show(self, run: Run, seconds: float, bits: float, speed: float) -> None:
        """Move the bar to where the run is."""
        self.bar.set_postfix_str(f"{bits:.3f} bits/dim, {speed:.0f} images/s", refresh=False)
        if not self.bar.disable:
            place = run.step if self.by_step else min(seconds, self.bar.total)
            self.bar.update(place - self.bar.n)

    def finish(self) -> None:
        """Fill it and leave it: the last evaluation has its own."""
        if not self.bar.disable:
            self.bar.update(self.bar.total - self.bar.n)
        self.bar.close()


class Interrupt:
    """Ctrl-C and SIGTERM ask the loop to stop after its step; a second Ctrl-C does not wait."""

    def __init__(self) -> None:
        self.asked = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Interrupt:
        for number in (signal.SIGINT, signal.SIGTERM):
            try:
                self._before[number] = signal.signal(number, self._ask)
            except ValueError:  # not the main thread: Ctrl-C is somebody else's there
                break
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _ask(self, _number: int, _frame: FrameType | None) -> None:
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True


def next_folder(data: str, parent: str | Path = "runs") -> Path:
    """runs/<data>-<n>, the first n that is free."""
    kind = data.partition(":")[0].replace(os.sep, "-")
    n = 1
    while (Path(parent) / f"{kind}-{n}").exists():
        n += 1
    return Path(parent) / f"{kind}-{n}"
