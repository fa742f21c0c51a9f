"""What each verb of the command line does: read, call the library, write, say what is next."""

from __future__ import annotations

import math
import os
import platform
import shlex
import subprocess
import sys
from argparse import Namespace
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from glowlite import checkpoint, data
from glowlite.batches import listed, numbered
from glowlite.data.loading import can_be_grey
from glowlite.evaluate import to_tensor
from glowlite.parallel import World
from glowlite.presets import MODEL_OPTIONS, PRESETS, TrainConfig, preset
from glowlite.registry import configure


def train(args: Namespace) -> int:
    """glowlite train DATA"""
    from glowlite import runs

    chosen = preset(args.preset)
    given = {
        f.name: getattr(args, f.name)
        for f in fields(TrainConfig)
        if getattr(args, f.name, None) is not None
    }
    settings = {**chosen.train, **given}
    if "minutes" in given:
        settings["epochs"] = given.get("epochs")
    elif "epochs" in given:
        settings["minutes"] = None
    elif not settings.get("minutes") and not settings.get("epochs"):
        settings["minutes"] = 15.0
    config = TrainConfig(**settings)
    model = {k: getattr(args, k) for k in MODEL_OPTIONS if getattr(args, k) is not None}
    if args.model == "glow":
        model = {**chosen.model, **model}
    elif "n_bits" in chosen.model:
        model.setdefault("n_bits", chosen.model["n_bits"])
    model["model"] = args.model
    if config.size and config.data.startswith("folder:"):  # told before it is decoded
        known = {"shape": (config.channels, config.size, config.size), "seed": config.seed}
        configure({**model, **known, **({"n_classes": 1} if args.ycond else {})})
    world = World(config.device)
    try:
        train_set, watched, test_set = _sets(config, args)
        if args.ycond:
            if train_set.labels is None:
                raise ValueError(f"--ycond: {config.data} has no class labels")
            # A small set's test part may hold a class that its training part has not.
            every = (train_set, watched, test_set)
            model["n_classes"] = 1 + max(int(part.labels.max()) for part in every)
        # One process makes and knows the folder, and keeps others out.
        folder, new = Path(args.out or ""), False
        if world.first:
            new = not args.out or not folder.exists()
            folder = folder if args.out else runs.next_folder(config.data)
            if new:
                folder.mkdir(parents=True, exist_ok=True)
            counts = [f"{len(train_set):,} training"]
            counts += [f"{len(watched):,} held-out"] if config.holdout else []
            counts += [f"{len(test_set):,} test"] if config.test else []
            print(f"{train_set.name}: {', '.join(counts)} images")
            if train_set.skipped:
                print(f"left out: {train_set.skipped:,} of the files, not readable as images")
        notes = _notes(world)
        with _alone(folder, world):
            try:
                run = runs.start(
                    folder, config, model, train_set, watched, world, force=args.force, notes=notes
                )
            finally:
                if new and not any(folder.iterdir()):
                    folder.rmdir()
            return _train(run, train_set, watched, test_set, world)
    finally:
        world.close()


def resume(args: Namespace) -> int:
    """glowlite resume RUN"""
    from glowlite import runs

    names = ("minutes", "epochs", "save_minutes", "device", "data_dir", "cache_dir")
    names += ("data", "skip_corrupt")
    changes = {n: getattr(args, n) for n in names if getattr(args, n) is not None}
    if "minutes" in changes:
        changes.setdefault("epochs", None)
    elif "epochs" in changes:
        changes.setdefault("minutes", None)
    saved = runs.read_config(args.run)
    config = replace(saved["train"], **changes)
    world = World(config.device)
    try:
        train_set, watched, test_set = _sets(config, args)
        with _alone(args.run, world):
            run = runs.restart(args.run, train_set, world, **changes)
            train_set, watched, test_set = (
                numbered(part, run.model.n_classes, run.classes)
                for part in (train_set, watched, test_set)
            )
            (finished,) = world.agree(float(runs.finished(run)))
            if finished and run.progress(len(train_set)) >= 1:
                if world.first:
                    print(
                        f"{args.run} is complete, at step {run.step}, after "
                        f"{run.epochs(len(train_set)):.4g} epochs, {run.seconds / 60:.4g} minutes; "
                        "to train on, a new end must lie beyond: --epochs or --minutes, in all"
                    )
                return 0
            if world.first:
                minutes = run.seconds / 60
                print(f"going on at step {run.step}, after {minutes:.1f} minutes of training")
            return _train(run, train_set, watched, test_set, world)
    finally:
        world.close()


