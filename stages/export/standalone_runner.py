"""Owns running an exported file without this package: python -I standalone_runner.py FILE. A TensorFlow room.

A process of its own, that nothing of ours comes into: nobody imports this module, and it imports none. On standard
input come pictures, each a line of height and width and then its bytes, RGB; on standard output goes one line of JSON
before the first, about the file, and one for each picture, its probabilities.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from typing import Any

OURS = ("pipeline", "stages", "cache")

Run = Callable[[Any], Any]


def main(path: str) -> None:
    bar()
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print is for no program to read
    import numpy as np

    run, about = (keras_file if path.endswith(".keras") else onnx_file)(path)
    out.write(json.dumps({**about, "ours": ours()}) + "\n")
    out.flush()
    while header := sys.stdin.buffer.readline():
        height, width = map(int, header.split())
        pixels = np.frombuffer(sys.stdin.buffer.read(3 * height * width), np.uint8).reshape(1, height, width, 3)
        out.write(json.dumps(np.asarray(run(pixels))[0].tolist()) + "\n")
        out.flush()


def bar() -> None:
    """Let every import of this package fail from now on, be it installed beside Keras or not."""
    sys.modules.update(dict.fromkeys(OURS))  # type: ignore[arg-type]


def ours() -> list[str]:
    """Modules of this package that the process has, against all odds."""
    return [name for name, module in sys.modules.items() if module is not None and name.partition(".")[0] in OURS]


def keras_file(path: str) -> tuple[Run, dict[str, Any]]:
    """Loaded in Keras's safe mode, which runs no code that a file brings along."""
    import keras

    model = keras.saving.load_model(path, compile=False, safe_mode=True)
    about = {"input": model.inputs[0].name, "output": model.output_names[0], "runtime": f"keras {keras.__version__}"}
    return lambda pixels: model(pixels, training=False), about


def onnx_file(path: str) -> tuple[Run, dict[str, Any]]:
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # or it keeps a device id in the user's cache, and sends events
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    name, output = session.get_inputs()[0].name, session.get_outputs()[0].name
    about = {"input": name, "output": output, "runtime": f"onnxruntime {onnxruntime.__version__}"}
    return lambda pixels: session.run(None, {name: pixels})[0], about


if __name__ == "__main__":
    main(sys.argv[1])
