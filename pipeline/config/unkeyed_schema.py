"""Owns the sections of pipeline.yaml that decide no result: cluster, cache, card. Not those that enter keys."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import field_validator, model_validator

from pipeline.config.fields import Count, Section
from stages.buckets import address


class Cluster(Section, keyed="none"):
    workers: Literal["auto"] | Count = "auto"
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

    url: str
    mode: Literal["read", "read-write"] = "read"

    @model_validator(mode="before")
    @classmethod
    def _url_alone(cls, written: Any) -> Any:
        return {"url": written} if isinstance(written, str) else written

    @field_validator("url")
    @classmethod
    def _holds_no_secret(cls, url: str) -> str:
        address.check_url(url)
        return url


class CacheConfig(Section, keyed="none"):
    dir: str | None = None
    remote: Remote | None = None


class Card(Section, keyed="none"):
    """What a report's model card says that only people know."""

    intended_use: str | None = None
    limits: str | None = None
    data_licence: str | None = None
