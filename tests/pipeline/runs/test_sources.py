"""Commands on images in buckets, tars and Parquet files: the same rows as from a folder, each computed once."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path

import pytest

from stages.sources.places import files_of
from tests.conftest import Pipeline, extract, opened
from tests.support import archives, bucket_server
from tests.support.archives import parquet_of, samples, tar_of, two_labels
from tests.support.bucket_server import BucketServer

IMAGES = two_labels(12)
SETTINGS = "split: {val: 0.3, test: 0.2}"


@pytest.fixture(scope="module")
def server() -> Iterator[BucketServer]:
    with bucket_server.running() as running:
        running.put_files({f"folder/{label}/{number:04d}.png": data for number, (label, data) in enumerate(IMAGES)})
        running.put_files({"tar/0.tar": tar_of(samples(IMAGES[:10])), "tar/1.tar": tar_of(samples(IMAGES[10:], 10))})
        running.put_files({"parquet/all.parquet": parquet_of(IMAGES)})
        yield running


@pytest.fixture
def bucket(server: BucketServer, monkeypatch: pytest.MonkeyPatch) -> BucketServer:
    bucket_server.use(server, monkeypatch)
    return server


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """A project on class folders on disk."""
    archives.write_class_folders(tmp_path / "images", IMAGES)
    return write(tmp_path / "pipeline.yaml", "images")


def write(config: Path, root: str) -> Path:
    config.write_text(f"data: {{root: '{root}', {SETTINGS}}}\nextract: {{size: 16}}\n")
    return config


@pytest.mark.parametrize(
    "root", ["s3://team/folder", "s3://team/tar", "s3://team/parquet", "s3://team/parquet/all.parquet"]
)
def test_a_row_is_computed_once_wherever_the_image_lies(
    root: str, pipeline: Pipeline, config: Path, bucket: BucketServer
) -> None:
    assert extract(pipeline, config) == (24, 0)
    head = pipeline("run", "head", "-c", config, "--json", expect=0).json["heads"]
    write(config, root)
    assert extract(pipeline, config) == (0, 24)
    again = pipeline("run", "head", "-c", config, "--json", expect=0).json["heads"]
    assert {name: one["key"] for name, one in again.items()} == {name: one["key"] for name, one in head.items()}


@pytest.mark.parametrize("kind", ["folder", "tar", "parquet"])
def test_all_commands_that_open_pictures(
    kind: str, pipeline: Pipeline, config: Path, bucket: BucketServer, tmp_path: Path
) -> None:
    write(config, f"s3://team/{kind}")
    preview = pipeline("status", "-c", config, "--json")
    assert (preview.code, preview.err) == (0, "")
    assert extract(pipeline, config) == (24, 0)
    pipeline("run", "-c", config, expect=0)
    bucket.requests.clear()
    assert extract(pipeline, config) == (0, 24)
    assert bucket.requests == [("GET", "")]
    bucket.requests.clear()
    pipeline("run", "-n", "-c", config, expect=0)
    assert bucket.requests == [("GET", "")]
    audit = pipeline("audit", "-c", config, "--json")
    assert audit.code == 0, audit.err
    report = pipeline("report", "head/logistic", "-c", config, "-o", tmp_path / "report.html")
    assert report.code == 0, report.err
    assert (tmp_path / "report.html").read_text().count("data:image/webp") >= 1
    pipeline("reproduce", "head/logistic", "-c", config, expect=0)
    pipeline("reproduce", "head/logistic", "--recompute", "-c", config, expect=0)
    predicted = pipeline("predict", "head/logistic", f"s3://team/{kind}", "-c", config, "--json", expect=0).json[
        "predict"
    ]
    assert (predicted["images"], predicted["reused"], predicted["rejected"]) == (24, 24, [])
    assert predicted["predictions"][0]["path"].startswith(f"s3://team/{kind}/")
    pipeline("cache", "export", tmp_path / "export", "-c", config, expect=0)
    exported = (tmp_path / "export" / "pipeline.yaml").read_text()
    assert "s3://" not in exported
    pipeline("run", "head", "-c", tmp_path / "export" / "pipeline.yaml", expect=0)


def test_init_of_a_url(pipeline: Pipeline, tmp_path: Path, bucket: BucketServer) -> None:
    done = pipeline("init", tmp_path / "new", "--images", "s3://team/parquet", expect=0)
    assert "24 images in s3://team/parquet" in done.out
    assert "classes: bright 12, dark 12" in done.out
    assert extract(pipeline, tmp_path / "new" / "pipeline.yaml") == (24, 0)


def test_suggestions_from_a_bucket(pipeline: Pipeline, config: Path, bucket: BucketServer) -> None:
    pipeline("run", "-c", config, expect=0)
    new = two_labels(6, 500)
    bucket.put_files({"new/0.tar": tar_of(samples(new))})
    found = pipeline(
        "suggest", "logistic", "--images", "s3://team/new", "-n", "3", "-c", config, "--json", expect=0
    ).json
    found = found.get("suggest", found)
    assert len(found["suggestions"]) == 3
    assert found["uncompared"] == 0
    assert all(one["path"].startswith("s3://team/new/0.tar/") for one in found["suggestions"])


def test_rejects_name_the_image_and_the_reason(pipeline: Pipeline, config: Path, bucket: BucketServer) -> None:
    bucket.put_files({"bad/0.tar": tar_of({**samples(IMAGES[:6]), "9.png": b"no image", "9.cls": b"dark"})})
    write(config, "s3://team/bad")
    assert pipeline("run", "extract", "-c", config).code == 3
    with open(config.parent / "rejects.csv", newline="") as file:
        (reject,) = csv.DictReader(file)
    assert (reject["path"], reject["reason"]) == ("0.tar/9.png", "not an image of a known format")


def test_what_goes_between_the_list_and_the_extraction_is_a_reject(
    pipeline: Pipeline, config: Path, bucket: BucketServer
) -> None:
    write(config, "s3://team/folder")
    pipeline("status", "--hash", "-c", config, expect=0)
    bucket.fail = lambda method, name: "404" if name.endswith("0003.png") else None
    ran = pipeline("run", "extract", "-c", config, "--json")
    assert ran.code == 3
    (reject,) = ran.json["extract"]["rejected"]
    assert reject["reason"] == "cannot be read: it was listed, but is not there any more"


def test_bytes_that_were_swapped_on_the_way_give_no_row(pipeline: Pipeline, config: Path, bucket: BucketServer) -> None:
    """As by a proxy: a row is of the bytes that were hashed, and these have another id than the listing's."""
    write(config, "s3://team/folder")
    pipeline("status", "--hash", "-c", config, expect=0)
    bucket.fail = lambda method, name: "swapped" if name.endswith("0003.png") else None
    ran = pipeline("run", "extract", "-c", config, "--json")
    assert ran.code == 3
    (reject,) = ran.json["extract"]["rejected"]
    assert reject["reason"].startswith("its bytes are not those of its id")
    assert ran.json["extract"]["computed"] == 23
    bucket.fail = lambda method, name: None
    assert extract(pipeline, config) == (1, 23)


