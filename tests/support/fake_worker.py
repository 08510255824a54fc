"""A Dask preload for worker processes: their base is the numpy one of fakes.py."""

from stages.extract import shard_task
from tests.support import fakes

shard_task.open_embed = fakes.FakeEmbed
