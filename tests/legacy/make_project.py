"""Made tests/golden/project-5c1307c.tar.xz: projects, caches, models and pickles of commit 5c1307c, and what it said.

It is kept for the record and ran once, at that commit, on the packages that the records in it name. Later code may not
be able to run it, and must not: what was written then is what tests/test_legacy.py reads. From a checkout of 5c1307c
with this file in it, as root, since the paths in records are those of /srv and the host is called `example`:

    unshare --uts sh -c 'hostname example && exec .venv/bin/python tests/legacy/make_project.py project.tar.xz'

What lies in it, and lay in /srv:

    cells/      40 patches of the photographs `chelsea` and `coffee` of scikit-image (both CC0), two taps, half of the
                rows by TensorFlow and half by OpenVINO; heads of each kind, a sweep, a fine-tuned model, tags
    trial/      another project on that cache, whose fine-tuning was killed: a checkpoint and no record
    export/     what `pipeline cache export` made of cells
    new/        two patches that no cache has seen
    pickles/    BottleneckFeatures, fitted and unfitted
    expected/   what the commands of that commit said, and the rows

A third project, archive, is only registered in the cache, with rows that nobody else needs. 8 rows of the cache are
needed by nobody. The converted bases are left out, for their size.
"""

from __future__ import annotations

import hashlib
import io
import json
import lzma
import os
import pickle
import shutil
import signal
import socket
import subprocess
import sys
import tarfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from skimage import data

from pipeline import BottleneckFeatures
from pipeline import open as open_pipeline

SRV = Path("/srv")
CELLS, TRIAL, EXPORT, ARCHIVE = (SRV / name for name in ("cells", "trial", "export", "archive"))
PACKED = ("cells", "trial", "export", "new", "pickles", "expected")
PIXELS, EACH, EPOCHS = 56, 20, 12
DATE = 1795663189  # of commit 5c1307c, in s since the epoch
HEADS = ("logistic", "ridge", "knn", "dense", "both", "grid")

_CELLS = """\
data: {root: images, split: {val: 0.25, test: 0.25}}
extract:
  size: 64
  taps:
    pooled: {layer: output, pooling: avg}
    early: {layer: block3_add, pooling: max}
heads:
  logistic: {kind: logistic}
  ridge: {kind: ridge}
  knn: {kind: knn, k: [1, 3, 5]}
  dense: {kind: dense, units: [8], epochs: 12}
  both: {kind: logistic, tap: [pooled, early]}
  grid: {kind: logistic, tap: early, sweep: {C: [0.01, 0.1, 1.0]}}
finetune:
  last: {unfreeze_from: head, optimizer: sgd, lr: 1.0e-3, epochs: 4, batch: 8, augment: {flip: horizontal}, views: 2}
"""
_TRIAL = f"""\
data: {{root: ../cells/images, split: {{val: 0.25, test: 0.25}}}}
extract: {{size: 64}}
finetune:
  long: {{unfreeze_from: head, optimizer: sgd, lr: 4.0e-5, epochs: {EPOCHS}, patience: null, batch: 2}}
cache: {{dir: ../cells/.features}}
"""
_ARCHIVE = """\
data: {root: ../cells/images}
extract: {size: 48, taps: {early: {layer: block3_add, pooling: max}}}
heads: {}
cache: {dir: ../cells/.features}
"""


def pipeline(*words: str | Path, cwd: Path = CELLS) -> Any:
    """What a command says with --json."""
    command = [sys.executable, "-m", "pipeline", *map(str, words), "--json"]
    ran = subprocess.run(command, cwd=cwd, stdout=subprocess.PIPE, text=True, check=False)
    assert ran.returncode == 0, ran.stdout
    return json.loads(ran.stdout)