def test_a_denial_ends_a_run_with_its_code_and_no_secret(
    pipeline: Pipeline, config: Path, bucket: BucketServer
) -> None:
    write(config, "s3://team/folder")
    bucket.fail = lambda method, name: "403"
    ran = pipeline("run", "extract", "-c", config)
    assert (ran.code, "HTTP 403" in ran.err) == (4, True)
    assert not [
        one for one in (bucket_server.SECRET, bucket_server.KEY, bucket_server.TOKEN) if one in ran.err + ran.out
    ]


@pytest.mark.parametrize("root", ["s3://key:hidden@b/x", "s3://b/x?X-Amz-Signature=hidden", "ftp://hidden/x"])
def test_a_root_with_a_secret_is_refused(root: str, pipeline: Pipeline, config: Path) -> None:
    write(config, root)
    ran = pipeline("status", "-c", config)
    assert ran.code == 2
    assert "hidden" not in ran.out + ran.err


def test_offline_works_from_saved_rows(pipeline: Pipeline, config: Path, bucket: BucketServer) -> None:
    write(config, "s3://team/folder")
    ran = pipeline("run", "extract", "-c", config, "--json", expect=0).json
    manifest = next((config.parent / ".features" / "manifests").glob("*.jsonl"))
    assert ran["extract"]["manifest"] == manifest.stem
    pipeline("run", "-c", config, expect=0)
    bucket.requests.clear()
    assert pipeline("run", "--offline", "-c", config).code == 4
    refused = pipeline("predict", "head/logistic", "s3://team/folder", "--offline", "-c", config)
    assert (refused.code, "--offline leaves it alone" in refused.err) == (4, True)
    pipeline("run", "head", "--offline", "--set", f"data.table={manifest}", "-c", config, expect=0)
    assert bucket.requests == []


def test_workers_of_a_cluster_read_a_bucket_by_themselves(
    pipeline: Pipeline, config: Path, bucket: BucketServer
) -> None:
    """Processes, with the credentials of their own environment; what is refused there ends the run with its code."""
    import distributed

    write(config, "s3://team/parquet")
    with distributed.LocalCluster(
        n_workers=1, threads_per_worker=2, host="127.0.0.1", dashboard_address=None, preload="tests.support.fake_worker"
    ) as running:
        assert extract(pipeline, config, "--scheduler", running.scheduler_address) == (24, 0)
        write(config, "s3://team/folder")
        assert extract(pipeline, config) == (0, 24)  # the planner knows the ids, and only looks at one image again
        for shard in (config.parent / ".features" / "features").glob("*/shards/*"):
            shard.unlink()
        looked: list[str] = []

        def deny(method: str, name: str) -> str | None:
            looked.extend([name] if name else [])
            return "403" if len(looked) > 1 else None

        bucket.fail = deny
        ran = pipeline("run", "extract", "-c", config, "--scheduler", running.scheduler_address)
    assert (ran.code, "refuses to give folder/" in ran.err) == (4, True)


def test_what_a_task_has_of_an_image_is_its_place(config: Path, bucket: BucketServer) -> None:
    write(config, "s3://team/tar")
    project = opened(config)
    found = [project.source.place(row.path) for row in project.found.rows]
    assert not [one for one in (bucket_server.SECRET, bucket_server.KEY, bucket_server.TOKEN) if one in str(found)]
    assert max(map(len, found)) < 200
    assert files_of(found) == []
