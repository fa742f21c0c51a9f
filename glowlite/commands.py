"""What each verb of the command line does: read, call the library, write, say what is next."""

from __future__ import annotations

import shlex
import subprocess
import sys
from argparse import Namespace
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from glowlite import checkpoint, data
from glowlite.parallel import World
from glowlite.presets import MODEL_OPTIONS, TrainConfig, preset


def train(args: Namespace) -> int:
    """glowlite train DATA"""
    from glowlite import train as training

    chosen = preset(args.preset)
    given = {
        f.name: getattr(args, f.name)
        for f in fields(TrainConfig)
        if getattr(args, f.name, None) is not None
    }
    settings = {**chosen.train, **given}
    if given.get("minutes"):
        settings["epochs"] = given.get("epochs")
    elif given.get("epochs"):
        settings["minutes"] = None
    if not settings.get("minutes") and not settings.get("epochs"):
        settings["minutes"] = 15.0
    config = TrainConfig(**settings)
    model = {k: getattr(args, k) for k in MODEL_OPTIONS if getattr(args, k) is not None}
    if args.model == "glow":
        model = {**chosen.model, **model}
    elif "n_bits" in chosen.model:
        model.setdefault("n_bits", chosen.model["n_bits"])
    model["model"] = args.model
    world = World(config.device)
    try:
        train_set, test_set = _both(config, args, world)
        if args.ycond:
            if train_set.labels is None:
                raise ValueError(f"--ycond: {config.data} has no class labels")
            model["n_classes"] = int(train_set.labels.max()) + 1
        folder = Path(args.out) if args.out else training.next_folder(config.data)
        if world.first:
            print(f"{train_set.name}: {len(train_set):,} training, {len(test_set):,} test images")
        run = training.start(
            folder, config, model, train_set, test_set, world, force=args.force, notes=_notes(world)
        )
        return _train(run, train_set, test_set, world)
    finally:
        world.close()


def resume(args: Namespace) -> int:
    """glowlite resume RUN"""
    from glowlite import train as training

    names = ("minutes", "epochs", "save_minutes", "device", "data_dir", "cache_dir")
    changes = {n: getattr(args, n) for n in names if getattr(args, n) is not None}
    if "minutes" in changes:
        changes.setdefault("epochs", None)
    elif "epochs" in changes:
        changes.setdefault("minutes", None)
    saved = training.read_config(args.run)
    config = replace(saved["train"], **changes)
    world = World(config.device)
    try:
        train_set, test_set = _both(config, args, world)
        run = training.restart(args.run, train_set, world, **changes)
        if world.first:
            print(f"going on at step {run.step}, after {run.seconds / 60:.1f} minutes of training")
        return _train(run, train_set, test_set, world)
    finally:
        world.close()


def _train(run: Any, train_set: data.ImageSet, test_set: data.ImageSet, world: World) -> int:
    from glowlite import train as training

    count = sum(p.numel() for p in run.model.parameters())
    if world.first:
        length = f"{run.config.minutes:g} minutes" if run.config.minutes else ""
        length = length or f"{run.config.epochs:g} epochs"
        where = f"{world.device.type}" + (f", {world.size} processes" if world.size > 1 else "")
        print(f"{count / 1e6:.2f} M parameters, {length} on {where} -> {run.folder}")
    result = training.train(run, train_set, test_set, world)
    if not world.first:
        return 0
    folder = shlex.quote(str(run.folder))
    if result is None:
        print(f"stopped and saved at step {run.step}; go on with:\n  glowlite resume {folder}")
        return 130
    latest = run.folder / "samples" / f"{run.step:07d}.png"
    print(f"test: {result}; every pixel by itself: {run.baseline:.4f}")
    print(f"look at {latest} and {run.folder / 'curve.png'}; then:")
    print(f"  glowlite sample {folder}\n  glowlite edit {folder} --help")
    return 0


def eval(args: Namespace) -> int:  # the verb's name
    """glowlite eval RUN"""
    from glowlite.evaluate import evaluate

    model = _model(args)
    images = _images(model, args)
    count = min(args.limit or len(images), len(images))
    labels = images.labels[:count] if model.n_classes else None
    with tqdm(total=count, unit=" images", disable=None, leave=False) as bar:
        result = evaluate(
            model, images.images[:count], labels, draws=args.draws, batch=args.batch,
            progress=bar.update,
        )  # fmt: skip
    print(f"{args.run}, {images.name} {images.split}, {args.weights} weights: {result}")
    if args.out:
        value = {"run": str(args.run), "data": images.name, "split": images.split}
        value |= {"weights": args.weights, **result.as_dict()}
        _say_written(checkpoint.write_json(_output(args, "eval.json"), value))
    return 0


