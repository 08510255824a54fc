"""Owns how the command starts: Ctrl-C during the imports is no traceback. The command itself is cli.py."""

from __future__ import annotations

import sys


def main() -> None:
    try:
        from pipeline.cli import main as command

        command(prog_name="pipeline")
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
