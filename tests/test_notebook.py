"""CNN_Transfer_Learning.ipynb: it runs from top to bottom, and what it shows in the repository came of such a run."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import nbformat
import pytest
from nbformat import NotebookNode

from tests.support.notebook import NOTEBOOK, execute

ABSOLUTE = ("/tmp/", "/home/", "/root/", "/Users/", "/usr/", "site-packages")


def code(notebook: NotebookNode) -> Iterator[NotebookNode]:
    return (cell for cell in notebook.cells if cell.cell_type == "code")


def printed(notebook: NotebookNode) -> str:
    return "".join(out.text for cell in code(notebook) for out in cell.outputs if out.output_type == "stream")


def test_what_is_shown_came_of_one_run_in_order_without_a_warning() -> None:
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    cells = list(code(notebook))
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    assert [cell.id for cell in cells if not cell.outputs] == []
    streams = {out.get("name") for cell in cells for out in cell.outputs}
    assert "stderr" not in streams
    assert "computed  2,624" in printed(notebook), "not of a first run: rm -r demo-notebook; make notebook"
    pictures = [out for cell in cells for out in cell.outputs if "image/png" in out.get("data", {})]
    assert len(pictures) >= 5


def test_what_is_shown_tells_nothing_of_the_machine_or_the_hour() -> None:
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    assert [cell.id for cell in notebook.cells if cell.metadata] == []
    assert set(notebook.metadata) == {"kernelspec", "language_info"}
    shown = [
        out.get("text", "") + str(out.get("data", {}).get("text/plain", ""))
        for c in code(notebook)
        for out in c.outputs
    ]
    for place in ABSOLUTE:
        assert place not in "".join(shown), place


def test_it_runs_from_top_to_bottom(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On some of its images; a cell that fails raises."""
    monkeypatch.setenv("NOTEBOOK_IMAGES", "150")
    for own in ("IPYTHONDIR", "JUPYTER_RUNTIME_DIR"):  # not those of whoever runs the tests
        monkeypatch.setenv(own, str(tmp_path / own))
    text = printed(execute(tmp_path))
    for said in ("block16", "computed  0", "fine-tuned  test", "finetune/last", "dense     test"):
        assert said in text, said
