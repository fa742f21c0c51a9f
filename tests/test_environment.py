"""The files that say what to install agree with each other."""

from __future__ import annotations

import tomllib
from importlib import metadata
from pathlib import Path

import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def direct_requirements() -> list[Requirement]:
    extras = PROJECT["optional-dependencies"].values()
    return [Requirement(r) for group in (PROJECT["dependencies"], *extras) for r in group]


def pins() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text().split()
    return {canonicalize_name(name): version for name, version in (p.split("==") for p in lines)}


def test_every_dependency_is_pinned_within_its_range():
    pinned = pins()
    for requirement in direct_requirements():
        version = pinned[canonicalize_name(requirement.name)]
        assert version in requirement.specifier, f"{requirement} but constraints.txt has {version}"


def test_every_pinned_version_takes_every_python_that_is_claimed():
    """Debian 12 has Python 3.11.2: a pin that asks for 3.11.5 stops `make env` there."""
    claimed = [f"3.{minor}.0" for minor in range(9, 20)]
    claimed = list(SpecifierSet(PROJECT["requires-python"]).filter(claimed))
    assert claimed[0] == "3.11.0"
    for name, version in pins().items():
        try:
            if metadata.version(name) != version:  # somebody tries another
                continue
            wanted = metadata.metadata(name)["Requires-Python"] or ""
        except metadata.PackageNotFoundError:  # of an extra that the tests do without
            continue
        assert list(SpecifierSet(wanted).filter(claimed)) == claimed, f"{name} needs {wanted}"


def test_conda_installs_the_same_python_extras_and_constraints():
    dependencies = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    assert f"python{PROJECT['requires-python']}" in dependencies
    (pip,) = [d["pip"] for d in dependencies if isinstance(d, dict)]
    makefile = (ROOT / "Makefile").read_text()
    constraint, editable = pip
    assert constraint == "-c constraints.txt" and constraint in makefile
    assert editable.removeprefix("-e ") in makefile
    wanted = editable.split("[")[1].strip("]").split(",")
    assert set(wanted) <= set(PROJECT["optional-dependencies"])


def test_ci_runs_what_the_readme_says():
    assert "make test" in (ROOT / ".ci" / "run").read_text().splitlines()
    readme = (ROOT / "README.md").read_text()
    assert "make test" in readme and "make course" in readme


def test_the_reference_never_imports_torch():
    import subprocess
    import sys

    code = "import reference, sys; sys.exit('torch' in sys.modules or 'glowlite' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
