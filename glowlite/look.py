"""What is looked at from time to time in a run: the averaged weights."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from glowlite.data import ImageSet
from glowlite.evaluate import SAMPLES, evaluate, seeded, to_tensor, with_error
from glowlite.images import save_grid
from glowlite.latent import to_pictures
from glowlite.model import FlowModel
from glowlite.parallel import without_trials
from glowlite.plots import save_curve
from glowlite.progress import Log
from glowlite.runs import Run
from glowlite.telemetry import peak_memory, telemetry


@without_trials()
def look(
    run: Run,
    images: ImageSet,
    log: Log,
    count: int,
    draws: int = 1,
    last: ImageSet | None = None,
) -> tuple[str, dict[str, dict[str, float | None]]]:
    """Evaluate the averaged weights, measure invertibility, draw samples, and redraw the curve.

    -> the line to print, and the evaluations, on the first `count` of `images`.  In the last look
    `last` is the test set, read as well where it is another set than `images`; the weights
    themselves are then told beside their average.
    """
    config, model = run.config, run.average
    batch = config.eval_batch or config.batch

    def bits(model: FlowModel, images: ImageSet, count: int, draws: int) -> dict[str, float | None]:
        labels = images.labels[:count] if model.n_classes else None
        options = {"draws": draws, "batch": batch, "seed": config.seed}
        # The last look takes all images, which may be many times the rest of the run.
        hide = None if last is not None else True
        with tqdm(total=count, desc="evaluating", unit=" images", disable=hide, leave=False) as bar:
            found = evaluate(model, images.images[:count], labels, progress=bar.update, **options)
        return found.as_dict()

    row = {part_of(images): bits(model, images, count, draws)}
    if last is not None:
        if last is not images:
            row[part_of(last)] = bits(model, last, len(last), draws)
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
        f"{kind.replace('_', ' ')} {with_error(row[kind]['mean'], row[kind]['standard_error'], 3)}"
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


def part_of(images: ImageSet) -> str:
    """What the log calls bits/dim on these images: "test", or "held_out" of the training images."""
    return "test" if images.split == "test" else "held_out"


def draw_samples(
    model: FlowModel, n: int, temperature: float, seed: int, classes: Tensor | None = None
) -> tuple[Tensor, int]:
    """-> uint8 (n, C, H, W), and how many of them exploded; see `latent.to_pictures`."""
    model.eval()
    if model.n_classes and classes is None:
        classes = torch.arange(n) % model.n_classes
    if classes is not None:
        classes = classes.to(next(model.parameters()).device)
    noise = seeded(seed, SAMPLES)
    x = model.sample(n, temperature=temperature, classes=classes, generator=noise)
    pictures, exploded = to_pictures(model, x)
    return pictures, int(exploded.sum())
