"""Owns the text of the `pipeline cache` commands. Not what they do (pipeline/maintenance)."""

import os
from collections import Counter
from collections.abc import Mapping
from typing import Any

from rich.filesize import decimal

from pipeline.maintenance.export_import import MANIFEST, Moved
from pipeline.maintenance.upkeep import Contents, Tidied, Verified
from pipeline.results.model import SHORT
from pipeline.show.console import ERR, OUT, echo, format_config_option, format_time, make_table, relative_path
from stages.runtime.counted_words import count_of

_SHOWN = 5
_KINDS = {
    "features": "key", "manifest": "manifest", "converted": "converted model", "quarantine": "damaged file",
    "leftover": "leftover",
}  # fmt: skip
_DEFAULTS = {"numerics": "f32", "dtype": "float32"}


def show_contents(found: Contents) -> None:
    """Rows by key, with who needs them; then the totals of everything else."""
    rows = [entry for entry in found.entries if entry.kind == "features"]
    if rows:
        table = make_table("key", ">rows", ">size", "last used", "~what")
        for entry in sorted(rows, key=lambda entry: -entry.used):
            facts = (f"{entry.rows:,}", decimal(entry.bytes), format_time(entry.used), _what(entry.components))
            table.add_row(entry.name[:SHORT], *facts)
            for who in found.models.get(entry.name, []):
                table.add_row("", "", "", "", f"  made: {who}")
            for who in found.needs.get(entry.name, []):
                table.add_row("", "", "", "", f"  needed by: {who}")
        OUT.print(table)
    for kind in ("manifest", "converted", "quarantine", "leftover"):
        some = [entry for entry in found.entries if entry.kind == kind]
        if some:
            what = count_of(len(some), "model" if kind == "converted" else "file")
            echo(f"{kind}: {what}, {decimal(sum(entry.bytes for entry in some))}")
    echo(f"{decimal(sum(entry.bytes for entry in found.entries))} in total, in {relative_path(found.root)}")


def show_verified(report: Verified) -> None:
    of = f"{report.shards:,} of {count_of(report.of, 'shard')}, {decimal(report.bytes)}"
    echo(f"read {of}: {len(report.damaged)} damaged")
    for path, reason in report.damaged[:_SHOWN]:
        echo(f"  {relative_path(path)}: {reason}", ERR)


def show_gc(report: Tidied) -> None:
    kinds = Counter(entry.kind for entry in report.removed)
    freed = decimal(sum(entry.bytes for entry in report.removed))
    for entry in report.removed:
        if entry.kind == "features":
            rows = count_of(entry.rows, "row")
            echo(f"  {entry.name[:SHORT]}  {rows}  {decimal(entry.bytes)}  {_what(entry.components)}")
    went = ", ".join(count_of(n, _KINDS[kind]) for kind, n in kinds.items()) or "nothing"
    echo(f"{'would remove' if report.dry else 'removed'} {went}, {freed}; {decimal(report.left)} left")
    if report.needed:
        echo(f"{decimal(report.needed)} are needed (see pipeline cache ls) and stay")


def show_export(moved: Moved) -> None:
    _show_taken(moved)
    if not moved.taken.refused:
        echo(f"next: copy {moved.folder} to where the heads are trained, and there: pipeline run head")


def show_import(moved: Moved) -> None:
    _show_taken(moved)
    if moved.left_out:
        echo(f"left out of pipeline.yaml: {', '.join(moved.left_out)}")
        echo("  settings of its machine; write those that you want there, or use --set (for trust, only that)")
    if moved.taken.refused:
        return
    echo(f"next: pipeline run head{format_config_option(moved.config)}")
    if moved.manifest is not None and not (moved.config.parent / MANIFEST).exists():
        echo(f"  without the images: --set data.table={os.path.relpath(moved.manifest, moved.config.parent)}")


def _show_taken(moved: Moved) -> None:
    taken = moved.taken
    there = f"; {taken.there:,} were present already" if taken.there else ""
    came = f"{count_of(taken.shards, 'shard')}, {count_of(taken.rows, 'row')}, {decimal(taken.bytes)}"
    echo(f"{came} to {relative_path(moved.folder)}{there}")
    for path, reason in taken.refused[:_SHOWN]:
        echo(f"  refused {relative_path(path)}: {reason}", ERR)


def _what(spec: Mapping[str, Any]) -> str:
    """`efficientnet_lite0 224x224 squash, output avg`, and settings other than the defaults."""
    if not spec:
        return "its spec.json is damaged; the next run rewrites it"
    try:
        pixels, tap = spec["pixels"], spec["tap"]
        height, width = pixels["size"]
        text = f"{spec['base']['name']} {width}x{height} {pixels['fit']}, {tap['layer']} {tap['pooling']}"
    except (KeyError, TypeError, ValueError):
        return "made by another program, or an older version of this one"
    unusual = [str(spec.get(name)) for name, default in _DEFAULTS.items() if spec.get(name) != default]
    view = [f"view {spec['view'].get('number')}"] if isinstance(spec.get("view"), dict) else []
    return ", ".join([text, *unusual, *view])
