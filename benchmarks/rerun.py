"""A second run, and a new head on cached rows, beside doing it again: python -m benchmarks.rerun [--rounds N]."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.contest import ENVIRONMENT, asked_rounds, demo, pipeline, race, report, weights_of

BASE = "efficientnet_lite0"


def main() -> None:
    rounds = asked_rounds(__doc__)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        config = demo(folder)
        time.sleep(2.1)  # a file younger than 2 s is hashed every time; nobody's images are
        subprocess.run(pipeline("run", "-c", config), check=True, env=ENVIRONMENT, stdout=subprocess.DEVNULL)
        again = [sys.executable, "-m", "benchmarks.keras_loop", name, BASE, str(weights_of(folder, BASE))]
        report(
            "Nothing has changed, 2,624 images",
            race(
                {"usual Keras loop again": lambda: again, "pipeline run": lambda: pipeline("run", "-c", config)}, rounds
            ),
        )

        def new_head() -> list[str]:
            shutil.rmtree(folder / "models", ignore_errors=True)
            return pipeline("run", "head", "-c", config)

        plain = [sys.executable, "-m", "benchmarks.plain_head", str(folder / "features.npz")]
        report(
            "A logistic head on 2,624 cached rows of 1,280",
            race({"plain scikit-learn on saved arrays, 19 C": lambda: plain, "pipeline run head": new_head}, rounds),
        )


if __name__ == "__main__":
    main()
