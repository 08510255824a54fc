"""unknown_score.py: Keras layers give what numpy gives, of one tap and of several, with any number of directions."""

import numpy as np
import pytest

from stages.unknown.distance import ByClass, Distance, Unknown


@pytest.mark.parametrize("classes", [0, 3])
@pytest.mark.parametrize("rank", [0, 5])
@pytest.mark.parametrize("widths", [[40], [40, 3, 33]])
def test_layers_give_the_scores_of_numpy(widths: list[int], rank: int, classes: int) -> None:
    import keras

    from stages.export import unknown_score

    rng, dim = np.random.default_rng(0), sum(widths)
    ends = np.cumsum(widths)
    spans = np.array([(end - width, end) for end, width in zip(ends, widths, strict=True) if width >= 32])
    directions = np.linalg.qr(rng.normal(size=(dim, rank)))[0].astype(np.float32)
    mean, prototypes = (rng.normal(size=shape).astype(np.float32) / 5 for shape in (dim, (dim, 7)))
    gains = rng.uniform(-0.9, 0, rank).astype(np.float32)
    shapes = ((dim, classes), classes, (dim, classes), classes)
    parts = (gains / 2, np.float64(0.02), *(rng.normal(size=shape) for shape in shapes), np.array([9.0, 0.1, 4.0]))
    by = ByClass(*(np.array(part, np.float32) for part in parts)) if classes else None
    unknown = Unknown(Distance(spans, mean, directions, gains, prototypes, np.ones(9, np.float32), by), 0.05, 0.3)
    inputs = {str(i): keras.Input((width,)) for i, width in enumerate(widths)}
    network = keras.Model(list(inputs.values()), unknown_score.unknown_score(inputs, unknown))
    x = rng.normal(size=(20, dim)).astype(np.float32)
    found = np.asarray(network(np.split(x, ends[:-1], axis=1)))
    assert network.output_names == ["unknown_score"]
    assert found.shape == (20,)
    np.testing.assert_allclose(found, unknown.scores(x), rtol=1e-4)
