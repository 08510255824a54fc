"""Owns a model's predictions as a table, with the paths, labels, splits and groups it was made of. Nothing is computed.

Read from models/ alone: neither images nor a cache is needed.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cache import files
from cache.errors import NotAvailable, Unusable
from pipeline.registry import Model
from stages.manifest import Row

FORMATS = (".csv", ".parquet")


@dataclass(frozen=True)
class Predictions:
    """One row for each labelled image (copies count once, as in the figures); probabilities (n, classes) float64."""

    rows: Sequence[Row]
    probabilities: np.ndarray
    classes: tuple[str, ...]

    def columns(self) -> dict[str, list[str | None] | np.ndarray]:
        """id, path, label, split, group, predicted, and `p_CLASS` for each class in the order of the head's."""
        rows = {field: [getattr(row, field) for row in self.rows] for field in Row._fields}
        predicted = [self.classes[i] for i in self.probabilities.argmax(axis=1)]
        columns = {f"p_{name}": self.probabilities[:, i] for i, name in enumerate(self.classes)}
        return {**rows, "predicted": predicted, **columns}

    def as_csv(self) -> bytes:
        """UTF-8 with a header; probabilities to the last bit, None as nothing, a byte that is not UTF-8 escaped."""
        out = io.StringIO()
        columns = self.columns()
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(columns)
        plain = (v.tolist() if isinstance(v, np.ndarray) else v for v in columns.values())
        writer.writerows(zip(*plain, strict=True))
        return out.getvalue().encode("utf-8", "backslashreplace")

    def as_parquet(self) -> bytes:
        """Raises NotAvailable where pyarrow is not installed."""
        try:
            import pyarrow
            from pyarrow import parquet
        except ImportError as error:
            raise NotAvailable("Parquet needs pyarrow", "pip install 'frozenbase[parquet]', or name a .csv") from error
        out = pyarrow.BufferOutputStream()
        columns = {
            name: pyarrow.array(values) if isinstance(values, np.ndarray) else pyarrow.array(_clean(values), "string")
            for name, values in self.columns().items()
        }
        parquet.write_table(pyarrow.table(columns), out)
        return bytes(out.getvalue())

    def write(self, path: Path) -> None:
        """As .csv or .parquet, by its name. Raises Unusable for another, before anything is written."""
        check_format(path)
        files.publish(path.absolute(), self.as_csv() if path.suffix.lower() == ".csv" else self.as_parquet())


def check_format(path: Path) -> None:
    """Raises Unusable where `path` ends in neither .csv nor .parquet."""
    if path.suffix.lower() not in FORMATS:
        raise Unusable(f"--output {path}: expected a name that ends in .csv or .parquet", "for example: out.csv")


def read(model: Model) -> Predictions:
    """The predictions that lie in a model's folder. Raises Unusable where they are not of the rows it was made of."""
    with np.load(model.folder / "predictions.npz", allow_pickle=False) as arrays:
        ids, probabilities = arrays["ids"].tolist(), arrays["probabilities"]
    manifest = model.manifest()
    paths = {(row.id, row.label, row.split): row.path for row in reversed(manifest.rows)}
    rows = [row._replace(path=paths[row.id, row.label, row.split]) for row in manifest.samples]
    if ids != [row.id for row in rows]:
        raise Unusable(
            f"{model}: predictions.npz and manifest.jsonl in {model.folder} tell of different images",
            f"make it again: pipeline reproduce {model.name}/{model.key[:12]}",
        )
    return Predictions(rows, probabilities, tuple(model.record["classes"]))


def _clean(values: Sequence[str | None]) -> list[str | None]:
    return [None if value is None else value.encode("utf-8", "backslashreplace").decode() for value in values]
