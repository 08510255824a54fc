"""A Dask preload for worker processes: their base is the numpy one of fakes.py."""

from stages.extract import opened_bases
from tests.support import fakes

opened_bases.open_embed = fakes.FakeEmbed
