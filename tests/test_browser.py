"""What a student sees: the notebooks in JupyterLab, started by `make course`, in Chromium.

Needs Debian's `chromium` and `chromium-driver` (any Chromium or Chrome with its driver will do).
Where they are missing the tests are skipped, unless GLOW_REQUIRE_BROWSER is set, as in .ci/run:
there a missing browser is a failure. Screenshots are kept in build/browser (git-ignored), or in the
folder that GLOW_SCREENSHOTS names.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import nbformat
import pytest
from selenium.common.exceptions import StaleElementReferenceException, TimeoutException
from selenium.webdriver import ActionChains, Chrome, ChromeOptions, ChromeService, Keys
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.select import Select
from selenium.webdriver.support.wait import WebDriverWait

from tools.notebooks import FOLDER

ROOT = FOLDER.parent
SHOTS = Path(os.environ.get("GLOW_SCREENSHOTS", ROOT / "build" / "browser"))
PATIENCE = 120  # seconds for one thing to happen; a guard against hanging, not a budget
TOKEN = "a-token-for-this-test"
FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--window-size=1280,1000",
)


def _program(*names: str) -> str:
    """The first of these programs that is installed; without one, skip or fail."""
    found = next(filter(None, map(shutil.which, names)), None)
    if found is None:
        reason = f"no {names[0]} here; on Debian: apt install chromium chromium-driver"
        (pytest.fail if os.environ.get("GLOW_REQUIRE_BROWSER") else pytest.skip)(reason)
    return found


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def _environment(home: Path) -> dict[str, str]:
    """Nobody's settings, nobody's progress."""
    folders = {
        name: str(home / name.lower())
        for name in (
            "HOME",
            "IPYTHONDIR",
            "JUPYTER_CONFIG_DIR",
            "JUPYTER_DATA_DIR",
            "JUPYTER_RUNTIME_DIR",
            "MPLCONFIGDIR",
            "XDG_CONFIG_HOME",
            "XDG_CACHE_HOME",
        )
    }
    for folder in folders.values():
        Path(folder).mkdir()
    return {**os.environ, **folders, "GLOW_COURSE_PROGRESS": str(home / "progress.json")}


@pytest.fixture(scope="module")
def driver(tmp_path_factory) -> Iterator[Chrome]:
    """A browser that knows nothing yet."""
    options = ChromeOptions()
    options.binary_location = _program("chromium", "chromium-browser", "google-chrome")
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('browser')}"):
        options.add_argument(flag)
    # Named, so that selenium need not look for one, or download it.
    service = ChromeService(_program("chromedriver", "chromium.chromedriver"))
    with Chrome(options, service) as browser:
        browser.set_page_load_timeout(PATIENCE)
        yield browser


@pytest.fixture(scope="module")
def address(driver, tmp_path_factory) -> Iterator[str]:
    """JupyterLab by `make course`, on a copy of the notebooks in a folder with a space."""
    home = tmp_path_factory.mktemp("a student's home")
    shutil.copytree(FOLDER, home / "notebooks", ignore=shutil.ignore_patterns(".*", "__pycache__"))
    (home / ".venv").symlink_to(sys.prefix)  # the Makefile's own relative path, space or no space
    port = _free_port()
    options = (
        f"--no-browser --ServerApp.port={port} --ServerApp.port_retries=0 "
        f"--IdentityProvider.token={TOKEN}"
    )
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        options += " --allow-root"
    with open(home / "server.log", "w") as log:
        server = subprocess.Popen(
            [
                _program("make"),
                "-f",
                ROOT / "Makefile",
                "-o",
                ".venv/.installed",
                "course",
                f"JUPYTER={options}",
            ],
            cwd=home,
            env=_environment(home),
            start_new_session=True,
            stdout=log,
            stderr=log,
        )
    try:
        url = f"http://127.0.0.1:{port}"
        WebDriverWait(server, PATIENCE, 0.3).until(lambda s: _answers(url) or s.poll() is not None)
        assert server.poll() is None, (home / "server.log").read_text()
        yield url
    finally:
        with contextlib.suppress(ProcessLookupError):  # it never came up
            os.killpg(server.pid, signal.SIGTERM)  # its kernels end with it
        try:
            server.wait(PATIENCE)
        except subprocess.TimeoutExpired:  # how fast a server goes is not what is tested
            os.killpg(server.pid, signal.SIGKILL)


def _answers(url: str) -> bool:
    try:
        return urllib.request.urlopen(f"{url}/api/status?token={TOKEN}", timeout=5).status == 200
    except (urllib.error.URLError, OSError):
        return False


def _contents(address: str, notebook: str, new: Any = None) -> dict[str, Any]:
    """What the server has of a notebook; before it, `new` is put there."""
    request = urllib.request.Request(f"{address}/api/contents/{notebook}.ipynb?token={TOKEN}")
    if new is not None:
        request.method, request.data = "PUT", json.dumps(new).encode()
        urllib.request.urlopen(request, timeout=PATIENCE).close()
        return _contents(address, notebook)
    with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
        return json.load(answer)


class Page:
    """One notebook, open in JupyterLab."""

    def __init__(self, driver: Chrome, address: str, notebook: str) -> None:
        self.driver = driver
        driver.get(f"{address}/lab/tree/{notebook}.ipynb?token={TOKEN}&reset")
        count = len(_contents(address, notebook)["content"]["cells"])
        # JupyterLab draws cells bit by bit, and starts the kernel meanwhile.
        self.wait(lambda: len(self.all(".jp-Notebook-cell")) == count, "cells are missing")
        self.wait(
            lambda: self.all('.jp-Notebook-ExecutionIndicator[data-status="idle"]'),
            "the kernel did not start",
        )

    def wait(self, condition: Callable[[], Any], otherwise: str) -> Any:
        """Until it holds; what JupyterLab redraws while we look counts as not yet."""
        wait = WebDriverWait(self.driver, PATIENCE, 0.2, [StaleElementReferenceException])
        try:
            return wait.until(lambda _: condition(), otherwise)
        except TimeoutException:
            self.shot("failed")
            raise

    def all(self, selector: str, within: WebElement | None = None) -> list[WebElement]:
        return (within or self.driver).find_elements("css selector", selector)

    def menu(self, name: str, entry: str) -> None:
        """Choose an entry of a menu, by mouse."""
        bar = self.wait(
            lambda: [e for e in self.all(".lm-MenuBar-item") if e.text == name], f"no menu {name}"
        )
        bar[0].click()
        items = self.wait(
            lambda: [e for e in self.all(".lm-Menu-item") if e.text.split("\n")[0] == entry],
            f"no {entry} under {name}",
        )
        items[0].click()

    def prompts(self) -> list[str]:
        return self.driver.execute_script(
            "return [...document.querySelectorAll('.jp-CodeCell .jp-InputPrompt')]"
            ".map(e => e.textContent.trim())"
        )

    def run_all(self) -> None:
        """Forget the stored outputs, run all cells, wait for the last."""
        self.menu("Edit", "Clear Outputs of All Cells")
        self.wait(lambda: set(self.prompts()) == {"[ ]:"}, "outputs were not cleared")
        self.menu("Run", "Run All Cells")
        done = [f"[{k}]:" for k in range(1, len(self.prompts()) + 1)]
        self.wait(lambda: self.prompts() == done, "not all cells ran")

    def cell(self, text: str) -> WebElement:
        """The code cell whose source holds `text`, scrolled into view."""
        (found,) = [
            c
            for c in self.all(".jp-CodeCell")
            if text in self.all(".jp-InputArea-editor", c)[0].get_attribute("textContent")
        ]
        self.show(found)
        return found

    def show(self, element: WebElement) -> None:
        self.driver.execute_script("arguments[0].scrollIntoView({block: 'center'})", element)

    def run(self, cell: WebElement, line: str) -> str:
        """Type over the line of `cell` that begins like `line`, run the cell; its output."""
        start = line.split("=")[0]
        (old,) = self.wait(
            lambda: [e for e in self.all(".cm-line", cell) if e.text.startswith(start)],
            f"no line {start}",
        )
        before = self.prompt(cell)
        old.click()
        keys = ActionChains(self.driver)
        keys.send_keys(Keys.HOME).key_down(Keys.SHIFT).send_keys(Keys.END).key_up(Keys.SHIFT)
        keys.send_keys(line).key_down(Keys.CONTROL).send_keys(Keys.ENTER).key_up(Keys.CONTROL)
        keys.perform()
        self.wait(lambda: self.prompt(cell) not in (before, "[*]:"), "the cell did not run")
        said = self.wait(lambda: self.output(cell), "the cell says nothing")
        self.show(cell)
        return said

    def prompt(self, cell: WebElement) -> str:
        return self.all(".jp-InputPrompt", cell)[0].get_attribute("textContent").strip()

    def output(self, cell: WebElement) -> str:
        return "\n".join(e.text for e in self.all(".jp-OutputArea-output", cell))

    def sideways(self) -> list[str]:
        """What one would have to scroll sideways to read."""
        return self.driver.execute_script(
            "return [...document.querySelectorAll('.cm-scroller, .jp-OutputArea-output')]"
            ".filter(e => e.scrollWidth > e.clientWidth + 2).map(e => e.textContent)"
        )

    def shot(self, name: str) -> None:
        SHOTS.mkdir(parents=True, exist_ok=True)
        assert self.driver.save_screenshot(str(SHOTS / f"{name}.png"))


def test_a_notebook_runs_its_slider_moves_and_its_formula_is_graded(driver, address):
    page = Page(driver, address, "05_invertible_1x1_conv")
    page.shot("05-opened")
    page.run_all()
    assert page.all(".jp-OutputArea-output[data-mime-type='application/vnd.jupyter.stderr']") == []
    assert page.all(".jp-RenderedHTMLCommon mjx-container"), "no formula was rendered"
    assert page.sideways() == []

    cell = page.cell("FloatSlider")
    (handle,), (readout,) = page.all(".noUi-handle", cell), page.all(".widget-readout", cell)
    page.show(handle)
    start = readout.text
    for move in (
        lambda: ActionChains(driver).drag_and_drop_by_offset(handle, -40, 0).perform(),
        lambda: handle.send_keys(Keys.ARROW_RIGHT),
    ):  # by mouse, then by keyboard
        before = readout.text
        move()
        page.wait(lambda: readout.text != before, "the slider did not move")  # noqa: B023
        # The picture follows: its words name the value that the slider shows.
        page.wait(
            lambda: [  # none while the picture is drawn anew
                words
                for words in page.all("details", cell)[-1:]
                if f"W({float(readout.text.replace('−', '-')):g})"
                in words.get_attribute("textContent")
            ],
            "a stale picture",
        )
    assert readout.text != start
    page.shot("05-slider")

    cell = page.cell('formula = r""')
    said = page.run(cell, 'formula = "log|det W|"')
    assert "Not yet" in said and "h·w is missing" in said
    page.shot("05-formula-wrong")
    assert "Right" in page.run(cell, 'formula = "h w log|det W|"')
    page.shot("05-formula-right")


def test_question_1_is_answered_wrong_and_right(driver, address):
    page = Page(driver, address, "11_questions")
    page.run_all()
    assert page.sideways() == []
    cell = page.cell('QuestionPanel("1")')
    page.wait(lambda: page.all("input[type=text]", cell), "no panel")
    (formula,), (words,) = page.all("input[type=text]", cell), page.all("textarea", cell)
    (button,), (result,) = page.all("button", cell), page.all(".widget-html-content", cell)
    page.show(button)
    Select(page.all("select", cell)[0]).select_by_visible_text("conv1x1")

    formula.send_keys("log|det W|")
    button.click()
    page.wait(lambda: "Not yet. h·w is missing" in result.text, "the wrong answer is not refused")
    page.shot("11-question-1-wrong")

    formula.clear()
    formula.send_keys(r"h \cdot w \cdot \log|\det W|")
    words.send_keys("Логарифм модуля определителя якобиана: во сколько раз меняется объём.")
    button.click()
    page.wait(lambda: "Right" in result.text, "the right answer is not accepted")
    page.show(result)
    page.shot("11-question-1-right")
    page.cell("scorecard()")
    page.shot("11-scorecard")


SLIDERS = """
import course, glowlite, torch
from course.sliders import EditPanel, TemperaturePanel, WalkPanel
from glowlite.data import make_faces
from glowlite.evaluate import to_tensor

