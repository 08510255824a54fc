"""Runs CNN_Transfer_Learning.ipynb from top to bottom in a kernel of this Python; `make notebook` does it in place."""

from __future__ import annotations

import sys
from pathlib import Path

import nbformat
from jupyter_client.kernelspec import KernelSpec
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient
from nbformat import NotebookNode

from tests.support import REPOSITORY

NOTEBOOK = REPOSITORY / "CNN_Transfer_Learning.ipynb"


class Here(AsyncKernelManager):
    """A kernel of the Python that runs this, whatever kernels are installed by the name of python3."""

    @property
    def kernel_spec(self) -> KernelSpec:
        return KernelSpec(argv=[sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"])


def execute(folder: Path) -> NotebookNode:
    """The notebook with the outputs of a run in `folder`, without what tells when it was run.

    Raises nbclient's CellExecutionError where a cell fails.
    """
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    place = {"metadata": {"path": str(folder)}}
    NotebookClient(
        notebook, resources=place, kernel_manager_class=Here, timeout=600, record_timing=False, coalesce_streams=True
    ).execute()
    notebook.metadata = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    return notebook


if __name__ == "__main__":
    nbformat.write(execute(NOTEBOOK.parent), NOTEBOOK)
