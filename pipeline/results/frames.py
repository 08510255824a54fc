"""Owns how results look from Python: a short repr, a table in a notebook, a pandas data frame. Not their columns."""

import html
from abc import ABC, abstractmethod
from typing import Any

import numpy as np

from cache.errors import NotAvailable
from pipeline.results.csv_parquet import Columns
from stages.metrics.figures import Metrics

_MOST = 20
"""Rows of a table in a notebook."""


class Tabular(ABC):
    """A result whose `columns` are shown."""

    @abstractmethod
    def columns(self) -> Columns:
        """Name -> values, all of the same number."""

    @abstractmethod
    def summary(self) -> str:
        """A few words."""

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.summary()}>"

    def _repr_html_(self) -> str:
        columns = self.columns()
        rows = list(zip(*columns.values(), strict=True))
        more = f"<p>and {len(rows) - _MOST:,} more</p>" if len(rows) > _MOST else ""
        body = "".join(f"<tr>{''.join(map(_cell, row))}</tr>" for row in rows[:_MOST])
        head = "".join(f"<th>{html.escape(name)}</th>" for name in columns)
        return f"<p>{html.escape(self.summary())}</p><table><tr>{head}</tr>{body}</table>{more}"

    def to_frame(self) -> Any:
        """The columns as a pandas.DataFrame. Raises NotAvailable without pandas."""
        try:
            import pandas
        except ImportError as error:
            raise NotAvailable("a data frame needs pandas, which is not installed", "pip install pandas") from error
        return pandas.DataFrame({name: list(values) for name, values in self.columns().items()})


def figure_columns(metrics: Metrics) -> Columns:
    """A row for each figure: its value in each split, and the ends of its 95 % interval; NaN where undefined."""
    names = list(metrics.splits[metrics.chosen_on].values)
    columns: dict[str, Any] = {"figure": names}
    for split, figures in metrics.splits.items():
        found = [figures[name] for name in names]
        ends = [figure.ci or (None, None) for figure in found]
        columns[split] = np.array([figure.value for figure in found], dtype=float)
        for i, end in enumerate(("low", "high")):
            columns[f"{split}_{end}"] = np.array([ci[i] for ci in ends], dtype=float)
    return columns


def _cell(value: Any) -> str:
    return f"<td>{value:.3f}</td>" if isinstance(value, float) else f"<td>{html.escape(str(value))}</td>"
