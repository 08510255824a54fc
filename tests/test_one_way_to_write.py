"""Only cache/atomic_files.py changes what is on disk, so that what the durability tests prove holds for all of it.

Found twice: by reading the source, and by watching commands, which also sees what libraries write in C++.
"""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import REPOSITORY, SOURCES
from tests.support.fakes import two_classes
from tests.support.writes import FolderWatch, Write, read

OS = {
    "open", "write", "replace", "rename", "renames", "unlink", "remove", "rmdir", "removedirs", "mkdir", "makedirs",
    "link", "symlink", "truncate", "ftruncate", "chmod", "utime", "mkfifo", "mknod",
}  # fmt: skip
PATH = {
    "write_bytes",
    "write_text",
    "touch",
    "mkdir",
    "unlink",
    "rmdir",
    "rename",
    "symlink_to",
    "hardlink_to",
    "chmod",
    "tofile",
    "savetxt",
    "to_csv",
}
LIBRARIES = {
    "save", "savez", "savez_compressed", "savefig", "save_model", "save_weights", "export", "write_table",
    "ParquetWriter", "retrieve", "cached_assets_path", "hf_hub_download",
}  # fmt: skip
"""Functions of NumPy, matplotlib, OpenVINO, Keras, pyarrow, pooch and huggingface_hub that write, some in C++."""
OURS = {"atomic_files", "csv_parquet"}
"""Modules of ours with functions of such names: these are looked at where they stand."""
ELSEWHERE = {
    ("cache/hash_index.py", "_connect"): "the stat index: disposable, one for each host, outside of the cache",
    ("cache/hash_index.py", "_opened"): "the same, by SQLite",
    ("stages/bases/weights.py", "_published_file"): "the download of weights, where Keras keeps them",
    ("stages/bases/hub.py", "fetch"): "the download of model files, below the folder of the hub's client",
    ("stages/keras_models/keras2_files.py", "_write"): "a copy of a model of Keras 2, for as long as it is read",
    ("stages/runtime/silent_imports.py", "without_banners"): "standard error to nowhere while TensorFlow starts",
    ("stages/engines/openvino_engine.py", "_convert"): "a graph on its way through OpenVINO, in a temporary folder",
    ("stages/engines/openvino_engine.py", "save"): "the same, by OpenVINO",
    ("stages/engines/openvino_files.py", "convert"): "the same, of a file, in a process of its own",
    ("stages/engines/quantise.py", "_save"): "a graph that is quantised, the same way",
    ("pipeline/evaluation/audit_pictures.py", "read_pictures"): "thumbnails of an audit, in a temporary folder",
    ("pipeline/config/init_project.py", "_copy"): "the images of the demo",
    ("pipeline/serving/export_model.py", "write_checked"): "a draft that is tried, then published from its bytes",
    ("stages/export/keras_network.py", "save_network"): "that draft, where it was told to",
    ("stages/export/keras_network.py", "write_onnx"): "the same, or a part of it in a temporary folder",
    ("stages/export/keras_network.py", "_name_parts"): "the same draft, once more",
    ("stages/export/onnx_join.py", "join"): "the same draft, of parts, in a process of its own",
    ("stages/export/openvino_network.py", "save_network"): "the same draft, by OpenVINO",
    ("stages/export/openvino_network.py", "_attach"): "no file: an output of a graph takes the place of another",
}


def writes(node: ast.Call, opened: set[str]) -> bool:
    """Whether a call may create, change, rename or remove a file, other than through the names in `opened`."""
    words = ast.unparse(node.func).split(".")
    mode = "".join(str(a.value) for a in [*node.args, *(k.value for k in node.keywords)] if _is_mode(a))
    if words[0] in OURS or opened & {words[0], *map(ast.unparse, node.args)}:
        return False
    if (words[0] in ("shutil", "tempfile") and words[-1] != "disk_usage") or words == ["sqlite3", "connect"]:
        return True
    if words[-1] in ("File", "memmap") or (words[-1] == "open" and words[0] != "os"):
        return bool(set(mode) & set("wax+"))
    if words[0] == "os":
        return words[-1] in OS
    if words[-1] == "replace":
        return len(words) > 1 and len(node.args) == 1  # a path's; a string's takes two
    return len(words) > 1 and words[-1] in PATH | LIBRARIES


def _is_mode(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, str) and 0 < len(node.value) < 4


def found(source: str, path: str) -> Iterator[tuple[str, str]]:
    """(path, function) of each call that writes."""

    def walk(node: ast.AST, function: str, opened: set[str]) -> Iterator[tuple[str, str]]:
        for child in ast.iter_child_nodes(node):
            inside = child.name if isinstance(child, ast.FunctionDef | ast.ClassDef) else function
            if isinstance(child, ast.Call) and writes(child, opened):
                yield path, inside
            yield from walk(child, inside, opened_in(child) if isinstance(child, ast.FunctionDef) else opened)

    return walk(ast.parse(source), "", set())


