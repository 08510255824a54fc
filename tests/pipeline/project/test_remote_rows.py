"""remote_rows.py: a run takes from the team's cache what it lacks, and gives what it computed; faults are told."""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import shutil
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pipeline.project import remote_rows
from stages.extract import schedule
from stages.extract.shard_task import Receipt, Task
from stages.runtime import hardware
from tests.conftest import Pipeline, extract, opened, write_finetuning
from tests.support import bucket_server, fakes, process
from tests.support.bucket_server import KEY, SECRET, TOKEN, BucketServer, object_kind


@pytest.fixture(scope="module")
def server() -> Iterator[BucketServer]:
    with bucket_server.running() as running:
        yield running


@pytest.fixture
def bucket(server: BucketServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    """The URL of an empty team's cache on moto's server."""
    bucket_server.use(server, monkeypatch)
    return f"s3://team/{tmp_path.name}"


@pytest.fixture
def folder(tmp_path: Path) -> str:
    return f"file://{tmp_path}/remote"


def share(project: Path, url: str, mode: str = "read-write") -> Path:
    """Have a project name a team's cache, and shards of eight rows."""
    text = project.read_text().replace("{size: 16}", "{size: 16, shard_rows: 8}")
    project.write_text(f'{text}cache: {{remote: {{url: "{url}", mode: {mode}}}}}\n')
    return project


def elsewhere(project: Path, mode: str = "read-write") -> Path:
    """The same project with its images on a machine that has no rows yet."""
    there = project.parent.parent / f"{project.parent.name}-elsewhere"
    shutil.copytree(project.parent, there, ignore=shutil.ignore_patterns(".features", "models", "remote"))
    config = there / "pipeline.yaml"
    config.write_text(config.read_text().replace("read-write", mode))
    return config


def rows_of(config: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in config.parent.glob(".features/features/*/shards/*.h5")}


def test_what_one_machine_computed_another_takes(pipeline: Pipeline, project: Path, folder: str) -> None:
    share(project, folder)
    first = pipeline("run", "-c", project, "--json").json["extract"]
    assert (first["computed"], first["remote"]["pushed"]["shards"], first["remote"]["pushed"]["rows"]) == (24, 3, 24)
    there = elsewhere(project, "read")
    second = pipeline("run", "-c", there, "--json").json
    assert (second["extract"]["computed"], second["extract"]["reused"]) == (0, 24)
    assert second["extract"]["remote"]["pulled"]["rows"] == 24
    assert rows_of(there) == rows_of(project)


def test_only_what_is_missing_is_pulled_and_only_what_is_new_pushed(
    pipeline: Pipeline, project: Path, folder: str
) -> None:
    share(project, folder)
    extract(pipeline, project)
    there = elsewhere(project)
    fakes.two_classes(there.parent / "images", 1, start=50)
    ran = pipeline("run", "extract", "-c", there, "--json").json["extract"]
    assert (ran["computed"], ran["remote"]["pulled"]["rows"], ran["remote"]["pushed"]["rows"]) == (2, 24, 2)
    again = pipeline("run", "extract", "-c", there, "--json").json["extract"]["remote"]
    assert (again["pulled"]["shards"], again["pushed"]["shards"]) == (0, 0)


def test_all_taps_and_views_of_a_run_travel(pipeline: Pipeline, project: Path, folder: str) -> None:
    share(project, folder)
    project.write_text(
        project.read_text().replace("shard_rows: 8}", "taps: {a: {}, b: {pooling: max}, c: {size: 32}}}")
    )
    text = project.read_text() + "heads: {logistic: {tap: a}}\n"
    project.write_text(text)
    extract(pipeline, project)
    there = elsewhere(project, "read")
    ran = pipeline("run", "extract", "-c", there, "--json").json["extract"]
    assert (ran["computed"], ran["remote"]["pulled"]["rows"]) == (0, 3 * 24)


def test_a_read_only_remote_is_only_read(pipeline: Pipeline, project: Path, folder: str, tmp_path: Path) -> None:
    share(project, folder, "read")
    (tmp_path / "remote").mkdir()
    assert extract(pipeline, project) == (24, 0)
    assert list((tmp_path / "remote").rglob("*")) == []


def test_offline_asks_nobody(pipeline: Pipeline, project: Path) -> None:
    share(project, "file:///nobody/has/this", "read")
    assert extract(pipeline, project, "--offline") == (24, 0)
    assert pipeline("status", "-c", project).code == 0
    shutil.rmtree(project.parent / ".features")
    ran = pipeline("run", "extract", "-c", project, "--json")
    assert (ran.code, ran.json["error"]["code"]) == (4, "not_available")
    assert rows_of(project) == {}


def test_a_preview_says_that_it_does_not_ask(pipeline: Pipeline, project: Path) -> None:
    share(project, "file:///nobody/has/this", "read")
    assert "extract pooled: a run takes from the team's cache what that has" in pipeline("status", "-c", project).out
    extract(pipeline, project, "--offline")
    assert "team's cache" not in pipeline("status", "-c", project).out


def test_a_complete_cache_asks_nobody(pipeline: Pipeline, project: Path) -> None:
    extract(pipeline, project)
    share(project, "file:///nobody/has/this", "read")
    assert extract(pipeline, project) == (0, 24)


def test_rejects_alone_ask_nobody(pipeline: Pipeline, project: Path) -> None:
    (project.parent / "images" / "dark" / "bad.png").write_bytes(b"no picture")
    words = ("run", "extract", "-c", project, "--json", "--set", "data.on_bad=skip")
    assert pipeline(*words).json["extract"]["computed"] == 24
    share(project, "file:///nobody/has/this", "read")
    ran = pipeline(*words)
    assert (ran.code, ran.json["extract"]["reused"], len(ran.json["extract"]["rejected"])) == (0, 24, 1)


def test_rows_of_files_that_changed_since_the_table_was_made_are_pulled(
    pipeline: Pipeline, project: Path, folder: str
) -> None:
    share(project, folder)
    digest = pipeline("run", "extract", "-c", project, "--json").json["extract"]["manifest"]
    there = elsewhere(project, "read")
    shutil.copy(project.parent / ".features" / "manifests" / f"{digest}.jsonl", there.parent / "table.jsonl")
    for path in there.parent.glob("images/*/*.png"):
        path.write_bytes(b"other bytes")
    assert extract(pipeline, there, "--set", "data.table=table.jsonl") == (0, 24)


def test_the_maps_of_a_fine_tuning_are_pushed_on_request_alone(
    pipeline: Pipeline, project: Path, folder: str, tmp_path: Path
) -> None:
    share(write_finetuning(project.parent), folder)
    ran = pipeline("run", "extract", "--for", "finetune/last", "-c", project, "--json").json["extract"]
    pushed = {path.parent.parent.name for path in (tmp_path / "remote").rglob("*.h5")}
    assert pushed == {ran["keys"]["pooled"]}
    assert (ran["computed"], ran["remote"]["pushed"]["rows"]) == (24, 24)
    pipeline("cache", "push", "-c", project, expect=0)
    pushed = {path.parent.parent.name for path in (tmp_path / "remote").rglob("*.h5")}
    assert len(pushed) == 3  # rows, and maps of both views
    there = pipeline("run", "extract", "--for", "finetune/last", "-c", elsewhere(project, "read"), "--json")
    assert there.json["extract"]["computed"] == 0


def test_a_head_is_trained_without_the_images(pipeline: Pipeline, project: Path, folder: str) -> None:
    share(project, folder)
    own = pipeline("run", "-c", project, "--json").json
    digest = own["extract"]["manifest"]
    weights = json.loads(next(project.parent.glob(".features/features/*/spec.json")).read_text())["base"]["weights"]
    fresh = project.parent / "fresh"
    fresh.mkdir()
    shutil.copy(project.parent / ".features" / "manifests" / f"{digest}.jsonl", fresh / "table.jsonl")
    (fresh / "pipeline.yaml").write_text(
        f'data: {{table: table.jsonl}}\nbase: {{weights: "sha256:{weights}"}}\nextract: {{size: 16}}\n'
        f'cache: {{remote: "{folder}"}}\n'
    )
    out, _ = process.run("run", "head", cwd=fresh, HIDE="tensorflow,keras,distributed")
    assert "pulled" in out
    made = next((fresh / "models" / "head" / "logistic").glob("*/metrics.json"))
    assert json.loads(made.read_text()) == own["heads"]["logistic"]["metrics"]


@pytest.mark.parametrize("fault", ["403", "500", "reset", "expired"])
def test_a_remote_that_does_not_answer_stops_a_run_before_it_computes(
    pipeline: Pipeline, project: Path, bucket: str, server: BucketServer, fault: str
) -> None:
    share(project, bucket)
    server.fail = lambda method, name: fault
    ran = pipeline("run", "extract", "-c", project, "--json")
    assert (ran.code, ran.json["error"]["code"], ran.json["error"]["message"].count(bucket)) == (4, "not_available", 1)
    assert rows_of(project) == {}


@pytest.mark.parametrize("fault", ["403", "500", "expired", "reset", "404"])
@pytest.mark.parametrize("kind", ["rows", "record", "spec"])
def test_a_push_that_fails_is_counted_and_told_and_the_run_succeeds(
    pipeline: Pipeline, project: Path, bucket: str, server: BucketServer, fault: str, kind: str
) -> None:
    share(project, bucket)
    server.fail = lambda method, name: fault if method != "GET" and object_kind(name) == kind else None
    ran = pipeline("run", "extract", "-c", project, "--json")
    pushed = ran.json["extract"]["remote"]["pushed"]
    assert (ran.code, ran.json["extract"]["computed"], pushed["failed"], pushed["shards"]) == (0, 24, 3, 0)
    assert ran.err.count("3 of 3 shards were not pushed") == 1
    if fault in ("403", "expired"):
        assert "nothing more was tried" in ran.err
        assert len([name for method, name in server.requests if object_kind(name) == kind]) == 1
    server.fail = lambda method, name: None
    healed = pipeline("cache", "push", "-c", project, "--json")
    assert (healed.code, healed.json["exchanged"]["traffic"]["pushed"]["shards"]) == (0, 3)
    assert extract(pipeline, elsewhere(project)) == (0, 24)


def after(number: int, kind: str, method: str, fault: str) -> bucket_server.Fail:
    """A fault of each such request but the first ones."""
    left = [None] * number
    return lambda m, name: (left.pop() if left else fault) if (m, object_kind(name)) == (method, kind) else None


def test_a_token_that_expires_midway_stops_pushing(
    pipeline: Pipeline, project: Path, bucket: str, server: BucketServer
) -> None:
    share(project, bucket)
    server.fail = after(1, "rows", "PUT", "expired")
    ran = pipeline("run", "extract", "-c", project, "--json")
    pushed = ran.json["extract"]["remote"]["pushed"]
    assert (ran.code, pushed["shards"], pushed["failed"]) == (0, 1, 2)
    assert "2 of 3 shards were not pushed" in ran.err
    assert "the credentials have expired" in ran.err
    assert [object_kind(name) for method, name in server.requests if method == "PUT"].count("rows") == 2


def test_a_pull_that_stopped_goes_on_where_it_was(
    pipeline: Pipeline, project: Path, bucket: str, server: BucketServer
) -> None:
    share(project, bucket)
    extract(pipeline, project)
    there = elsewhere(project, "read")
    server.fail = after(1, "rows", "GET", "429")
    ran = pipeline("cache", "pull", "-c", there)
    assert (ran.code, "too many requests (HTTP 429)" in ran.err) == (4, True)
    kept = len(rows_of(there))
    server.fail = lambda method, name: None
    taken = pipeline("cache", "pull", "-c", there, "--json").json["exchanged"]["traffic"]["pulled"]
    assert (taken["shards"], taken["refused"]) == (3 - kept, [])


def test_a_pull_asks_once_what_there_is(pipeline: Pipeline, project: Path, bucket: str, server: BucketServer) -> None:
    share(project, bucket)
    extract(pipeline, project)
    there = elsewhere(project, "read")
    server.requests.clear()
    assert extract(pipeline, there) == (0, 24)
    kinds = [object_kind(name) for _, name in server.requests]
    assert {kind: kinds.count(kind) for kind in set(kinds)} == {"listing": 1, "ids": 3, "record": 3, "rows": 3}


def run_elsewhere_in_between(monkeypatch: pytest.MonkeyPatch, there: Path) -> list[int]:
    """Before the second task of the next run here, a run elsewhere computes all; a list gets what that computed."""
    computed: list[int] = []
    real, lock = schedule.extract_shard, threading.Lock()

    def extract_shard(task: Task, on_progress: Any) -> Receipt:
        with lock:
            if not computed:
                out, _ = process.run("run", "extract", "-c", there, "--json")
                computed.append(json.loads(out)["extract"]["computed"])
        return real(task, on_progress)

    monkeypatch.setattr(schedule, "extract_shard", extract_shard)
    return computed


def test_what_another_machine_pushes_meanwhile_is_taken(
    pipeline: Pipeline, project: Path, folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of two machines with a cache each: once a task here ends, all rows are there."""
    share(project, folder)
    fakes.two_classes(project.parent / "images", 60)
    computed = run_elsewhere_in_between(monkeypatch, elsewhere(project))
    here = pipeline("run", "extract", "-c", project, "--json").json["extract"]
    assert computed == [120]
    assert here["computed"] <= 8 * hardware.cpu_count()
    assert here["computed"] + here["reused"] == 120
    assert here["remote"]["pulled"]["rows"] >= 120 - here["computed"]


def test_that_a_remote_is_lost_meanwhile_is_told_once_and_costs_no_row(
    pipeline: Pipeline, project: Path, bucket: str, server: BucketServer
) -> None:
    share(project, bucket)
    listings = 0

    def fail(method: str, name: str) -> str | None:
        nonlocal listings
        listings += object_kind(name) == "listing"
        return "500" if object_kind(name) == "listing" and listings > 1 else None

    server.fail = fail
    ran = pipeline("run", "extract", "-c", project, "--json")
    assert (ran.code, ran.json["extract"]["computed"]) == (0, 24)
    assert ran.err.count("what others compute meanwhile is computed here too") == 1


def test_an_evicted_shard_is_computed_again_and_pushed(
    pipeline: Pipeline, project: Path, folder: str, tmp_path: Path
) -> None:
    share(project, folder)
    extract(pipeline, project)
    next((tmp_path / "remote").rglob("*.h5")).unlink()
    there = elsewhere(project)
    ran = pipeline("run", "extract", "-c", there, "--json")
    told = ran.json["extract"]["remote"]
    assert (ran.json["extract"]["computed"], told["pulled"]["rows"], told["pushed"]["shards"]) == (8, 16, 1)
    assert ran.err.count("the rows count as missing") == 1
    shutil.rmtree(there.parent)
    assert extract(pipeline, elsewhere(project, "read")) == (0, 24)


def test_an_interrupted_run_pushes_no_more(pipeline: Pipeline, project: Path, folder: str) -> None:
    extract(pipeline, project)
    opened_project = opened(share(project, folder))
    specs = {spec.key: spec for spec in opened_project.specs.values()}
    done = remote_rows.begin(opened_project)
    (key,) = specs
    names = opened_project.rows_of(specs[key]).names()
    with contextlib.suppress(KeyboardInterrupt), remote_rows.exchanging(opened_project, specs, done) as exchange:
        assert exchange is not None
        exchange.receive(Receipt(shards=[(key, name) for name in names] * 500))
        raise KeyboardInterrupt
    assert done is not None
    assert done.pushed.shards + done.pushed.there < 500


def test_a_push_that_breaks_is_told_too(
    pipeline: Pipeline, project: Path, folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a panic of the library would: the thread that pushes must not die in silence."""
    monkeypatch.setattr(remote_rows.Pusher, "push", lambda self, store, name: 1 / 0)
    ran = pipeline("run", "extract", "-c", share(project, folder), "--json")
    assert (ran.code, ran.json["extract"]["remote"]["pushed"]["failed"]) == (0, 3)
    assert "3 of 3 shards were not pushed" in ran.err


@pytest.mark.slow
def test_processes_push_by_way_of_the_one_that_plans(pipeline: Pipeline, project: Path, folder: str) -> None:
    """On the real base, since worker processes have no stand-in for it."""
    share(project, folder)
    project.write_text(project.read_text().replace("size: 16", "size: 32"))
    process.run("run", "extract", "--workers", "2", "-c", project, FAKE="")
    assert extract(pipeline, elsewhere(project, "read")) == (0, 24)


def test_predictions_of_new_images_ask_nobody(pipeline: Pipeline, project: Path, folder: str, tmp_path: Path) -> None:
    share(project, folder)
    pipeline("run", "-c", project, expect=0)
    before = sorted((tmp_path / "remote").rglob("*"))
    fakes.two_classes(tmp_path / "new", 1, start=90)
    shutil.move(tmp_path / "remote", tmp_path / "away")
    assert pipeline("predict", "head/logistic", tmp_path / "new", "-c", project).code == 0
    assert not (tmp_path / "remote").exists()
    assert len(before) == len(list((tmp_path / "away").rglob("*")))


def test_without_obstore_a_run_says_so_and_other_projects_go_on(
    pipeline: Pipeline, project: Path, folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "obstore", None)
    assert extract(pipeline, project) == (24, 0)
    shutil.rmtree(project.parent / ".features")
    ran = pipeline("run", "-c", share(project, folder))
    assert (ran.code, "pip install 'frozenbase[s3]'" in ran.err) == (2, True)


def test_a_url_with_a_secret_is_refused_and_not_repeated(pipeline: Pipeline, project: Path) -> None:
    share(project, f"s3://{KEY}:{SECRET}@team/x".replace("sentinel/", ""))
    ran = pipeline("run", "-c", project)
    assert (ran.code, "cache.remote.url" in ran.err, KEY in ran.out + ran.err) == (2, True, False)


@pytest.mark.parametrize("fault", [None, "403", "500"])
def test_no_secret_is_written_or_told(
    pipeline: Pipeline, project: Path, bucket: str, server: BucketServer, fault: str | None,
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path,
) -> None:  # fmt: skip
    share(project, bucket)
    sent: list[bytes] = []
    real = schedule.extract_shard

    def recorded(task: Task, *words: Any) -> Receipt:
        receipt = real(task, *words)
        sent.append(pickle.dumps(task) + pickle.dumps(receipt))
        return receipt

    monkeypatch.setattr(schedule, "extract_shard", recorded)
    server.fail = lambda method, name: fault if method == "PUT" else None
    outputs = [
        pipeline(*words)
        for words in (
            ("run", "-c", project, "-v"), ("run", "-c", project, "--json"), ("cache", "push", "-c", project, "-v"),
            ("cache", "pull", "-c", project, "--json"), ("cache", "export", tmp_path / "export", "-c", project),
            ("show", "head/logistic", "-c", project), ("cache", "ls", "-c", project, "--json"),
        )
    ]  # fmt: skip
    written = [path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()]
    said = "".join(ran.out + ran.err for ran in outputs).encode()
    assert len(sent) == 3
    for secret in (SECRET, TOKEN, KEY):
        assert [secret.encode() in data for data in (*written, *sent, said)].count(True) == 0
    assert bucket.encode() in said
    assert "remote" not in (tmp_path / "export" / "pipeline.yaml").read_text()


def test_nothing_listens(pipeline: Pipeline, project: Path, bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    before, during = listening(), []
    monkeypatch.setattr(remote_rows.Pusher, "push", lambda self, store, name: during.append(listening()))
    assert extract(pipeline, share(project, bucket)) == (24, 0)
    assert during == [before] * 3


def listening() -> set[str]:
    """Sockets of this machine that listen, as /proc/net/tcp has them, if they are this process's."""
    own = {
        os.readlink(f"/proc/self/fd/{fd}")
        for fd in os.listdir("/proc/self/fd")
        if os.path.exists(f"/proc/self/fd/{fd}")
    }
    lines = [
        line.split() for name in ("tcp", "tcp6") for line in Path(f"/proc/net/{name}").read_text().splitlines()[1:]
    ]
    return {line[1] for line in lines if line[3] == "0A" and f"socket:[{line[9]}]" in own}
