"""Owns `pipeline.open`: a pipeline.yaml from Python. Not the work itself (runs/, serving/)."""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.evaluation.audit_findings import Audit
from pipeline.project.progress import no_progress
from pipeline.project.project import Options, Project
from pipeline.report.report import Written, write_report
from pipeline.results import registry
from pipeline.results.csv_parquet import Columns
from pipeline.results.frames import Tabular, figure_columns
from pipeline.results.model import Model, read_head
from pipeline.runs.run import run_stages
from pipeline.runs.sweeps import SweepReport
from pipeline.runs.train_heads import HeadReport
from pipeline.serving import dataset
from pipeline.serving.dataset import Features
from pipeline.serving.predict import Predicted, predict
from stages.data.manifest import Row
from stages.heads.fitted import Head
from stages.metrics.figures import Metrics

if TYPE_CHECKING:
    from pipeline.labelling.curve import Learned
    from pipeline.labelling.suggest import Suggested


def open(
    path: str | os.PathLike[str] = "pipeline.yaml", overrides: Sequence[str] | Mapping[str, Any] = ()
) -> OpenPipeline:
    """The pipeline of that pipeline.yaml, or of the one in the folder `path`.

    overrides: fields to set, as with --set: ("extract.size=160",) or {"extract.size": 160}.
    Raises Unusable, naming the field, for invalid settings.
    """
    if isinstance(overrides, str):
        overrides = (overrides,)
    if isinstance(overrides, Mapping):
        overrides = [f"{field}={json.dumps(value, default=str)}" for field, value in overrides.items()]
    return OpenPipeline(Project(Path(path), Options(tuple(overrides)), no_progress))


@dataclass(frozen=True, repr=False)
class TrainedHead(Tabular, Head):
    """A head and its figures."""

    figures: Metrics = field(kw_only=True)

    @property
    def metrics(self) -> dict[str, Any]:
        """As metrics.json has them: {"val": {...}, "test": {...}}, or "folds" instead of "val"."""
        return self.figures.to_json()

    def summary(self) -> str:
        return f"{self.kind}, {len(self.target)} {self.target.noun}"

    def columns(self) -> Columns:
        """A row for each figure, with its value and interval in each split."""
        return figure_columns(self.figures)


