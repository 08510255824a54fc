"""far_worker.py: tasks on workers that share only the team's cache, in this process and on a real cluster."""

from __future__ import annotations

import hashlib
import pickle
import shutil
import signal
import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import distributed
import numpy as np
import pytest

from cache.errors import PipelineError
from cache.hash_index import HashIndex
from cache.store import Cache, FeatureStore
from cache.transfer import Copied
from stages.bases import catalogue
from stages.bases.recipe import Tap
from stages.buckets.object_store import ObjectStore
from stages.data import images
from stages.extract import cluster_tasks, opened_bases, watch, worker
from stages.extract.opened_bases import Job
from stages.extract.shard_task import Task
from stages.extract.worker import Unfit
from stages.remote import far_worker
from stages.remote.base_files import push_base
from stages.remote.far_worker import Place, extract_far, find_lack
from stages.remote.pull import pull_rows
from stages.remote.push import Pushed, Pusher
from tests.conftest import Pipeline, cache_files, extract
from tests.support import bucket_server, fakes, source_tree
from tests.support.bucket_server import KEY, SECRET, TOKEN, BucketServer
from tests.support.dask_cluster import Cluster
from tests.support.networks import DEFAULT

TAP = Tap()


@pytest.fixture
def remote(tmp_path: Path) -> ObjectStore:
    return ObjectStore(f"file://{tmp_path}/remote", make_folder=True)


@pytest.fixture
def place(tmp_path: Path, remote: ObjectStore) -> Place:
    """A team's cache with the base's file, of a process that has none of it."""
    far_worker._opened.cache_clear()
    (tmp_path / "weights.pth").write_bytes(b"numbers")
    files = push_base(remote, catalogue.base_of(DEFAULT.base), tmp_path / "weights.pth")
    return Place(remote.url, {files[0].sha256: files}, {})


@pytest.fixture
def task(tmp_path: Path, place: Place) -> Task:
    """Of six images, with paths of the one who plans that exist nowhere else."""
    (digest,) = place.bases
    recipe = replace(DEFAULT, weights_sha256=digest, pixels=images.PixelSpec(16, 16))
    job = Job(recipe, "/elsewhere/weights.pth", "/elsewhere/cache", 4, version("frozenbase"))
    fakes.two_classes(tmp_path / "images", 3)
    found = {path: path.read_bytes() for path in sorted((tmp_path / "images").rglob("*.png"))}
    rows = tuple((hashlib.sha256(data).hexdigest(), (str(path),)) for path, data in found.items())
    return Task(((job, {recipe.key(TAP): TAP}),), rows, "run")


