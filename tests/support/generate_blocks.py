"""Makes stages/bases/blocks.json from the networks: python -m tests.support.generate_blocks [BASE...]

A block is a run of layers whose names share a prefix; its boundary is the last layer before them whose output is all
that later layers read. Run it when a base is added, or when Keras names its layers otherwise.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from stages.bases import blocks, catalogue
from stages.bases.blocks import Block
from stages.bases.catalogue import Base

TABLE = Path(blocks.__file__).with_suffix(".json")
SIZE = 97
"""Pixels a side: 32 n + 1, so that all sides are odd. Keras pads some strided convolutions by parity, and an odd side
by as much on both ends, which is right for even ones too."""

NAMES = {
    "efficientnet_lite": r"(block\d+|head)_",
    "efficientnet": r"(block\d+[a-z]|top)_",
    "mobilenet_v2": r"(block_\d+(?=_)|Conv_1$)",
    "mobilenet_v3": r"(expanded_conv(?:_\d+)?|conv_1$)",
    "mobilenet": r"conv_(?:pad|dw|pw)_(\d+)",
    "resnet": r"(conv\d_block\d+)_",
    "densenet": r"(conv\d)_block",
    "inception_v3": r"(mixed\d+)$",
    "inception_resnet": r"(mixed_\d[ab]|block\d+_\d+|conv_7b)",
    "xception": r"(block\d+)_",
    "convnext": r".*_(stage_\d)_block",
    "vgg": r"(block\d)_",
}
"""Start of a base's name -> what names a block in the names of its layers. NASNet's cells read two cells back."""


def find_blocks(base: Base, model: Any) -> list[Block]:
    """The blocks of a network that was built for images of SIZE pixels a side."""
    pattern = next((pattern for start, pattern in NAMES.items() if base.name.startswith(start)), None)
    if pattern is None:
        return []
    cuts, found, seen, boundary = find_cuts(model), [], set(), model.layers[0]
    for layer in model.layers:
        match = re.match(pattern, layer.name)
        if match and match[1] not in seen:
            seen.add(match[1])
            if not is_input(boundary):  # what reads the image is the stem
                name = f"block{match[1]}" if match[1].isdigit() else match[1]
                found.append(Block(name, boundary.name, boundary.output.shape[-1], *window_of(boundary.output)))
        if layer.name in cuts:
            boundary = layer
    for block in found:
        assert tuple(model.get_layer(block.boundary).output.shape[1:]) == block.shape(model.input_shape[1]), block
    return found


def find_cuts(model: Any) -> set[str]:
    """Layers whose output is all that later layers read of what lies before them."""
    order = {layer.name: number for number, layer in enumerate(model.layers)}
    last: dict[str, int] = {}
    for layer in model.layers:
        for node in layer._inbound_nodes:
            for tensor in node.input_tensors:
                source = tensor._keras_history.operation.name
                if source in order:
                    last[source] = max(last.get(source, 0), order[layer.name])
    cuts, reach = set(), 0
    for name, number in order.items():
        if reach <= number:  # nothing before it is read after it
            cuts.add(name)
        reach = max(reach, last.get(name, 0))
    return cuts


def window_of(tensor: Any) -> tuple[int, int]:
    """(window, stride) that all layers between the image and a tensor amount to.

    A side of n pixels leaves (n - window) // stride + 1, and two of those after each other are again one.
    """
    layer = tensor._keras_history.operation
    if is_input(layer):
        return 1, 1
    window, stride = window_of(max(layer._inbound_nodes[0].input_tensors, key=lambda t: t.shape[1:2]))
    for size, step in layer_windows(layer):
        window, stride = window + stride * (size - 1), stride * step
    return window, stride


def layer_windows(layer: Any) -> Iterator[tuple[int, int]]:
    """(size, stride) of the windows of a layer. `same` rounds up, as size 1 does; padding makes a window smaller."""
    if hasattr(layer, "layers"):
        for inner in layer.layers:
            yield from layer_windows(inner)
    elif type(layer).__name__ == "ZeroPadding2D":
        yield 1 - sum(layer.padding[0]), 1
    elif size := getattr(layer, "kernel_size", getattr(layer, "pool_size", None)):
        yield size[0] if layer.padding == "valid" else 1, layer.strides[0]


def is_input(layer: Any) -> bool:
    return type(layer).__name__ == "InputLayer"


def main(names: list[str]) -> None:
    import keras

    from stages.keras_models import build

    table = json.loads(TABLE.read_text()) if names else {}
    for base in map(catalogue.get_base, names or catalogue.BASES):
        table[base.name] = find_blocks(base, build.build_base(base, None, SIZE, SIZE))
        keras.backend.clear_session()
    bases = [
        f'"{name}": [\n' + ",\n".join(f"  {json.dumps(row)}" for row in table[name]) + "\n]"
        for name in catalogue.BASES
        if table.get(name)
    ]
    TABLE.write_text("{\n" + ",\n".join(bases) + "\n}\n")


if __name__ == "__main__":
    main(sys.argv[1:])
