"""Owns the sections of pipeline.yaml that decide no result: cluster, cache, card. Not those that enter keys."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import field_validator, model_validator

from pipeline.config.fields import Count, Section
from stages.buckets import address


class Cluster(Section, keyed="none"):
    workers: Literal["auto"] | Count = "auto"
    """Processes that extract; auto is one, with a thread for each core."""
    timeout: Count = 300
    """Seconds without a new row after which a run gives up a cluster whose workers or scheduler are lost."""

    @model_validator(mode="before")
    @classmethod
    def _names_no_scheduler(cls, written: Any) -> Any:
        """A scheduler runs code as whoever connects to it, so a file from others must not name one."""
        if not isinstance(written, dict) or "scheduler" not in written:
            return written
        if written["scheduler"] is not None:
            raise ValueError(
                "scheduler: pipeline.yaml no longer names one, since connecting to it lets it run code here; "
                "give it with --scheduler ADDRESS or PIPELINE_SCHEDULER"
            )
        return {name: value for name, value in written.items() if name != "scheduler"}  # as records have it


class Remote(Section, keyed="none"):
    """A team's cache in an object store. Whoever may write to it is trusted as the author of this code is."""

    short = "url"

    url: str
    """s3://, gs://, az:// or file://, without a user, password or signature."""
    mode: Literal["read", "read-write"] = "read"
    """Whether rows that are computed here are sent there too."""

    @field_validator("url")
    @classmethod
    def _holds_no_secret(cls, url: str) -> str:
        address.check_url(url)
        return url


class CacheConfig(Section, keyed="none"):
    dir: str | None = None
    """The folder of the cache, relative to pipeline.yaml; by default $PIPELINE_CACHE_DIR, else .features beside it."""
    remote: Remote | None = None
    """A team's cache in an object store or a shared folder."""


class Card(Section, keyed="none"):
    """What a report's model card says that only people know."""

    intended_use: str | None = None
    """What the model is for, in your words."""
    limits: str | None = None
    """What it is not for."""
    data_licence: str | None = None
    """The licence of the images."""
