"""How the packages and the tests are laid out. Not what import-linter checks (the contracts in setup.cfg)."""

from __future__ import annotations

import re

import pytest

from tests.support import REPOSITORY

TESTS = sorted((REPOSITORY / "tests").rglob("test_*.py"))


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
