"""What bfloat16 costs a head: python -m benchmarks.numerics. The demo's logistic head on rows of each arithmetic.

Largest difference of a feature by the scale of the features; figures on test, and their paired difference to f32.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np

import pipeline
from benchmarks.contest import demo
from benchmarks.elpv import ask, shown

NUMERICS = ("f32", "openvino-bf16", "tensorflow-bf16")


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        config = demo(Path(name))
        print("| numerics | largest difference | test accuracy (95 %) | test AUROC (95 %) | to f32: accuracy | AUROC |")
        print("|---|---|---|---|---|---|")
        heads, exact = {}, np.empty(0)
        for numerics in NUMERICS:
            ran = ask("run", "-c", config, "--set", f"extract.numerics={numerics}")
            heads[numerics] = ran["heads"]["logistic"]
            rows = pipeline.open(config, {"extract.numerics": numerics}).features(compute=False).X
            exact = rows if numerics == "f32" else exact
            apart = f"{np.abs(rows - exact).max() / np.abs(exact).max():.1e}"
            both = ask("compare", heads["f32"]["key"], heads[numerics]["key"], "-c", config)["compare"]["difference"]
            gaps = [
                f"{both[f]['value']:+.4f} ({both[f]['ci'][0]:+.4f} to {both[f]['ci'][1]:+.4f})"
                for f in ("accuracy", "auroc")
            ]
            figures = shown(heads[numerics]["metrics"]["test"], "accuracy", "auroc")
            print(f"| {numerics} | {apart} | {figures} | {' | '.join(gaps)} |", flush=True)


if __name__ == "__main__":
    main()
