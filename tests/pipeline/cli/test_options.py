"""options.py and __main__.py: what stops a command is one true sentence."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import IO

import pytest

from pipeline.cli.options import report_errors
from tests.support import REPOSITORY

UNNAMED = "an open file or a connection"


def said(*words: str, cwd: Path, stdout: IO[str] | int = subprocess.DEVNULL, **environment: str) -> str:
    """What a command that fails says on stderr."""
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), **environment}
    command = [sys.executable, "-m", "pipeline", *words]
    done = subprocess.run(command, cwd=cwd, env=environment, stdout=stdout, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    return done.stderr


@pytest.mark.parametrize("words", [("bases",), ("bases", "--json"), ("models",)], ids=" ".join)
def test_an_output_that_takes_nothing_is_said_in_a_sentence(tmp_path: Path, words: tuple[str, ...]) -> None:
    (tmp_path / "models").mkdir()
    with open("/dev/full", "w") as full:
        err = said(*words, cwd=tmp_path, stdout=full)
    assert re.match(r"Error: standard output( cannot be written)?: No space left on device\n", err)


def test_what_fails_while_something_is_printed_is_not_blamed_on_the_output(tmp_path: Path) -> None:
    """The weights of a base are looked up between its lines."""
    err = said("bases", "resnet50", cwd=tmp_path, KERAS_HOME=f"/{'n' * 300}")
    assert re.match(r"Error: /n{300}/models/resnet50\S+: File name too long\n  check the path", err)


def _refused() -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))  # and does not listen
        socket.create_connection(nobody.getsockname())


@pytest.mark.parametrize(
    ("work", "message", "hint"),
    [
        (_refused, f"{UNNAMED}: Connection refused", "-v shows"),
        (lambda: Path("/dev/full").write_bytes(b"x"), f"{UNNAMED}: No space left on device", "-v shows"),
        (lambda: Path("/nowhere/file").read_bytes(), "/nowhere/file: No such file or directory", "check the path"),
    ],
)
def test_what_the_system_refuses_is_called_what_it_is(work: Callable[[], object], message: str, hint: str) -> None:
    _, error = report_errors(work)
    assert error is not None
    assert error.message == message
    assert error.hint.startswith(hint)


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_standard_streams_are_no_failure(tmp_path: Path, closed: str) -> None:
    command = f"{sys.executable} -m pipeline bases {closed}"
    done = subprocess.run(["sh", "-c", command], cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(REPOSITORY)})
    assert done.returncode == 0
