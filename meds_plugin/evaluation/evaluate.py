"""Evaluates a fitted model on its test images, category by category."""

from __future__ import annotations

import itertools
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

import torch

from meds_plugin.distributed.ranks import (
    from_all,
    gather_in_order,
    my_chunks,
    rank_and_world,
)
from meds_plugin.encoding.encoded_images import EncodedImages
from meds_plugin.encoding.memory_features import memory_vectors
from meds_plugin.encoding.reader import ImageReader, views_of
from meds_plugin.encoding.scoring import anomaly_maps
from meds_plugin.evaluation.categories import category_metrics, mean_metrics, metric_names
from meds_plugin.evaluation.evaluated_maps import ScoringModel, evaluate_in_parts
from meds_plugin.evaluation.protocol import (
    EvaluationProtocol,
    evaluation_masks,
    packed_masks,
)
from meds_plugin.memory.ensemble import ensemble_scores, stored_of
from meds_plugin.utils.groups import group_indices
from meds_plugin.utils.progress import track

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from torch import Tensor

    from meds_plugin.callbacks.memory_ensemble import MemoryEnsembleCallback
    from meds_plugin.training.stream import TrainingStream

__all__ = ["detector_scores_images", "evaluate"]


class FittedModel(ScoringModel, Protocol):
    """What an evaluation needs of a `MeDSWrapper` after a fit."""

    stream: TrainingStream | None
    memory: MemoryEnsembleCallback | None
    scoring_batch: int | None
    seed: int

    @property
    def trainer(self) -> Any: ...

    def to(self, device: Any) -> Any:
        """Move it."""


class TestData(Protocol):
    """What an evaluation needs of an `AnomalyDataModule`."""

    preprocess: Any

    @property
    def train(self) -> Any: ...

    @property
    def test(self) -> Any: ...

    def test_dataloader(self) -> Any:
        """Return a loader of the test images, in order."""


def evaluate(
    model: FittedModel,
    datamodule: TestData,
    *,
    protocol: EvaluationProtocol | None = None,
    progress: bool = False,
    on_maps: Callable[[Tensor, Tensor], None] | None = None,
) -> dict[str, Any]:
    """Compute the metrics of every category's test images.

    Call it after ``fit``, on every rank.

    Args:
        model: The fitted model.
        datamodule: The data it was fitted on.
        protocol: How maps become scores; default: as in the reference for Dinomaly.
        progress: Show a progress bar.
        on_maps: Called for each category with the indices ``[n]`` of its test images and their
            evaluated maps ``[n, R, R]``; only evenly spaced ones if all would take over 0.5 GB.

    Returns:
        ``{"mean": {...}, "categories": {name: {...}}, "skipped": {name: {metric: reason}}}``;
        metrics in [0, 1], or ``None`` if there is a reason, as for all metrics of a category
        without test images.
    """
    protocol = protocol or EvaluationProtocol()
    model.to(model.trainer.strategy.root_device)
    test = datamodule.test
    wanted = metric_names(protocol)
    categories: dict[str, dict[str, float | None]] = {}
    skipped: dict[str, dict[str, str]] = {}
    for name in sorted({*datamodule.train.categories} - {*test.categories}):
        categories[name] = dict.fromkeys(wanted)
        skipped[name] = dict.fromkeys(wanted, "there are no test images")
    if len(test) == 0:
        return {"mean": dict.fromkeys(wanted), "categories": categories, "skipped": skipped}
    images = EncodedImages(
        ImageReader(datamodule.test_dataloader()),
        model.view,
        categories=datamodule.train.categories,
        known=model.stream.images if model.stream is not None else None,
        scoring_batch=model.scoring_batch,
        precision=model.trainer.precision_plugin.forward_context,
    )
    members = group_indices(test.categories)
    layout = images.reader.layout
    rank, world = rank_and_world()
    mine: dict[str, tuple[dict[str, float | None], dict[str, str]]] = {}
    names = track(members, description="evaluation", total=len(members), enabled=progress)
    evaluated = partial(
        evaluate_in_parts,
        model,
        layout=layout,
        size=datamodule.preprocess.input_size,
        protocol=protocol,
    )
    # All ranks score a category together, `world` categories in turn; then each computes the
    # metrics of one of them.
    for some in iter(lambda: list(itertools.islice(names, world)), []):
        own: tuple[Tensor | Callable[[], Iterator[Tensor]], Tensor] | None = None
        for place, name in enumerate(some):
            indices = members[name].tolist()
            items = indices if layout is None else layout.tiles(indices)
            maps, own_scores = _scored(model, images, name, items)
            if place != rank and on_maps is None:
                continue
            found = evaluated(maps, indices)
            scores = found.scores
            if own_scores is not None:
                scores = own_scores if layout is None else layout.highest(own_scores, indices)
            if on_maps is not None:
                on_maps(members[name][found.places], found.kept)
            if place == rank:
                own = found.maps, scores
        if own is not None:
            indices = members[some[rank]].tolist()
            masks, reason = _masks(test, indices, protocol, whole=layout is not None)
            mine[some[rank]] = category_metrics(
                *own,
                masks,
                test.labels[indices],
                protocol=protocol,
                no_masks=reason,
            )
    together = {name: result for found in from_all(mine) for name, result in found.items()}
    categories |= {name: metrics for name, (metrics, _) in together.items()}
    skipped |= {name: reasons for name, (_, reasons) in together.items() if reasons}
    return {
        "mean": mean_metrics(list(categories.values()), wanted),
        "categories": dict(sorted(categories.items())),
        "skipped": dict(sorted(skipped.items())),
    }


