"""What one would otherwise write: the usual fine-tuning in Keras, images through the whole graph every epoch.

python -m benchmarks.finetune_loop BASE WEIGHTS BLOCK_LAYER FOLDER EPOCHS OUT: FOLDER has train/ and val/ with a folder
for each class; BLOCK_LAYER is the first layer that is trained. Seconds of each epoch are written to OUT as JSON.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import keras

from stages.bases import catalogue
from stages.keras_models import build

BATCH = 32


def main(name: str, weights: str, boundary: str, folder: Path, epochs: int, out: Path) -> None:
    base_row = catalogue.get_base(name)
    size = base_row.size
    train, val = (
        keras.utils.image_dataset_from_directory(
            folder / split, image_size=(size, size), batch_size=BATCH, label_mode="binary", verbose=False
        ).prefetch(2)
        for split in ("train", "val")
    )
    base = build.build_base(base_row, Path(weights), size, size)
    after = False
    for layer in base.layers:
        layer.trainable = after and not isinstance(layer, keras.layers.BatchNormalization)
        after = after or layer.name == boundary
    image = keras.Input((size, size, 3))
    x = keras.layers.Rescaling(1 / 127.5, -1)(image)
    x = keras.layers.GlobalAveragePooling2D()(base(x, training=False))
    model = keras.Model(image, keras.layers.Dense(1, "sigmoid")(x))
    model.compile(keras.optimizers.Adam(1e-5), "binary_crossentropy", metrics=["accuracy"])
    seconds = []
    for _ in range(epochs):
        started = time.perf_counter()
        model.fit(train, validation_data=val, verbose=0)
        seconds.append(time.perf_counter() - started)
    out.write_text(json.dumps(seconds))


if __name__ == "__main__":
    main(*sys.argv[1:4], Path(sys.argv[4]), int(sys.argv[5]), Path(sys.argv[6]))
