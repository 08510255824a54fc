"""Owns calling a function in a process of its own, with limits on memory and time. Not what is called.

For libraries that read files which others made: what crashes, hangs or fills the memory there does so alone.
"""

import importlib
import json
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

from cache.errors import NotAvailable, PipelineError, Unusable

_ERRORS: dict[str, type[PipelineError]] = {kind.__name__: kind for kind in (PipelineError, Unusable, NotAvailable)}
_NO_MEMORY = 12
"""Exit status of a child that met its limit and said so."""


class Limits(NamedTuple):
    """Of the child: bytes of address space, and seconds on the clock; None for no limit."""

    memory: int | None
    seconds: float | None


class Exceeded(Exception):
    """The child crashed, or met a limit; the text says which, as what the function did."""


def call(function: str, arguments: Mapping[str, Any], limits: Limits, tell: Callable[[str], None] | None = None) -> Any:
    """What `module:function` returns for those arguments; they and it are JSON.

    Raises the PipelineError that it raises, and Exceeded where the process crashed or met a limit. With `tell`, limits
    stop nothing: it gets what the Exceeded would say, the time's as soon as it is up.
    """
    packages = {"PYTHONPATH": os.pathsep.join(folder or os.getcwd() for folder in sys.path)}  # as in this process
    job = json.dumps({"function": function, "arguments": arguments, "memory": None if tell else limits.memory})
    with subprocess.Popen(
        [sys.executable, "-P", "-m", __name__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        env=os.environ | packages, start_new_session=True,
    ) as process:  # fmt: skip
        try:
            output, log = process.communicate(job.encode(), limits.seconds)
        except subprocess.TimeoutExpired as error:
            if tell is None:
                raise Exceeded(_took(limits)) from error
            tell(_took(limits))
            output, log = process.communicate()
        finally:
            if process.poll() is None:
                process.kill()
        if process.returncode == _NO_MEMORY:
            raise Exceeded("needed more memory than there is" if tell else _needed(limits))
        if process.returncode < 0:
            raise Exceeded(f"crashed ({signal.Signals(-process.returncode).name})")
        if process.returncode:
            lines = log.decode(errors="replace").strip().splitlines() or ["it ended without a message"]
            raise Exceeded(f"failed: {lines[-1][:300]}")
    found = json.loads(output)
    if "error" in found:
        raise _ERRORS[found["error"]](found["message"], found["hint"])
    if tell is not None and limits.memory is not None and found["peak"] > limits.memory:
        tell(_needed(limits))
    return found["result"]


def _took(limits: Limits) -> str:
    return f"took more than {limits.seconds:.0f} s"


def _needed(limits: Limits) -> str:
    return f"needed more than {(limits.memory or 0) / 1e9:.0f} GB of memory"


def _peak() -> int:
    """The most bytes of address space that this process had, which is what the limit is of; 0 where that is unknown."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return 0
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith("VmPeak:")), 0)


def _main() -> NoReturn:
    job = json.load(sys.stdin)
    output, sys.stdout = sys.stdout, sys.stderr  # what a library prints is no answer
    if job["memory"] is not None:
        hard = resource.getrlimit(resource.RLIMIT_AS)[1]
        most = job["memory"] if hard == resource.RLIM_INFINITY else min(job["memory"], hard)
        resource.setrlimit(resource.RLIMIT_AS, (most, most))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    module, _, name = job["function"].partition(":")
    try:
        found = {"result": getattr(importlib.import_module(module), name)(**job["arguments"]), "peak": _peak()}
    except PipelineError as error:
        found = {"error": type(error).__name__, "message": error.message, "hint": error.hint}
    except MemoryError:
        os._exit(_NO_MEMORY)
    except Exception as error:
        if "bad_alloc" in str(error) or "allocate" in str(error).lower():
            os._exit(_NO_MEMORY)
        raise
    json.dump(found, output)
    output.flush()
    os._exit(0)  # libraries that hold threads may not end by themselves


if __name__ == "__main__":
    _main()
