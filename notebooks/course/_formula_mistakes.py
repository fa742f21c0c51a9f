"""The wrong formulas we can name: every product of what may be wrong in a part of the right one.

A row is (formulas with a "; " between them, short name, reason); the right one has neither.
"""

from __future__ import annotations

import math
from functools import lru_cache
from itertools import product

import numpy as np

from ._formula_layers import points
from ._formula_parse import parse, tokenize
from ._formula_values import agree, values

Found = tuple[np.ndarray, str, str]  # values at the points, short name, reason

NO_BARS = "you forgot |·|, and the log of a negative number is undefined"
SIGNS = (
    ("1", "", ""),
    ("-1", "sign", "the sign is flipped: this is the inverse map's"),
)
MULTIPLES = (
    ("1", "", ""),
    ("2", "factor2", "there is a factor 2, or a square, too many"),
    ("1/2", "factor_half", "there is a factor ½ too many"),
)
BASES = (
    ("1", "", ""),
    ("1/ln 2", "base", "the logarithm has base 2; ours is natural"),
    ("1/ln 10", "base", "the logarithm has base 10; ours is natural"),
)
SCALE_BODIES = (
    ("sum(log|s|)", "", ""),
    ("sum(log(s))", "abs", NO_BARS),
    ("log|sum(s)|; log(sum|s|); log(sum(s))", "log_of_sum", "you take the log of the sum; it is "
     "the sum of the logs"),
    ("mean(log|s|)", "mean", "you take the mean over the channels; it is their sum"),
    ("mean(log(s))", "mean", "you take the mean over the channels; it is their sum (and |·|)"),
    ("sum|s|; sum(s)", "log", "the logarithm is missing"),
    ("prod|s|; prod(s)", "log", "the logarithm is missing: this is the determinant itself"),
    ("prod(log|s|)", "sum", "you multiply the logs; the log of a product is their sum"),
    ("sum|log(s)|; sum|log|s||", "abs_outside", "|·| belongs inside the logarithm, around s"),
    ("|sum(log|s|)|", "abs_outside", "|·| belongs inside the logarithm only: a log-det may be < 0"),
)  # fmt: skip
DETERMINANT_BODIES = (  # of M, which is W or the Jacobian
    ("log|det M|", "", ""),
    ("log(det M)", "abs", NO_BARS),
    ("|det M|", "log", "the logarithm is missing: this is the determinant itself"),
    ("det M", "log", "the logarithm and |·| are missing: this is the determinant itself"),
    ("|log(det M)|", "abs_outside", "|·| belongs inside the logarithm, around the determinant"),
    ("|log|det M||", "abs_outside", "|·| belongs inside the logarithm only: a log-det may be < 0"),
    ("log|tr M|; log(tr M)", "trace", "you take the trace; it is the determinant"),
    ("tr M", "trace", "you take the trace; it is the log of |the determinant|"),
)
MATRIX_BODIES = (
    *((text.replace("M", "W"), name, reason) for text, name, reason in DETERMINANT_BODIES),
    ("sum(log|diag W|); sum(log(diag W))", "diagonal", "only a triangular matrix has its "
     "determinant on the diagonal, and W is a full one"),
    ("log|sum(W)|; log(sum(W))", "det", "you add the entries of W; it is the determinant"),
)  # fmt: skip
FLOW_BODIES = (
    *((text.replace("M", "J"), name, reason) for text, name, reason in DETERMINANT_BODIES),
    ("sum(log|diag J|); sum_i sum(log|diag(dh_i/dh_{i-1})|); log|prod(diag J)|", "triangular",
     "this holds for a triangular Jacobian only, as the deck's layers have it; for any flow write "
     "the determinant"),
    ("sum(log(diag J))", "triangular", "this holds for a triangular Jacobian only, and |·| is "
     "missing; for any flow write the determinant"),
    ("sum_i log(det(dh_i/dh_{i-1}))", "abs", NO_BARS),
    ("sum_i |det(dh_i/dh_{i-1})|", "log", "the logarithm is missing"),
    ("sum_i det(dh_i/dh_{i-1})", "log", "the logarithm and |·| are missing"),
    ("log|sum_i det(dh_i/dh_{i-1})|; log(sum_i |det(dh_i/dh_{i-1})|)", "log_of_sum", "you take the "
     "log of the sum; it is the sum of the logs, because determinants of composed maps multiply"),
    ("prod_i log|det(dh_i/dh_{i-1})|", "sum", "you multiply the logs; the log of a product is "
     "their sum"),
    ("sum_{i=1}^K log|det(dh_i/dh_{i-1})|/3", "mean", "you take the mean over the steps; it is "
     "their sum"),
    ("sum_{i=2}^K log|det(dh_i/dh_{i-1})|", "range", "the sum leaves out the first step, i = 1"),
    ("sum_{i=1}^{K-1} log|det(dh_i/dh_{i-1})|", "range", "the sum leaves out the last step"),
)  # fmt: skip
PIXEL_FACTORS = (
    ("h w", "", ""),
    ("1", "hw", "h·w is missing: the same map acts at every one of the h·w pixels"),
    ("h", "only_h", "the factor is h; it must be h·w, one for every pixel"),
    ("w", "only_w", "the factor is w; it must be h·w, one for every pixel"),
    ("(h+w)", "h_plus_w", "h and w are added; there are h·w pixels"),
    ("h w c", "extra_c", "there is a factor c too many"),
    ("c", "c_for_hw", "the factor is c; it must be h·w, one for every pixel"),
    ("c^2", "c_for_hw", "the factor is c²; it must be h·w, one for every pixel"),
    ("h c", "c_for_hw", "the factor is h·c; it must be h·w, one for every pixel"),
    ("w c", "c_for_hw", "the factor is w·c; it must be h·w, one for every pixel"),
    ("h^2", "factor", "the factor is h²; it must be h·w (images need not be square)"),
    ("w^2", "factor", "the factor is w²; it must be h·w (images need not be square)"),
    ("h^2 w^2", "factor", "h·w stands twice"),
    ("1/(h w)", "factor", "you divide by h·w; it multiplies"),
)
LU_FACTORS = (
    ("1; h w", "", ""),  # the whole layer's is right too, and so are its mistakes named
    *((f, n, m.replace("it must be h·w", "it is 1 for log|det W|, or h·w for the layer"))
      for f, n, m in PIXEL_FACTORS if f not in ("1", "h w")),
)  # fmt: skip
COUPLING_FACTORS = (
    ("1", "", ""),
    ("h w", "extra_hw", "h·w is too much: s already has one value for every pixel"),
    ("h", "extra_hw", "there is a factor h too many: s already has one value for every pixel"),
    ("w", "extra_hw", "there is a factor w too many: s already has one value for every pixel"),
    ("h w c", "extra_hw", "h·w·c is too much: s already has one value for every entry"),
    ("c", "extra_c", "there is a factor c too many: the sum runs over all channels already"),
    ("c/2", "extra_c", "there is a factor c/2 too many: the sum runs over all channels already"),
    ("1/2", "factor_half", "the factor ½ is too much: s exists for the first half only"),
    ("2", "factor2", "the factor 2 is too much: the second half passes unchanged, with log 1 = 0"),
)
PRODUCTS = {
    "flow": (SIGNS, FLOW_BODIES, BASES, MULTIPLES),
    "actnorm": (SIGNS, SCALE_BODIES, BASES, MULTIPLES, PIXEL_FACTORS),
    "conv1x1": (SIGNS, MATRIX_BODIES, BASES, MULTIPLES, PIXEL_FACTORS),
    "lu": (SIGNS, SCALE_BODIES, BASES, MULTIPLES, LU_FACTORS),
    "affine_coupling": (SIGNS, SCALE_BODIES, BASES, MULTIPLES, COUPLING_FACTORS),
}
OTHERS = {
    "flow": (
        ("log p(z)", "volume", "the change of volume, log|det dz/dx|, is missing"),
        ("p(z) * |det J|", "log", "this is the density p(x); take its logarithm"),
        ("p(z) * det J", "log", "this is the density without |·|; take |·| and the logarithm"),
        ("p(z) / |det J|", "sign", "the Jacobian is upside down, and the logarithm is missing"),
        ("p(z) + log|det J|", "log", "the log of p(z) is missing"),
        ("log(p(z)) * log|det J|", "sum", "you multiply; the log of a product is a sum"),
        ("log|det J| - log p(z)", "sign", "log p(z) has the wrong sign"),
        ("log p(z) + log|det dh_2/dh_1|", "sum", "the sum over the steps is missing"),
        ("log p(z) - log|det dh_2/dh_1|", "sum", "the sum over the steps is missing, and the "
         "sign is flipped"),
        ("log(p(z) + |det J|)", "sum", "you add before the log; the density is a product"),
    ),
    "affine_coupling": (("0", "zero", "0 is the additive coupling's; here s scales"),),
    "additive_coupling": (
        ("1", "log", "1 is the determinant; its logarithm is what we ask for"),
    ),
}  # fmt: skip


