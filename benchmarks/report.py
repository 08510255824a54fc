"""How large a report is, and how long it takes: python -m benchmarks.report [--kinds NAME...] [--counts N...].

Whole processes of `pipeline report` after a run, the first with nothing there, the second with the page up to date.
CPU seconds beside those of the clock, which another process on the machine makes longer.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import time
from pathlib import Path

from benchmarks.pictures import KINDS, lay_out

CONFIG = "data: {split: {method: stratified}}\nextract: {size: 224}\n"


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
    print("| pictures | images | MB | s | CPU s | again, s | without audit, map and activation, s |")
    print("|---|---|---|---|---|---|---|")
    for kind in asked.kinds:
        for wanted in asked.counts:
            folder = asked.folder / f"{kind}-{wanted}"
            config = folder / "pipeline.yaml"
            if config.exists():
                n = len([*(folder / "images").rglob("*.*")])
            else:
                n = lay_out(folder, kind, wanted)
                config.write_text(CONFIG)
            subprocess.run([sys.executable, "-m", "pipeline", "run", "-c", config], check=True, capture_output=True)
            page = folder / "report.html"
            page.unlink(missing_ok=True)
            seconds, cpu = timed("report", "-c", str(config))
            megabytes = page.stat().st_size / 1e6
            again, _ = timed("report", "-c", str(config))
            left_out = [word for part in ("audit", "map", "activation") for word in ("--without", part)]
            short, _ = timed("report", "-c", str(config), "-o", str(folder / "short.html"), *left_out)
            row = f"| {kind} | {n:,} | {megabytes:.1f} | {seconds:.0f} | {cpu:.0f} | {again:.1f} | {short:.1f} |"
            print(row, flush=True)


if __name__ == "__main__":
    main()
