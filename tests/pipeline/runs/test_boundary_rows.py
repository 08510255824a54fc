"""boundary_rows.py: who lacks maps is told how to come by them."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conftest import Pipeline, write_finetuning


@pytest.mark.parametrize(
    ("words", "also"),
    [
        ("run finetune", " --for finetune/last"),
        ("run extract --for finetune/last", " --for finetune/last"),
        ("run", ""),
        ("run finetune --set finetune.last.mode=full", ""),
    ],
)
def test_what_to_extract_first_names_the_boundary(pipeline: Pipeline, project: Path, words: str, also: str) -> None:
    ran = pipeline(*words.split(), "--require-cached", "-c", write_finetuning(project.parent))
    assert ran.code == 4
    assert ran.err.splitlines()[-1] == f"  compute them first: pipeline run extract{also}"


def test_the_command_that_it_names_makes_what_was_lacking(pipeline: Pipeline, project: Path) -> None:
    config = write_finetuning(project.parent)
    more = ("-c", config, "--set", "finetune.last.views=1", "--for", "finetune/last")
    pipeline("run", "extract", *more)
    assert pipeline("run", "extract", "--require-cached", *more).code == 0


def test_a_fine_tuning_that_is_not_in_the_file_is_named(pipeline: Pipeline, project: Path) -> None:
    ran = pipeline("run", "extract", "--for", "finetune/nope", "-c", write_finetuning(project.parent))
    assert (ran.code, "no fine-tuning 'nope' in" in ran.err) == (2, True)
