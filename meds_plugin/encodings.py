"""The training images as a detector's trainable part sees them, encoded once where they fit."""

from __future__ import annotations

from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from meds_plugin.errors import UserError
from meds_plugin.progress import track
from meds_plugin.reader import ImageReader, images_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from contextlib import AbstractContextManager

    from meds_plugin.detector import DetectorView

__all__ = ["EncodedImages", "chunked"]


class EncodedImages:
    """Batches of encoded training images by index.

    A detector with a frozen part (``encode``) has every image run through it once; the float32
    results are kept in memory when they fit the limit, and from then on no image is read again.
    Otherwise images are read and encoded each time they are asked for.

    Args:
        reader: Where the images come from.
        view: The detector.
        limit_gb: Largest size to keep, in GB (10^9 bytes); 0 keeps nothing.
        categories: Names of the training categories; default: those of these images.
        scoring_batch: Images scored at once (see `scoring.score_maps`).
        precision: Makes the context that they are scored in; default: none, float32.

    Raises:
        UserError: If that is no positive number.
    """

    def __init__(
        self,
        reader: ImageReader,
        view: DetectorView,
        *,
        limit_gb: float,
        categories: Iterable[str] | None = None,
        scoring_batch: int | None = None,
        precision: Callable[[], AbstractContextManager[Any]] = nullcontext,
    ) -> None:
        if scoring_batch is not None and (not isinstance(scoring_batch, int) or scoring_batch < 1):
            msg = f"scoring_batch must be a whole number, 1 or more, got {scoring_batch!r}"
            raise UserError(msg)
        self.scoring_batch = scoring_batch
        self.precision = precision
        self.reader = reader
        self.view = view
        known = sorted(set(reader.categories if categories is None else categories))
        places = {name: place for place, name in enumerate(known)}
        self._category = torch.tensor([places.get(name, -1) for name in reader.categories])
        self._limit = limit_gb * 1e9
        self._kept: Tensor | None = None

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.reader)

    def keep(self, device: torch.device, *, progress: bool = False) -> bool:
        """Encode all images now and keep the results, if there is a frozen part and they fit.

        Returns:
            Whether they are kept.
        """
        if self._kept is not None or not self.view.encodes or self._limit <= 0:
            return self._kept is not None
        plan = chunked(range(len(self)), self.reader.batch_size)
        batches = track(
            zip(plan, self.reader.batches(plan), strict=True),
            description="encoding",
            total=len(plan),
            enabled=progress,
        )
        kept: Tensor | None = None
        for indices, batch in batches:
            encoded = self.view.encode(images_of(batch).to(device)).cpu()
            if kept is None:
                if encoded[0].nbytes * len(self) > self._limit:
                    return False
                kept = torch.empty(len(self), *encoded.shape[1:], dtype=encoded.dtype)
            kept[indices[0] : indices[-1] + 1] = encoded
        self._kept = kept
        return True

    def batches(self, plan: Sequence[Sequence[int]]) -> Iterator[dict[str, Tensor]]:
        """Yield a batch for each index list.

        Yields:
            ``{"index": [B], "category": [B], "encoded": [B, ...]}``, or ``images`` in place of
            ``encoded`` where nothing is kept; on the CPU. `encoded` turns either into what the
            detector takes. ``category`` is the place among the sorted training categories, -1 for
            one that is not among them.
        """
        if self._kept is not None:
            for indices in plan:
                index = torch.as_tensor(indices)
                yield {**self._named(index), "encoded": self._kept[index]}
            return
        for indices, batch in zip(plan, self.reader.batches(plan), strict=True):
            yield {**self._named(torch.as_tensor(indices)), "images": images_of(batch)}

    def encoded(self, batch: dict[str, Tensor]) -> Tensor:
        """Return the encoded images of a batch on the device the batch lies on."""
        return batch["encoded"] if "encoded" in batch else self.view.encode(batch["images"])

    def _named(self, index: Tensor) -> dict[str, Tensor]:
        return {"index": index, "category": self._category[index]}


def chunked(indices: Sequence[int] | Any, size: int) -> list[list[int]]:
    """Cut indices into lists of at most ``size``, in order."""
    every = [int(index) for index in indices]
    return [every[start : start + size] for start in range(0, len(every), size)]
