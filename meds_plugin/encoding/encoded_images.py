"""The training images as a detector's trainable part sees them, encoded once where they fit."""

from __future__ import annotations

import logging
from contextlib import nullcontext
from itertools import chain
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from meds_plugin.detectors.example_images import random_images
from meds_plugin.detectors.modes import evaluating
from meds_plugin.detectors.view import grid_of
from meds_plugin.distributed.ranks import from_all, gather_in_order, my_chunks, rank_and_world
from meds_plugin.encoding.cache.settings import CacheSettings
from meds_plugin.encoding.cache.store import FrozenCache, content_key, output_key
from meds_plugin.encoding.reader import ImageReader, images_of
from meds_plugin.utils.errors import UserError
from meds_plugin.utils.progress import track

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from contextlib import AbstractContextManager

    from meds_plugin.detectors.view import DetectorView
    from meds_plugin.encoding.cache.store import Kept, Kind

__all__ = ["EncodedImages", "chunked"]

log = logging.getLogger(__name__)


class EncodedImages:
    """Batches of encoded training images by index.

    A detector with a frozen part (``encode``) has every image run through it once; the results are
    kept where they fit, and from then on no image is read again. Otherwise images are read and
    encoded each time they are asked for. Nothing is kept of images that change from one reading to
    the next: the first batch is read twice to find out, unless the data set has an attribute
    ``augments`` that says so.

    Args:
        reader: Where the images come from.
        view: The detector.
        limit_gb: Largest size to keep in memory, in GB (10^9 bytes), where no ``cache`` is given.
        cache: What is kept and where; default: encodings in memory.
        categories: Names of the training categories; default: those of these images.
        known: Other images, among which the same ones may be; their results are used.
        scoring_batch: Images scored at once (see `scoring.score_maps`).
        precision: Makes the context that they are encoded and scored in; default: none, float32.

    Raises:
        UserError: If ``scoring_batch`` is no positive number, or the images are known to be
            normalised in another way than the detector wants.
    """

    def __init__(
        self,
        reader: ImageReader,
        view: DetectorView,
        *,
        limit_gb: float = 0.0,
        cache: FrozenCache | None = None,
        categories: Iterable[str] | None = None,
        known: EncodedImages | None = None,
        scoring_batch: int | None = None,
        precision: Callable[[], AbstractContextManager[Any]] = nullcontext,
    ) -> None:
        whole = isinstance(scoring_batch, int) and not isinstance(scoring_batch, bool)
        if scoring_batch is not None and not (whole and scoring_batch >= 1):
            msg = f"scoring_batch must be a whole number, 1 or more, got {scoring_batch!r}"
            raise UserError(msg)
        if reader.normalization not in (None, view.normalization):
            msg = (
                f"the images are prepared by {reader.normalization}, but the detector wants "
                f"{view.normalization}: give AnomalyDataModule(normalization=model.normalization)"
            )
            raise UserError(msg)
        self.scoring_batch = scoring_batch
        self.precision = precision
        self.reader = reader
        self.view = view
        self.cache = cache or FrozenCache(CacheSettings(gb=limit_gb))
        names = sorted(set(reader.categories if categories is None else categories))
        places = {name: place for place, name in enumerate(names)}
        self._category = torch.tensor([places.get(name, -1) for name in reader.categories])
        self._known = known
        self._kept: dict[Kind, Kept] = {
            "encoded": self.cache.make("encoded", len(reader)),
            "features": self.cache.make("features", len(reader)),
        }
        if not view.encodes or view.augments:
            self._kept["encoded"].turn_off()
        self._steady: bool | None = None if reader.augments is None else not reader.augments
        self._size = (0, 0)

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.reader)

    def keep(self, device: torch.device, *, progress: bool = False) -> bool:
        """Encode all images now and keep the results, if there is a frozen part and they fit.

        Call it on every rank: each encodes a share of what none has, and all keep all.

        Returns:
            Whether they are kept.
        """
        kept = self._kept["encoded"]
        self._check_steady()
        anywhere = set[int]().union(*from_all(kept.there()))
        lacking = [index for index in range(len(self)) if index not in anywhere]
        plan = my_chunks(lacking, self.reader.batch_size) if kept.wanted else []
        batches = track(
            zip(plan, self.reader.batches(plan), strict=True),
            description="encoding",
            total=len(plan),
            enabled=progress and bool(plan),
        )
        for indices, batch in batches:
            pixels = images_of(batch)
            self._outputs(("encoded",), indices, pixels, self._keys(pixels), device)
            if not kept.wanted:
                break
        self._exchange(kept, device)
        return kept.complete()

    def batches(self, plan: Sequence[Sequence[int]]) -> Iterator[dict[str, Tensor]]:
        """Yield a batch for each index list.

        Yields:
            ``{"index": [B], "category": [B], "encoded": [B, ...]}``, or ``images`` in place of
            ``encoded`` where nothing is kept; on the CPU. `encoded` turns either into what the
            detector takes. ``category`` is the place among the sorted training categories, -1 for
            one that is not among them.
        """
        kept = self._kept["encoded"]
        if kept.complete():
            for indices in plan:
                encoded = kept.get(indices)
                yield {
                    **self._named(indices),
                    "encoded": self._again(indices) if encoded is None else encoded,
                }
            return
        for indices, batch in zip(plan, self.reader.batches(plan), strict=True):
            pixels = images_of(batch)
            if self._known is not None and self._known._kept["encoded"].wanted:
                keys = self._keys(pixels)
                if any(self._find("encoded", key) is not None for key in keys):
                    outputs = self._outputs(("encoded",), indices, pixels, keys, self._device())
                    yield {**self._named(indices), "encoded": outputs["encoded"]}
                    continue
            yield {**self._named(indices), "images": pixels}

    def encoded(self, batch: dict[str, Tensor]) -> Tensor:
        """Return the encoded images of a batch on the device the batch lies on."""
        kept = self._keeper("encoded")
        if "encoded" in batch:
            return kept.restore(batch["encoded"])
        return kept.restore(kept.settle(self.view.encode(batch["images"])))

    def features(
        self, indices: Sequence[int], *, device: torch.device, progress: str | None = None
    ) -> Iterator[tuple[range, Tensor, tuple[int, int]]]:
        """Yield memory features; what `keep` would encode later is encoded in the same pass.

        Args:
            indices: Which images.
            device: Where the detector is.
            progress: Name for a progress bar; ``None`` shows none.

        Yields:
            Places among the indices, features ``[B, P, D]``, and the patch grid (h, w).
        """
        plan = chunked(indices, self.reader.batch_size)
        there = self._kept["features"].complete(indices)
        if not there:
            self._check_steady()
        batches = track(
            plan if there else self.reader.batches(plan),
            description=progress or "",
            total=len(plan),
            enabled=progress is not None,
        )
        start = 0
        with evaluating(self.view.detector):
            for some, batch in zip(plan, batches, strict=True):
                found = self._kept["features"].get(some) if there else None
                if found is None:
                    pixels = images_of(self._read(some) if there else batch)
                    found = self._features_of(some, pixels, device)
                features = self._keeper("features").restore(found).to(device)
                grid = grid_of(features, torch.empty(0, 3, *self._size, device="meta"))
                if features.ndim == 4:
                    features = features.flatten(2).mT
                yield range(start, start + len(some)), features, grid
                start += len(some)

    def _exchange(self, kept: Kept, device: torch.device) -> None:
        """Give every rank what others have encoded."""
        rank, world = rank_and_world()
        there = [set(each) for each in from_all(kept.there())]
        everywhere, anywhere = set.intersection(*there), set.union(*there)
        if world == 1 or everywhere == anywhere:
            return
        if not there[rank] and kept.wanted:  # it has not seen any result: how large are they?
            few = chunked(range(len(self)), self.reader.batch_size)[0]
            pixels = images_of(self._read(few))
            self._outputs(("encoded",), few, pixels, self._keys(pixels), device)
        givers = {index: min(r for r in range(world) if index in there[r]) for index in anywhere}
        for giver in range(world):
            given = sorted(i for i in anywhere - everywhere if givers[i] == giver)
            for some in chunked(given, self.reader.batch_size):
                own = kept.get(some) if rank == giver else None
                if rank == giver and own is None:
                    own = self._again(some)
                values, keys = gather_in_order(own), from_all(kept.keys(some))[giver]
                if rank != giver and kept.wanted:
                    kept.put(some, keys, values)

    def _features_of(self, indices: Sequence[int], pixels: Tensor, device: torch.device) -> Tensor:
        """Return features, not restored, and keep what is to be kept."""
        self._size = (pixels.shape[-2], pixels.shape[-1])
        encodes = self._kept["encoded"].wanted and not self._kept["encoded"].complete(indices)
        kinds: tuple[Kind, ...] = ("encoded", "features") if encodes else ("features",)
        keeps = any(self._keeper(kind).wanted for kind in kinds)
        keys = self._keys(pixels) if keeps else [""] * len(pixels)
        return self._outputs(kinds, indices, pixels, keys, device)["features"]

    def _outputs(
        self,
        kinds: Sequence[Kind],
        indices: Sequence[int],
        pixels: Tensor,
        keys: Sequence[str],
        device: torch.device,
    ) -> dict[Kind, Tensor]:
        """Return outputs of some images, found or made, not restored; keep what is to be kept."""
        for kind in kinds:
            if self._kept[kind].looks_first:
                self._decide(kind, None, pixels, device)
        found = {kind: [self._find(kind, key) for key in keys] for kind in kinds}
        lacking = [
            place
            for place in range(len(keys))
            if any(values[place] is None for values in found.values())
        ]
        made: dict[Kind, Tensor] = {}
        if lacking:
            some = pixels if len(lacking) == len(pixels) else pixels[lacking]
            made = self._run(kinds, some.to(device))
            for kind, values in made.items():
                # The first images of all tell how large results are.
                self._decide(kind, values, pixels, device)
                made[kind] = self._keeper(kind).settle(values)
        outputs: dict[Kind, Tensor] = {}
        for kind in kinds:
            if len(lacking) == len(keys):
                outputs[kind] = made[kind]
            else:
                fresh = dict(zip(lacking, made[kind].cpu() if lacking else (), strict=True))
                each = [fresh.get(place, found[kind][place]) for place in range(len(keys))]
                outputs[kind] = torch.stack([value for value in each if value is not None])
            if self._kept[kind].wanted:
                self._kept[kind].put(indices, keys, outputs[kind])
        return outputs

    def _run(self, kinds: Sequence[Kind], images: Tensor) -> dict[Kind, Tensor]:
        with evaluating(self.view.detector), self.precision():
            if len(kinds) == 2:
                encoded, features = self.view.encode_and_features(images)
                return {"encoded": encoded, "features": features}
            one = self.view.encode if kinds[0] == "encoded" else self.view.features
            return {kinds[0]: one(images)}

    def _decide(
        self, kind: Kind, values: Tensor | None, pixels: Tensor, device: torch.device
    ) -> None:
        """Decide where to keep results: by the first ones, or by those of two fixed images."""

        def run() -> Tensor:
            fixed = random_images(pixels.shape[-2], pixels.shape[-1], device)
            return self._run((kind,), fixed.to(pixels.dtype))[kind]

        example = run() if values is None else None
        settings, weights = self.cache.settings, self.cache.weights

        def space() -> str:
            fixed = run() if example is None else example
            return output_key(kind, settings, weights(), fixed)

        shown = values if example is None else example
        if shown is not None:
            self._kept[kind].decide(shown, space)

    def _keeper(self, kind: Kind) -> Kept:
        """Return what says how results are rounded."""
        return self._kept[kind] if self._known is None else self._known._kept[kind]

    def _find(self, kind: Kind, key: str) -> Tensor | None:
        return self._keeper(kind).find(key) if key else None

    def _keys(self, pixels: Tensor) -> list[str]:
        return [content_key(image) for image in pixels]

    def _read(self, indices: Sequence[int]) -> Any:
        (batch,) = self.reader.batches([indices])
        return batch

    def _again(self, indices: Sequence[int]) -> Tensor:
        """Return results of which some have been lost since they were kept."""
        pixels = images_of(self._read(indices))
        keys = self._keys(pixels)
        return self._outputs(("encoded",), indices, pixels, keys, self._device())["encoded"].cpu()

    def _device(self) -> torch.device:
        detector = self.view.detector
        tensors = chain(detector.parameters(), detector.buffers())
        return next((tensor.device for tensor in tensors), torch.device("cpu"))

    def _check_steady(self) -> None:
        """Keep nothing of images that are others each time they are read."""
        if not any(kept.wanted for kept in self._kept.values()):
            return
        if self._steady is None:
            few = chunked(range(len(self)), self.reader.batch_size)[0]
            first, second = (self._keys(images_of(self._read(few))) for _ in range(2))
            self._steady = first == second
            if not self._steady:
                log.warning("the images change each time they are read: no encoding is kept")
        if not self._steady:
            for kept in self._kept.values():
                kept.turn_off()

    def _named(self, indices: Sequence[int]) -> dict[str, Tensor]:
        index = torch.as_tensor(indices)
        return {"index": index, "category": self._category[index]}


def chunked(indices: Sequence[int] | Any, size: int) -> list[list[int]]:
    """Cut indices into lists of at most ``size``, in order."""
    every = [int(index) for index in indices]
    return [every[start : start + size] for start in range(0, len(every), size)]
