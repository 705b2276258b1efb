"""The protocol of an anomaly detector."""

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

    Only the call is required. Optional methods let the plugin do more:

    * ``encode(images) -> Tensor [B, ...]``: the frozen part. It runs once per image, in evaluation
      mode and without gradient; the plugin caches the result and passes it to ``anomaly_map`` and
      ``loss`` in place of the images. Default: the images.
    * ``anomaly_map(encoded) -> Tensor [B, h, w]``: the trainable rest. Default: the call.
    * ``loss(encoded, *, step, total_steps) -> Tensor``: the detector's own training loss, a
      scalar; ``step`` counts from 0 within the stage. Default: the mean of the map.
    * ``auxiliary_loss() -> Tensor``: a scalar that is added to the distillation loss; called right
      after ``anomaly_map`` in each distillation step. Default: none.
    * ``features(images) -> Tensor [B, P, D]`` or ``[B, D, h, w]``: patch features for the memory
      ensemble, frozen. Default: those of the plugin's own encoder.
    * ``encode_and_features(images) -> (Tensor, Tensor)``: exactly what ``encode`` and ``features``
      return, from one pass; it saves the memory ensemble an extra pass. Default: both calls.
    * ``image_score(maps [B, h, w]) -> Tensor [B]``: image scores, higher = more anomalous, for
      selection, ranking and the image metrics. Default: the mean of the top 1 % of the map. The
      memory ensemble does not use it.
    * ``parameter_groups() -> list[dict]``: for the optimiser. Default: all trainable parameters.

    ``anomaly_map`` (without it, the call) and ``loss`` may take a keyword ``category``, ``[B]``
    int64: the place of each image's category among the sorted training categories, -1 if it is
    unknown or not among them.

    Attributes are optional, too:

    * ``augments = True``: ``encode`` changes the images at random, so its results are not cached.
    * ``needs_category = True``: new images cannot be scored without their category.
    * ``normalization`` (`meds_plugin.Normalization`), of the detector or an encoder inside it: how
      images must be prepared. Default: ImageNet's mean and standard deviation.
    * ``image_size`` (a side or a pair H, W, in pixels): the images that the detector accepts, for
      the check when it is wrapped.

    A submodule with one of these names (``self.features = nn.Sequential(...)``) does not count as
    the method, nor does ``encode`` without an ``anomaly_map`` that accepts its result.
    """

    def __call__(self, images: Tensor) -> Tensor:
        """Map images to anomaly maps.

        Args:
            images: ``[B, 3, H, W]``, normalised as the detector expects them.

        Returns:
            ``[B, h, w]`` or ``[B, 1, h, w]``, differentiable, higher = more anomalous.
        """
        ...
