"""throughput.py: how long an image takes, as what was done before tells."""

from __future__ import annotations

import pytest

from stages.extract import throughput
from stages.runtime import hardware


def test_the_start_up_in_the_first_shard_of_each_thread_is_not_taken_for_work() -> None:
    shards = [{"rows": 9, "seconds": 6.0}] * 2 + [{"rows": 9, "seconds": 0.09}] * 4 + [{"rows": 2, "seconds": 0.02}] * 2
    assert throughput.seconds_per_image(shards) == pytest.approx(0.01 / hardware.cpu_count())
    assert throughput.seconds_per_image([]) is None
