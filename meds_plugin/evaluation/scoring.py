"""From anomaly maps to evaluated maps and image scores, in evaluation and prediction alike."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn

from meds_plugin.detectors.inference import autocast_as, evaluating
from meds_plugin.detectors.view import DetectorView
from meds_plugin.encoders.default import default_features
from meds_plugin.evaluation.protocol import evaluation_maps
from meds_plugin.metrics import image_score

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor

    from meds_plugin.evaluation.protocol import EvaluationProtocol

__all__ = ["Scorer", "evaluate_map_chunks", "evaluate_maps"]

_CHUNK = 32  # maps at full size at a time: 25 MB of float32 at 448 x 448


def evaluate_maps(
    view: DetectorView | None,
    maps: Tensor,
    input_size: tuple[int, int],
    protocol: EvaluationProtocol,
) -> tuple[Tensor, Tensor]:
    """Return the maps that are compared with masks, and the image scores; a few images at a time.

    Args:
        view: The detector, in evaluation mode, whose own ``image_score`` goes before the
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


@torch.no_grad()
def evaluate_map_chunks(
    view: DetectorView | None,
    maps: Tensor,
    input_size: tuple[int, int],
    protocol: EvaluationProtocol,
    *,
    device: torch.device,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield what `evaluate_maps` returns for some of many maps at a time, on the CPU."""
    for part in maps.split(_CHUNK):
        if view is None:
            found = evaluate_maps(None, part.to(device), input_size, protocol)
        else:
            with evaluating(view.detector):
                found = evaluate_maps(view, part.to(device), input_size, protocol)
        yield found[0].cpu(), found[1].cpu()


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
        """Score images.

        Args:
            images: ``[B, 3, H, W]`` of `input_size`, normalised.
            category: ``[B]`` places among the sorted training categories, -1 where unknown.

        Returns:
            ``[B, R, R]`` evaluated maps and ``[B]`` image scores, higher = more anomalous.
        """
        with autocast_as(self.precision, images.device):
            maps = self.view.anomaly_map(self.view.encode(images), category=category).float()
        return evaluate_maps(self.view, maps, self.input_size, self.protocol)