images = to_tensor(make_faces(32, 16)[0])
model = glowlite.Glow(shape=(3, 16, 16), levels=1, depth=1, width=4, n_bits=5)
model.initialize(images)
vector = [torch.full(shape, 0.5) for shape in model.latent_shapes]
display(TemperaturePanel(model, n=2))
display(WalkPanel(model, images[:1], images[1:2]))
display(EditPanel(model, images[:2], {"smiling": vector}))
"""


def test_the_sliders_of_notebook_10_move_by_keyboard_and_say_what_they_show(driver, address):
    """On a small model: notebook 10 itself takes minutes, and files that are not beside it."""
    book = nbformat.read(FOLDER / "10_experiments.ipynb", as_version=4)
    book.cells = [nbformat.v4.new_code_cell(SLIDERS.strip())]
    _contents(address, "sliders", {"type": "notebook", "content": book})
    page = Page(driver, address, "sliders")
    page.run_all()
    (cell,) = page.all(".jp-CodeCell")
    page.wait(lambda: len(page.all(".noUi-handle", cell)) == 3, "three sliders are wanted")
    for k, words in enumerate(("samples at temperature 0.75", "55% of the way", "strength 0.25")):
        handle = page.all(".noUi-handle", cell)[k]
        page.show(handle)
        handle.send_keys(Keys.ARROW_RIGHT)
        page.wait(lambda: words in cell.text, f"the picture's words are not {words}")  # noqa: B023
    drawn = "return [...arguments[0].querySelectorAll('img')].map(e => e.naturalWidth > 0)"
    page.wait(lambda: driver.execute_script(drawn, cell) == [True] * 3, "three pictures are wanted")
    page.shot("10-sliders")
