"""One changed byte in any file under .features/ or models/: a command says so in a sentence, and loses nothing else."""

from __future__ import annotations

import os
import random
import re
import shutil
import tarfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import Ran, command
from tests.support import GOLDEN

COMMANDS = (
    "status", "status --hash", "status -q", "run -n", "models", "show head/logistic", "show finetune/last", "show v1",
    "show head/grid", "predictions head/logistic", "predictions head/knn", "predict head/logistic images/coffee/00.png",
    "predict both images/coffee", "predict knn images/coffee", "compare logistic ridge", "compare both finetune/last",
    "tag head/ridge v2", "tag --delete v1", "run extract", "run head logistic both", "run head grid knn ridge dense",
    "run finetune", "reproduce ridge", "reproduce knn", "plot logistic -o plots",
    "export features --format npz --output out.npz", "cache ls", "cache verify", "cache gc -n", "cache gc --max-size 0",
    "cache compact", "cache export out", "cache import ../export",
)  # fmt: skip
KEPT = re.compile(r"(shards/.*|spec\.json|record\.json|head\.(npz|json)|tail\.npz|manifest\.jsonl|metrics\.json)")
"""What no command but gc and compact may remove or change, where it is whole."""

Tree = dict[str, bytes]


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Projects that an earlier commit made: each kind of head, a sweep, a fine-tuning, tags, an export."""
    folder = tmp_path_factory.mktemp("packed")
    with tarfile.open(GOLDEN / "project-5c1307c.tar.xz") as tar:
        tar.extractall(folder, filter="data")
    return folder


def kind_of(path: str) -> str:
    """The path without digests and names."""
    return re.sub(r"[0-9a-f]{32,64}", "#", path)


def cases(root: Path, number: int, seed: int) -> Iterator[tuple[str, int, int, str]]:
    """(path, place, mask, command): each kind of file and each command as often as the others."""
    kinds: dict[str, list[str]] = {}
    for path in sorted(root.rglob("*")):
        if path.is_file() and path.relative_to(root).parts[0] in (".features", "models"):
            kinds.setdefault(kind_of(str(path.relative_to(root))), []).append(str(path.relative_to(root)))
    draw = random.Random(seed)
    for n in range(number):
        path = draw.choice(kinds[sorted(kinds)[n % len(kinds)]])
        yield path, draw.randrange((root / path).stat().st_size), draw.randrange(1, 256), draw.choice(COMMANDS)


def tree_of(root: Path) -> Tree:
    return {str(p.relative_to(root)): p.read_bytes() for p in root.rglob("*") if p.is_file()}


def flip(path: Path, place: int, mask: int) -> None:
    """In a file of its own, since the others are links to what was unpacked."""
    data = bytearray(path.read_bytes())
    data[place] ^= mask
    path.unlink()
    path.write_bytes(data)


def check_said(ran: Ran, what: str) -> None:
    """A documented exit code, and if it failed a sentence that is not about an error of ours."""
    assert ran.code in (0, 1, 2, 3, 4, 5), f"{what}: {ran.code}"
    assert "Traceback" not in ran.err, f"{what}: {ran.err}"
    assert "unexpected " not in ran.err, f"{what}: {ran.err}"
    if ran.code in (1, 2, 4):
        assert "Error: " in ran.err or "differ" in ran.out, f"{what}: {ran.out}{ran.err}"


def test_one_flipped_byte_anywhere_and_any_command(
    packed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, scale: float, tally: Counter[str]
) -> None:
    before = tree_of(packed / "cells")
    for number, (path, place, mask, words) in enumerate(cases(packed / "cells", round(600 * scale), seed=0)):
        folder = tmp_path / str(number)
        shutil.copytree(packed / "cells", folder / "cells", copy_function=os.link)
        os.symlink(packed / "export", folder / "export")
        flip(folder / "cells" / path, place, mask)
        monkeypatch.chdir(folder / "cells")
        what = f"{path} byte {place} ^ {mask}: {words}"
        check_said(command(*words.split()), what)
        tally["bytes of files flipped before a command"] += 1
        after = tree_of(folder / "cells")
        if not words.startswith(("cache gc", "cache compact")):
            own = re.sub(r"(models/[^/]*/[^/]*/[^/]*/).*|\.(h5|json)$", r"\1", path)  # a model is made again as a whole
            lost = [p for p, data in before.items() if KEPT.search(p) and after.get(p) != data and own not in p]
            assert lost == [], what
        shutil.rmtree(folder)
