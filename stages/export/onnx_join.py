"""Owns joining ONNX graphs end to end, as a file. Not what they compute (onnx_network.py). It imports no Keras, since a
process with limits is to start with it.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cache.errors import Unusable
from stages.bases import onnx_file, onnx_proto
from stages.bases.onnx_file import OWN

OLDEST, NEWEST_CONVERTED = 13, 18
"""Versions of ONNX's operators: the first that has all that resizing needs, and the last that tf2onnx writes."""

MOST_BYTES = 2_000_000_000
"""Of a file: protobuf's limit is 2 GiB. Above it, weights are in another file beside it (`data_path`)."""


def data_path(path: Path) -> Path:
    """Where the weights of a file above MOST_BYTES are."""
    return path.with_name(f"{path.name}.data")


def check_files(files: Sequence[Path]) -> None:
    """Raises Unusable where those bases cannot be joined, as far as that is known beforehand."""
    for file in files:
        size = sum(part.stat().st_size for part in [file, *onnx_file.data_files(file)])
        own, wanted = onnx_file.opset(file), find_opset(files)
        if size > MOST_BYTES and own != wanted:  # what raises the version holds the whole file in protobuf's bytes
            raise Unusable(
                f"{file} has {size / 1e9:.1f} GB and operators of ONNX's version {own}; above 2 GB they cannot be "
                f"raised to {wanted}, which the exported file has",
                f"export the base anew with opset {wanted}, or use pipeline predict",
            )


def find_batch(files: Sequence[Path]) -> int | None:
    """How many pictures a file on those bases takes at once; None for any number."""
    return next((batch for file in files if (batch := onnx_file.find_input(file).batch) is not None), None)


def find_opset(files: Sequence[Path]) -> int:
    """The version of ONNX's operators that a file on those bases has: the newest of theirs."""
    return max(OLDEST, *(onnx_file.opset(file) for file in files))


def join(
    parts: Sequence[Mapping[str, Any]],
    after: str,
    path: str,
    opset: int,
    batch: int | None,
    most: int,
    outputs: Sequence[str],
) -> None:
    """Write pictures -> each part's `before` -> its `file`, if it has one -> `after` -> `outputs` to `path`.

    The `inputs` of a part: by the name of an input of `after`, the tap of the file that it takes, None for the one
    output of `before`. Above `most` bytes, weights go to `data_path`. Raises Unusable where versions of operators
    cannot be reconciled.
    """
    import onnx

    models, nodes = [], []
    for i, part in enumerate(parts):
        models.append(_read(Path(part["before"]), f"before{i}/", opset))
        given = models[-1].graph.output[0].name
        nodes += [_link("Identity", "image", f"before{i}/image"), *models[-1].graph.node]
        if part["file"] is not None:
            file, prefix = Path(part["file"]), f"base{i}/"
            models.append(_read(file, prefix, opset))
            nodes += [_link("Identity", given, prefix + onnx_file.find_input(file).name), *models[-1].graph.node]
        for name, layer in part["inputs"].items():
            if layer is not None:
                given = models[-1].graph.output[0].name if layer == "output" else f"base{i}/{layer}"
            nodes.append(_link("Cast", given, f"after/{name}", to=onnx.TensorProto.FLOAT))
    models.append(_read(Path(after), "after/", opset))
    said = dict(zip(outputs, models[-1].graph.output, strict=True))
    nodes += [*models[-1].graph.node, *(_link("Identity", part.name, name) for name, part in said.items())]
    n = "n" if batch is None else batch
    shapes = {name: [n, *(dim.dim_value for dim in part.type.tensor_type.shape.dim[1:])] for name, part in said.items()}
    graph = onnx.helper.make_graph(
        [],
        "frozenbase",
        [onnx.helper.make_tensor_value_info("image", onnx.TensorProto.UINT8, [n, "height", "width", 3])],
        [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape) for name, shape in shapes.items()],
    )
    domains: dict[str, int] = {}
    for kind in (kind for model in models for kind in model.opset_import):
        domain = "" if kind.domain in OWN else kind.domain
        domains[domain] = max(kind.version, domains.get(domain, 0))
    whole = onnx.helper.make_model(
        graph,
        producer_name="frozenbase",
        ir_version=max(model.ir_version for model in models),
        opset_imports=[onnx.helper.make_opsetid(domain, version) for domain, version in domains.items()],
    )
    whole.graph.node.extend(nodes)
    for model in models:
        whole.graph.initializer.extend(model.graph.initializer)
        whole.graph.sparse_initializer.extend(model.graph.sparse_initializer)
        whole.functions.extend(model.functions)
        model.Clear()  # its weights would be held twice
    if sum(len(tensor.raw_data) for tensor in whole.graph.initializer) > most:
        onnx.save(whole, path, save_as_external_data=True, location=data_path(Path(path)).name)
    else:
        onnx.save(whole, path)


def _read(path: Path, prefix: str, opset: int) -> Any:
    """The model with its data, at that version, its names behind a prefix."""
    import onnx.compose
    import onnx.version_converter

    model = onnx_proto.read_whole(path)
    if _opset(model) != opset:
        try:
            model = onnx.version_converter.convert_version(model, opset)
        except Exception as error:
            reason = " ".join(str(error).split())[:200]
            raise Unusable(
                f"{path} has operators of ONNX's version {_opset(model)}, not to be raised to {opset}: {reason}",
                f"export the base anew, with an opset from {OLDEST} to {NEWEST_CONVERTED}",
            ) from error
    return onnx.compose.add_prefix(model, prefix, inplace=True)


def _link(operator: str, source: str, target: str, **attributes: Any) -> Any:
    import onnx

    return onnx.helper.make_node(operator, [source], [target], f"link/{target}", **attributes)


def _opset(model: Any) -> int:
    return int(next(kind.version for kind in model.opset_import if kind.domain in OWN))
