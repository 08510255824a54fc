"""How long images take from where they lie: python -m benchmarks.sources [--images N] [--delay MS] [--rounds N].

The first N solar cells of the demo (PNG), as class folders, tars of 200 and Parquet files with row groups of 100, each
on disk and in a bucket: moto's S3 server in a process of its own, which waits DELAY before each answer. A first look
lists them and knows their ids; a second one finds nothing changed; then all are read and decoded to 64 pixels a side,
as one extraction task does. Nothing is embedded.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import shutil
import subprocess
import sys
import time
import urllib.request
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path

import numpy as np

from cache.hash_index import HashIndex
from stages.bases import catalogue
from stages.bases.recipe import Recipe
from stages.data import scan
from stages.data.images import PixelSpec
from stages.extract import prefetch
from stages.sources import parquet
from stages.sources.source import Source
from tests.support.archives import parquet_of, samples, tar_of, write_files

SERVER = """
import logging, sys, time
logging.getLogger("werkzeug").setLevel(logging.ERROR)
from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import make_server
from moto.s3.models import s3_backends
from pathlib import Path
delay, root, asked = float(sys.argv[1]) / 1000, Path(sys.argv[2]), [0]
bucket = s3_backends["123456789012"]["aws"]
bucket.create_bucket("team", "us-east-1")
for path in root.rglob("*"):
    if path.is_file():
        bucket.put_object("team", path.relative_to(root).as_posix(), path.read_bytes())
app = DomainDispatcherApplication(create_backend_app)
def answer(environ, start):
    if environ["PATH_INFO"] == "/asked":
        start("200 OK", [])
        return [str(asked[0]).encode()]
    asked[0] += 1
    time.sleep(delay)
    return app(environ, start)
server = make_server("127.0.0.1", 0, answer, threaded=True)
print(server.server_port, flush=True)
server.serve_forever()
"""
PER_TAR = 200


def lay_out(root: Path, count: int) -> int:
    """The same images thrice; their bytes."""
    spec = importlib.util.find_spec("elpv_dataset")
    assert spec is not None
    assert spec.submodule_search_locations
    files = sorted((Path(spec.submodule_search_locations[0]) / "data" / "images").iterdir())[:count]
    images = [(f"class{number % 2}", file.read_bytes()) for number, file in enumerate(files)]
    starts = range(0, len(images), PER_TAR)
    layouts: Mapping[str, Mapping[str, bytes]] = {
        "folder": {f"{label}/{number}.png": data for number, (label, data) in enumerate(images)},
        "tar": {f"{start:06d}.tar": tar_of(samples(images[start : start + PER_TAR], start)) for start in starts},
        "parquet": {f"{s:06d}.parquet": parquet_of(images[s : s + PER_TAR], group=100) for s in starts},
    }
    for name, layout in layouts.items():
        write_files(root / name, layout)
    return sum(len(data) for _, data in images)


def look(root: str, index: HashIndex) -> tuple[float, Source, scan.Found]:
    started, source = time.perf_counter(), Source(root, index=index)
    found = scan.hash_files(scan.scan_folders(source), source, index)
    return time.perf_counter() - started, source, found


def read(source: Source, found: scan.Found) -> float:
    started, base = time.perf_counter(), catalogue.get_base("efficientnet_lite0")
    recipe = Recipe.of(base, "0" * 64, PixelSpec(64, 64), "f32", "float32")
    rows = [(row.id, (source.place(row.path),)) for row in found.rows]
    with closing(prefetch.read_ahead(rows, [recipe], [])) as ahead:
        total = sum(int(future.result()[0].size > 0) for _, future in ahead)
    assert total == len(found.rows)
    return time.perf_counter() - started


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--images", type=int, default=1_000)
    options.add_argument("--delay", type=float, default=20)
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--folder", type=Path, default=Path("bench-out/sources"))
    asked = options.parse_args()
    root = asked.folder.absolute()
    shutil.rmtree(root, ignore_errors=True)
    size = lay_out(root, asked.images)
    time.sleep(2.1)  # what is younger is read each time
    command = [sys.executable, "-c", SERVER, str(asked.delay), str(root)]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    url = f"http://127.0.0.1:{server.stdout.readline().strip()}"
    keys = {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b", "AWS_DEFAULT_REGION": "us-east-1"}
    os.environ |= {"AWS_ENDPOINT_URL": url, "AWS_ALLOW_HTTP": "true", **keys}

    def requests() -> int:
        with urllib.request.urlopen(f"{url}/asked") as answer:
            return int(answer.read())

    try:
        print(f"{asked.images:,} images, {size / 1e6:.0f} MB; median of {asked.rounds}, in s, and requests\n")
        print("| where | first look | second look | read and decoded |")
        print("|---|---|---|---|")
        for kind in ("folder", "tar", "parquet"):
            for place, at in (("on disk", f"{root}/{kind}"), ("in a bucket", f"s3://team/{kind}")):
                seconds, counts = [], [0, 0, 0]
                for _ in range(asked.rounds):
                    parquet._groups = parquet._Groups()  # as in a new process
                    index, before = HashIndex(), requests()
                    first, _, _ = look(at, index)
                    middle = requests()
                    second, source, found = look(at, index)
                    last = requests()
                    seconds.append((first, second, read(source, found)))
                    counts = [middle - before, last - middle, requests() - last]
                medians = np.median(seconds, axis=0)
                told = [f"{s:.2f}" + (f", {n:,}" if "s3" in at else "") for s, n in zip(medians, counts, strict=True)]
                print(f"| {kind} {place} | {' | '.join(told)} |", flush=True)
        print(f"\nload average {os.getloadavg()[1]:.0f} on {os.cpu_count()} cores, {asked.delay:.0f} ms a request")
    finally:
        server.terminate()
        server.wait()
        shutil.rmtree(root)


if __name__ == "__main__":
    main()
