"""The panels of notebook 11, driven from Python as a student drives them by hand."""

from __future__ import annotations

import pytest

from course.exercise import registry
from course.matching import LAYERS, deck, mistakes
from course.panel import MatchingPanel, QuestionPanel
from course.progress import current


@pytest.fixture(autouse=True)
def _no_file(monkeypatch, tmp_path):
    monkeypatch.setenv("GLOW_COURSE_PROGRESS", str(tmp_path / "progress.json"))


@pytest.mark.parametrize(
    "layer, formula, says",
    [
        ("flow", "log p(z) + log|det dz/dx|", '<b style="color:#1b7f4b">Right'),
        ("flow", "log det dz/dx", "Not yet"),
        ("conv1x1", r"h \cdot w \cdot \log|\det W|", "Right"),
        ("conv1x1", "log|det W|", "h·w is missing"),
        ("additive_coupling", "0", "Right"),
    ],
)
def test_a_formula_is_graded(layer, formula, says):
    panel = QuestionPanel("1")
    panel.layer.value, panel.formula.value = layer, formula
    panel.button.click()
    assert says in panel.result.value


@pytest.mark.parametrize(
    "question, words, says",
    [
        (
            "1",
            "Это логарифм модуля определителя якобиана dz/dx.",
            "You speak of: log of the Jacobian",
        ),
        ("2", "Actnorm scales and shifts each channel.", "You speak of: actnorm: scale and shift"),
        ("3", "U is lower triangular.", "the opposite, look again: triangular factors"),
    ],
)
def test_words_are_mirrored(question, words, says):
    panel = QuestionPanel(question)
    panel.words.value = words
    panel.button.click()
    assert says in panel.result.value
    assert "Compare with a model answer" in panel.result.value


def test_both_at_once_then_nothing():
    panel = QuestionPanel()
    panel.formula.value, panel.words.value = "log|det dz/dx|", "Hello there."
    panel.button.click()
    assert "Right" in panel.result.value and "Not found in your text" in panel.result.value
    panel.formula.value = panel.words.value = "  "
    panel.button.click()
    assert panel.result.value.startswith("Nothing to check yet")


def test_what_is_typed_cannot_break_the_page():
    panel = QuestionPanel()
    panel.formula.value = panel.words.value = "<script>alert(1)</script>"
    panel.button.click()
    assert "<script>" not in panel.result.value


def test_what_arrives_after_the_click_is_answered_and_later_changes_are_not(monkeypatch):
    """A page sends the click before the last letters when the kernel is busy."""
    now = [100.0]
    monkeypatch.setattr("course.panel.time.monotonic", lambda: now[0])
    panel = QuestionPanel()
    panel.layer.value, panel.formula.value = "conv1x1", "l"
    assert panel.result.value == "", "nothing was asked yet"
    panel.button.click()
    assert "I do not know the name" in panel.result.value
    now[0] += 2
    panel.formula.value = "log|det W|"
    assert "h·w is missing" in panel.result.value
    now[0] += 30
    panel.formula.value = "h w log|det W|"
    assert "h·w is missing" in panel.result.value, "not before the next click"
    panel.button.click()
    assert "Right" in panel.result.value

    panel = MatchingPanel()
    panel.button.click()
    panel.choices["squeeze"][0].value = "F2"
    assert "No card is chosen yet" not in panel.result.value


def test_an_unknown_question():
    with pytest.raises(ValueError, match="accepted: '1', '2', '3'"):
        QuestionPanel("4")


def test_a_match_by_mouse(monkeypatch):
    monkeypatch.setattr(MatchingPanel, "LATE", 0.0)  # a student is slower than this test
    panel = MatchingPanel()
    panel.button.click()
    assert "No card is chosen yet" in panel.result.value
    right = registry()["questions.matching"].solution()
    for layer, row in right.items():
        for choice, name in zip(panel.choices[layer], row, strict=True):
            choice.value = name
    assert panel.answer == right
    panel.choices["squeeze"][2].value = "D4"
    panel.button.click()
    assert "squeeze: measured, the log-determinant of F2 is 0.000" in panel.result.value
    assert not current().record("questions.matching").solved
    panel.choices["squeeze"][2].value = "D1"
    panel.button.click()
    assert "Right." in panel.result.value
    assert current().record("questions.matching").solved


def test_each_card_is_offered_once_in_its_column():
    panel = MatchingPanel()
    for k in range(3):
        names = [value for _, value in panel.choices["actnorm"][k].options if value]
        assert names == [c.name for c in deck().values() if c.name[0] == "FID"[k]]


def test_each_list_has_a_name_to_be_read_out():
    names = [field.description for lists in MatchingPanel().choices.values() for field in lists]
    assert "inverse of actnorm" in names and len(set(names)) == len(names) == 15


def test_only_one_match_is_right():
    """Of all rows of the deck exactly one passes for each layer."""
    functions, inverses, logdets = ([n for n in deck() if n[0] == k] for k in "FID")
    right = registry()["questions.matching"].solution()
    for layer in LAYERS:
        passing = [
            (f, i, d)
            for f in functions
            for i in inverses
            for d in logdets
            if not mistakes({**right, layer: (f, i, d)})
        ]
        assert passing == [right[layer]]


@pytest.mark.parametrize(
    "answer",
    [
        {},
        {"actnorm": 3},
        {"Actnorm": ("F3", "I2", "D4")},
        {3: 4},
        {"actnorm": ("F3", "I2", None)},
        {"actnorm": ("F9", "I2", "D4")},
        {"actnorm": ("F3" * 50, "", "")},
        {"actnorm": [["F3"], 1, 2]},
    ],
)
def test_odd_answers_get_a_sentence(answer):
    sentences = mistakes(answer)
    assert sum(layer in " ".join(sentences) for layer in LAYERS) == len(LAYERS)
    assert max(map(len, sentences)) < 200
