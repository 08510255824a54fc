"""A table with all that may be predicted of a picture: labels, numbers, shares."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np

from tests.support import fakes

N = 48


def write_table(folder: Path) -> None:
    """48 pictures with all that may be predicted of them."""
    rng, rows = np.random.default_rng(0), []
    (folder / "images").mkdir()
    for i in range(N):
        bright = i % 2 == 0
        (folder / "images" / f"{i:02d}.png").write_bytes(fakes.textured(i, bright))
        share = round(float(rng.uniform(0.6, 1)) if bright else float(rng.uniform(0, 0.4)), 3)
        rows.append(
            {
                "path": f"{i:02d}.png",
                "light": int(bright),
                "large": i // 2 % 2,
                "odd": "" if i % 7 == 0 else i // 4 % 2,
                "level": round(200 * bright + float(rng.normal(0, 20)) + 1000, 2),
                "depth": round(float(rng.normal()), 3),
                "bright": share,
                "dark": round(1 - share, 3),
                "tags": ";".join(name for name, has in (("a", bright), ("b", i % 3)) if has) or ";",
                "same": 7,
                "none": 0,
                "label": "x" if bright else "y",
                "words": "old" if i == 4 else i,
                "huge": "inf" if i == 2 else i,
                "wrong": 0.9,
            }
        )
    with (folder / "table.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def write_config(folder: Path, target: str, heads: str = "{first: {}}") -> Path:
    config = folder / "pipeline.yaml"
    config.write_text(
        "data:\n  table: table.csv\n  split: {method: stratified, val: 0.3, test: 0.2}\n"
        f"  target: {target}\nextract: {{size: 16}}\nheads: {heads}\n"
    )
    return config
