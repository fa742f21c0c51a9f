"""Which mistake does it look like?  Wrong numbers, compared with the numbers of known mistakes.

The numeric Jacobian J knows the right log-det L *and* what common mistakes would have produced:
L/(h·w), −L, L/ln 2, Σ s for Σ log s, and so on.  A mistake is named only where its number is met,
to the accuracy of the measurement, at every example at hand; when two are met, both are said.

Names used for log-dets (``Report.mistake``), joined by " or " where several fit; a second thing
that is wrong follows after "; ":

    "zero"                  the log-det is 0, or was never computed
    "h·w missing"           per pixel only, or a mean over the pixels
    "h missing", "w missing"
    "h·w twice", "h twice", "w twice", "c twice"
    "sign flipped"          −L, which is also the log-det of the inverse
    "h² for h·w", "w² for h·w"
    "should be 0"           a layer that keeps volume says otherwise
    "mean for sum"          divided by c, c/2, the number of dimensions, …
    "log missing"           the determinant, or Σ s, where its logarithm belongs
    "absolute value missing"  NaN, or negative factors left out
    "absolute value outside the log"
    "log of base 2", "log of base 10"
    "factor 2", "factor 1/2"  counted twice, log s² or log √s
    "summed over the batch", "mean over the batch", "examples swapped"
    "first example for all"
    "prior added"           log N(y; 0, I) + L, a log-likelihood
    "shift for scale"       Σ t or Σ log|b| where Σ log s belongs
    "diagonal for determinant"  Σ log |J_ii| of a matrix that is not triangular
    "log of the sum"        log Σ s for Σ log s
    "scale before the sigmoid"  Σ raw, or a forgotten +2
    "eps in the log"        log(|s| + ε)
    "float32"               right to 7 digits
    "step forgotten", "step counted twice", "one step only"  in a composition

and for inverses:

    "inverse is the identity", "inverse is the forward", "transpose for inverse",
    "shift and scale in the wrong order", "shift forgotten", "shift added",
    "scale forgotten", "multiplies by the scale", "wrong half", "wrong input to the net",
    "entries in the wrong order", "steps in the wrong order", "float32", "eps in one only",
    "imprecise", "needs forward first"

Names for what `check` itself refuses, before any number is compared:

    "not done", "raises", "no log-det", "not a pair", "not an array", "torch tensor", "wrong type",
    "wrong shape", "not per example", "sum over too few axes", "sum over the wrong axis",
    "not finite", "not deterministic", "changes its input", "mixes examples", "float32",
    "not invertible", "not invertible here", "not differentiable here", "badly conditioned",
    "inverse returns a pair"
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import numpy as np

from reference.jacobian import Jacobian
from reference.structure import is_triangular, nonzero, pixel_blocks

# Numbers that simpler mistakes give as well, e.g. where nothing is negative.
ONLY_ALONE = {"absolute value missing", "diagonal for determinant"}


@dataclass(frozen=True)
class Mistake:
    """A short name and one sentence that says what was seen."""

    name: str
    sentence: str


def logdet_mistakes(
    said: np.ndarray,
    jacobians: list[Jacobian],
    x: np.ndarray,
    y: np.ndarray,
    tolerance: np.ndarray,
) -> list[Mistake]:
    """Mistakes that explain the log-dets ``said`` (n,) given n Jacobians at the examples x, y."""
    true = np.array([j.logabsdet for j in jacobians])
    found: dict[str, Mistake] = {}

    def meets(guess: np.ndarray, slack: float = 1.0) -> bool:
        guess = np.broadcast_to(np.asarray(guess, dtype=float), true.shape)
        allowed = slack * (tolerance + 1e-9 * (np.abs(guess) + np.abs(true)) / 10)
        if not np.all(np.isfinite(guess)) or np.all(np.abs(guess - true) <= 4 * allowed):
            return False  # no different from being right, so no explanation
        return bool(np.all(np.abs(said - guess) <= allowed))

    def offer(name: str, guess: np.ndarray, sentence: str) -> None:
        if name not in found and meets(guess):
            found[name] = Mistake(name, sentence)

    n = len(true)
    if not np.all(np.isfinite(said)):
        return _not_finite(said, jacobians)
    if np.all(said == 0):
        return [Mistake("zero", "the log-det is 0: it was forgotten, or the layer changes volume")]

    if np.all(np.abs(true) <= tolerance):
        text = "it should be 0: the layer keeps volume"
        found["should be 0"] = Mistake("should be 0", text)
    # Reference layout first; channels first and combinations only where nothing simpler fits.
    simple = _factors(x.shape[1:], y.shape[1:])
    for name, factor, sentence in simple:
        offer(name, true * factor, sentence)
    flipped = "the sign is flipped (or it is the log-det of the inverse)"
    offer("sign flipped", -true, flipped)
    for name, base in (("log of base 2", np.log(2)), ("log of base 10", np.log(10))):
        offer(name, true / base, "the natural logarithm belongs here")
    if n > 1:
        offer("summed over the batch", np.full(n, true.sum()), "it is the sum over the examples")
        offer("mean over the batch", np.full(n, true.mean()), "it is the mean over the examples")
        offer("examples swapped", true[::-1], "the examples' log-dets are in the wrong order")
        offer("first example for all", np.full(n, true[0]), "every example has that of the first")
    normal = -0.5 * np.sum(y.reshape(n, -1) ** 2 + np.log(2 * np.pi), axis=1)
    offer("prior added", true + normal, "log N(y; 0, I) is included: that is the log-likelihood")

    entries = list(_from_entries(jacobians, x, y))
    for name, guesses, sentence in entries:
        for guess in guesses:
            if len(guess) == n and not (found and name in ONLY_ALONE):
                offer(name, np.array(guess), sentence)

    if not found:
        for name, factor, sentence in _factors(_last_axis_first(x), _last_axis_first(y)):
            offer(name, true * factor, sentence + " (channels first)")
    if not found:
        bases = [("log of base 2", np.log(2)), ("log of base 10", np.log(10)), ("", 1.0)]
        for (base, log), sign, (name, factor, text) in product(bases, (1, -1), simple):
            parts = [base] * bool(base) + ["sign flipped"] * (sign < 0) + [name]
            offer(" and ".join(parts), sign * true / log * factor, f"{parts[0]}, and {text}")
        for base, log in bases[:2]:
            offer(f"{base} and sign flipped", -true / log, flipped)
        for name, guesses, sentence in entries:
            for guess, (other, factor, text) in product(guesses, simple):
                if len(guess) == n and other == "h·w missing" and not found:
                    offer(f"{name} and {other}", np.array(guess) * factor, f"{sentence}; {text}")

    if not found:
        gap = said - true
        if np.all(np.abs(gap) <= 3e-6 * (1 + np.abs(true))):
            if np.array_equal(said, said.astype(np.float32)):
                found["float32"] = Mistake("float32", "right to 7 digits: computed in float32")
        with np.errstate(all="ignore"):
            eps = gap / [np.sum(1 / np.abs(j.value.diagonal()[_touched(j)])) for j in jacobians]
            power = 10.0 ** np.round(np.log10(np.abs(eps[0])))
            factors = [np.abs(j.value.diagonal()[_touched(j)]) for j in jacobians]
            added = np.array([np.log1p(power / d).sum() for d in factors])  # what it would add
        close = np.all(np.abs(gap - added) <= 2 * tolerance + 1e-6 * np.abs(added))
        if 1e-14 < power < 1e-2 and np.allclose(eps, power, rtol=0.02, atol=0) and close:
            text = f"as if a small constant, about {eps[0]:.0e}, were added inside the log"
            found.setdefault("eps in the log", Mistake("eps in the log", text))
    return list(found.values())


def _factors(shape: tuple[int, ...], out: tuple[int, ...]) -> list[tuple[str, float, str]]:
    """Factors (name, what the log-det was multiplied by, sentence) for this shape of example."""
    d = int(np.prod(shape))
    table: list[tuple[str, float, str]] = []
    means: list[int] = []
    pixels: set[int] = set()
    # (H, W, C); a signal (L, C) has w = 1, and of (T, H, W, C) the w is H·W.
    images = ((s[0], int(np.prod(s[1:-1])), s[-1]) for s in (shape, out) if len(s) > 1)
    for h, w, c in dict.fromkeys(images):
        p = h * w
        if p > 1:
            table += [
                ("h·w missing", 1 / p, f"off by the factor h·w = {p}: every pixel counts"),
                ("h·w twice", p, f"too large by the factor h·w = {p}: it was counted twice"),
            ]
        if h > 1 and w > 1:
            table += [
                ("h missing", 1 / h, f"off by the factor h = {h}: only w was counted"),
                ("w missing", 1 / w, f"off by the factor w = {w}: only h was counted"),
                ("h twice", h, f"too large by the factor h = {h}"),
                ("w twice", w, f"too large by the factor w = {w}"),
                ("h² for h·w", h / w, f"h² = {h * h} was counted, and h·w = {p} belongs here"),
                ("w² for h·w", w / h, f"w² = {w * w} was counted, and h·w = {p} belongs here"),
            ]
        if c > 2 and c not in (h, w, p):
            why = f"too large by the factor c = {c}: all channels are in it already"
            table.append(("c twice", c, why))
        pixels.add(p)
        means += [c, c // 2, p * (c // 2)]
    for k in (*means, d, d // 2):
        if k > 1 and k not in pixels:  # the mean over the pixels has been said
            why = f"divided by {k}: a mean taken for a sum, or only one number in {k} counted"
            table.append(("mean for sum", 1 / k, why))
    table += [
        ("factor 2", 2.0, "twice too large: counted twice, or the log of a square"),
        ("factor 1/2", 0.5, "half of what it should be: one half was left out, or log √"),
    ]
    return table


def _last_axis_first(a: np.ndarray) -> tuple[int, ...]:
    """The example's axes as if the array were (N, C, H, W)."""
    return (*a.shape[2:], a.shape[1]) if a.ndim == 4 else ()


