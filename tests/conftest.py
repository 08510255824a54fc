"""Every test has a stat index and a configuration of its own, and no PIPELINE_ variable of the person who runs it."""

from __future__ import annotations

import json
import logging
import os
import signal
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from hypothesis import settings

from pipeline.project.progress import no_progress
from pipeline.project.project import Options, Project
from stages.extract import opened_bases
from tests.support import fakes

os.environ.pop("COLUMNS", None)  # of the terminal that pytest was started from; consoles read it when imported
signal.signal(signal.SIGINT, signal.default_int_handler)  # in a background job of a shell it is ignored

TALLY = pytest.StashKey[Counter[str]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    about = "size of the durability suite: 1 is all of it, 0.04 (default) a sample, 20 a night"
    parser.addoption("--scale", type=float, default=0.04, help=about)


def pytest_configure(config: pytest.Config) -> None:
    config.stash[TALLY] = Counter()
    examples = max(5, round(300 * config.getoption("--scale")))
    settings.register_profile("durability", max_examples=examples, stateful_step_count=20, deadline=None)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """What the durability tests tried, for docs to quote."""
    if config.stash[TALLY]:
        tried = ", ".join(f"{count:,} {what}" for what, count in sorted(config.stash[TALLY].items()))
        terminalreporter.write_line(f"durability: {tried}")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests that fork come first, before others have started threads."""
    items.sort(key=lambda item: item.get_closest_marker("forks") is None)


@pytest.fixture(autouse=True)
def _own_environment(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in list(os.environ):
        if name.startswith("PIPELINE_") or name == "COLUMNS":
            monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("host-cache")))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path_factory.mktemp("host-config")))
    opened_bases._embeds.clear()
    yield
    for name in (
        "cache",
        "stages",
        "stages.bases.weights",
        "pipeline",
    ):  # a command that ran here has set them up for itself
        logging.getLogger(name).handlers = []
        logging.getLogger(name).setLevel(logging.NOTSET)


@pytest.fixture
def scale(request: pytest.FixtureRequest) -> float:
    """1 for the whole durability suite, less for a sample of it (--scale)."""
    return request.config.getoption("--scale")


@pytest.fixture
def tally(request: pytest.FixtureRequest) -> Counter[str]:
    """How many cases of each kind were tried, told at the end of the run."""
    return request.config.stash[TALLY]


@pytest.fixture
def fast_path() -> Iterator[Path]:
    """An empty folder, in memory where there is such a place: what is written thousands of times needs no disk."""
    place = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(dir=place) as folder:
        yield Path(folder)


@pytest.fixture
def fake_embed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Extraction in this process computes numpy rows, and never imports TensorFlow."""
    monkeypatch.setattr(opened_bases, "open_embed", fakes.FakeEmbed)


@dataclass
class Ran:
    """Exit code and output of a `pipeline` command."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


Pipeline = Callable[..., Ran]
"""Of the fixture `pipeline`: what `command` is."""


def command(*words: str | Path, expect: int | None = None) -> Ran:
    """Run a `pipeline` command in this process, with the real base."""
    from pipeline.cli.main import main

    result = CliRunner().invoke(main, [str(word) for word in words])
    assert expect in (None, result.exit_code), result.output
    return Ran(result.exit_code, result.stdout, result.stderr)


def counts(ran: Ran) -> tuple[int, int]:
    """(computed, reused) of a run that went well."""
    assert ran.code == 0, ran.out + ran.err
    return ran.json["extract"]["computed"], ran.json["extract"]["reused"]


def extract(pipeline: Pipeline, config: Path, *more: str) -> tuple[int, int]:
    return counts(pipeline("run", "extract", "-c", config, "--json", *more))


def cache_files(config: Path) -> dict[Path, tuple[int, int]]:
    root = config.parent / ".features" / "features"
    return {p: (p.stat().st_ino, p.stat().st_mtime_ns) for p in root.rglob("*") if p.is_file()}


def edit_record(model: Path, **fields: Any) -> None:
    path = model / "record.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))


def write_finetuning(folder: Path, images: str = "images", size: int = 32) -> Path:
    """A project on real layers and real weights, as small as they go: 24 pictures of 32 pixels a side."""
    config = folder / "pipeline.yaml"
    config.write_text(
        f"data: {{root: {images}, split: {{val: 0.3, test: 0.2}}}}\nextract: {{size: {size}}}\n"
        "heads: {logistic: {C: 0.01}, wide: {C: 0.1}, near: {kind: knn}, early: {tap: pooled}}\n"
        "finetune:\n"
        "  last: {unfreeze_from: block16, lr: 1.0e-3, epochs: 2, batch: 8, augment: {flip: both}, views: 2}\n"
    )
    return config


def opened(config: Path, *overrides: str) -> Project:
    return Project(config, Options(overrides), no_progress)


@pytest.fixture
def pipeline(fake_embed: None) -> Pipeline:
    """The same with the fake embed."""
    return command


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A folder with 24 images in two classes and a pipeline.yaml; returns the path of the latter."""
    fakes.two_classes(tmp_path / "images", 12)
    config = tmp_path / "pipeline.yaml"
    config.write_text("data: {split: {val: 0.3, test: 0.2}}\nextract: {size: 16}\n")
    return config
