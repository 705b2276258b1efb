"""What figures need of a run besides its tables: the curve of Theorem 1, and test examples."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F

from meds_plugin.callbacks.memory_ensemble import views_of
from meds_plugin.encoding.memory_features import memory_vectors
from meds_plugin.memory import gap_curve
from meds_plugin.metrics import auroc
from meds_plugin.selection import group_indices

if TYPE_CHECKING:
    from torch import Tensor

    from meds_plugin.data.dataset import ImageDataset
    from meds_plugin.encoding.encoded_images import EncodedImages
    from meds_plugin.wrapper import MeDSWrapper

__all__ = ["GAP_FIELDS", "RATIOS", "TestExamples", "theorem_curve"]

log = logging.getLogger(__name__)

RATIOS = (0.01, 0.02, 0.03, 0.05, 0.07, 0.1, 0.15, 0.2, 0.3, 0.5, 0.7, 1.0)
GAP_FIELDS = ("category", "ratio", "images", "normal", "anomalous", "gap", "auroc")

# The memory's pass over all pairs is made once more where they are few or it took seconds.
_PAIRS = 2e9
_SECONDS = 20.0
_DEFECT = 0.5  # share of a patch that its mask covers
_EXAMPLES = 2  # defective test images kept of a category, and one normal one
_SIDE = 256  # pixels that kept images and masks are shrunk to
_CATEGORIES = 8  # categories that examples are kept of


@torch.no_grad()
def theorem_curve(model: MeDSWrapper, train: ImageDataset) -> list[dict[str, Any]]:
    """Compute the gap of Theorem 1 against the subsampling ratio, in one pass a category.

    An image's memories are drawn from the other images, for a query of the theorem is none of
    those stored. Anomalous patches are those of added images that the mask covers by half (where
    it covers none so far, the one it covers most). Call it on every rank, after ``fit``.

    Args:
        model: The fitted model.
        train: Its training images.

    Returns:
        A row for each category and ratio (`GAP_FIELDS`): number of images in a memory, mean
        distance of normal and of anomalous patches, their difference, AUROC in [0, 1]. Empty where
        the method has no memory, the pass would not take seconds, or no defect is known by a mask.
    """
    if model.memory is None or model.memory.maps is None or model.stream is None:
        return []
    rows: list[dict[str, Any]] = []
    patches = model.memory.maps[0].numel()
    sizes = [len(members) for members in group_indices(train.categories).values()]
    pairs = sum((size * patches) ** 2 for size in sizes)
    if pairs > _PAIRS and model.memory.seconds > _SECONDS:
        return rows
    try:
        for name, indices in group_indices(train.categories).items():
            rows += _category_curve(model, model.stream.images, train, name, indices.tolist())
    except RuntimeError as error:  # e.g. memory that other processes have taken since
        log.warning("no curve of Theorem 1: %s", error)
        return []
    return rows


def _category_curve(
    model: MeDSWrapper, images: EncodedImages, train: ImageDataset, name: str, members: list[int]
) -> list[dict[str, Any]]:
    truth = [train.samples[index].injected for index in members]
    masks = [train.mask(i) if known else None for i, known in zip(members, truth, strict=True)]
    if not any(truth) or any(m is None for m, t in zip(masks, truth, strict=True) if t):
        return []
    features, grid = memory_vectors(images, members, dtype=torch.float32, device=model.device)
    defect = torch.stack([_covered(mask, grid) for mask in masks])
    # Normal patches are those of normal images: around a defect, features know of it.
    clean = torch.tensor([not known for known in truth])[:, None].expand_as(defect)
    if not bool(defect.any()) or not bool(clean.any()):
        return []
    views = views_of(images.reader, members)
    scores = gap_curve(features, RATIOS, leave_self_out=True, strata=views).cpu()
    rows = []
    for ratio, score in zip(RATIOS, scores, strict=True):
        normal, anomalous = score[clean], score[defect]
        both = torch.cat([normal, anomalous])
        means = float(normal.mean()), float(anomalous.mean())
        rows.append(
            {
                "category": name,
                "ratio": ratio,
                "images": int(np.ceil(ratio * len(members))),
                "normal": f"{means[0]:.7g}",
                "anomalous": f"{means[1]:.7g}",
                "gap": f"{means[1] - means[0]:.7g}",
                "auroc": f"{auroc(both, torch.arange(len(both)) >= len(normal)):.7g}",
            }
        )
    return rows


class TestExamples:
    """Collects a few test images with their masks and maps while a run is evaluated.

    Args:
        test: The test images.
    """

    __test__ = False  # no test, whatever pytest makes of the name

    def __init__(self, test: ImageDataset) -> None:
        self._test = test
        self._kept: list[tuple[int, Tensor]] = []
        self._ranges: list[tuple[float, float]] = []

    def add(self, indices: Tensor, maps: Tensor) -> None:
        """Take over a category.

        Args:
            indices: ``[n]`` its images among all test images.
            maps: ``[n, R, R]`` their maps as evaluated, higher = more anomalous.
        """
        if len(self._ranges) == _CATEGORIES:
            return
        thinned = maps.flatten()[:: max(1, maps.numel() // 1_000_000)].float()
        low, high = thinned.quantile(torch.tensor([0.5, 0.99], device=maps.device)).tolist()
        self._ranges.append((low, high))
        labels = self._test.labels[indices]
        defective, normal = torch.nonzero(labels).flatten(), torch.nonzero(~labels).flatten()
        spread = torch.linspace(0, len(defective) - 1, min(_EXAMPLES, len(defective)))
        for place in [*defective[spread.round().long()].tolist(), *normal[:1].tolist()]:
            self._kept.append((int(indices[place]), maps[place].cpu()))

    def arrays(self) -> dict[str, np.ndarray[Any, Any]]:
        """Return E examples as arrays without objects, for an npz file.

        Returns:
            ``images`` uint8 ``[E, H, W, 3]``, ``masks`` uint8 ``[E, H, W]`` (255: unknown),
            ``maps`` float16 ``[E, R, R]``, ``scale`` ``[2]`` lowest and highest value to show,
            ``paths`` and ``categories`` ``[E]``. Empty where there are no test images.
        """
        if not self._kept:
            return {}
        samples = [self._test.samples[index] for index, _ in self._kept]
        pictures = torch.stack([self._test[index]["image"] for index, _ in self._kept])
        normalization = self._test.preprocess.normalization
        pictures = (_shrunk(normalization.undo(pictures)) * 255).round().clamp(0, 255)
        masks = [self._test.mask(index) for index, _ in self._kept]
        unknown = torch.full(self._test.preprocess.input_size, 255.0)
        truth = torch.stack([unknown if m is None else (m > 0).float() for m in masks])
        scale = [min(low for low, _ in self._ranges), max(high for _, high in self._ranges)]
        return {
            "images": pictures.to(torch.uint8).permute(0, 2, 3, 1).numpy(),
            "masks": _shrunk(truth[:, None])[:, 0].ceil().to(torch.uint8).numpy(),
            "maps": torch.stack([kept for _, kept in self._kept]).to(torch.float16).numpy(),
            "scale": np.array(scale, dtype=np.float32),
            "paths": np.array([sample.path for sample in samples]),
            "categories": np.array([sample.category for sample in samples]),
        }


def _shrunk(images: Tensor) -> Tensor:
    """Bring ``[E, C, H, W]`` to at most `_SIDE` pixels a side."""
    height, width = images.shape[-2:]
    factor = min(1.0, _SIDE / max(height, width))
    size = (max(1, round(height * factor)), max(1, round(width * factor)))
    return F.adaptive_avg_pool2d(images, size)


def _covered(mask: Tensor | None, grid: tuple[int, int]) -> Tensor:
    """Return ``[P]`` bool: patches half covered by a mask, else the most covered; none without."""
    if mask is None:
        return torch.zeros(grid[0] * grid[1], dtype=torch.bool)
    covered = F.adaptive_avg_pool2d((mask > 0).float()[None], grid).flatten()
    return (covered > 0) & (covered >= min(_DEFECT, float(covered.max())))
