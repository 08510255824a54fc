"""Owns start and end of the command: no traceback for Ctrl-C during imports or a full output. Not the commands."""

import gc
import os
import sys

from pipeline.cli import signals


def main() -> None:
    gc.set_threshold(100_000, 20, 100)  # the default costs a tenth of a run over 100,000 rows
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:  # it is closed: the next file that is opened must not take its place
            setattr(sys, name, open(os.devnull, mode))  # noqa: SIM115 (it stays open)
    signals.exit_when_stuck()
    try:
        from pipeline.cli.main import main as command

        command(prog_name="pipeline")
    except KeyboardInterrupt:
        sys.exit(130)
    except OSError as error:  # commands catch their own; this is from printing
        where = error.filename or "standard output cannot be written"
        sys.exit(f"Error: {where}: {error.strerror or error}")
    finally:
        gc.freeze()  # saves the collection at exit, a tenth of a second


if __name__ == "__main__":
    main()
