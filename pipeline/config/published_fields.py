"""Owns fields that pipeline.yaml leaves out and a file beside the base sets: its preprocessing. Not reading that file
(stages/bases/published.py).
"""

from pathlib import Path
from typing import Any

from cache.errors import Unusable
from stages.bases import catalogue
from stages.bases.published import Published, find_published


def fill(tree: dict[str, Any], folder: Path) -> dict[str, Any]:
    """The tree of a pipeline.yaml in `folder`, with what is published beside its model files; what it sets stays.

    Raises Unusable where that is something which is not offered here, and the tree does not set it.
    """
    found, extract, filled = _published(tree.get("base"), folder), tree.get("extract") or {}, dict(tree)
    if not isinstance(extract, dict):
        return tree  # an error that validation names
    if found is not None:
        filled["base"] = _with_numbers(tree["base"], found)
        extract = _with_pixels(extract, found, "extract")
    taps = extract.get("taps")
    if isinstance(taps, dict):
        own = {name: _published(tap.get("base"), folder) for name, tap in taps.items() if isinstance(tap, dict)}
        for name, theirs in own.items():
            if theirs is not None:
                tap = {**taps[name], "base": _with_numbers(taps[name]["base"], theirs)}
                taps = {**taps, name: _with_pixels(tap, theirs, f"extract.taps.{name}")}
        extract = {**extract, "taps": taps}
    return {**filled, "extract": extract} if extract else filled


def lines(found: Published) -> dict[str, Any]:
    """The fields that it sets, as in pipeline.yaml."""
    numbers = {} if found.preprocess is None else {"base": {"preprocess": _plain(found.preprocess.components())}}
    return {**numbers, "extract": _pixels(found)}


def _published(base: Any, folder: Path) -> Published | None:
    name = base.get("name") if isinstance(base, dict) else base
    if not isinstance(name, str) or catalogue.find_format(name).reader is None:
        return None
    file = folder / Path(name).expanduser()
    numbers, found = base.get("preprocess") if isinstance(base, dict) else None, find_published(file)
    if numbers is None and found is None and not file.is_file():
        raise Unusable(f"base.name: {file} is not there", "correct the path (it is relative to pipeline.yaml)")
    return found


def _with_numbers(written: Any, found: Published) -> dict[str, Any]:
    base: dict[str, Any] = {"name": written} if isinstance(written, str) else dict(written)
    if base.get("preprocess") is None and found.preprocess is not None:
        base["preprocess"] = _plain(found.preprocess.components())
    return base


def _with_pixels(fields: dict[str, Any], found: Published, where: str) -> dict[str, Any]:
    theirs = _pixels(found)
    if fields.keys() & {"size", "fit", "resize_to"}:  # these belong together
        theirs = {name: value for name, value in theirs.items() if name == "resize"}
    if found.resize is None and found.size is not None and "resize" not in fields:
        raise Unusable(
            f"{where}.resize: {found.path} names a filter that is not offered here", "set resize: bicubic or bilinear"
        )
    return {**theirs, **fields}


def _pixels(found: Published) -> dict[str, Any]:
    size = found.size and (found.size[0] if found.size[0] == found.size[1] else list(found.size))
    fields = {"size": size, "fit": found.fit, "resize": found.resize, "resize_to": found.resize_to}
    return {name: value for name, value in fields.items() if value is not None}


def _plain(components: dict[str, Any]) -> dict[str, Any]:
    return {name: list(value) if isinstance(value, tuple) else value for name, value in components.items()}
