"""The formula grader: right in every spelling, wrong with its reason, hostile without harm."""

from __future__ import annotations

import html
import random
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from course import _formula_layers, _formula_mistakes
from course.formula import LAYERS, Grade, grade

RIGHT = {
    "conv1x1": r"""
h w \log|\det W|
hw·ln|det W|
h*w*log(abs(det(W)))
½ h w log det(W)²
\frac{1}{2} h w \log (\det W)^2
\frac12 h w \log (\det W)^2
0,5·h·w·log(det(W)^2)
0.5*h*w*log(det(W)**2)
h*w*np.linalg.slogdet(W)[1]
h * w * torch.slogdet(W).logabsdet
h*w*torch.linalg.slogdet(W)[1]
logdet = h*w*log abs(det(W))
log-det: hw log|det W|
Ответ: h·w·ln|det W|
$h \cdot w \cdot \log \left| \det(W) \right|$
\[ hw \ln\lvert\det \mathbf{W}\rvert \]
hwlog|detW|
log|det W| h w
log|det W|·w·h
h w log|det Wᵀ|
-h w log|det W^{-1}|
−h·w·log|det W⁻¹|
h w log|1/det W| * (-1)
\sum_{i=1}^{h}\sum_{j=1}^{w} \log|\det W|
\sum_{ij} \log|\det W|
h w Σ log|λ_i|
h w sum(log(σ))
log(|det W|^{hw})
h w log2|det W| * ln 2
log|det dy/dx| = h w log|det W|
logdet = log|det dy/dx| = h w log|det W|
\operatorname{log\,det} = h w \log|\det W|
""",
    "actnorm": r"""
h*w*sum(log(abs(s)))
h \cdot w \cdot \operatorname{sum}(\log|s|)
h w \sum_{i=1}^{c} \log \left| s_i \right|
h*w*s.abs().log().sum()
H*W*torch.sum(torch.log(torch.abs(s)))
h*w*np.sum(np.log(np.abs(s)), axis=-1)
log-det = h w sum log|s|
h·w·Σᵢ log|sᵢ|
h⋅w⋅∑log∣s∣
$$h\,w\sum_i\ln|s_i|$$
\sum_{i=1}^{h}\sum_{j=1}^{w}\sum_{k=1}^{c} \log|s_k|
½·h·w·Σ log(s²)
h w log|prod(s)|
h w log|det diag(s)|
h w c mean(log|s|)
h·w·сумма(log|s|)
h×w×sum(ln|s|)
w h Σ_k ln |s_k|
h*w*sum(log|s[i]|)
""",
    "lu": r"""
sum(log|s|)
h w sum log|s|
log|det W| = Σ log|s|
\sum_{i=1}^{c} \log|s_i|
log|prod s|
Σ_i ln|s_i|
\log|\det W| = \operatorname{sum}(\log|s|)
log|det diag(s)|
""",
    "affine_coupling": r"""
sum(log|s|)
sum(log s)
Σ log_s
log_s.sum()
sum(log(s))
\sum \log s
\sum_{i,j,k} \log s_{ijk}
\sum_i \log|s_i|
log prod s
""",
    "additive_coupling": """
0
log 1
logdet = 0
sum(log|s|) = 0
ноль
log|det I|
0,0
""",
    "flow": r"""
log|det dz/dx|
ln|det(dz/dx)|
log(abs(det(J)))
\log\left|\det\frac{dz}{dx}\right|
\log\left|\det\left(\frac{\partial z}{\partial x}\right)\right|
log|det ∂z/∂x|
log|det ∂f(x)/∂x|
log|det(dz)/(dx)|
\log|\det \frac{\partial f_\theta(x)}{\partial x^T}|
log|det J_f(x)|
-log|det dx/dz|
½ log (det dz/dx)²
Σ log|det dh_i/dh_{i-1}|
\sum_{i=1}^{K} \log|\det (dh_i/dh_{i-1})|
\sum_{i=1}^{K}\log\left|\det\frac{\partial h_i}{\partial h_{i-1}}\right|
\sum_{i=0}^{K} \log|\det \frac{dh_{i+1}}{dh_i}|
\sum_{i=0}^{K-1} \log|\det \frac{dh_{i+1}}{dh_i}|
Σ_{i=1}^{K+1} log|det dh_i/dh_{i−1}|
Σᵢ log|det ∂hᵢ/∂hᵢ₋₁|
log p(z) + log|det dz/dx|
log p(x) = log p(z) + log|det dz/dx|
log p(x) = log p(z) + log|det dz/dx| = log p(z) + Σ_{i=1}^K log|det dh_i/dh_{i-1}|
\log p_\theta(x) = \log p_\theta(z) + \log|\det \frac{dz}{dx}|
\log p(z) - \log|\det dx/dz|
log(p(z) |det dz/dx|)
log p(f(x)) + log|det(df/dx)|
\log p_{\theta}(\mathbf{x}) = \log p_{\theta}(\mathbf{z}) + \sum_{i=1}^{K}\log|\det(d\mathbf{h}_i/d\mathbf{h}_{i-1})|
log|∏_i det(dh_i/dh_{i-1})|
""",  # noqa: E501
}

