"""Owns the table of engines, and which of them runs a base here. Not what an engine does (its own module)."""

import importlib.util
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from cache.errors import NotAvailable, Unusable
from stages.bases import catalogue
from stages.bases.formats import BUILT, KERAS_FILE, BaseFormat, load_function
from stages.bases.recipe import FrozenBase
from stages.engines.embed import Embed
from stages.runtime import hardware

AUTO = "auto"


Open = Callable[[FrozenBase, int | None], Embed]
"""(base, batch or None) -> the base, opened in an engine.

Raises Unusable if weights, taps or numerics do not fit the base or the machine.
"""


@dataclass(frozen=True)
class EngineKind:
    """One engine. numerics: the arithmetics it offers; f32 is the same in all engines to 1e-4 of the features' scale.

    formats: name of a BaseFormat -> the `Open` for such a base, as `module:function`; a pair stands here or in the
    format's row. package: what must be installed for it; None for what always is. gpu: whether it uses a GPU; on a
    machine that has one, `auto` takes no other.
    """

    name: str
    numerics: tuple[str, ...]
    formats: Mapping[str, str]
    package: str | None = None
    gpu: bool = False

    def opener(self, kind: BaseFormat) -> str | None:
        """What opens a base of that kind, as `module:function`; None where this engine cannot run it."""
        return self.formats.get(kind.name) or kind.engines.get(self.name)


_TENSORFLOW, _OPENVINO = "stages.engines.tensorflow_engine", "stages.engines.openvino_engine"

ENGINES: dict[str, EngineKind] = {
    kind.name: kind
    for kind in (
        EngineKind(
            "openvino",
            ("f32", "openvino-bf16"),
            {BUILT.name: f"{_OPENVINO}:open_converted", KERAS_FILE.name: f"{_OPENVINO}:open_converted"},
            package="openvino",
        ),
        EngineKind(
            "tensorflow",
            ("f32", "tensorflow-bf16"),
            {BUILT.name: f"{_TENSORFLOW}:open_built", KERAS_FILE.name: f"{_TENSORFLOW}:open_file"},
            gpu=True,
        ),
        EngineKind("onnxruntime", ("f32",), {}, package="onnxruntime"),  # formats.py says what it opens
    )
}
"""In the order in which `auto` takes them."""


def numerics_names() -> list[str]:
    """What extract.numerics may be."""
    return list(dict.fromkeys(name for kind in ENGINES.values() for name in kind.numerics))


def find_conflict(asked: str, numerics: str, kind: BaseFormat) -> str | None:
    """Why a base of that kind cannot run in those numerics on the engine `asked`; None where it can."""
    if kind.numerics is not None and numerics not in kind.numerics:
        return (
            f"extract.numerics: a user model computes in the dtypes it was saved with; leave it at {kind.numerics[0]}"
        )
    if _able(asked, numerics, kind):
        return None
    if asked == AUTO:
        return f"extract.numerics: no engine runs a base of the kind {kind.name!r} in {numerics}"
    if numerics not in ENGINES[asked].numerics:
        owners = " or ".join(engine.name for engine in ENGINES.values() if numerics in engine.numerics)
        return f"extract.numerics: {numerics} is the arithmetic of {owners}; engine: {asked} cannot do it"
    return f"extract.engine: {asked} cannot run a base of the kind {kind.name!r}"


def choose_engine(asked: str, numerics: str, kind: BaseFormat = BUILT) -> EngineKind:
    """The engine that runs a base of that kind here: of `auto`, the first that is installed and fits the device.

    Raises Unusable where none computes in those numerics, NotAvailable where the engine is not installed.
    """
    reason = find_conflict(asked, numerics, kind)
    if reason is not None:
        raise Unusable(reason, "use engine: auto")
    able = _able(asked, numerics, kind)
    here = [engine for engine in able if engine.package is None or importlib.util.find_spec(engine.package)]
    if not here:
        raise NotAvailable(
            f"the engine {able[0].name} is not installed", f"pip install {able[0].package}, or use another engine"
        )
    return next((engine for engine in here if engine.gpu or not hardware.has_gpu()), here[0])


def open_engine(asked: str, base: FrozenBase, batch: int | None = None) -> Embed:
    """The base in the engine that `choose_engine` names; raises what that and `Open` raise."""
    kind = catalogue.base_of(base.recipe.base).format
    opener = choose_engine(asked, base.recipe.numerics, kind).opener(kind)
    assert opener is not None
    open_base: Open = load_function(opener)
    return open_base(base, batch)


def _able(asked: str, numerics: str, kind: BaseFormat) -> list[EngineKind]:
    """The engines among those asked for that run it in those numerics, the format's preferred one first."""
    able = [
        engine
        for engine in ENGINES.values()
        if asked in (AUTO, engine.name) and numerics in engine.numerics and engine.opener(kind)
    ]
    return sorted(able, key=lambda engine: engine.name != kind.auto)
