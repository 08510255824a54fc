"""Owns training the last blocks of a base together with a head, from boundary maps. A TensorFlow room.

Layers before the first trainable one never change, so their output (the boundary) is computed once, and training runs
only the blocks after it, as DL4J's TransferLearningHelper and Nautilus (Nakandala and Kumar, SIGMOD 2022) do. Not where
those maps come from (boundary_maps.py), nor the network (network.py).
"""

import json
import logging
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

import keras
import numpy as np
import tensorflow as tf

from cache import atomic_files, npz
from stages.finetune.boundary_maps import Boundary
from stages.finetune.network import Network
from stages.heads.dense_network import class_weights, losses_of, tensorboard_callbacks
from stages.targets.target import Target

log = logging.getLogger(__name__)

Watch = Callable[[int], AbstractContextManager[Callable[[int], object]]]
"""watch(epochs that a checkpoint had) -> context that gives advance(n), called after each further epoch."""


class Spec(Protocol):
    """Settings, as in pipeline.yaml; `log_dir` is an absolute path, or None."""

    optimizer: Literal["adam", "sgd"]
    lr: float
    schedule: Literal["constant", "cosine"]
    weight_decay: float
    class_weight: Literal["none", "balanced"]
    batch: int
    epochs: int
    patience: int | None
    views: int
    log_dir: str | None


@dataclass(frozen=True)
class Data:
    """n samples: boundary maps, what they have as the target encodes it, and the numbers of those in train and val."""

    boundary: Boundary
    y: np.ndarray
    train: np.ndarray
    val: np.ndarray


@dataclass
class History:
    """By epoch; val_log_loss, of numbers the squared error, begins with epoch 0, the head before any training.

    `loss` is None where it was not finite: training has diverged, and ends there.
    """

    loss: list[float | None] = field(default_factory=list)
    val_log_loss: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)

    @property
    def epochs(self) -> int:
        return len(self.loss)

    @property
    def diverged(self) -> bool:
        return None in self.loss

    @property
    def best(self) -> int:
        """The epoch of the least val log-loss; of equals, the first."""
        return int(np.argmin(self.val_log_loss))


def train(
    spec: Spec,
    seed: int,
    network: Network,
    data: Data,
    checkpoint: Path | None,
    watch: Watch = lambda done: nullcontext(lambda n: None),
) -> History:
    """Train the network, and give it the weights of the epoch with the least val log-loss, epoch 0 included.

    The order of the samples of train, and the view of each, are drawn from the seed and the number of the epoch. After
    a kill, training continues from the last whole epoch, in the file `checkpoint`, and ends in the same weights. It
    stops once the best epoch is `patience` epochs ago, or the loss is not finite.
    """
    keras.utils.set_random_seed(seed)
    tf.config.experimental.enable_op_determinism()
    compile_for(spec, network, len(data.train), data.y)
    state = _State(network, checkpoint)
    history = state.load()
    if not history.val_log_loss:
        history.val_log_loss.append(_val_log_loss(network, data))
        state.keep_best()
    watched = keras.callbacks.CallbackList(tensorboard_callbacks(spec.log_dir), model=network.model)
    watched.on_train_begin()
    with watch(history.epochs) as advance, ThreadPoolExecutor(1) as reader:
        while history.epochs < spec.epochs and not history.diverged:
            if spec.patience is not None and history.epochs - history.best >= spec.patience:
                break
            _epoch(spec, seed, network, data, history, reader)
            if history.best == history.epochs:
                state.keep_best()
            state.keep(history)
            loss = float("nan") if history.diverged else history.loss[-1]
            watched.on_epoch_end(history.epochs, {"loss": loss, "val_log_loss": history.val_log_loss[-1]})
            advance(1)
    watched.on_train_end()
    state.put_best()
    return history


