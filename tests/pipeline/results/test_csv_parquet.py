"""csv_parquet.py: what a large table takes while it is made. What is in it: test_predictions.py."""

import tracemalloc

import numpy as np

from pipeline.results import csv_parquet


def test_a_table_is_in_memory_once_while_it_is_made_as_csv() -> None:
    numbers = np.random.default_rng(0).random(100_000)
    tracemalloc.start()
    made = csv_parquet.as_csv({"p": numbers})
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert made.split()[1:] == [repr(number).encode() for number in numbers.tolist()]
    assert peak < 1.5 * len(made)
