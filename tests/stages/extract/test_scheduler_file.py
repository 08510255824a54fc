"""A scheduler named by its file, and one that speaks TLS: real ones, with certificates of their own."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import distributed
import pytest

from cache.errors import Unusable
from stages.extract.cluster import read_scheduler_file
from tests.conftest import Pipeline
from tests.support.dask_cluster import Cluster
from tests.support.process import run

CERTIFICATE = "DASK_DISTRIBUTED__COMM__TLS__CLIENT__CERT"
KEY = "DASK_DISTRIBUTED__COMM__TLS__CLIENT__KEY"
CA = "DASK_DISTRIBUTED__COMM__TLS__CA_FILE"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "cannot be read"),
        (b'{"type": "Scheduler"}', "has no address"),
        (b'{"address": 5}', "has no address"),
        (b'{"address": "here"}', "has no address"),
        (b"[]", "cannot be read"),
        (None, "there is no scheduler file"),
    ],
)
def test_what_is_no_scheduler_file_is_said(
    pipeline: Pipeline, project: Path, tmp_path: Path, content: bytes | None, message: str
) -> None:
    file = tmp_path / "scheduler.json"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(Unusable, match=message):
        read_scheduler_file(file)
    ran = pipeline("run", "extract", "-c", project, "--scheduler-file", file)
    assert (ran.code, message in ran.err) == (2, True)


def test_a_named_scheduler_goes_before_a_file(pipeline: Pipeline, project: Path, tmp_path: Path) -> None:
    ran = pipeline("run", "-c", project, "--scheduler-file", tmp_path / "none", "--scheduler", "here://1")
    assert (ran.code, "here://1" in ran.err) == (2, True)


def certificates(folder: Path) -> dict[str, str]:
    """New ones, and the environment by which Dask finds them."""
    made = distributed.Security.temporary()
    files = {CA: made.tls_ca_file, CERTIFICATE: made.tls_client_cert, KEY: made.tls_client_key}
    folder.mkdir()
    for name, content in files.items():
        (folder / name).write_text(content)
    return {name: str(folder / name) for name in files}


@pytest.fixture
def secured(tmp_path: Path) -> Iterator[tuple[Cluster, dict[str, str]]]:
    """A cluster that speaks TLS alone, with one worker, and what a client needs to know."""
    own = certificates(tmp_path / "own")
    words = ("--protocol", "tls", "--tls-ca-file", own[CA], "--tls-cert", own[CERTIFICATE], "--tls-key", own[KEY])
    cluster = Cluster(tmp_path, *words)
    try:
        cluster.add_worker()
        yield cluster, own
    finally:
        cluster.close()


def test_a_scheduler_that_speaks_tls_is_used_by_those_with_its_certificates_alone(
    secured: tuple[Cluster, dict[str, str]], project: Path, tmp_path: Path
) -> None:
    cluster, own = secured
    words = ("run", "extract", "-c", project, "--json", "--scheduler-file", cluster.file)
    assert cluster.address.startswith("tls://")
    out, _ = run(*words, expect=2)
    assert f"the scheduler at {cluster.address} speaks TLS, and Dask has no certificates here" in out
    out, _ = run(*words, expect=2, **certificates(tmp_path / "others"))
    assert "no Dask scheduler answers at tls://" in out
    keys = distributed.Security(tls_ca_file=own[CA], tls_client_cert=own[CERTIFICATE], tls_client_key=own[KEY])
    with distributed.Client(cluster.address, security=keys, set_as_default=False) as client:
        client.wait_for_workers(1, timeout=60)
    out, _ = run(*words, **own)
    assert json.loads(out)["extract"]["computed"] == 24
