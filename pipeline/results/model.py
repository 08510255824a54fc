"""Owns one result under models/: record, figures, head and tail in its folder. Not finding it (registry.py)."""

import contextlib
import functools
import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from cache import keys, npz, records
from cache.errors import Unusable
from cache.hash_index import HashIndex, default_index_path
from cache.store import key_of
from pipeline.config.head_schema import DEFAULT_RATE, HEAD_KINDS
from pipeline.results import unknown
from pipeline.results.csv_parquet import Columns
from pipeline.results.frames import Tabular, figure_columns
from stages.data.manifest import Manifest
from stages.heads.average import KIND, Average
from stages.heads.fitted import Head
from stages.metrics.figures import EVALUATED, Calibration, Metrics
from stages.unknown.distance import Unknown

log = logging.getLogger(__name__)

SHORT = 12
"""Digits of a key that are shown; six are enough to name a model."""

FIELDS: records.Fields = {
    "stage": str, "name": str, "classes": list, "manifest": str, "images": int, "created": int | float,
    "seconds": int | float, "seed": int | None, "rows_made_by": list, "versions": {"frozenbase": str},
    "files": {records.ANY: str}, "extract": {records.ANY: {"key": str}},
    "config": {"base": {"weights": str}, "extract": dict, "data": dict, "cache": {"dir": str | None}, "heads": dict},
}  # fmt: skip
"""What all records of results have, those of earlier versions too."""

_NOT_COMPARED = {
    "own": {"sweep", "mode", "seeds", "average", "log_dir"},
    "base": {"trust"},
    "extract": {"taps", "engine", "batch", "shard_rows"},
    "data": {"root", "table", "columns", "on_bad", "on_leak", "max_pixels", "follow_links"},
}
"""Fields that are left out when models of one name are told apart by their settings."""


def read_record(path: Path) -> dict[str, Any]:
    """The record of a result; {} where there is none or, with a warning, a damaged one."""
    record = records.load(path, FIELDS) or {}
    try:
        if record:
            _check_record(record, *path.parts[-4:-2])
        return record
    except (KeyError, TypeError) as error:
        log.warning("record %s is damaged (%s); taken as absent", path, error)
        return {}


def _check_record(record: Mapping[str, Any], stage: str, name: str) -> None:
    """Raises KeyError or TypeError where the settings of that result, its taps or their keys are not what they were."""
    if (record["stage"], record["name"]) != (stage, name):
        raise KeyError(f"{record['stage']}/{record['name']}")
    config, extract = record["config"], record["extract"]
    head = config["heads"][name if stage == "head" else config["finetune"][name]["head"]]
    taps = [head["tap"]] if isinstance(head["tap"], str) else head["tap"]
    lacking = {*taps, *(["boundary"] if stage == "finetune" else [])} - extract.keys()
    wrong = {tap for tap, parts in extract.items() if key_of({**parts, "key": None}) != parts["key"]}
    if lacking or wrong or not head["kind"]:
        raise KeyError(*lacking, *wrong)


