"""Stage 3: choose the images to fine-tune on, pass by pass."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import lightning as L
import torch
from torch import Tensor

from meds_plugin.callbacks.trainer import training_stream
from meds_plugin.distributed.ranks import from_first
from meds_plugin.encoding.scoring import selection_scores
from meds_plugin.selection import (
    SelectionSettings,
    anchor,
    held_scores,
    mix,
    select_by_group,
    stand_apart,
)
from meds_plugin.utils.errors import UserError
from meds_plugin.utils.groups import group_indices

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from meds_plugin.encoding.encoded_images import EncodedImages
    from meds_plugin.training.stream import TrainingStream
    from meds_plugin.utils.groups import Clusters

__all__ = ["ProgressiveSelectionCallback"]


class ProgressiveSelectionCallback(L.Callback):
    """Select the least suspicious images before every pass.

    Works with `MeDSWrapper` and with any LightningModule whose call turns images into an anomaly
    map. Every group of the data set (category, view) has statistics of its own. Clusters of images
    count as one, by the mean of their scores (of an image's tiles, the highest): below, N is the
    number of images (or tiles) and U that of clusters.

    Args:
        total_steps: Optimiser steps of the stage, T.
        start: Step at which the stage begins; before it, all images are used.
        settings: The rule; default: the package's or, without ``memory``, the model's scores alone.
        initial: Returns the model's part of the scores ``[N]`` for the first selection; default:
            the model's own at that step.
        memory: Returns the memory's image scores ``[N]``; needed if the settings weight them.
        holds: Whether the module's steps train on the last ``batch["held"]`` images of a batch by
            `hold_loss` instead of its own loss, as `MeDSWrapper` does. Outliers then stay in the
            passes.

    Attributes:
        initial_scores: ``[N]`` model scores of the first selection, higher = more anomalous.
        history: A row for each refresh and group: ``step, category, kept, threshold, median,
            mad, contaminated``. ``kept`` counts the selected images (of tiles: images with all of
            theirs selected), ``contaminated`` those known to be contaminated (``None``: unknown).
            Both are saved in checkpoints.
    """

    def __init__(
        self,
        total_steps: int,
        *,
        start: int = 0,
        settings: SelectionSettings | None = None,
        initial: Callable[[], Tensor] | None = None,
        memory: Callable[[], Tensor] | None = None,
        holds: bool = False,
    ) -> None:
        self.total_steps = total_steps
        self.start = start
        if settings is None:
            settings = SelectionSettings() if memory else SelectionSettings(memory=0.0)
        self.settings = settings
        if settings.memory > 0 and memory is None:
            msg = "selection.memory weighs scores of a memory: give some, or selection.memory=0"
            raise UserError(msg)
        self.initial_scores: Tensor | None = None
        self.history: list[dict[str, Any]] = []
        self._initial = initial
        self._memory = memory
        self._holds = holds and memory is not None and self.settings.hold > 0
        self._apart: Tensor | None = None  # bool [N]
        self._held_at: Tensor | None = None  # [N]
        self._stream: TrainingStream | None = None
        self._module: L.LightningModule | None = None

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Listen for the passes and drop the state of an earlier fit."""
        if stage == "fit":
            self.initial_scores, self.history = None, []
            self._apart = self._held_at = None
            self._stream, self._module = training_stream(trainer, pl_module), pl_module
            self._stream.on_pass(self.refresh)

    def refresh(self, step: int) -> None:
        """Choose the images of the pass that begins at a step."""
        if step < self.start or self._stream is None:
            return
        chosen = self.choose(step, self._scores(step))
        held = self._find_apart().nonzero().flatten()
        self._stream.subset, self._stream.held = torch.cat([chosen, held]), held

    def choose(self, step: int, scores: Tensor) -> Tensor:
        """Apply the rule to scores, record it once per step, and return the selected images.

        Call it on every rank; the first one's scores decide.

        Args:
            step: The trainer's step; before `start`, everything is selected and nothing recorded.
            scores: ``[U]`` selection scores (see `anchored`), higher = more anomalous.

        Returns:
            Ascending indices of the images selected in any group, without those that are held.
        """
        clusters, groups = self._clusters, self._cluster_groups()
        if step < self.start:
            return torch.arange(len(self._images))
        chosen = from_first(
            lambda: select_by_group(
                scores,
                groups,
                step=step - self.start,
                total_steps=self.total_steps,
                k=self.settings.k,
                k_start=self.settings.k_start,
            )
        )
        # One that stands apart condemns its cluster.
        apart = torch.zeros(len(clusters), dtype=torch.bool)
        apart[clusters.number[self._find_apart()]] = True
        chosen = {
            name: each._replace(indices=clusters.images(each.indices[~apart[each.indices]]))
            for name, each in chosen.items()
        }
        recorded = bool(self.history) and self.history[-1]["step"] == step
        for name, selection in () if recorded else chosen.items():
            whole = self._whole(selection.indices)
            self.history.append(
                {
                    "step": step,
                    "category": name,
                    "kept": len(whole),
                    "threshold": selection.threshold,
                    "median": selection.median,
                    "mad": selection.mad,
                    "contaminated": self._contaminated(whole),
                }
            )
        return torch.cat([selection.indices for selection in chosen.values()]).sort().values

    def anchored(self, model: Tensor) -> Tensor:
        """Return the selection scores ``[U]`` that follow from a model's image scores ``[N]``.

        Deviations in MADs from the median of each group; the model's scores unchanged if the
        memory's have no weight.
        """
        model = self._clusters.scores(model)
        if self._memory is None or self.settings.memory == 0:
            return model
        memory = self._clusters.scores(self._memory())
        return anchor(model, memory, self._cluster_groups(), weight=self.settings.memory)

    def hold_loss(self, scores: Tensor, index: Tensor) -> Tensor:
        """Return the weighted mean by which held images' scores fall short, a scalar.

        Args:
            scores: ``[B]`` image scores of the model, differentiable.
            index: ``[B]`` which images.
        """
        if self._held_at is None:
            msg = "images are held from the first selection on"
            raise RuntimeError(msg)
        self._held_at = self._held_at.to(scores.device)  # from a checkpoint it comes on the CPU
        return self.settings.hold * (self._held_at[index] - scores).relu().mean()

    def state_dict(self) -> dict[str, Any]:
        """Return what later refreshes depend on, and the history."""
        return {
            "initial_scores": self.initial_scores,
            "history": self.history,
            "held_at": self._held_at,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore `state_dict`."""
        self.initial_scores = state_dict["initial_scores"]
        self.history = state_dict["history"]
        self._held_at = state_dict["held_at"]

    def _scores(self, step: int) -> Tensor:
        """Return eta_t; the first refresh defines the initial scores."""
        if self.initial_scores is None:
            self.initial_scores = self._current() if self._initial is None else self._initial()
        progress = step - self.start
        model = current = self.initial_scores
        if progress > 0:
            current = self._current()
            model = mix(model, current, progress, self.total_steps)
        if self._holds and self._memory:
            self._held_at = held_scores(current, self._memory(), self._groups())
        return self.anchored(model)

    def _find_apart(self) -> Tensor:
        """Return bool ``[N]``, the images that are held; none where the module cannot."""
        if self._apart is None:
            self._apart = torch.zeros(len(self._images), dtype=torch.bool)
            if self._holds and self._memory:
                memory, groups = self._memory(), self._groups()
                self._apart = from_first(lambda: stand_apart(memory, groups))
        return self._apart

    @property
    def _images(self) -> EncodedImages:
        if self._stream is None:
            msg = "selection needs the training images of a fit"
            raise RuntimeError(msg)
        return self._stream.images

    @property
    def _clusters(self) -> Clusters:
        return self._images.reader.clusters

    def _groups(self) -> dict[str, Tensor]:
        return group_indices(self._images.reader.groups)

    def _cluster_groups(self) -> dict[str, Tensor]:
        groups = self._images.reader.groups
        return group_indices([groups[image] for image in self._clusters.first])

    def _whole(self, selected: Tensor) -> list[int]:
        """Return the selected images; of tiles, the first ones of those with all of theirs."""
        layout = self._images.reader.layout
        return selected.tolist() if layout is None else layout.complete(selected)

    def _contaminated(self, selected: Sequence[int]) -> int | None:
        truth = self._images.reader.injected
        return None if truth is None else sum(truth[index] for index in selected)

    def _current(self) -> Tensor:
        if self._module is None:
            msg = "selection needs the module of a fit"
            raise RuntimeError(msg)
        return selection_scores(self._images, top=self.settings.top, device=self._module.device)