def _alone(folder: str | Path, world: World) -> AbstractContextManager[None]:
    """The run's folder, kept from other runs by the process that writes there."""
    from glowlite import runs

    return runs.alone(folder) if world.first else nullcontext()


def _train(
    run: Any,
    train_set: data.ImageSet,
    watched: data.ImageSet,
    test_set: data.ImageSet,
    world: World,
) -> int:
    from glowlite import train as training

    count = sum(p.numel() for p in run.model.parameters())
    if world.first:
        length = f"{run.config.minutes:g} minutes" if run.config.minutes else ""
        length = length or f"{run.config.epochs:g} epochs"
        where = f"{world.device.type}" + (f", {world.size} processes" if world.size > 1 else "")
        print(f"{count / 1e6:.2f} M parameters, {length} on {where} -> {run.folder}")
    result = training.train(run, train_set, test_set, world, watched=watched)
    if not world.first:
        return 0
    folder = shlex.quote(str(run.folder))
    if result is None:
        print(f"stopped and saved at step {run.step}; go on with:\n  glowlite resume {folder}")
        return 130
    latest = run.folder / "samples" / f"{run.step:07d}.png"
    what = "test" if run.config.test else "held out"
    where = " (held out)" if run.config.holdout and run.config.test else ""
    print(f"{what}: {result}; every number by itself{where}: {run.baseline:.4f}")
    print(f"look at {latest} and {run.folder / 'curve.png'}; then:")
    can_edit = train_set.names and not run.model.n_classes
    more = f"edit {folder} --help" if can_edit else f"interpolate {folder}"
    print(f"  glowlite sample {folder}\n  glowlite {more}")
    return 0


def eval(args: Namespace) -> int:  # the verb's name
    """glowlite eval RUN"""
    from glowlite.evaluate import evaluate
    from glowlite.runs import without_path

    model = _model(args)
    out = _output(args, "eval.json") if args.out else None
    images = _images(model, args)
    count = min(args.limit or len(images), len(images))
    # Without labels a class-conditional model is judged by its mean over the classes.
    images = numbered(images, model.n_classes, model.header.get("classes"))
    known = model.n_classes and images.labels is not None
    labels = images.labels[:count] if known else None
    if model.n_classes and not known:
        what = f"bits/dim are of the mean over the model's {model.n_classes}"
        print(f"{images.name} has no classes: {what}")
    with tqdm(total=count, unit=" images", disable=None, leave=False) as bar:
        result = evaluate(
            model, images.images[:count], labels, draws=args.draws, batch=args.batch,
            progress=bar.update,
        )  # fmt: skip
    print(f"{args.run}, {images.name} {images.split}, {args.weights} weights: {result}")
    if out:
        value = {"run": str(args.run), "data": without_path(images.name), "split": images.split}
        value |= {"weights": args.weights, **result.as_dict()}
        _say_written(checkpoint.write_json(out, value))
    _say_next("sample", args)
    return 0


def sample(args: Namespace) -> int:
    """glowlite sample RUN"""
    from glowlite.images import save_grid
    from glowlite.look import draw_samples

    model = _model(args)
    out = _output(args, "sample.png")
    labels = None if args.label is None else torch.full((args.n,), args.label)
    if args.label is not None and not 0 <= args.label < model.n_classes:
        named = [f"{i} {name}" for i, name in enumerate(model.header.get("classes", []))]
        known = f": {listed(named)}" if named else ""
        raise ValueError(
            f"--class is {args.label}; this model has {model.n_classes} classes{known}"
        )
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
    _say_next("interpolate", args)
    return 0