@dataclass(frozen=True, repr=False)
class Model(Tabular):
    """One result under models/. `record` is {} where it cannot be read; older ones lack fields.

    `beaten`: a point of a sweep that is not its best. `current`: what its name means. `choice`: the folder of the
    choice by folds that it won in a sweep. `differs`: the settings that results of its name don't share.
    """

    name: str
    key: str
    folder: Path
    record: dict[str, Any]
    tags: tuple[str, ...]
    beaten: bool = False
    current: bool = False
    choice: Path | None = None
    differs: Mapping[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.name} {self.key[:SHORT]}"

    def summary(self) -> str:
        return str(self)

    def columns(self) -> Columns:
        """A row for each figure, with its value and interval in val and test."""
        return figure_columns(self.figures)

    @property
    def created(self) -> float:
        """Seconds since the epoch."""
        return float(self.record.get("created", 0))

    @property
    def settings(self) -> dict[str, Any]:
        """Its own fields by name, and those of base, extract and data that decide its rows; {} without a record."""
        stage, _, name = self.name.partition("/")
        config = self.record.get("config", {})
        own = config.get("heads" if stage == "head" else stage, {}).get(name, {})
        found = _compared("own", own)
        if stage == "finetune" and found:
            found["seed"] = "average" if self.record["seed"] is None else self.record["seed"]
        found["base"] = _compared("base", config.get("base", {}))
        found["extract"] = _compared("extract", config.get("extract", {}))
        taps = self.record.get("extract", {}).items()  # views are the boundary's, and follow from the settings
        found["taps"] = {tap: parts.get("tap") for tap, parts in taps if stage == "head" or not tap.startswith("view ")}
        found["data"] = _compared("data", config.get("data", {}))
        return found

    @property
    def behind(self) -> dict[str, Any]:
        """What else may make it another: the keys of its rows and of its first head, images, classes, versions."""
        rows = {tap: parts["key"][:SHORT] for tap, parts in self.record.get("extract", {}).items()}
        names = ("head", "manifest", "classes", "head_version", "finetune_version")
        others = {name: self.record.get(name) for name in names}
        short = {name: value[:SHORT] for name, value in others.items() if isinstance(value, str)}
        return {"rows": rows, **others, **short}

    @cached_property
    def image_sets(self) -> dict[str, str]:
        """A digest of the labelled images of val and test: figures of different sets cannot be compared."""
        return _image_sets((self.folder / "manifest.jsonl").read_bytes())

    @cached_property
    def damaged(self) -> bool:
        """Whether one of its files is missing or was changed; those that the index knows are not read again."""
        return not self.record or records.load_folder(self.folder, _index().digest) is None

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
        """Its classifier; of a fine-tuned model, on features of its own blocks, which no cache has.

        Of an averaged model it takes those of all members, joined.
        """
        return read_head(self.folder)

    @cached_property
    def tail(self) -> dict[str, np.ndarray]:
        """Weights of the blocks that were trained, by layer and number; empty for a frozen base.

        Of an averaged model those of all members, `0/` and so on before their names.
        """
        return read_tail(self.folder)

    @property
    def metrics(self) -> dict[str, Any]:
        """metrics.json in its folder: {"val": {...}, "test": {...}}; of a fine-tuned model also `baseline`, those of
        the frozen head, and the paired `difference`."""
        return self.read("metrics.json")

    @cached_property
    def judged_in(self) -> Path:
        """The folder of its figures and predictions: of a sweep's best point that of the choice, else its own."""
        record = None if self.choice is None else records.load_folder(self.choice, _index().digest, {"best": str})
        return self.choice if self.choice is not None and record and record["best"] == self.key else self.folder

    @cached_property
    def figures(self) -> Metrics:
        """Its metrics, typed; of a sweep's best point, those of folds are of the choice, not those by which it won."""
        return Metrics.from_json(records.read(self.judged_in / "metrics.json"))

    @cached_property
    def unknown(self) -> Unknown | None:
        """What tells images that are none of what it knows; None of fine-tuned models, which have no rows for it, and
        where no run has fitted it since this version."""
        stage, _, name = self.name.partition("/")
        config = self.record.get("config", {}).get("heads", {}).get(name)
        if stage != "head" or config is None:
            return None
        taps = [config["tap"]] if isinstance(config["tap"], str) else config["tap"]
        keyed = [self.record["extract"][tap]["key"] for tap in taps]
        figures, target = self.read("metrics.json").get("unknown", {}), self.head.target
        places = unknown.folders(self.folder.parents[3], keyed, self.manifest(), target, figures)
        found = unknown.read(unknown.find(places))
        return None if found is None else Unknown.at(found, config.get("unknown", DEFAULT_RATE))

    @property
    def calibration(self) -> Calibration:
        """What was fitted on val; of an older model, nothing."""
        return Metrics.from_json(self.metrics).calibration or Calibration()

    @property
    def history(self) -> dict[str, list[float]]:
        """One value for each epoch, as of loss and val_log_loss; {} for kinds that have no epochs.

        val_log_loss of a fine-tuned model begins with epoch 0, the frozen head; that of a dense head with the logistic
        one that it starts from.
        """
        return dict(self.head.chosen.get("history", {}))

    def to_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "key": self.key,
            "folder": self.folder,
            "tags": self.tags,
            "created": self.created,
            "damaged": self.damaged,
            "beaten": self.beaten,
            "current": self.current,
            "differs": dict(self.differs),
            "image_sets": None if self.damaged else self.image_sets,
            "metrics": self.listed_figures,
        }

    def details(self) -> dict[str, Any]:
        """Also its record, what was chosen on val, and images per class and split; figures of test are never hidden."""
        return {
            **self.to_json(),
            "metrics": self.figures,
            "head": self.read("head.json"),
            "counts": self.manifest().counts(self.record.get("classes", ()), self.head.target.counted),
            "record": self.record,
        }

    def manifest(self) -> Manifest:
        """Its images, with their labels and splits when it was made."""
        return Manifest.from_bytes((self.folder / "manifest.jsonl").read_bytes())


@lru_cache(maxsize=8)
def _image_sets(manifest: bytes) -> dict[str, str]:
    rows = Manifest.from_bytes(manifest).samples
    folds = not any(row.split == "val" for row in rows)
    sets = {"val": "val", "folds": "train" if folds else "", "test": "test"}
    images = {name: [[row.id, row.label] for row in rows if row.split == sets[name]] for name in EVALUATED}
    return {name: keys.digest("set", {"images": found})[:SHORT] for name, found in images.items()}


def _compared(section: str, fields: Mapping[str, Any]) -> dict[str, Any]:
    return {field: value for field, value in fields.items() if field not in _NOT_COMPARED[section]}


@functools.cache
def _index() -> HashIndex:
    return HashIndex(default_index_path())


def read_head(folder: Path) -> Head:
    """The head in a model's folder. Raises Unusable for arrays that cannot be trusted."""
    with _trusted(folder):
        files = {name: (folder / name).read_bytes() for name in ("head.npz", "head.json")}
        return Head.from_files(files, {KIND: Average, **{kind: row.form for kind, row in HEAD_KINDS.items()}})


def read_tail(folder: Path) -> dict[str, np.ndarray]:
    """The weights of the trained blocks in a model's folder; empty for a frozen base."""
    if not (folder / "tail.npz").exists():
        return {}
    with _trusted(folder):
        return npz.load(folder / "tail.npz")


@contextlib.contextmanager
def _trusted(folder: Path) -> Iterator[None]:
    """Raises Unusable for files that are no plain arrays: no pickled object is ever loaded."""
    try:
        yield
    except (ValueError, KeyError, TypeError) as error:
        raise Unusable(
            f"the arrays in {folder} are not as this package writes them, and are not trusted: {error}",
            "use a model that this package wrote and that was not changed since",
        ) from error
