"""Owns BottleneckFeatures, the pipeline as a scikit-learn transformer. Not computing rows (runs/extraction.py)."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, TransformerMixin

from cache import registrations
from cache.errors import NotAvailable, Unusable
from pipeline.config import published_fields, yaml_file
from pipeline.project.progress import no_progress
from pipeline.project.project import Options, Project
from pipeline.runs import extraction
from stages.bases import catalogue
from stages.data import scan

_TAP = "features"
_SHOWN = 5


class BottleneckFeatures(TransformerMixin, BaseEstimator):
    """Paths of images -> features of a frozen base. Cached rows are read; missing ones are computed and stored.

    Rows have the same key as those of a pipeline.yaml with these settings. `transform` needs no `fit`.

    Parameters
    ----------
    base, weights : str
        As base.name and base.weights in pipeline.yaml. The path of a file is relative to the current folder.
    trust, preprocess : bool, dict or None
        For a model file as base: whether it may be opened, though that runs code in it, as by `pipeline bases trust`;
        and base.preprocess as in pipeline.yaml.
    size : int or None
        Images are scaled to size x size; None for the base's own size.
    image_fit, resize : str or None
        extract.fit (`fit` is a method here) and extract.resize in pipeline.yaml; None for what is published beside a
        model file, else squash and bilinear.
    decode, numerics, dtype : str
        As in pipeline.yaml under extract. dtype is that of stored rows; `transform` returns float32.
    layer, pooling : str
        The tap: `output` or any layer's name; avg, max, or none for whole maps, which are flattened.
    cache_dir : str, path or None
        The cache; None for $PIPELINE_CACHE_DIR, else `.features` in the current folder.
    root : str, path or None
        The folder that relative paths start from; None for the current one.
    workers : int
        1 extracts in this process with a thread per core; more are processes, for which a script needs
        `if __name__ == "__main__":`.

    Attributes
    ----------
    extract_key_ : str
        After `fit`, the key of the rows: 64 hex digits, as listed by `pipeline cache ls`.
    """

    __module__ = "pipeline"  # in pickles, so that they outlast this file; older ones name pipeline.transformer

    def __init__(
        self, *, base: str = "efficientnet_lite0", weights: str = "imagenet", trust: bool = False,
        preprocess: Mapping[str, Any] | str | None = None, size: int | None = None,
        image_fit: str | None = None, resize: str | None = None, decode: str = "scaled", layer: str = "output",
        pooling: str = "avg", numerics: str = "f32", dtype: str = "float32",
        cache_dir: str | os.PathLike[str] | None = None, root: str | os.PathLike[str] | None = None, workers: int = 1,
    ) -> None:  # fmt: skip
        self.base = base
        self.weights = weights
        self.trust = trust
        self.preprocess = preprocess
        self.size = size
        self.image_fit = image_fit
        self.resize = resize
        self.decode = decode
        self.layer = layer
        self.pooling = pooling
        self.numerics = numerics
        self.dtype = dtype
        self.cache_dir = cache_dir
        self.root = root
        self.workers = workers

    def fit(self, X: Any, y: Any = None) -> BottleneckFeatures:
        """Check the parameters; no image is read.

        Raises Unusable for an invalid value, NotAvailable where the weights are missing and their digest unknown.
        """
        self.extract_key_ = self._project().store(_TAP).key
        return self

    def transform(self, X: Any) -> np.ndarray:
        """The rows of the images at the paths X, in that order: a new ndarray (n, dim), float32.

        X: n > 0 paths (str or os.PathLike) in a list, tuple, array or Series, or in a table of one column. Paths may
        be repeated.
        Raises Unusable, naming the first few, where files cannot be read or decoded; NotAvailable where rows and
        weights are missing.
        """
        project = self._project()
        paths = [project.source.place(path) for path in _paths(X)]
        images, unread = scan.hash_names(project.source, paths, project.cache.index)
        if unread:
            raise _unusable(unread, len(set(paths)))
        store, found = project.store(_TAP), {row.path: row.id for row in images.rows}
        with registrations.running_job(project.cache.root, [store.key]):
            reasons = dict(extraction.fill_rows(project, images, [project.spec(_TAP)]).rejected)
            if reasons:
                raise _unusable({row.path: reasons[row.id] for row in images.rows if row.id in reasons}, len(found))
            rows = store.read([found[path] for path in paths])
        return rows.reshape(len(rows), -1).astype(np.float32, copy=False)

    def get_feature_names_out(self, input_features: Any = None) -> np.ndarray:
        """`base_layer_pooling_0` and so on, one for each column: ndarray (dim,) of str objects.

        Their number is read from the cache; NotAvailable is raised where it has no row yet.
        """
        store = self._project().store(_TAP)
        records = store.shard_records(store.names()[:1])
        if not records:
            raise NotAvailable(
                f"the number of features is unknown: the cache {store.cache.root} has no row of them yet",
                "transform an image first",
            )
        dim = int(np.prod(records[0]["shape"]))
        return np.array([f"{self.base}_{self.layer}_{self.pooling}_{i}" for i in range(dim)], dtype=object)

    def __sklearn_tags__(self) -> Any:
        """Input is one path for each sample, validated here."""
        tags = super().__sklearn_tags__()
        tags.input_tags.one_d_array = tags.input_tags.string = True
        tags.input_tags.two_d_array = tags.requires_fit = False
        tags.no_validation = True
        return tags

    def _project(self) -> Project:
        """A project without a pipeline.yaml, in the current folder. Raises Unusable for invalid parameters."""
        cache = None if self.cache_dir is None else os.fspath(self.cache_dir)
        base = {field: getattr(self, field) for field in ("weights", "trust", "preprocess")}
        extract = {field: getattr(self, field) for field in ("decode", "numerics", "dtype")}
        chosen = {"size": self.size, "fit": self.image_fit, "resize": self.resize}
        extract |= {field: value for field, value in chosen.items() if value is not None}
        taps = {_TAP: {"layer": self.layer, "pooling": self.pooling}}
        settings: dict[str, Any] = {
            "data": {"root": os.fspath(self.root or ".")},
            "base": {"name": self.base, **base},
            "extract": {"taps": taps, **extract},
            "heads": {},
            "cluster": {"workers": self.workers},
            "cache": {"dir": cache},
        }
        overrides = () if cache is None else (f"cache.dir={cache}",)  # takes precedence over the environment
        settings = published_fields.fill(settings, Path.cwd())
        settings["extract"].setdefault("size", catalogue.choose_base(str(self.base)).size)
        config = yaml_file.validate(settings, type(self).__name__)
        return Project(Path.cwd(), Options(overrides), no_progress, config)


def _paths(X: Any) -> Sequence[str]:
    """The paths in X, in order. Raises Unusable where it is empty, or holds something else."""
    array = np.asarray(X, dtype=object)
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.ndim != 1 or len(array) == 0:
        raise Unusable(
            f"got {type(X).__name__} of shape {array.shape}; expected one path for each image, at least one",
            "give a list, array or Series of paths, or a table of one column",
        )
    for number, path in enumerate(array):
        if not isinstance(path, str | os.PathLike) or "\0" in os.fspath(path):
            raise Unusable(f"sample {number} is {path!r}; expected the path of an image", "give paths of files")
    return [os.fspath(path) for path in array]


def _unusable(reasons: Mapping[str, str], of: int) -> Unusable:
    first = "; ".join(f"{path}: {reason}" for path, reason in list(reasons.items())[:_SHOWN])
    more = f"; and {len(reasons) - _SHOWN} more" if len(reasons) > _SHOWN else ""
    return Unusable(f"{len(reasons)} of {of} images cannot be used: {first}{more}", "repair them, or leave them out")