def reconstruct(args: Namespace) -> int:
    """glowlite reconstruct RUN"""
    from glowlite import latent
    from glowlite.images import save_grid

    model = _model(args)
    out = _output(args, "reconstruction.png")
    images = _some(model, args, args.n)
    back, error = latent.reconstruct(model, images, _zeros(model, len(images)))
    shown = images >> (8 - model.config.n_bits) << (8 - model.config.n_bits)
    wrong = int((back != shown).flatten(1).any(1).sum())
    _say_written(save_grid(out, torch.cat([shown, back]), columns=len(images)))
    print(
        f"above: the images in {model.config.n_bits} bits; below: decoded from their latents. "
        f"max |x − f⁻¹(f(x))| = {error:.1e}; {len(images) - wrong} of {len(images)} pixel for pixel"
    )
    _say_next("interpolate", args)
    return 0


def interpolate(args: Namespace) -> int:
    """glowlite interpolate RUN"""
    from glowlite import latent
    from glowlite.images import save_grid

    model = _model(args)
    out = _output(args, "interpolation.png")
    images = _some(model, args, 2 * args.n)
    if args.images:  # consecutive files make the pairs
        if len(images) < 2:
            raise ValueError("--images: at least two files are needed to walk between")
        a, b = images[:-1], images[1:]
    elif len(images) < 2:
        raise ValueError("interpolate needs at least two test images; there is one")
    else:
        images = images[: len(images) // 2 * 2]
        a, b = images[0::2], images[1::2]
    frames, exploded = latent.interpolate(model, a, b, args.steps, _zeros(model, len(a)))
    _say_written(save_grid(out, frames.flatten(0, 1), columns=args.steps))
    print("each row walks from its first image to its last, linearly in all latents")
    _count_exploded(exploded)
    _say_next("edit", args, "--help")
    return 0


def edit(args: Namespace) -> int:
    """glowlite edit RUN ATTRIBUTE"""
    from glowlite import latent
    from glowlite.images import save_grid

    model = _model(args)
    if model.n_classes:
        raise ValueError("edit is for models without classes: their latents depend on the class")
    labelled = _images(model, args, "train")
    names, has = labelled.names, labelled.attributes
    if not names:
        raise ValueError(
            f"{labelled.name} has no attributes or classes to learn from; edit needs labelled "
            "images, for example a folder with a sub-folder of each kind (--data)"
        )
    count = min(args.learn, len(labelled))
    rows = np.arange(count)
    if has is None:  # each class is an attribute; a folder's images lie class by class
        has = np.asarray(labelled.labels)[:, None] == np.arange(len(names))
        rows = np.sort(data.epoch_order(len(labelled), 0, 0)[:count])
    if not args.score and args.attribute not in names:
        raise ValueError(f"attribute is {args.attribute!r}; it must be one of {', '.join(names)}")
    if args.score:
        if args.out and Path(args.out).suffix != ".png":
            raise ValueError(
                f"--out is {args.out!r}; --score writes a picture and, beside it, the numbers as "
                "JSON: name the picture, with .png at the end"
            )
        out = _output(args, "scores.png", ".json")
    else:
        out = _output(args, f"edit-{args.attribute}.png")
    learned = names if args.score else (args.attribute,)
    has = np.asarray(has[rows])[:, [names.index(name) for name in learned]]
    with tqdm(total=count, unit=" images", desc="encoding", disable=None, leave=False) as bar:
        vectors = latent.attribute_vectors(
            model, labelled.images[rows], has, names=learned, progress=bar.update
        )
    if args.score:
        return _score(model, vectors, _images(model, args), out, args)
    some = _some(model, args, args.n)
    frames, exploded = latent.edit(model, some, vectors[0], args.strengths)
    _say_written(save_grid(out, frames.flatten(0, 1), columns=len(args.strengths)))
    print(
        f"columns: {args.attribute} at strength "
        + ", ".join(f"{s:g}" for s in args.strengths)
        + f"; the direction was learned from {count:,} labelled images"
    )
    _count_exploded(exploded)
    if labelled.name == "faces":
        _say_next("edit", args, "--score")
    else:
        _say_next("verify", args)
    return 0


def _score(model: Any, vectors: list, shown: data.ImageSet, out: Path, args: Namespace) -> int:
    from glowlite.data.faces import ATTRIBUTES
    from glowlite.grading import score_edits, train_reader
    from glowlite.plots import save_scores

    if tuple(shown.names) != ATTRIBUTES or shown.name != "faces":
        raise ValueError("--score is for the drawn faces, whose attributes are known exactly")
    faces, epochs = 6000, 8
    with tqdm(total=faces * epochs, desc="learning to read", disable=None, leave=False) as bar:
        reader = train_reader(
            shown.shape[0], model.config.n_bits, faces=faces, epochs=epochs, progress=bar.update
        )
    with tqdm(total=len(vectors), desc="editing", disable=None, leave=False) as bar:
        score = score_edits(
            model, reader, vectors, shown.images, shown.attributes, progress=bar.update
        )
    print(score)
    _say_written(save_scores(out, score))
    _say_written(checkpoint.write_json(out.with_suffix(".json"), score.as_dict()))
    _say_next("verify", args)
    return 0


def verify(args: Namespace) -> int:
    """glowlite verify RUN"""
    from glowlite import verify as checks

    model = _model(args)
    images = to_tensor(_images(model, args).images[:8], next(model.parameters()).device)
    one, classes = images[:1], _zeros(model, 1)
    shape = model.shape if args.full else checks.crop_shape(model)
    dims = math.prod(shape)
    if args.full and dims > checks.MAX_DIMS:
        raise ValueError(f"--full: {dims:,} dimensions; at most {checks.MAX_DIMS:,} can be checked")
    print(checks.HEAD)
    lines = []
    for line in checks.verify_layers(model, one, classes):
        print(line, flush=True)
        lines.append(line)
    if args.full:
        seconds = checks.estimate_seconds(model, one, classes)
        print(f"the whole map at {shape}: about {seconds:,.0f} seconds on this machine", flush=True)
        if seconds > 600 and not args.yes and sys.stdin.isatty():
            if input("go on? [y/N] ").strip().lower() not in ("y", "yes"):
                return 1
    if dims > checks.MAX_DIMS:
        print(f"the whole map is left out: {dims:,} dimensions even on a crop")
    else:
        with tqdm(total=dims, unit=" rows", disable=None, leave=False) as bar:
            folder = Path(args.run) if args.full and Path(args.run).is_dir() else None
            line = checks.verify_map(
                model, one, classes, full=args.full, progress=bar.update, folder=folder
            )
        print(line)
        lines.append(line)
    gap = checks.float32_gap(model, images, _zeros(model, len(images)))
    print(
        f"as it runs, against float64, on {len(images)} images: log-det within "
        f"{gap['logdet']:.1e} nats, max |x − f⁻¹(f(x))| {gap['round_trip']:.1e} "
        f"(float64: {gap['round_trip_float64']:.1e})"
    )
    for verdict in ("WRONG", "UNCERTAIN"):
        if found := [line.name for line in lines if line.verdict == verdict]:
            print(f"{verdict}: {', '.join(found)}")
    if not all(line.ok for line in lines):
        print("next: python -m reference  (is the same layer right there?)")
        return 1
    print(f"all {len(lines)} agree")
    if args.full or math.prod(model.shape) > checks.MAX_DIMS:
        _say_next("bench", args)
    else:
        _say_next("verify", args, "--full")
    return 0


def bench(args: Namespace) -> int:
    """glowlite bench RUN"""
    from glowlite import bench as timing

    world = World(args.device)
    model = _model_or_preset(args).to(world.device)
    if args.bf16:
        model.set_net_dtype(torch.bfloat16)
    saved = hasattr(model, "header")
    trained = model.header.get("train", {}) if saved else preset(args.run).train
    optimizer = args.optimizer or trained.get("optimizer", TrainConfig.optimizer)
    print(timing.measure(model, args.batch, optimizer))
    _say_next("info", args)
    return 0


def info(args: Namespace) -> int:
    """glowlite info RUN"""
    from glowlite.info import draw

    model = _model_or_preset(args)
    header = getattr(model, "header", {})
    if "step" in header:
        print(
            f"{args.run}: step {header['step']:,}, {header['images']:,} images, "
            f"{header['seconds'] / 60:.1f} minutes of training on {header['train']['data']}\n"
        )
    print(draw(model))
    if header:
        _say_next("sample", args)
    else:
        print(f"next: glowlite train DATA --preset {args.run}")
    return 0


# -- what several verbs need -------------------------------------------------------------------


def _model(args: Namespace) -> Any:
    device = World(args.device).device
    return checkpoint.load(args.run, weights=args.weights, device=device)


def _model_or_preset(args: Namespace) -> Any:
    """A saved model, or, for a preset's name, an untrained one."""
    from glowlite.registry import build

    if args.run not in PRESETS or Path(args.run).exists():
        return checkpoint.load(args.run)
    chosen = preset(args.run)
    size = args.size or chosen.train.get("size") or 32
    return build({"model": "glow", "shape": [3, size, size], **chosen.model})


def _zeros(model: Any, n: int) -> torch.Tensor | None:
    """A class for each of n images, where the model wants one."""
    device = next(model.parameters()).device
    return torch.zeros(n, dtype=torch.long, device=device) if model.n_classes else None


def _some(model: Any, args: Namespace, n: int) -> torch.Tensor:
    """The pictures of --images, cut square and resized, or n test images in seeded order."""
    device = next(model.parameters()).device
    if not args.images:
        images = _images(model, args)
        rows = data.epoch_order(len(images), args.seed, 0)[:n]
        return to_tensor(images.images[np.sort(rows)], device)
    from PIL import Image, ImageOps

    from glowlite.data.pixels import read

    c, h, w = model.shape
    if c not in (1, 3):
        raise ValueError(f"--images: pictures have 1 or 3 channels, this model's images {c}")
    found = []
    for name in args.images:
        try:
            picture = read(Path(name).read_bytes(), c)
        except ValueError as error:
            raise ValueError(f"{name} cannot be read as a picture: {error}") from None
        fitted = ImageOps.fit(picture, (w, h), Image.Resampling.LANCZOS)
        found.append(np.asarray(fitted).reshape(h, w, c))
    return to_tensor(np.stack(found), device)


def _open(
    name: str, split: str, size: int | None, args: Namespace, where: Mapping[str, Any]
) -> data.ImageSet:
    """Images, found as the arguments say, or else as `where` does: a run's settings."""
    return data.load(
        name,
        split,
        size=size,
        channels=args.channels or where.get("channels", 3),
        data_dir=args.data_dir or where.get("data_dir"),
        cache_dir=args.cache_dir or where.get("cache_dir"),
        download=args.download,
        on_corrupt="skip" if args.skip_corrupt or where.get("skip_corrupt") else "error",
    )


def _sets(config: TrainConfig, args: Namespace) -> tuple[data.ImageSet, ...]:
    """What to train on, what to look at during the run and at its end: the test set, if any."""
    splits = ("fit", "valid", "test") if config.holdout else ("train", "test", "test")
    if not config.test:
        splits = ("fit", "valid", "valid")
    # The last first: that a folder has no test images is told before the others are decoded.
    opened = {
        split: _open(config.data, split, config.size, args, vars(config))
        for split in dict.fromkeys(reversed(splits))
    }
    return tuple(opened[split] for split in splits)


def _images(model: Any, args: Namespace, split: str = "test") -> data.ImageSet:
    """The images the model was trained on, or those of --data, as the model needs them."""
    c, h, w = model.shape
    if args.data:
        name, where = args.data, {"size": h if h == w else None}
        if c == 1 and can_be_grey(name):
            where["channels"] = 1
    elif Path(args.run).is_dir():
        from glowlite.runs import read_config

        where = vars(read_config(args.run)["train"])  # with the paths of this machine
        name = where["data"]
    else:
        where = model.header.get("train", {})
        name = where.get("data")
        if not name or ":" in name:  # the file is handed on without the path: see `runs`
            said = f"that it was trained on {name}, but not where that is"
            said = said if name else "nothing of what it was trained on"
            raise ValueError(f"{args.run} says {said}; name the images with --data")
    images = _open(name, split, where.get("size"), args, where)
    if images.shape != (h, w, c):
        there, needed = ({1: ", grey", 3: ", in colour"}.get(n, "") for n in (images.shape[2], c))
        raise ValueError(
            f"{name} has images of shape {images.shape}{there}; "
            f"this model needs {(h, w, c)}{needed}"
        )
    return images


def _output(args: Namespace, name: str, *beside: str) -> Path:
    """--out, or a new name in the run's folder; an existing file needs --force.

    beside: endings of further files that are written under that name.
    """

    def taken(path: Path) -> list[Path]:
        return [p for p in (path, *map(path.with_suffix, beside)) if p.exists()]

    if args.out:
        path = Path(args.out)
        if taken(path) and not args.force:
            there = str(taken(path)[0])
            raise FileExistsError(17, "exists already; --force overwrites it", there)
        if not path.parent.is_dir():
            raise FileNotFoundError(2, "no such folder", str(path.parent))
        return path
    folder = Path(args.run) if Path(args.run).is_dir() else Path()
    stem, suffix = name.rsplit(".", 1)
    number = 1
    while taken(folder / f"{stem}-{number}.{suffix}"):
        number += 1
    return folder / f"{stem}-{number}.{suffix}"


def _count_exploded(exploded: torch.Tensor) -> None:
    if exploded.any():
        print(
            f"{int(exploded.sum())} of {exploded.numel()} pictures exploded (left in): the inverse "
            "enlarges without limit there; a smaller step or a longer training helps"
        )


def _say_written(path: Path) -> None:
    print(f"wrote {path}")


def _say_next(verb: str, args: Namespace, *more: str) -> None:
    print("next:", shlex.join(["glowlite", verb, str(args.run), *more]))


def _notes(world: World) -> dict[str, Any]:
    """How the run was made: command, commit, device."""
    here = Path(__file__).parent
    try:
        # The second fails where another project's repository lies around an installed glowlite.
        answer = subprocess.run(
            ["git", "rev-parse", "HEAD", f"HEAD:./{Path(__file__).name}"],
            cwd=here, capture_output=True, text=True, timeout=10,
        )  # fmt: skip
        commit = answer.stdout.split()[0] if answer.returncode == 0 else None
    except (OSError, subprocess.SubprocessError):
        commit = None
    device, versions = str(world.device), {}
    if world.device.type == "cuda":
        device = torch.cuda.get_device_name(world.device)
        versions = {"cuda": torch.version.cuda, "cudnn": torch.backends.cudnn.version()}
    return {
        "command": shlex.join(["glowlite", *sys.argv[1:]]),
        # A copy without its repository is told the commit.
        "commit": commit or os.environ.get("GLOWLITE_COMMIT"),
        "device": device,
        "threads": torch.get_num_threads(),
        "processes": world.size,
        "python": platform.python_version(),
        "numpy": np.__version__,
        **versions,
    }
