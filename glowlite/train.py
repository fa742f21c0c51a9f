"""Training: a loop to be read from top to bottom.

Around it: `batches` (which images a step takes), `runs` (all that a run consists of, saved and
taken up again), `look` (evaluations and samples), `progress` (log, bar, Ctrl-C).
"""

from __future__ import annotations

import math
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from glowlite.batches import Batches, classes_of
from glowlite.data import ImageSet
from glowlite.evaluate import NOISE, Evaluation, NotFinite
from glowlite.glow import Glow
from glowlite.graph import CompiledSteps, Graphed, Leash
from glowlite.look import look, part_of
from glowlite.model import FlowModel
from glowlite.parallel import World, use_tf32
from glowlite.presets import TrainConfig
from glowlite.progress import Bar, Interrupt, Log
from glowlite.runs import Run, steps_an_epoch
from glowlite.schedule import lr_factor, set_rate, update_average


class TrainingStopped(RuntimeError):
    """The run cannot go on: the message says why, and what was kept."""


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

    Returns None when Ctrl-C (or SIGTERM) stopped it: the state is saved.  In the last evaluation,
    before which all is saved, that is a KeyboardInterrupt.  Raises TrainingStopped when a loss or
    gradient is not finite: the last saved state is left as it is.  It also does when the last
    evaluation is not finite; one during the run is told, and training goes on.

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
        interrupt.all_is_saved()  # a resumed run makes the last evaluation
        last = test_set if config.test else watched
        try:
            _, found = look(run, watched, log, len(watched), config.draws, last=last)
        except NotFinite as error:
            raise TrainingStopped(
                f"trained to the end, step {run.step}, and kept in {run.folder}; but the last "
                f"evaluation found: {error}"
            ) from error
        return Evaluation(**found[part_of(last)])


def inputs(run: Run, batches: Batches, world: World) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """What step `run.step` works on: uint8 images, classes or None, noise; this process's rows."""
    config, like = run.config, next(run.model.parameters())
    images, labels = batches(run.step)
    # Noise for the whole batch, the same everywhere; each process uses its rows of it.
    shape = (config.batch, *images.shape[1:])
    generator = run.generator(NOISE)
    noise = torch.rand(shape, generator=generator, dtype=like.dtype, device=world.device)
    return images, classes_of(run.model, labels), noise[world.share(config.batch)]


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


def _not_finite(run: Run, step: int, bits: float, norm: float) -> str:
    what = f"bits/dim is {bits}" if not math.isfinite(bits) else f"the gradient's norm is {norm}"
    rate = float(run.optimizer.param_groups[0]["lr"])
    return (
        f"stopped at step {step}: {what} (learning rate {rate:.2g}). The last saved state is "
        f"kept in {run.folder}\nwhat helps: a smaller --lr, a longer --warmup, --clip 1, "
        "--scale sigmoid"
    )


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
    say("compile: once for each level, before the run's clock starts; it can take minutes")
    within = CompiledSteps(dynamic=False)
    try:  # compiling happens at the first call: make one that leaves no trace
        images, labels = batches(0)
        noise = torch.full(images.shape, 0.5, dtype=next(model.parameters()).dtype)
        with within:
            loss, _ = model.loss(images, classes_of(model, labels), noise=noise.to(images.device))
            loss.backward()
    except Exception as error:
        if isinstance(error, MemoryError):
            raise
        traceback.print_exc()
        what = next(iter(str(error).splitlines()), "no message")
        say(f"compile: not possible here ({type(error).__name__}: {what}); training without it")
        return plain
    finally:
        model.zero_grad(set_to_none=True)
    return model.loss, within


def _silent(_message: str) -> None:
    pass
