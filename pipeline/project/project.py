"""Owns what a pipeline.yaml resolves to: paths, cache, images, taps and keys. Not its fields (config/), nor runs."""

import logging
import os
import re
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any

from cache import atomic_files, records
from cache.errors import PipelineError, Unusable
from cache.hash_index import HashIndex, default_index_path
from cache.store import Cache, FeatureStore
from pipeline.config import yaml_file
from pipeline.config.data_schema import Data
from pipeline.config.schema import BaseChoice, RunConfig
from pipeline.project.job_shares import Part
from pipeline.project.progress import Progress
from pipeline.project.split_record import SPLITS_CSV, Redrawn, SplitRecord
from stages.bases import weights
from stages.bases.blocks import FoundBlock
from stages.bases.recipe import FeatureSpec, Recipe, Tap
from stages.bases.weights import Weights
from stages.data import scan, splits, tables
from stages.data.manifest import Manifest, Row
from stages.data.scan import Found
from stages.extract.cluster import ClusterSpec, read_scheduler_file
from stages.metrics.kfold import Strata
from stages.sources.blobs import is_url
from stages.sources.source import Source
from stages.targets import kinds
from stages.targets.target import Target

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Options:
    """What the command line adds to pipeline.yaml."""

    overrides: tuple[str, ...] = ()
    workers: int | None = None
    scheduler: str | None = None
    scheduler_file: Path | None = None
    """Names the scheduler, unless `scheduler` does."""
    require_cached: bool = False
    offline: bool = False
    leave_buckets: bool = False
    """No bucket is asked, as the user wishes who is offline; previews, which only download nothing, list them."""
    read_files: bool = True
    """False: files that the stat index does not know are not hashed, only counted."""
    part: Part | None = None
    """Extract only the images of that part."""


