"""Owns class activation maps of a few images: the forward pass that they take, and drawing them.

Not their arithmetic (stages/heads/fitted.py).
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from PIL import Image

from cache.errors import NotAvailable, PipelineError, Unusable
from pipeline.project.project import Project
from pipeline.report import pictures
from pipeline.report.material import Material
from pipeline.runs import extraction
from pipeline.serving import recorded_model
from stages.bases.recipe import FeatureSpec
from stages.data.manifest import Manifest, Row
from stages.heads.fitted import score_maps

_SIDE = 192
_FOR, _AGAINST = (230, 97, 1), (64, 128, 255)
"""Orange speaks for the guess, blue for the true class; told apart by who doesn't see red or green."""

_EXACT = 1e-3
"""How far the mean of a map may be from the score of the cached row, in its units: rounding of float16 rows."""


@dataclass(frozen=True)
class Drawn:
    """pictures: by id, data URIs. words: how exact they are, or why there are none; passing: as a Section has it."""

    pictures: Mapping[str, str]
    words: str
    passing: bool = False


def draw(material: Material, numbers: Sequence[int]) -> Drawn:
    """Where the guess comes from rather than the true class, for the images of these predictions.

    The base runs once on these images, for the maps before pooling; nothing is added to the cache.
    """
    try:
        return _draw(material, numbers)
    except PipelineError as why:
        return Drawn({}, f"no class activation maps: {why.message}", isinstance(why, NotAvailable))


def _draw(material: Material, numbers: Sequence[int]) -> Drawn:
    """Raises PipelineError where there can be none."""
    spec = _maps_spec(material)
    rows = [material.predicted.rows[i] for i in numbers]
    seen = pictures.read_as_seen(material, [row.id for row in rows])
    if not seen:
        raise Unusable("the pictures are not here")
    here = [i for i, row in zip(numbers, rows, strict=True) if row.id in seen]
    ids = [material.predicted.rows[i].id for i in here]
    maps = _compute_maps(material, spec, ids)
    parts, bias = score_maps(material.model.head, maps)
    scores = material.model.head.scores(material.rows(ids).take(np.arange(len(ids))))
    gap = float(np.abs(parts.mean(axis=(1, 2)) + bias - scores).max())
    if gap > _EXACT * max(1.0, float(np.abs(scores).max())):
        raise Unusable(f"means of maps give scores that are up to {gap:.2g} from those of the cached rows")
    assert material.classes is not None
    evidence = [_for_guess(parts[n], material, i) for n, i in enumerate(here)]
    scale = max(float(np.abs(one).max()) for one in evidence) or 1.0
    drawn = {
        image: pictures.data_uri(_overlay(seen[image], one / scale)) for image, one in zip(ids, evidence, strict=True)
    }
    exact = f"exact: their means and the bias are the scores of the cached rows, to {max(gap, 1e-12):.0e}"
    return Drawn(drawn, exact)


def _maps_spec(material: Material) -> FeatureSpec:
    """The tap of the head without pooling. Raises Unusable where its rows aren't means of maps."""
    if recorded_model.is_finetuned(material.model):
        raise Unusable("they are drawn for frozen bases; this one is fine-tuned")
    if material.classes is None:
        raise Unusable(f"they are drawn for one class of several, not for {material.target.noun}")
    taps = recorded_model.tap_names(material.model)
    if len(taps) > 1:
        raise Unusable(f"its head joins {len(taps)} taps")
    if len(material.model.head.layers) != 1:
        raise Unusable(f"a {material.model.head.kind} head is not linear in its features")
    spec = material.then.spec(taps[0])
    if spec.tap.pooling != "avg":
        raise Unusable(f"its rows are no means of maps: pooling is {spec.tap.pooling}")
    return FeatureSpec(spec.recipe, replace(spec.tap, pooling="none"))


def _compute_maps(material: Material, spec: FeatureSpec, ids: Sequence[str]) -> np.ndarray:
    """(n, h, w, channels) float32. Raises what extraction does."""
    project: Project = copy.copy(material.then)
    manifest = Manifest(tuple(Row(image, path) for image in ids for path in material.paths[image]))
    with recorded_model.temporary_cache(project):
        rejected = extraction.fill_rows(project, manifest, [spec]).rejected
        if rejected:
            raise Unusable(f"{len(rejected)} of the pictures cannot be used")
        return np.asarray(project.rows_of(spec).read(ids), np.float32)


def _for_guess(parts: np.ndarray, material: Material, number: int) -> np.ndarray:
    """(h, w): what speaks for the guess, less what speaks for the true class."""
    assert material.classes is not None
    guess, truth = int(material.predicted.probabilities[number].argmax()), int(material.classes[number])
    if parts.shape[-1] == 1:  # of two classes, one score, of the second
        return np.asarray(parts[..., 0] * (1 if guess == 1 else -1))
    return np.asarray(parts[..., guess] - parts[..., truth])


def _overlay(pixels: np.ndarray, evidence: np.ndarray) -> np.ndarray:
    """The picture in grey, under orange where evidence (h, w), -1 to 1, is for the guess, and blue where against."""
    grey = np.asarray(Image.fromarray(pixels).convert("L").resize((_SIDE, _SIDE)), np.float32)
    smooth = Image.fromarray(evidence.astype(np.float32)).resize((_SIDE, _SIDE), Image.Resampling.BICUBIC)
    strength = np.clip(np.asarray(smooth), -1, 1)[..., None]
    colour = np.where(strength > 0, np.array(_FOR, np.float32), np.array(_AGAINST, np.float32))
    alpha = 0.75 * np.abs(strength)
    return np.asarray(np.clip(grey[..., None] * (1 - alpha) + colour * alpha, 0, 255), np.uint8)
