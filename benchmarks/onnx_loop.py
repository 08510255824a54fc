"""What one would otherwise write with an ONNX file: Pillow, onnxruntime, np.savez, in one loop of batches.

python -m benchmarks.onnx_loop FOLDER FILE SIZE: FOLDER has images/ with a folder for each class.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import onnxruntime
from PIL import Image

BATCH = 32
MEAN, STD = np.array([0.485, 0.456, 0.406], np.float32), np.array([0.229, 0.224, 0.225], np.float32)


def main(folder: Path, file: Path, size: int) -> None:
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    (given,) = session.get_inputs()
    paths = sorted(path for path in (folder / "images").rglob("*") if path.is_file())
    batch = given.shape[0] if isinstance(given.shape[0], int) else BATCH
    rows = []
    for start in range(0, len(paths), batch):
        pictures = [Image.open(path).convert("RGB").resize((size, size)) for path in paths[start : start + batch]]
        x = np.stack([np.asarray(picture) for picture in pictures])
        x = np.concatenate([x, np.zeros((batch - len(x), *x.shape[1:]), x.dtype)]) if len(x) < batch else x
        if given.type != "tensor(uint8)":
            x = (x / np.float32(255) - MEAN) / STD
        x = x.transpose(0, 3, 1, 2) if given.shape[1] == 3 else x
        (maps, *_) = session.run(None, {given.name: np.ascontiguousarray(x)})
        maps = maps[: len(pictures)]
        axes = (2, 3) if maps.ndim == 4 and given.shape[1] == 3 else tuple(range(1, maps.ndim - 1))
        rows.append(maps.mean(axis=axes) if maps.ndim > 2 else maps)
    np.savez(folder / "features.npz", features=np.concatenate(rows), labels=[path.parent.name for path in paths])


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]))
