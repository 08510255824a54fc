"""What a cluster that loses workers costs: python -m benchmarks.cluster [--images N] [--every S] [--folder DIR].

Real `dask scheduler` and `dask worker` processes on this machine: each worker has a home of its own, and cannot open a
file in the folder of the run; images and rows are in moto's S3 server, a process of its own.
The base is numpy, and sleeps for each image. Of three workers one is five times as slow. Every S seconds one is killed
and another one starts, one is stopped for ten seconds, and one of other source joins. Then the scheduler is killed, and
the next run goes on with a new one. Then two runs at once share one cache on the disk.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.remote import SERVER
from pipeline.project.progress import no_progress
from pipeline.project.project import Options, Project
from stages.buckets.object_store import ObjectStore
from tests.support import fakes, process, source_tree
from tests.support.dask_cluster import Cluster

SHARD = 8


def write_project(folder: Path, root: str, remote: str) -> Path:
    folder.mkdir(parents=True)
    shared = f"cache: {{remote: {{url: 's3://team/{remote}', mode: read-write}}}}\n" if remote else ""
    config = folder / "pipeline.yaml"
    config.write_text(f"data: {{root: '{root}'}}\nextract: {{size: 16, shard_rows: {SHARD}}}\n{shared}")
    return config


def lay_out(folder: Path, images: int) -> None:
    bucket = ObjectStore("s3://team")
    for number in range(images):
        bucket.put(f"images/{'ab'[number % 2]}/{number}.png", fakes.numbered(number))
    shutil.rmtree(folder, ignore_errors=True)


def start_run(config: Path, *words: str, **environment: str) -> subprocess.Popen[str]:
    return process.start("run", "extract", "-c", config, "--json", *words, **environment)


def rows_of(config: Path) -> np.ndarray:
    project = Project(config, Options(), no_progress)
    return project.store("pooled").read(sorted(project.manifest.ids))


def pushed_rows(remote: str) -> int:
    """Rows in all shards of the team's cache, those twice that were computed twice."""
    store = ObjectStore(f"s3://team/{remote}")
    listed = [o.name for o in store.list("v1/features") if "/shards/" in o.name and o.name.endswith(".json")]
    return sum(json.loads(store.get(name, 1_000_000))["rows"] for name in listed)


class Workers:
    """Three of a cluster, of which one is killed and replaced from time to time."""

    def __init__(self, cluster: Cluster, folder: Path, hidden: Path, delay: float) -> None:
        self.cluster, self.folder, self.hidden, self.delay = cluster, folder, hidden, delay
        self.living: list[subprocess.Popen[bytes]] = []
        self.begun = self.killed = 0

    def begin(self, slow: float = 1.0) -> None:
        self.begun += 1
        home = self.folder / f"home{self.begun}"
        self.living.append(self.cluster.add_far_worker(home, self.hidden, FAKE_DELAY=str(self.delay * slow)))

    def kill(self, rng: random.Random) -> None:
        victim = self.living.pop(rng.randrange(len(self.living)))
        victim.kill()
        victim.wait()
        self.killed += 1


def churn(run: subprocess.Popen[str], workers: Workers, every: float, copy: Path) -> tuple[str, str]:
    """Kill, stop and add workers until the run ends; its output."""
    rng, ticks = random.Random(0), 0
    while True:
        try:
            return run.communicate(timeout=every)
        except subprocess.TimeoutExpired:
            ticks += 1
        if ticks == 2:
            workers.cluster.add_worker(source=copy)
        if ticks == 3:
            stopped = workers.living[0]
            stopped.send_signal(signal.SIGSTOP)
            time.sleep(10)
            stopped.send_signal(signal.SIGCONT)
        workers.kill(rng)
        workers.begin()


