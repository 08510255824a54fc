"""source_digest.py: the same for the same source wherever it lies, another for any change of it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from stages.extract.source_digest import source_digest
from tests.support import source_tree


def digest_in(folder: Path) -> str:
    """What a process finds whose packages lie in `folder`."""
    program = "from stages.extract.source_digest import source_digest; print(source_digest())"
    return subprocess.run(
        [sys.executable, "-c", program], cwd=folder, capture_output=True, text=True, check=True
    ).stdout


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return source_tree.copy_to(tmp_path_factory.mktemp("copy"))


def test_a_copy_has_the_digest_of_the_original_and_compiled_files_do_not_count(copy: Path) -> None:
    assert digest_in(copy) == f"{source_digest()}\n"
    assert list(copy.rglob("*.pyc")) or sys.flags.dont_write_bytecode
    assert digest_in(copy) == f"{source_digest()}\n"


@pytest.mark.parametrize("name", ["pipeline/cli/main.py", "stages/data/images.py", "cache/keys.py", "stages/new.json"])
def test_a_change_of_any_file_gives_another_digest(copy: Path, name: str) -> None:
    path = copy / name
    before = path.read_bytes() if path.exists() else None
    path.write_bytes((before or b"") + b"\n# another\n")
    try:
        assert digest_in(copy) != f"{source_digest()}\n"
    finally:
        path.unlink()
        if before is not None:
            path.write_bytes(before)