class OpenPipeline:
    """Features and models of one pipeline.yaml. Images are listed once: open it again to see new ones.

    Every error is a `cache.errors.PipelineError`: its `message` says what was found, its `hint` what to do.
    """

    def __init__(self, project: Project) -> None:
        self._project = project

    def audit(self, tap: str | None = None, sample: int | None = None) -> Audit:
        """Copies, suspect labels, odd images and more, by cached rows of a tap (None: the first) and the pictures.

        sample: so many images, drawn at random, instead of all. Raises Unusable where there are too few images,
        NotAvailable where a row is missing.
        """
        from pipeline.evaluation.audit import audit  # with it scipy's filters, which nothing else needs

        return audit(self._project, tap, sample=sample)

    def curve(self, head: str, repeats: int = 1) -> Learned:
        """The figures of that head by the number of images, and their forecast at twice as many, from cached rows.

        `draw("png")` is its picture. Raises Unusable where there is no such head, or too few images; NotAvailable where
        a row is missing.
        """
        from pipeline.labelling.curve import learning_curve

        return learning_curve(self._project, head, repeats)

    def suggest(
        self,
        head: str,
        images: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
        n: int = 50,
        replays: int = 10,
    ) -> Suggested:
        """Which `n` of these images to label next for that head, of those without a label, and what that saves.

        images: folders or files, relative to the current folder; their rows are computed and stored where need be.
        `suggestions` is the list, `replayed` what suggestions saved on the labels that are there, in so many replays.
        Raises Unusable where the head was not trained, or no image is without a label; NotAvailable where rows and
        weights are missing.
        """
        from pipeline.labelling.suggest import suggest

        several = [images] if isinstance(images, str | os.PathLike) else images
        return suggest(self._project, head, [os.fspath(path) for path in several], n, replays)

    def report(
        self, path: str | os.PathLike[str] | None = None, model: str | None = None, *, without: Sequence[str] = ()
    ) -> Written:
        """Write a page on a model (None: the one that ranks best by folds or val) to `path`, as `pipeline report` does.

        By default report.html beside pipeline.yaml. without: any of audit, curve, map, activation. Its `path` is the
        file. Raises Unusable where there is no such model, or the file is another page.
        """
        return write_report(self._project, model, None if path is None else Path(path), without)

    @property
    def manifest(self) -> tuple[Row, ...]:
        """Each readable image file: (id, path, label, split, group), in the order of its folder or table."""
        return self._project.manifest.rows

    def features(
        self, split: str | None = None, tap: str = "pooled", *, lazy: bool = False, compute: bool = True
    ) -> Features:
        """X, y and ids of the images in `split` (train, val or test; None for all), one row for each image.

        X is float32 (n, dim), or (n, h, w, channels) for a tap with pooling none: a new ndarray, or with
        `lazy` a dask array that reads about 32 MB at a time. y holds the labels, str or None; ids the SHA-256 of each
        file. Copies of an image count once (once in each of their splits, under data.on_leak: warn). Labelled images
        come first, sorted by id, in the order that heads use; then those without a label.

        Missing rows, of all taps, are computed first, as by `pipeline run extract`; with `compute=False`, NotAvailable
        is raised instead. Raises Unusable for an unknown tap or split, one without images, and labels or splits that
        heads cannot use; ImagesRejected under data.on_bad: fail.
        """
        dataset.check_request(self._project, tap, split)
        _ = self._project.manifest  # computed here, so that the copy shares it
        project = copy.copy(self._project)
        project.options = replace(project.options, require_cached=not compute)
        found = dataset.select_rows(project, run_stages(project, (), {}), tap, split)
        return found.lazy() if lazy else found.whole()

    def head(self, name: str) -> TrainedHead:
        """The head of that name, of a sweep the best, trained first if need be, as by `pipeline run head NAME`.

        Its `classes` are in the order of the columns of `predict(X)`, where X is (n, dim), of its own tap;
        `metrics` are its figures: {"val": {...}, "test": {...}}.
        Raises Unusable where there is no such head, or it cannot be trained on these labels and splits.
        """
        report = self._trained(name)
        return TrainedHead(**vars(read_head(report.path)), figures=report.metrics)

    def metrics(self, name: str) -> dict[str, Any]:
        """Figures of that head: {"val": {...}, "test": {...}}. Raises as `head` does."""
        return self._trained(name).metrics.to_json()

    def finetune(self, name: str) -> Model:
        """The fine-tuned model of that name, trained first if need be, as by `pipeline run finetune NAME`.

        Of several seeds it is their average, where that is set, or else the best on val. Its `metrics` also hold the
        frozen head's, and the difference; `history` holds its curves, of an average none.
        Raises Unusable where there is no such fine-tuning, or it cannot be trained on this head, labels and splits.
        """
        self._project.check_finetune([name])
        result: dict[str, Any] = {}
        run_stages(self._project, (), result, [name])
        return self.model(f"finetune/{name}/{result['finetune'][name].winner.key}")

    def model(self, name: str) -> Model:
        """The saved model called head/NAME, finetune/NAME, a tag or the first digits of a key. Nothing is computed.

        Raises Unusable where no model or several have that name, or it is damaged.
        """
        return registry.find(self._project.folder, name)

    def predict(
        self, model: str, paths: str | os.PathLike[str] | Sequence[str | os.PathLike[str]], *, keep: bool = False
    ) -> Predicted:
        """Predict image files, and all images in folders: paths, and what the model says of each.

        model: head/NAME, a tag, or the first digits of a key; its own settings apply, not this pipeline.yaml's.
        paths: relative to the current folder. Cached rows are used; others are computed, and stored with `keep`.
        `predicted` is the most probable class, `confidence` its probability at the temperature fitted on val,
        `at_threshold` the class by the threshold fitted on val; `probabilities` are without it. Images that cannot be
        used are in `rejected`, not in `paths`.
        Raises Unusable where a path does not exist or no image is named; NotAvailable where rows and weights are
        missing.
        """
        several = [paths] if isinstance(paths, str | os.PathLike) else paths
        return predict(self._project, model, [os.fspath(path) for path in several], keep)

    def _trained(self, name: str) -> HeadReport | SweepReport:
        self._project.check_heads([name])
        result: dict[str, Any] = {}
        run_stages(self._project, [name], result)
        report: HeadReport | SweepReport = result["heads"][name]
        return report
