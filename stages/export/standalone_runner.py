"""Owns running an exported file without this package, as a program: standalone_runner.py FILE. A TensorFlow room.

No module imports it, and it imports none of this package. Standard input: pictures, each a line with height and width,
then its RGB bytes. Standard output: one line of JSON about the file, then one for each picture, the numbers of all its
outputs, probabilities first.
"""

import json
import os
import sys
from collections.abc import Callable
from typing import Any

OWN_PACKAGES = ("pipeline", "stages", "cache")

Run = Callable[[Any], Any]


def main(path: str) -> None:
    block_own_packages()
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # libraries print to it too
    import numpy as np

    open_file = {".keras": keras_file, ".onnx": onnx_file, ".xml": openvino_file}[os.path.splitext(path)[1]]
    run, about = open_file(path)
    imported = [name for name, module in sys.modules.items() if module is not None]
    ours = [name for name in imported if name.partition(".")[0] in OWN_PACKAGES]
    out.write(json.dumps({**about, "ours": ours}) + "\n")
    out.flush()
    while header := sys.stdin.buffer.readline():
        height, width = map(int, header.split())
        pixels = np.frombuffer(sys.stdin.buffer.read(3 * height * width), np.uint8).reshape(1, height, width, 3)
        out.write(json.dumps([float(number) for part in run(pixels) for number in np.ravel(part)]) + "\n")
        out.flush()


def block_own_packages() -> None:
    """Let every import of this package fail from now on, installed or not."""
    sys.modules.update(dict.fromkeys(OWN_PACKAGES))  # type: ignore[arg-type]


def keras_file(path: str) -> tuple[Run, dict[str, Any]]:
    """Loaded in Keras's safe mode, which runs no code from the file."""
    import keras

    model = keras.saving.load_model(path, compile=False, safe_mode=True)
    about = {"input": model.inputs[0].name, "outputs": model.output_names, "runtime": f"keras {keras.__version__}"}

    def run(pixels: Any) -> Any:
        said = model(pixels, training=False)
        return said if isinstance(said, list | tuple) else [said]

    return run, about


def onnx_file(path: str) -> tuple[Run, dict[str, Any]]:
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # or it keeps a device id in the user's cache, and sends events
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    name, outputs = session.get_inputs()[0].name, [output.name for output in session.get_outputs()]
    about = {"input": name, "outputs": outputs, "runtime": f"onnxruntime {onnxruntime.__version__}"}
    return lambda pixels: session.run(None, {name: pixels}), about


def openvino_file(path: str) -> tuple[Run, dict[str, Any]]:
    """In float32: where a CPU has bfloat16, OpenVINO would take that."""
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # or it reports the import
    import openvino

    hint = {"INFERENCE_PRECISION_HINT": "f32"}
    model = openvino.Core().compile_model(path, "CPU", hint)
    version = openvino.get_version().partition("-")[0]
    outputs = [output.any_name for output in model.outputs]
    about = {"input": model.input(0).any_name, "outputs": outputs, "runtime": f"openvino {version}"}
    return lambda pixels: model([pixels]).to_tuple(), {**about, "settings": hint}


if __name__ == "__main__":
    main(sys.argv[1])
