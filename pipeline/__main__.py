"""Owns how the command starts and ends: no traceback for Ctrl-C during the imports, nor for an output that is full.

The command itself is main.py.
"""

from __future__ import annotations

import gc
import sys


def main() -> None:
    gc.set_threshold(100_000, 20, 100)  # many rows and no cycles: looking for them took a tenth of a run over 100,000
    try:
        from pipeline.cli.main import main as command

        command(prog_name="pipeline")
    except KeyboardInterrupt:
        sys.exit(130)
    except OSError as error:  # what commands do is guarded; what they print, and look up for that, is not
        where = error.filename or "standard output cannot be written"
        sys.exit(f"Error: {where}: {error.strerror or error}")
    finally:
        gc.freeze()  # to look through all there is once more, at the very end, took a tenth of a second


if __name__ == "__main__":
    main()
