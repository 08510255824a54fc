"""hub.py, and `pipeline bases fetch hf://...`: the real client, against a hub on 127.0.0.1 that fails in each way."""

from __future__ import annotations

import errno
import fnmatch
import hashlib
import logging
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from cache.errors import NotAvailable, Unusable, Unwritable
from stages.bases import hub
from tests.conftest import command
from tests.support import hub_server
from tests.support.hub_server import Hub

ONNX = b"onnx" * 50_000
DATA = b"data" * 20_000
NET = "hf://owner/net/onnx/model.onnx"
FILES = {
    "README.md": b"a card",
    "onnx/model.onnx": ONNX,
    "onnx/model.onnx_data": DATA,
    "onnx/model.onnx.data": b"more",
    "onnx/model.data": b"even more",
    "onnx/model_fp16.onnx": b"another",
    "onnx/model_fp16.onnx.data": b"another's",
    "preprocessor_config.json": b'{"at": "the root"}',
    "ir/net.xml": b"<net/>",
    "ir/net.bin": b"weights",
    "ir/preprocessor_config.json": b'{"at": "ir"}',
    "keras/net.keras": b"keras",
}


@pytest.fixture
def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A hub with FILES in main, which the client finds by its environment, imported anew since it reads that then."""
    with hub_server.running() as running:
        running.push(FILES)
        places = {"HF_ENDPOINT": running.url, "HF_HOME": str(tmp_path / "hf"), "no_proxy": "*"}
        settings = {"HF_HUB_ETAG_TIMEOUT": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
        for name in [name for name in os.environ if name.startswith(("HF_", "HUGGINGFACE_", "TRANSFORMERS_"))]:
            monkeypatch.delenv(name)
        for name, value in {**places, **settings}.items():
            monkeypatch.setenv(name, value)
        import_anew(monkeypatch)
        yield running
    logging.getLogger("huggingface_hub").handlers = []  # each import adds one


def import_anew(monkeypatch: pytest.MonkeyPatch, **environment: str) -> None:
    """Have the next fetch import the client, as in a new process; it then sleeps no second between its tries."""
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    for name in [name for name in sys.modules if name.partition(".")[0] == "huggingface_hub"]:
        monkeypatch.delitem(sys.modules, name)
    import huggingface_hub.file_download
    import huggingface_hub.utils._http

    quick = SimpleNamespace(sleep=lambda seconds: time.sleep(0), time=time.time)
    monkeypatch.setattr(huggingface_hub.file_download, "time", quick)
    monkeypatch.setattr(huggingface_hub.utils._http, "time", quick)


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def refused(reference: str = NET, error: type[Exception] = NotAvailable, **more: Any) -> str:
    """Message and hint of the error."""
    with pytest.raises(error) as caught:
        hub.fetch(reference, **more)
    assert "\n" not in f"{caught.value}{caught.value.hint}"
    return f"{caught.value} | {caught.value.hint}"


@pytest.mark.parametrize(
    ("path", "beside"),
    [
        ("onnx/model.onnx",
         ["onnx/model.data", "onnx/model.onnx.data", "onnx/model.onnx_data", "preprocessor_config.json"]),
        ("ir/net.xml", ["ir/net.bin", "ir/preprocessor_config.json"]),
        ("keras/net.keras", ["preprocessor_config.json"]),
    ],
)  # fmt: skip
def test_a_file_comes_with_what_belongs_to_it(served: Hub, path: str, beside: list[str]) -> None:
    found = hub.fetch(f"hf://owner/net/{path}")
    folder = Path(str(found.path).removesuffix(path))
    assert (found.sha256, found.size, found.licence) == (sha256(FILES[path]), len(FILES[path]), "apache-2.0")
    assert found.revision == served.branches["main"] == folder.name
    assert folder.is_relative_to(os.environ["HF_HOME"])
    assert sorted(str(other.relative_to(folder)) for other in found.beside) == beside
    for file in (found.path, *found.beside):
        assert file.read_bytes() == FILES[str(file.relative_to(folder))]
        assert not file.is_symlink(), "ONNX and OpenVINO refuse external data that is a link"


def test_what_is_there_is_not_downloaded_again(served: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    found = hub.fetch(NET)
    assert served.ranges == [None] * 4
    served.requests.clear()
    assert hub.fetch(NET) == found
    assert [request for request in served.requests if "agent" not in request] == ["GET /api/models/owner/net"]
    served.requests.clear()
    import_anew(monkeypatch, HF_HUB_OFFLINE="1")
    assert hub.fetch(NET) == found
    assert served.requests == []


def test_offline_what_is_not_there_is_said(served: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    found = hub.fetch(NET)
    import_anew(monkeypatch, HF_HUB_OFFLINE="1")
    assert "net.xml was not fetched here yet, and HF_HUB_OFFLINE is set | run once without" in refused(
        "hf://owner/net/ir/net.xml"
    )
    found.path.unlink()
    assert f"{NET} is not all here, and HF_HUB_OFFLINE is set | run once without" in refused()


def test_a_revision_may_be_named(served: Hub) -> None:
    first = served.branches["main"]
    second = served.push({"model.onnx": b"new"}, "v2")
    assert hub.fetch("hf://owner/net@v2/model.onnx").revision == second
    assert hub.fetch(f"hf://owner/net@{first}/onnx/model.onnx").sha256 == sha256(ONNX)
    assert "owner/net has no revision 'v3' | name a branch" in refused("hf://owner/net@v3/model.onnx")


@pytest.mark.parametrize(
    ("card", "licence"), [(None, "not known"), ({"tags": []}, "not known"), ({"license": "mit"}, "mit")]
)
def test_the_licence_is_that_of_the_card(served: Hub, card: Any, licence: str) -> None:
    served.card = card
    assert hub.fetch(NET).licence == licence


def test_other_bytes_than_at_the_first_fetch_are_refused_until_they_are_taken(served: Hub) -> None:
    """Of the external data too, which is where the weights are; the earlier ones can still be had."""
    first = hub.fetch(NET)
    moved = served.push({**FILES, "onnx/model.onnx_data": b"other weights"})
    text = refused()
    assert f"{NET}: onnx/model.onnx_data has SHA-256 {sha256(b'other weights')} at revision {moved}; " in text
    assert f"expected {sha256(DATA)}, as at the first fetch, at revision {first.revision} | " in text
    assert f"pipeline bases fetch {NET} --repin" in text
    earlier = text.rpartition("pipeline bases fetch ")[2]
    assert hub.fetch(earlier).path == first.path
    assert refused() == text
    assert hub.fetch(NET, repin=True).revision == hub.fetch(NET).revision == moved
    served.push(FILES)
    assert f"expected {sha256(b'other weights')}" in refused()


def test_a_commit_with_the_same_bytes_is_taken(served: Hub) -> None:
    hub.fetch(NET)
    moved = served.push({**FILES, "README.md": b"another card"})
    assert hub.fetch(NET).revision == moved


def test_bytes_that_are_not_those_that_the_hub_states_are_refused_and_removed(served: Hub) -> None:
    served.swapped["onnx/model.onnx"] = b"X" * len(ONNX)
    commit = served.branches["main"]
    text = refused()
    assert f"@{commit}/onnx/model.onnx: onnx/model.onnx came with SHA-256 {sha256(b'X' * len(ONNX))}; expected " in text
    assert f"{sha256(ONNX)}, as stated | it was removed; run this again" in text
    served.swapped.clear()
    assert hub.fetch(NET).path.read_bytes() == ONNX


def test_a_file_that_was_changed_here_is_found(served: Hub) -> None:
    found = hub.fetch(NET)
    status = found.path.stat()
    found.path.write_bytes(b"X" * len(ONNX))
    os.utime(found.path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert "it was removed" in refused()
    assert hub.fetch(NET) == found
    assert found.path.read_bytes() == ONNX


def test_a_broken_transfer_goes_on_where_it_broke_off(served: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    """At the last whole chunk, of 10 MB unless it is set."""
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "DOWNLOAD_CHUNK_SIZE", 50)
    served.cuts = [len(ONNX) // 2, 100]
    assert hub.fetch(NET).path.read_bytes() == ONNX
    assert served.ranges[:3] == [None, f"bytes={len(ONNX) // 2}-", f"bytes={len(ONNX) // 2 + 100}-"]


def test_a_transfer_that_breaks_off_each_time_leaves_nothing(served: Hub, tmp_path: Path) -> None:
    served.cuts = [10, *[0] * 20]
    assert "cannot be downloaded" in (text := refused())
    assert "peer closed connection without sending complete message body" in text
    assert [path for path in (tmp_path / "hf").rglob("*") if path.is_file() and path.stat().st_size == 10] == []


def test_a_body_that_is_whole_but_short_is_refused(served: Hub) -> None:
    served.swapped["onnx/model.onnx"] = ONNX[:1000]
    assert "file should be of size 200000 but has size 1000" in refused()


GATED = (403, {"X-Error-Code": "GatedRepo", "X-Error-Message": "Access to model owner/net is restricted"})
UNKNOWN = (401, {"X-Error-Message": "Invalid username or password."})
LATER = (429, {"Retry-After": "17"})
ACCEPT = "owner/net is gated: * accepted its licence | accept it on */owner/net, and set HF_TOKEN to a token of that *"
NOT_FOR_YOU = (
    f"does not give {NET} (HTTP 40?): * or it is not for you | check its name; for a private one, set HF_TOKEN *"
)
BUSY = "has had too many requests from you (HTTP 429) | try again "
FAILED = f"{NET} cannot be downloaded from http://127.0.0.1:*: "


@pytest.mark.parametrize(
    ("part", "status", "message"),
    [
        ("api", GATED, ACCEPT),
        ("resolve", GATED, ACCEPT),
        ("api", UNKNOWN, NOT_FOR_YOU),
        ("api", (403, {}), NOT_FOR_YOU),
        ("resolve", (403, {}), NOT_FOR_YOU),
        ("resolve", (404, {"X-Error-Code": "EntryNotFound"}), NOT_FOR_YOU),
        ("cdn", (403, {}), NOT_FOR_YOU),
        ("api", LATER, f"{BUSY}in 17 s"),
        ("api", (429, {}), f"{BUSY}later"),
        ("resolve", LATER, f"{BUSY}in 17 s"),
        ("cdn", LATER, f"{BUSY}in 17 s"),
        ("api", (503, {}), f"{FAILED}HTTP 503 | check the network *"),
        ("resolve", (503, {}), f"{FAILED}HTTP 503 | check the network *"),
        ("cdn", (500, {}), f"{FAILED}HTTP 500 | check the network *"),
        ("api", (200, {}), "http://127.0.0.1:* is no hub: it answers with what is not JSON | correct HF_ENDPOINT, *"),
        ("resolve", (200, {}), f"{FAILED}*missing the 'X-Repo-Commit' header* | check the network *"),
    ],
)
def test_each_refusal_is_one_sentence_with_what_to_do(
    served: Hub, part: str, status: tuple[int, dict[str, str]], message: str
) -> None:
    served.status[part] = status
    text = refused()
    assert fnmatch.fnmatchcase(text, f"*{message}"), text


def test_a_private_repository_wants_the_token(served: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    """The hub answers 401 for it, as for none; the second host sees no token (the server asserts it)."""
    served.token = "hf_secret"
    assert "(HTTP 401): there is no such repository or file, or it is not for you | check its name; for" in refused()
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    assert hub.fetch(NET).path.read_bytes() == ONNX


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ("hf://owner/none/model.onnx", "none/model.onnx (HTTP 404): there is no such repository or file, or it "),
        ("hf://owner/net/model.onnx", "has no file 'model.onnx' at revision {} | did you mean onnx/model.onnx"),
        (
            "hf://owner/net/zzz.h5",
            "has no file 'zzz.h5' at revision {} | did you mean onnx/model.onnx, onnx/",
        ),
    ],
)
def test_what_is_not_there_is_answered_with_what_is(served: Hub, reference: str, message: str) -> None:
    assert message.format(served.branches["main"]) in refused(reference)


def test_a_listing_cannot_name_files_elsewhere(served: Hub, tmp_path: Path) -> None:
    served.push({"model.onnx": ONNX, "model.onnx_data/../../../../../../out.json": b"out"})
    assert hub.fetch("hf://owner/net/model.onnx").beside == ()
    assert list(tmp_path.rglob("out.json")) == []


def test_a_failure_of_another_transfer_is_one_sentence(served: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    """Xet's, in Rust, which the hub here does not offer."""
    import huggingface_hub.file_download as client

    def fail(*_: Any, **__: Any) -> None:
        raise RuntimeError("Data processing error")

    monkeypatch.setattr(client, "http_get", fail)
    assert "cannot be downloaded from" in (text := refused())
    assert "Data processing error | check the network" in text


