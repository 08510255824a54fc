"""Owns averages of the weights during a fine-tuning, and rates by block, as an experiment. Not what is compared.

Both come in by the hook of `training.train`, which is left as it is. A TensorFlow room.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from benchmarks.few_images import figures
from stages.finetune.network import Network
from stages.finetune.training import Data


class Average:
    """An average of the weights over steps, and what training would keep of it; decay 0: the weights themselves.

    Step t has the share (1 - decay) / (1 - decay^t), so that the weights from before training count for nothing.
    """

    def __init__(self, decay: float, patience: int | None, start: Sequence[np.ndarray], loss: float) -> None:
        self.decay, self._patience, self._steps = decay, patience, 0
        self.weights = self.best = [weight.copy() for weight in start]
        self.losses = [loss]

    @property
    def epoch(self) -> int:
        return int(np.argmin(self.losses))

    @property
    def stopped(self) -> bool:
        return self._patience is not None and len(self.losses) - 1 - self.epoch >= self._patience

    def step(self, weights: Sequence[np.ndarray]) -> None:
        self._steps += 1
        share = np.float32((1 - self.decay) / (1 - self.decay**self._steps))
        self.weights = [mean + share * (weight - mean) for mean, weight in zip(self.weights, weights, strict=True)]

    def look(self, loss: float) -> None:
        self.losses.append(loss)
        if self.epoch == len(self.losses) - 1:
            self.best = self.weights


def set_rates(network: Network, rates: Mapping[str, float]) -> None:
    """Let the optimizer change the layers of each block at its share of the rate; the head has the whole.

    Weight decay, 0.01 of the rate, stays that of the head: over a whole training it is some thousandth.
    """
    shares = {}
    for variable in network.model.trainable_variables:
        shares[id(variable.value)] = rates.get(variable.path.split("/")[-2].split("_")[0], 1.0)
    assert {*rates.values(), 1.0} == {*shares.values()}
    plain = network.model.optimizer.update_step
    network.model.optimizer.update_step = lambda gradient, variable, rate: plain(
        gradient, variable, rate * shares[id(variable)]
    )


def judge(network: Network, data: Data, where: np.ndarray) -> dict[str, float]:
    return figures(data.y[where], network.predict(data.boundary, where))


@contextmanager
def averaging(
    network: Network, data: Data, rates: Mapping[str, float], averages: Sequence[Average], done: int
) -> Iterator[Callable[[int], object]]:
    """Of `training.train`, called once the network is compiled: averages after each step, judged after each epoch."""
    if rates:
        set_rates(network, rates)
    train_on_batch = network.model.train_on_batch

    def step(*batch: Any) -> Any:
        loss = train_on_batch(*batch)
        weights = [variable.numpy() for variable in network.state]
        for average in averages:
            average.step(weights)
        return loss

    def look(epochs: int) -> None:
        weights = [variable.numpy() for variable in network.state]
        for average in averages:
            if not average.stopped:
                put(network, average.weights)
                average.look(judge(network, data, data.val)["log_loss"])
        put(network, weights)

    network.model.train_on_batch = step
    try:
        yield look
    finally:
        network.model.train_on_batch = train_on_batch


def put(network: Network, weights: Sequence[np.ndarray]) -> None:
    for variable, weight in zip(network.state, weights, strict=True):
        variable.assign(weight)
