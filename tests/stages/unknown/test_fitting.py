"""fitting.py: rows of another kind are far, false alarms come at the rate asked for, and what rows don't allow."""

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score
from threadpoolctl import threadpool_limits

from stages.data.manifest import Row
from stages.heads.matrix import FeatureMatrix
from stages.targets.classes import Classes
from stages.targets.numbers import Numbers
from stages.targets.target import Target
from stages.unknown import fitting
from stages.unknown.distance import Distance, Unknown

DIM = 48
CLASSES = Classes(("0", "1", "2"))


def drawn(n: int, seed: int, kinds: int = 3, dim: int = DIM) -> tuple[np.ndarray, list[Row]]:
    """Rows about a mean for each class, wider in some directions than in others."""
    rng, fixed = np.random.default_rng(seed), np.random.default_rng(99)
    means, widths = fixed.normal(size=(4, dim)), fixed.uniform(0.1, 1, dim)
    kind = rng.integers(0, kinds, n)
    x = (5 + 2 * means[kind] + rng.normal(size=(n, dim)) * widths).astype(np.float32)
    return x, [Row(f"{i:08d}", "", str(k), "train") for i, k in enumerate(kind.tolist())]


def fitted(x: np.ndarray, rows: list[Row], target: Target = CLASSES) -> Distance:
    found = fitting.fit(FeatureMatrix([x]), rows, target)
    assert found is not None
    return found


def test_a_class_that_was_not_there_is_far_and_false_alarms_come_at_the_rate() -> None:
    unknown = Unknown.at(fitted(*drawn(400, 0)), 0.05)
    assert unknown is not None
    same, _ = drawn(2_000, 1)
    other = same + 2 * np.random.default_rng(99).normal(size=(4, DIM))[3].astype(np.float32)
    assert 0.01 < (unknown.scores(same) > 1).mean() < 0.08
    assert (unknown.scores(other) > 1).mean() > 0.9


def test_rows_between_two_classes_are_told_by_what_classifiers_doubt() -> None:
    rng = np.random.default_rng(1)
    ends, kind = np.eye(4, DIM) * 4, rng.integers(0, 4, 800)
    x = (5 + ends[kind] + rng.normal(size=(800, DIM))).astype(np.float32)
    rows = [Row(f"{i:08d}", "", str(k), "train") for i, k in enumerate(kind.tolist())]
    new = 5 + ends[rng.integers(0, 4, 400)] + rng.normal(size=(400, DIM))
    between = 5 + ends[:2].mean(axis=0) + rng.normal(size=(200, DIM)) / 2  # as near to means as those of a class
    both, truth = np.concatenate([new, between]).astype(np.float32), np.arange(600) >= 400
    parts = fitted(x, rows, Classes(("0", "1", "2", "3"))).parts(both)
    prototypes, means, doubt = (float(roc_auc_score(truth, part)) for part in parts.T)
    assert doubt > 0.95
    assert doubt > max(prototypes, means) + 0.1


def test_parts_count_alike_out_of_fold_and_an_earlier_version_has_one() -> None:
    x, rows = drawn(400, 0)
    distance = fitted(x, rows)
    assert distance.by_class is not None
    assert distance.version == 2
    new, _ = drawn(400, 1)
    spreads = (distance.parts(new) * distance.by_class.weights).std(axis=0)
    assert spreads.max() < 2 * spreads.min()
    earlier = fitting.fit(FeatureMatrix([x]), rows, CLASSES, 1)
    assert earlier is not None
    assert earlier.version == 1
    np.testing.assert_array_equal(earlier(new), distance.parts(new)[:, 0])


def test_it_is_the_same_to_the_last_bit_on_any_number_of_cores() -> None:
    x, rows = drawn(300, 0)
    before = fitted(x, rows).to_bytes()
    with threadpool_limits(1):
        assert fitted(x, rows).to_bytes() == before


def test_only_train_is_fitted_and_a_group_is_out_of_fold_as_one() -> None:
    x, rows = drawn(300, 0)
    far = np.full((40, DIM), -3, np.float32) + np.arange(DIM, dtype=np.float32)
    test = [Row(f"t{i}", "", "0", "test") for i in range(40)]
    assert fitted(np.concatenate([x, far]), rows + test).to_bytes() == fitted(x, rows).to_bytes()
    alone = [Row(f"g{i}", "", "0", "train") for i in range(40)]
    grouped = [row._replace(group="odd") for row in alone]
    copies = fitted(np.concatenate([x, far]), rows + alone).held, fitted(np.concatenate([x, far]), rows + grouped).held
    apart = [held[-40] > 1.5 * held[-60] for held in copies]
    assert apart == [False, True]  # alone, each is judged by its copies


def test_of_numbers_all_rows_are_one_kind() -> None:
    x, rows = drawn(200, 0)
    weights = [row._replace(label=f'{{"weight": {int(row.label or 0)}}}') for row in rows]
    distance = fitted(x, weights, Numbers(("weight",)))
    assert distance.by_class is None
    assert (distance(x) < distance(-x).min()).all()


@pytest.mark.parametrize("dim", [1, 2, 40, 300])
def test_few_rows_and_few_features_are_no_mistake(dim: int) -> None:
    x, rows = drawn(12, 0, dim=dim)
    assert np.isfinite(fitted(x, rows)(x)).all()


def test_equal_rows_are_no_mistake() -> None:
    x, rows = drawn(30, 0)
    distance = fitted(np.repeat(x[:1], 30, axis=0), rows)
    assert np.isfinite(distance(x)).all()


def test_too_few_rows_one_group_and_whole_maps_have_none() -> None:
    x, rows = drawn(fitting.LEAST, 0)
    assert fitting.fit(FeatureMatrix([x]), rows, CLASSES) is not None
    assert fitting.fit(FeatureMatrix([x[1:]]), rows[1:], CLASSES) is None
    assert fitting.fit(FeatureMatrix([x]), [row._replace(group="one") for row in rows], CLASSES) is None
    wide = np.ones((len(rows), fitting.MOST_FEATURES + 1), np.float32)
    assert fitting.fit(FeatureMatrix([wide]), rows, CLASSES) is None
