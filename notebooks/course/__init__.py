"""The classroom that the notebooks import: checks, hints, solutions, progress and figures."""

from importlib.util import find_spec

for _name in ("reference", "matplotlib", "IPython"):
    if find_spec(_name) is None:
        raise ImportError(
            f"This Python has no package {_name!r}, so the course cannot start. Type `make course` "
            "in the project's folder, or pick the kernel of its .venv."
        )

from . import style  # noqa: E402
from .exercise import check, hint, solution  # noqa: E402
from .figures import show  # noqa: E402
from .predict import predict  # noqa: E402
from .progress import progress  # noqa: E402
from .scorecard import scorecard  # noqa: E402

__all__ = ["check", "hint", "predict", "progress", "scorecard", "show", "solution", "style"]
