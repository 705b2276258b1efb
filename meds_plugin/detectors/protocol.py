"""What the plugin asks of an anomaly detector."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, runtime_checkable

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["OPTIONAL_METHODS", "Detector"]

OPTIONAL_METHODS = (
    "encode",
    "anomaly_map",
    "loss",
    "auxiliary_loss",
    "features",
    "encode_and_features",
    "image_score",
    "parameter_groups",
)


@runtime_checkable
class Detector(Protocol):
    """An anomaly detector: any `torch.nn.Module` whose call turns images into an anomaly map.

    Only the call is required. A detector may also have these methods, and gets more from the
    plugin for each:

    * ``encode(images) -> Tensor [B, ...]``: the frozen part. It runs once per image, in evaluation
      mode and without gradient; the plugin caches the result and passes it to ``anomaly_map`` and
      ``loss`` in place of the images. Default: the images.
    * ``anomaly_map(encoded) -> Tensor [B, h, w]``: the trainable rest. Default: the call.
    * ``loss(encoded, *, step, total_steps) -> Tensor``: the detector's own training loss, a
      scalar; ``step`` counts from 0 within the stage. Default: the mean of the map.
    * ``auxiliary_loss() -> Tensor``: a scalar that is added to the distillation loss; called right
      after ``anomaly_map`` in each distillation step. Default: nothing is added.
    * ``features(images) -> Tensor [B, P, D]`` or ``[B, D, h, w]``: patch features for the memory
      ensemble, frozen. Default: those of the plugin's own encoder.
    * ``encode_and_features(images) -> (Tensor, Tensor)``: exactly what ``encode`` and ``features``
      return, where one pass gives both; it spares the memory ensemble a pass of its own. Default:
      the two are called.
    * ``image_score(maps [B, h, w]) -> Tensor [B]``: the score of an image, higher = more anomalous,
      for selection, ranking and the image metrics. Default: the mean of the top 1 % of the map.
      The memory ensemble's scores are its own.
    * ``parameter_groups() -> list[dict]``: for the optimiser. Default: all trainable parameters.

    ``anomaly_map`` (without it, the call) and ``loss`` may take a keyword ``category``, ``[B]``
    int64: the place of each image's category among the sorted training categories, -1 where it is
    unknown or not among them.

    An attribute ``augments = True`` says that ``encode`` changes the images at random: its results
    are then not cached.

    An attribute ``needs_category`` that is true says that new images cannot be scored without.

    An attribute ``normalization`` (`meds_plugin.Normalization`), its own or that of an encoder
    inside it, says how images must be prepared. Default: ImageNet's mean and deviation.

    An attribute ``image_size`` (a side or a pair H, W, in pixels) says which images a detector
    takes, for the check at wrap time.

    A submodule of one of these names (``self.features = nn.Sequential(...)``) is not taken for
    the method, nor is ``encode`` where there is no ``anomaly_map`` to take its result.
    """

    def __call__(self, images: Tensor) -> Tensor:
        """Map images to anomaly maps.

        Args:
            images: ``[B, 3, H, W]``, normalised as the detector expects them.

        Returns:
            ``[B, h, w]`` or ``[B, 1, h, w]``, differentiable, higher = more anomalous.
        """
        ...
