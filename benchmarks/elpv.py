"""Heads on frozen features of ELPV's solar cells, on a published split: python -m benchmarks.elpv --splits FILE.

FILE is a CSV with path, label, split and cell_type, such as elpv_splits.csv of the cellscan project (MIT licence),
which reports AUROC 0.951 and accuracy 87.8 % for a fine-tuned ResNet-18. Tap and size are chosen by val.
"""

from __future__ import annotations

import argparse
import csv
import importlib.util
import json
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.contest import BIN, ENVIRONMENT

SIZES = (224, 300)
TAPS = {
    "output_avg": "{layer: output, pooling: avg}",
    "output_max": "{layer: output, pooling: max}",
    "block16_avg": "{layer: block16_project_bn, pooling: avg}",
    "block11_avg": "{layer: block11_project_bn, pooling: avg}",
}
CELLS = 60
"""Of a module; the files run module by module, so that chunks of so many stand for modules (some 45 of them)."""


def lay_out(folder: Path, splits: Path) -> Path:
    """A project with the table's labels and splits; modules.csv has groups for splits. Returns its pipeline.yaml."""
    spec = importlib.util.find_spec("elpv_dataset")
    assert spec is not None
    assert spec.submodule_search_locations
    root = Path(spec.submodule_search_locations[0]) / "data"
    with open(splits, newline="") as file:
        rows = sorted(csv.DictReader(file), key=lambda row: row["path"])
    run, before, at = -1, "", 0
    grouped = []
    for row in rows:
        if row["cell_type"] != before:
            run, before, at = run + 1, row["cell_type"], 0
        grouped.append({"path": row["path"], "label": row["label"], "group": f"{run}-{at // CELLS}"})
        at += 1
    _write(folder / "splits.csv", [{name: row[name] for name in ("path", "label", "split")} for row in rows])
    _write(folder / "modules.csv", grouped)
    taps = "".join(f"    {name}: {tap}\n" for name, tap in TAPS.items())
    heads = "".join(f"  {name}: {{tap: {name}}}\n" for name in TAPS)
    config = folder / "pipeline.yaml"
    config.write_text(
        f"data: {{root: {root}, table: splits.csv, classes: ['0', '1']}}\nextract:\n  taps:\n{taps}heads:\n{heads}"
    )
    return config


def _write(path: Path, rows: list[dict[str, str]]) -> None:
    with open(path, "w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def ask(*words: str | Path) -> Any:
    done = subprocess.run([BIN / "pipeline", *words, "--json"], env=ENVIRONMENT, capture_output=True, check=True)
    return json.loads(done.stdout)


def shown(figures: dict[str, Any], *names: str) -> str:
    cells = [f"{figures[name]:.3f} ({figures['ci'][name][0]:.3f}-{figures['ci'][name][1]:.3f})" for name in names]
    return " | ".join(cells)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--splits", type=Path, required=True)
    splits = options.parse_args().splits
    with tempfile.TemporaryDirectory() as name:
        config = lay_out(Path(name), splits)
        found = {}
        for size in SIZES:
            heads = ask("run", "-c", config, "--set", f"extract.size={size}")["heads"]
            found |= {(size, tap): head["metrics"] for tap, head in heads.items()}
        print("| size | tap | val log-loss | val AUROC |\n|---|---|---|---|")
        ranked = sorted(found, key=lambda point: found[point]["val"]["log_loss"])
        for size, tap in ranked:
            val = found[size, tap]["val"]
            print(f"| {size} | {tap} | {val['log_loss']:.3f} | {shown(val, 'auroc')} |")
        print("\n| | images | AUROC (95 %) | accuracy (95 %) |\n|---|---|---|---|")
        for title, point in (("the usual: 224, output, avg", (224, "output_avg")), ("chosen by val", ranked[0])):
            test = found[point]["test"]
            print(f"| test, {title} ({point[0]}, {point[1]}) | {test['n']} | {shown(test, 'auroc', 'accuracy')} |")
        size, tap = ranked[0]
        for title, table in (("images at random", "splits.csv"), ("modules kept together", "modules.csv")):
            words = ("crossval", tap, "--all", "-c", config, "--set", f"extract.size={size}")
            folds = ask(*words, "--set", f"data.table={table}")["crossval"][tap]["metrics"]
            print(f"| 5 folds, {title} | {folds['n']} | {shown(folds, 'auroc', 'accuracy')} |")


if __name__ == "__main__":
    main()
