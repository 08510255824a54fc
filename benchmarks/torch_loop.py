"""What one would otherwise write in PyTorch: ImageFolder, DataLoader, a timm model, np.save. Random weights.

python -m benchmarks.torch_loop FOLDER MODEL SIZE f32|bf16: FOLDER has images/ with a folder for each class. Nothing of
this package is imported, so that it runs under any Python that has timm.
"""

import os
import sys
from pathlib import Path

import numpy as np
import timm
import torch
from torchvision import datasets, transforms


def main(folder: Path, name: str, size: int, dtype: str) -> None:
    steps = [transforms.Resize((size, size)), transforms.ToTensor(), transforms.Normalize([0.5] * 3, [0.5] * 3)]
    images = datasets.ImageFolder(folder / "images", transforms.Compose(steps))
    loader = torch.utils.data.DataLoader(images, batch_size=32, num_workers=os.cpu_count() or 1)
    model = timm.create_model(name, num_classes=0).eval().to(memory_format=torch.channels_last)
    features = []
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=dtype == "bf16"):
        for pixels, _ in loader:
            features.append(model(pixels.to(memory_format=torch.channels_last)).float().numpy())
    np.savez(folder / "torch.npz", features=np.concatenate(features), labels=images.targets)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), sys.argv[4])
