"""`glowlite`: the command line.  What each verb does stands in `commands.py`."""

from __future__ import annotations

import argparse
import io
import math
import os
import sys
from collections.abc import Sequence
from dataclasses import fields
from typing import Any, get_type_hints

from glowlite.presets import MODEL_OPTIONS, OPTIMIZERS, PRESETS, TrainConfig

# verb -> (one line, example)
_VERBS = {
    "train": (
        "train a model on images",
        """\
examples:
  glowlite train faces                                  15 minutes on the embedded faces
  glowlite train faces --out runs/a --minutes 2 --seed 1
  glowlite train cifar10 --data-dir ~/cifar --n-bits 8 --epochs 10
  glowlite train cifar10 --preset paper-cifar10         Table 2 of the paper (needs GPUs)
  glowlite train cifar10 --preset cifar10-a10           its model, ten minutes on one GPU
  torchrun --nproc-per-node 2 -m glowlite train faces   two processes, one model""",
    ),
    "resume": (
        "go on with a run where it was last saved",
        """\
examples:
  glowlite resume runs/faces-1
  glowlite resume runs/faces-1 --minutes 30    a finished run, trained to 30 minutes in all""",
    ),
    "eval": (
        "bits/dim on the test images, with standard error",
        """\
examples:
  glowlite eval runs/faces-1
  glowlite eval runs/faces-1 --draws 8 --out scores.json""",
    ),
    "sample": (
        "draw images from the model",
        """\
examples:
  glowlite sample runs/faces-1
  glowlite sample runs/faces-1 -n 16 --temperature 0 0.5 0.7 1 --out temperatures.png""",
    ),
    "reconstruct": (
        "encode images and decode them again: exact, up to rounding",
        """\
examples:
  glowlite reconstruct runs/faces-1
  glowlite reconstruct runs/faces-1 --images a.png b.png""",
    ),
    "interpolate": (
        "walk between pairs of images in latent space",
        """\
examples:
  glowlite interpolate runs/faces-1 -n 6 --steps 9
  glowlite interpolate runs/faces-1 --images a.png b.png""",
    ),
    "edit": (
        "add an attribute to images, or take it away",
        """\
examples:
  glowlite edit runs/faces-1 smiling
  glowlite edit runs/faces-1 smiling --strengths -1 -0.5 0 0.5 1 --out smile.png
  glowlite edit runs/faces-1 smiling --images a.png b.png
  glowlite edit runs/faces-1 --score           every attribute: did it change, and what else?""",
    ),
    "verify": (
        "check every layer and the whole map against exact Jacobians",
        """\
examples:
  glowlite verify runs/faces-1
  glowlite verify runs/faces-1 --full          the dense Jacobian at the full image size
  glowlite verify runs/cifar --data faces      without its own data: any images will do""",
    ),
    "bench": (
        "time training, likelihood and sampling on this machine",
        """\
examples:
  glowlite bench runs/faces-1
  glowlite bench small --batch 32              a preset, untrained""",
    ),
    "info": (
        "draw the architecture, with shapes, parameters and multiply-adds",
        """\
examples:
  glowlite info runs/faces-1
  glowlite info paper-cifar10                  a preset""",
    ),
}

_USAGE = {
    "train": "glowlite train DATA [--out RUN] [--preset NAME] [--minutes M | --epochs N] "
    "[--seed S] [options]"
}


