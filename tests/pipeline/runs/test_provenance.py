"""provenance.py: the commit of a project, without running what its repository names."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from pipeline.runs.provenance import read_commit


def git(folder: Path, *words: str) -> str:
    who = ("-c", "user.name=a", "-c", "user.email=a@b")
    return subprocess.run(
        ["git", "-C", folder, *who, *words], check=True, capture_output=True, text=True
    ).stdout.strip()


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    folder = tmp_path / "repository" / "project"
    folder.mkdir(parents=True)
    (folder / "pipeline.yaml").write_text("{}")
    git(folder.parent, "init", "-q")
    git(folder.parent, "add", ".")
    git(folder.parent, "commit", "-qm", "first")
    return folder


def test_commit_and_changes_of_tracked_files(repository: Path, tmp_path: Path) -> None:
    commit = git(repository, "rev-parse", "HEAD")
    assert read_commit(repository) == {"commit": commit, "dirty": False}
    (repository / "untracked").write_text("")
    os.utime(repository / "pipeline.yaml", (1, 1))
    assert read_commit(repository) == {"commit": commit, "dirty": False}
    (repository / "pipeline.yaml").write_text("{a: 1}")
    assert read_commit(repository) == {"commit": commit, "dirty": True}
    git(repository, "add", ".")
    assert read_commit(repository) == {"commit": commit, "dirty": True}
    assert read_commit(tmp_path) is None


def test_a_worktree_has_a_commit_of_its_own(repository: Path, tmp_path: Path) -> None:
    git(repository, "worktree", "add", "-q", "-b", "other", str(tmp_path / "other"))
    (tmp_path / "other" / "project" / "pipeline.yaml").write_text("{b: 1}")
    git(tmp_path / "other", "commit", "-qam", "second")
    commit = git(tmp_path / "other", "rev-parse", "HEAD")
    assert read_commit(tmp_path / "other" / "project") == {"commit": commit, "dirty": False}
    assert read_commit(repository) == {"commit": git(repository, "rev-parse", "HEAD"), "dirty": False}


def test_nothing_that_the_repository_names_is_run(repository: Path, tmp_path: Path) -> None:
    """All of these run with `git status` (the filter and the hook once a file's time has changed)."""
    ran = tmp_path / "ran"
    program = tmp_path / "program"
    program.write_text(f"#!/bin/sh\necho $0 >> {ran}\ncat\n")
    program.chmod(0o755)
    hooks = repository.parent / ".git" / "hooks"
    hooks.mkdir(exist_ok=True)
    (hooks / "post-index-change").symlink_to(program)
    (repository.parent / ".gitattributes").write_text("* filter=evil diff=evil\n")
    for name in ("core.fsmonitor", "filter.evil.clean", "filter.evil.process", "diff.evil.command", "diff.external",
                 "diff.evil.textconv", "core.sshCommand", "core.pager", "alias.diff"):  # fmt: skip
        git(repository, "config", name, str(program))
    os.utime(repository / "pipeline.yaml", (1, 1))
    subprocess.run(["git", "-C", repository, "status", "--porcelain", "-uno"], capture_output=True)
    assert ran.exists(), "or the test could not fail"
    ran.unlink()
    os.utime(repository / "pipeline.yaml", (2, 2))
    assert read_commit(repository) is not None
    assert not ran.exists()


def test_variables_of_git_name_no_other_repository(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a hook of another repository has them, in which a run is started."""
    expected = read_commit(repository)
    (tmp_path / "else").mkdir()
    git(tmp_path / "else", "init", "-q")
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "else" / ".git"))
    monkeypatch.setenv("GIT_INDEX_FILE", str(tmp_path / "else" / ".git" / "index"))
    assert read_commit(repository) == expected
