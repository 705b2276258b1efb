"""Images as a detector's trainable part sees them, by index; encoded once if they fit."""

from __future__ import annotations

import logging
import time
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from meds_plugin.detectors.inference import evaluating, few_at_a_time
from meds_plugin.detectors.outputs import grid_of
from meds_plugin.distributed.ranks import chunked, from_all, my_chunks
from meds_plugin.encoding.cache.store import FrozenCache
from meds_plugin.encoding.cached_outputs import CachedOutputs
from meds_plugin.encoding.exchange import exchange
from meds_plugin.utils.errors import UserError
from meds_plugin.utils.progress import track
from meds_plugin.utils.values import is_whole

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from contextlib import AbstractContextManager

    from meds_plugin.detectors.view import DetectorView
    from meds_plugin.encoding.cache.store import Kind
    from meds_plugin.encoding.reader import ImageReader

__all__ = ["EncodedImages"]

log = logging.getLogger(__name__)


class EncodedImages:
    """Batches of encoded training images by index.

    A detector's frozen part (``encode``) runs once per image; the results are cached if they fit,
    and from then on no image is read again. Otherwise images are read and encoded each time they
    are needed. Images that change from one reading to the next are not cached: the first batch is
    read twice to find out, unless the data set has an attribute ``augments`` that says so.

    Args:
        reader: Where the images come from.
        view: The detector.
        cache: What is cached and where; default: nothing.
        categories: Names of the training categories; default: those of these images.
        known: Other images, whose results are used for those that are the same.
        scoring_batch: Images scored at once (see `scoring.anomaly_maps`).
        precision: Returns the context in which images are encoded and scored; default: float32.

    Attributes:
        seconds: Time spent in `encode_all`.

    Raises:
        UserError: If ``scoring_batch`` is not a positive whole number, or the images are normalised
            differently from what the detector expects.
    """

    def __init__(
        self,
        reader: ImageReader,
        view: DetectorView,
        *,
        cache: FrozenCache | None = None,
        categories: Iterable[str] | None = None,
        known: EncodedImages | None = None,
        scoring_batch: int | None = None,
        precision: Callable[[], AbstractContextManager[Any]] = nullcontext,
    ) -> None:
        if scoring_batch is not None and not (is_whole(scoring_batch) and scoring_batch >= 1):
            msg = f"scoring_batch must be a whole number, 1 or more, got {scoring_batch!r}"
            raise UserError(msg)
        if reader.normalization not in (None, view.normalization):
            msg = (
                f"the images are normalised by {reader.normalization}, but the detector expects "
                f"{view.normalization}: give AnomalyDataModule(normalization=model.normalization)"
            )
            raise UserError(msg)
        self.scoring_batch = scoring_batch
        self.precision = precision
        self.reader = reader
        self.view = view
        self.cache = cache or FrozenCache()
        names = sorted(set(reader.categories if categories is None else categories))
        places = {name: place for place, name in enumerate(names)}
        self._category = torch.tensor([places.get(name, -1) for name in reader.categories])
        self._outputs: CachedOutputs = CachedOutputs(
            view,
            self.cache,
            len(reader),
            precision=precision,
            known=None if known is None else known._outputs,
        )
        if not view.encodes or view.augments:
            self._outputs.stores["encoded"].disable()
        self._repeatable: bool | None = None if reader.augments is None else not reader.augments
        self._size = (0, 0)
        self.seconds = 0.0

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.reader)

    def encode_all(self, device: torch.device, *, progress: bool = False) -> bool:
        """Encode all images now and cache the results, if there is a frozen part and they fit.

        Call it on every rank: each encodes a share of what is missing, and all cache everything.

        Returns:
            Whether they are cached.
        """
        start = time.perf_counter()
        store = self._outputs.stores["encoded"]
        self._check_repeatable()
        anywhere = set[int]().union(*from_all(store.cached()))
        missing = [index for index in range(len(self)) if index not in anywhere]
        plan = my_chunks(missing, self.reader.batch_size) if store.active else []
        batches = track(
            zip(plan, self.reader.batches(plan), strict=True),
            description="encoding",
            total=len(plan),
            enabled=progress and bool(plan),
        )
        for indices, batch in batches:
            self._outputs.of(("encoded",), indices, self.reader.images(batch), device)
            if not store.active:
                break
        exchange(store, self._encode_again, count=len(self), batch_size=self.reader.batch_size)
        self.seconds += time.perf_counter() - start
        return store.complete()

    def batches(
        self, plan: Sequence[Sequence[int]], *, pinned: bool = False
    ) -> Iterator[dict[str, Tensor]]:
        """Yield a batch for each index list.

        Args:
            plan: Image indices of every batch.
            pinned: See `OutputStore.get`; images are pinned where the user's loader does so.

        Yields:
            ``{"index": [B], "category": [B], "encoded": [B, ...]}``, or ``images`` instead of
            ``encoded`` if nothing is cached; on the CPU. `encoded` turns either into the detector's
            input. ``category`` is the place among the sorted training categories, -1 for others.
        """
        store = self._outputs.stores["encoded"]
        if store.complete():
            for indices in plan:
                encoded = store.get(indices, pinned=pinned)
                encoded = self._encode_again(indices) if encoded is None else encoded
                yield {**self._labels(indices), "encoded": encoded}
            return
        for indices, batch in zip(plan, self.reader.batches(plan), strict=True):
            pixels = self.reader.images(batch)
            if self._outputs.knows_any(pixels):
                encoded = self._outputs.of(("encoded",), indices, pixels)["encoded"]
                yield {**self._labels(indices), "encoded": encoded}
            else:
                yield {**self._labels(indices), "images": pixels}

    def encoded(self, batch: dict[str, Tensor]) -> Tensor:
        """Return the encoded images of a batch, on its device."""
        rounding = self._outputs.rounding("encoded")
        if "encoded" in batch:
            return rounding.restore(batch["encoded"])
        if not self.view.encodes:
            return batch["images"]
        (encoded,) = few_at_a_time(lambda some: (self.view.encode(some),), batch["images"])
        return rounding.restore(rounding.round(encoded))

    def features(
        self, indices: Sequence[int], *, device: torch.device, progress: str | None = None
    ) -> Iterator[tuple[range, Tensor, tuple[int, int]]]:
        """Yield memory features; encodings that `encode_all` needs are made in the same pass.

        Args:
            indices: Which images.
            device: Where the detector is.
            progress: Name of a progress bar; ``None`` shows none.

        Yields:
            Places within ``indices``, features ``[B, P, D]``, and the patch grid (h, w).
        """
        store = self._outputs.stores["features"]
        plan = chunked(indices, self.reader.batch_size)
        cached = store.complete(indices)
        if not cached:
            self._check_repeatable()
        source = plan if cached else self.reader.batches(plan)
        batches = track(source, description=progress, total=len(plan))
        start = 0
        with evaluating(self.view.detector):
            for some, batch in zip(plan, batches, strict=True):
                found = store.get(some) if cached else None
                if found is None:
                    pixels = self.read(some) if cached else self.reader.images(batch)
                    found = self._computed_features(some, pixels, device)
                features = self._outputs.rounding("features").restore(found).to(device)
                grid = grid_of(features, torch.empty(0, 3, *self._size, device="meta"))
                if features.ndim == 4:
                    features = features.flatten(2).mT
                yield range(start, start + len(some)), features, grid
                start += len(some)

    def _computed_features(
        self, indices: Sequence[int], pixels: Tensor, device: torch.device
    ) -> Tensor:
        self._size = (pixels.shape[-2], pixels.shape[-1])
        encoded = self._outputs.stores["encoded"]
        both = encoded.active and not encoded.complete(indices)
        kinds: tuple[Kind, ...] = ("encoded", "features") if both else ("features",)
        return self._outputs.of(kinds, indices, pixels, device)["features"]

    def _encode_again(self, indices: Sequence[int]) -> Tensor:
        """Read images and return their encodings on the CPU, because they are not cached."""
        return self._outputs.of(("encoded",), indices, self.read(indices))["encoded"].cpu()

    def read(self, indices: Sequence[int]) -> Tensor:
        """Return images ``[B, 3, H, W]`` as the data set gives them, on the CPU."""
        (batch,) = self.reader.batches([indices])
        return self.reader.images(batch)

    def close(self, *, remove: bool = False) -> None:
        """Free what is cached; from then on, images are encoded each time.

        Args:
            remove: Remove the folder of the files, too.
        """
        self._outputs.disable()
        if self.cache.folder is not None:
            self.cache.folder.close(remove=remove)

    def _check_repeatable(self) -> None:
        """Cache nothing if images change each time they are read."""
        if not self._outputs.any_active:
            return
        if self._repeatable is None:
            few = range(min(self.reader.batch_size, len(self)))
            self._repeatable = torch.equal(self.read(few), self.read(few))
            if not self._repeatable:
                log.warning("the images change each time they are read and are not cached")
        if not self._repeatable:
            self._outputs.disable()

    def _labels(self, indices: Sequence[int]) -> dict[str, Tensor]:
        index = torch.as_tensor(indices)
        return {"index": index, "category": self._category[index]}