def _touched(j: Jacobian) -> np.ndarray:
    """Which dimensions are changed: a coupling's x_b, which is not, has the identity's rows."""
    d = j.value.diagonal()
    return ~((nonzero(j).sum(1) == 1) & (np.abs(d - 1) <= 1e-9))


def _not_finite(said: np.ndarray, jacobians: list[Jacobian]) -> list[Mistake]:
    negative = any(j.sign < 0 or np.any(j.value.diagonal() < 0) for j in jacobians)
    if np.any(np.isnan(said)) and negative:
        sentence = "the log-det is NaN where a factor is negative: |·| is missing"
        return [Mistake("absolute value missing", sentence)]
    return []


def _from_entries(jacobians: list[Jacobian], x: np.ndarray, y: np.ndarray):
    """Numbers that mistakes would give, read off the entries of J: (name, [per-example…], text)."""
    shape = x.shape[1:]
    dets = [[j.sign * np.exp(min(j.logabsdet, 700.0)) for j in jacobians]]
    dets.append(np.abs(dets[0]))
    diag, logs_pos, outside, of_sum, shift, raw = ([] for _ in range(6))
    block_det, block_pos, block_abs, block_diag = [], [], [], []
    for i, j in enumerate(jacobians):
        entry = nonzero(j)
        blocks = next((b for _, b in pixel_blocks(j.value, entry, shape)), None)
        if blocks is not None:
            det = np.linalg.det(blocks)
            log = np.log(np.abs(det))
            block_det.append((det.sum(), np.abs(det).sum()))
            block_pos.append(np.sum(log[det > 0]))
            block_abs.append(np.abs(log).sum())
        d = j.value.diagonal()
        if np.all(d != 0):
            block_diag.append(np.log(np.abs(d)).sum())
        if not is_triangular(entry) or np.any(d == 0):
            continue
        touched = _touched(j)
        s = d[touched]
        b = (y[i].ravel() - d * x[i].ravel())[touched]
        diag.append((s.sum(), np.abs(s).sum(), (1 / s).sum(), -(1 / s).sum()))
        logs_pos.append(np.log(s[s > 0]).sum())
        outside.append(np.abs(np.log(np.abs(s))).sum())
        with np.errstate(all="ignore"):
            shift.append((b.sum(), np.log(np.abs(b)).sum(), (b / s).sum()))
            logit = np.log(s / (1 - s))
            raw.append(((logit - 2).sum(), -np.log1p(np.exp(2 - logit)).sum(), logit.sum()))
        if touched.all() and len(shape) == 3:
            per_pixel = np.abs(d).reshape(-1, shape[-1]).sum(1)
            of_sum.append(np.log(per_pixel).sum())
        elif touched.all():
            of_sum.append(np.log(np.abs(s).sum()))
    scale = [np.array(v).T for v in (diag, block_det) if v]
    yield (
        "log missing",
        [*dets, *(row for v in scale for row in v)],
        ("no logarithm was taken: it is the determinant, or a sum of s, where log|s| belongs"),
    )
    text = "log taken of the positive factors only: |·| is missing"
    yield (
        "absolute value missing",
        [np.array(v) for v in (logs_pos, block_pos)],
        text,
    )
    yield (
        "absolute value outside the log",
        [np.array(v) for v in (outside, block_abs)],
        "|log s| was summed, where log|s| belongs",
    )
    yield (
        "diagonal for determinant",
        [np.array(block_diag)],
        "only the diagonal was used, but the matrix is not triangular",
    )
    yield (
        "log of the sum",
        [np.array(of_sum)],
        ("the logarithm of a sum was taken, where a sum of logarithms belongs"),
    )
    yield (
        "shift for scale",
        list(np.array(shift).T),
        ("the shift was summed, not the log of the scale: the wrong half of the net's output"),
    )
    yield (
        "scale before the sigmoid",
        list(np.array(raw).T),
        ("the net's raw output was used; s = sigmoid(raw + 2) and the log-det is Σ log s"),
    )


