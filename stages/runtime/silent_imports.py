"""Owns imports that need care: TensorFlow, OpenVINO and nncf without their output, pyarrow where it is installed."""

import contextlib
import logging
import os
import sys
import threading
from collections.abc import Iterator
from typing import Any

from cache.errors import NotAvailable, Unusable

log = logging.getLogger(__name__)

_turn = threading.RLock()
"""Held while standard error is redirected: a second thread would save the first one's /dev/null, and restore that."""


@contextlib.contextmanager
def without_banners() -> Iterator[None]:
    """Drop what TensorFlow's libraries write to descriptor 2 as they load, at any log level (tensorflow#100442).

    Raises Unusable if Keras runs on something else than TensorFlow in this process.
    """
    logging.getLogger("tensorflow").addFilter(_is_not_retracing_advice)
    _choose_backend()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    if os.path.expanduser("~") == "~":  # no home directory: Keras would make a folder "~", or use /tmp/.keras
        os.environ.setdefault("KERAS_HOME", os.devnull)
    with _turn:
        try:
            saved = os.dup(2)
        except OSError:  # it is closed, and stays redirected, or the next file that is opened would be it
            saved = None
        devnull = os.open(os.devnull, os.O_WRONLY)
        if devnull != 2:
            os.dup2(devnull, 2)
            os.close(devnull)
        try:
            yield
        finally:
            if saved is not None:
                os.dup2(saved, 2)
                os.close(saved)


def import_openvino() -> Any:
    """The package `openvino` without telemetry, which sends each import to Google Analytics and writes to ~/intel."""
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # as if it were not installed
    import openvino
    import openvino.passes

    return openvino


def import_nncf() -> Any:
    """The package `nncf`, which reports each use to Google Analytics by OpenVINO's telemetry, if it finds that.

    Raises NotAvailable where it, or OpenVINO, is not installed.
    """
    kind = logging.getLoggerClass()
    try:
        import_openvino()  # from here on there is no telemetry
        import nncf
        import openvino._offline_transformations  # noqa: F401 (folds batch norms: engines/quantise.py)
    except ImportError as error:
        raise NotAvailable("to quantise a base takes nncf and OpenVINO", "pip install 'frozenbase[int8]'") from error
    finally:
        logging.setLoggerClass(kind)  # it would make all later loggers its own kind
    logging.getLogger("nncf").setLevel(logging.ERROR)  # its own function sets handlers of others, too
    return nncf


def import_parquet() -> tuple[Any, Any]:
    """The modules `pyarrow` and `pyarrow.parquet`. Raises Unusable where they are not installed."""
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        hint = "pip install 'frozenbase[parquet]', or use another kind of file"
        raise Unusable("Parquet files need pyarrow, which is not installed", hint) from error
    return pyarrow, parquet


def _choose_backend() -> None:
    """Have Keras use TensorFlow, and warn where the user has set something else."""
    asked = os.environ.get("KERAS_BACKEND", "tensorflow")
    config = sys.modules.get("keras.src.backend.config")
    running = asked if config is None else config.backend()
    if config is not None and running != "tensorflow":
        raise Unusable(
            f"Keras runs on {running} in this process; expected TensorFlow",
            "set KERAS_BACKEND=tensorflow before Keras is imported",
        )
    if asked != "tensorflow":
        log.warning("KERAS_BACKEND=%s is ignored: Keras runs on TensorFlow here", asked)
    os.environ["KERAS_BACKEND"] = "tensorflow"


def _is_not_retracing_advice(record: logging.LogRecord) -> bool:
    """False for the advice on retracing: a network is built, and traced, for each model on purpose."""
    return "triggered tf.function retracing" not in str(record.msg)