# layer, text, the short name of the mistake, words that the message must have
WRONG = [
    ("conv1x1", "h w log det W", "abs", "det W = −2.3"),
    ("conv1x1", "h*w*torch.logdet(W)", "abs", "forgot |·|"),
    ("conv1x1", "log|det W|", "hw", "h·w is missing"),
    ("conv1x1", "log det W", "hw", "forgot |·|"),
    ("conv1x1", "h log|det W|", "only_h", "factor is h"),
    ("conv1x1", "w·log|det W|", "only_w", "factor is w"),
    ("conv1x1", "(h+w) log|det W|", "h_plus_w", "added"),
    ("conv1x1", "-h w log|det W|", "sign", "sign"),
    ("conv1x1", "h w log|det W^{-1}|", "sign", "inverse"),
    ("conv1x1", "h w |det W|", "log", "logarithm is missing"),
    ("conv1x1", "h w det W", "log", "logarithm"),
    ("conv1x1", "h w log2|det W|", "base", "base 2"),
    ("conv1x1", r"h w \log_{2}|\det W|", "base", "base 2"),
    ("conv1x1", "h w lg|det W|", "base", "base 10"),
    ("conv1x1", r"h w \log_{10}|\det W|", "base", "base 10"),
    ("conv1x1", "h w log|tr W|", "trace", "trace"),
    ("conv1x1", "h w sum(log|diag(W)|)", "diagonal", "triangular"),
    ("conv1x1", "h w c log|det W|", "extra_c", "factor c"),
    ("conv1x1", "h w log|W|", "det", "|det"),
    ("conv1x1", "h w log(abs(W))", "det", "determinant"),
    ("conv1x1", "h w log(det(w))", "dimension", "Did you mean W"),
    ("conv1x1", "h*W*log|det W|", "dimension", "small w"),
    ("conv1x1", "h w |log det W|", "abs_outside", "inside"),
    ("conv1x1", "h w log (det W)^2", "factor2", "square"),
    ("conv1x1", "2 h w log|det W|", "factor2", "2"),
    ("conv1x1", "h w / 2 log|det W|", "factor_half", "½"),
    ("conv1x1", "h^2 log|det W|", "factor", "square"),
    ("conv1x1", "h w log|s|", "symbol", "LU"),
    ("conv1x1", "0", "other", "h = "),
    ("conv1x1", "W", "dimension", "matrix"),
    ("conv1x1", "log|det dy/dx|", "restates", "parameters"),
    ("conv1x1", "log|det W| = h w log|det W|", "equation", "not equal"),
    ("actnorm", "sum(log|s|)", "hw", "h·w is missing"),
    ("actnorm", "h sum(log|s|)", "only_h", "factor is h"),
    ("actnorm", "(h+w) sum(log|s|)", "h_plus_w", "added"),
    ("actnorm", "h w log|s|", "dimension", "one value per channel: sum it"),
    ("actnorm", "h w c log|s|", "dimension", "sum it"),
    ("actnorm", "h w sum(log s)", "abs", "s = (−0.7"),
    ("actnorm", "h w log|sum(s)|", "log_of_sum", "sum of the logs"),
    ("actnorm", "h w log(sum|s|)", "log_of_sum", "sum of the logs"),
    ("actnorm", "h w mean(log|s|)", "mean", "mean"),
    ("actnorm", "h w mean(log2|s|)", "base", "mean over the channels"),
    ("actnorm", "h w sum|s|", "log", "logarithm is missing"),
    ("actnorm", "h w prod(s)", "log", "determinant itself"),
    ("actnorm", "-h w sum(log|s|)", "sign", "sign"),
    ("actnorm", "h w sum(log|1/s|)", "sign", "sign"),
    ("actnorm", "h w sum(log2(abs(s)))", "base", "base 2"),
    ("actnorm", "h w sum(lg|s|)", "base", "base 10"),
    ("actnorm", "h w sum|log s|", "abs_outside", "inside"),
    ("actnorm", "h w c sum(log|s|)", "extra_c", "factor c"),
    ("actnorm", "h w sum(log|s|) + b", "dimension", "sum it"),
    ("actnorm", "sum(log|diag(J)|)", "restates", "parameters"),
    ("actnorm", r"\sum_{i=1}^{h} \log|s_i|", "range", "c of them"),
    ("actnorm", "h w det(s)", "dimension", "diag(s)"),
    ("lu", "log|det W|", "restates", "s alone"),
    ("lu", "log|det P L (U + diag(s))|", "restates", "s alone"),
    ("lu", "sum(log s)", "abs", "forgot |·|"),
    ("lu", "log|sum s|", "log_of_sum", "sum of the logs"),
    ("lu", "h sum(log|s|)", "only_h", "factor is h"),
    ("lu", "prod(s)", "log", "logarithm"),
    ("lu", "log|s|", "dimension", "sum it"),
    ("lu", "log|det U|", "infinite", "infinite"),
    ("lu", "log|det W| = h w sum(log|s|)", "equation", "not equal"),
    ("affine_coupling", "h w sum(log s)", "extra_hw", "already"),
    ("affine_coupling", "log s", "dimension", "sum it"),
    ("affine_coupling", "sum(s)", "log", "logarithm"),
    ("affine_coupling", "log(sum(s))", "log_of_sum", "sum of the logs"),
    ("affine_coupling", "mean(log s)", "mean", "mean"),
    ("affine_coupling", "-sum(log s)", "sign", "sign"),
    ("affine_coupling", "0", "zero", "additive"),
    ("affine_coupling", "1/2 sum(log s)", "factor_half", "first half"),
    ("additive_coupling", "1", "log", "determinant"),
    ("additive_coupling", "h w", "zero", "shift"),
    ("additive_coupling", "sum(log|s|)", "restates", "s = 1"),
    ("additive_coupling", "sum(t)", "zero", "shift"),
    ("additive_coupling", "log s", "restates", "s = 1"),
    ("additive_coupling", "t", "zero", "shift"),
    ("flow", "log|det dx/dz|", "sign", "inverse"),
    ("flow", "log det dz/dx", "abs", "−2.3"),
    ("flow", "|det dz/dx|", "log", "logarithm is missing"),
    ("flow", "det dz/dx", "log", "logarithm"),
    ("flow", "log|dz/dx|", "det", "|det"),
    ("flow", "log2|det dz/dx|", "base", "base 2"),
    ("flow", "log|tr dz/dx|", "trace", "trace"),
    ("flow", "sum(log|diag(dz/dx)|)", "triangular", "triangular"),
    ("flow", "log p(z) - log|det dz/dx|", "sign", "sign"),
    ("flow", "log p(z) + log|det dx/dz|", "sign", "sign"),
    ("flow", "log p(z) + log det dz/dx", "abs", "forgot |·|"),
    ("flow", "p(z) |det dz/dx|", "log", "take its logarithm"),
    ("flow", "log p(z)", "volume", "missing"),
    ("flow", "log p(x)", "circular", "p(x)"),
    ("flow", "log p(z) + log|det dh_i/dh_{i-1}|", "sum", "sum over the steps"),
    ("flow", "log|det dh_i/dh_{i-1}|", "sum", "the right idea, for one step"),
    ("flow", "Σ_i |det dh_i/dh_{i-1}|", "log", "logarithm"),
    ("flow", "log|Σ_i det(dh_i/dh_{i-1})|", "log_of_sum", "sum of the logs"),
    ("flow", r"\sum_{i=2}^{K} \log|\det dh_i/dh_{i-1}|", "range", "first step"),
    ("flow", "Σ_i log|det dh_{i-1}/dh_i|", "sign", "sign"),
    ("flow", "h w log|det W|", "symbol", "one layer"),
    ("flow", "log|det dz/dz|", "index", "itself"),
    ("flow", r"\log|\det\frac{dz}{2}|", "unreadable", "stands alone"),
    ("flow", "Σ_i Σ_i log|det J_i|", "sum", "run over i"),
    ("flow", "Σ Σ_i log|det J_i|", "sum", "run over i"),
    ("flow", r"\sum_{i=1}^{K} \sum_{i=1}^{K} \log|\det dh_i/dh_{i-1}|", "sum", "run over i"),
    ("affine_coupling", "|sum log s|", "abs_outside", "may be < 0"),
    ("affine_coupling", "sqrt(sum(log s)^2)", "abs_outside", "may be < 0"),
    ("lu", "-h w sum(log|s|)", "sign", "sign"),
    ("lu", "h w sum(log s)", "abs", "forgot |·|"),
    ("lu", "h w sum(log2|s|)", "base", "base 2"),
    ("lu", "np.log(s).sum()", "abs", "forgot |·|"),
    ("actnorm", "h*w*np.log(s).sum()", "abs", "forgot |·|"),
    ("additive_coupling", "s = 0", "equation", "not equal"),
    ("additive_coupling", "t = 0", "equation", "not equal"),
    ("additive_coupling", "x = 0", "equation", "left of your “=”"),
    ("additive_coupling", "log p(x) = 0", "equation", "no density"),
    ("additive_coupling", "s = 0, log-det = 0", "equation", "“s = 0” does not hold"),
    ("additive_coupling", "x = 0, log-det = 0", "equation", "left of your “=”"),
    ("additive_coupling", "0, because s = 0", "equation", "does not hold"),
    ("additive_coupling", "det J = 2, log|det J| = 0", "equation", "does not hold"),
    ("affine_coupling", "sum(log|s|), where s = 1", "equation", "does not hold"),
    ("flow", "log|det J|, J = dx/dz", "equation", "does not hold"),
    ("flow", "dz/dx = log|det dz/dx|", "equation", "not equal"),
    ("flow", "log det J, where J = dz/dx", "abs", "forgot |·|"),
    ("lu", "W = P L U, so log|det W| = sum(log|s|)", "equation", "the slides' letters"),
    ("conv1x1", "h w log|det W|, h = w", "equation", "does not hold"),
    ("conv1x1", "h w, log|det W|", "unreadable", "“,”"),
    ("conv1x1", "h w log|det W|, divided by c", "unreadable", "behind “where”"),
    ("actnorm", "The log-determinant is h*w*sum(log s)", "abs", "forgot |·|"),
    ("affine_coupling", "log_s.sum(dim=1)", "axis", "some of the axes"),
    ("affine_coupling", "log_s.sum(1)", "axis", "some of the axes"),
    ("affine_coupling", "np.log(s).sum(axis=-1)", "axis", "some of the axes"),
    ("affine_coupling", "torch.sum(log_s, dim=(2, 3))", "axis", "some of the axes"),
    ("affine_coupling", "log_s.sum(2).sum(1)", "axis", "some of the axes"),
    ("affine_coupling", r"\sum_{i=1}^{h} \log|s_i|", "range", "h·w·c/2"),
    ("affine_coupling", r"\sum_{i=1}^{c} \log|s_i|", "range", "h·w·c/2"),
    ("affine_coupling", r"\sum_{i=1}^{c/2} \log|s_i|", "range", "h·w·c/2"),
    ("affine_coupling", "Σ_{i=1}^{h} Σ_{j=1}^{w} log|s_{ij}|", "range", "h·w·c/2"),
    ("affine_coupling", "Σ_{i=1}^{h} Σ_{j=1}^{w} sum(log|s|)", "extra_hw", "already"),
    ("actnorm", "∑ᵢ₌₁ʰ log|sᵢ|", "range", "c of them"),
    ("actnorm", "x.shape[2]*np.sum(np.log(np.abs(s)))", "only_h", "factor is h"),
    ("actnorm", "x.shape[1]*x.shape[2]*np.sum(np.log(np.abs(s)))", "unreadable", "write h, w or c"),
    (
        "conv1x1",
        r"\begin{aligned}\log|\det J| &= \log|\det W|^{hw} \\ &= h \log|\det W|\end{aligned}",
        "only_h",
        "factor is h",
    ),
    ("conv1x1", r"\begin{aligned}\log|\det W| \\ h w\end{aligned}", "unreadable", "line break"),
    ("conv1x1", "h*w*slogdet(W)[0]", "unreadable", "second"),
    ("flow", "log|det J_g(z)|", "sign", "inverse"),
    ("flow", r"\log|\det J_{f^{-1}}(z)|", "sign", "inverse"),
    ("flow", "log p(z) + log|det ∂f⁻¹(z)/∂z|", "sign", "inverse"),
    ("flow", r"\log|\det J_{f_i}|", "sum", "one step"),
    ("flow", "log p(h_0) + log|det dz/dx|", "circular", "p(x)"),
    ("flow", "log p(h_i) + log|det dz/dx|", "unreadable", "p(x) or p(z)"),
    ("flow", "log p(x|z) + log|det dz/dx|", "unreadable", "one argument"),
    ("flow", r"\sum_{i=1}^{c} \log|\det dh_i/dh_{i-1}|", "range", "i = 1 … K"),
    ("flow", "Σ_{i=1.5}^{K} log|det dh_i/dh_{i-1}|", "range", "i = 1 … K"),
    ("flow", "Σ_{i=2..K} log|det dh_i/dh_{i-1}|", "range", "first step"),
    ("actnorm", r"h w \sum_{i=1}^{D/2} \log|s_i|", "range", "c of them"),
    ("additive_coupling", "Σ_i 1", "sum", "range"),
    ("additive_coupling", "Since s = 2, log-det = 0", "equation", "does not hold"),
    ("additive_coupling", "0, 0", "unreadable", "“,”"),
    ("flow", r"\log|\det J|,\quad \text{where } J = \frac{dx}{dz}", "equation", "does not hold"),
    ("actnorm", "h w sum(log|s|), s = diag(J)", "equation", "does not hold"),
    ("additive_coupling", "s = 1, t = 0", "equation", "not equal"),
]

