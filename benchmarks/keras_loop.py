"""What one would otherwise write: image_dataset_from_directory, model.predict, np.save. Same network, same weights."""

from __future__ import annotations

import sys
from pathlib import Path

import keras
import numpy as np

from cache.statindex import StatIndex
from cache.store import Cache
from stages import bases, keras_base, weights


def main(images: Path, output: Path) -> None:
    base = bases.get("efficientnet_lite0")
    file = weights.resolve(base, "imagenet", Path("imagenet"), Cache(output / "unused", StatIndex()), offline=True).path
    trunk = keras_base.build(base, file, 224, 224)
    inputs = keras.Input((224, 224, 3))
    maps = trunk((inputs - 127.0) / 128.0)
    model = keras.Model(inputs, keras.layers.GlobalAveragePooling2D()(maps))
    dataset = keras.utils.image_dataset_from_directory(images, image_size=(224, 224), batch_size=32, shuffle=False)
    features = model.predict(dataset, verbose=0)
    labels = [Path(path).parent.name for path in dataset.file_paths]  # not a second pass over the dataset
    np.savez(output / "features.npz", features=features, labels=labels)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
