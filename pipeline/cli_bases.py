"""Owns the `pipeline bases` command: which bases there are, and the blocks of one. The facts are in stages/."""

from __future__ import annotations

import sys
from typing import Any

import rich_click as click

from pipeline.command import guarded, log_to_stderr
from pipeline.show import OUT, columns, say, show
from stages import bases, blocks, weights


@click.command("bases")
@click.argument("name", required=False)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object, on failure too.")
def bases_command(name: str | None, as_json: bool) -> None:
    """List the bases there are; of NAME, the blocks that fine-tuning can start from, and what their boundary takes."""
    log_to_stderr(False, False)
    found, error = guarded(lambda: _all() if name is None else _one(name))
    if found is not None and not as_json:
        _print(found, name)
    show("bases", {} if found is None else {"bases": found}, error, as_json, config=None)
    sys.exit(error.exit_code if error else 0)


def _all() -> list[dict[str, Any]]:
    return [
        {
            "name": base.name,
            "size": base.size,
            "feature_dim": base.feature_dim,
            "gmacs": base.gmacs,
            "blocks": len(blocks.of(base)),
            "weights": str(weights.official(base)),
            "at_hand": weights.official(base).is_file(),
        }
        for base in bases.BASES.values()
    ]


def _one(name: str) -> list[dict[str, Any]]:
    """Its blocks; what the maps that each reads take is of one image of the base's own size, as float32."""
    base = bases.get(name)
    return [
        {
            "block": block.name,
            "boundary": block.boundary,
            "shape": block.shape(base.size),
            "kilobytes": round(4 * block.channels * block.shape(base.size)[0] ** 2 / 1000, 1),
        }
        for block in blocks.of(base)
    ]


def _print(found: list[dict[str, Any]], name: str | None) -> None:
    if name is None:
        table = columns("base", ">size", ">features", ">billion MACs", ">blocks", "ImageNet weights")
        for base in found:
            here = "at hand" if base["at_hand"] else "not here; a run fetches them"
            cells = (f"{base[part]:,}" for part in ("size", "feature_dim", "gmacs", "blocks"))
            table.add_row(base["name"], *cells, here)
        OUT.print(table)
        return
    base_size = bases.get(name).size
    say(f"{name}: unfreeze_from BLOCK trains it and all after it, from the output of the layer before it\n")
    table = columns("block", "boundary", f">maps at {base_size} px", ">KB an image")
    for block in found:
        shape = " x ".join(map(str, block["shape"]))
        table.add_row(block["block"], block["boundary"], shape, f"{block['kilobytes']:,.0f}")
    OUT.print(table)
