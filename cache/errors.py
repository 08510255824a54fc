"""Owns the errors that users see, each with its exit code. Not how they are shown (pipeline/show)."""

from typing import Any


class PipelineError(Exception):
    """Failed, for a reason that the user can act on; every other error here is one of these too.

    `message` says what was found, where, and what was expected; `hint` is the next step.
    """

    code = "failed"
    exit_code = 1

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message, hint)  # both, so that it can be pickled and sent back from a worker
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return self.message


class Unusable(PipelineError):
    """Usage, configuration or data that cannot be used."""

    code = "unusable"
    exit_code = 2


class Diverged(Unusable):
    """Training whose loss was never finite, so that these settings give no head."""


class ImagesRejected(PipelineError):
    """Done, but images were rejected: under `data.on_bad: fail`, or by `predict`."""

    code = "images_rejected"
    exit_code = 3


class NotAvailable(PipelineError):
    """Something is not cached, or needs a network or a file that isn't there."""

    code = "not_available"
    exit_code = 4


class Damaged(PipelineError):
    """Files in a cache were changed after they were written; they were moved to quarantine, or left out."""

    code = "damaged"


class Unwritable(PipelineError, OSError):
    """A file that cannot be written or removed. Also an OSError, with its errno, so that callers can ignore it."""

    code = "unwritable"

    def __init__(self, message: str, hint: str, number: int | None, reason: str | None) -> None:
        super().__init__(message, hint)
        self.errno, self.strerror = number, reason

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.message, self.hint, self.errno, self.strerror)


class Interrupted(PipelineError):
    """Ctrl-C (exit code 130) or SIGTERM (143)."""

    code = "interrupted"
    exit_code = 130


class Unkeyable(TypeError):
    """A value without a canonical form, which cannot be part of a key."""