def opened_in(function: ast.FunctionDef) -> set[str]:
    """Names of buffers in memory, of open files that the caller passes, and of writers on either."""
    values: dict[str, set[str]] = {}
    for node in ast.walk(function):
        if isinstance(node, ast.Assign):
            for target in node.targets:
                values.setdefault(ast.unparse(target), set()).add(ast.unparse(node.value).partition("(")[0])
    buffers = {"io.BytesIO", "io.StringIO", "pyarrow.BufferOutputStream"}
    opened = {name for name, made in values.items() if made <= buffers}
    opened |= {a.arg for a in function.args.args if a.annotation and ast.unparse(a.annotation) == "BinaryIO"}
    for node in ast.walk(function):
        made = node.context_expr if isinstance(node, ast.withitem) and node.optional_vars else None
        if isinstance(made, ast.Call) and opened & set(map(ast.unparse, made.args)):
            opened.add(ast.unparse(node.optional_vars))
    return opened


def test_only_one_module_changes_the_disk() -> None:
    calls = {
        call
        for path in SOURCES
        if path.name != "atomic_files.py"
        for call in found(path.read_text(), str(path.relative_to(REPOSITORY)))
    }
    assert calls == set(ELSEWHERE)


@pytest.mark.parametrize(
    "call",
    [
        'open(p, "w")', 'open(p, mode="ab")', 'p.open("r+b")', "os.replace(a, b)", "os.open(p, flags)", "p.unlink()",
        "p.replace(q)", "p.mkdir(parents=True)", 'p.write_bytes(b"")', 'h5py.File(path, "w")', 'h5py.File(p, "r+")',
        "shutil.rmtree(p)", "np.save(path, x)", 'np.memmap(p, "f4", "w+")', "tempfile.mkdtemp()",
        "openvino.save_model(model, path)", "model.export(path)", "sqlite3.connect(path)", "parquet.write_table(x, p)",
        "buffer = path; np.save(buffer, x)", 'buffer = path; h5py.File(buffer, "w")',
        "buffer = io.BytesIO(); buffer = path; np.save(buffer, x)",
    ],
)  # fmt: skip
def test_the_search_sees_a_call_that_writes(call: str) -> None:
    assert list(found(f"def f():\n    {call}", "x.py")) == [("x.py", "f")]


@pytest.mark.parametrize(
    "call",
    [
        "open(p)", 'open(p, "rb")', 'h5py.File(p, "r")', 'buffer = io.BytesIO(); h5py.File(buffer, "w")',
        'a.replace("b", "c")', "csv_parquet.write_table(columns, path)",
    ],
)  # fmt: skip
def test_the_search_passes_a_call_that_reads(call: str) -> None:
    assert list(found(f"def f():\n    {call}", "x.py")) == []
    assert list(found(f"def f(file: BinaryIO):\n    np.savez(file, x)\n    {call}", "x.py")) == []


PLACES = [
    (r"cache/atomic_files\.py", r"project/(?!images/).*", "what is kept"),
    (r"cache/atomic_files\.py", r"tmp/frozenbase-[^/]*(/.*)?", "temporary caches"),
    (r"cache/atomic_files\.py", r"host/frozenbase/compiled(/.*)?", "compiled models"),
    (r"cache/hash_index\.py|", r"host/frozenbase(/stat-.*\.sqlite(-journal)?)?", "the index of digests"),
    (r".*", r"/dev/null", "nowhere: banners of TensorFlow, streams that were closed"),
    (r"stages/engines/openvino_engine\.py|", r"tmp/frozenbase-[^/]*(/.*)?", "models on their way through OpenVINO"),
    (r"(pipeline/serving/export_model|stages/export/keras_network)\.py|", r"tmp(/.*)?", "drafts of exported models"),
    (r"", r"project/logs(/.*)?", "TensorBoard's, where finetune.*.log_dir wants them"),
    (
        r".*",
        r"home/\.keras(/keras\.json)?|(home/\.config|host)/matplotlib(/.*)?|home/\.config",
        "settings of libraries",
    ),
    (r".*", r"tmp/([a-z0-9_]{8}|__autograph_generated_file.*\.py)", "trials of Python, code of TensorFlow"),
]
"""(module of ours or none, path below the folder that holds all places, what that is)"""

CONFIG = """\
data: {split: {method: stratified, val: 0.3, test: 0.2}}
extract: {size: 32, engine: ENGINE}
heads: {logistic: {C: 0.01}, ridge: {kind: ridge}, grid: {sweep: {C: [0.1, 1.0]}}, dense: {kind: dense, epochs: 1}}
finetune:
  last: {unfreeze_from: block16, lr: 1.0e-3, epochs: 1, batch: 8, log_dir: logs}
"""


