"""The classroom that the notebooks import: checks, hints, solutions, progress and figures."""

from . import style
from .exercise import check, hint, solution
from .figures import show
from .predict import predict
from .progress import progress

__all__ = ["check", "hint", "predict", "progress", "show", "solution", "style"]
