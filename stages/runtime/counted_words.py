"""Owns how messages count things. Not what they say of them."""


def count_of(n: int, word: str) -> str:
    """`1 shard`, `2,624 shards`; of `new image`, `3 new images`."""
    return f"{n:,} {word}{'' if n == 1 else 's'}"
