"""From anomaly maps to evaluated maps and image scores, for evaluation and prediction."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import nn

from meds_plugin.detectors.inference import autocast_as
from meds_plugin.detectors.view import DetectorView
from meds_plugin.encoders.default import default_features
from meds_plugin.evaluation.protocol import evaluation_maps
from meds_plugin.metrics import image_score

if TYPE_CHECKING:
    from torch import Tensor

    from meds_plugin.evaluation.protocol import EvaluationProtocol

__all__ = ["Scorer", "evaluate_maps"]


def evaluate_maps(
    view: DetectorView | None,
    maps: Tensor,
    input_size: tuple[int, int],
    protocol: EvaluationProtocol,
) -> tuple[Tensor, Tensor]:
    """Return the maps that are compared with masks, and the image scores.

    Args:
        view: The detector, in evaluation mode, whose own ``image_score`` takes precedence over the
            protocol's; ``None`` for maps that are not a detector's.
        maps: ``[B, h, w]`` float maps, higher = more anomalous.
        input_size: Height and width of the images in pixels.
        protocol: How maps become scores.

    Returns:
        ``[B, R, R]`` evaluated maps and ``[B]`` image scores, higher = more anomalous.
    """
    evaluated = evaluation_maps(maps, input_size, protocol)
    if view is not None and view.own("image_score") is not None:
        return evaluated, view.image_score(maps, top=0.0)
    return evaluated, image_score(evaluated, top=protocol.image_top)


class Scorer(nn.Module):
    """A detector with the evaluation of its maps, in evaluation mode.

    Args:
        detector: The detector.
        input_size: Height and width of the images it takes, in pixels.
        protocol: How maps become scores.
        precision: The trainer's precision, in which the detector computes.
        tiled: The images are tiles: their maps are not evaluated before they are stitched.
    """

    def __init__(
        self,
        detector: nn.Module,
        input_size: tuple[int, int],
        protocol: EvaluationProtocol,
        *,
        precision: str = "32-true",
        tiled: bool = False,
    ) -> None:
        super().__init__()
        self.detector = detector
        self.view = DetectorView(detector, default_features)
        self.input_size = input_size
        self.protocol = protocol
        self.precision = precision
        self.tiled = tiled
        self.eval().requires_grad_(requires_grad=False)

    def forward(self, images: Tensor, category: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Score images.

        Args:
            images: ``[B, 3, H, W]`` of `input_size`, normalised.
            category: ``[B]`` places among the sorted training categories, -1 where unknown.

        Returns:
            ``[B, R, R]`` evaluated maps, or ``[B, h, w]`` maps of tiles, and ``[B]`` scores;
            higher = more anomalous.
        """
        with autocast_as(self.precision, images.device):
            maps = self.view.anomaly_map(self.view.encode(images), category=category).float()
        if self.tiled:
            return maps, self.view.image_score(maps, top=self.protocol.image_top)
        return evaluate_maps(self.view, maps, self.input_size, self.protocol)
