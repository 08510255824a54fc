"""Small images in a folder, a bucket, tars and Parquet files: the same bytes and labels in each."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from tests.support.fakes import textured

Images = Sequence[tuple[str, bytes]]
"""(label, bytes of a PNG) of each."""


def two_labels(count: int, first: int = 0) -> Images:
    """`count` images of each of two classes that a head can tell apart."""
    return [(("dark", "bright")[seed % 2], textured(seed, bool(seed % 2))) for seed in range(first, first + 2 * count)]


def tar_of(members: Mapping[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, data in members.items():
            about = tarfile.TarInfo(name)
            about.size = len(data)
            tar.addfile(about, io.BytesIO(data))
    return buffer.getvalue()


def samples(images: Images, first: int = 0) -> dict[str, bytes]:
    """WebDataset's layout: KEY.png and KEY.cls."""
    found: dict[str, bytes] = {}
    for number, (label, data) in enumerate(images, start=first):
        found |= {f"{number:04d}.png": data, f"{number:04d}.cls": label.encode()}
    return found


def parquet_of(images: Images, group: int = 5, paths: Sequence[str | None] | None = None) -> bytes:
    """Hugging Face's layout: `image` {bytes, path}, and `label`, whose names the metadata tell."""
    names = sorted({label for label, _ in images})
    given = paths or [None] * len(images)
    table = pa.table(
        {
            "image": pa.array(
                [{"bytes": data, "path": path} for (_, data), path in zip(images, given, strict=True)],
                pa.struct([("bytes", pa.binary()), ("path", pa.string())]),
            ),
            "label": pa.array([names.index(label) for label, _ in images], pa.int64()),
        }
    )
    features = {"image": {"_type": "Image"}, "label": {"names": names, "_type": "ClassLabel"}}
    about = json.dumps({"info": {"features": features}})
    buffer = io.BytesIO()
    pq.write_table(table.replace_schema_metadata({"huggingface": about}), buffer, row_group_size=group)
    return buffer.getvalue()


def write_class_folders(root: Path, images: Images) -> None:
    for number, (label, data) in enumerate(images):
        path = root / label / f"{number:04d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


def write_files(root: Path, files: Mapping[str, bytes]) -> None:
    for name, data in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
