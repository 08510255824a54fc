"""The wheel: holds every file of the packages, and runs the demo's first steps where no source tree is."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

from tests.support import REPOSITORY

PACKAGES = ("cache", "stages", "pipeline")

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy: setuptools would put what an earlier build left in build/ into it."""
    source, target = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for package in PACKAGES:
        shutil.copytree(REPOSITORY / package, source / package, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("setup.cfg", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(REPOSITORY / name, source)
    subprocess.run([sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", target, source], check=True)
    (path,) = target.glob("frozenbase-*.whl")
    return path


@pytest.fixture(scope="module")
def command(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The installed command, in a virtual environment of its own that borrows the other packages of this one."""
    folder = tmp_path_factory.mktemp("venv")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    python = folder / "bin" / "python"
    install = ["-m", "pip", "--python", python, "install", "-q", "--no-deps", "--no-index", wheel]
    subprocess.run([sys.executable, *install], check=True)
    (site,) = folder.glob("lib/python*/site-packages")
    borrowed = [path for path in sys.path if Path(path).name in ("site-packages", "dist-packages")]
    assert sysconfig.get_path("purelib") in borrowed
    (site / "borrowed.pth").write_text("".join(f"{path}\n" for path in borrowed))  # .pth files in there don't count
    return folder / "bin" / "pipeline"


def run(command: Path, cwd: Path, *words: str) -> str:
    """What it prints, in a folder outside the source tree."""
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    done = subprocess.run([command, *words], cwd=cwd, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_it_holds_every_file_of_the_packages_and_nothing_else(wheel: Path) -> None:
    there = {
        str(path.relative_to(REPOSITORY))
        for package in PACKAGES
        for path in (REPOSITORY / package).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    with zipfile.ZipFile(wheel) as archive:
        found = {name for name in archive.namelist() if ".dist-info/" not in name}
    assert found == there


def test_the_demo_starts_outside_the_source_tree(command: Path, tmp_path: Path) -> None:
    program = "import cache, pipeline, stages; print(cache.__file__, pipeline.__file__, stages.__file__)"
    python = command.with_name("python")
    places = subprocess.run([python, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=True).stdout
    assert [path for path in places.split() if not path.startswith(str(command.parent.parent))] == []
    run(command, tmp_path, "init", "demo", "--demo")
    assert "block16" in run(command, tmp_path, "bases", "efficientnet_lite0")
    words = ("run", "extract", "-c", "demo/pipeline.yaml", "--part", "1/16", "--json")
    extracted = json.loads(run(command, tmp_path, *words))["extract"]
    assert extracted["computed"] > 100
    assert json.loads(run(command, tmp_path, *words))["extract"]["reused"] == extracted["computed"]
    status = json.loads(run(command, tmp_path, "status", "-c", "demo/pipeline.yaml", "--json"))["status"]
    (stage,) = (stage for stage in status["stages"] if stage["stage"] == "extract")
    assert stage["missing"] == 2624 - extracted["computed"]
