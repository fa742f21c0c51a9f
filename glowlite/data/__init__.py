"""Data sets as memory-mapped uint8 arrays: drawn faces, the sets of the paper, one's own images.

    train = glowlite.data.load("faces", size=16)
    train.images.shape                                  # (20000, 16, 16, 3)

Nothing here needs torch, runs code found in a file, or uses the network unless asked to.
"""

from .errors import DataError
from .faces import make_faces
from .loading import SETS, SPLITS, ImageSet, default_cache, load
from .order import epoch_order

__all__ = [
    "SETS", "SPLITS", "DataError", "ImageSet", "default_cache", "epoch_order", "load", "make_faces",
]  # fmt: skip