HOSTILE = [
    "", " ", "\n\t", "$$", "nan", "inf", "🙂", "h w \u202elog|det W|", "\u200f", "log\u0000",
    "__import__('os').system('true')", "eval(1)", "lambda: 0", "9**9**9**9", "9^9^9^9^9",
    "2^(9^9^9)", "exp(exp(exp(9)))", "1e999", "1/0", "0/0", "log 0", "(" * 1_000_000,
    "|" * 900, "(" * 400 + "1" + ")" * 400, "-" * 900 + "1", "x" * 1_000_000, "h" * 900,
    "h*" * 299, "log " * 200, r"\frac" * 100, r"\begin{matrix}", "\\", "((", "h)", "|s", "h w =",
    "= 0", "a = b", "W^{99999999}", "W^W", "9" * 500, "sum_{i=1}^{999999999} log|s_i|",
    "Σ_{i=0}^{10^9} 1", "Σ_{i=1}^{99999999} log|det dh_i/dh_{i-1}|", "det det det W", "1e5e5e5",
    "\\log_{3} 2", "h.__class__", "s[0:1:2]", "p", "p(", "d", "d/d", "dz/", "dh/dx", "²", "½½", "^",
    "_", "\ud800", "٣", "# h w log|det W|", "^T", "W^T^T^T", "log|det W|·" * 60, "∑" * 200,
    "Σ_i Σ_j Σ_k Σ_n Σ_y Σ_b Σ_t Σ_c Σ_s log|det J_i J_j J_k J_n J_y J_b J_t J_c J_s|",
    "Σ_i " * 20 + "log|det J_i|", "Σ_i h " * 28 + "s_i",
]  # fmt: skip


