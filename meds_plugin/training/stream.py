"""The training batches of a run: pass after pass over a subset of images that may change."""

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
    """Replaces the user's loader in Lightning's training loop.

    A pass is an epoch of Lightning. When it begins, listeners receive the step and may set
    ``subset``, the images of this pass, and ``held``, those of them that are not for the detector's
    own loss: they come last in a batch, which counts them as ``held``. The order within a pass
    depends only on the seed and the step at which it began, so a resumed run, or one with other
    workers or ranks, sees the same batches.

    Ranks share each batch. If their parts differ in size, a batch has a ``weight`` such that the
    mean over ranks of weight times loss, and of its gradient, is that of the whole batch. A rank
    left without an image gets one of weight 0, because all must take part in the backward pass. The
    user's own batches (``raw``) cannot be weighted, so images are repeated instead.

    It is not a ``DataLoader``, so that Lightning does not insert its own sampler, and has no
    length, because the next pass may be shorter.

    Args:
        images: The training images.
        seed: The run's seed.
        end_of_stage: Returns the step at which the stage of a step ends; no pass goes beyond it.
        raw: Yield the user's own batches instead of indexed ones (for other LightningModules).
    """

    _trainer: L.Trainer  # set by `attach`

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
        self.held = torch.empty(0, dtype=torch.int64)
        self._seed = seed
        self._end_of_stage = end_of_stage
        self._raw = raw
        self._listeners: list[Callable[[int], None]] = []
        self._start = 0
        self._steps = 0

    def attach(self, trainer: L.Trainer) -> None:
        """Replace the trainer's training loader."""
        self._trainer = trainer
        source = trainer.fit_loop._data_source
        source.instance, source.name = self, ""

    def on_pass(self, listener: Callable[[int], None]) -> None:
        """Call ``listener(step)`` at the beginning of every pass, in order of registration."""
        self._listeners.append(listener)

    def __iter__(self) -> Iterator[Any]:
        """Yield the remaining batches of the current pass, or those of a new one."""
        trainer = self._trainer
        step = trainer.global_step
        if step >= self._end_of_stage(step):
            return
        if step >= self._start + self._steps:
            self._begin(step)
        accumulate = trainer.accumulate_grad_batches
        left = self._order()[(step - self._start) * accumulate : self._steps * accumulate]
        rank, world = trainer.global_rank, trainer.world_size
        if self._raw:
            yield from self.images.reader.batches(
                [_padded_share(each, rank, world) for each in left]
            )
            return
        held = set(self.held.tolist())
        shares = [_share(each, rank, world, last=held) for each in left]
        pinned = trainer.strategy.root_device.type == "cuda"
        batches = self.images.batches(shares, pinned=pinned)
        for whole, share, batch in zip(left, shares, batches, strict=True):
            weight = len(whole[rank::world]) * world / len(whole)
            extra: dict[str, Any] = {} if weight == 1 else {"weight": torch.tensor(weight)}
            if held:
                extra["held"] = sum(index in held for index in share)
            yield {**batch, **extra}

    def state_dict(self) -> dict[str, Any]:
        """Return what the order depends on; Lightning saves it with the loop."""
        subset, held = self.subset, self.held
        return {"start": self._start, "steps": self._steps, "subset": subset, "held": held}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore `state_dict`."""
        self._start, self._steps = int(state["start"]), int(state["steps"])
        self.subset, self.held = state["subset"], state["held"]

    def _begin(self, step: int) -> None:
        self._start = step
        for listener in self._listeners:
            listener(step)
        batches = len(self._order())
        self._steps = math.ceil(batches / self._trainer.accumulate_grad_batches)
        self._steps = min(self._steps, max(0, self._end_of_stage(step) - step))

    def _order(self) -> list[Tensor]:
        """Return all batches of a pass over the subset, without an incomplete last one."""
        generator = torch_generator(self._seed, "order", self._start)
        shuffled = self.subset[torch.randperm(len(self.subset), generator=generator)]
        size = self.images.reader.batch_size
        # A subset smaller than a batch makes one batch; the reference would loop forever.
        return list(torch.split(shuffled[: max(1, len(shuffled) // size) * size], size))


def _share(batch: Tensor, rank: int, world: int, *, last: set[int]) -> list[int]:
    """Return a rank's part of a batch; some image of it if there are more ranks than images.

    The images in ``last`` come last, so that all ranks get their share of them.
    """
    images = sorted(batch.tolist(), key=lambda index: index in last)
    return images[rank % len(images) :: world]


def _padded_share(batch: Tensor, rank: int, world: int) -> list[int]:
    """Return a rank's part of a batch, with repeated images so that all parts are of one size."""
    share = math.ceil(len(batch) / world)
    padded = batch.repeat(math.ceil(share * world / len(batch)))[: share * world]
    return [int(index) for index in padded[rank::world]]