def detector_scores_images(model: FittedModel) -> bool:
    """Whether the detector's own ``image_score``, or a rival, makes the image scores."""
    return model.rival is not None or (
        bool(model.plan.stages) and model.view.own("image_score") is not None
    )


def _scored(
    model: FittedModel, images: EncodedImages, name: str, indices: list[int]
) -> tuple[Tensor, Tensor | None]:
    """Return a category's maps ``[n, h, w]``, and image scores ``[n]`` where a rival makes them."""
    if model.plan.stages:
        return anomaly_maps(images, indices, device=model.device), None
    if model.rival is not None:
        return model.rival.score(images, indices, group=name, device=model.device)
    return _memory_maps(model, images, name, indices), None


def _memory_maps(
    model: FittedModel, images: EncodedImages, group: str, indices: list[int]
) -> Tensor:
    """Return the maps ``[n, h, w]`` of test images by their category's memory, on every rank."""
    if model.stream is None or model.memory is None:
        msg = "memory scores need the training images of a fit"
        raise RuntimeError(msg)
    train = model.stream.images
    members = group_indices(train.reader.categories)[group]
    settings = model.memory.settings
    stored = stored_of(
        len(members),
        settings,
        seed=model.seed,
        group=group,
        views=views_of(train.reader, members.tolist()),
        clusters=train.reader.clusters.among(members),
    )
    if stored is not None:  # the others are in no memory
        members = members[stored]
    features, _ = memory_vectors(
        train, members.tolist(), dtype=settings.dtype, device=model.device, together=True
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
        views=views_of(train.reader, members.tolist()),
        clusters=train.reader.clusters.among(members),
    )
    return gather_in_order(scores.view(-1, *grid).cpu())


def _masks(
    test: Any, indices: list[int], protocol: EvaluationProtocol, *, whole: bool
) -> tuple[Tensor | None, str]:
    """Return packed ground truth; or ``None`` and the reason, if any mask is missing.

    That of ``whole`` images is resized at once: the detector's input is only a part of them.
    """
    size = (protocol.resize, protocol.resize) if whole else None
    bits = torch.zeros(len(indices), -(-(protocol.resize**2) // 8), dtype=torch.uint8)
    lacking = []
    for place in torch.nonzero(test.labels[indices]).flatten().tolist():
        mask = test.mask(indices[place], size)
        if mask is None:
            lacking.append(indices[place])
        else:
            bits[place] = packed_masks(evaluation_masks(mask[None], protocol))[0]
    if not lacking:
        return bits, ""
    defective = int(test.labels[indices].sum())
    if len(lacking) == defective:
        return None, "there are no masks"
    first = test.samples[lacking[0]].path
    have = "has" if len(lacking) == 1 else "have"
    return None, f"{len(lacking)} of {defective} defective images {have} no mask, the first {first}"
