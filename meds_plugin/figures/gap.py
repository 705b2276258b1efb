"""The curve of Theorem 1: how far defects stand out, by the size of the memory."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F

from meds_plugin.config.build import build_datamodule, build_detector, check_targets, plain
from meds_plugin.detectors.inference import choose_device
from meds_plugin.detectors.view import DetectorView
from meds_plugin.encoders.default import default_features
from meds_plugin.encoding.encoded_images import EncodedImages
from meds_plugin.encoding.memory_features import memory_vectors
from meds_plugin.encoding.reader import ImageReader, views_of
from meds_plugin.memory import gap_curve
from meds_plugin.metrics import auroc
from meds_plugin.runs.read import read_config
from meds_plugin.runs.write import RunFolder
from meds_plugin.utils.errors import UserError
from meds_plugin.utils.groups import group_indices

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

    from meds_plugin.data.dataset import ImageDataset

__all__ = ["RATIOS", "compute_gap", "theorem_curve"]

RATIOS = (0.01, 0.02, 0.03, 0.05, 0.07, 0.1, 0.15, 0.2, 0.3, 0.5, 0.7, 1.0)

_DEFECT = 0.5  # fraction of an anomalous patch that its mask covers


def compute_gap(run: Path, *, device: str = "auto", trust: bool = False) -> None:
    """Write ``gap.csv`` of a run: its training images are read and encoded again.

    Args:
        run: The run's folder.
        device: See `choose_device`.
        trust: Let ``config.yaml`` call any code, not only data sets and detectors that are known.

    Raises:
        UserError: If the run or its images are not there, or no defect is known by a mask.
    """
    config = read_config(run)
    if not trust:
        for node in (config.backbone.detector, config.data.source):
            check_targets(plain(node), run / "config.yaml")
    where = choose_device(device)
    view = DetectorView(build_detector(config).to(where), default_features)
    datamodule = build_datamodule(config)
    datamodule.preprocess.normalization = view.normalization
    images = EncodedImages(ImageReader(datamodule.train_dataloader()), view)
    rows = theorem_curve(images, datamodule.train, device=where, progress=sys.stderr.isatty())
    if not rows:
        msg = f"{run}: theorem1=true needs contaminated training images with known masks"
        raise UserError(msg)
    RunFolder(run).write_gap(rows)


@torch.no_grad()
def theorem_curve(
    images: EncodedImages, train: ImageDataset, *, device: torch.device, progress: bool = False
) -> list[dict[str, Any]]:
    """Compute the gap of Theorem 1 against the subsampling ratio, in one pass per category.

    The theorem assumes that a query is not stored: the memories of an image are sampled from the
    other images. Anomalous patches are those of added images of which the mask covers at least
    half; if there are none in an image, those it covers most. Normal patches are those of normal
    images only: near a defect, the features of normal patches are affected.

    Args:
        images: The training images and the detector.
        train: The same images, with masks.
        device: Where the detector is.
        progress: Show progress bars.

    Returns:
        A row per category and ratio, as in ``gap.csv``: number of images in a memory, mean cosine
        distance of normal and of anomalous patches, their difference, AUROC in [0, 1]. No rows for
        categories in which no image is known to be added, an added one has no mask, or all are.
    """
    rows: list[dict[str, Any]] = []
    for name, members in group_indices(train.categories).items():
        rows += _category_curve(images, train, name, members.tolist(), device, progress=progress)
    return rows


def _category_curve(
    images: EncodedImages,
    train: ImageDataset,
    name: str,
    members: list[int],
    device: torch.device,
    *,
    progress: bool,
) -> list[dict[str, Any]]:
    truth = [train.samples[index].injected for index in members]
    masks = [train.mask(i) if known else None for i, known in zip(members, truth, strict=True)]
    if not any(truth) or any(m is None for m, t in zip(masks, truth, strict=True) if t):
        return []
    features, grid = memory_vectors(
        images,
        members,
        dtype=torch.float32,
        device=device,
        progress=f"features of {name}" if progress else None,
    )
    anomalous = torch.stack([_covered(mask, grid) for mask in masks])
    normal = torch.tensor([not known for known in truth])[:, None].expand_as(anomalous)
    if not bool(anomalous.any()) or not bool(normal.any()):
        return []
    views = views_of(images.reader, members)
    scores = gap_curve(features, RATIOS, leave_self_out=True, strata=views).cpu()
    rows = []
    for ratio, score in zip(RATIOS, scores, strict=True):
        distances = torch.cat([score[normal], score[anomalous]])
        labels = torch.arange(len(distances)) >= int(normal.sum())
        low, high = float(score[normal].mean()), float(score[anomalous].mean())
        rows.append(
            {
                "category": name,
                "ratio": ratio,
                "images": int(np.ceil(ratio * len(members))),
                "normal": f"{low:.7g}",
                "anomalous": f"{high:.7g}",
                "gap": f"{high - low:.7g}",
                "auroc": f"{auroc(distances, labels):.7g}",
            }
        )
    return rows


def _covered(mask: Tensor | None, grid: tuple[int, int]) -> Tensor:
    """Return bool ``[P]``: patches half covered by a mask, else the most covered; none without."""
    if mask is None:
        return torch.zeros(grid[0] * grid[1], dtype=torch.bool)
    covered = F.adaptive_avg_pool2d((mask > 0).float()[None], grid).flatten()
    return (covered > 0) & (covered >= min(_DEFECT, float(covered.max())))