def inverse_mistakes(
    x: np.ndarray,
    y: np.ndarray,
    back: np.ndarray,
    again: np.ndarray | None,
    jacobians: list[Jacobian],
    tolerance: float,
) -> list[Mistake]:
    """Mistakes that explain ``back`` = inverse(y) ≠ x; ``again`` is forward(y) if it exists."""
    found: list[Mistake] = []
    n = len(x)
    fx, fy, fb = (a.reshape(n, -1) for a in (x, y, back))
    scale = np.abs(fx).max() + np.abs(fb).max() + 1e-300
    close = max(tolerance, 1e-9 * scale)

    def same(guess: np.ndarray) -> bool:
        if guess.shape != fb.shape or not np.all(np.isfinite(guess)):
            return False
        near = close * 10 + 1e-9 * np.abs(guess)
        if np.all(np.abs(guess - fx) <= 4 * near):
            return False  # no different from being right, so no explanation
        return bool(np.all(np.abs(fb - guess) <= near))

    gap = np.abs(fb - fx).max()
    if gap <= 1e-5 * scale and np.array_equal(fb, fb.astype(np.float32)):
        return [Mistake("float32", "right to 7 digits: the inverse computes in float32")]
    if same(fy) and x.shape == y.shape:
        found.append(Mistake("inverse is the identity", "it returns y unchanged"))
    if again is not None and same(again.reshape(n, -1)) and not found:
        found.append(Mistake("inverse is the forward", "it applies the forward map once more"))

    d = np.array([j.value.diagonal() for j in jacobians])
    entries = [nonzero(j) for j in jacobians]
    with np.errstate(all="ignore"):
        if all(is_triangular(e) for e in entries):
            t = fy - d * fx  # y = d x + t
            order = "shift and scale in the wrong order"
            for name, guess, sentence in (
                (order, fy / d - t, "it divides before it subtracts"),
                (order, (fy - t / d) / d, "it subtracts before it divides, and should after"),
                ("shift forgotten", fy / d, "it undoes the scale and not the shift"),
                ("scale forgotten", fy - t, "it undoes the shift and not the scale"),
                ("scale forgotten", fy - t / d, "it undoes the shift and not the scale"),
                ("shift added", (fy + t) / d, "it adds the shift where it should subtract"),
                ("shift added", fy / d + t, "it adds the shift where it should subtract"),
                ("multiplies by the scale", (fy - t) * d, "it multiplies by s, and should divide"),
                ("multiplies by the scale", fy * d - t, "it multiplies by s, and should divide"),
                ("multiplies by the scale", fy * d - t / d, "it multiplies by s, not divides"),
            ):
                if not any(m.name == name for m in found) and same(guess):
                    found.append(Mistake(name, sentence))
            if not found and gap < 1e-2 * scale:
                off = np.abs(fb - fx) > 10 * tolerance
                most = np.mean(off[[_touched(j) for j in jacobians]]) > 0.5
                for s in ((fy - t) / fb, fy / (fb + t / d)):  # y = s x + t, y = s (x + t)
                    eps = (s - d)[off]
                    usual = float(np.median(eps)) if eps.size and most else 0.0
                    if usual and np.mean(np.abs(eps - usual) < 0.05 * abs(usual)) > 0.7:
                        text = f"as if a small constant, about {abs(usual):.0e}, were in one of the"
                        return [Mistake("eps in one only", text + " two")]
            # Rows of the identity: what forward left alone, inverse must leave alone.
            kept = np.array([(e.sum(1) == 1) & e.diagonal() for e in entries])
            kept &= np.abs(d - 1) <= 1e-9
            touched_kept = kept & (np.abs(fb - fy) > close)
            left_rest = np.abs(fb - fy)[~kept].max(initial=0.0) <= close
            halves = not found and kept.any() and not kept.all()
            if halves and touched_kept.any():
                text = "it changes the half that forward leaves alone"
                text += ", and leaves the other" if left_rest else ""
                found.append(Mistake("wrong half", text))
            elif halves and not same_entries(fx, fb) and gap > 1e-4 * scale:  # else imprecise
                text = "the half that forward leaves alone is right, the other is not: does the "
                text += "net see the same x_b on the way back?"
                found.append(Mistake("wrong input to the net", text))
        transposed = np.stack([j.value.T @ v for j, v in zip(jacobians, fy, strict=True)])
        if not found and same(transposed):
            text = "it applies Wᵀ; only a rotation has W⁻¹ = Wᵀ"
            found.append(Mistake("transpose for inverse", text))
        if not found and same(
            np.stack([j.inverse.T @ v for j, v in zip(jacobians, fy, strict=True)])
        ):
            found.append(
                Mistake("transpose for inverse", "it applies (W⁻¹)ᵀ: one transpose too many")
            )
    if not found and gap <= 1e-4 * scale:
        text = "nearly right: float32 on the way, or a small constant in one of the two"
        found.append(Mistake("imprecise", text))
    if not found and same_entries(fx, fb):
        found.append(
            Mistake("entries in the wrong order", "every number is there, but not in its place")
        )
    return found


def same_entries(a: np.ndarray, b: np.ndarray) -> bool:
    """Whether b holds the numbers of a, in another order, example by example."""
    return a.shape == b.shape and np.allclose(np.sort(a, 1), np.sort(b, 1), rtol=1e-12, atol=1e-14)
