"""The guides: each block of shell and Python runs, in order, on a small project; each block of YAML is accepted."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import elpv_dataset
import pytest

from pipeline.config import yaml_file
from tests.support import REPOSITORY, onnx_models, own_models

DOCS = REPOSITORY / "docs"
PAGES = [REPOSITORY / "README.md", DOCS / "index.md", DOCS / "own_base.md", *sorted((DOCS / "guides").glob("*.md"))]
NOT_RUN = {
    "CI runs both": 1,
    "installs packages": 2,
    "needs a running Dask scheduler": 1,
    "a job of Slurm": 1,
    "needs a bucket": 1,
    "needs a network": 1,
    "programs that are not installed here": 1,
    "takes minutes; tests/stages/engines/test_quantise.py does the same": 1,
    "needs PyTorch and transformers": 1,
}
"""Reasons why blocks are not run, and how many have each."""
CONFIG = """\
data: {root: photos, split: {method: stratified}}
extract: {size: 32}
heads:
  logistic: {}
  knn: {kind: knn}
  several: {sweep: {C: [0.01, 0.1]}}
finetune: {last: {head: logistic, unfreeze_from: block16, epochs: 1}}
"""
OTHER_CONFIG = {
    "README.md": None,  # init writes one
    "index.md": None,
    "laptop.md": None,
    "own_base.md": "data: {root: photos, split: {method: stratified}}\nextract: {size: 64}\n"
    "base: {name: model.onnx, preprocess: imagenet}\n",
    "sharing.md": f"{CONFIG}cache: {{remote: {{url: 'file://TEAM', mode: read-write}}}}\n",
}
"""Of pages that are on another project."""


@dataclass(frozen=True)
class Block:
    """A block of code of a page. why_not: why it is not run."""

    language: str
    text: str
    line: int
    why_not: str | None


def blocks(page: Path) -> list[Block]:
    text = page.read_text()
    fences = re.finditer(r"(?:<!-- not run: (.*?) -->\n)?^```(\w+)\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    return [Block(one[2], one[3], text[: one.start(2)].count("\n") + 1, one[1]) for one in fences]


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """What the guides speak of: images in folders, new ones, a table, model files, and heads that were trained."""
    place = tmp_path_factory.mktemp("shop")
    source = Path(elpv_dataset.__file__).parent / "data"
    listed = [line.split() for line in (source / "labels.csv").read_text().splitlines()]
    ends = {"functional": "0.0", "defective": "1.0"}
    for name, probability in ends.items():
        found = [Path(path).name for path, given, _ in listed if float(given) == float(probability)]
        for number, image in enumerate(found[:32]):
            where = place / (f"photos/{name}" if number < 24 else "new" if number < 26 else "unlabelled")
            where.mkdir(parents=True, exist_ok=True)
            shutil.copy(source / "images" / image, where)
    shutil.copy(next((place / "new").iterdir()), place / "photo.jpg")
    paths = sorted(path.relative_to(place / "photos") for path in (place / "photos").rglob("*.png"))
    (place / "labels.csv").write_text("path,label\n" + "".join(f"{path},{path.parent}\n" for path in paths))
    for folder in (place, place / "dinov2", place / "siglip"):
        folder.mkdir(exist_ok=True)
        onnx_models.conv_net(folder / "model.onnx")
    (place / "siglip" / "preprocessor_config.json").write_text(
        '{"image_mean": [0.5, 0.5, 0.5], "image_std": [1, 1, 1]}'
    )
    own_models.vit().save(place / "my_model.keras")
    (place / "pipeline.yaml").write_text(CONFIG)
    program = place / "bin" / "pipeline"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m pipeline "$@"\n')
    program.chmod(0o755)
    assert run(place, "pipeline run head logistic knn && pipeline tag head/logistic v3", place).returncode == 0
    yield place
    shutil.rmtree(place)


def run(folder: Path, text: str, shop: Path, language: str = "sh") -> subprocess.CompletedProcess[str]:
    """Run a block in `folder`, with the command of this source tree, and a home of the shop's own."""
    own = {
        "PATH": f"{shop / 'bin'}{os.pathsep}{os.environ['PATH']}", "PYTHONPATH": str(REPOSITORY),
        "XDG_CACHE_HOME": str(shop / "home" / "cache"), "XDG_CONFIG_HOME": str(shop / "home" / "config"),
    }  # fmt: skip
    words = [sys.executable, "-"] if language == "python" else ["bash", "-e", "-o", "pipefail"]
    return subprocess.run(
        words, input=text, cwd=folder, env={**os.environ, **own}, text=True, capture_output=True, check=False
    )


def test_blocks_that_are_not_run_are_few_and_have_a_reason() -> None:
    found = [block for page in PAGES for block in blocks(page) if block.language in ("sh", "python")]
    assert Counter(block.why_not for block in found if block.why_not) == NOT_RUN
    assert sum(block.why_not is None for block in found) >= 30
    fences = sum(len(re.findall("^```", page.read_text(), re.MULTILINE)) for page in PAGES)
    assert fences == 2 * sum(len(blocks(page)) for page in PAGES), "a block without a language"


@pytest.mark.timeout(900)  # a dozen commands, each a process
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_each_block_runs(page: Path, shop: Path, tmp_path: Path) -> None:
    folder = tmp_path / "project"
    shutil.copytree(shop, folder, ignore=shutil.ignore_patterns("bin", "home"))
    config = OTHER_CONFIG.get(page.name, CONFIG)
    (folder / "pipeline.yaml").unlink()
    if config is not None:
        (folder / "pipeline.yaml").write_text(config.replace("TEAM", str(tmp_path / "team")))
    for block in blocks(page):
        where = f"{page.relative_to(REPOSITORY)}, line {block.line}"
        if block.language == "yaml":
            (folder / "block.yaml").write_text(block.text)
            yaml_file.load(folder / "block.yaml")
        elif block.language in ("sh", "python") and block.why_not is None:
            ran = run(folder, block.text, shop, block.language)
            assert ran.returncode == 0, f"{where}: exit {ran.returncode}\n{block.text}\n{ran.stdout}\n{ran.stderr}"
