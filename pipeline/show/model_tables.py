"""Owns the tables of models, show and reproduce. Not their content (model.py, reproduce.py)."""

import textwrap
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from pipeline.config.head_schema import format_setting
from pipeline.evaluation.reproduce import Reproduction
from pipeline.results.model import SHORT, Model
from pipeline.results.record_diff import Pair, format_value, shorten
from pipeline.show.console import ERR, OUT, echo, escape_line, format_figure, format_time, make_table, relative_path
from pipeline.show.evaluation_tables import show_gain, show_metrics
from pipeline.show.run_tables import show_counts
from stages.metrics.figures import EVALUATED, NAMES, title
from stages.targets import kinds

_WIDTH = 100
_LABEL = 13
_FEW = 5
_MOST_CLASSES = 20
_MOST_SETTINGS = 4


def show_models(models: Sequence[Model]) -> None:
    if not models:
        echo("no models yet; pipeline run makes them")
        return
    names = Counter(model.name for model in models)
    shown = _headline(models)
    figures = ("chosen on", *map(title, shown), "test n", *map(title, shown))
    apart = ["~differs"] if any(model.differs for model in models) else []
    table = make_table("model", "key", "tags", "created", *apart, *(f">{figure}" for figure in figures), "")
    sets = {split: _number_sets(models, split) for split in EVALUATED}
    for model in models:
        metrics = model.listed_figures
        splits = metrics.splits if metrics else {}
        cells = []
        own = metrics.chosen_on if metrics else "val"
        for split in (own, "test"):
            found, which = splits.get(split), "" if split == "test" else f"{split} "
            cells.append("-" if found is None else f"{which}{found.n:,}{sets[split].get(model.key, '')}")
            cells += ["-" if found is None else format_figure(found.values.get(name)) for name in shown]
        several = names[model.name] > 1
        cells.append("damaged" if model.damaged else "current" if model.current and several else "")
        told = [_differs(model)] if apart else []
        table.add_row(model.name, model.key[:SHORT], ", ".join(model.tags), format_time(model.created), *told, *cells)
    OUT.print(table)
    if max(names.values()) > 1:
        echo("\ncurrent: what the name means, as pipeline.yaml without --set made it")
    if any(sets.values()):
        echo("[1], [2]: figures of different images or labels, which only pipeline compare can compare")


def _headline(models: Sequence[Model]) -> tuple[str, ...]:
    """The figures of the first model that has any; models of another target have none of these."""
    found = (metrics for model in models if (metrics := model.listed_figures) is not None)
    first = next(found, None)
    return ("accuracy", "auroc") if first is None else first.splits[first.chosen_on].headline[1:]


def _number_sets(models: Sequence[Model], split: str) -> dict[str, str]:
    """Key -> ` [1]`, a number for the images and labels of that split; empty where all models have the same."""
    sets = {m.key: m.image_sets[split] for m in models if not m.damaged and split in m.figures.splits}
    numbers = {digest: number for number, digest in enumerate(dict.fromkeys(sets.values()), start=1)}
    return {key: f" [{numbers[digest]}]" for key, digest in sets.items()} if len(numbers) > 1 else {}


def _differs(model: Model) -> str:
    """`C=0.1 tap=early`. The preprocessing that comes with another base is left out."""
    bases = tuple(name.removesuffix("name") + "preprocess." for name in model.differs if name.endswith("base.name"))
    shown = {name: shorten(value) for name, value in model.differs.items() if not name.startswith(bases or "?")}
    texts = [f"{name}={'null' if value is None else format_setting(value)}" for name, value in shown.items()]
    return " ".join(texts[:_MOST_SETTINGS]) + (
        f" +{len(texts) - _MOST_SETTINGS}" if len(texts) > _MOST_SETTINGS else ""
    )


def show_model(details: Mapping[str, Any]) -> None:
    """What made it, its figures, and its settings as YAML that pipeline.yaml accepts."""
    record = details["record"]
    echo("  ".join([details["name"], details["key"][:SHORT], *details["tags"]]))
    echo(relative_path(details["folder"]))
    echo("")
    for label, text in _facts(record, details["head"]):
        fill = textwrap.TextWrapper(_WIDTH, label.ljust(_LABEL), " " * _LABEL, break_on_hyphens=False)
        fill.break_long_words = False
        for line in fill.wrap(escape_line(text)):
            echo(line)
    show_counts(details["counts"], kinds.kind_of(details["head"]))
    echo("")
    show_metrics(details["metrics"])
    if details["metrics"].baseline:
        show_gain(details["name"], details["metrics"])
    echo("\nsettings, every field:\n")
    settings = yaml.safe_dump(record["config"], default_flow_style=None, allow_unicode=True, width=_WIDTH)
    echo(settings.rstrip(), whole=True, lines=True)


