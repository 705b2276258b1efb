"""Evaluates a fitted model on its test images, category by category."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import torch

from meds_plugin.distributed.ranks import from_all, gather_in_order, my_chunks, rank_and_world
from meds_plugin.encoding.encoded_images import EncodedImages
from meds_plugin.encoding.memory_features import memory_vectors
from meds_plugin.encoding.reader import ImageReader, views_of
from meds_plugin.encoding.scoring import anomaly_maps
from meds_plugin.evaluation.categories import METRICS, category_metrics, mean_metrics
from meds_plugin.evaluation.protocol import EvaluationProtocol, evaluation_masks
from meds_plugin.evaluation.scoring import evaluate_map_chunks
from meds_plugin.memory.ensemble import ensemble_scores
from meds_plugin.utils.groups import group_indices
from meds_plugin.utils.progress import track

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from meds_plugin.data import AnomalyDataModule
    from meds_plugin.data.dataset import ImageDataset
    from meds_plugin.wrapper import MeDSWrapper

__all__ = ["detector_scores_images", "evaluate"]


def evaluate(
    model: MeDSWrapper,
    datamodule: AnomalyDataModule,
    *,
    protocol: EvaluationProtocol | None = None,
    progress: bool = False,
    on_maps: Callable[[Tensor, Tensor], None] | None = None,
) -> dict[str, Any]:
    """Compute the seven metrics of every category's test images.

    Call it after ``fit``, on every rank.

    Args:
        model: The fitted model.
        datamodule: The data it was fitted on.
        protocol: How maps become scores; default: the reference's for Dinomaly.
        progress: Show a progress bar.
        on_maps: Called for each category with the indices ``[n]`` of its test images and their
            maps ``[n, R, R]`` as they are evaluated.

    Returns:
        ``{"mean": {...}, "categories": {name: {...}}, "skipped": {name: {metric: reason}}}``;
        metrics in [0, 1], or ``None`` where there is a reason; a category without test images has
        none.
    """
    protocol = protocol or EvaluationProtocol()
    model.to(model.trainer.strategy.root_device)
    test = datamodule.test
    categories: dict[str, dict[str, float | None]] = {}
    skipped: dict[str, dict[str, str]] = {}
    for name in sorted({*datamodule.train.categories} - {*test.categories}):
        categories[name] = dict.fromkeys(METRICS)
        skipped[name] = dict.fromkeys(METRICS, "there are no test images")
    if len(test) == 0:
        return {"mean": dict.fromkeys(METRICS), "categories": categories, "skipped": skipped}
    images = EncodedImages(
        ImageReader(datamodule.test_dataloader()),
        model.view,
        categories=datamodule.train.categories,
        known=model.stream.images if model.stream is not None else None,
        scoring_batch=model.scoring_batch,
        precision=model.trainer.precision_plugin.forward_context,
    )
    members = group_indices(test.categories)
    rank, world = rank_and_world()
    mine: dict[str, tuple[dict[str, float | None], dict[str, str]]] = {}
    names = track(members, description="evaluation", total=len(members), enabled=progress)
    size = datamodule.preprocess.input_size
    # All ranks score a category together; then each computes the metrics of one.
    for some in iter(lambda: list(itertools.islice(names, world)), []):
        own: tuple[Tensor, Tensor] | None = None
        for place, name in enumerate(some):
            maps = _maps(model, images, name, members[name].tolist())
            if place != rank and on_maps is None:
                continue
            evaluated, scores = _evaluated(model, maps, size, protocol)
            if on_maps is not None:
                on_maps(members[name], evaluated)
            if place == rank:
                own = evaluated, scores
        if own is not None:
            indices = members[some[rank]]
            masks, without = _masks(test, indices.tolist(), protocol)
            mine[some[rank]] = category_metrics(
                *own,
                masks,
                test.labels[indices],
                fpr_limit=protocol.fpr_limit,
                no_masks=without,
            )
    together = {name: result for found in from_all(mine) for name, result in found.items()}
    categories |= {name: metrics for name, (metrics, _) in together.items()}
    skipped |= {name: reasons for name, (_, reasons) in together.items() if reasons}
    return {
        "mean": mean_metrics(list(categories.values())),
        "categories": dict(sorted(categories.items())),
        "skipped": dict(sorted(skipped.items())),
    }


def detector_scores_images(model: MeDSWrapper) -> bool:
    """Whether image scores are the detector's own; a memory's maps are not."""
    return bool(model.plan.stages) and model.view.own("image_score") is not None


def _evaluated(
    model: MeDSWrapper, maps: Tensor, size: tuple[int, int], protocol: EvaluationProtocol
) -> tuple[Tensor, Tensor]:
    """Return a category's evaluated maps ``[n, R, R]`` and image scores ``[n]``."""
    view = model.view if model.plan.stages else None
    evaluated = torch.empty(len(maps), protocol.resize, protocol.resize)
    scores: list[Tensor] = []
    for part, score in evaluate_map_chunks(view, maps, size, protocol, device=model.device):
        start = sum(map(len, scores))
        evaluated[start : start + len(part)] = part
        scores.append(score)
    return evaluated, torch.cat(scores)


def _maps(model: MeDSWrapper, images: EncodedImages, group: str, indices: list[int]) -> Tensor:
    """Return the maps of a category's test images ``[n, h, w]``; every rank gets all."""
    if model.plan.stages:
        return anomaly_maps(images, indices, device=model.device)
    return _memory_maps(model, images, group, indices)


def _memory_maps(
    model: MeDSWrapper, images: EncodedImages, group: str, indices: list[int]
) -> Tensor:
    """Score test images by the memory of their own category's training images."""
    if model.stream is None or model.memory is None:
        msg = "memory scores need the training images of a fit"
        raise RuntimeError(msg)
    train = model.stream.images
    members = group_indices(train.reader.categories)[group].tolist()
    settings = model.memory.settings
    features, _ = memory_vectors(
        train, members, dtype=settings.dtype, device=model.device, together=True
    )
    plan = my_chunks(indices, images.reader.batch_size)
    if not plan:
        return gather_in_order(None)
    mine = [*itertools.chain(*plan)]
    queries, grid = memory_vectors(images, mine, dtype=settings.dtype, device=model.device)
    scores = ensemble_scores(
        features,
        settings,
        seed=model.seed,
        group=group,
        queries=queries,
        views=views_of(train.reader, members),
    )
    return gather_in_order(scores.view(-1, *grid).cpu())


def _masks(
    test: ImageDataset, indices: list[int], protocol: EvaluationProtocol
) -> tuple[Tensor | None, str]:
    """Return ground truth ``[N, R, R]``, or ``None`` and why: defective images have no mask."""
    found = [test.mask(index) for index in indices]
    masks = [mask for mask in found if mask is not None]
    if len(masks) == len(found):
        return evaluation_masks(torch.stack(masks), protocol), ""
    lacking = [index for index, mask in zip(indices, found, strict=True) if mask is None]
    defective = int(test.labels[indices].sum())
    if len(lacking) == defective:
        return None, "there are no masks"
    first = test.samples[lacking[0]].path
    have = "has" if len(lacking) == 1 else "have"
    return None, f"{len(lacking)} of {defective} defective images {have} no mask, the first {first}"
