"""``python -m reference``: the scoreboard, every layer's log-det against a measured one."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from reference.actnorm import ActNorm
from reference.check import check
from reference.conv1x1 import Conv1x1, Conv1x1LU, random_matrix, random_rotation
from reference.coupling import AdditiveCoupling, AffineCoupling
from reference.flow import Flow
from reference.glow import Glow, Step
from reference.network import CouplingNet
from reference.nice import NICE
from reference.permutation import Permutation
from reference.realnvp import Logit, MaskedCoupling, RealNVP, channel_mask, checkerboard_mask
from reference.report import Report
from reference.split import ConvPrior, Split, TopPrior
from reference.squeeze import Squeeze

Case = tuple[str, object, np.ndarray]
HEAD = (
    "layer", "shape", "analytic", "numeric", "difference", "tolerance", "round trip", "structure",
    "verdict",
)  # fmt: skip


def cases(seed: int = 0) -> Iterator[Case]:
    """(label, layer, x) of every layer and option: random non-zero parameters, h ≠ w, det < 0."""
    rng = np.random.default_rng(seed)

    def images(*shape: int) -> np.ndarray:
        return rng.standard_normal((2, *shape))

    def net(c_in: int, c_out: int, padding: str) -> CouplingNet:
        return CouplingNet.random(c_in, 8, c_out, rng, padding)

    def reflection(c: int) -> np.ndarray:  # det < 0, as for half of all "rotations"
        w = random_matrix(c, rng)
        w[0] *= -np.sign(np.linalg.det(w))
        return w

    for order in ("glow", "realnvp"):
        yield f"Squeeze, {order} order", Squeeze(order), images(4, 6, 3)
    s = np.exp(0.5 * rng.standard_normal(3))
    yield "ActNorm", ActNorm(s, rng.standard_normal(3)), images(5, 7, 3)
    s = s * np.array([1, -1, 1])
    yield "ActNorm, a negative s", ActNorm(s, rng.standard_normal(3)), images(4, 3, 3)
    x = 3 * images(3, 4, 5) + 1
    yield "ActNorm, from data", ActNorm.from_data(x), x
    yield "Conv1x1, rotation", Conv1x1(random_rotation(4, rng)), images(3, 4, 4)
    yield "Conv1x1, det W < 0", Conv1x1(reflection(3)), images(4, 5, 3)
    yield "Conv1x1LU", Conv1x1LU.from_matrix(random_matrix(5, rng)), images(3, 4, 5)
    yield "Conv1x1LU, det W < 0", Conv1x1LU.from_matrix(reflection(4)), images(3, 5, 4)
    yield "Permutation, reverse", Permutation.reverse(5), images(3, 4, 5)
    yield "Permutation, shuffle", Permutation.shuffle(6, rng), images(3, 4, 6)
    for scale in ("exp", "sigmoid"):
        for padding in ("edge", "zero"):
            layer = AffineCoupling(net(2, 4, padding), scale)
            yield f"AffineCoupling, {scale}, {padding} padding", layer, images(3, 5, 4)
    for padding in ("edge", "zero"):
        layer = AdditiveCoupling(net(3, 3, padding))
        yield f"AdditiveCoupling, {padding} padding", layer, images(3, 4, 6)
    yield "Split, learned prior", Split(ConvPrior.random(2, rng)), images(3, 5, 4)
    yield "Split, fixed prior", Split(), images(3, 4, 4)
    prior = TopPrior(rng.standard_normal(3), 0.5 * rng.standard_normal(3))
    yield "TopPrior", prior, images(4, 5, 3)
    for parity in (0, 1):
        layer = MaskedCoupling(checkerboard_mask(3, 4, parity), net(3, 6, "zero"))
        yield f"MaskedCoupling, checkerboard {parity}", layer, images(3, 4, 3)
        layer = MaskedCoupling(channel_mask(4, parity), net(4, 8, "zero"))
        yield f"MaskedCoupling, channels {parity}", layer, images(3, 5, 4)
    yield "Logit", Logit(), rng.uniform(-0.5, 0.5, (2, 3, 5, 3))
    for name in ("lu", "plain", "shuffle"):
        permutation = {
            "lu": Conv1x1LU.from_matrix(reflection(4)),
            "plain": Conv1x1(random_matrix(4, rng)),
            "shuffle": Permutation.shuffle(4, rng),
        }[name]
        actnorm = ActNorm(np.exp(0.3 * rng.standard_normal(4)), rng.standard_normal(4))
        step = Step(actnorm, permutation, AffineCoupling(net(2, 4, "edge")))
        yield f"Step, {name}", step, images(3, 4, 4)
    flow = Flow([Squeeze(), step, Permutation.reverse(4)])
    yield "Flow, three layers", flow, images(4, 6, 1)
    yield "NICE", NICE.random((3, 4, 2), 12, rng), images(3, 4, 2)
    yield "RealNVP, 2 levels", RealNVP.random((4, 6, 2), 2, 6, rng), images(4, 6, 2)
    model = RealNVP.random((4, 2, 3), 2, 6, rng, logit=True)
    yield "RealNVP, 2 levels, logit", model, rng.uniform(-0.5, 0.5, (2, 4, 2, 3))
    for coupling, permutation in (("affine", "lu"), ("additive", "shuffle")):
        model = Glow.random(
            (4, 8, 3), 2, 2, 8, rng, coupling, scale="sigmoid", permutation=permutation
        )
        yield f"Glow, 2 levels, {coupling}, {permutation}", model, images(4, 8, 3)
    yield "Glow, 3 levels", Glow.random((8, 16, 1), 3, 1, 8, rng), images(8, 16, 1)[:1]


def row(label: str, report: Report) -> tuple[str, ...]:
    """One line of the scoreboard: the example that comes closest to its tolerance."""
    numbers = ("–",) * 4
    if report.analytic.size and np.all(np.isfinite(report.analytic)):
        i = int(np.argmax(report.difference / report.tolerance))
        numbers = (
            f"{report.analytic[i]:z.9f}", f"{report.numeric[i]:z.9f}",  # z: no −0.0
            f"{report.difference[i]:.1e}", f"{report.tolerance[i]:.1e}",
        )  # fmt: skip
    back = "–" if report.round_trip is None else f"{report.round_trip:.1e}"
    verdict = "ok" if report else f"FAIL ({report.mistake or 'unknown mistake'})"
    shape = "×".join(map(str, report.shape[1:]))
    return (label, shape, *numbers, back, report.structure, verdict)


def main(
    arguments: Sequence[str] | None = None, source: Callable[[int], Iterator[Case]] = cases
) -> int:
    """Print the scoreboard; 0 where every layer of ``source`` agrees, 1 where one does not."""
    parser = argparse.ArgumentParser(
        prog="python -m reference",
        description="Check every layer's log-determinant against a dense numeric Jacobian, and its "
        "inverse against its forward. Exits 1 if one fails.",
        epilog="example: python -m reference --seed 7 --markdown > scoreboard.md",
    )
    parser.add_argument("--seed", type=int, default=0, help="of parameters and inputs (default 0)")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--markdown", action="store_true", help="print a Markdown table")
    form.add_argument("--json", action="store_true", help="print JSON, one object per layer")
    options = parser.parse_args(arguments)
    if options.seed < 0:
        parser.error(f"--seed is {options.seed}; accepted: 0 and above")

    done = [(label, check(layer, x)) for label, layer, x in source(options.seed)]
    failed = [label for label, report in done if not report]
    rows = [row(label, report) for label, report in done]
    if options.json:
        found = [{**report.to_dict(), "label": label} for label, report in done]
        print(json.dumps({"seed": options.seed, "failed": failed, "layers": found}, indent=1))
    elif options.markdown:
        print("\n".join("| " + " | ".join(r) + " |" for r in [HEAD, ("---",) * len(HEAD), *rows]))
    else:
        widths = [max(map(len, column)) for column in zip(HEAD, *rows, strict=True)]
        for r in [HEAD, *rows]:
            cells = (
                cell.rjust(n) if 2 <= k <= 6 else cell.ljust(n)
                for k, (cell, n) in enumerate(zip(r, widths, strict=True))
            )
            print("  ".join(cells).rstrip())
        print()
        for label, report in done:
            if not report:
                print(f"FAIL {label}: {report.message}")
        smallest = max((report.smallest for _, report in done), default=0.0)
        words = "all agree" if not failed else f"{len(failed)} FAILED"
        print(f"{len(done)} layers, {words}; no error above {smallest:.0e} nats would have passed.")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
