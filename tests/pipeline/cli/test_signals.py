"""signals.py: a process that C code keeps busy still ends."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time

import pytest

BUSY = """
import hashlib, signal, sys
from pipeline.cli import signals
signals.GRACE_S = 1.0
signals.exit_when_stuck()
signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
print("ready", flush=True)
hashlib.pbkdf2_hmac("sha256", b"", b"", 1_000_000_000)
"""


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.parametrize("words", [["run"], ["run", "--json"]])
def test_a_process_in_c_code_ends_after_a_while(number: signal.Signals, code: int, words: list[str]) -> None:
    process = subprocess.Popen([sys.executable, "-c", BUSY, *words], stdout=-1, stderr=-1, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    time.sleep(0.5)
    started = time.monotonic()
    process.send_signal(number)
    out, err = process.communicate(timeout=10)
    assert (process.returncode, time.monotonic() - started < 8) == (code, True)
    message = "interrupted; still busy after 1 s, so what was in flight is lost; finished work is kept"
    if "--json" in words:
        assert json.loads(out) == {
            "schema_version": 1, "command": "run", "exit_code": code,
            "error": {"code": "interrupted", "message": message, "hint": ""},
        }  # fmt: skip
    else:
        assert (out, err) == ("", f"Error: {message}\n")


def test_the_command_is_watched_so() -> None:
    script = BUSY.split("signals.exit")[0] + (
        "from stages.data import scan\n"
        "scan.scan_folders = lambda *_: hashlib.pbkdf2_hmac('sha256', b'', b'', 1_000_000_000)\n"
        "from pipeline.__main__ import main\nprint('ready', flush=True)\nmain()\n"
    )
    words = ["init", "--images", "."]
    process = subprocess.Popen([sys.executable, "-c", script, *words], stdout=-1, stderr=-1, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    time.sleep(3)
    process.send_signal(signal.SIGTERM)
    assert "still busy after 1 s" in process.communicate(timeout=10)[1]
    assert process.returncode == 143
