"""How long a fresh folder takes to a head from a bucket: python -m benchmarks.remote [--rows N] [--folder DIR].

moto's S3 server runs on this machine, in a process of its own. A project with random rows of ten classes (1,280
features, 100,000 rows) pushes them. Then, in an empty folder with pipeline.yaml, a table with ids and no images,
`pipeline run head` is timed, and what it pulled and imported is told; and a pull of the rows of 100 images.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from cache.hash_index import HashIndex
from cache.store import Cache
from pipeline.project.progress import no_progress
from pipeline.project.project import Options, Project

SERVER = """
import logging, sys
logging.getLogger("werkzeug").setLevel(logging.ERROR)
from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import make_server
from moto.s3.models import s3_backends
s3_backends["123456789012"]["aws"].create_bucket("team", "us-east-1")
server = make_server("127.0.0.1", 0, DomainDispatcherApplication(create_backend_app), threaded=True)
print(server.server_port, flush=True)
server.serve_forever()
"""
DIM, CLASSES, SHARD = 1_280, 10, 6_250
SETTINGS = """\
data: {{table: table.jsonl}}
base: {{weights: "sha256:{weights}"}}
heads: {{{head}: {{kind: {head}}}}}
cache: {{remote: {{url: "s3://team/cells", mode: {mode}}}}}
"""
WITHOUT = """
import sys
from pipeline.__main__ import main
try:
    main()
finally:
    print([name for name in ("tensorflow", "keras", "openvino", "distributed") if name in sys.modules], file=sys.stderr)
"""


def write_table(path: Path, rows: int, rng: np.random.Generator) -> tuple[list[str], np.ndarray]:
    ids = [hashlib.sha256(str(number).encode()).hexdigest() for number in range(rows)]
    labels = rng.integers(CLASSES, size=rows)
    split = rng.choice(("train", "val", "test"), rows, p=(0.7, 0.15, 0.15))
    lines = (
        json.dumps({"id": i, "path": f"{n}.jpg", "label": f"class{label}", "split": str(split[n])})
        for n, (i, label) in enumerate(zip(ids, labels, strict=True))
    )
    path.write_text("\n".join(lines) + "\n")
    return ids, labels


def fill(project: Project, ids: list[str], labels: np.ndarray, rng: np.random.Generator) -> None:
    centres = rng.normal(size=(CLASSES, DIM)).astype(np.float32) * 0.1
    store = Cache(project.cache.root, HashIndex()).features(project.spec("pooled").components())
    about = {"engine": "benchmark", "device": "none", "versions": {}, "seconds": 1.0}
    for start in range(0, len(ids), SHARD):
        own = labels[start : start + SHARD]
        noise = rng.normal(size=(len(own), DIM)).astype(np.float32)
        store.put(ids[start : start + SHARD], centres[own] + noise, about)


def run(folder: Path, *words: str) -> tuple[str, str, str]:
    """Seconds, with those of processors, and what was printed."""
    started, before = time.perf_counter(), os.times()
    done = subprocess.run([sys.executable, "-c", WITHOUT, *words], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    now, seconds = os.times(), time.perf_counter() - started
    busy = now.children_user + now.children_system - before.children_user - before.children_system
    return f"{seconds:.1f} | {busy:.1f}", done.stdout, done.stderr


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--rows", type=int, default=100_000)
    options.add_argument("--head", nargs="+", default=["ridge", "logistic"])
    options.add_argument("--folder", type=Path, default=Path("bench-out/remote"))
    asked = options.parse_args()
    root, rng = asked.folder.absolute(), np.random.default_rng(0)
    shutil.rmtree(root, ignore_errors=True)
    ours = root / "ours"
    ours.mkdir(parents=True)
    server = subprocess.Popen([sys.executable, "-c", SERVER], stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    url = f"http://127.0.0.1:{server.stdout.readline().strip()}"
    keys = {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b", "AWS_DEFAULT_REGION": "us-east-1"}
    os.environ |= {"AWS_ENDPOINT_URL": url, "AWS_ALLOW_HTTP": "true", **keys}
    try:
        weights = hashlib.sha256(b"of no file").hexdigest()
        ids, labels = write_table(ours / "table.jsonl", asked.rows, rng)
        (ours / "pipeline.yaml").write_text(SETTINGS.format(weights=weights, head="ridge", mode="read-write"))
        fill(Project(ours / "pipeline.yaml", Options(), no_progress), ids, labels, rng)
        print("| what | s | s of processors | pulled or pushed | of TensorFlow and the like, imported |")
        print("|---|---|---|---|---|")
        seconds, out, _ = run(ours, "cache", "push")
        print(f"| push of all | {seconds} | {out.splitlines()[0]} | |")
        for head in asked.head:
            fresh = root / f"fresh-{head}"
            fresh.mkdir()
            shutil.copy(ours / "table.jsonl", fresh)
            (fresh / "pipeline.yaml").write_text(SETTINGS.format(weights=weights, head=head, mode="read"))
            seconds, out, err = run(fresh, "run", "head")
            pulled = next(line for line in out.splitlines() if line.startswith("pulled"))
            print(f"| run head, {head} | {seconds} | {' '.join(pulled.split())} | {err.splitlines()[-1]} |")
            seconds, *_ = run(fresh, "run", "head", "--set", "heads.again.kind=ridge")
            print(f"| run head once more, rows at hand | {seconds} | | |")
        few = root / "few"
        few.mkdir()
        lines = (ours / "table.jsonl").read_text().splitlines()[:100]
        (few / "table.jsonl").write_text("\n".join(lines) + "\n")
        (few / "pipeline.yaml").write_text(SETTINGS.format(weights=weights, head="ridge", mode="read"))
        seconds, out, _ = run(few, "cache", "pull")
        print(f"| pull for the first 100 images | {seconds} | {out.splitlines()[0]} | |")
        print(f"\nload average {os.getloadavg()[1]:.0f} on {os.cpu_count()} cores")
    finally:
        server.terminate()
        server.wait()
        shutil.rmtree(root)


if __name__ == "__main__":
    main()
