"""build.py and efficientnet_lite.py: the right networks with the right weights, proven on photographs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import skimage.data
from PIL import Image

from cache.errors import Unusable
from cache.hash_index import HashIndex
from cache.store import Cache
from stages.bases import catalogue, weights

LITE0 = catalogue.get_base("efficientnet_lite0")


@pytest.fixture(scope="module")
def lite0_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    cache = Cache(tmp_path_factory.mktemp("cache"), HashIndex())
    path = weights.resolve_weights(LITE0, "imagenet", Path("imagenet"), cache, offline=True).path
    assert path is not None
    return path


@pytest.mark.parametrize(("picture", "number"), [("chelsea", 285), ("coffee", 967)])
@pytest.mark.parametrize(
    ("name", "least"), [("efficientnet_lite0", 0.76), ("efficientnet_lite1", 0.6), ("efficientnet_lite2", 0.6)]
)
def test_lite_with_its_file_s_own_classifier(name: str, least: float, picture: str, number: int) -> None:
    """ImageNet class 285 is Egyptian cat, 967 is espresso: architecture, weights and preprocessing are all right."""
    from stages.bases import torch_pickle
    from stages.keras_models import build

    base = catalogue.get_base(name)
    side, file = base.size, weights.published_path(base)
    image = Image.fromarray(getattr(skimage.data, picture)()).resize((side, side), Image.Resampling.BICUBIC)
    model = build.build_base(base, file, side, side)
    maps = np.asarray(model((np.asarray(image, np.float32)[None] - 127) / 128, training=False))
    assert maps.shape[1:] == (-(-side // 32), -(-side // 32), base.feature_dim)
    tensors = torch_pickle.read_tensors(file)
    logits = tensors["_fc.weight"] @ maps.mean(axis=(1, 2))[0] + tensors["_fc.bias"]
    p = np.exp(logits - logits.max())
    p /= p.sum()
    assert p.argmax() == number
    assert p.max() > least


def test_a_weight_file_that_keras_wrote_round_trips(tmp_path: Path) -> None:
    from stages.keras_models import build

    base = catalogue.get_base("mobilenet_v2")
    one = build.build_base(base, None, 64, 64)
    one.save_weights(tmp_path / "w.weights.h5")
    two = build.build_base(base, tmp_path / "w.weights.h5", 64, 64)
    assert all(np.array_equal(a, b) for a, b in zip(one.get_weights(), two.get_weights(), strict=True))


def test_keras_finds_the_file_that_we_downloaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """MobileNetV2's file has no checksum in Keras, so one put there is taken for the download: no network is needed."""
    import h5py
    from keras.src.legacy.saving import legacy_h5_format

    from stages.keras_models import build

    base = catalogue.get_base("mobilenet_v2")
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    weights.published_path(base).parent.mkdir()
    with h5py.File(weights.published_path(base), "w") as file:
        legacy_h5_format.save_weights_to_hdf5_group(file, build.build_base(base, None, 224, 224))
    program = "import keras; keras.applications.MobileNetV2(include_top=False, weights='imagenet')"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert [path.name for path in (tmp_path / "models").iterdir()] == [base.weights]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("w.weights.h5", b"no hdf5", "do not fit vgg16 without its classifier"),
        ("w.pth", b"x", r"vgg16 takes Keras weights \(\.weights\.h5, \.h5\), not \.pth"),
        ("w.bin", b"x", r"unknown file type; expected \.weights\.h5, \.h5 or \.pth"),
    ],
)
def test_weights_that_do_not_fit(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    from stages.keras_models import build

    (tmp_path / name).write_bytes(content)
    with pytest.raises(Unusable, match=message):
        build.build_base(catalogue.get_base("vgg16"), tmp_path / name, 32, 32)


def test_weights_of_another_base_do_not_fit(tmp_path: Path) -> None:
    from stages.keras_models import build

    build.build_base(catalogue.get_base("mobilenet_v2"), None, 32, 32).save_weights(tmp_path / "w.weights.h5")
    with pytest.raises(Unusable, match="do not fit vgg16"):
        build.build_base(catalogue.get_base("vgg16"), tmp_path / "w.weights.h5", 32, 32)


def test_a_file_that_leaves_a_layer_untouched_does_not_fit(tmp_path: Path) -> None:
    """Keras would only warn, and the layer would keep its random weights."""
    import h5py

    from stages.keras_models import build

    base = catalogue.get_base("vgg16")
    build.build_base(base, None, 32, 32).save_weights(tmp_path / "w.weights.h5")
    with h5py.File(tmp_path / "w.weights.h5", "r+") as file:
        layers = file["layers"]
        del layers[sorted(name for name in layers if name.startswith("conv"))[4]]
    with pytest.raises(Unusable, match="do not fit vgg16"):
        build.build_base(base, tmp_path / "w.weights.h5", 32, 32)


def test_a_torch_file_that_lacks_a_tensor(monkeypatch: pytest.MonkeyPatch, lite0_file: Path) -> None:
    from stages.bases import torch_pickle
    from stages.keras_models import build

    tensors = torch_pickle.read_tensors(lite0_file)
    del tensors["_blocks.3._bn1.running_mean"]
    monkeypatch.setattr(torch_pickle, "read_tensors", lambda path: tensors)
    with pytest.raises(Unusable, match=r"no tensor '_blocks\.3\._bn1\.running_mean' for layer block4_depthwise_bn"):
        build.build_base(LITE0, lite0_file, 32, 32)


def test_too_small_a_picture_is_said() -> None:
    from stages.keras_models import build

    with pytest.raises(Unusable, match=r"extract\.size: vgg16 needs at least 32 pixels a side; got 16x16"):
        build.build_base(catalogue.get_base("vgg16"), None, 16, 16)
