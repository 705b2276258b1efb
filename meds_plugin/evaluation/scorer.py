"""From a detector's maps to what is judged: evaluated maps and image scores."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import nn

from meds_plugin.detectors.modes import mixed
from meds_plugin.detectors.view import DetectorView, check_maps
from meds_plugin.encoders.default import default_features
from meds_plugin.evaluation.protocol import resize_and_blur
from meds_plugin.metrics import image_score

if TYPE_CHECKING:
    from torch import Tensor

    from meds_plugin.evaluation.protocol import EvaluationProtocol

__all__ = ["Scorer", "judged"]


def judged(
    view: DetectorView, maps: Tensor, input_size: tuple[int, int], protocol: EvaluationProtocol
) -> tuple[Tensor, Tensor]:
    """Return what the evaluation of a run looks at; a few images at a time.

    Args:
        view: The detector, in evaluation mode.
        maps: ``[B, h, w]`` float maps as it gives them, higher = more anomalous.
        input_size: Height and width of the images it saw, in pixels.
        protocol: How maps become scores.

    Returns:
        ``[B, R, R]`` evaluated maps and ``[B]`` image scores, higher = more anomalous.
    """
    evaluated = resize_and_blur(maps, input_size, protocol)
    if view.own("image_score") is not None:
        return evaluated, view.image_score(maps, top=0.0)
    return evaluated, image_score(evaluated, top=protocol.image_top)


class Scorer(nn.Module):
    """A detector together with all that its evaluation does to its maps, in evaluation mode.

    Args:
        detector: The detector.
        input_size: Height and width of the images it takes, in pixels.
        protocol: How maps become scores.
        precision: The trainer's, in which the detector computes.
    """

    def __init__(
        self,
        detector: nn.Module,
        input_size: tuple[int, int],
        protocol: EvaluationProtocol,
        *,
        precision: str = "32-true",
    ) -> None:
        super().__init__()
        self.detector = detector
        self.view = DetectorView(detector, default_features)
        self.input_size = input_size
        self.protocol = protocol
        self.precision = precision
        self.eval().requires_grad_(requires_grad=False)

    def forward(self, images: Tensor, category: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Judge images.

        Args:
            images: ``[B, 3, H, W]`` of `input_size`, normalised.
            category: ``[B]`` places among the sorted training categories, -1 where unknown.

        Returns:
            ``[B, R, R]`` evaluated maps and ``[B]`` image scores, higher = more anomalous.
        """
        with mixed(self.precision, images.device):
            maps = self.view.anomaly_map(self.view.encode(images), category=category).float()
        check_maps(maps, batch=images.shape[0], name=self.view.name_of("anomaly_map"), finite=False)
        return judged(self.view, maps, self.input_size, self.protocol)
