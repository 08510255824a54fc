"""A Dask scheduler and workers on this machine, each a process as `dask scheduler` and `dask worker` start."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

from tests.support import REPOSITORY

FAKE_WORKER = "tests.support.fake_worker"


class Cluster:
    """Processes that can be killed; the first is the scheduler. Their base is the numpy one."""

    def __init__(self, folder: Path, *options: str, **environment: str) -> None:
        """options: of scheduler and workers; environment: of all."""
        self.file, self._options, self._environment = folder / "scheduler.json", options, environment
        words = ["--host", "127.0.0.1", "--port", "0", "--no-dashboard", "--dashboard-address", "127.0.0.1:0"]
        self.processes = [self._start("scheduler", *words)]
        while not self.file.exists() or not self.file.read_text().endswith("}"):
            assert self.processes[0].poll() is None, "the scheduler did not start"
            time.sleep(0.05)
        self.address: str = json.loads(self.file.read_text())["address"]

    def _start(
        self, what: str, *words: str, cwd: Path = REPOSITORY, source: Path = REPOSITORY, **environment: str
    ) -> subprocess.Popen[bytes]:
        profile = {"DASK_DISTRIBUTED__WORKER__PROFILE__ENABLED": "False", "PYTHONPATH": f"{source}:{REPOSITORY}"}
        program = f"import sys; sys.path.remove(''); from distributed.cli.dask_{what} import main; main(sys.argv[1:])"
        command = [sys.executable, "-c", program, "--scheduler-file", str(self.file), *self._options, *words]
        return subprocess.Popen(
            command,
            cwd=cwd,
            stderr=subprocess.DEVNULL,
            env={**os.environ, **profile, **self._environment, **environment},
        )

    def add_worker(self, *, source: Path = REPOSITORY, **environment: str) -> subprocess.Popen[bytes]:
        """source: the folder with the packages that it runs."""
        words = ("--no-nanny", "--no-dashboard", "--nthreads", "1", "--preload", FAKE_WORKER)
        self.processes.append(self._start("worker", *words, source=source, **environment))
        return self.processes[-1]

    def add_far_worker(self, home: Path, hidden: Path, **environment: str) -> subprocess.Popen[bytes]:
        """One with a home and a working folder of its own, to which nothing exists below the folder `hidden`."""
        home.mkdir(exist_ok=True)
        words = ("--no-nanny", "--no-dashboard", "--nthreads", "1", "--preload", FAKE_WORKER)
        own = {"HOME": str(home), "XDG_CACHE_HOME": str(home / "cache"), "XDG_CONFIG_HOME": str(home / "config")}
        environment = {**own, "FAKE_HIDDEN": str(hidden), **environment}
        self.processes.append(self._start("worker", *words, cwd=home, **environment))
        return self.processes[-1]

    def signal(self, number: int, processes: slice = slice(1, None)) -> None:
        for process in self.processes[processes]:
            process.send_signal(number)

    def close(self) -> None:
        for process in self.processes:
            process.kill()
            process.wait()