def patches(label: str) -> list[np.ndarray]:
    """Patches of one photograph, row by row, none over another."""
    picture = getattr(data, label)()
    height, width = (side // PIXELS * PIXELS for side in picture.shape[:2])
    return [
        picture[top : top + PIXELS, left : left + PIXELS]
        for top in range(0, height, PIXELS)
        for left in range(0, width, PIXELS)
    ]


def write_images(label: str, numbers: range) -> None:
    folder = CELLS / "images" / label
    folder.mkdir(parents=True, exist_ok=True)
    for number, patch in list(enumerate(patches(label)))[numbers.start : numbers.stop]:
        Image.fromarray(patch).save(folder / f"{number:02d}.png", optimize=True)


def write(folder: Path, settings: str) -> None:
    folder.mkdir()
    (folder / "pipeline.yaml").write_text(settings)


def make_cells(expected: dict[str, Any]) -> None:
    """The cache and its models, in two steps: 20 images by TensorFlow, and 20 more by OpenVINO."""
    write(CELLS, _CELLS)
    halves = (("tensorflow", range(EACH // 2)), ("openvino", range(EACH // 2, EACH)))
    for engine, numbers in halves:
        for label in ("chelsea", "coffee"):
            write_images(label, numbers)
        chosen = ("--set", f"extract.engine={engine}")
        made = pipeline("run", "extract", "--for", "finetune/last", *chosen)["extract"]
        assert (made["computed"], made["engine"]) == (EACH, engine)
        if engine == "tensorflow":
            pipeline("run", "head", "logistic", *chosen)
            pipeline("tag", "head/logistic", "first")
    pipeline("run")
    pipeline("run", "finetune")
    pipeline("tag", "head/logistic", "v1")
    pipeline("tag", "finetune/last", "tuned")
    expected["run"] = pipeline("run")
    expected["finetune"] = pipeline("run", "finetune")


def make_archive() -> None:
    """A project that nothing is left of but its rows, and that it is registered."""
    write(ARCHIVE, _ARCHIVE)
    assert pipeline("run", "extract", cwd=ARCHIVE)["extract"]["computed"] == 2 * EACH


def make_trial(expected: dict[str, Any]) -> None:
    """A fine-tuning that ends, for what it says, and then the same, killed."""
    write(TRIAL, _TRIAL)
    whole = pipeline("run", "finetune", cwd=TRIAL)["finetune"]["long"]
    folder = TRIAL / "models" / "finetune" / "long" / whole["key"]
    expected["trial"] = {
        "key": whole["key"],
        "chosen": json.loads((folder / "head.json").read_text())["chosen"],
        "tail_sha256": digest_of(folder / "tail.npz"),
        "record": {name: json.loads((folder / "record.json").read_text())[name] for name in CIRCUMSTANCES},
    }
    shutil.copy(folder / "predictions.csv", SRV / "expected" / "trial-predictions.csv")
    shutil.rmtree(folder.parent)
    while not (done := killed(folder / "checkpoint.npz")):
        shutil.rmtree(folder.parent)
        shutil.rmtree(CELLS / ".features" / "jobs")
    expected["trial"]["epochs"] = done


CIRCUMSTANCES = ("rows_made_by", "rows_versions", "machine", "blas", "versions")


def killed(checkpoint: Path) -> int:
    """How many epochs a fine-tuning had done when it was killed; 0 where it has to be tried again."""
    command = [sys.executable, "-m", "pipeline", "run", "finetune", "--json"]
    with subprocess.Popen(command, cwd=TRIAL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        while not checkpoint.exists() and process.poll() is None:
            time.sleep(0.001)
        time.sleep(0.15)
        process.send_signal(signal.SIGKILL)
    if [path.name for path in checkpoint.parent.iterdir()] != ["checkpoint.npz"]:
        return 0  # it was over before, or in the middle of the next checkpoint, which would only take room here
    with np.load(checkpoint) as arrays:
        history = json.loads(str(arrays["history"]))
    done, best = len(history["loss"]), int(np.argmin(history["val_log_loss"]))
    return done if 1 < done < EPOCHS - 2 and best == done else 0


def digest_of(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def make_pickles() -> None:
    """Two transformers, and rows of a key that no pipeline.yaml asks for."""
    os.chdir(CELLS)
    features = BottleneckFeatures(size=64, cache_dir=".features", root="images")
    (SRV / "pickles").mkdir()
    (SRV / "pickles" / "unfitted.pickle").write_bytes(pickle.dumps(features))
    (SRV / "pickles" / "fitted.pickle").write_bytes(pickle.dumps(features.fit([])))
    unneeded = features.set_params(size=40, layer="block3_add", pooling="max")
    unneeded.transform([f"chelsea/{number:02d}.png" for number in range(8)])
    (SRV / "expected" / "unneeded.txt").write_text(unneeded.fit([]).extract_key_)


def make_new() -> None:
    (SRV / "new").mkdir()
    for label in ("chelsea", "coffee"):
        Image.fromarray(patches(label)[EACH + 10]).save(SRV / "new" / f"{label}.png", optimize=True)


def ask(expected: dict[str, Any]) -> None:
    """What the commands say of what is there; nothing is made any more."""
    found = [f"images/{label}/{number:02d}.png" for label in ("chelsea", "coffee") for number in range(7, 13)]
    named = [f"head/{name}" for name in HEADS]
    expected["predict"] = {name: pipeline("predict", name, *found) for name in (*named, "finetune/last", "first")}
    expected["predict_new"] = {name: pipeline("predict", name, "../new") for name in ("head/both", "finetune/last")}
    expected["status"] = {name: pipeline("status", "--hash", cwd=SRV / name) for name in ("cells", "trial")}
    expected["quiet"] = {
        name: subprocess.run([sys.executable, "-m", "pipeline", "status", "-q"], cwd=SRV / name, check=False).returncode
        for name in ("cells", "trial")
    }
    expected["models"] = {name: pipeline("models", cwd=SRV / name) for name in ("cells", "trial")}
    expected["show"] = {name: pipeline("show", name) for name in (*named, "finetune/last", "first", "v1", "tuned")}
    expected["compare"] = pipeline("compare", "head/logistic", "finetune/last")
    expected["cache"] = pipeline("cache", "ls")
    expected["export"] = json.loads((EXPORT / "EXPORT.json").read_text())
    project = open_pipeline(CELLS)
    rows = {tap: project.features(tap=tap, compute=False) for tap in ("pooled", "early")}
    arrays = {tap: found.X for tap, found in rows.items()}
    np.savez(SRV / "expected" / "rows.npz", ids=rows["pooled"].ids, **arrays)


def cpu() -> list[str]:
    """What TensorFlow chooses its arithmetic by, and no record names: cores, and kinds of vector instructions."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    flags = next(line.partition(":")[2].split() for line in lines if line.startswith("flags"))
    return [f"{os.cpu_count()} cores", *sorted(flag for flag in flags if flag.startswith(("avx", "amx", "fma")))]


def pack(target: Path) -> None:
    """All of it in one file, the same bytes for the same files."""
    plain = io.BytesIO()
    with tarfile.open(fileobj=plain, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for path in sorted(path for name in PACKED for path in [SRV / name, *(SRV / name).rglob("*")]):
            if "converted" in path.relative_to(SRV).parts:
                continue
            member = tar.gettarinfo(path, str(path.relative_to(SRV)))
            member.uid = member.gid = 0
            member.uname = member.gname = ""
            member.mtime, member.mode = DATE, 0o755 if path.is_dir() else 0o644
            tar.addfile(member, io.BytesIO(path.read_bytes()) if path.is_file() else None)
    target.write_bytes(lzma.compress(plain.getvalue(), preset=9 | lzma.PRESET_EXTREME))


def main() -> None:
    assert socket.gethostname() == "example", "records name the host"
    target = Path(sys.argv[1]).absolute()
    expected: dict[str, Any] = {"commit": "5c1307c", "cpu": cpu()}
    (SRV / "expected").mkdir()
    make_cells(expected)
    make_archive()
    make_trial(expected)
    make_pickles()
    make_new()
    pipeline("cache", "export", EXPORT)
    time.sleep(2.1)  # the stat index trusts no younger file
    ask(expected)
    (SRV / "expected" / "said.json").write_text(json.dumps(expected, indent=1, sort_keys=True) + "\n")
    pack(target)


if __name__ == "__main__":
    main()
