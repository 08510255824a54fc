"""Every table and line at 80 and 60 columns: names, keys and tags are whole, and no line ends inside a word."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.show import console
from tests.conftest import Pipeline
from tests.support import fakes

HEAD = "a_head_with_a_name_of_many_letters_as_people_give_them"
CLASS = "Leontopodium nivale subsp. alpinum"
TAG = "tried-on-the-new-camera-in-november"


@pytest.fixture
def named(project: Path, pipeline: Pipeline) -> Path:
    """A sweep, and two heads of a long name from two runs, with a tag, on classes with long names and groups."""
    images = project.parent / "images"
    fakes.two_classes(images, 30)
    (images / "bright").rename(images / CLASS)
    heads = f"heads: {{{HEAD}: {{}}, {HEAD}_swept: {{sweep: {{C: [0.001, 1]}}}}}}\n"
    project.write_text(
        f"data: {{group_from: '(\\d\\d)\\.png', split: {{val: 0.3, test: 0.2}}}}\nextract: {{size: 16}}\n{heads}"
    )
    assert pipeline("run", "-c", project).code == 0
    assert pipeline("run", "-c", project, "--set", "data.split.seed=7").code == 0
    assert pipeline("tag", HEAD, TAG, "-c", project).code == 0
    return project


@pytest.mark.parametrize("width", [60, 80])
def test_tables_are_whole(pipeline: Pipeline, named: Path, width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    keys = {path.parent.name[:12] for path in named.parent.glob(f"models/head/{HEAD}/*/record.json")}
    (extracted,) = (path.name[:12] for path in (named.parent / ".features" / "features").iterdir())
    expected = {
        ("models",): {f"head/{HEAD}", f"head/{HEAD}_swept", TAG, *keys},
        ("run",): {HEAD, f"{HEAD}_swept", "C=0.001"},
        ("status",): {HEAD, f"{HEAD}_swept", CLASS, "pooled"},
        ("status", "--set", "extract.size=24"): {HEAD, "MISS"},
        ("show", HEAD): {f"head/{HEAD}", CLASS, TAG, "balanced_accuracy"},
        ("reproduce", HEAD): {"balanced_accuracy", "log_loss"},
        ("compare", HEAD, f"{HEAD}_swept"): {f"head/{HEAD}_swept", "average_precision"},
        ("crossval", "--folds", "3"): {HEAD, f"{HEAD}_swept C=0.001", "average_precision"},
        ("cache", "ls"): {extracted, "efficientnet_lite0", f"head/{HEAD}_swept"},
        ("bases",): {"mobilenet_v3_small", "efficientnet_v2_b0", "inception_resnet_v2"},
    }
    for stream in (console.OUT, console.ERR):
        monkeypatch.setattr(stream, "width", width)
    for words, names in expected.items():
        options = () if words[0] == "bases" else ("-c", str(named))
        ran = pipeline(*words, *options)
        assert ran.code in (0, 5), ran.err
        assert "…" not in ran.out
        for name in names:
            assert name in ran.out, (words, name, ran.out)
        check_lines(ran.out, width)


def check_lines(text: str, width: int) -> None:
    """Lines fit, unless a name in them is too long; YAML and commands are left whole."""
    for line in text.partition("settings, every field:")[0].splitlines():
        longest = max(map(len, line.split()), default=0)
        if "pipeline " not in line and longest < width - 24:
            assert len(line) <= width, line
