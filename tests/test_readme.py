"""The code in README.md runs as it stands, and prints what stands below it."""

import re
from pathlib import Path

import pytest

README = (Path(__file__).parents[1] / "README.md").read_text()
BLOCK = re.compile(r"^```python\n(.*?)^```\n(?:\n```\n(.*?)^```\n)?", re.M | re.S)
BLOCKS = BLOCK.findall(README)
SHAPE = re.compile(r"^(\S.*?)  # (\(\d.*\))$", re.M)  # expression  # (64,)


@pytest.mark.parametrize(("code", "printed"), BLOCKS)
def test_every_block_runs_and_gives_what_it_says(code, printed, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    room: dict = {}
    exec(code, room)
    said = capsys.readouterr().out.splitlines()
    for line in printed.splitlines():  # in this order; "…" stands for lines left out
        if line.strip() != "…":
            assert line in said
            said = said[said.index(line) + 1 :]
    for expression, shape in SHAPE.findall(code):
        assert str(tuple(eval(expression, room).shape)) == shape


def test_the_layer_of_the_readme_passes_when_multiplied_by_h_and_w(capsys):
    code = next(code for code, _ in BLOCKS if "reference.check" in code)
    mended = code.replace("np.log(np.abs(s)).sum()", "35 * np.log(np.abs(s)).sum()")
    assert mended != code
    exec(mended, {})
    assert "✓ all agrees" in capsys.readouterr().out


def test_nothing_was_overlooked():
    assert len(BLOCKS) == README.count("```python") >= 2
    assert any("✗ wrong" in printed for _, printed in BLOCKS)
    assert any(SHAPE.search(code) for code, _ in BLOCKS)