def try_churn(folder: Path, asked: Any, alone: np.ndarray) -> None:
    config, copy = write_project(folder / "mine", "s3://team/images", "rows"), source_tree.copy_to(folder / "copy")
    with open(copy / "stages" / "data" / "images.py", "a") as file:
        file.write("# another\n")
    cluster = Cluster(folder)
    try:
        workers = Workers(cluster, folder, config.parent, asked.delay)
        for slow in (1.0, 1.0, 5.0):
            workers.begin(slow)
        time.sleep(asked.start)
        started = time.perf_counter()
        run = start_run(config, "--scheduler", cluster.address, "-v")
        out, err = churn(run, workers, asked.every, copy)
        seconds = time.perf_counter() - started
        assert run.returncode == 0, out + err
        refused = err.count("computes nothing: it runs other source")
        twice, same = pushed_rows("rows") - asked.images, np.array_equal(rows_of(config), alone)
        print(f"| workers killed: {workers.killed} | {seconds:.0f} | {twice} | {refused} | {'yes' if same else 'no'} |")
        run = start_run(config := write_project(folder / "again", "s3://team/images", "more"), "--scheduler",
                        cluster.address)  # fmt: skip
        while pushed_rows("more") < asked.images / 4:
            time.sleep(0.1)
        started = time.perf_counter()
        cluster.processes[0].kill()
        out, _ = run.communicate(timeout=120)
        seconds, kept = time.perf_counter() - started, pushed_rows("more")
    finally:
        cluster.close()
    print(f"| scheduler killed: exit {run.returncode} | {seconds:.0f} | {kept} of {asked.images} kept | | |")
    run = start_run(config)
    out, err = run.communicate()
    done = json.loads(out)["extract"]
    same = np.array_equal(rows_of(config), alone)
    print(f"| the next run, on one machine | {done['seconds']:.0f} | {pushed_rows('more') - asked.images} | | "
          f"{'yes' if same else 'no'} |")  # fmt: skip


def try_two(folder: Path, asked: Any) -> None:
    twice = []
    for trial in range(asked.trials):
        config = write_project(folder / f"two{trial}", "s3://team/images", "")
        runs = [start_run(config, FAKE_DELAY=str(asked.delay)) for _ in range(2)]
        done = [json.loads(run.communicate()[0])["extract"]["computed"] for run in runs]
        twice.append(sum(done) - asked.images)
    print(f"| two runs at once on one cache, {asked.trials} trials | | {', '.join(map(str, twice))} | | |")


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--images", type=int, default=400)
    options.add_argument("--every", type=float, default=8, help="seconds between two kills")
    options.add_argument("--delay", type=float, default=0.2, help="seconds that the base sleeps for an image")
    options.add_argument("--start", type=float, default=15, help="seconds until the first workers have started")
    options.add_argument("--trials", type=int, default=3)
    options.add_argument("--folder", type=Path, default=Path("bench-out/cluster"))
    asked = options.parse_args()
    folder = asked.folder.absolute()
    server = subprocess.Popen([sys.executable, "-c", SERVER], stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    url = f"http://127.0.0.1:{server.stdout.readline().strip()}"
    keys = {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b", "AWS_DEFAULT_REGION": "us-east-1"}
    os.environ |= {"AWS_ENDPOINT_URL": url, "AWS_ALLOW_HTTP": "true", "XDG_CACHE_HOME": str(folder / "cache"), **keys}
    try:
        lay_out(folder, asked.images)
        alone = write_project(folder / "alone", "s3://team/images", "")
        out, err = start_run(alone).communicate()
        assert json.loads(out)["extract"]["computed"] == asked.images, err
        print(f"{asked.images} images, shards of {SHARD}, {asked.delay} s an image\n")
        print("| what | s | images computed twice | workers refused | rows are those of one machine |")
        print("|---|---|---|---|---|")
        try_churn(folder, asked, rows_of(alone))
        try_two(folder, asked)
        print(f"\nload average {os.getloadavg()[1]:.0f} on {os.cpu_count()} cores")
    finally:
        server.kill()
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
