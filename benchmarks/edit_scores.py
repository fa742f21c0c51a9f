"""Attribute edits of the model that ships with glowlite, graded: what changed, and what else.

    python -m benchmarks.edit_scores           writes results/faces32/edit_scores.json

About two minutes on one core.  The same grading as `glowlite edit RUN --score`.
"""

from __future__ import annotations

import sys

import torch

from benchmarks.surroundings import ROOT, surroundings
from glowlite import pretrained
from glowlite.checkpoint import digest, write_json
from glowlite.data import make_faces
from glowlite.grading import score_edits, train_reader
from glowlite.latent import attribute_vectors

LEARN, SEED = 2_000, 0


def main() -> int:
    torch.set_num_threads(1)
    model = pretrained("faces32")
    images, truth = make_faces(LEARN, 32, SEED)
    vectors = attribute_vectors(model, images, truth)
    shown, has = make_faces(2_000, 32, SEED, "test")
    reader = train_reader(32, model.config.n_bits)
    score = score_edits(model, reader, vectors, shown, has)
    print(score)
    about = {**surroundings("python -m benchmarks.edit_scores"), "seed": SEED}
    weights = digest(model.state_dict(), {})  # of which model these are the scores
    about |= {"weights": weights[:16], "learned_from": LEARN}
    (ROOT / "results" / "faces32").mkdir(parents=True, exist_ok=True)
    write_json(ROOT / "results" / "faces32" / "edit_scores.json", {**about, **score.as_dict()})
    return 0


if __name__ == "__main__":
    sys.exit(main())
