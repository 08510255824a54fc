"""How large a report is, and how long it takes: python -m benchmarks.report [--kinds NAME...] [--counts N...].

Whole processes of `pipeline report` after a run: with nothing there; with the page up to date; of another head, for
which images need not be placed on the map again; without the audit; and without all that takes long. CPU seconds beside
those of the clock, which another process on the machine makes longer.
"""

from __future__ import annotations

import argparse
import resource
import shutil
import subprocess
import sys
import time
from pathlib import Path

from benchmarks.pictures import KINDS, lay_out
from pipeline.report.report import PARTS

CONFIG = "data: {split: {method: stratified}}\nextract: {size: 224}\nheads: {logistic: {}, ridge: {kind: ridge}}\n"


def timed(*words: str) -> tuple[float, float]:
    """Seconds by the clock and of CPUs of a command."""
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    subprocess.run([sys.executable, "-m", "pipeline", *words], check=True, capture_output=True)
    after, seconds = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic() - start
    return seconds, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--kinds", nargs="+", choices=list(KINDS), default=["cells", "web"])
    options.add_argument("--counts", nargs="+", type=int, default=[300, 2624])
    options.add_argument("--folder", type=Path, default=Path("bench-out/report"))
    asked = options.parse_args()
    print("| pictures | images | MB | all | up to date | of another head | without audit | without all that is long |")
    print("|---|---|---|---|---|---|---|---|")
    for kind in asked.kinds:
        for wanted in asked.counts:
            folder = asked.folder / f"{kind}-{wanted}"
            config = folder / "pipeline.yaml"
            n = len([*(folder / "images").rglob("*.*")]) if config.exists() else lay_out(folder, kind, wanted)
            config.write_text(CONFIG)
            subprocess.run([sys.executable, "-m", "pipeline", "run", "-c", config], check=True, capture_output=True)
            page, other = folder / "report.html", folder / "other.html"
            for path in (page, other):
                path.unlink(missing_ok=True)
            shutil.rmtree(folder / "models" / "map", ignore_errors=True)
            cells = [report(config, "logistic", page)]
            cells += [report(config, "logistic", page), report(config, "ridge", other)]
            cells += [report(config, "logistic", other, "audit"), report(config, "logistic", other, *PARTS)]
            megabytes = page.stat().st_size / 1e6
            print(f"| {kind} | {n:,} | {megabytes:.1f} | {' | '.join(cells)} |", flush=True)


def report(config: Path, head: str, page: Path, *without: str) -> str:
    left_out = [word for part in without for word in ("--without", part)]
    seconds, cpu = timed("report", f"head/{head}", "-c", str(config), "-o", str(page), *left_out)
    return f"{seconds:.1f} s ({cpu:.1f} CPU s)"


if __name__ == "__main__":
    main()
