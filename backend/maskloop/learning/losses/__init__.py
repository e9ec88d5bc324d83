"""Training steps made cheaper: the same losses and gradients, with less computed and less waited for."""

from maskloop.learning.losses.patching import accelerated

__all__ = ["accelerated"]
