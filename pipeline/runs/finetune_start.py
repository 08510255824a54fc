"""Owns the head that a fine-tuning starts from: on which images it is fitted, and training it. Not fine-tuning.

val chooses the epoch of a fine-tuning. A head that folds of train and val chose was fitted on val; then the start is
such a head of train alone, with a key of its own.
"""

from dataclasses import dataclass, replace
from pathlib import Path

from pipeline.config.head_schema import HeadConfig
from pipeline.project.project import Project
from pipeline.results.model import read_head
from pipeline.runs import sweeps, train_heads
from pipeline.runs.sweeps import SweepReport
from pipeline.runs.train_heads import HeadReport
from stages.data.manifest import Manifest
from stages.heads import labelled_rows
from stages.heads.fitted import Head
from stages.targets.target import Target


@dataclass(frozen=True)
class Start:
    """A head with its key, settings and target; of a sweep, the best point. head: None where it is not trained yet.

    pooled: the folder of the head of train and val that `run head` gives, where folds chose it.
    """

    head: Head | None
    key: str
    spec: HeadConfig
    target: Target
    pooled: Path | None = None


def start_rows(spec: HeadConfig, manifest: Manifest) -> Manifest:
    """The images of the start; spec: its settings, with `choose` as folds or val."""
    return manifest.without_val() if spec.choose == "folds" else manifest


def train_start(project: Project, name: str, manifest: Manifest) -> Start:
    """The start of the fine-tuning of that name, and the head itself; each is trained if it is missing."""
    of = project.config.finetune[name].head
    labelled_rows.check_splits(manifest, "val", project.find_target(manifest))
    done, rows = sweeps.run_sweep(project, of, manifest), _rows(project, of, manifest)
    if rows is manifest:
        return _best(project, of, done, rows)
    pooled = done.winner if isinstance(done, SweepReport) else done
    start = _best(project, of, sweeps.run_sweep(project, of, rows, as_start=True), rows)
    return replace(start, pooled=pooled.path)


def find_start(project: Project, name: str, manifest: Manifest) -> Start | None:
    """The same without training; None where points of a sweep are missing. Raises Unusable as training would."""
    of = project.config.finetune[name].head
    target = project.find_target(manifest)
    labelled_rows.check_splits(manifest, "val", target)
    rows = _rows(project, of, manifest)
    found = sweeps.find_points(project, of, rows, target)
    if found.points and not found.missing:
        return _best(project, of, found, rows)
    if len(found.missing) > 1 or rows is manifest:
        return None
    (point, folder), *_ = found.missing.items()
    spec, _ = train_heads.choose_rows(project, project.config.heads[of].points()[point], rows)
    return Start(None, folder.name, spec, target)


def _rows(project: Project, of: str, manifest: Manifest) -> Manifest:
    spec, _ = train_heads.choose_rows(project, project.config.heads[of], manifest)
    return start_rows(spec, manifest)


def _best(project: Project, of: str, done: HeadReport | SweepReport, rows: Manifest) -> Start:
    point, report = done.ranked()[0] if isinstance(done, SweepReport) else ("", done)
    spec, _ = train_heads.choose_rows(project, project.config.heads[of].points()[point], rows)
    head = read_head(report.path)
    return Start(head, report.key, spec, head.target)