def build_parser() -> argparse.ArgumentParser:
    """The whole command line, as argparse sees it."""
    parser = argparse.ArgumentParser(
        prog="glowlite",
        description="Train, evaluate, sample, edit and verify Glow.",
        epilog="start here:\n  glowlite train faces\n\n'glowlite VERB --help' shows examples.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", required=True)
    made = {}
    for name, (about, example) in _VERBS.items():
        made[name] = verbs.add_parser(
            name,
            help=about,
            description=about[0].upper() + about[1:] + ".",
            epilog=example,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            usage=_USAGE.get(name),
        )
        made[name].add_argument("--debug", action="store_true", help="show tracebacks of errors")
    _train(made["train"])
    _resume(made["resume"])
    for name in ("eval", "sample", "reconstruct", "interpolate", "edit", "verify"):
        made[name].add_argument("run", help="a run folder, or one .safetensors file")
        made[name].add_argument(
            "--weights", choices=("ema", "model"), default="ema",
            help="averaged weights, or the last ones (default: ema)",
        )  # fmt: skip
        made[name].add_argument("--device", default="cpu", help="cpu or cuda (default: cpu)")
        if name != "sample":
            _data_options(made[name])
            made[name].add_argument(
                "--data",
                type=_images,
                help="other images than the run was trained on, or, for a file, where these are",
            )
        if name != "verify":
            kind = "JSON" if name == "eval" else "PNG"
            made[name].add_argument("--out", help=f"file to write, {kind}")
            made[name].add_argument("--force", action="store_true", help="overwrite it")
        if name != "verify" and name != "eval":
            made[name].add_argument(
                "--seed", type=_seed, default=0, help="of what is drawn at random (default: 0)"
            )

    verb = made["eval"]
    verb.add_argument(
        "--draws", type=_positive, default=4, help="dequantisation draws (default: 4)"
    )
    verb.add_argument("--limit", type=_positive, help="only this many images")
    verb.add_argument("--batch", type=_positive, default=64, help="images at once (default: 64)")

    verb = made["sample"]
    verb.add_argument(
        "-n", type=_positive, default=64, help="images at each temperature (default: 64)"
    )
    verb.add_argument(
        "--temperature", type=_finite, nargs="+", default=[0.7], metavar="T",
        help="one, or several, a row each (default: 0.7)",
    )  # fmt: skip
    verb.add_argument("--class", dest="label", type=int, help="of a class-conditional model")

    made["reconstruct"].add_argument("-n", type=_positive, default=8, help="images (default: 8)")
    made["reconstruct"].add_argument("--images", nargs="+", metavar="FILE", help="pictures to use")
    made["interpolate"].add_argument("-n", type=_positive, default=4, help="pairs (default: 4)")
    made["interpolate"].add_argument(
        "--steps", type=_positive, default=8, help="images from end to end (default: 8)"
    )
    made["interpolate"].add_argument("--images", nargs="+", metavar="FILE", help="two or more")

    verb = made["edit"]
    verb.add_argument("attribute", nargs="?", help="for example smiling")
    verb.add_argument("-n", type=_positive, default=6, help="images to edit (default: 6)")
    verb.add_argument("--images", nargs="+", metavar="FILE", help="pictures to edit")
    verb.add_argument(
        "--strengths", type=_finite, nargs="+", default=[-1.0, -0.5, 0.0, 0.5, 1.0], metavar="S",
        help="1 adds it, -1 takes it away (default: -1 -0.5 0 0.5 1)",
    )  # fmt: skip
    verb.add_argument(
        "--learn", type=_positive, default=2000,
        help="labelled images to learn from (default: 2000)",
    )  # fmt: skip
    verb.add_argument("--score", action="store_true", help="grade every attribute (drawn faces)")

    verb = made["verify"]
    verb.add_argument(
        "--full",
        action="store_true",
        help="the whole map at the full image size; stopped, the next goes on",
    )
    verb.add_argument("--yes", action="store_true", help="do not ask before a long computation")

    verb = made["bench"]
    verb.add_argument("run", help="a run folder, a .safetensors file, or a preset's name")
    verb.add_argument("--batch", type=_positive, default=64, help="images at once (default: 64)")
    verb.add_argument("--device", default="auto", help="cpu, cuda, or auto (default: auto)")
    verb.add_argument("--size", type=_positive, default=32, help="for a preset (default: 32)")
    verb.add_argument("--bf16", action="store_true", help="bfloat16 in the coupling nets")
    verb.add_argument("--optimizer", choices=OPTIMIZERS, help="default: the run's or preset's own")

    verb = made["info"]
    verb.add_argument("run", help="a run folder, a .safetensors file, or a preset's name")
    verb.add_argument("--size", type=_positive, help="for a preset (default: the paper's)")
    return parser


def _train(verb: argparse.ArgumentParser) -> None:
    verb.add_argument(
        "data", type=_images, help="faces, cifar10, celeba, imagenet32|64, lsun-…, folder:PATH, …"
    )
    verb.add_argument("--out", metavar="RUN", help="run folder (default: runs/<data>-<n>)")
    verb.add_argument("--force", action="store_true", help="start over in a folder that exists")
    names = "settings to start from (default: small): " + ", ".join(PRESETS)
    verb.add_argument("--preset", choices=PRESETS, default="small", metavar="NAME", help=names)
    _data_options(verb)
    _train_options(verb)
    group = verb.add_argument_group("model")
    group.add_argument(
        "--model", choices=("glow", "realnvp", "nice"), default="glow", help="(default: glow)"
    )
    group.add_argument("--ycond", action="store_true", help="condition on the class labels")
    for name, (kind, text) in MODEL_OPTIONS.items():
        _option(group, name, kind, text)


