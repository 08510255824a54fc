"""Every fsync, rename and check of the cache is needed: without it, the durability tests fail."""

from __future__ import annotations

import ast
import os
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support import REPOSITORY

MODULES = sorted(path.stem for path in (REPOSITORY / "cache").glob("*.py") if path.stem not in ("__init__", "errors"))
"""All but errors, which decides nothing."""

STEPS = (
    "fsync", "unlink", "remove", "sync_folder", "replace", "store_content", "publish", "publish_folder", "make_folder",
    "quarantine", "note_use", "remember",
)  # fmt: skip
EQUIVALENT = {
    ("keys", "type(item) is str", "False"): "a text that is looked at by a call of its own has the same form, later",
    ("hash_index", "len(to_hash) > 1", "True"): "one file in a thread has the same digest, later",
    ("hash_index", "len(to_hash) > 1", "False"): "files one after the other have the same digests, later",
}
"""(module, code, instead) -> why no test can tell the difference."""


@dataclass(frozen=True)
class Mutant:
    """`module` with the node at a line and column replaced: a statement removed, a comparison decided."""

    module: str
    line: int
    column: int
    code: str
    instead: str

    def __str__(self) -> str:
        return f"{self.module}.py:{self.line}:{self.column} {self.code} -> {self.instead}"

    def source(self) -> str:
        """What the module reads like."""
        tree = ast.parse((REPOSITORY / "cache" / f"{self.module}.py").read_text())
        return ast.unparse(ast.fix_missing_locations(_Replace(self).visit(tree)))


class _Replace(ast.NodeTransformer):
    def __init__(self, mutant: Mutant) -> None:
        self.mutant = mutant

    def visit(self, node: ast.AST) -> ast.AST:
        place = (getattr(node, "lineno", 0), getattr(node, "col_offset", 0))
        if place == (self.mutant.line, self.mutant.column):
            if self.mutant.instead == "pass" and isinstance(node, ast.Expr):
                return ast.Pass()
            if self.mutant.instead != "pass" and isinstance(node, ast.Compare):
                return ast.parse(self.mutant.instead, mode="eval").body
        return self.generic_visit(node)


def mutants() -> Iterator[Mutant]:
    """Each statement that syncs, renames, publishes or notes is removed; each comparison is made true, and false."""
    for module in MODULES:
        for node in ast.walk(ast.parse((REPOSITORY / "cache" / f"{module}.py").read_text())):
            if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
                if ast.unparse(node.value.func).rpartition(".")[2] in STEPS:
                    yield Mutant(module, node.lineno, node.col_offset, ast.unparse(node), "pass")
            elif isinstance(node, ast.Compare):
                yield Mutant(module, node.lineno, node.col_offset, ast.unparse(node), "True")
                yield Mutant(module, node.lineno, node.col_offset, ast.unparse(node), "False")


def noticing_tests(mutant: Mutant | None) -> list[list[str]]:
    """Paths of the tests that may notice it: those of its own module, which mostly do, then the others."""
    paths = sorted(str(path.relative_to(REPOSITORY)) for path in (REPOSITORY / "tests" / "cache").glob("test_*.py"))
    paths.remove("tests/cache/test_mutations.py")
    own = [path for path in paths if mutant is not None and path == f"tests/cache/test_{mutant.module}.py"]
    return [part for part in (own, [path for path in paths if path not in own]) if part]


def survives(folder: Path, mutant: Mutant | None, source: str = "") -> tuple[bool, str]:
    """Whether the tests of the cache pass on a copy of the package with that source, and what pytest printed."""
    shutil.copytree(REPOSITORY / "cache", folder / "cache", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(REPOSITORY / "tests", folder / "tests", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(REPOSITORY / "setup.cfg", folder)
    if mutant is not None:
        (folder / "cache" / f"{mutant.module}.py").write_text(source)
    words = ["-x", "--tb=line", "--timeout=60", "--scale=0.02", f"--basetemp={folder}/tmp", "-pno:cacheprovider"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(folder), str(REPOSITORY)])}
    for paths in noticing_tests(mutant):
        command = [sys.executable, "-m", "pytest", *words, *paths]
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
        if done.returncode != 0:
            break
    shutil.rmtree(folder)
    failed_by_itself = done.returncode == 1 and "\nFAILED " in done.stdout
    assert done.returncode == 0 or failed_by_itself, f"{mutant}: no test ran: {done.stdout}{done.stderr}"
    return done.returncode == 0, done.stdout


@pytest.mark.timeout(1500)
def test_no_step_of_the_protocol_can_be_left_out(fast_path: Path, scale: float, tally: Counter[str]) -> None:
    everyone = [mutant for mutant in mutants() if (mutant.module, mutant.code, mutant.instead) not in EQUIVALENT]
    chosen = everyone[:: max(1, round(2 / scale) - 1)]  # each takes seconds: all at scale 1, every 49th at 0.04
    sources = [mutant.source() for mutant in chosen]  # here: in two threads, ast.parse of Python 3.11 fails
    folders = [fast_path / str(number) for number in range(len(chosen))]
    with ThreadPoolExecutor(os.cpu_count()) as threads:
        results = list(threads.map(survives, folders, chosen, sources))
    survivors = [str(mutant) for mutant, (passed, _) in zip(chosen, results, strict=True) if passed]
    tally["mutants"] += len(chosen)
    assert survivors == []
    assert {mutant.module for mutant in mutants()} == {*MODULES}
    assert len(everyone) > 150


def test_each_mutant_that_is_left_out_is_one() -> None:
    assert {*EQUIVALENT} <= {(mutant.module, mutant.code, mutant.instead) for mutant in mutants()}


def test_the_cache_as_it_is_survives(fast_path: Path) -> None:
    passed, output = survives(fast_path / "copy", None)
    assert passed, output
