"""Starts the `pipeline` command in a process of its own (launch.py), and reads what a watched one did."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

from tests.support import REPOSITORY


def start(*words: str | Path, cwd: Path = REPOSITORY, **environment: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tests.support.launch", *map(str, words)]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "FAKE": "1", **environment}
    return subprocess.Popen(
        command, cwd=cwd, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        start_new_session=True,
    )  # fmt: skip


def run(*words: str | Path, expect: int = 0, cwd: Path = REPOSITORY, **environment: str) -> tuple[str, str]:
    process = start(*words, cwd=cwd, **environment)
    out, err = process.communicate(timeout=120)
    assert process.returncode == expect, out + err
    assert "Traceback" not in err
    return out, err


def events(path: Path) -> list[list[str]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def wait_for_shards(config: Path, n: int) -> None:
    deadline = time.time() + 60
    while len(list((config.parent / ".features").glob("features/*/shards/*.json"))) < n:
        assert time.time() < deadline
        time.sleep(0.02)
