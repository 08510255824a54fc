"""unknown_score.py: Keras layers give what numpy gives, of one tap and of several, with any number of directions."""

import numpy as np
import pytest

from stages.unknown.distance import Distance, Unknown


@pytest.mark.parametrize("rank", [0, 5])
@pytest.mark.parametrize("widths", [[40], [40, 3, 33]])
def test_layers_give_the_scores_of_numpy(widths: list[int], rank: int) -> None:
    import keras

    from stages.export import unknown_score

    rng, dim = np.random.default_rng(0), sum(widths)
    ends = np.cumsum(widths)
    spans = np.array([(end - width, end) for end, width in zip(ends, widths, strict=True) if width >= 32])
    directions = np.linalg.qr(rng.normal(size=(dim, rank)))[0].astype(np.float32)
    mean, prototypes = (rng.normal(size=shape).astype(np.float32) / 5 for shape in (dim, (dim, 7)))
    gains = rng.uniform(-0.9, 0, rank).astype(np.float32)
    unknown = Unknown(Distance(spans, mean, directions, gains, prototypes, np.ones(9, np.float32)), 0.05, 0.3)
    inputs = {str(i): keras.Input((width,)) for i, width in enumerate(widths)}
    network = keras.Model(list(inputs.values()), unknown_score.unknown_score(inputs, unknown))
    x = rng.normal(size=(20, dim)).astype(np.float32)
    found = np.asarray(network(np.split(x, ends[:-1], axis=1)))
    assert network.output_names == ["unknown_score"]
    assert found.shape == (20,)
    np.testing.assert_allclose(found, unknown.scores(x), rtol=1e-4)
