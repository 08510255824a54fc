"""How the packages and the tests are laid out: sizes of rooms, and tests that share no test module.

Which room may import which is in setup.cfg.
"""

from __future__ import annotations

import ast
import pkgutil
import re
from collections import Counter

import pytest

import cache
import pipeline
import stages
from tests.support import REPOSITORY, SOURCES

TESTS = sorted((REPOSITORY / "tests").rglob("test_*.py"))


def test_the_sources_are_all_modules_that_python_finds() -> None:
    """What walks the sources, here and in other tests, sees every module, in rooms of rooms too."""
    found = {path.relative_to(REPOSITORY).with_suffix("").as_posix().replace("/", ".") for path in SOURCES}
    importable = {"cache.__init__", "stages.__init__", "pipeline.__init__"}
    for package in (cache, stages, pipeline):
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            importable.add(f"{module.name}.__init__" if module.ispkg else module.name)
    assert found == importable
    assert len(found) > 120


def test_rooms_and_modules_stay_small_enough_to_be_seen_at_once() -> None:
    lines = {str(path.relative_to(REPOSITORY)): len(path.read_text().splitlines()) for path in SOURCES}
    assert {name: length for name, length in lines.items() if length > 300} == {}
    rooms = Counter(path.parent.relative_to(REPOSITORY).as_posix() for path in SOURCES if path.name != "__init__.py")
    assert {room: modules for room, modules in rooms.items() if modules > 14} == {}


def test_each_module_and_room_says_what_it_owns() -> None:
    silent = [str(path) for path in SOURCES if not ast.get_docstring(ast.parse(path.read_text()))]
    assert silent == []


def test_no_test_module_imports_another() -> None:
    """What several need is in conftest.py or tests/support. Programs in strings, for other processes, count too."""
    names = {path.stem for path in TESTS}
    assert len(names) > 80
    found = [(path.stem, name) for path in TESTS for name in _imported(path.read_text()) if name in names]
    assert found == []


def _imported(source: str) -> set[str]:
    """All words of import statements, wherever they stand."""
    statements = re.findall(r"^\s*((?:from|import) (?:[^\n(]*\([^)]*\)|[^\n]*))", source, re.MULTILINE)
    return {word for statement in statements for word in re.findall(r"\w+", statement)}


@pytest.mark.parametrize(
    "source",
    [
        "from tests.data import test_a", "import tests.data.test_a as a", "def f():\n    from .test_a import b",
        'program = f"""\nfrom tests.test_a import b\nx = {1}"""', "from tests import (\n    conftest,\n    test_a,\n)",
    ],
)  # fmt: skip
def test_the_search_sees_an_import_wherever_it_stands(source: str) -> None:
    assert "test_a" in _imported(source)
