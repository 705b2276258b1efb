"""What Lightning's test, validation and prediction loops do with a detector."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any, NamedTuple

import lightning as L
import torch
from torch import Tensor

from meds_plugin.distributed.ranks import gather_in_order, rank_and_world
from meds_plugin.encoding.reader import images_of
from meds_plugin.evaluation.categories import category_metrics, mean_metrics, metric_names
from meds_plugin.evaluation.evaluated_maps import evaluate_in_parts
from meds_plugin.evaluation.protocol import EvaluationProtocol, evaluation_masks, packed_masks
from meds_plugin.evaluation.scoring import evaluate_maps
from meds_plugin.utils.errors import UserError
from meds_plugin.utils.groups import group_indices

if TYPE_CHECKING:
    from torch import nn

    from meds_plugin.callbacks.rival import RivalCallback
    from meds_plugin.detectors.view import DetectorView
    from meds_plugin.training.stages import StagePlan

__all__ = ["EvaluationSteps"]

_ANY = "all"  # the category of images that have none


class _Seen(NamedTuple):
    """Images of a batch, or tiles; on the CPU."""

    places: Tensor  # [B] in the data set
    maps: Tensor  # [B, h, w], the detector's: evaluated ones take far more room
    labels: Tensor  # bool [B], true = defective
    masks: Tensor  # bool [B, R, R], packed
    has_mask: Tensor  # bool [B]


class EvaluationSteps(L.LightningModule):
    """The steps of ``trainer.validate``, ``trainer.test`` and ``trainer.predict``.

    Batches are those of an `AnomalyDataModule`, or of any loader that gives dictionaries
    (``image``, ``label`` and, if there are some, ``mask``) or tuples in that order. A label is 1
    for a defect; masks are ``[B, H, W]`` or ``[B, 1, H, W]`` in [0, 1]. Several ranks see padded
    parts of a data set, each image of which still counts once.

    Attributes:
        protocol: How maps become scores; a run's is set by its configuration.
        categories: The sorted training categories, as far as they are known.
    """

    view: DetectorView
    detector: nn.Module
    plan: StagePlan
    rival: RivalCallback | None

    def __init__(self) -> None:
        super().__init__()
        # Whoever has no validation images needs no word about it.
        warnings.filterwarnings("ignore", message="You defined a `validation_step` but have no")
        self.protocol = EvaluationProtocol()
        self.categories: list[str] = []
        self._seen: list[_Seen] = []
        self._size = (0, 0)

    def predict_step(self, batch: Any, batch_idx: int = 0) -> dict[str, Tensor]:
        """Return ``maps [B, R, R]`` and ``scores [B]``, higher = more anomalous.

        Of tiles: the detector's maps ``[B, h, w]``, for `TileLayout.stitch`, and their scores.
        """
        del batch_idx
        dataset = _dataset(self.trainer.predict_dataloaders)
        maps = self._maps(batch, dataset)
        if hasattr(dataset, "layout"):
            scores = self.view.image_score(maps, top=self.protocol.image_top)
        else:
            maps, scores = evaluate_maps(self.view, maps, self._size, self.protocol)
        return {"maps": maps, "scores": scores}

    def test_step(self, batch: Any, batch_idx: int) -> None:
        """Score a batch for `on_test_epoch_end`."""
        del batch_idx
        self._look_at(batch, _dataset(self.trainer.test_dataloaders))

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        """Score a batch for `on_validation_epoch_end`."""
        del batch_idx
        self._look_at(batch, _dataset(self.trainer.val_dataloaders))

    def on_test_epoch_end(self) -> None:
        """Log the metrics, means by their names and ``CATEGORY/NAME``."""
        self._log_metrics(_dataset(self.trainer.test_dataloaders), "")

    def on_validation_epoch_end(self) -> None:
        """Log the same as in a test, after ``val/``."""
        self._log_metrics(_dataset(self.trainer.val_dataloaders), "val/")

    @torch.no_grad()
    def _maps(self, batch: Any, dataset: Any) -> Tensor:
        """Return the detector's maps of a batch."""
        if not self.plan.stages:
            msg = (
                "this method trains no detector, so a step has nothing to run: use "
                "evaluate(model, datamodule)"
            )
            raise UserError(msg)
        images = images_of(batch)
        places = {name: place for place, name in enumerate(self.categories)}
        index = _indices(batch)
        category = None
        if index is not None and hasattr(dataset, "categories"):
            own = [places.get(dataset.categories[i], -1) for i in index.tolist()]
            category = torch.tensor(own, device=self.device)
        self._size = (images.shape[-2], images.shape[-1])
        maps: Tensor = self(images, category)
        return maps.float()

    def _look_at(self, batch: Any, dataset: Any) -> None:
        maps = self._maps(batch, dataset).cpu()
        count = len(maps)
        index = _indices(batch)
        if index is not None and hasattr(dataset, "layout"):
            none = torch.zeros(count, dtype=torch.bool)  # images come once their tiles are there
            self._seen.append(_Seen(index, maps, none, torch.zeros(count), none))
            return
        if index is not None and hasattr(dataset, "mask"):
            labels = dataset.labels[index]
            found = [dataset.mask(place) for place in index.tolist()]
        else:
            labels, found = _truth(batch, count)
            # As Lightning's sampler deals a data set out, and begins anew where it runs short.
            rank, world = rank_and_world()
            before = sum(len(seen.places) for seen in self._seen)
            index = (torch.arange(count) + before) * world + rank
            if hasattr(dataset, "__len__"):
                index %= len(dataset)
        known = torch.tensor([mask is not None for mask in found])
        masks = torch.zeros(count, self.protocol.resize, self.protocol.resize, dtype=torch.bool)
        if bool(known.any()):
            some = torch.stack([mask for mask in found if mask is not None])
            masks[known] = evaluation_masks(some, self.protocol)
        self._seen.append(_Seen(index, maps, labels, packed_masks(masks), known))

    def _log_metrics(self, dataset: Any, prefix: str) -> None:
        parts, self._seen = self._seen, []
        own: list[Tensor | None] = [torch.cat(part) for part in zip(*parts, strict=True)]
        seen = _Seen(*map(gather_in_order, own or [None] * len(_Seen._fields)))
        # Ranks see the same number of images: some come twice.
        order = {int(place): row for row, place in enumerate(seen.places)}
        rows = torch.tensor([order[place] for place in sorted(order)])
        seen = _Seen(*(part[rows] for part in seen))
        layout = getattr(dataset, "layout", None)
        if layout is not None:
            seen, dataset = self._whole(seen, dataset), dataset.whole
        owners = [_ANY] * len(seen.places)
        if hasattr(dataset, "categories") and hasattr(dataset, "mask"):
            owners = [dataset.categories[place] for place in seen.places.tolist()]
        categories: dict[str, dict[str, float | None]] = {}
        for name, members in group_indices(owners).items():
            images = members.tolist()
            found = evaluate_in_parts(
                self,
                seen.maps[images if layout is None else layout.tiles(images)],
                images,
                layout=layout,
                size=self._size,
                protocol=self.protocol,
            )
            categories[name], _ = category_metrics(
                found.maps,
                found.scores,
                seen.masks[members] if bool(seen.has_mask[members].all()) else None,
                seen.labels[members],
                protocol=self.protocol,
                no_masks="",
            )
        names = metric_names(self.protocol)
        values = mean_metrics(list(categories.values()), names)
        for name, metrics in categories.items() if len(categories) > 1 else ():
            values |= {f"{name}/{metric}": metrics[metric] for metric in names}
        known = {f"{prefix}{name}": value for name, value in values.items() if value is not None}
        self.log_dict(known, sync_dist=True)

    def _whole(self, seen: _Seen, dataset: Any) -> _Seen:
        """Return the images whose tiles were seen, with the maps of these."""
        layout, side = dataset.layout, self.protocol.resize
        if len(seen.places) < len(layout):
            msg = (
                f"only {len(seen.places)} of {len(layout)} tiles were seen: maps of whole images "
                "need all of them, so leave out limit_test_batches and the like"
            )
            raise UserError(msg)
        images = range(len(layout.sizes))
        known, masks = torch.ones(len(images), dtype=torch.bool), []
        for image in images:
            found = dataset.whole.mask(image, (side, side))
            known[image] = found is not None
            mask = torch.zeros(side, side) if found is None else found
            masks.append(packed_masks(evaluation_masks(mask[None], self.protocol)))
        places, labels = torch.arange(len(images)), dataset.whole.labels
        return _Seen(places, seen.maps, labels, torch.cat(masks), known)


def _dataset(loaders: Any) -> Any:
    """Return the data set of a loop's loader."""
    first = loaders[0] if isinstance(loaders, list) else loaders
    return getattr(first, "dataset", None)


def _indices(batch: Any) -> Tensor | None:
    found = batch.get("index") if isinstance(batch, dict) else None
    return found.cpu() if isinstance(found, Tensor) else None


def _truth(batch: Any, count: int) -> tuple[Tensor, list[Tensor | None]]:
    """Return labels and masks of a batch of somebody's own loader.

    Raises:
        UserError: If there are no labels.
    """
    if isinstance(batch, dict):
        labels, masks = batch.get("label"), batch.get("mask")
    else:
        rest = [*batch[1:3], None, None] if isinstance(batch, (tuple, list)) else [None, None]
        labels, masks = rest[0], rest[1]
    if labels is None:
        msg = "a test batch needs labels: (image, label, mask), or a dictionary with these keys"
        raise UserError(msg)
    found: list[Tensor | None] = [None] * count
    if masks is not None:
        found = list(masks.reshape(count, *masks.shape[-2:]).float().cpu())
    return torch.as_tensor(labels).reshape(count).cpu() > 0, found
