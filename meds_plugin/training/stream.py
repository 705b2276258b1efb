"""The training batches of a run: one pass after the other over a subset that may change."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from meds_plugin.utils.rng import torch_generator

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import lightning as L

    from meds_plugin.encoding.encoded_images import EncodedImages

__all__ = ["TrainingStream"]


class TrainingStream:
    """What Lightning trains on in place of the user's loader.

    Lightning's epoch is one pass. When a pass begins, listeners are told the step and may set
    ``subset``, the images of this pass. The order within a pass depends on the seed and the step
    it began at, nothing else; so a run that is resumed, or that has other workers or ranks, sees
    the same batches.

    Ranks share each batch. Where their parts differ in size, a batch has a ``weight``: the mean
    over ranks of weight times loss (and of its gradient) is then that of the whole batch. A rank
    without an image of its own gets one of weight 0, for all must take part in the backward pass.
    The user's own batches (``raw``) cannot be weighed: there, images are repeated instead.

    It is no ``DataLoader``, which keeps Lightning from putting a sampler of its own into it, and it
    has no length, because the next pass may be shorter.

    Args:
        images: The training images.
        seed: The run's seed.
        end_of_stage: Gives, for a step, the step at which its stage ends: no pass goes beyond.
        raw: Yield the user's own batches instead of indexed ones (for other LightningModules).
    """

    def __init__(
        self,
        images: EncodedImages,
        *,
        seed: int,
        end_of_stage: Callable[[int], int],
        raw: bool = False,
    ) -> None:
        self.images = images
        self.subset = torch.arange(len(images))
        self._seed = seed
        self._end_of_stage = end_of_stage
        self._raw = raw
        self._listeners: list[Callable[[int], None]] = []
        self._trainer: L.Trainer | None = None
        self._start = 0
        self._steps = 0

    def attach(self, trainer: L.Trainer) -> None:
        """Take the place of the trainer's training loader."""
        self._trainer = trainer
        source = trainer.fit_loop._data_source
        source.instance, source.name = self, ""

    def on_pass(self, listener: Callable[[int], None]) -> None:
        """Call ``listener(step)`` at the beginning of every pass, in order of registration."""
        self._listeners.append(listener)

    def __iter__(self) -> Iterator[Any]:
        """Yield the batches left in the pass of the trainer's step, or those of a new pass."""
        trainer = self._require_trainer()
        step = trainer.global_step
        if step >= self._end_of_stage(step):
            return
        if step >= self._start + self._steps:
            self._begin(step)
        accumulate = trainer.accumulate_grad_batches
        left = self._plan()[(step - self._start) * accumulate :]
        rank, world = trainer.global_rank, trainer.world_size
        if self._raw:
            yield from self.images.reader.batches([_filled(each, rank, world) for each in left])
            return
        batches = self.images.batches([_part(each, rank, world) for each in left])
        for whole, batch in zip(left, batches, strict=True):
            weight = len(whole[rank::world]) * world / len(whole)
            yield batch if weight == 1 else {**batch, "weight": torch.tensor(weight)}

    def state_dict(self) -> dict[str, Any]:
        """Return what the order depends on; Lightning saves it with the loop."""
        return {"start": self._start, "steps": self._steps, "subset": self.subset}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore `state_dict`."""
        self._start, self._steps = int(state["start"]), int(state["steps"])
        self.subset = state["subset"]

    def _begin(self, step: int) -> None:
        self._start = step
        for listener in self._listeners:
            listener(step)
        batches = len(self._order())
        self._steps = math.ceil(batches / self._require_trainer().accumulate_grad_batches)
        self._steps = min(self._steps, max(0, self._end_of_stage(step) - step))

    def _order(self) -> list[Tensor]:
        """Return all batches of a pass over the subset, the last incomplete one left out."""
        generator = torch_generator(self._seed, "order", self._start)
        shuffled = self.subset[torch.randperm(len(self.subset), generator=generator)]
        size = self.images.reader.batch_size
        # A subset smaller than a batch is one batch; the reference would wait forever here.
        return list(torch.split(shuffled[: max(1, len(shuffled) // size) * size], size))

    def _plan(self) -> list[Tensor]:
        return self._order()[: self._steps * self._require_trainer().accumulate_grad_batches]

    def _require_trainer(self) -> L.Trainer:
        if self._trainer is None:
            msg = "the stream is not attached to a trainer"
            raise RuntimeError(msg)
        return self._trainer


def _part(batch: Tensor, rank: int, world: int) -> list[int]:
    """Return a rank's part of a batch; any image where there are more ranks than images."""
    return [int(index) for index in batch[rank % len(batch) :: world]]


def _filled(batch: Tensor, rank: int, world: int) -> list[int]:
    """Return a rank's part of a batch; repeated images make all parts the same size."""
    share = math.ceil(len(batch) / world)
    padded = batch.repeat(math.ceil(share * world / len(batch)))[: share * world]
    return [int(index) for index in padded[rank::world]]
