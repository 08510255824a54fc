"""Owns `pipeline.open`: a pipeline.yaml from Python. It raises and logs, and prints nothing; the work is elsewhere."""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from pipeline.project.project import Options, Project, no_progress
from pipeline.results import registry
from pipeline.results.model import Model, read_head
from pipeline.runs.run import run_stages
from pipeline.runs.train_heads import HeadReport
from pipeline.serving import dataset
from pipeline.serving.dataset import Features
from pipeline.serving.predict import Predicted, predict
from stages.data.manifest import Row
from stages.heads.fitted import Head


def open(
    path: str | os.PathLike[str] = "pipeline.yaml", overrides: Sequence[str] | Mapping[str, Any] = ()
) -> OpenPipeline:
    """The pipeline of that pipeline.yaml, or of the one in the folder `path`.

    overrides: fields that are set as by --set, ("extract.size=160",) or {"extract.size": 160}.
    Raises Unusable, naming the field, for settings that cannot be used.
    """
    if isinstance(overrides, str):
        overrides = (overrides,)
    if isinstance(overrides, Mapping):
        overrides = [f"{field}={json.dumps(value, default=str)}" for field, value in overrides.items()]
    return OpenPipeline(Project(Path(path), Options(tuple(overrides)), no_progress))


class OpenPipeline:
    """Features and models of one pipeline.yaml. Images are looked at once: open it again to see new ones.

    Every error is a `cache.errors.PipelineError`: its `message` says what was found, its `hint` what to do.
    """

    def __init__(self, project: Project) -> None:
        self._project = project

    @property
    def manifest(self) -> tuple[Row, ...]:
        """Each image file that can be read: (id, path, label, split, group), in the order of its folder or table."""
        return self._project.manifest.rows

    def features(
        self, split: str | None = None, tap: str = "pooled", *, lazy: bool = False, compute: bool = True
    ) -> Features:
        """X, y and ids of the images in `split` (train, val or test; None for all), one row for each image.

        X is float32 (n, dim), or (n, h, w, channels) for a tap with pooling none: an ndarray of its own, or with
        `lazy` a dask array that reads about 32 MB at a time. y holds the labels, str or None; ids the SHA-256 of each
        file. Copies of an image count once (once in each of their splits, under data.on_leak: warn). Those with a
        label come first, sorted by id, which is the order that heads see; then those without one.

        Missing rows, of all taps, are computed first, as by `pipeline run extract`; unless `compute` is False, where
        NotAvailable is raised for them. Raises Unusable for what is no tap or split, or has no images, and where heads
        would refuse the labels or splits; ImagesRejected under data.on_bad: fail.
        """
        dataset.check_request(self._project, tap, split)
        _ = self._project.manifest  # so that the copy shares it
        project = copy.copy(self._project)
        project.options = replace(project.options, require_cached=not compute)
        found = dataset.select_rows(project, run_stages(project, (), {}), tap, split)
        return found.lazy() if lazy else found.whole()

    def head(self, name: str) -> Head:
        """The head of that name, trained first if it is not there, as by `pipeline run head NAME`.

        Its `classes` are in the order of the columns of `probabilities(X)`, where X is (n, dim), of its own tap.
        Raises Unusable where there is no such head, or labels and splits cannot carry one.
        """
        return read_head(self._trained(name).path)

    def metrics(self, name: str) -> dict[str, Any]:
        """Figures of that head: {"val": {...}, "test": {...}}. The same errors."""
        return self._trained(name).metrics

    def finetune(self, name: str) -> Model:
        """The fine-tuned model of that name, trained first if it is not there, as by `pipeline run finetune NAME`.

        Of several seeds it is the best on val. Its `metrics` hold the frozen head's too, and the difference; `history`
        has its curves.
        Raises Unusable where there is no such fine-tuning, or its head, labels or splits cannot carry one.
        """
        self._project.check_finetune([name])
        result: dict[str, Any] = {}
        run_stages(self._project, (), result, [name])
        return self.model(f"finetune/{name}/{result['finetune'][name].winner.key}")

    def model(self, name: str) -> Model:
        """The saved model that head/NAME, finetune/NAME, a tag or the first digits of a key mean. Nothing is computed.

        Raises Unusable where nothing or several bear that name, or it is damaged.
        """
        return registry.find(self._project.folder, name)

    def predict(
        self, model: str, paths: str | os.PathLike[str] | Sequence[str | os.PathLike[str]], *, keep: bool = False
    ) -> Predicted:
        """What a model says of image files, and of all images in folders: paths, classes and probabilities.

        model: head/NAME, a tag, or the first digits of a key; it goes by its own settings, not by this pipeline.yaml.
        paths: relative to the current folder. Rows that the cache has are used; others are computed, and kept with
        `keep`. `predicted` goes by the threshold and `confidence` by the temperature that were fitted on val;
        `probabilities` are the model's own, without it. Images that cannot be used are in `rejected`, not in `paths`.
        Raises Unusable where a path is not there or no image is named; NotAvailable where rows are missing and so are
        the weights.
        """
        several = [paths] if isinstance(paths, str | os.PathLike) else paths
        return predict(self._project, model, [os.fspath(path) for path in several], keep)

    def _trained(self, name: str) -> HeadReport:
        self._project.check_heads([name])
        result: dict[str, Any] = {}
        run_stages(self._project, [name], result)
        report: HeadReport = result["heads"][name]
        return report