def watched(root: Path, commands: list[list[str]], **environment: str) -> tuple[list[Write], set[str]]:
    """What commands change that run in one process, whose places all lie under `root`; all paths relative to it."""
    for name in ("home", "tmp", "host", "elsewhere"):
        (root / name).mkdir()
    log = root.with_name("log")
    places = {"HOME": "home", "TMPDIR": "tmp", "XDG_CACHE_HOME": "host", "XDG_CONFIG_HOME": "home/.config"}
    own = {name: str(root / place) for name, place in places.items()}
    settings = {"PYTHONPATH": str(REPOSITORY), "PYTHONDONTWRITEBYTECODE": "1", **own, **environment}
    words = [sys.executable, "-m", "tests.support.writes", str(log)]
    with FolderWatch(root, *(REPOSITORY / package for package in ("cache", "stages", "pipeline"))) as watch:
        done = subprocess.run(
            words, cwd=root / "elsewhere", env={**os.environ, **settings}, capture_output=True, text=True,
            input="".join(f"{json.dumps(command)}\n" for command in commands),
        )  # fmt: skip
    assert done.returncode == 0, done.stderr
    below = f"{root}{os.sep}"
    by_python = [write._replace(path=write.path.removeprefix(below)) for write in read(log)]
    return by_python, {path.removeprefix(below) for path in watch.changed}


def unexpected(by_python: list[Write], changed: set[str]) -> list[Write]:
    """Changes by a module, or to a place, that PLACES doesn't name; those that Python did not make have no module."""
    native = [Write("", "", path) for path in sorted(changed - {write.path for write in by_python})]
    return [write for write in [*by_python, *native] if not any(_fits(write, *rule) for rule in PLACES)]


def _fits(write: Write, module: str, place: str, about: str) -> bool:
    return bool(re.fullmatch(module, write.module) and re.fullmatch(place, write.path))


def commands(root: Path, engine: str) -> list[list[str]]:
    """A day's work on a project under `root`."""
    two_classes(root / "project" / "images", 12)
    config = root / "project" / "pipeline.yaml"
    config.write_text(CONFIG.replace("ENGINE", engine))
    out = root / "project" / "out"
    words = [
        "run head logistic ridge grid", "run", "status", "tag head/logistic v1", "models", "show v1", "plot v1",
        f"predict v1 {root}/project/images -o {out}.parquet", f"predictions v1 -o {out}.csv",
        "crossval logistic", "compare logistic ridge", "reproduce v1 --recompute",
        f"export features --format npz --output {out}.npz", f"export features --format hdf5 --output {out}.hdf5",
        f"export v1 --format keras --output {out}.keras", "run finetune",
        f"export finetune/last --format onnx --output {out}.onnx",
        "cache ls", "cache verify", "cache gc --max-size 0B", f"cache export {out}", f"cache import {out}",
    ]  # fmt: skip
    return [[*line.split(), "-c", str(config)] for line in words]


@pytest.mark.parametrize(
    "engine", [pytest.param(e, marks=m) for e, m in (("fake", ()), ("openvino", pytest.mark.slow))]
)
def test_commands_write_where_they_may_and_through_one_module(tmp_path: Path, engine: str) -> None:
    root = tmp_path / "all"
    words = commands(root, "auto" if engine == "fake" else engine)
    heavy = ("run -c", "run finetune", "export v1", "export finetune/last")
    chosen = [line for line in words if engine != "fake" or not " ".join(line).startswith(heavy)]
    by_python, changed = watched(root, chosen, FAKE="1" if engine == "fake" else "")
    assert unexpected(by_python, changed) == []
    modules = {write.module for write in by_python}
    assert {"cache/atomic_files.py", "cache/hash_index.py"} <= modules
    assert engine == "fake" or "stages/engines/openvino_engine.py" in modules
    assert any(path.endswith("record.json") for path in changed)


@pytest.mark.parametrize(
    "act",
    [
        "Path('f').write_text('x')", "os.mkdir('f')", "os.utime('there')", "os.rename('there', 'f')",
        "h5py.File('f', 'w')", "sqlite3.connect('f').execute('create table t (x)')", "os.unlink('there')",
        "subprocess.run(['touch', 'f'])", "np.memmap('f', 'f4', 'w+', 0, (3,))", "shutil.rmtree('folder')",
    ],
)  # fmt: skip
def test_the_watch_sees_a_change(tmp_path: Path, act: str) -> None:
    """By a module that may not, and by what is no Python."""
    (tmp_path / "project" / "folder").mkdir(parents=True)
    (tmp_path / "project" / "there").write_bytes(b"")
    program = f"""
import os, shutil, sqlite3, subprocess, sys
import h5py, numpy as np
from pathlib import Path
from tests.support import writes
writes.watch_python(Path({str(tmp_path / "log")!r}))
exec(compile({act!r}, os.path.join(writes.REPOSITORY, "stages", "new.py"), "exec"))
"""
    with FolderWatch(tmp_path / "project") as watch:
        environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
        subprocess.run([sys.executable, "-c", program], cwd=tmp_path / "project", env=environment, check=True)
    below = f"{tmp_path}{os.sep}"
    by_python = [write._replace(path=write.path.removeprefix(below)) for write in read(tmp_path / "log")]
    assert unexpected(by_python, {path.removeprefix(below) for path in watch.changed}) != []
