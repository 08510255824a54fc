"""Owns the text of the `pipeline cache` commands. Not what they do (pipeline/maintenance)."""

import os
from collections import Counter
from collections.abc import Mapping
from typing import Any

from rich.filesize import decimal

from pipeline.maintenance.compact import Compaction
from pipeline.maintenance.export_import import MANIFEST, Moved
from pipeline.maintenance.team_cache import Exchanged, RemoteContents
from pipeline.maintenance.upkeep import Contents, Tidied, Verified
from pipeline.results.model import SHORT
from pipeline.show.console import ERR, OUT, echo, format_config_option, format_time, make_table, relative_path
from stages.runtime.counted_words import count_of

_SHOWN = 5
_KINDS = {
    "features": "key", "manifest": "manifest", "converted": "converted model", "quarantine": "damaged file",
    "leftover": "leftover", "base": "file of a base",
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
    if (again := report.recomputed) is not None:
        some = f"{again.images:,} of {count_of(again.of, 'image')}"
        echo(f"computed {some} again, {count_of(len(again.taps), 'tap')}: {len(again.differing)} rows differ")


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


def show_compaction(done: Compaction) -> None:
    for key in done.keys:
        merged = f"{count_of(key.before, 'shard')} -> {key.after:,}"
        facts = (merged, count_of(key.rows, "row"), decimal(key.bytes), _what(key.components))
        echo(f"  {key.key[:SHORT]}  {'  '.join(facts)}")
    before, after = sum(key.before for key in done.keys), sum(key.after for key in done.keys)
    went = f"{count_of(before, 'small shard')} into {after:,}" if done.keys else "nothing"
    echo(f"{'would merge' if done.dry else 'merged'} {went}")
    if done.keys and not done.dry:
        freed = decimal(sum(key.bytes for key in done.keys))
        echo(f"the old files, {freed}, stay for a day for who reads them; after that, pipeline cache gc removes them")
    if done.in_use:
        echo(f"left alone, since a running job needs them: {', '.join(key[:SHORT] for key in done.in_use)}")


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


def show_remote(found: RemoteContents) -> None:
    """Rows by key, the latest first; then the totals of everything else."""
    rows = [entry for entry in found.entries if entry.kind == "features"]
    if rows:
        table = make_table("key", ">rows", ">size", "last pushed", "~what")
        for entry in sorted(rows, key=lambda entry: -entry.pushed):
            facts = (f"{entry.rows:,}", decimal(entry.bytes), format_time(entry.pushed), _what(entry.components))
            table.add_row(entry.name[:SHORT], *facts)
        OUT.print(table)
    for kind in ("manifest", "base", "leftover"):
        if some := [entry for entry in found.entries if entry.kind == kind]:
            echo(f"{kind}: {count_of(len(some), 'file')}, {decimal(sum(entry.bytes for entry in some))}")
    echo(f"{decimal(sum(entry.bytes for entry in found.entries))} in total, in {found.url}")


def show_remote_gc(found: RemoteContents) -> None:
    kinds = Counter(entry.kind for entry in found.going)
    for entry in found.going:
        if entry.kind == "features":
            pushed = f"pushed {format_time(entry.pushed)}"
            facts = (count_of(entry.rows, "row"), decimal(entry.bytes), pushed, _what(entry.components))
            echo(f"  {entry.name[:SHORT]}  {'  '.join(facts)}")
    went = ", ".join(count_of(n, _KINDS[kind]) for kind, n in kinds.items()) or "nothing"
    freed = sum(entry.bytes for entry in found.going)
    left = sum(entry.bytes for entry in found.entries) - freed
    echo(f"{'would remove' if found.dry else 'removed'} {went}, {decimal(freed)}, of {found.url}; {decimal(left)} left")
    if found.dry and found.going:
        echo("nothing is removed yet; others may need it: the same command with --yes removes it")


def show_pull(done: Exchanged) -> None:
    taken = done.traffic.pulled
    came = f"{count_of(taken.shards, 'shard')}, {count_of(taken.rows, 'row')}, {decimal(taken.bytes)}"
    echo(f"pulled {came} from {done.traffic.url}")
    for name, reason in taken.refused[:_SHOWN]:
        echo(f"  refused {name}: {reason}", ERR)
    lacking = f"{done.missing:,} of {count_of(done.images, 'image')} lack rows still, which a run computes"
    echo(lacking if done.missing else f"all {count_of(done.images, 'image')} have their rows")
    if done.manifest is not None:
        table = os.path.relpath(done.manifest, done.config.parent)
        echo(f"next: pipeline run head{format_config_option(done.config)} --set data.table={table}", whole=True)


def show_push(done: Exchanged) -> None:
    pushed = done.traffic.pushed
    went = f"{count_of(pushed.shards, 'shard')}, {count_of(pushed.rows, 'row')}, {decimal(pushed.bytes)}"
    there = f"; {pushed.there:,} were present already" if pushed.there else ""
    echo(f"pushed {went} to {done.traffic.url}{there}")
    if done.missing:
        echo(f"{done.missing:,} of {count_of(done.images, 'image')} lack rows here: pipeline run extract computes them")
    if done.manifest is not None:
        echo(f"without the images, elsewhere: pipeline cache pull --manifest {done.manifest[:SHORT]}")
        for name, digest in done.weights.items():
            echo(f"  with, in pipeline.yaml there, {name}: {digest}", whole=True)


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
