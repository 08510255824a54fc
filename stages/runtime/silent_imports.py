"""Owns importing TensorFlow and OpenVINO without what they say unasked. Not what is done with them."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import threading
from collections.abc import Iterator
from typing import Any

_turn = threading.RLock()
"""Of two threads that took turns in between, the second would give the first's nowhere back, for good."""


@contextlib.contextmanager
def without_banners() -> Iterator[None]:
    """TensorFlow's libraries greet on file descriptor 2 while they load, whatever the log level (tensorflow#100442)."""
    logging.getLogger("tensorflow").addFilter(_is_no_advice)
    os.environ["KERAS_BACKEND"] = "tensorflow"
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    with _turn:
        kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, 2)
        try:
            yield
        finally:
            os.dup2(kept, 2)
            os.close(kept)
            os.close(nowhere)


def import_openvino() -> Any:
    """The package `openvino`, mute: its telemetry would tell Google Analytics of each import, and write to ~/intel."""
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # as if it were not installed
    import openvino

    return openvino


def _is_no_advice(record: logging.LogRecord) -> bool:
    """Whether it is no advice on retracing: a network is built, and traced, for each model on purpose."""
    return "triggered tf.function retracing" not in str(record.msg)