def _found(layer: str, table: tuple) -> list[Found]:
    """A table's rows with the values of their formulas."""
    return [
        (np.real(values(layer, parse(tokenize(text)))[0]), name, reason)
        for texts, name, reason in table
        for text in texts.split("; ")
    ]


def _products(layer: str) -> list[Found]:
    """Every choice of a row from each of the layer's tables, the simplest explanation first."""
    found = []
    for parts in product(*(_found(layer, table) for table in PRODUCTS.get(layer, ()))):
        wrong = [(name, reason) for _, name, reason in reversed(parts) if name]
        if wrong:
            row = math.prod(value for value, _, _ in parts)
            found.append((row, wrong[0][0], [reason for _, reason in wrong]))
    found.sort(key=lambda item: len(item[2]))
    return [(row, name, "; ".join(reasons)) for row, name, reasons in found]


@lru_cache
def wrong_formulas(layer: str) -> tuple[np.ndarray, list[tuple[str, str]]]:
    """Values (formula, point) and (short name, reason) of each, the simplest reason first."""
    found = _products(layer)
    if layer == "flow":
        log_p = np.array([p.log_p["z"] for p in points(layer)])
        found += [(log_p + row, name, reason) for row, name, reason in found]
    found += _found(layer, OTHERS.get(layer, ()))
    rows = np.array([row for row, _, _ in found])
    # Two mistakes may cancel (½ of a square): what is right after all is not in the list.
    wrong = ~agree(rows, [p.target for p in points(layer)])
    return rows[wrong], [item[1:] for item, keep in zip(found, wrong, strict=True) if keep]


def diagnose(layer: str, got: np.ndarray) -> tuple[str, str] | None:
    """(short name, reason) of the simplest wrong formula with these values, or None."""
    rows, reasons = wrong_formulas(layer)
    same = agree(rows, got)
    return reasons[int(same.argmax())] if same.any() else None
