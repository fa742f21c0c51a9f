"""The rubric's precision and recall on a committed set of answers, and its manners."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from course.rubric import CONCEPTS, MAX_CHARS, QUESTIONS, Reflection, reflect

ANSWERS = json.loads((Path(__file__).parent / "data" / "answers.json").read_text("utf-8"))
# Lower bounds, a little under what was measured: (precision, recall) of found and contradictory.
# The held-out answers were written after the rules, by the same hand (22 once, 60 later); no rule
# was changed for one of them. (Later corrections came from other sentences, now in the development
# part.) When written, the 60 alone gave found 0.88, 0.94 and contradictory 1.00, 0.71.
BOUNDS = {
    "development": {"found": (0.98, 0.98), "contradictory": (0.98, 0.97)},
    "held-out": {"found": (0.90, 0.95), "contradictory": (0.97, 0.75)},
}


def _scores(part: str, kind: str) -> tuple[float, float]:
    hit = extra = lost = 0
    for answer in (a for a in ANSWERS if a["part"] == part):
        said = set(getattr(reflect(answer["question"], answer["text"]), kind))
        gold = set(answer[kind])
        hit, extra, lost = hit + len(said & gold), extra + len(said - gold), lost + len(gold - said)
    return hit / (hit + extra), hit / (hit + lost)


@pytest.mark.parametrize("part", BOUNDS)
@pytest.mark.parametrize("kind", ["found", "contradictory"])
def test_precision_and_recall(part: str, kind: str, capsys: pytest.CaptureFixture) -> None:
    precision, recall = _scores(part, kind)
    count = sum(a["part"] == part for a in ANSWERS)
    with capsys.disabled():
        print(f"\n{part} ({count} answers), {kind}: precision {precision:.2f}, recall {recall:.2f}")
    least = BOUNDS[part][kind]
    assert precision >= least[0] and recall >= least[1]


def test_the_set_is_broad() -> None:
    assert len(ANSWERS) >= 60
    held_out = [a for a in ANSWERS if a["part"] == "held-out"]
    assert len(held_out) >= 20
    for question in QUESTIONS:
        kinds = {a["kind"] for a in ANSWERS if a["question"] == question}
        assert kinds == {"good", "partial", "wrong", "salad", "negated"}
        assert {a["language"] for a in ANSWERS if a["question"] == question} == {"en", "ru"}


@pytest.mark.parametrize("question", QUESTIONS)
def test_both_model_answers_hold_every_concept(question: str) -> None:
    for text in reflect(question, "").model_answer.split("\n"):
        assert reflect(question, text).missing == []
        assert reflect(question, text).contradictory == []


# Held out and not seen through: its “логарифм определителя” reads as a definition.
TAKEN_FOR_PROSE = "якобиан логарифм определителя модуль"


@pytest.mark.parametrize("answer", [a for a in ANSWERS if a["kind"] == "salad"], ids=str)
def test_salad_is_called_salad(answer: dict) -> None:
    if answer["text"].startswith(TAKEN_FOR_PROSE):
        pytest.xfail("a list with a genitive in it")
    result = reflect(answer["question"], answer["text"])
    assert result.found == [] and "list of keywords" in result.message


def test_never_a_mark_and_honest_about_it() -> None:
    for text in ("", "  ", "U is lower triangular.", "x" * (MAX_CHARS + 1)):
        result = reflect("3", text)
        assert "cannot judge your reasoning" in result.message and result.model_answer
    assert "nothing here" in reflect("1", "").message
    assert "were read" in reflect("1", "x" * (MAX_CHARS + 1)).message
    assert not hasattr(result, "mark") and not hasattr(result, "score")


def test_bad_arguments() -> None:
    for bad in (None, 1, b"text"):
        with pytest.raises(TypeError, match="text"):
            reflect("1", bad)
    for bad in ("4", "", 1, None):
        with pytest.raises(ValueError, match="question"):
            reflect(bad, "text")


@pytest.mark.parametrize("unit", ["a", "not ", "log det jacobian ", "щ. ", "det = ", "sign "])
def test_enormous_text_is_bounded(unit: str) -> None:
    for question in QUESTIONS:
        assert isinstance(reflect(question, unit * 300_000), Reflection)


@given(st.text(max_size=200), st.sampled_from(sorted(QUESTIONS)))
@settings(max_examples=60, deadline=None)
def test_every_concept_is_in_exactly_one_list(text: str, question: str) -> None:
    result = reflect(question, text)
    names = sorted(result.found + result.missing + result.contradictory)
    assert names == sorted(c.name for c in CONCEPTS[question])
    assert "<script" not in result._repr_html_()


@pytest.mark.parametrize(
    ("question", "text"),
    [
        ("1", "Лог-детерминант не равен следу якобиана, это логарифм модуля его определителя."),
        ("1", "Additive coupling preserves the volume, so its log-determinant is zero."),
        ("2", "Actnorm, unlike batch norm, does not use the statistics of every batch."),
        ("2", "Сеть не обязана быть обратимой, потому что мы её никогда не обращаем."),
        ("3", "Instead of a QR decomposition they use LU: W = PL(U+diag(s))."),
        ("3", "Не QR-разложение, а LU-разложение: W = PL(U+diag(s))."),
        ("3", "There is no need to compute the determinant: log|det W| = sum(log|s|)."),
        ("3", "Не нужно считать определитель за O(c^3): он равен произведению диагонали s."),
        ("2", "To invert the coupling we never need to invert the neural network."),
        ("2", "The neural net never has to be inverted."),
        ("3", "U isn't lower triangular, it is upper triangular."),
        ("3", "They take a decomposition by LU rather than the SVD."),
        # What is set aside in favour of something else, and what would be, were it not so.
        ("3", "Стоит O(c), а не O(c^3)."),
        ("3", "Определитель считается за O(c), а не за O(c³)."),
        ("1", "Берётся модуль, а не сам определитель."),
        ("3", "There is no need to invert a full matrix: two triangular systems are solved."),
        ("3", "Не нужно обращать W целиком: решаются две треугольные системы."),
        ("3", "The slide says U is lower triangular, but it is upper triangular."),
        ("3", "На слайде U — нижнетреугольная, но на самом деле она верхнетреугольная."),
        ("1", "Вращение не меняет объёма."),
        (
            "1",
            "Without the absolute value the log of a negative determinant would be undefined.",
        ),
        (
            "1",
            "A density is not invariant under a change of variables; log|det dz/dx| corrects it.",
        ),
        ("1", "Без этой поправки плотность не интегрировалась бы в единицу."),
        ("1", "The log-determinant is not the determinant itself, it is the log of its modulus."),
        ("2", "The convolution does not mix neighbouring pixels, only channels, with a learned W."),
        ("2", "Свёртка не смешивает соседние пиксели, только каналы, обучаемой матрицей."),
        ("2", "There is no need to invert the network."),
        ("2", "The inverse of the network is not needed."),
        ("3", "The full determinant is not needed: log|det W| = sum(log|s|)."),
        ("1", "Знак определителя не важен, поэтому берут модуль."),
        (
            "1",
            "Off-diagonal entries of a triangular Jacobian are not needed, only the diagonal is.",
        ),
        ("1", "Determinants multiply, so log-determinants add."),
        ("1", "The log-determinant is not the sum of the diagonal, that would be the trace."),
        ("1", "log p(x) = log p(z) - log|det dx/dz|"),
        ("2", "Two couplings in a row change both halves."),
        ("2", "Actnorm has a single scale and shift for every channel."),
        ("2", "Batch norm uses the mean of each batch, actnorm only that of the first."),
        ("3", "The inverse falls from O(c^3) to O(c^2) a pixel."),
        ("3", "Without LU the cost remains O(c^3)."),
        ("3", "Not all of P, L, U and s are trained: P is fixed."),
        ("3", "The determinant of W is the product of the diagonal of U + diag(s)."),
        ("3", "P stays fixed while L and U are learned."),
        ("3", "Everything except P is learned."),
        ("2", "The network doesn't have to be invertible."),
        ("2", "We pass x_b through, otherwise the network would have to be inverted."),
        ("1", "Without the absolute value the log of a negative determinant is not defined."),
        ("1", "Без модуля определителя логарифм не определён."),
        ("1", "You cannot omit the absolute value of det J."),
        ("1", "Don’t forget the absolute value of the determinant."),
        ("1", "Модуль определителя нельзя опускать."),
        ("1", "It is the log of the absolute value, not the absolute value of the log."),
        ("3", "They don't compute det W directly, log|det W| is sum(log|s|)."),
        ("3", "It isn't necessary to compute the determinant of W: log|det W| = sum(log|s|)."),
        ("3", "They do not compute the determinant: it is read off s."),
        ("3", "The cost is O(c) instead of O(c^3)."),
        ("1", "log p(z) = log p(x) + log|det dx/dz|"),
        ("1", "A rotation: volume is preserved."),
    ],
)
def test_a_denied_opposite_is_no_contradiction(question, text):
    assert not reflect(question, text).contradictory


@pytest.mark.parametrize(
    ("question", "text", "concept"),
    [
        ("1", "The map preserves the volume.", "change of volume"),
        ("1", "Логарифм определителя — это след якобиана.", "log of the Jacobian determinant"),
        (
            "2",
            "Actnorm uses the statistics of every batch.",
            "actnorm: scale and shift per channel",
        ),
        ("3", "Стоимость растёт с O(c) до O(c^3).", "cost falls from O(c³) to O(c)"),
        ("3", "W не раскладывается в LU.", "LU factorisation"),
        ("3", "They do it with a QR decomposition.", "LU factorisation"),
        ("3", "They factorise W with the SVD.", "LU factorisation"),
        ("3", "LU decomposition is not used.", "LU factorisation"),
        ("3", "LU-разложение не используется.", "LU factorisation"),
        ("1", "The absolute value of the determinant isn't needed.", "absolute value"),
        ("1", "Модуль определителя не нужен.", "absolute value"),
        ("1", "Модуль брать не нужно, так как определитель положителен.", "absolute value"),
        ("1", "Для треугольной матрицы диагональ не важна.", "triangular Jacobian"),
        ("3", "P is not fixed but learned.", "P is fixed"),
        ("3", "P обучается, а не фиксирована.", "P is fixed"),
        ("3", "As on the slide, U is lower triangular.", "triangular factors"),
        (
            "1",
            "Even without the absolute value the log-determinant would be fine.",
            "absolute value",
        ),
        (
            "3",
            "It takes O(c^3) with the LU form and O(c) without it.",
            "cost falls from O(c³) to O(c)",
        ),
        ("1", "Объём всегда сохраняется.", "change of volume"),
        ("1", "The volume is preserved by any flow.", "change of volume"),
        ("1", "log p(z) = log p(x) + log|det dz/dx|", "change of volume"),
        ("1", "It is the absolute value of the log of the determinant.", "absolute value"),
        ("1", "Это модуль логарифма определителя.", "absolute value"),
        ("1", "We do not take the absolute value of the determinant.", "absolute value"),
        ("3", "The cost is O(c³) instead of O(c).", "cost falls from O(c³) to O(c)"),
        ("3", "Вместо O(c) стало O(c^3).", "cost falls from O(c³) to O(c)"),
        (
            "2",
            "The network has to be invertible.",
            "coupling: inverse without inverting the network",
        ),
        (
            "3",
            "They don't compute the sum of log|s|, they compute det W.",
            "log-determinant from s",
        ),
    ],
)
def test_the_opposite_itself_still_is_one(question, text, concept):
    assert reflect(question, text).contradictory == [concept]


@pytest.mark.parametrize(
    ("question", "text"),
    [
        ("1", "Логарифм модуля определителя якобиана, мера изменения объёма."),
        ("3", "W = PL(U+diag(s)), log|det W| = sum(log|s|), O(c) вместо O(c^3)."),
        (
            "2",
            "Нейросеть даёт масштаб и сдвиг, первая половина копируется, обращать сеть не нужно.",
        ),
    ],
)
def test_terse_prose_is_no_list(question: str, text: str) -> None:
    result = reflect(question, text)
    assert len(result.found) == 3 and "list of keywords" not in result.message
    assert "the opposite" not in result.message


@pytest.mark.parametrize(
    ("question", "text", "concepts"),
    [
        (
            "1",
            r"\log\left|\det\frac{\partial\mathbf{z}}{\partial\mathbf{x}}\right|",
            "log, absolute",
        ),
        ("1", r"\log\left|\det\frac{\partial z}{\partial x}\right|", "log, absolute"),
        (  # the deck's own formula
            "1",
            r"$$\log p_\theta(x) = \log p_\theta(z) + "
            r"\sum_{i=1}^{K}\log\left|\det\left(\frac{dh_i}{dh_{i-1}}\right)\right|$$",
            "log, absolute, change, sum",
        ),
        (
            "1",
            r"\log p_{\mathbf X}(\mathbf x) = \log p_Z(f_\theta(x)) + \log\lvert\det J\rvert",
            "log, absolute, change",
        ),
        ("1", r"\log\lvert\det\tfrac{\mathrm d z}{\mathrm d x}\rvert", "log, absolute"),
        ("1", "log(abs(det(dz/dx)))", "log, absolute"),
        ("1", "log|det(∂f/∂x)|", "log, absolute"),  # the formula alone is what was asked for
        ("1", "Log of the absolute determinant of the Jacobian.", "log, absolute"),
        ("1", "Логарифм определителя матрицы Якоби, взятого по модулю.", "log, absolute"),
        ("1", "We have log|det dz/dx| = Σ log|det dh_i/dh_{i-1}|.", "log, absolute, sum"),
        ("1", "It expands or contracts space: log p_X(x) = log p_Z(f(x)) + …", "change"),
        ("2", "Активационная нормализация масштабирует и сдвигает каналы.", "actnorm: scale"),
        ("2", "s и b при инициализации выбираются так, чтобы среднее было 0.", "actnorm: data"),
        (
            "2",
            "Invertible 1x1 convolution: a generalised permutation of channels.",
            "1×1 convolution: g",
        ),
        ("2", "y1 = x1, y2 = x2 * exp(s(x1)) + t(x1)", "coupling: one half"),
        ("2", "One half stays the same.", "coupling: one half"),
        ("2", "y_a = s*x_a + t; y_b = s*x_b + t", ""),
        ("3", "Стоит O(c), а не O(c^3).", "cost"),
        ("3", "The slide says U is lower triangular, but it is upper triangular.", "triangular"),
        ("3", "The deck says that U is lower triangular, which is a slip.", ""),
        ("3", "It costs O(c^3), not O(c).", ""),  # neither: what is set aside is not stated
        ("3", "W is kept as P·L·(U + diag(s)).", "LU"),
        ("3", "They keep W as P L (U + diag(s)).", "LU"),
        ("3", "Раскладывают W на множители P, L и U.", "LU"),
        ("1", "The log-determinant is log|det J|.", "log, absolute"),
        ("1", "Это логарифм |det J_f(x)|.", "log, absolute"),
        ("1", "It is \\log\\left|\\det\x0crac{dz}{dx}\right|.", "log, absolute"),  # no r"…"
        ("2", "Actnorm applies a scale and a bias to each channel.", "actnorm: scale"),
        ("2", "Свёртка 1×1: y_ij = W x_ij.", "1×1 convolution: l"),
        ("2", "The network can't be inverted, but the layer can.", "coupling: inv"),
        ("2", "You don't have to invert the network.", "coupling: inv"),
        ("3", "The authors applied LU factorization to W.", "LU"),
        ("3", "Авторы использовали ЛУ-разложение матрицы.", "LU"),
        ("3", "log|det W| = Σ log|s_i|", "log-det"),
        ("3", r"log|det W| = \sum_{i} \log|s_{i}|", "log-det"),
        ("3", "The determinant is the product of the s_i.", "log-det"),
        ("3", "O(c^3) -> O(c)", "cost"),
        ("3", "LU: P: L: U: triangular: fixed:", ""),
        ("3", "Layers: LU, P, fixed, triangular, O(c), O(c^3)", ""),
    ],
)
def test_said_in_other_ways(question, text, concepts):
    result = reflect(question, text)
    asked = [start for start in concepts.split(", ") if start]
    assert [name for name in result.found if name.startswith(tuple(asked))] == result.found
    assert len(result.found) == len(asked), result
    assert not result.contradictory


@pytest.mark.parametrize(
    "text",
    [
        "The logarithm of the absolute value of the determinant of the Jacobian.",
        "log of |det| of the Jacobian matrix",
        "Логарифм модуля определителя якобиана.",
        "Логарифм абсолютной величины определителя матрицы Якоби",
    ],
)
def test_a_definition_needs_no_verb(text: str) -> None:
    found = reflect("1", text).found
    assert found == ["log of the Jacobian determinant", "absolute value"]