def test_a_hub_that_is_not_there_or_silent(served: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    served.silent = True
    assert f"{NET} cannot be downloaded from {served.url}: " in (text := refused())
    assert "timed out" in text
    import_anew(monkeypatch, HF_ENDPOINT="http://127.0.0.1:9")
    assert (
        "cannot be downloaded from http://127.0.0.1:9: [Errno 111] Connection refused | check the network" in refused()
    )


def test_a_full_disk_is_named(served: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub.file_download as client

    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(client, "http_get", full)
    assert "assets cannot be written: No space left on device | make room there" in refused(error=Unwritable)


@pytest.mark.parametrize(
    "reference", ["hf://owner", "hf://owner/net", "hf://owner/net/", "hf:owner/net/m.onnx", "hf://owner/net@/m.onnx",
                  "hf://a--b/net/m.onnx", "hf://owner/net@a@b/m.onnx", "hf://owner/net//m.onnx", "hf://owner/net/../m.onnx"],
)  # fmt: skip
def test_what_is_no_reference_is_answered_with_the_form(served: Hub, reference: str) -> None:
    assert "does not name a file on a hub | write hf://OWNER/NAME/PATH, or" in refused(reference, Unusable)


def test_what_is_no_model_file_is_not_fetched(served: Hub) -> None:
    assert "is no model file | name one that ends in .onnx, .xml" in refused("hf://owner/net/README.md", Unusable)
    assert served.requests == []


def test_without_the_package_or_a_home_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    assert "needs huggingface_hub | pip install 'frozenbase[hub]'" in refused(error=Unusable)
    monkeypatch.setattr("platformdirs.user_config_dir", lambda name: "relative")
    assert "there is no home folder | set HOME" in refused(error=Unusable)


def test_the_command_prints_the_path_for_pipeline_yaml(served: Hub, tmp_path: Path) -> None:
    ran = command("bases", "fetch", NET, expect=0)
    (found,) = command("bases", "fetch", NET, "--json", expect=0).json["bases"]
    assert f"in pipeline.yaml: base: {{name: {found['path']}}}" in ran.out
    assert f"{len(ONNX):,} bytes, licence: apache-2.0" in ran.out
    assert f"revision {found['revision']}, SHA-256 {sha256(ONNX)}" in ran.out
    assert "with it came model.data, model.onnx.data, model.onnx_data, preprocessor_config.json" in ran.out
    assert [Path(path).name for path in found["beside"]][-1] == "preprocessor_config.json"
    assert "pipeline bases trust" not in ran.out
    ran = command("bases", "fetch", "hf://owner/net/keras/net.keras", expect=0)
    assert (
        f"if you trust its author: pipeline bases trust {Path(found['path']).parent.parent}/keras/net.keras" in ran.out
    )
    served.push({**FILES, "onnx/model.onnx": b"new"})
    ran = command("bases", "fetch", NET, expect=4)
    assert "Traceback" not in ran.err
    assert command("bases", "fetch", NET, "--repin", "--json", expect=0).json["bases"][0]["sha256"] == sha256(b"new")
    assert command("bases", "fetch", "hf://owner/net", expect=2).err.startswith("Error: 'hf://owner/net' does not")
    assert "--repin is for a file on a hub" in command("bases", "fetch", "vgg16", "--repin", expect=2).err
