"""The classroom that the notebooks import: checks, hints, solutions, progress and figures."""

import sys
from importlib.util import find_spec

_HELP = "Type `make course` in the project's folder, or pick the kernel of its .venv."

if sys.version_info < (3, 11):  # noqa: UP036  (pip was not asked: only the folder is there)
    raise ImportError(
        "The course needs Python 3.11 or newer; this is Python "
        + sys.version.split()[0]
        + ". "
        + _HELP
    )
for _name in (
    "numpy",
    "scipy",
    "matplotlib",
    "IPython",
    "ipywidgets",
    "torch",
    "reference",
    "glowlite",
):
    if find_spec(_name) is None:
        raise ImportError(
            f"This Python has no package {_name!r}, so the course cannot start. {_HELP}"
        )

from . import style  # noqa: E402
from .exercise import check, hint, solution  # noqa: E402
from .figures import show  # noqa: E402
from .predict import predict  # noqa: E402
from .progress import progress  # noqa: E402
from .scorecard import scorecard  # noqa: E402

__all__ = ["check", "hint", "predict", "progress", "scorecard", "show", "solution", "style"]