class Project:
    """One pipeline.yaml: settings resolved against its folder, the cache, and the images, scanned once."""

    def __init__(self, path: Path, options: Options, progress: Progress, settings: RunConfig | None = None) -> None:
        """`settings` replace those in the file at `path`; used for the settings in a model's record."""
        self.path = yaml_file.config_path(path).absolute()
        self.folder = self.path.parent
        self.options = options
        self.progress = progress
        self.config: RunConfig = settings or yaml_file.load(path, options.overrides)
        self._from_file = settings is None
        self.version = version("frozenbase")
        self.cache = Cache(self._cache_dir(), HashIndex(default_index_path()))
        self.known_weights: dict[BaseChoice, Weights] = {}  # of a restored model, set by recorded_model.restore
        self.known_blocks: dict[str, Sequence[FoundBlock]] = {}  # of model files, set by file_blocks
        self._specs: dict[str, FeatureSpec] = {}

    @cached_property
    def source(self) -> Source:
        """Where the images lie."""
        data, options = self.config.data, self.options
        root, columns = data.root if is_url(data.root) else self.at(data.root), data.columns.model_dump()
        return Source(root, data.follow_links, columns, self.cache.index, options.read_files, options.leave_buckets)

    def at(self, setting: str) -> Path:
        """The path of a setting: relative to the folder of pipeline.yaml; `~` is the home folder."""
        try:
            return self.folder / Path(setting).expanduser()
        except RuntimeError as error:
            raise Unusable(f"{setting!r} is not a path: {error}") from error

    def choice(self, tap: str) -> BaseChoice:
        """The base of that tap, and its weights, as in pipeline.yaml."""
        return self.config.extract.taps[tap].base or self.config.base

    def weights(self, choice: BaseChoice) -> Weights:
        """Raises NotAvailable where neither the file nor its digest is known."""
        if choice not in self.known_weights:
            offline = self.options.offline or self.options.require_cached
            with self._named_as_written(choice):
                self.known_weights[choice] = weights.resolve_weights(
                    choice.base, choice.setting, self.at(choice.file), self.cache, offline
                )
        return self.known_weights[choice]

    @contextmanager
    def _named_as_written(self, choice: BaseChoice) -> Iterator[None]:
        """Errors about the base name the fields of the tap that has it, where it is not the project's."""
        taps = [name for name, tap in self.config.extract.taps.items() if tap.base == choice]
        try:
            yield
        except PipelineError as error:
            if choice == self.config.base or not taps:
                raise
            within = f"extract.taps.{taps[0]}.base."
            message, hint = (re.sub(r"\bbase\.(?=name|weights)", within, text) for text in (error.message, error.hint))
            raise type(error)(message, hint) from error

    def weight_file(self, recipe: Recipe, offline: bool) -> Path:
        """The weight file of a recipe that `spec` gave, or a view of it. Raises what `weights.ensure_file` does."""
        of = (recipe.base, recipe.weights_sha256)
        choice = next(choice for choice, found in self.known_weights.items() if (choice.base.name, found.sha256) == of)
        with self._named_as_written(choice):
            return weights.ensure_file(choice.base, self.known_weights[choice], offline)

    @property
    def keys(self) -> dict[str, str]:
        """Name of each tap -> its extract key."""
        return {name: spec.key for name, spec in self.specs.items()}

    @property
    def specs(self) -> dict[str, FeatureSpec]:
        """Of each tap, by its name."""
        return {name: self.spec(name) for name in self.config.extract.taps}

    def spec(self, tap: str) -> FeatureSpec:
        """What the rows of that tap are. Raises NotAvailable where its weights are not known."""
        if tap not in self._specs:
            own, choice = self.config.extract.taps[tap], self.choice(tap)
            digest, numerics, dtype = self.weights(choice).sha256, self.config.numerics(tap), self.config.extract.dtype
            recipe = Recipe.of(choice.base, digest, self.config.pixels(tap), numerics, dtype)
            self._specs[tap] = FeatureSpec(recipe, Tap(own.layer, own.pooling, None, own.layout, own.prefix))
        return self._specs[tap]

    def store(self, tap: str) -> FeatureStore:
        return self.rows_of(self.spec(tap))

    def rows_of(self, spec: FeatureSpec) -> FeatureStore:
        return self.cache.features(spec.components())

    @cached_property
    def found(self) -> Found:
        """The images in the folder or table, with their ids."""
        data, source = self.config.data, self.source
        if data.table is None and not source.exists:
            raise Unusable(f"data.root: {source.text} is not there", self._missing_root_hint())
        with self.progress("hashing", None) as advance:
            if data.table is None:
                found = scan.scan_folders(source, on_hashed=advance)
            else:
                found = tables.read_table(self.at(data.table), data.columns.model_dump(), source, cells=data.cells)
            for note in found.notes:
                log.warning("%s", note)
            return scan.hash_files(found, source, self.cache.index, advance, self.options.read_files)

    @property
    def has_own_val(self) -> bool:
        """Whether the folders or the table say which images are in val; a saved manifest has the val that was drawn."""
        return not self.found.with_ids and any(row.split == "val" for row in self.found.rows)

    @cached_property
    def manifest(self) -> Manifest:
        """All readable images, each with its split: the user's, that in splits.csv, or as a run would draw it."""
        return Manifest(self._split_record.assign(self._grouped_rows))

    @property
    def target_kind(self) -> type[Target]:
        return self.config.data.predicted

    def find_target(self, manifest: Manifest) -> Target:
        """What heads predict on those images. Raises Unusable where their labels do not allow a head."""
        return kinds.find_target(manifest, self.config.data.target, self.config.data.names, self.config.data.classes)

    def strata(self, rows: Sequence[Row]) -> Strata:
        """What of labelled rows is to be spread evenly over folds."""
        return self.target_kind.strata([row.label or "" for row in rows])

    def count(self, manifest: Manifest) -> dict[str, dict[str, int]]:
        """Labelled images by class and split, or by what else its target counts."""
        return manifest.counts(self.config.data.classes or (), self.target_kind.counted)

    def remember_splits(self) -> None:
        """Write splits that splits.csv lacks to it, and go by it from here on; for stages that train.

        With `--set` of groups, columns, labels or splits nothing is written: these are trials. Raises Unusable where it
        cannot be written.
        """
        written = self._written_data()
        now = self.config.data
        if written is not None and (written.group_from, written.columns, written.cells) == (
            now.group_from,
            now.columns,
            now.cells,
        ):
            self.manifest = Manifest(self._split_record.add(self._grouped_rows))

    def redraw_splits(self) -> Redrawn:
        """Draw all splits anew, by the settings of pipeline.yaml. Raises Unusable where there is nothing to draw."""
        done = self._split_record.redraw(self._grouped_rows, self.config.data.classes or ())
        vars(self).pop("manifest", None)
        return done

    @cached_property
    def _split_record(self) -> SplitRecord:
        """splits.csv, or none for settings of splits that are not those of pipeline.yaml."""
        written, settings = self._written_data(), self.config.data.split
        goes_by_file = written is not None and written.split == settings
        return SplitRecord(self.folder / SPLITS_CSV if goes_by_file else None, settings, self.target_kind)

    def _written_data(self) -> Data | None:
        """The section `data` of pipeline.yaml without overrides; None where that is invalid, or not what is used."""
        if not self._from_file or not self.options.overrides:
            return self.config.data if self._from_file else None
        try:
            return yaml_file.load(self.path).data
        except Unusable:
            return None

    @cached_property
    def _grouped_rows(self) -> Sequence[Row]:
        pattern, rows = self.config.data.group_from, self.found.rows
        return rows if pattern is None else splits.group_by(rows, pattern)

    def rows_with_files(self, ids: Collection[str]) -> list[Row]:
        """The images among `ids` whose files exist."""
        return [row for row in self.found.rows if row.id in ids and self.source.has(row.path)]

    def check_heads(self, names: Collection[str]) -> None:
        """Raises Unusable if pipeline.yaml has no head of one of these names."""
        if unknown := [name for name in names if name not in self.config.heads]:
            raise Unusable(f"no head {unknown[0]!r} in {self.path.name}; it has {', '.join(self.config.heads)}")

    def check_finetune(self, names: Collection[str]) -> None:
        """Raises Unusable if pipeline.yaml has no fine-tuning of one of these names."""
        known = self.config.finetune
        if unknown := [name for name in names if name not in known]:
            has = f"it has {', '.join(known)}" if known else "its finetune: is empty"
            hint = "" if known else "add one: finetune: {last: {head: logistic, unfreeze_from: BLOCK}}"
            raise Unusable(f"no fine-tuning {unknown[0]!r} in {self.path.name}; {has}", hint)

    def is_trial(self, stage: str, name: str) -> bool:
        """Whether overrides make another model of that name than pipeline.yaml as it stands would."""
        if not self.options.overrides:
            return False
        try:
            written = yaml_file.load(self.path)
            return written.deciding_fields(stage, name) != self.config.deciding_fields(stage, name)
        except Unusable:  # without the overrides there is no such model
            return True

    @property
    def cluster(self) -> ClusterSpec:
        settings = self.config.cluster
        workers = self.options.workers or (1 if settings.workers == "auto" else settings.workers)
        scheduler = self.options.scheduler or os.environ.get("PIPELINE_SCHEDULER")
        file = self.options.scheduler_file or os.environ.get("PIPELINE_SCHEDULER_FILE")
        if file and not scheduler:
            scheduler = read_scheduler_file(Path(file))
        return ClusterSpec(workers, scheduler, settings.timeout)

    def _cache_dir(self) -> Path:
        """--set, else PIPELINE_CACHE_DIR, else cache.dir in the file, else .features in the project's folder."""
        setting, environment = self.config.cache.dir, os.environ.get("PIPELINE_CACHE_DIR")
        if environment and not any(text.startswith(("cache.dir", "cache=")) for text in self.options.overrides):
            return Path(environment).absolute()
        return self.at(setting or ".features")

    def save_manifest(self, manifest: Manifest) -> str | None:
        """Save the manifest in the cache with the settings that made it; its digest, or None if that is read-only."""
        with suppress(OSError):
            digest = self.cache.put_named("manifests", manifest.to_bytes(), ".jsonl")
            path = self.cache.root / "manifests" / f"{digest}.json"
            if records.load(path) is None:
                atomic_files.publish(path, records.dump({"created": time.time(), "settings": self._split_settings()}))
            return digest
        return None

    def _split_settings(self) -> dict[str, Any]:
        data = self.config.data
        return {"group_from": data.group_from, "split": data.split.model_dump()}

    def _missing_root_hint(self) -> str:
        saved = [(path, records.load(path) or {}) for path in self.cache.root.glob("manifests/*.json")]
        same = [(r.get("created", 0), path) for path, r in saved if r.get("settings") == self._split_settings()]
        if not same:
            return "name the folder of the images with data.root"
        latest = os.path.relpath(max(same)[1].with_suffix(".jsonl"), self.folder)
        return f"correct data.root, or work from saved rows without images: --set data.table={latest}"
