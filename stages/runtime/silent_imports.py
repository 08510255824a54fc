"""Owns importing TensorFlow and OpenVINO without their banners and telemetry. Not what is done with them."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import threading
from collections.abc import Iterator
from typing import Any

_lock = threading.RLock()
"""Without it, two threads at once could leave file descriptor 2 redirected."""


@contextlib.contextmanager
def without_banners() -> Iterator[None]:
    """Discard what TensorFlow writes to file descriptor 2 while it loads, at any log level (tensorflow#100442)."""
    logging.getLogger("tensorflow").addFilter(_is_not_retracing)
    os.environ["KERAS_BACKEND"] = "tensorflow"
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    with _lock:
        saved, devnull = os.dup(2), os.open(os.devnull, os.O_WRONLY)
        os.dup2(devnull, 2)
        try:
            yield
        finally:
            os.dup2(saved, 2)
            os.close(saved)
            os.close(devnull)


def import_openvino() -> Any:
    """The package `openvino` without its telemetry, which reports to Google Analytics and writes to ~/intel."""
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # as if it were not installed
    import openvino

    return openvino


def _is_not_retracing(record: logging.LogRecord) -> bool:
    """Whether it is another message than the advice on retracing: each model is traced once on purpose."""
    return "triggered tf.function retracing" not in str(record.msg)
