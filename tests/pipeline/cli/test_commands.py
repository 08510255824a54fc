"""main.py: the list of commands says what they say themselves, and knows them all."""

from __future__ import annotations

import subprocess
import sys

import pytest

from pipeline.cli import main
from tests.support import REPOSITORY


@pytest.mark.parametrize("name", main.COMMANDS)
def test_the_summary_begins_the_help_of_the_command(name: str) -> None:
    command = main.load_command(name)
    assert command.name == name
    assert " ".join((command.help or "").split()).startswith(" ".join(main.summary(name).split()))


def test_every_command_is_in_the_list() -> None:
    written = [
        line.split('"')[1]
        for path in (REPOSITORY / "pipeline" / "cli").glob("*.py")
        for line in path.read_text().splitlines()
        if line.startswith(("@click.command(", '@click.group("'))
    ]
    assert sorted(written) == sorted(main.COMMANDS)


@pytest.mark.parametrize("words", [["--help"], ["--version"]])
def test_help_and_version_import_no_command(words: list[str]) -> None:
    program = f"""
import sys
from pipeline.cli.main import main
try:
    main({words!r})
finally:
    rooms = sorted(name for name in sys.modules if name.split(".")[0] in ("pipeline", "stages", "cache"))
    allowed = {{"pipeline", "pipeline.cli", "pipeline.cli.main", "stages", "stages.runtime", "stages.runtime.suggest"}}
    assert set(rooms) == allowed, rooms
    assert "numpy" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", program], check=True, cwd=REPOSITORY)


def test_a_command_that_is_nearly_one_is_suggested() -> None:
    done = subprocess.run([sys.executable, "-m", "pipeline", "staus"], capture_output=True, text=True, cwd=REPOSITORY)
    assert (done.returncode, "did you mean status?" in done.stderr) == (2, True)