def show_reproduction(done: Reproduction) -> None:
    """The images, each figure as recorded and now, and other differences."""
    record = done.model.record
    echo(f"{done.model}, made {format_time(record['created'])} by frozenbase {record['versions']['frozenbase']}\n")
    echo(f"{'images':{_LABEL}}{done.images:,}")
    echo(f"{'computed':{_LABEL}}{done.computed:,}")
    if done.absent:
        echo(f"{'absent':{_LABEL}}{len(done.absent):,}")
    for absent in done.absent[:_FEW]:
        echo(f"  absent {absent.path}: {absent.reason}", ERR)
    if len(done.absent) > _FEW:
        echo(f"  and {len(done.absent) - _FEW} more (all of them: --json)", ERR)
    echo(f"{'head':{_LABEL}}{done.weights}\n")
    own = "folds" if "folds" in done.metrics else "val"
    table = make_table("", *(f">{name}" for name in (own, "again", "difference", "test", "again", "difference")))
    for name in (name for name in ("n", *NAMES) if name in done.metrics[own]):
        pairs = [done.metrics[split][name] for split in (own, "test")]
        cells = [cell for pair in pairs for cell in (*map(_number, pair), _difference(pair))]
        table.add_row("images" if name == "n" else name, *cells)
    OUT.print(table)
    if done.differences:
        table = make_table("differs", "~recorded", "~now")
        for name, pair in done.differences.items():
            table.add_row(name, *map(format_value, pair))
        echo("")
        OUT.print(table)
    if done.reproduced:
        echo("\nreproduced: head and figures are bitwise the same")


def _difference(pair: Pair) -> str:
    if pair.same:
        return "same"
    return "" if pair.difference is None else f"{pair.difference:+.2g}"


def _facts(record: Mapping[str, Any], head: Mapping[str, Any]) -> list[tuple[str, str]]:
    """(label, text) of what the record has; older ones have less."""
    seed = "" if record["seed"] is None else f", from seed {record['seed']}"
    facts = [("created", f"{format_time(record['created'])}, in {record['seconds']:.1f} s{seed}")]
    git = record.get("git") or {"commit": "in no repository", "dirty": False}
    facts.append(("git", git["commit"] + (", with changes that were not committed" if git["dirty"] else "")))
    facts.append(("versions", _listed(record["versions"])))
    if "machine" in record:
        facts.append(("fitted on", f"{record['machine']}; {', '.join(record.get('blas') or [])}"))
    rows = "; ".join(record["rows_made_by"])
    behind = {package: " and ".join(found) for package, found in record.get("rows_versions", {}).items()}
    facts.append(("rows by", rows + (f"; {_listed(behind)}" if behind else "")))
    for tap, parts in record["extract"].items():
        base = parts["base"]
        facts.append(("extract key", parts["key"]))
        facts.append(("base", f"{base['name']}, version {base['version']}"))
        facts.append(("weights", f"sha256 {base['weights']}"))
        facts.append(("tap", f"{tap}: {_listed(parts['tap'])}"))
        facts += [(name, _listed(parts[name])) for name in ("pixels", "preprocess")]
        facts.append(
            ("arithmetic", _listed({k: v for k, v in parts.items() if k != "key" and isinstance(v, int | str)}))
        )
    facts.append(("images", f"{record['images']:,}, manifest {record['manifest']}"))
    classes, more = record["classes"], len(record["classes"]) - _MOST_CLASSES
    text = ", ".join(classes[:_MOST_CLASSES]) + (f", and {more} more" if more > 0 else "")
    facts.append((kinds.kind_of(head).noun, text))
    chosen = {name: value for name, value in head["chosen"].items() if not isinstance(value, Mapping)}
    chosen |= {"members": len(head["chosen"]["members"])} if "members" in chosen else {}
    facts.append(("chosen", _listed(chosen)))
    return facts


def _number(value: Any, digits: int = 4) -> str:
    if value is None:
        return "-"
    return f"{value:.{digits}f}" if isinstance(value, float) else f"{value:,}"


def _listed(values: Mapping[str, Any]) -> str:
    """`name value, ...`; the parts of a value that is a list without brackets."""
    texts = {name: " ".join(map(str, v)) if isinstance(v, list) else v for name, v in values.items()}
    return ", ".join(f"{name} {text}" for name, text in texts.items())
