"""docs/deploy.md: its examples are shell, YAML and Python that can be read, and name options that there are."""

from __future__ import annotations

import ast
import re
import subprocess
from typing import Any

import click
import pytest
import yaml

from pipeline.cli.run import run_command
from pipeline.config.schema import RunConfig
from tests.support import REPOSITORY

TEXT = (REPOSITORY / "docs" / "deploy.md").read_text()
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)


def blocks(language: str) -> list[str]:
    found = [text for name, text in BLOCKS if name == language]
    assert found
    return found


def manifests() -> list[dict[str, Any]]:
    return [one for text in blocks("yaml") for one in yaml.safe_load_all(text) if "kind" in one]


def containers() -> list[dict[str, Any]]:
    specs = [one["spec"]["template"]["spec"] for one in manifests() if "template" in one.get("spec", {})]
    return [container for spec in specs for container in spec["containers"]]


def docker_runs() -> list[str]:
    return [line.removeprefix("RUN ") for text in blocks("dockerfile") for line in text.splitlines() if "RUN " in line]


@pytest.mark.parametrize("script", [*blocks("bash"), *docker_runs(), *re.findall(r"^    (kubectl .*)$", TEXT, re.M)])
def test_shell_can_be_parsed(script: str) -> None:
    done = subprocess.run(["bash", "-n"], input=script, text=True, capture_output=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_python_can_be_parsed() -> None:
    for text in blocks("python"):
        ast.parse(text)


def test_pipeline_yaml_is_one() -> None:
    (settings,) = [yaml.safe_load(text) for text in blocks("yaml") if "kind:" not in text]
    assert RunConfig.model_validate(settings).cache.remote is not None


def test_what_a_manifest_names_is_in_it_or_made_before() -> None:
    """A volume that is mounted, a config map, a secret: a typing error would leave a pod pending for ever."""
    made = {one["metadata"]["name"] for one in manifests()} | set(
        re.findall(r"kubectl create \w+(?: generic)? (\S+)", TEXT)
    )
    assert {"dask", "dask-tls", "bucket", "project", "scheduler"} <= made
    for one in manifests():
        if "template" not in one.get("spec", {}):
            continue
        pod = one["spec"]["template"]["spec"]
        volumes = {volume["name"] for volume in pod["volumes"]}
        refs = [volume.get("secret", {}).get("secretName") or volume["configMap"]["name"] for volume in pod["volumes"]]
        for container in pod["containers"]:
            refs += [next(iter(source.values()))["name"] for source in container["envFrom"]]
            assert {mount["name"] for mount in container["volumeMounts"]} == volumes
        assert set(refs) <= made
        if one["kind"] == "Deployment":
            assert one["spec"]["selector"]["matchLabels"] == one["spec"]["template"]["metadata"]["labels"]


def test_options_of_the_run_exist() -> None:
    (job,) = [container["command"] for container in containers() if container["command"][0] == "pipeline"]
    lines = [line.strip() for text in blocks("bash") for line in text.splitlines() if "pipeline run" in line]
    words = [job, *(re.sub(r"^until |; do$", "", line).split() for line in lines)]
    assert len(words) == 2
    for pipeline, run, *rest in words:
        assert (pipeline, run) == ("pipeline", "run")
        run_command.make_context("run", list(rest), resilient_parsing=False)
    with pytest.raises(click.NoSuchOption):
        run_command.make_context("run", ["extract", "--schedulers", "x"])
