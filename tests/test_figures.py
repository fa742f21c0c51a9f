"""The fingerprint of a figure: blind to the last bits, not to a wrong curve."""

import io

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pytest

from course import show, style
from course.figures import fingerprint
from course.predict import Prediction, ask, predict, predictions


def _print(draw, data, **options):
    fig, ax = plt.subplots(subplot_kw={"projection": "3d"} if draw in SPATIAL else {})
    draw(ax, data)
    text = fingerprint(fig, **options)
    plt.close(fig)
    return text


def _line(ax, v):
    ax.plot(np.arange(v.size) / 7, v.ravel(), label="v")


def _scatter(ax, v):
    ax.scatter(np.arange(v.size), v.ravel())


def _scatter_values(ax, v):
    ax.scatter(np.arange(v.size), np.arange(v.size), c=v.ravel())


def _image(ax, v):
    ax.imshow(v)


def _mesh(ax, v):
    ax.pcolormesh(v)


def _contour(ax, v):
    ax.contour(v)


def _bars(ax, v):
    ax.bar(np.arange(v.size), v.ravel())


def _fill(ax, v):
    ax.fill_between(np.arange(v.size), v.ravel())


def _arrows(ax, v):
    ax.quiver(v, v.T[: v.shape[0], : v.shape[1]] if v.shape[0] == v.shape[1] else v)


def _segments(ax, v):
    ax.vlines(np.arange(v.size), 0, v.ravel())


def _errorbars(ax, v):
    ax.errorbar(np.arange(v.size), v.ravel(), yerr=np.abs(v.ravel()))


def _histogram(ax, v):
    ax.hist(v.ravel(), bins=[-4, -1, -0.21, 0.33, 1, 4])


def _spatial_line(ax, v):
    ax.plot(np.arange(v.size), np.arange(v.size), v.ravel())


def _spatial_scatter(ax, v):
    ax.scatter(np.arange(v.size), np.arange(v.size), v.ravel())


def _surface(ax, v):
    ax.plot_surface(*np.meshgrid(np.arange(v.shape[1]), np.arange(v.shape[0])), v)


SPATIAL = {_spatial_line, _spatial_scatter, _surface}
FLAT = {
    _line,
    _scatter,
    _scatter_values,
    _image,
    _mesh,
    _contour,
    _bars,
    _fill,
    _arrows,
    _segments,
    _errorbars,
    _histogram,
}
every = pytest.mark.parametrize("draw", sorted(FLAT | SPATIAL, key=lambda f: f.__name__))


@pytest.fixture
def data():
    return np.random.default_rng(3).normal(size=(8, 8)).cumsum(0) / 3


@every
def test_last_bits_do_not_change_it(draw, data):
    before = _print(draw, data)
    for seed in range(5):
        noise = np.random.default_rng(seed).uniform(-1, 1, data.shape)
        assert _print(draw, data * (1 + 1e-12 * noise)) == before


@every
def test_a_wrong_curve_changes_it(draw, data):
    before = _print(draw, data)
    wrong = data.copy()
    wrong[2, 3] += 0.7
    assert _print(draw, wrong) != before
    if draw is not _histogram:
        assert _print(draw, data[::-1]) != before  # the same values in another order
        assert _print(draw, data * 1.01) != before


def test_noise_of_1e_10_does_not_change_a_line(data):
    before = _print(_line, data)
    for seed in range(200):
        noise = np.random.default_rng(seed).normal(size=data.shape)
        assert _print(_line, data + 1e-10 * noise) == before


def test_a_thousandth_everywhere_changes_a_line(data):
    assert _print(
        _line, data + 1e-3 * np.ptp(data) * np.sin(np.arange(64)).reshape(8, 8)
    ) != _print(_line, data)


@pytest.mark.parametrize(
    "data",
    [
        np.linspace(0, 1, 101),
        np.linspace(-3, 3, 200) ** 2,
        np.arange(64) / 64,
        np.zeros(10),
        np.full(10, 0.5),
        np.full(10, 1.0),
        np.logspace(-12, 0, 13),
        np.array([-1.0, 1.0] * 20),
        np.repeat([0.25, 0.75], 8),
        np.sin(np.linspace(0, 2 * np.pi, 100)),
    ],
    ids=range(10),
)
def test_round_numbers_do_not_lie_on_an_edge(data):
    before = _print(_line, data)
    for seed in range(100):
        noise = np.random.default_rng(seed).uniform(-1, 1, data.shape)
        nearby = np.nextafter(data, data + noise) + 4e-16 * noise
        assert _print(_line, nearby) == before


def test_float32_results_pass_with_two_digits(data):
    before = _print(_line, data, digits=2)
    for seed in range(20):
        noise = np.random.default_rng(seed).uniform(-1, 1, data.shape)
        assert _print(_line, data * (1 + 1e-7 * noise), digits=2) == before
    wrong = data.copy()
    wrong[2, 3] += 0.7
    assert _print(_line, wrong, digits=2) != before


