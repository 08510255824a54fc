"""Owns a cache in an object store that a team shares: its layout, pulling and pushing. Not which rows a run needs."""
