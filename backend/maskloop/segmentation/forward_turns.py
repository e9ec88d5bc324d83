"""How many forward passes run at a time, and on how many cores each."""

from __future__ import annotations

import torch

from maskloop.segmentation.batch_size import batch_limit
from maskloop.segmentation.checkpoint import Checkpoint
from maskloop.segmentation.fast.graphs import graph_counts
from maskloop.segmentation.precision_check import PrecisionChecks

__all__ = ["MOST_AT_A_TIME", "ForwardTurns"]

MOST_AT_A_TIME = 2


class ForwardTurns:
    """Counts the forward passes in progress; not thread-safe: its owner's lock guards it.

    Where several images wait and the model takes one at a time, two forward passes on half of the cores each
    are faster than one after the other on all: cores that share a product wait for each other. Swin-T on two
    cores, 480x640: 2.6 images/s in place of 2.2 in bfloat16, 1.10 in place of 1.00 in float32.
    """

    def __init__(self, *, max_batch: int | None, precision: PrecisionChecks) -> None:
        """Args:
        max_batch: images in one forward pass; None: by model and device.
        precision: models on trial in bfloat16 run alone.
        """
        self._max_batch, self._precision = max_batch, precision
        self._running: list[Checkpoint] = []

    def may_begin(self, checkpoint: Checkpoint) -> bool:
        """Return whether a forward pass of this model may run now."""
        if not self._running:
            return True
        if len(self._running) >= MOST_AT_A_TIME or torch.get_num_threads() < MOST_AT_A_TIME:
            return False
        return all(self._shares_cores(one) for one in {checkpoint, *self._running})

    def begin(self, checkpoint: Checkpoint, *, others_wait: bool) -> int | None:
        """Count a forward pass in, and return the cores it gets; None for all.

        Args:
            checkpoint: its model.
            others_wait: images that will run beside it.
        """
        is_alone = not self._running and not others_wait
        self._running.append(checkpoint)
        threads = torch.get_num_threads()
        if is_alone or threads < MOST_AT_A_TIME or not self._shares_cores(checkpoint):
            return None
        return threads // MOST_AT_A_TIME

    def end(self, checkpoint: Checkpoint) -> None:
        """Count a forward pass out."""
        self._running.remove(checkpoint)

    def _shares_cores(self, checkpoint: Checkpoint) -> bool:
        if checkpoint.device.type != "cpu" or checkpoint.plan.compiled:
            return False
        if (self._max_batch or batch_limit(checkpoint)) > 1 or self._precision.rival(checkpoint) is not None:
            return False
        # OpenVINO takes all cores for one image, and on its trial the times of both are compared
        counts = graph_counts(checkpoint.model)
        return counts is None or counts.off is not None or not (counts.on_trial or counts.by_graph)
