"""What one would otherwise write: image_dataset_from_directory, model.predict, np.save. Same network, same weights.

python -m benchmarks.keras_loop FOLDER BASE WEIGHTS: FOLDER has images/ with a folder for each class.
"""

from __future__ import annotations

import sys
from pathlib import Path

import keras
import numpy as np

from stages.bases import catalogue
from stages.keras_models import build, trace


def main(folder: Path, name: str, weights: Path) -> None:
    base = catalogue.get_base(name)
    trunk = build.build_base(base, weights, base.size, base.size)
    inputs = keras.Input((base.size, base.size, 3))
    maps = trunk(trace.preprocess(inputs, base.preprocess))
    model = keras.Model(inputs, keras.layers.GlobalAveragePooling2D()(maps))
    size = (base.size, base.size)
    dataset = keras.utils.image_dataset_from_directory(
        folder / "images", image_size=size, batch_size=32, shuffle=False, verbose=False
    )
    features = model.predict(dataset, verbose=0)
    labels = [Path(path).parent.name for path in dataset.file_paths]  # not a second pass over the dataset
    np.savez(folder / "features.npz", features=features, labels=labels)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3]))
