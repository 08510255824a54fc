"""Owns the int8 file of a base: on which images it is calibrated and judged, and which layers stay in float32 for it.

Not the arithmetic (stages/engines/quantise.py). Writes that file, and no row.
"""

from __future__ import annotations

import hashlib
import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from cache import atomic_files
from cache.errors import PipelineError, Unusable
from pipeline.config.extract_schema import TapConfig
from pipeline.evaluation import cost, trial_images
from pipeline.project.project import Options, Progress
from stages.bases import catalogue, published, weights
from stages.bases.recipe import FrozenBase, Pooling, Recipe, Tap
from stages.data.manifest import Row
from stages.engines import embed as embeds
from stages.engines import openvino_engine, parity, select
from stages.engines import quantise as int8
from stages.engines.embed import Embed
from stages.runtime import hardware, parallel
from stages.targets.classes import Classes

log = logging.getLogger(__name__)

PICTURES = 300
"""That it is calibrated on by default."""

TURN = 0.99
"""Mean cosine of rows with those in float32, asked for where labels cannot tell the loss; on the demo bfloat16 has
0.997."""

_RANKED = 32


@dataclass(frozen=True)
class Candidate:
    """An int8 model with `kept` of its layers in float32; least and mean cosine of its rows with those in float32."""

    kept: int
    least: float
    mean: float
    judged: cost.Judged | None
    model: int8.Model = field(repr=False)

    @property
    def is_good(self) -> bool:
        return self.judged.shown if self.judged is not None else self.mean >= TURN

    def to_json(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "model"}


@dataclass(frozen=True)
class Quantised:
    """The file, by the digest that keys have, and what it costs. speeds: forward passes, images/s by arithmetic."""

    path: Path
    sha256: str
    base: str
    size: tuple[int, int]
    pictures: int
    layers: int
    chosen: Candidate
    tried: Sequence[Candidate]
    speeds: Mapping[str, float]
    versions: Mapping[str, str]
    labelled: int

    def to_json(self) -> dict[str, Any]:
        return {**vars(self), "path": str(self.path), "least_labelled": cost.LEAST_JUDGED}


def quantise(
    config: Path, options: Options, progress: Progress, name: str, output: Path,
    folder: Path | None = None, size: int | None = None, pictures: int = PICTURES, layers: Sequence[str] = (),
) -> Quantised:  # fmt: skip
    """Write the base `name` in int8 to `output` (.xml, and its .bin), with those inner layers as taps too.

    It is calibrated on images of train and val, or below `folder`; the labelled ones judge it. Raises PipelineError
    where no such file keeps the head, or where this CPU computes int8 no faster, and writes nothing then.
    """
    _check_output(output)
    versions = int8.versions()
    with trial_images.open_project(config, options, progress, name, folder, size) as project:
        choice = project.config.base
        extract = project.config.extract.model_copy(update={"taps": {"pooled": TapConfig()}})
        pixels = project.config.model_copy(update={"extract": extract}).pixels("pooled")
        recipe = Recipe.of(choice.base, project.weights(choice).sha256, pixels, "f32", "float32")
        file = project.weight_file(recipe, options.offline)
        images = trial_images.Images(project, recipe)
        seen, shown = images.take(pictures)
        work = _Work(images, progress, int8.float_model(recipe, file, layers), shown)
        rows, classes = cost.choose_rows(project.manifest, project.target_kind)
        labelled = len({row.group or row.id for row in rows})
        work.judge_by(rows if labelled >= cost.LEAST_JUDGED else (), classes)
        tried = work.search()
        chosen = tried[-1]
        made = {"base": recipe.base, "weights": recipe.weights_sha256, "pictures": len(seen), **versions}
        digest = hashlib.sha256("".join(seen).encode()).hexdigest()
        made |= {"ids": digest, "kept": chosen.kept, "layers": work.quantiser.layers, "ranges": work.ranges}
        model = int8.with_facts(chosen.model, {**published.own_facts(pixels), "made": made})
        speeds = work.speeds(chosen.model)
        sha256 = _publish(model, output, recipe, shown[: work.batch], work.open(chosen.model))
    both, count = (pixels.height, pixels.width), work.quantiser.layers
    return Quantised(output, sha256, name, both, len(seen), count, chosen, tried, speeds, versions, labelled)