def _resume(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("run", help="the run folder")
    _data_options(verb)
    group = verb.add_argument_group("what may change")
    group.add_argument("--data", type=_images, help="where its images are, if they were moved")
    for name in ("minutes", "epochs"):
        group.add_argument(_flag(name), type=float, help=f"new end of the run, in {name} in all")
    group.add_argument("--save-minutes", type=float, help="minutes between saves")
    group.add_argument("--device", help="cpu, cuda, or auto")


def _data_options(verb: argparse.ArgumentParser) -> None:
    group = verb.add_argument_group("data")
    group.add_argument(
        "--data-dir", type=_path, help="folder with the original files you already have"
    )
    group.add_argument("--cache-dir", type=_path, help="folder for decoded images")
    group.add_argument(
        "--channels",
        type=int,
        choices=(1, 3),
        help="1: grey (folders, celeba, lsun; default: 3, or as the model was trained)",
    )
    group.add_argument("--download", action="store_true", help="fetch files that may be fetched")
    group.add_argument(
        "--skip-corrupt", action="store_true", default=None, help="leave damaged images out"
    )


def _train_options(verb: argparse.ArgumentParser) -> None:
    """One option for each field of TrainConfig; what is not given is the preset's."""
    group = verb.add_argument_group("training")
    hints = get_type_hints(TrainConfig)
    for option in fields(TrainConfig):
        if option.metadata.get("hidden") or option.name in ("data_dir", "cache_dir"):
            continue
        kind, text = hints[option.name], option.metadata["help"]
        kind = next((t for t in (bool, int, float) if t is kind or kind == t | None), str)
        _option(group, option.name, kind, text, option.metadata.get("choices"))


def _option(
    group: Any, name: str, kind: type, text: str, choices: Sequence[str] | None = None
) -> None:
    """--name VALUE, or --name and --no-name; None where it is not given."""
    if kind is bool:
        group.add_argument(
            _flag(name), action=argparse.BooleanOptionalAction, default=None, help=text
        )
        return
    metavar = None if choices else kind.__name__.upper()
    group.add_argument(_flag(name), type=kind, help=text, choices=choices, metavar=metavar)


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def _path(text: str) -> str:
    """Absolute: a run is looked at, and gone on with, from anywhere."""
    return os.path.abspath(os.path.expanduser(text)) if text else text


def _images(text: str) -> str:
    """A name of images; the path in it, where it has one, absolute."""
    kind, colon, path = text.partition(":")
    return f"{kind}:{_path(path)}" if colon and kind in ("folder", "npy") else text


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{number} is not 1 or more")
    return number


def _seed(text: str) -> int:
    number = int(text)
    if number < 0:
        raise argparse.ArgumentTypeError(f"{number} is not 0 or more")
    return number


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise argparse.ArgumentTypeError(f"{number} is not a finite number")
    return number


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command -> its exit code: 0; 1 for a failure; 2 for bad usage; 130 for Ctrl-C."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a "±" it does not know must not end a training
            stream.reconfigure(errors="replace")
    args = build_parser().parse_args(arguments)
    try:
        from glowlite import commands  # torch comes with it: not before the arguments are right

        return getattr(commands, args.verb)(args) or 0
    except KeyboardInterrupt:
        _complain("stopped")
        return 130
    except BrokenPipeError:  # the reader of a pipe has left, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:
        if args.debug:
            raise
        _complain(explain(error))
        return 1


def explain(error: Exception) -> str:
    """An error in one or two lines."""
    if isinstance(error, OSError) and error.filename:
        return f"{error.filename}: {error.strerror}"
    text = str(error).strip()
    if isinstance(error, ValueError | OSError | RuntimeError) and text:
        lines = text.splitlines()
        return "\n".join(lines[:2]) if len(lines) <= 2 else lines[0] + " (more with --debug)"
    return f"{type(error).__name__}: {text or 'no message'} (run again with --debug to see where)"


def _complain(message: Any) -> None:
    print(f"glowlite: {message}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
