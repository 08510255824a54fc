"""Owns what is printed of a model file that may become a base. Not the facts (evaluation/foreign_base.py)."""

from pathlib import Path

from pipeline.config import published_fields, yaml_file
from pipeline.evaluation.foreign_base import FileFacts
from pipeline.show.console import OUT, echo, make_table
from stages.bases import trust
from stages.bases.formats import LayerInfo
from stages.bases.published import FILE

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
        echo(f"\nin pipeline.yaml, for example:\n  base: {facts.file}")
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


def _sides(layout: str, height: int | None, width: int | None) -> tuple[int | str, ...]:
    sides = (height or "height", width or "width")
    return (3, *sides) if layout == "nchw" else (*sides, 3)


def _shape(layer: LayerInfo) -> str:
    return "?" if layer.shape is None else " x ".join("?" if n is None else f"{n}" for n in layer.shape)