class _Work:
    """The float model, what it says of the images, and the int8 models that are compared with it."""

    def __init__(
        self, images: trial_images.Images, progress: Progress, model: tuple[int8.Model, int], pictures: np.ndarray
    ) -> None:
        self._images, self._progress, self._pictures = images, progress, pictures
        self._float, self.batch = model
        self.quantiser = int8.Quantiser(*model, pictures)
        self.ranges = ""
        self._judge: cost.Judge | None = None
        self._ids: Sequence[str] = ()
        self._exact = np.empty(0)

    def open(self, model: int8.Model, numerics: str = "f32") -> Embed:
        return int8.open_model(model, self.batch, numerics)

    def judge_by(self, rows: Sequence[Row], classes: Classes) -> None:
        """Have a head on those rows judge; without any, the cosines of other images."""
        wanted = [row.id for row in rows] or self._images.held(len(self._pictures))
        self._ids, self._exact = self._rows(self.open(self._float), wanted, "rows in f32")
        there = set(self._ids)
        if rows:
            self._judge = cost.Judge([row for row in rows if row.id in there], classes, self._exact)

    def search(self) -> list[Candidate]:
        """Int8 models with ever more parts in float32, the first that is good last.

        Raises PipelineError where none is, or where the CPU has no instruction for it and it is no faster.
        """
        exact = int8.pooled_rows(self.open(self._float), self._pictures)
        turned = {}
        for ranges in int8.RANGES:
            model = self._quantise((), ranges)
            turned[ranges] = int8.cosines(exact, int8.pooled_rows(self.open(model), self._pictures)).mean(), model
        self.ranges = max(int8.RANGES, key=lambda ranges: turned[ranges][0])
        self._check_speed(turned[self.ranges][1])
        tried = [self._try((), turned[self.ranges][1])]
        if tried[0].is_good:
            return tried
        with self._progress("sensitivity of layers", len(self.quantiser.parts)) as advance:
            ranked = self.quantiser.rank(self.ranges, _RANKED, advance)
        count = 1
        while count < len(ranked):
            kept = tuple(ranked[:count])
            tried.append(self._try(kept, self._quantise(kept, self.ranges)))
            if tried[-1].is_good:
                return tried
            count *= 2
        raise PipelineError(_describe_failure(tried[-1], self.quantiser.layers), "use numerics: openvino-bf16, or f32")

    def speeds(self, model: int8.Model) -> dict[str, float]:
        """Images/s of forward passes: f32, bf16 where the CPU has it, int8."""
        opened = {"f32": self.open(self._float), "int8": self.open(model)}
        try:
            opened["bf16"] = self.open(self._float, "openvino-bf16")
        except Unusable as why:
            log.info("%s", why)
        found = int8.images_per_second(opened, self._pictures)
        return {name: round(found[name], 1) for name in ("f32", "bf16", "int8") if name in found}

    def _check_speed(self, model: int8.Model) -> None:
        if hardware.has_int8_dot_products():
            return
        speeds = self.speeds(model)
        if speeds["int8"] <= speeds["f32"]:
            raise PipelineError(
                f"{hardware.cpu_name()} has no int8 dot products (VNNI), and computes this base no faster in int8: "
                f"{speeds['int8']:.0f} images/s, {speeds['f32']:.0f} in float32",
                "quantise it on a machine that has them, for such machines",
            )

    def _quantise(self, kept: Sequence[int8.Part], ranges: str) -> int8.Model:
        with self._progress("quantising", None):
            return self.quantiser.quantise(kept, ranges)

    def _try(self, kept: Sequence[int8.Part], model: int8.Model) -> Candidate:
        _, rows = self._rows(self.open(model), self._ids, "rows in int8")
        cosines = int8.cosines(self._exact, rows)
        judged = None if self._judge is None else self._judge.compare(rows)
        layers = sum(part.layers for part in kept)
        return Candidate(layers, float(cosines.min()), float(cosines.mean()), judged, model)

    def _rows(self, embed: Embed, ids: Sequence[str], title: str) -> tuple[list[str], np.ndarray]:
        """Those of `ids` that can be decoded, and the rows of a head."""
        parts = [ids[start : start + embed.batch] for start in range(0, len(ids), embed.batch)]
        with self._progress(title, len(ids)) as advance:

            def work(part: Sequence[str]) -> tuple[list[str], np.ndarray | None]:
                found, pixels = self._images.read(part)
                advance(len(part))
                return found, int8.pool(embed(pixels)) if found else None

            done = parallel.run_in_threads(work, parts)
        rows = [rows for _, rows in done if rows is not None]
        if not rows:
            raise Unusable("no image can be decoded", "")
        return [image for found, _ in done for image in found], np.concatenate(rows)


def _describe_failure(last: Candidate, layers: int) -> str:
    kept = f"with {last.kept} of {layers} layers in float32"
    if last.judged is None:
        return f"even {kept}, rows in int8 have a mean cosine of {last.mean:.3f} with those in float32; {TURN} is asked"
    gap = last.judged.difference["accuracy"]
    low, high = gap.ci or (math.nan, math.nan)
    return (
        f"even {kept}, {last.judged.images:,} images cannot exclude that int8 costs the head more than "
        f"{100 * cost.LOSS:g} points of accuracy: {gap.value:+.4f} ({low:+.4f} to {high:+.4f})"
    )


def _check_output(output: Path) -> None:
    if output.suffix != ".xml":
        raise Unusable(f"--output: {output} is no .xml file, which is what OpenVINO's models are", "-o NAME-int8.xml")
    for path in (output, output.with_suffix(".bin")):
        if path.exists():
            raise Unusable(f"--output: {path} is there already", "choose another name, or remove it")


def _publish(model: int8.Model, output: Path, recipe: Recipe, pixels: np.ndarray, judged: Embed) -> str:
    """Publish it once it has been opened as any base is, and gives the rows that were judged; its digest."""
    files = {
        output.with_suffix(".bin").name: model[openvino_engine.WEIGHTS],
        output.name: model[openvino_engine.GRAPH],
    }
    with atomic_files.temporary_folder() as place:
        atomic_files.publish_all(place, files)
        file = place / output.name
        base = catalogue.choose_base(str(file))
        digest = weights.digest_of(base, file)
        maps = next(iter(judged(pixels).values()))
        pooling: Pooling = {4: "avg", 3: "mean"}.get(maps.ndim, "none")  # type: ignore[assignment]
        own = Recipe.of(base, digest, recipe.pixels, "f32", "float32")
        opened = select.open_engine("openvino", FrozenBase(own, {"row": Tap("output", pooling)}, file))
        embeds.check_independence(opened, recipe.pixels.height, recipe.pixels.width)
        rows = opened(pixels)["row"]
        apart = float(np.abs(rows - int8.pool(judged(pixels))).max())
        # (of tokens, the mean that a base is pooled to leaves out the class token)
        if pooling != "mean" and not apart <= parity.BF16 * np.abs(rows).max():
            raise PipelineError(
                f"opened as a base, the file gives other rows than the judged model: they differ by {apart:.2g}",
                "try another release of OpenVINO",
            )
    atomic_files.publish_all(output.absolute().parent, files)
    return digest
