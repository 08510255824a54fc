"""compact.py and `pipeline cache compact`: few shards afterwards, the same rows, and all of it is said."""

from __future__ import annotations

from pathlib import Path

import pytest

from cache import registrations
from pipeline.maintenance import compact
from tests import conftest
from tests.conftest import Pipeline
from tests.support import fakes


@pytest.fixture
def increments(pipeline: Pipeline, project: Path) -> Path:
    """A project whose images came in seven runs."""
    conftest.extract(pipeline, project)
    for start in range(12, 24, 2):
        fakes.two_classes(project.parent / "images", 2, start)
        conftest.extract(pipeline, project)
    return project


def shards(config: Path) -> int:
    return len(list((config.parent / ".features").glob("features/*/shards/*.json")))


def test_increments_become_one_shard_and_nothing_is_computed_again(pipeline: Pipeline, increments: Path) -> None:
    store = conftest.opened(increments).store("pooled")
    rows, before = store.read(conftest.opened(increments).manifest.ids), shards(increments)
    assert before >= 7
    tried = pipeline("cache", "compact", "-n", "-c", increments)
    assert tried.out.splitlines()[-1] == f"would merge {before} small shards into 1"
    assert shards(increments) == before
    done = pipeline("cache", "compact", "-c", increments)
    words = done.out.split()
    assert (words[0], " ".join(words[1:5]), words[5:7]) == (store.key[:12], f"{before} shards -> 1", ["48", "rows"])
    assert f"merged {before} small shards into 1\n" in done.out
    assert "stay for a day" in done.out
    assert shards(increments) == 1
    again = conftest.opened(increments)
    assert again.store("pooled").read(again.manifest.ids).tobytes() == rows.tobytes()
    assert conftest.extract(pipeline, increments) == (0, 48)
    assert pipeline("cache", "compact", "-c", increments).out == "merged nothing\n"


def test_all_of_it_is_in_json(pipeline: Pipeline, increments: Path) -> None:
    before = shards(increments)
    found = pipeline("cache", "compact", "-c", increments, "--json").json["compacted"]
    (key,) = found["keys"]
    assert (key["before"], key["after"], key["rows"], found["in_use"], found["dry"]) == (before, 1, 48, [], False)
    assert key["components"]["pixels"]["size"] == [16, 16]


def test_a_key_that_a_running_job_needs_is_left_alone(pipeline: Pipeline, increments: Path) -> None:
    project, before = conftest.opened(increments), shards(increments)
    with registrations.running_job(project.cache.root, project.keys.values()):
        ran = pipeline("cache", "compact", "-c", increments)
    (key,) = project.keys.values()
    assert ran.out.splitlines() == ["merged nothing", f"left alone, since a running job needs them: {key[:12]}"]
    assert shards(increments) == before


def test_a_key_whose_components_are_damaged_waits_for_the_next_run(pipeline: Pipeline, increments: Path) -> None:
    project = conftest.opened(increments)
    (project.store("pooled").folder / "spec.json").write_text("{}")
    assert compact.compact_cache(project, dry=False).keys == []
    conftest.extract(pipeline, increments)
    assert len(compact.compact_cache(project, dry=False).keys) == 1


def test_a_folder_that_is_no_cache_is_told(pipeline: Pipeline, project: Path) -> None:
    ran = pipeline("cache", "compact", "-c", project)
    assert (ran.code, "does not exist yet" in ran.err) == (2, True)