def _cases() -> list[tuple[str, str]]:
    return [(layer, t) for layer, lines in RIGHT.items() for t in lines.strip().splitlines()]


@pytest.mark.parametrize(("layer", "text"), _cases())
def test_right_in_every_spelling(layer: str, text: str) -> None:
    result = grade(layer, text)
    assert result, result.message
    assert result.message.startswith("Right") and result.mistake is None


@pytest.mark.parametrize(("layer", "text", "mistake", "words"), WRONG)
def test_wrong_says_why(layer: str, text: str, mistake: str, words: str) -> None:
    result = grade(layer, text)
    assert not result
    assert (result.mistake, words in result.message) == (mistake, True), result


def test_tables_are_large_enough() -> None:
    assert len(_cases()) >= 60 and len(WRONG) >= 60


@pytest.mark.parametrize("text", HOSTILE, ids=lambda t: ascii(t[:20]))
@pytest.mark.parametrize("layer", LAYERS)
def test_hostile_text_is_refused(layer: str, text: str) -> None:
    start = time.process_time()
    result = grade(layer, text)
    assert isinstance(result, Grade) and result.message.startswith(("Not yet: ", "Right: "))
    if result:  # "= 0" and the like may be the additive coupling's answer, nothing else
        assert layer == "additive_coupling"
    assert time.process_time() - start < 5  # a bound on runaway work, not a timing