@pytest.fixture
def quiet(fake_embed: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """The numpy base, and nobody to report progress to."""
    monkeypatch.setattr("stages.extract.shard_task._log_progress", lambda run, rows: None)


def pull(folder: Path, remote: ObjectStore, task: Task) -> FeatureStore:
    """What somebody has who pulls the rows of a task into an empty cache."""
    ((job, taps),) = task.parts
    store = Cache(folder, HashIndex()).features(job.recipe.components(*taps.values()))
    pull_rows(remote, store, [image for image, _ in task.rows], Copied())
    return store


def test_rows_go_to_the_team_s_cache(
    quiet: None, tmp_path: Path, remote: ObjectStore, place: Place, task: Task
) -> None:
    receipt = extract_far(place, task)
    assert (receipt.rows, receipt.remote, len(receipt.shards)) == (6, True, 1)
    assert pull(tmp_path / "pulled", remote, task).missing([image for image, _ in task.rows]) == []


def test_rows_that_could_not_be_pushed_are_kept_and_not_computed_again(
    quiet: None, tmp_path: Path, remote: ObjectStore, place: Place, task: Task
) -> None:
    (tmp_path / "remote" / "v1" / "features").write_bytes(b"in the way")
    with pytest.raises(Unfit, match="1 of 1 shards were not pushed"):
        extract_far(place, task)
    (tmp_path / "remote" / "v1" / "features").unlink()
    receipt = extract_far(place, task)
    assert (receipt.rows, len(receipt.shards)) == (0, 1)
    assert pull(tmp_path / "pulled", remote, task).missing([image for image, _ in task.rows]) == []


def test_a_base_of_other_bytes_is_not_opened(
    quiet: None, tmp_path: Path, place: Place, task: Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[Any] = []
    monkeypatch.setattr(opened_bases, "open_embed", lambda *about: opened.append(about))
    ((files,),) = (place.bases.values(),)
    (tmp_path / "remote" / "v1" / "blobs" / files[0].sha256).write_bytes(b"numberz")
    with pytest.raises(Unfit, match="is not as it was put there"):
        extract_far(place, task)
    (tmp_path / "remote" / "v1" / "blobs" / files[0].sha256).unlink()
    with pytest.raises(Unfit, match="it is not there"):
        extract_far(place, task)
    assert opened == []


def test_a_process_that_cannot_reach_the_team_s_cache_says_so(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    assert find_lack(place) == ""
    monkeypatch.setattr(far_worker, "user_cache", lambda: None)
    assert find_lack(place) == "it has no folder for rows"
    monkeypatch.setenv("PIPELINE_CACHE_DIR", "/tmp")
    assert find_lack(place) == ""


def test_rows_of_one_team_are_not_pushed_to_another(
    quiet: None, tmp_path: Path, remote: ObjectStore, place: Place, task: Task
) -> None:
    """Though the same worker computed them: a shard may have images that the other team has not."""
    extract_far(place, task)
    other = ObjectStore(f"file://{tmp_path}/other", make_folder=True)
    files = push_base(other, catalogue.base_of(DEFAULT.base), tmp_path / "weights.pth")
    one = task._replace(rows=task.rows[:1])
    assert extract_far(Place(other.url, {files[0].sha256: files}, {}), one).rows == 1
    assert pull(tmp_path / "pulled", other, task).missing([i for i, _ in task.rows]) == [i for i, _ in task.rows[1:]]


def test_rows_are_checked_by_those_of_another_engine(
    quiet: None, tmp_path: Path, remote: ObjectStore, place: Place, task: Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in one cache: a worker whose engine computes other rows than those that are stored adds none."""
    ((job, taps),) = task.parts
    theirs = Cache(tmp_path / "theirs", HashIndex()).features(job.recipe.components(TAP))
    ids = [image for image, _ in task.rows]
    about = {"engine": "other", "device": "none", "versions": {}, "seconds": 0.1}
    name = theirs.put(ids[:1], np.full((1, 6), 1e6, np.float32), about)
    Pusher(remote, Pushed()).push(theirs, name)
    checked = task._replace(parts=((replace(job, references=(task.rows[0],)), taps),), rows=task.rows[1:])
    with pytest.raises(PipelineError, match="computes other rows"):
        extract_far(replace(place, references={theirs.key: [name]}), checked)


@pytest.fixture(scope="module")
def server() -> Iterator[BucketServer]:
    with bucket_server.running() as running:
        yield running


@pytest.fixture
def cluster(server: BucketServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    """Two workers with homes of their own, which see nothing of the folder `mine`, and no credentials but their own."""
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
    server.requests.clear()
    made = Cluster(tmp_path, FAKE_DELAY="0.05")
    try:
        for number in range(2):
            made.add_far_worker(tmp_path / f"home{number}", tmp_path / "mine")
        with distributed.Client(made.address, set_as_default=False) as client:
            client.wait_for_workers(2, timeout=60)
        yield made
    finally:
        made.close()


def lay_out(folder: Path, server: BucketServer, remote: str) -> Path:
    """A project in the folder `mine`, its 40 images in the bucket."""
    fakes.two_classes(folder / "images", 20)
    names = {f"{folder.name}/{p.parent.name}/{p.name}": p.read_bytes() for p in (folder / "images").rglob("*.png")}
    server.put_files(names)
    shutil.rmtree(folder / "images")
    (folder / "mine").mkdir()
    config = folder / "mine" / "pipeline.yaml"
    config.write_text(
        f"data: {{root: 's3://team/{folder.name}', split: {{val: 0.3, test: 0.2}}}}\n"
        f"extract: {{size: 16, shard_rows: 4}}\n{remote}"
    )
    return config


def rows_of(config: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in config.parent.glob(".features/features/*/shards/*.h5")}


def test_workers_compute_what_one_machine_does_and_get_no_secret(
    pipeline: Pipeline, server: BucketServer, cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[bytes] = []
    real = worker.pack

    def pack(compute: Any, task: Task) -> bytes:
        sent.append(real(compute, task))
        return sent[-1]

    monkeypatch.setattr(cluster_tasks, "pack", pack)
    config = lay_out(tmp_path, server, "cache: {remote: {url: 's3://team/rows', mode: read-write}}\n")
    ran = pipeline("run", "extract", "-c", config, "--json", "--scheduler", cluster.address)
    assert ran.code == 0, ran.out + ran.err
    done = ran.json["extract"]
    assert (done["computed"], done["remote"]["pulled"]["rows"], done["remote"]["pushed"]["rows"]) == (40, 40, 0)
    assert len(sent) == 10
    assert not [secret for secret in (KEY, SECRET, TOKEN) for data in sent if secret.encode() in data]
    assert pickle.loads(sent[0])[1].rows
    puts = {name for method, name in server.requests if method in ("PUT", "POST") and "rows/v1" in name}
    assert Counter(name.split("/")[2] for name in puts) == {"blobs": 1, "features": 31}
    alone = tmp_path / "alone" / "pipeline.yaml"
    alone.parent.mkdir()
    alone.write_text(config.read_text().partition("cache:")[0])
    assert extract(pipeline, alone) == (40, 0)
    assert rows_of(alone) == rows_of(config)
    before = cache_files(config)
    assert extract(pipeline, config, "--scheduler", cluster.address) == (0, 40)
    assert cache_files(config).keys() == before.keys()
    listed = pipeline("cache", "ls", "--remote", "-c", config).out
    assert "base: 1 file" in listed


def test_without_a_team_s_cache_such_workers_are_refused(
    pipeline: Pipeline, server: BucketServer, cluster: Cluster, tmp_path: Path
) -> None:
    config = lay_out(tmp_path, server, "")
    for settings in ("", "cache: {remote: {url: 's3://team/unused', mode: read}}\n"):
        config.write_text(config.read_text().partition("cache:")[0] + settings)
        ran = pipeline("run", "extract", "-c", config, "--scheduler", cluster.address)
        assert ran.code == 2
        assert f"does not see {config.parent / '.features'}" in ran.err
        assert "cache.remote with mode: read-write" in ran.err


def test_workers_come_and_go_and_one_of_other_source_computes_nothing(
    pipeline: Pipeline, server: BucketServer, cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that runs other source joins, and the others are killed; once it has refused a task, a right one joins."""
    copy = source_tree.copy_to(tmp_path / "copy")
    with open(copy / "stages" / "data" / "images.py", "a") as file:
        file.write("# another\n")
    config = lay_out(tmp_path, server, "cache: {remote: {url: 's3://team/others', mode: read-write}}\n")
    begun, refused, real = threading.Event(), threading.Event(), watch.Watch.note_unfit

    def note_unfit(self: Any, worker: str, reason: str) -> None:
        real(self, worker, reason)
        refused.set()

    def exchange_workers() -> None:
        assert begun.wait(60)
        cluster.add_worker(source=copy)
        with distributed.Client(cluster.address, set_as_default=False) as client:
            client.wait_for_workers(3, timeout=60)
        cluster.signal(signal.SIGKILL, slice(1, 3))
        assert refused.wait(60)
        cluster.add_far_worker(tmp_path / "home2", tmp_path / "mine")

    def pack(*about: Any) -> bytes:
        begun.set()
        return worker.pack(*about)

    monkeypatch.setattr(cluster_tasks, "pack", pack)
    monkeypatch.setattr(watch.Watch, "note_unfit", note_unfit)
    thread = threading.Thread(target=exchange_workers)
    thread.start()
    ran = pipeline("run", "extract", "-c", config, "--json", "--scheduler", cluster.address)
    thread.join()
    assert ran.code == 0, ran.out + ran.err
    assert ran.err.count("computes nothing: it runs other source of frozenbase (") == 1
    assert ran.json["extract"]["computed"] + ran.json["extract"]["reused"] == 40
    assert extract(pipeline, config) == (0, 40)