def sample(args: Namespace) -> int:
    """glowlite sample RUN"""
    from glowlite.images import save_grid
    from glowlite.train import draw_samples

    model = _model(args)
    out = _output(args, "sample.png")
    labels = None if args.label is None else torch.full((args.n,), args.label)
    if args.label is not None and not 0 <= args.label < model.n_classes:
        raise ValueError(f"--class is {args.label}; this model has {model.n_classes} classes")
    pictures, several = [], len(args.temperature) > 1
    for temperature in args.temperature:
        images, exploded = draw_samples(model, args.n, temperature, args.seed, labels)
        pictures.append(images)
        if exploded:
            print(
                f"temperature {temperature:g}: {exploded} of {args.n} samples exploded "
                "(left in the picture); a lower temperature helps"
            )
    _say_written(save_grid(out, torch.cat(pictures), columns=args.n if several else None))
    if several:
        print("rows: temperature " + ", ".join(f"{t:g}" for t in args.temperature))
    return 0


# -- what several verbs need -------------------------------------------------------------------


def _model(args: Namespace) -> Any:
    device = World(getattr(args, "device", "cpu")).device
    return checkpoint.load(args.run, weights=args.weights, device=device)


def _open(name: str, split: str, size: int | None, args: Namespace, **where: Any) -> data.ImageSet:
    where = {
        k: getattr(args, k) or v for k, v in {"data_dir": None, "cache_dir": None, **where}.items()
    }
    return data.load(
        name, split, size=size, **where, download=args.download,
        on_corrupt="skip" if args.skip_corrupt else "error",
    )  # fmt: skip


def _both(
    config: TrainConfig, args: Namespace, world: World
) -> tuple[data.ImageSet, data.ImageSet]:
    where = {"data_dir": config.data_dir, "cache_dir": config.cache_dir}
    sets = [_open(config.data, split, config.size, args, **where) for split in ("train", "test")]
    return sets[0], sets[1]


def _images(model: Any, args: Namespace, split: str = "test") -> data.ImageSet:
    """The images the model was trained on, or those of --data, at the model's size."""
    settings = model.header.get("train", {})
    name = args.data or settings.get("data")
    if not name:
        raise ValueError("this file does not say what it was trained on; name images with --data")
    where = {}
    if Path(args.run).is_dir() and not args.data:
        from glowlite.train import read_config

        config = read_config(args.run)["train"]
        where = {"data_dir": config.data_dir, "cache_dir": config.cache_dir}
    c, h, w = model.shape
    size = settings.get("size") if not args.data else (h if h == w else None)
    images = _open(name, split, size, args, **where)
    if images.shape != (h, w, c):
        raise ValueError(f"{name} has images of shape {images.shape}; this model needs {(h, w, c)}")
    return images


def _output(args: Namespace, name: str) -> Path:
    """--out, or a new name in the run's folder; an existing file needs --force."""
    if args.out:
        path = Path(args.out)
        if path.exists() and not args.force:
            raise FileExistsError(17, "exists already; --force overwrites it", str(path))
        if not path.parent.is_dir():
            raise FileNotFoundError(2, "no such folder", str(path.parent))
        return path
    folder = Path(args.run) if Path(args.run).is_dir() else Path()
    stem, suffix = name.rsplit(".", 1)
    number = 1
    while (folder / f"{stem}-{number}.{suffix}").exists():
        number += 1
    return folder / f"{stem}-{number}.{suffix}"


def _say_written(path: Path) -> None:
    print(f"wrote {path}")


def _notes(world: World) -> dict[str, Any]:
    """How the run was made: command, commit, device."""
    here = Path(__file__).parent
    try:
        answer = subprocess.run(
            ["git", "rev-parse", "HEAD"], cwd=here, capture_output=True, text=True, timeout=10
        )
        commit = answer.stdout.strip() or None
    except (OSError, subprocess.SubprocessError):
        commit = None
    device = str(world.device)
    if world.device.type == "cuda":
        device = torch.cuda.get_device_name(world.device)
    return {
        "command": shlex.join(["glowlite", *sys.argv[1:]]),
        "commit": commit,
        "device": device,
        "threads": torch.get_num_threads(),
        "processes": world.size,
        "numpy": np.__version__,
    }