def test_no_answer_of_one_layer_passes_for_another() -> None:
    for layer, text in (("actnorm", "h w log|det W|"), ("conv1x1", "h w sum(log|s|)")):
        assert not grade(layer, text)


@given(st.text(max_size=60))
@settings(max_examples=120, deadline=None)
def test_any_text_gets_a_grade(text: str) -> None:
    for layer in ("flow", "lu"):
        assert isinstance(grade(layer, text), Grade)


PIECES = r"h w s W J L i K log det sum | | ( ) { } [ ] ^ _ * / + - = , . \frac \log \sum dz dx 2 ½"


@given(st.lists(st.sampled_from(PIECES.split()), max_size=25), st.sampled_from(LAYERS))
@settings(max_examples=200, deadline=None)
def test_any_arrangement_of_our_own_signs_gets_a_grade(pieces: list[str], layer: str) -> None:
    result = grade(layer, " ".join(pieces))
    assert isinstance(result, Grade)
    assert html.escape("<") not in result._repr_html_() or "<" in result.message


DET = ["|det W|", r"\left|\det(W)\right|", "abs(det(W))", r"\lvert \det W \rvert", "∣det W∣"]
TIMES = [" ", "*", "·", r" \cdot ", " × ", r"\,", r" \times "]


@pytest.mark.parametrize("seed", range(60))
def test_equivalent_spellings_are_equal(seed: int) -> None:
    rng = random.Random(seed)
    log = rng.choice(["log", "ln", r"\log ", r"\ln "])
    factors = ["h", "w", f"{log}{rng.choice(DET)}"]
    rng.shuffle(factors)
    text = factors[0] + "".join(rng.choice(TIMES) + f for f in factors[1:])
    if rng.random() < 0.5:
        text = text.replace(" ", " " * rng.randint(1, 3))
    text = rng.choice(["", "logdet = ", r"\log\det = "]) + text
    assert grade("conv1x1", text), text
    without_h = " ".join(f for f in factors if f != "h")
    assert grade("conv1x1", without_h).mistake == "only_w", without_h


def test_bad_arguments() -> None:
    for bad in (None, 3, b"0", ["0"]):
        with pytest.raises(TypeError, match="text"):
            grade("flow", bad)
    for bad in ("nope", "", None, ["flow"]):
        with pytest.raises(ValueError, match="additive_coupling"):
            grade(bad, "0")


@pytest.mark.parametrize(
    ("layer", "text"),
    [
        ("actnorm", "sum_{i=1}^{s} log|s_i|"),
        ("conv1x1", "sum_{i=W}^{c} log|λ_i|"),
        ("conv1x1", "sum_{i=1}^{λ} log|λ_i|"),  # complex numbers
        ("affine_coupling", "sum_{i=t}^{s} log s_i"),
    ],
)
def test_a_sum_that_runs_to_no_number_is_told_so(layer: str, text: str) -> None:
    assert grade(layer, text).mistake == "range"


def test_html_escapes_what_was_typed() -> None:
    page = grade("flow", "<script>")._repr_html_()
    assert "<script>" not in page and "Not yet" in page


@pytest.mark.parametrize("layer", LAYERS)
def test_points_separate(layer: str) -> None:
    """No named wrong formula comes near the target at every point."""
    target = [p.target for p in _formula_layers.points(layer)]
    rows, reasons = _formula_mistakes.wrong_formulas(layer)
    assert len(rows) == len(reasons) > 0
    near = abs(rows - target) < 1e-3
    assert not near.all(axis=1).any()


def test_points_are_not_special() -> None:
    """What a formula that forgets something could hide behind is nowhere at all points."""
    for layer in LAYERS:
        found = [p.symbols for p in _formula_layers.points(layer)]
        if "coupling" not in layer:  # there s is above 0
            one = [
                s["s"] if "s" in s else np.linalg.det(s["W" if "W" in s else "J"]) for s in found
            ]
            assert min(map(np.min, one)) < 0 < max(map(np.max, one))
        if layer != "flow":
            assert sum(s["h"] != s["w"] for s in found) >= 3
            assert {float(s["c"]) % 2 for s in found} == ({0.0} if "coupling" in layer else {0, 1})


