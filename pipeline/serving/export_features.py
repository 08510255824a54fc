"""Owns features as one file for other programs: npz, Parquet or HDF5. Not which rows (dataset.py), nor shards.

Each file has ids, labels, splits, groups, paths and features, a row for each image, and once the tap and the extract
key. Reading it takes neither this package nor pickle. Parquet has absolute paths too, as `files`, for viewers such as
Spotlight, and where that is asked for what a model predicts.
"""

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import h5py
import numpy as np

from cache import atomic_files
from cache.errors import Unusable
from pipeline.project.project import Project
from pipeline.results.csv_parquet import Columns, as_utf8
from pipeline.results.model import Model
from pipeline.results.predictions import read_predictions
from pipeline.runs.run import run_stages
from pipeline.serving import dataset
from pipeline.serving.dataset import Dataset
from stages.runtime.silent_imports import import_parquet
from stages.sources.places import text_of

Advance = Callable[[int], None]
_SUFFIXES = {".npz": "npz", ".parquet": "parquet", ".h5": "hdf5", ".hdf5": "hdf5"}
_COLUMNS = {"ids": "id", "labels": "label", "splits": "split", "groups": "group", "paths": "path"}


@dataclass(frozen=True)
class Written:
    """A file that was written; `shape` is that of the features."""

    file: Path
    format: str
    tap: str
    key: str
    shape: tuple[int, ...]
    dtype: str
    bytes: int


def export_features(
    project: Project,
    kind: str | None,
    path: Path,
    tap: str,
    split: str | None,
    force: bool,
    model: Model | None = None,
) -> Written:
    """Write the features of `split` (None: all images) at a tap to `path`, whole or not at all; compute missing ones.

    kind: one of WRITERS; None takes it from the suffix of `path`. model: whose predictions Parquet has too. Raises
    Unusable where something is there already (unless `force`), or pyarrow is needed and missing; Unwritable where it
    cannot be written; and as `OpenPipeline.features` does.
    """
    dataset.check_request(project, tap, split)
    kind = kind or _SUFFIXES.get(path.suffix)
    if kind is None:
        raise Unusable(f"--output {path}: expected a name that ends in {', '.join(_SUFFIXES)}", "or add --format")
    if path.is_dir():
        raise Unusable(
            f"{path} is a folder; expected the name of a file", f"name one in it: {path / f'features.{kind}'}"
        )
    if path.exists() and not force:
        raise Unusable(f"{path} is there already", "name another file, or replace it: --force")
    if kind == "parquet":
        import_parquet()
    elif model is not None:
        raise Unusable(f"--model adds columns to Parquet alone, not to {path.name}", "for example: -o features.parquet")
    chosen = dataset.select_rows(project, run_stages(project, (), {}), tap, split)
    with (
        project.progress("writing", len(chosen.images)) as advance,
        atomic_files.publish_stream(path.absolute()) as buffer,
    ):
        WRITERS[kind](buffer, chosen, _for_viewers(project, chosen, model) if kind == "parquet" else {}, advance)
    rows = chosen.rows
    return Written(path, kind, tap, chosen.key, rows.shape, rows.dtype.name, path.stat().st_size)


def _npz(buffer: BinaryIO, chosen: Dataset, more: Columns, advance: Advance) -> None:
    """Arrays by name; text of fixed width, "" for none. Features are in memory at once."""
    text = {name: [value or "" for value in values] for name, values in _columns(chosen).items()}
    arrays: dict[str, Any] = {"features": chosen.rows[:], **text, **_about(chosen)}
    np.savez(buffer, **arrays)
    advance(len(chosen.images))


def _hdf5(buffer: BinaryIO, chosen: Dataset, more: Columns, advance: Advance) -> None:
    """Datasets by name; text is UTF-8, "" for none."""
    with h5py.File(buffer, "w") as file:
        file.attrs.update(_about(chosen))
        for name, values in _columns(chosen).items():
            file.create_dataset(name, data=[value or "" for value in values], dtype=h5py.string_dtype())
        features = file.create_dataset("features", chosen.rows.shape, chosen.rows.dtype)
        for part, rows in chosen.blocks():
            features[part] = rows
            advance(len(rows))


def _parquet(buffer: BinaryIO, chosen: Dataset, more: Columns, advance: Advance) -> None:
    """A column each; features are lists of fixed length, maps flat, their shape in the metadata; null for none."""
    pa, parquet = import_parquet()
    shape = chosen.rows.shape[1:]
    width = int(np.prod(shape))
    about = {**_about(chosen), "shape": ",".join(map(str, shape))}
    columns: Columns = {**_columns(chosen), **more}
    types = {
        name: pa.from_numpy_dtype(values.dtype) if isinstance(values, np.ndarray) else pa.string()
        for name, values in columns.items()
    }
    features = pa.field("features", pa.list_(pa.from_numpy_dtype(chosen.rows.dtype), width))
    schema = pa.schema([*itertools.starmap(pa.field, types.items()), features], metadata=about)
    with parquet.ParquetWriter(buffer, schema) as writer:
        for part, rows in chosen.blocks():
            lists = pa.FixedSizeListArray.from_arrays(pa.array(rows.ravel()), width)
            others = [pa.array(values[part], types[name], from_pandas=True) for name, values in columns.items()]
            writer.write_table(pa.Table.from_arrays([*others, lists], schema=schema))
            advance(len(rows))


WRITERS: Mapping[str, Callable[[BinaryIO, Dataset, Columns, Advance], None]] = {
    "npz": _npz,
    "parquet": _parquet,
    "hdf5": _hdf5,
}


def _columns(chosen: Dataset) -> dict[str, list[str | None]]:
    return {name: [as_utf8(getattr(image, field)) for image in chosen.images] for name, field in _COLUMNS.items()}


def _for_viewers(project: Project, chosen: Dataset, model: Model | None) -> Columns:
    """Absolute paths, and the predictions that the model's figures are of: None or NaN where it has none."""
    files = [as_utf8(text_of(project.source.place(image.path))) for image in chosen.images]
    if model is None:
        return {"files": files}
    found = read_predictions(model)
    place = {row.id: number for number, row in enumerate(found.rows)}
    at = np.array([place.get(image.id, -1) for image in chosen.images])
    told = dict[str, Sequence[str | None] | np.ndarray]()
    for name, values in found.target.columns(found.probabilities).items():
        if isinstance(values, np.ndarray):
            told[name] = np.where(at < 0, np.nan, values[at])
        else:
            told[name] = [None if number < 0 else values[number] for number in at.tolist()]
    return {"files": files, **told}


def _about(chosen: Dataset) -> dict[str, str]:
    return {"tap": chosen.tap, "extract_key": chosen.key}
