"""An exponential moving average of the weights, kept in the optimiser's state and saved with it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

__all__ = ["WeightAverage"]

_KEY = "average"  # beside AdamW's own moments, so that a resumed training continues it


class WeightAverage:
    """Averages the weights after each step of an optimiser.

    The decay grows over the first steps, min(decay, (1 + t) / (10 + t)), so that the average is not held back
    by the weights that training began with.

    Source:
        Tarvainen and Valpola, "Mean teachers are better role models", NeurIPS 2017; the growing decay is that
        of `tf.train.ExponentialMovingAverage`.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, decay: float) -> None:
        """Attach to an optimiser.

        Args:
            optimizer: AdamW or another one whose state has "step" for each weight.
            decay: weight of the old average in each step, 0..1.
        """
        self._optimizer = optimizer
        self._decay = decay
        optimizer.register_step_post_hook(self._update)

    def apply(self) -> None:
        """Replace the weights by their averages; a weight that was never updated stays."""
        with torch.no_grad():
            for weight, state in self._averaged():
                weight.copy_(state[_KEY])

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Use the averages as weights within the context."""
        kept = [(weight, weight.detach().clone()) for weight, _ in self._averaged()]
        self.apply()
        try:
            yield
        finally:
            with torch.no_grad():
                for weight, value in kept:
                    weight.copy_(value)

    def _update(self, *_: Any) -> None:
        with torch.no_grad():
            for weight, state in self._updated():
                if _KEY not in state:
                    state[_KEY] = weight.detach().clone()
                    continue
                step = float(state["step"])
                decay = min(self._decay, (1.0 + step) / (10.0 + step))
                state[_KEY].lerp_(weight, 1.0 - decay)

    def _updated(self) -> Iterator[tuple[torch.Tensor, dict[str, Any]]]:
        # AdamW fills the state of a weight at its first gradient, unless it has an entry already
        for group in self._optimizer.param_groups:
            for weight in group["params"]:
                if state := self._optimizer.state.get(weight):
                    yield weight, state

    def _averaged(self) -> Iterator[tuple[torch.Tensor, dict[str, Any]]]:
        return ((weight, state) for weight, state in self._updated() if _KEY in state)