# -- habits of the hand: found by typing as students, engineers and word processors do -----------
@pytest.mark.parametrize(
    ("layer", "text"),
    [
        ("flow", "log p(x) = log p(z) + Σ log|det(dh_i/dh_{i-1})|"),  # Σ without its index
        ("flow", r"\log p(x) = \log \mathcal{N}(z; 0, I) + \log|\det(dz/dx)|"),
        ("flow", "логарифм модуля определителя якобиана"),
        ("flow", r"\begin{equation}\log|\det J|\end{equation}"),
        ("actnorm", "Σ_i h w log|s_i|"),  # h is a factor, not a second index
        ("actnorm", "h w sum over i of log|s_i|"),
        ("actnorm", "h·w·сумма по i log|s_i|"),
        ("actnorm", "H*W*self.s.abs().log().sum()"),
        ("conv1x1", "H·W·log|det W|"),
        ("conv1x1", "H * W * torch.slogdet(self.weight)[1]"),
        ("conv1x1", "h x w x log|det W|"),
        ("conv1x1", "h⋅w⋅log\u2061|det\u2061(W)|"),  # pasted from a word processor
        (
            "conv1x1",  # the paper's own line
            r"\log\left|\det\left(\frac{d\,\mathrm{conv2D}(\mathbf{h};\mathbf{W})}{d\,\mathbf{h}}"
            r"\right)\right| = h\cdot w\cdot\log|\det(\mathbf{W})|",
        ),
        ("lu", "sum(log|diag(U + diag(s))|)"),  # reads the diagonal off, takes no determinant
        ("affine_coupling", "Σ log|s(x_b)|"),
        ("affine_coupling", "np.log(np.abs(s)).sum(axis=(1, 2, 3))"),
        ("additive_coupling", "= 0"),
        ("additive_coupling", "равен нулю"),
        ("additive_coupling", "s = 1, log-det = 0"),  # the slide's own words
        ("additive_coupling", "torch.zeros(x.shape[0])"),
        ("additive_coupling", "it is 0 nats"),
        ("flow", "log p(z) + log|det(dz/dx)| = log p(x)"),  # the sought one stands last
        ("flow", "logpx = logpz + log|det dz/dx|"),
        ("flow", r"\log|\det J_1| + \log|\det J_2| + \cdots + \log|\det J_K|"),
        ("flow", "логарифм модуля определителя матрицы Якоби"),
        ("flow", "the logarithm of the absolute value of the determinant of the Jacobian matrix"),
        ("actnorm", "h w sum(log|s|) = log|det J|"),
        ("actnorm", r"\sum_{i,j,k} \log|s_k|"),
        ("actnorm", "Σ_i Σ_j Σ_c log|s_c|"),
        ("actnorm", "h·w·(log|s_1| + … + log|s_c|)"),
        ("actnorm", "h*w*sum(np.log(abs(s[i])) for i in range(c))"),
        ("actnorm", "высота · ширина · сумма по каналам лог|s|"),
        ("conv1x1", "y = Wx; log|det dy/dx| = h w log|det W|"),
        ("conv1x1", "h w ln|дет W|"),
        ("lu", "log|s₁| + log|s₂| + … + log|s_c|"),
        ("lu", "sum(log_abs_s)"),
        ("affine_coupling", "torch.log(s).sum([1, 2, 3])"),
        ("affine_coupling", "torch.sum(log_s, (1, 2, 3))"),
        ("flow", "Σ_{i=1}^{K} sum(log|det J_i|)"),
        ("actnorm", "h*w*np.log(np.abs(s)).sum()"),
        ("conv1x1", r"\sum_{p=1}^{hw} \log|\det W|"),
        ("flow", "log|det J|, J = dz/dx"),
        ("flow", "log|det J|, where J is the Jacobian"),
        ("flow", "log p(x) = log p(z) + log|det J|, z = f(x)"),
        ("flow", "Это log|det dz/dx|"),
        ("affine_coupling", "sum(log|s|), s = exp(log s)"),
        ("affine_coupling", "y_a = s ⊙ x_a + t, log|det J| = sum(log|s|)"),
        ("additive_coupling", "0, because s = 1"),
        ("additive_coupling", "0, т.к. s = 1"),
        ("additive_coupling", "0 (s = 1)"),
        ("additive_coupling", "0 (volume preserving)"),
        ("additive_coupling", "s = 1, so log-det = 0"),
        ("additive_coupling", "s=1 => 0"),
        ("additive_coupling", "det J = 1, log|det J| = 0"),
        ("additive_coupling", "log-det равен 0"),
        ("additive_coupling", "The log-determinant is 0"),
        ("actnorm", "h*w*sum(log(abs(s)))  # per example"),
        ("actnorm", "D = h w sum(log|s|)"),
        ("lu", r"W = PL(U + diag(s)) \Rightarrow \log|\det W| = \sum\log|s|"),
        ("lu", "sum(log|s|), where W = P L (U + diag(s))"),
        ("affine_coupling", "log_s.sum(axis=[1,2,3])"),
        ("affine_coupling", "torch.sum(log_s, dim=[1,2,3], keepdim=True)"),
        ("affine_coupling", "log_s.sum(3).sum(2).sum(1)"),
        ("affine_coupling", "log_s.flatten(1).sum(1)"),
        ("affine_coupling", "logs.sum()"),
        ("affine_coupling", r"\sum_{i=1}^{h}\sum_{j=1}^{w}\sum_{k=1}^{c/2} \log|s_{ijk}|"),
        ("affine_coupling", r"\sum_{i=1}^{hwc/2} \log|s_i|"),
        ("actnorm", "h*w*np.log(np.abs(s)).sum(-1)"),
        ("actnorm", "h*w*np.sum(np.log(np.abs(s)), -1)"),
        ("actnorm", "h·w·∑ᵢ₌₁ᶜ log|sᵢ|"),
        ("actnorm", "x.size(2) * x.size(3) * torch.sum(torch.log(torch.abs(s)))"),
        ("actnorm", r"\begin{align*}\log|\det J| &= h w \sum_{c} \log|s_c|\end{align*}"),
        (
            "conv1x1",
            r"\begin{aligned}\log|\det J| &= \log|\det W|^{hw} \\ &= h w \log|\det W|\end{aligned}",
        ),
        ("conv1x1", "h*w*slogdet(W)[-1]"),
        ("conv1x1", r"\boxed{h w \log|\det \mathtt{W}|}"),
        ("flow", "log pθ(x) = log pθ(z) + Σᵢ₌₁ᴷ log|det dhᵢ/dhᵢ₋₁|"),
        ("flow", "log|det(𝜕z/𝜕x)|"),
        ("flow", "-log|det J_g(z)|"),
        ("flow", r"-\log|\det J_{f^{-1}}(z)|"),
        ("flow", "log p(z) - log|det ∂f⁻¹(z)/∂z|"),
        ("flow", "-log|det df^{-1}/dz|"),
        ("flow", r"\log|\det J_{f_\theta}(x)|"),
        ("flow", r"\sum_{i=1}^{K} \log|\det J_{f_i}(h_{i-1})|"),
        ("flow", "log p(h_K) + Σ_{i=1..K} log|det dh_i/dh_{i-1}|"),
        ("flow", "log p(z = f(x)) + Σ_{i=1,…,K} log|det dh_i/dh_{i-1}|"),
        ("affine_coupling", r"\sum_{i=1}^{D/2} \log|s_i|"),
        ("affine_coupling", "Σ_{ijk} ln|s_ijk|"),
        ("affine_coupling", "log|det ∂y_a/∂x_a| = Σ log|s|"),
        ("additive_coupling", r"\sum_i \log 1"),
        ("additive_coupling", "Since s = 1, log-det = 0"),
        ("additive_coupling", "Так как s = 1, логарифм определителя равен 0"),
        ("additive_coupling", r"s = 1 \;\Rightarrow\; \log|\det J| = 0"),
        ("flow", r"\log|\det J|,\quad \text{where } J = \frac{dz}{dx}"),
        ("flow", "Log-determinant — это log|det dz/dx|"),
        ("flow", "log N(z; 0, 1) + log|det J|"),
        ("actnorm", "D = h w sum(log|s|), where s is the scale"),
        ("flow", r"\boxed{\log|\det\dfrac{dz}{dx}|}"),
        ("flow", "log|det Df(x)|"),
        ("actnorm", "h.w.sum(log|s|)"),
        ("actnorm", "h·w·½·Σ log s²"),
        ("actnorm", "−h·w·Σ log|s^-1|"),
        ("conv1x1", r"h w \log\left|\det\{W\}\right|"),
        ("flow", "log p(z) + log|det dz/(dx)|"),
        ("actnorm", "h w (log|s1| + log|s2| + … + log|sc|)"),
        # Words behind an equation may be the answer.
        ("additive_coupling", "s = 1, the log-determinant is zero"),
        ("additive_coupling", "y = x + t, логарифм определителя равен нулю"),
        ("flow", "z = f(x), log of the absolute determinant of the Jacobian"),
        ("flow", "J = dz/dx, the log of the absolute value of the determinant of J"),
        ("flow", "log p(x) = log p(z) + log|det J|, the log-likelihood of an image"),
    ],
)
def test_habits_of_the_hand_are_read(layer, text):
    verdict = grade(layer, text)
    assert verdict, verdict.message


