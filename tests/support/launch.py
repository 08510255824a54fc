"""Runs the `pipeline` command in a process of its own, watched: python -m tests.support.launch WORDS...

Environment: FAKE=1 puts the numpy base in TensorFlow's place. HIDE=a,b makes packages unfindable. HOMELESS=1 is a user
whom the system does not know, as in a container. WATCH=FILE lists there, one JSON array a line, every path opened and,
at the end, which of the heavy packages were imported.
"""

from __future__ import annotations

import importlib.machinery
import json
import os
import pwd
import sys
from typing import Any

HEAVY = ("tensorflow", "keras", "distributed", "sklearn")


def hide(names: set[str]) -> None:
    find_spec = importlib.machinery.PathFinder.find_spec

    def blind(fullname: str, *rest: Any) -> Any:
        return None if fullname.partition(".")[0] in names else find_spec(fullname, *rest)

    importlib.machinery.PathFinder.find_spec = blind  # type: ignore[assignment,method-assign]


def watch(path: str) -> Any:
    log = open(path, "w", buffering=1)  # noqa: SIM115 (it must outlive this function)

    def note(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open" and isinstance(arguments[0], str | bytes):
            log.write(json.dumps(["open", os.fsdecode(arguments[0])]) + "\n")

    sys.addaudithook(note)
    return log


def forget_home() -> None:
    for name in [name for name in os.environ if name == "HOME" or name.startswith("XDG_")]:
        del os.environ[name]

    def unknown(uid: int) -> None:
        raise KeyError(f"getpwuid(): uid not found: {uid}")

    pwd.getpwuid = unknown  # type: ignore[assignment]


def fake() -> None:
    from stages.extract import opened_bases
    from tests.support import fakes

    opened_bases.open_embed = fakes.FakeEmbed  # type: ignore[assignment]


def main() -> None:
    if os.environ.get("HOMELESS"):
        forget_home()
    hide(set(filter(None, os.environ.get("HIDE", "").split(","))))
    log = watch(os.environ["WATCH"]) if "WATCH" in os.environ else None
    if os.environ.get("FAKE"):
        fake()
    from pipeline.cli.main import main as pipeline

    try:
        pipeline(prog_name="pipeline")
    finally:
        if log is not None:
            log.write(json.dumps(["imported", *(name for name in HEAVY if name in sys.modules)]) + "\n")


if __name__ == "__main__":
    main()
