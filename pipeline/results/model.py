"""Owns one result under models/: its record, figures, head and tail, read back. Not finding it (registry.py).

It reads the model's own folder only: no image, no cache, no pipeline.yaml is needed to tell what made it.
"""

from __future__ import annotations

import contextlib
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from cache import npz, records
from cache.errors import Unusable
from stages.data.manifest import Manifest
from stages.heads.fitted import Head
from stages.metrics.figures import Calibration, Metrics

SHORT = 12
"""Digits of a key that are shown; six are enough to name one."""

_OWN_NO_MATTER = frozenset({"sweep", "mode", "seeds", "log_dir"})
_ROWS_NO_MATTER = frozenset({"taps", "engine", "batch", "shard_rows"})
"""Fields that don't tell a model from another of its name, of its own settings and of `extract`."""


@dataclass(frozen=True)
class Model:
    """One result under models/. `record` is {} where it cannot be read; fields that older ones lack are not there.

    `beaten`: a point of a sweep that has another as its best on val. `differs`: those of its settings that are not the
    same in all results of its name.
    """

    name: str
    key: str
    folder: Path
    record: dict[str, Any]
    tags: tuple[str, ...]
    beaten: bool = False
    differs: Mapping[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.name} {self.key[:SHORT]}"

    @property
    def created(self) -> float:
        """Seconds since the epoch."""
        return float(self.record.get("created", 0))

    @property
    def settings(self) -> dict[str, Any]:
        """What was set for it: its own fields by their names, and what its rows come from; {} without a record."""
        stage, _, name = self.name.partition("/")
        config = self.record.get("config", {})
        own = config.get("heads" if stage == "head" else stage, {}).get(name, {})
        found = {field: value for field, value in own.items() if field not in _OWN_NO_MATTER}
        if stage == "finetune" and found:
            found["seed"] = self.record["seed"]
        extract = config.get("extract", {})
        found["base"] = {field: value for field, value in config.get("base", {}).items() if field != "trust"}
        found["extract"] = {field: value for field, value in extract.items() if field not in _ROWS_NO_MATTER}
        return found

    @cached_property
    def damaged(self) -> bool:
        """Whether a file of it is gone or not as it was written; all are hashed for it."""
        return records.load_folder(self.folder) is None

    def read(self, file: str) -> dict[str, Any]:
        return records.read(self.folder / file)

    @property
    def listed_figures(self) -> Metrics | None:
        """As lists of models have them: without test where it is beaten, None where it is damaged."""
        if self.damaged:
            return None
        return self.figures.without_test() if self.beaten else self.figures

    @cached_property
    def head(self) -> Head:
        """Its classifier; of a fine-tuned model, on the features that its own blocks give, which no cache has."""
        return read_head(self.folder)

    @cached_property
    def tail(self) -> dict[str, np.ndarray]:
        """Weights of the blocks that were trained, by layer and number among its weights; none of a frozen base."""
        if not (self.folder / "tail.npz").exists():
            return {}
        with _trusted(self.folder):
            return npz.load(self.folder / "tail.npz")

    @property
    def metrics(self) -> dict[str, Any]:
        """metrics.json: {"val": {...}, "test": {...}}; of a fine-tuned model also `baseline`, those of the frozen head,
        and the paired `difference`."""
        return self.read("metrics.json")

    @cached_property
    def figures(self) -> Metrics:
        """The same, typed."""
        return Metrics.from_json(self.metrics)

    @property
    def calibration(self) -> Calibration:
        """What was fitted on val; of an older model, nothing."""
        return self.figures.calibration or Calibration()

    @property
    def history(self) -> dict[str, list[float]]:
        """Curves of what was trained in epochs, as loss and val_log_loss; {} for other kinds.

        One value for each epoch; val_log_loss of a fine-tuned model begins with epoch 0, the frozen head.
        """
        return dict(self.head.chosen.get("history", {}))

    def to_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "key": self.key,
            "folder": str(self.folder),
            "tags": self.tags,
            "created": self.created,
            "damaged": self.damaged,
            "beaten": self.beaten,
            "differs": dict(self.differs),
            "metrics": self.listed_figures,
        }

    def details(self) -> dict[str, Any]:
        """All there is to know of it: its record, what was chosen on val, images of each class in each split.

        Who asks for a model by its name is told what it does on test.
        """
        return {
            **self.to_json(),
            "metrics": self.figures,
            "head": self.read("head.json"),
            "counts": self.manifest().counts(),
            "record": self.record,
        }

    def manifest(self) -> Manifest:
        """The images it was made of, as they were labelled and split then."""
        return Manifest.from_bytes((self.folder / "manifest.jsonl").read_bytes())


def read_head(folder: Path) -> Head:
    """The head that lies in a model's folder. Raises Unusable for arrays that are not to be trusted."""
    with _trusted(folder):
        return Head.from_files({name: (folder / name).read_bytes() for name in ("head.npz", "head.json")})


@contextlib.contextmanager
def _trusted(folder: Path) -> Iterator[None]:
    """Raises Unusable for what is no array of ours: no pickled object is ever loaded."""
    try:
        yield
    except (ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile) as error:
        raise Unusable(
            f"the arrays in {folder} are not as this package writes them, and are not trusted: {error}",
            "take a model that this package made, and whose files nobody has touched since",
        ) from error