@pytest.mark.parametrize(
    ("layer", "text", "mistake"),
    [
        ("flow", "sum(log|diag(dh_i/dh_{i-1})|)", "dimension"),
        ("flow", "log Σ|det J_i|", "log_of_sum"),  # was taken for the log-det of one step
        ("flow", "log p(x) = log N(z; 0, I) − log|det(dz/dx)|", "sign"),
        ("actnorm", "Σ_i h log|s_i|", "only_h"),
        ("conv1x1", "H·W·det W", "log"),
        ("conv1x1", "log|det(H·W)|", "dimension"),
        ("lu", "log|det(U + diag(s))|", "restates"),
        ("lu", "sum(log(abs(diag(s))))", "det"),
        ("affine_coupling", "Σ s(x_b)", "log"),
        ("affine_coupling", "torch.mean(log_s, (1, 2, 3))", "mean"),
        ("additive_coupling", "s = 1, log-det = 1", "log"),
        ("additive_coupling", "zeros(3) + 1", "log"),
        ("flow", "log p(z) − log|det(dz/dx)| = log p(x)", "sign"),
        ("flow", "log p(z) = log p(x)", "volume"),
        ("flow", "логарифм определителя матрицы Якоби", "abs"),
        ("actnorm", "log|det J| = log|det J|", "restates"),
        ("actnorm", "sum(log|s|) = log|det J|", "hw"),
        ("actnorm", "Σ_i Σ_j Σ_c log s_c", "abs"),
        ("actnorm", "h w Σ_{i,j,k} log|s_k|", "factor"),
        ("actnorm", "log|s_1| + ... + log|s_c|", "hw"),
        ("actnorm", "log|s_1| + ... + log|s_c| h w", "unreadable"),  # h w for the last alone?
        ("lu", "log|s_1| + log|t_2| + ... + log|s_c|", "unreadable"),
        ("conv1x1", "Σ_i Σ_j Σ_k log|det W|", "sum"),
        ("actnorm", "h w log|det W|", "symbol"),  # W was read as the width
        ("affine_coupling", "log|det W|", "symbol"),
    ],
)
def test_habits_of_the_hand_do_not_excuse_mistakes(layer, text, mistake):
    verdict = grade(layer, text)
    assert not verdict
    assert verdict.mistake == mistake, verdict.message


