"""What a pipeline.yaml from others may do: docs/concepts/trust.md has each field, and none reaches a scheduler."""

from __future__ import annotations

import re
import socket
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.config.schema import field_places
from tests.conftest import Pipeline, opened

REFERENCE = Path(__file__).parents[3] / "docs" / "concepts" / "trust.md"


def test_each_field_has_one_place_in_the_table() -> None:
    section = REFERENCE.read_text().split("## A pipeline.yaml from others\n")[1].split("\n## ")[0]
    rows = [line.split("|")[1] for line in section.splitlines() if line.startswith("| `")]
    placed = Counter(name for row in rows for name in re.findall("`([^`]+)`", row))
    assert placed == Counter(field_places(deep=True).keys())


@pytest.fixture
def stranger() -> Iterator[tuple[str, list[socket.socket]]]:
    """The address of something that listens, and who connected to it."""
    connected: list[socket.socket] = []
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.1)
        done = threading.Event()

        def listen() -> None:
            while not done.is_set():
                try:
                    connected.append(server.accept()[0])
                except TimeoutError:
                    continue

        listener = threading.Thread(target=listen)
        listener.start()
        yield f"tcp://127.0.0.1:{server.getsockname()[1]}", connected
        done.set()
        listener.join()
        for connection in connected:
            connection.close()


@pytest.mark.parametrize("command", [("run",), ("run", "-n"), ("status",), ("run", "extract", "--workers", "2")])
def test_a_scheduler_in_the_file_is_refused_and_never_connected_to(
    pipeline: Pipeline, project: Path, stranger: tuple[str, list[socket.socket]], command: tuple[str, ...]
) -> None:
    address, connected = stranger
    project.write_text(project.read_text() + f'cluster: {{scheduler: "{address}"}}\n')
    ran = pipeline(*command, "-c", project)
    assert ran.code == 2
    assert "give it with --scheduler ADDRESS or PIPELINE_SCHEDULER" in ran.err
    assert not connected


def test_a_scheduler_of_the_environment_or_the_command_line_is_used(
    pipeline: Pipeline, project: Path, stranger: tuple[str, list[socket.socket]], monkeypatch: pytest.MonkeyPatch
) -> None:
    address, connected = stranger
    monkeypatch.setattr("stages.extract.cluster._CONNECT_TIMEOUT_S", 0.5)
    for number in (1, 2):
        words = ["--scheduler", address] if number == 1 else []
        ran = pipeline("run", "extract", "-c", project, *words)
        assert (ran.code, f"no Dask scheduler answers at {address}" in ran.err) == (2, True)
        assert len(connected) >= number
        monkeypatch.setenv("PIPELINE_SCHEDULER", address)
    assert opened(project).cluster.scheduler == address


def test_a_record_that_names_a_scheduler_is_read_without_it(pipeline: Pipeline, project: Path) -> None:
    """Models of earlier versions keep their settings, those of the cluster among them."""
    pipeline("run", "-c", project)
    (record,) = project.parent.glob("models/head/logistic/*/record.json")
    text = record.read_text()
    assert text.count('"cluster": {') == 1
    for scheduler in ("null", '"tcp://127.0.0.1:9"'):
        record.write_text(text.replace('"cluster": {', f'"cluster": {{"scheduler": {scheduler},'))
        image = project.parent / "images" / "dark" / "0000.png"
        assert pipeline("predict", "head/logistic", image, "-c", project).code == 0
