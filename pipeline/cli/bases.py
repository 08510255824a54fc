"""Owns the `pipeline bases` commands and their lists. Not the facts (stages/bases), nor the shortlist's work."""

import math
from pathlib import Path
from typing import Any

import rich_click as click

from cache import atomic_files, keys
from cache.errors import Unusable
from pipeline.cli.options import Call, log_to_stderr, shared_options
from pipeline.evaluation import foreign_base
from pipeline.evaluation import quantise as quantising
from pipeline.evaluation import shortlist as shortlisting
from pipeline.show import base_tables, evaluation_tables
from pipeline.show.console import echo
from stages.bases import blocks, catalogue, hub, trust, weights
from stages.bases.blocks import AnyBlock
from stages.bases.catalogue import Base
from stages.bases.foreign_file import open_reader
from stages.bases.formats import load_function
from stages.runtime.silent_imports import without_banners


class _Bases(click.RichGroup):
    """Takes `pipeline bases [NAME]` for `pipeline bases list [NAME]`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        known = args and args[0] in (*self.commands, *ctx.help_option_names)
        return super().parse_args(ctx, args if known else ["list", *args])


_JSON = click.option("--json", "as_json", is_flag=True, help="Print one JSON object, on failure too.")


@click.group("bases", cls=_Bases)
def group() -> None:
    """List all bases, and the blocks and layers of one; fetch weights, trust a model file, find a base for your images.

    `pipeline bases [NAME]` is `pipeline bases list [NAME]`.
    """


@group.command("list")
@click.argument("name", required=False)
@click.option("--layers", is_flag=True, help="List the layers of NAME: each can be a tap.")
@click.option("--trust", "trusted", is_flag=True, help="Open a model file this once, and run its code.")
@_JSON
def list_command(name: str | None, layers: bool, trusted: bool, as_json: bool) -> None:
    """List all bases; of NAME, the blocks that fine-tuning can start from, and the size of their boundary maps.

    NAME may be a model file. Of an ONNX or OpenVINO file: its input, the preprocessing that is published beside it,
    and tensors that can be taps.
    """
    call = _call(as_json)
    if name is not None and catalogue.find_format(name).reader is not None:
        call.finish(
            lambda: foreign_base.describe_file(name, trusted), lambda found: base_tables.show_file(found, layers)
        )
    if layers:
        call.finish(lambda: _layers(name, trusted), base_tables.show_layers)
    if name is None:
        call.finish(lambda: [_facts(base) for base in catalogue.BASES.values()], base_tables.show_bases)
    if catalogue.is_model_file(name):
        call.finish(lambda: _found_blocks(name, trusted), lambda found: base_tables.show_cuts(found, name))
    call.finish(lambda: _blocks(name), lambda found: base_tables.show_base(found, _facts(catalogue.get_base(name))))


@group.command("fetch")
@click.argument("name")
@click.option("--repin", is_flag=True, help="Of hf://...: take other bytes than the first fetch gave.")
@_JSON
def fetch_command(name: str, repin: bool, as_json: bool) -> None:
    """Download the ImageNet weights of NAME, or a model file hf://OWNER/NAME[@REVISION]/PATH, unless they are there.

    With a model file come its external data. Its digest is noted, and what has another later is refused.
    """
    call = _call(as_json)
    if name.startswith("hf:"):
        call.finish(lambda: [hub.fetch(name, repin)], base_tables.show_fetched)
    call.finish(
        lambda: [_fetch_weights(name, repin)],
        lambda found: echo(f"the ImageNet weights of {name} are here: {found[0]['weights']}"),
    )


@group.command("trust")
@click.argument("path")
@click.option("--forget", "forgotten", is_flag=True, help="Take the trust back; PATH may be the SHA-256 of the file.")
@_JSON
def trust_command(path: str, forgotten: bool, as_json: bool) -> None:
    """Say that you trust the model file PATH: commands may then open it, and any copy, which runs its code as you.

    An ONNX or OpenVINO file that only computes needs no trust; with it, limits on memory and time are warnings.
    """
    _call(as_json).finish(lambda: [_forget(path) if forgotten else _trust(path)], base_tables.show_trust)


@group.command("shortlist")
@click.option("--base", "bases", multiple=True, metavar="NAME", help="Try these instead of all whose weights are here.")
@click.option("--size", "sizes", multiple=True, type=click.IntRange(16, 4096), metavar="PIXELS", show_default=True,
              default=shortlisting.SIZES, help="Try these sizes.")  # fmt: skip
@click.option("--sample", type=click.IntRange(20), default=shortlisting.IMAGES, show_default=True,
              help="How many labelled images of train and val to try them on.")  # fmt: skip
@shared_options("set", "offline", "quiet")
def shortlist_command(call: Call, bases: tuple[str, ...], sizes: tuple[int, ...], sample: int) -> None:
    """Try bases, sizes and taps on some of your images, and name the one to take.

    Of each base and size: the output, the layer before the last block, and your own taps. A logistic head on each is
    judged out of fold; seconds and MB are for all images. Rows stay in the cache.
    """

    def work() -> shortlisting.Shortlist:
        return shortlisting.shortlist(call.config, call.options, call.progress, bases, sizes, sample)

    call.finish(work, evaluation_tables.show_shortlist, "shortlist")


@group.command("quantise")
@click.argument("name")
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True, metavar="FILE.xml",
              help="The model file to write; its numbers lie beside it, in FILE.bin.")  # fmt: skip
@click.option("--images", "folder", type=click.Path(path_type=Path, file_okay=False, exists=True), metavar="FOLDER",
              help="Calibrate on the images below FOLDER, not on those of the project.")  # fmt: skip
@click.option("--size", type=click.IntRange(16, 4096), metavar="PIXELS",
              help="Pixels a side, instead of the project's; what is written takes no other.")  # fmt: skip
@click.option("--pictures", type=click.IntRange(1), default=quantising.PICTURES, show_default=True,
              help="How many images to calibrate on.")  # fmt: skip
@click.option("--layer", "layers", multiple=True, metavar="NAME", help="A layer of NAME to keep as a tap, by its name.")
@shared_options("set", "offline", "quiet")
def quantise_command(
    call: Call, name: str, output: Path, folder: Path | None, size: int | None, pictures: int, layers: tuple[str, ...]
) -> None:
    """Write the base NAME, or a model file, in 8 bits: a model file that OpenVINO runs faster, with other rows.

    Ranges of its numbers come from images of train and val. A head on those with labels is judged out of fold, and
    layers stay in float32 until a paired 95 % interval excludes a loss of more than half a point of accuracy.
    """

    def work() -> quantising.Quantised:
        return quantising.quantise(
            call.config, call.options, call.progress, name, output, folder, size, pictures, layers
        )

    call.finish(work, evaluation_tables.show_quantised, "quantise")


def _call(as_json: bool) -> Call:
    log_to_stderr(False, False)
    return Call("bases", as_json=as_json)


def _fetch_weights(name: str, repin: bool) -> dict[str, Any]:
    base = catalogue.get_base(name)
    if repin:
        raise Unusable("--repin is for a file on a hub (hf://...)", f"pipeline bases fetch {name}")
    weights.download(base)
    return _facts(base)


def _trust(name: str) -> dict[str, Any]:
    base = catalogue.choose_base(name)
    file = _model_file(base, name)
    reader = None if base.format.reader is None else open_reader(base.format)
    sha256, harm = weights.digest_of(base, file), None if reader is None else reader.find_harm(file)
    said = {} if harm is None else {"harm": harm}
    return {"file": name, "sha256": trust.trust_file(file, sha256), "trusted": True, **said}


def _forget(name: str) -> dict[str, Any]:
    base = catalogue.choose_base(name) if not keys.is_digest(name) else None
    sha256 = name if base is None else weights.digest_of(base, _model_file(base, name))
    if not trust.forget(sha256):
        raise Unusable(f"{name} is not trusted: there is no note of sha256 {sha256}", "there is nothing to take back")
    return {"file": name, "sha256": sha256, "trusted": False}


def _model_file(base: Base, name: str) -> Path:
    """The path of a base that is a file. Raises Unusable where it is none, or not there."""
    if base.is_file and Path(name).is_file():
        return Path(name)
    what = f"{name} is not there" if base.is_file else f"{name} is no model file"
    raise Unusable(what, "name a .keras, .h5, .onnx or .xml file")


def _layers(name: str | None, trusted: bool) -> list[dict[str, Any]]:
    """The layers of a base of the catalogue, or of a model file, for images of its own size."""
    if name is None:
        raise Unusable("--layers: expected the name of a base", "pipeline bases lists all names")
    base, file = catalogue.choose_base(name, trusted), Path(name)
    if base.is_file:
        _check_file(base, file)
    if base.format.layers is None:
        raise Unusable(f"the layers of a base of the kind {base.format.name!r} cannot be listed", "")
    with without_banners():
        list_layers = load_function(base.format.layers)
    return [layer._asdict() for layer in list_layers(base, file if base.is_file else None, base.size)]


def _check_file(base: Base, file: Path) -> None:
    """Raise Unusable where the file is not there, or may not be opened."""
    if not file.is_file():
        raise Unusable(f"{file} is not there", "name a model file, or a base that pipeline bases lists")
    if not (base.trusted or trust.is_trusted(atomic_files.sha256_of(file))):
        what = f"opening {file} can run code that it contains (in Lambda layers)"
        raise Unusable(what, f"{trust.advise(file)}; or, for one command, --trust")


def _found_blocks(name: str, trusted: bool) -> list[dict[str, Any]]:
    """The layers of a model file that fine-tuning can start from; maps are for images of the model's own size."""
    base, file = catalogue.choose_base(name, trusted), Path(name)
    blocks.check_trainable(base)
    _check_file(base, file)
    assert base.format.blocks is not None
    with without_banners():
        list_blocks = load_function(base.format.blocks)
    return [_block(block, base.size) for block in list_blocks(file, None, base.output) if block.listed]


def _block(block: AnyBlock, size: int) -> dict[str, Any]:
    """A block; the size of the maps that it reads is for one image of `size` pixels a side, as float32."""
    shape = block.shape(size)
    kilobytes = round(4 * math.prod(shape) / 1000, 1)
    return {"block": block.name, "boundary": block.boundary, "shape": shape, "kilobytes": kilobytes}


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
    """Its blocks; maps are for images of the base's own size."""
    base = catalogue.get_base(name)
    return [_block(block, base.size) for block in blocks.blocks_of(base)]