def test_numbers_that_look_alike_are_told_with_more_digits():
    said = grade("actnorm", "h w sum(log(|s| + 1e-7))").message
    ours, right = said.split("gives ")[1].split("; the log-determinant is ")
    assert ours != right.rstrip(".")


def test_a_sum_over_maps_leaves_the_diagonals_unsummed():
    said = grade("flow", "sum(log|diag(dh_i/dh_{i-1})|)").message
    assert "for each map i" in said.lower() and "channel" not in said
    assert "per channel" in grade("actnorm", "h w log|s|").message


@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("text", ["", " \n", ".", "$ $"])
def test_an_empty_answer_is_told_the_letters_of_its_own_layer(layer, text):
    said = grade(layer, text).message
    assert said.startswith("Not yet: The answer is empty.")
    assert ("dz/dx" in said) == (layer == "flow")
    assert (" W;" in said) == (layer in ("conv1x1", "lu"))


# Typed between ordinary quotes, without an r: there "\\f" of "\\frac" is one character, and so on.
@pytest.mark.parametrize(
    ("layer", "text"),
    [
        ("flow", "\\log\\left|\\det\x0crac{dz}{dx}\right|"),
        ("flow", "\\log\\left\x0bert\\det\tfrac{\\partial z}{\\partial x}\right\rvert"),
        ("flow", "\\log p_\theta(x) = \\log p(z) + \\log\x08igl|\\det \nabla f(x)\x08igr|"),
        ("flow", "\\log\\lvert\\det \x08oldsymbol{J}\rvert,\n\\text{where } J = dz/dx"),
        ("actnorm", "h \times w \times \\sum \\log\x07bs(s)"),
        ("lu", "\\sum_i\\log|s_i| \text{ nats}"),
        ("additive_coupling", "0\tas s = 1\r\n"),  # tabs and line ends stay what they are
    ],
)
def test_latex_in_ordinary_quotes(layer, text):
    verdict = grade(layer, text)
    assert verdict, verdict.message
    raw = dict(zip("\a\b\f\v", ("\\a", "\\b", "\\f", "\\v"), strict=True))
    assert grade(layer, text.translate(str.maketrans(raw))) == verdict


def test_wrong_words_behind_an_equation_are_judged_and_not_the_equation():
    assert grade("flow", "z = f(x), the log of the determinant of the Jacobian").mistake == "abs"


@pytest.mark.parametrize("layer", ["flow", "conv1x1"])
@pytest.mark.parametrize(
    "around",
    [
        "{} — логарифм модуля определителя якобиана",
        "{} - the log of the change of volume",
        "{} (логарифм модуля якобиана)",
        "{} (the log of how volumes change)",
        "{}, J - матрица Якоби",
        "{}, the log of the change of volume.",
        "логарифм модуля определителя матрицы Якоби: {}",
        "Формула: {}",
        "The change of volume: {}",
    ],
)
def test_words_around_a_formula_are_no_part_of_it(layer, around):
    right = {"flow": "log|det(J)|", "conv1x1": "h w log|det(W)|"}[layer]
    verdict = grade(layer, around.format(right))
    assert verdict, verdict.message
    assert grade(layer, around.format("-" + right)).mistake == "sign"


def test_a_sum_over_pixels_is_written_not_said():
    assert grade("affine_coupling", "sum(log|s|) over all pixels and channels of x_a")
    assert grade("actnorm", "h w sum(log|s|) over the channels")
    assert grade("actnorm", "h·w·Σ log|s| по каналам")
    assert grade("actnorm", "sum(log|s|) over the channels").mistake == "hw"
    said = grade("actnorm", "sum(log|s|) over all pixels and channels")
    assert said.mistake == "unreadable" and "h·w" in said.message
    assert grade("conv1x1", "log|det W| по всем пикселям").mistake == "unreadable"


@pytest.mark.parametrize(
    ("text", "mistake"),
    [
        ("log p(z) - log|det dz/dx|", "sign"),
        ("log p(z) - sum of log det J", "abs"),
        ("log|det J| - log p(z)", "sign"),
        ("log (det J)", "abs"),
    ],
)
def test_a_minus_is_no_dash(text, mistake):
    assert grade("flow", text).mistake == mistake
