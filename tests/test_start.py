"""A notebook started in the wrong place says what to do."""

import subprocess
import sys

import pytest

from tools.notebooks import FOLDER


def _import(setup: str) -> str:
    """What `import course` says after `setup`, with no packages but Python's own."""
    script = f"import sys; sys.path.insert(0, {str(FOLDER)!r}); {setup}\nimport course"
    done = subprocess.run([sys.executable, "-S", "-c", script], text=True, capture_output=True)
    assert done.returncode == 1
    return done.stderr.splitlines()[-1]


def test_without_the_packages_it_names_the_first_and_the_cure():
    said = _import("")
    assert said.startswith("ImportError: This Python has no package 'numpy'")
    assert "make course" in said


@pytest.mark.parametrize("version", [(3, 9), (3, 10)])
def test_an_old_python_is_named(version):
    said = _import(f"sys.version_info = {version}; sys.version = '{version[0]}.{version[1]}.1 (x)'")
    assert f"needs Python 3.11 or newer; this is Python {version[0]}.{version[1]}.1" in said
    assert "make course" in said
