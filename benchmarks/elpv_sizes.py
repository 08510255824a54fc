"""Frozen heads on several sizes and bases of ELPV's cells: python -m benchmarks.elpv_sizes --splits FILE --folder DIR

FILE is as for benchmarks.elpv. The head is chosen by five folds of the published train and val; then test is looked at,
once. Features take some minutes on two cores; what lies in DIR is not computed again.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from benchmarks.elpv import ask, lay_out, shown

SIZES = (160, 224, 300)
MIDDLE = {
    "efficientnet_lite0": ("block11_add", "block15_add"),
    "efficientnet_lite1": ("block15_add", "block20_add"),
    "efficientnet_lite2": ("block15_add", "block20_add"),
}
"""Of each base, the last layers of its last two stages with residual blocks."""


def taps(bases: list[str], sizes: tuple[int, ...], middle: bool = False) -> list[str]:
    """Names of taps: `BASE SIZE LAYER`."""
    layers = {base: ["output", *(MIDDLE[base] if middle else ())] for base in bases}
    return [f"{base} {size} {layer}" for base in bases for size in sizes for layer in layers[base]]


ALL = list(MIDDLE)
HEADS = {
    "lite0_224": taps(ALL[:1], (224,)),
    "lite0_224_300": taps(ALL[:1], (224, 300)),
    "lite0_3_sizes": taps(ALL[:1], SIZES),
    "lite1_3_sizes": taps(ALL[1:2], SIZES),
    "lite2_3_sizes": taps(ALL[2:], SIZES),
    "3_bases_160": taps(ALL, (160,)),
    "3_bases_3_sizes": taps(ALL, SIZES),
    "3_bases_3_sizes_middle": taps(ALL, SIZES, middle=True),
}


def project(folder: Path, splits: Path) -> Path:
    config = lay_out(folder, splits)
    lines = [config.read_text().splitlines()[0], "extract:", "  taps:"]
    for name in taps(ALL, SIZES, middle=True):
        base, size, layer = name.split()
        lines.append(f"    {name}: {{base: {base}, size: {size}, layer: {layer}}}")
    lines.append("heads:")
    lines += [f"  {name}: {{choose: folds, tap: [{', '.join(of)}]}}" for name, of in HEADS.items()]
    config.write_text("\n".join(lines) + "\n")
    return config


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--splits", type=Path, required=True)
    options.add_argument("--folder", type=Path, default=Path("bench-out/elpv_sizes"), help="work folder, kept")
    options.add_argument("--test", action="store_true", help="show test of the head that folds choose, too")
    asked = options.parse_args()
    asked.folder.mkdir(parents=True, exist_ok=True)
    config = project(asked.folder.absolute(), asked.splits)
    ask("run", "extract", "-c", config)
    found = {name: head["metrics"] for name, head in ask("crossval", "-c", config)["crossval"].items()}
    print("Folds of train and val (95 %):\n\n| head | taps | log-loss | AUROC | accuracy |\n|---|---|---|---|---|")
    for name, figures in found.items():
        print(f"| {name} | {len(HEADS[name])} | {shown(figures, 'log_loss', 'auroc', 'accuracy')} |")
    best = min(found, key=lambda name: found[name]["log_loss"])
    if not asked.test:
        return
    print("\n| | images | AUROC (95 %) | accuracy (95 %) |\n|---|---|---|---|")
    for name in dict.fromkeys(("lite0_224", best)):
        test = ask("run", "head", name, "-c", config)["heads"][name]["metrics"]["test"]
        print(f"| test, {name} | {test['n']} | {shown(test, 'auroc', 'accuracy')} |")
    for title, table in (("images at random", "splits.csv"), ("modules kept together", "modules.csv")):
        words = ("crossval", best, "--all", "-c", config, "--set", f"data.table={table}")
        folds = ask(*words)["crossval"][best]["metrics"]
        print(f"| 5 folds of all, {title}, {best} | {folds['n']} | {shown(folds, 'auroc', 'accuracy')} |")


if __name__ == "__main__":
    main()