def test_words_scales_and_missing_curves_count():
    def drawn(change=lambda ax: None):
        fig, ax = plt.subplots()
        ax.plot([1, 2, 3], label="first")
        ax.plot([3, 1, 2], label="second")
        ax.set(title="A title", xlabel="x", ylabel="y")
        ax.legend()
        change(ax)
        text = fingerprint(fig)
        plt.close(fig)
        return text

    assert "text A title | x | y | first | second" in drawn()
    changes = [
        lambda ax: ax.set_title("Another"),
        lambda ax: ax.set_yscale("log"),
        lambda ax: ax.lines[1].set_visible(False),
        lambda ax: ax.text(0, 0, "a note"),
        lambda ax: ax.axhline(0),
    ]
    assert len({drawn(), *map(drawn, changes)}) == 1 + len(changes)


def test_missing_values_count(data):
    holed = data.copy()
    holed[0, 0] = np.nan
    assert _print(_line, holed) != _print(_line, data)
    assert "nothing finite" in _print(_line, np.full(5, np.nan))


def test_unstable_artists_count_with_their_points_only():
    def drawn(values):
        fig, ax = plt.subplots()
        ax.plot([1, 2, 3])
        (noise,) = ax.plot(values)
        text = fingerprint(fig, unstable=[noise])
        plt.close(fig)
        return text

    assert drawn([1e-16, 3e-16]) == drawn([7e-16, 2e-16])
    assert "1 of them not compared" in drawn([0, 1])
    assert drawn([0, 1, 2]) != drawn([0, 1])


def test_show_refuses_a_figure_without_words_or_data():
    fig, ax = plt.subplots()
    with pytest.raises(ValueError, match="nothing plotted"):
        show(fig, "A long enough description of nothing.")
    ax.plot([1, 2])
    with pytest.raises(ValueError, match="alt must describe"):
        show(fig, "a curve")
    plt.close(fig)


def test_show_prints_words_outside_a_notebook_and_closes_the_figure(capsys):
    fig, ax = plt.subplots()
    ax.plot([1, 2])
    show(fig, "A line that rises from one to two.")
    assert capsys.readouterr().out.startswith("Figure: A line that rises from one to two.\naxes 1")
    assert not plt.fignum_exists(fig.number)


def test_the_style_tells_curves_apart_without_colour():
    with matplotlib.rc_context():
        style.use()
        cycle = list(matplotlib.rcParams["axes.prop_cycle"])
    assert len({str(entry["linestyle"]) for entry in cycle}) == len(cycle)
    assert len({entry["color"] for entry in cycle}) == len(cycle)


def test_predict_asks_and_folds_the_answer():
    question = Prediction("Is <b> one?", ("yes", "no"), "no", "It is two.")
    html = question._repr_html_()
    assert html.count("<details>") == 2
    assert "<b> one" not in html
    assert "Answer: B. It is two." in repr(question)
    with pytest.raises(ValueError, match="not one of the options"):
        Prediction("?", ("yes", "no"), "perhaps", "")
    with pytest.raises(ValueError, match="at least two"):
        Prediction("?", ("yes",), "yes", "")


def test_a_prediction_is_found_by_its_id():
    known = predictions()["change.humps"]
    assert predict("change.humps") == known
    ask("change.humps", known.question, list(known.options), known.answer, known.why)
    with pytest.raises(ValueError, match="change.humps.*twice"):
        ask("change.humps", "?", ["yes", "no"], "no", "")
    assert "Did you mean change.humps" in str(predict("change.hump"))


def test_a_title_above_an_axis_of_fixed_aspect_is_not_cut_off(monkeypatch):
    shown = []
    shell = "IPython.core.interactiveshell.InteractiveShell.initialized"
    monkeypatch.setattr(shell, lambda: True)
    monkeypatch.setattr("IPython.display.display", lambda data, **_: shown.append(data))
    with matplotlib.rc_context():
        style.use()
        fig, axes = plt.subplots(1, 3, figsize=(8, 3.1))
        for ax in axes:
            ax.imshow(np.eye(24))
            ax.set(title="two lines\nof a title", xticks=[], yticks=[])
        show(fig, "Three matrices of ones, each below a title of two lines.")
    picture = plt.imread(io.BytesIO(shown[0]["image/png"]))[..., :3]
    edges = (picture[0], picture[-1], picture[:, 0], picture[:, -1])
    assert all((edge == 1).all() for edge in edges)


def test_no_other_thread_can_find_a_figure_while_it_is_drawn(monkeypatch):
    fig, ax = plt.subplots()
    ax.plot([1, 2])
    open_meanwhile = []
    monkeypatch.setattr(fig, "savefig", lambda *_, **__: open_meanwhile.extend(plt.get_fignums()))
    monkeypatch.setattr("IPython.core.interactiveshell.InteractiveShell.initialized", lambda: True)
    monkeypatch.setattr("IPython.display.display", lambda *_, **__: None)
    show(fig, "A line that rises from one to two.")
    assert fig.number not in open_meanwhile
