"""Only cache/atomic_files.py changes what is on disk, so that what the durability tests prove holds for all of it."""

from __future__ import annotations

import ast
from collections.abc import Iterator

import pytest

from tests.support import REPOSITORY

OS = {
    "open", "write", "replace", "rename", "renames", "unlink", "remove", "rmdir", "removedirs", "mkdir", "makedirs",
    "link", "symlink", "truncate", "ftruncate", "chmod", "utime", "mkfifo", "mknod",
}  # fmt: skip
PATH = {
    "write_bytes", "write_text", "touch", "mkdir", "unlink", "rmdir", "rename", "symlink_to", "hardlink_to", "chmod",
    "tofile", "savetxt", "to_csv", "retrieve",
}  # fmt: skip
ELSEWHERE = {
    ("cache/hash_index.py", "_connect"): "the stat index: disposable, one for each host, outside of the cache",
    ("stages/bases/weights.py", "_published_file"): "the download of weights, where Keras keeps them",
    ("stages/keras_models/keras2_files.py", "_write"): "a copy of a model of Keras 2, for as long as it is read",
    ("stages/runtime/silent_imports.py", "without_banners"): "standard error to nowhere while TensorFlow starts",
    ("stages/engines/openvino_convert.py", "_convert"): "a graph on its way through OpenVINO, in a temporary folder",
    ("pipeline/config/init_project.py", "_copy"): "the images of the demo",
    ("pipeline/serving/export_model.py", "write"): "a draft that is tried, then published from its bytes",
    ("stages/export/keras_network.py", "save_network"): "that draft, where it was told to",
}


def writes(node: ast.Call) -> bool:
    """Whether a call may create, change, rename or remove a file."""
    words = ast.unparse(node.func).split(".")
    mode = "".join(str(a.value) for a in [*node.args, *(k.value for k in node.keywords)] if _is_mode(a))
    if words[0] == "atomic_files":
        return False
    if words[0] in ("shutil", "tempfile"):
        return True
    if words[-1] == "File" or words[-1] == "memmap":
        return bool(set(mode) & set("wax+")) and ast.unparse(node.args[0]) != "buffer"
    if words[-1] == "open" and words[0] != "os":
        return bool(set(mode) & set("wax+"))
    if words[0] == "os":
        return words[-1] in OS
    if words[-1] == "replace":
        return len(words) > 1 and len(node.args) == 1  # a path's; a string's takes two
    if words[-1] in ("save", "savez", "savez_compressed"):
        return ast.unparse(node.args[0]) != "buffer"
    return words[-1] in PATH


def _is_mode(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, str) and 0 < len(node.value) < 4


def found(source: str, path: str) -> Iterator[tuple[str, str]]:
    """(path, function) of each call that writes."""

    def walk(node: ast.AST, function: str) -> Iterator[tuple[str, str]]:
        for child in ast.iter_child_nodes(node):
            inside = child.name if isinstance(child, ast.FunctionDef | ast.ClassDef) else function
            if isinstance(child, ast.Call) and writes(child):
                yield path, inside
            yield from walk(child, inside)

    return walk(ast.parse(source), "")


def test_only_files_py_changes_the_disk() -> None:
    paths = [path for package in ("cache", "stages", "pipeline") for path in (REPOSITORY / package).rglob("*.py")]
    calls = {
        call
        for path in paths
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
    ],
)  # fmt: skip
def test_the_search_sees_a_call_that_writes(call: str) -> None:
    assert list(found(f"def f():\n    {call}", "x.py")) == [("x.py", "f")]


@pytest.mark.parametrize(
    "call", ["open(p)", 'open(p, "rb")', 'h5py.File(p, "r")', 'h5py.File(buffer, "w")', 'a.replace("b", "c")']
)
def test_the_search_passes_a_call_that_reads(call: str) -> None:
    assert list(found(call, "x.py")) == []