def compile_for(spec: Spec, network: Network, images: int, y: np.ndarray) -> None:
    """Compile the network for epochs of so many images. Without XLA, which is slower on a CPU."""
    steps = -(-images // spec.batch)
    rate: Any = spec.lr
    if spec.schedule == "cosine":
        rate = keras.optimizers.schedules.CosineDecay(spec.lr, steps * spec.epochs)
    decay = spec.weight_decay or None
    if spec.optimizer == "adam":
        optimizer = keras.optimizers.Adam(rate, weight_decay=decay)
    else:
        optimizer = keras.optimizers.SGD(rate, momentum=0.9, weight_decay=decay)
    network.model.compile(optimizer, _loss_of(network.target, y), jit_compile=False)
    optimizer.build(network.model.trainable_variables)


def time_epoch(spec: Spec, network: Network, train: int, val: int) -> float:
    """Seconds that an epoch of so many images takes without reading maps; the network is left as it was."""
    y = np.zeros(spec.batch, int) if network.target.exclusive else np.zeros((spec.batch, len(network.target)))
    compile_for(spec, network, train, y)
    model = network.model
    maps = np.random.default_rng(0).random((spec.batch, *model.input.shape[1:]), np.float32)
    truth = loss_targets(network, y)

    def spent(steps: int, step: Callable[[], object]) -> float:
        started = time.perf_counter()
        for _ in range(steps):
            step()
        return (time.perf_counter() - started) / steps

    steps: list[Callable[[], object]] = [
        lambda: model.train_on_batch(maps, truth),
        lambda: model.predict_on_batch(maps),
    ]
    for step in steps:
        step()  # the first one compiles
    seconds = [spent(3, step) for step in steps]
    network.reset()
    return (train * seconds[0] + val * seconds[1]) / spec.batch


def _epoch(spec: Spec, seed: int, network: Network, data: Data, history: History, reader: ThreadPoolExecutor) -> None:
    """One pass over train, then the loss on val; the next batch is read during a step."""
    started = time.perf_counter()
    network.seed_layers(seed, history.epochs)
    draw = np.random.default_rng((seed, history.epochs))
    order = draw.permutation(data.train)
    views = draw.integers(spec.views, size=len(order))
    batches = [slice(start, start + spec.batch) for start in range(0, len(order), spec.batch)]
    weights = class_weights(spec.class_weight, data.y[data.train])
    ahead = reader.submit(data.boundary.take, order[batches[0]], views[batches[0]])
    total = 0.0
    for batch, following in zip(batches, [*batches[1:], None], strict=True):
        maps, y = ahead.result(), data.y[order[batch]]
        if following is not None:
            ahead = reader.submit(data.boundary.take, order[following], views[following])
        truth = loss_targets(network, y)
        loss = network.model.train_on_batch(maps, truth, weights and np.array([weights[int(column)] for column in y]))
        total += len(y) * float(loss)
    history.loss.append(round(total / len(order), 6) if np.isfinite(total) else None)
    history.val_log_loss.append(_val_log_loss(network, data))
    history.seconds.append(round(time.perf_counter() - started, 3))


def loss_targets(network: Network, y: np.ndarray) -> np.ndarray:
    """As the loss takes it: float32 (n, 1) for two classes, else one column a score."""
    if y.ndim == 2:
        return np.asarray(y[:, -network.target.outputs :], np.float32)
    columns = np.arange(network.target.outputs) if network.target.outputs > 1 else 1
    return np.asarray(y[:, None] == columns, np.float32)


def _loss_of(target: Target, y: np.ndarray) -> Any:
    """A heads' loss, where classes have a column each: `loss_targets` makes them."""
    of = y if y.ndim == 2 else np.empty((0, len(target)))
    return losses_of(target, of)[0]


def _val_log_loss(network: Network, data: Data) -> float:
    """The target's loss on val, rounded; NaN, after training has diverged, counts as certain and wrong."""
    predictions = np.nan_to_num(network.predict(data.boundary, data.val))
    return round(float(network.target.losses(data.y[data.val], predictions).mean()), 6)


class _State:
    """What decides how training continues: weights, the optimizer's variables, the best weights, and the history."""

    def __init__(self, network: Network, path: Path | None) -> None:
        self._path = path
        model = network.model
        self._trained = network.state
        self._optimizer = model.optimizer.variables
        self._best: list[np.ndarray] = []

    def keep_best(self) -> None:
        self._best = [variable.numpy() for variable in self._trained]

    def put_best(self) -> None:
        for variable, value in zip(self._trained, self._best, strict=True):
            variable.assign(value)

    def keep(self, history: History) -> None:
        if self._path is None:
            return
        parts = {"trained": [v.numpy() for v in self._trained], "best": self._best}
        parts["optimizer"] = [v.numpy() for v in self._optimizer]
        arrays = {f"{part}/{number}": a for part, values in parts.items() for number, a in enumerate(values)}
        atomic_files.publish(self._path, npz.dump({"history": np.array(json.dumps(asdict(history))), **arrays}))

    def load(self) -> History:
        """Restore the last whole epoch, and return its history; an empty one without a checkpoint."""
        if self._path is None:
            return History()
        try:
            arrays = npz.load(self._path)
            history = History(**json.loads(str(arrays["history"])))
            wanted = {"trained": self._trained, "best": self._trained, "optimizer": self._optimizer}
            found = {p: [arrays[f"{p}/{number}"] for number in range(len(v))] for p, v in wanted.items()}
        except FileNotFoundError:
            return History()
        except (OSError, ValueError, KeyError, TypeError) as error:
            log.warning("the checkpoint %s is damaged (%s); training starts over", self._path, error)
            return History()
        self._best = found["best"]
        for variable, value in zip(
            [*self._trained, *self._optimizer], [*found["trained"], *found["optimizer"]], strict=True
        ):
            variable.assign(value)
        return history
