"""Outputs of a detector's frozen part: taken from the cache, or computed and cached."""

from __future__ import annotations

from functools import cache
from itertools import chain
from typing import TYPE_CHECKING

import torch

from meds_plugin.detectors.example_images import random_images
from meds_plugin.detectors.inference import evaluating, few_at_a_time
from meds_plugin.encoding.cache.store import content_key, output_key

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from contextlib import AbstractContextManager
    from typing import Any

    from torch import Tensor

    from meds_plugin.detectors.view import DetectorView
    from meds_plugin.encoding.cache.store import FrozenCache, Kind, OutputStore

__all__ = ["CachedOutputs"]


class CachedOutputs:
    """Encodings and memory features of N images.

    Args:
        view: The detector.
        cache: What is cached and where.
        count: N.
        precision: Returns the context in which outputs are computed.
        known: Cached outputs of other images, some of which may be the same.

    Attributes:
        stores: Where each kind of output is cached.
    """

    def __init__(
        self,
        view: DetectorView,
        cache: FrozenCache,
        count: int,
        *,
        precision: Callable[[], AbstractContextManager[Any]],
        known: CachedOutputs | None = None,
    ) -> None:
        self.stores: dict[Kind, OutputStore] = {
            "encoded": cache.make("encoded", count),
            "features": cache.make("features", count),
        }
        self._view = view
        self._cache = cache
        self._precision = precision
        self._known = known

    @property
    def any_active(self) -> bool:
        """Whether anything is cached, or may be once its size is known."""
        return any(store.active for store in self.stores.values())

    def disable(self) -> None:
        """Cache nothing: the outputs of an image vary."""
        for store in self.stores.values():
            store.disable()

    def rounding(self, kind: Kind) -> OutputStore:
        """Return the store that decides how outputs are rounded: the known images', if any."""
        return self.stores[kind] if self._known is None else self._known.stores[kind]

    def knows_any(self, pixels: Tensor) -> bool:
        """Whether one of these images is among the known ones and its encoding is cached."""
        if self._known is None or not self._known.stores["encoded"].active:
            return False
        return any(self._find("encoded", content_key(image)) is not None for image in pixels)

    def of(
        self,
        kinds: Sequence[Kind],
        indices: Sequence[int],
        pixels: Tensor,
        device: torch.device | None = None,
    ) -> dict[Kind, Tensor]:
        """Return outputs of some images as they are cached (see `OutputStore.restore`).

        Args:
            kinds: Which outputs.
            indices: The images' places among the N.
            pixels: ``[B, 3, H, W]``, the images.
            device: Where the detector is; default: the device of its weights.

        Returns:
            ``[B, ...]`` for each kind.
        """
        device = device or self._device()
        caches = any(self.rounding(kind).active for kind in kinds)
        keys = [content_key(image) if caches else "" for image in pixels]
        for kind in kinds:
            if self.stores[kind].may_be_shared:
                self._place(kind, None, pixels, device)
        found = {kind: [self._find(kind, key) for key in keys] for kind in kinds}
        missing = [
            place
            for place in range(len(keys))
            if any(values[place] is None for values in found.values())
        ]
        outputs: dict[Kind, Tensor] = {}
        if missing:
            some = pixels if len(missing) == len(pixels) else pixels[missing]
            outputs = self._run(kinds, some.to(device))
            for kind, values in outputs.items():
                # The very first outputs show how much room all will take.
                self._place(kind, values, pixels, device)
                outputs[kind] = self.rounding(kind).round(values)
        for kind in kinds:
            if len(missing) < len(keys):
                fresh = dict(zip(missing, outputs[kind].cpu() if missing else (), strict=True))
                each = [fresh.get(place, found[kind][place]) for place in range(len(keys))]
                outputs[kind] = torch.stack([value for value in each if value is not None])
            if self.stores[kind].active:
                self.stores[kind].put(indices, keys, outputs[kind])
        return outputs

    def _run(self, kinds: Sequence[Kind], images: Tensor) -> dict[Kind, Tensor]:
        with evaluating(self._view.detector), self._precision():
            if len(kinds) == 2:
                encoded, features = few_at_a_time(self._view.encode_and_features, images)
                return {"encoded": encoded, "features": features}
            one = self._view.encode if kinds[0] == "encoded" else self._view.features
            return {kinds[0]: few_at_a_time(lambda some: (one(some),), images)[0]}

    def _place(
        self, kind: Kind, values: Tensor | None, pixels: Tensor, device: torch.device
    ) -> None:
        """Decide where to cache outputs, by the first ones or by those of two fixed images."""

        @cache
        def of_fixed_images() -> Tensor:
            fixed = random_images(pixels.shape[-2], pixels.shape[-1], device)
            return self._run((kind,), fixed.to(pixels.dtype))[kind]

        def name() -> str:
            settings, weights = self._cache.settings, self._cache.weights()
            return output_key(kind, settings, weights, of_fixed_images())

        self.stores[kind].place(of_fixed_images() if values is None else values, name)

    def _find(self, kind: Kind, key: str) -> Tensor | None:
        return self.rounding(kind).find(key) if key else None

    def _device(self) -> torch.device:
        detector = self._view.detector
        tensors = chain(detector.parameters(), detector.buffers())
        return next((tensor.device for tensor in tensors), torch.device("cpu"))
