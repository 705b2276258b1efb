from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch
from torch import Tensor, nn

from meds_plugin.detectors.view import DetectorView
from meds_plugin.encoding.cache.settings import CacheSettings
from meds_plugin.encoding.cache.store import FrozenCache
from meds_plugin.encoding.encoded_images import EncodedImages
from meds_plugin.encoding.memory_features import memory_vectors
from meds_plugin.encoding.reader import ImageReader
from meds_plugin.memory import patch_vectors
from meds_plugin.memory.ensemble import ensemble_scores
from meds_plugin.memory.settings import MemorySettings
from meds_plugin.utils.errors import UserError
from tests.toys import FullDetector, ToyImages, loader

if TYPE_CHECKING:
    from pathlib import Path

CPU = torch.device("cpu")
FLOAT = torch.float32


def make_images(detector: nn.Module, settings: CacheSettings | None = None) -> EncodedImages:
    settings = settings or CacheSettings(gb=0)
    cache = FrozenCache.open(settings, ("encoded",), str)
    return EncodedImages(
        ImageReader(loader(20)), DetectorView(detector, nn.Identity()), cache=cache
    )


@pytest.mark.parametrize("settings", [MemorySettings(), MemorySettings(unit="patch")])
def test_vectors_in_a_file_score_like_those_in_memory(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, settings: MemorySettings
) -> None:
    detector = FullDetector()
    indices = list(range(0, 20, 2))
    scores: list[Tensor] = []
    for cache in (None, CacheSettings(gb=1e-9, dir=str(tmp_path), shared=False)):
        vectors, grid = memory_vectors(
            make_images(detector, cache), indices, dtype=FLOAT, device=CPU
        )
        assert grid == (4, 4)
        assert len(list(vectors.pieces(range(10)))) == (1 if cache is None else 5)
        scores.append(ensemble_scores(vectors, settings, seed=0, group="a"))
        monkeypatch.setattr(patch_vectors, "_FETCHED_BYTES", 2 * 16 * 11 * 4)
    torch.testing.assert_close(scores[1], scores[0], atol=1e-6, rtol=0)
    assert not list(tmp_path.glob("*.tmp"))
    expected = ensemble_scores(
        detector.features(ToyImages().images[indices]), settings, seed=0, group="a"
    )
    torch.testing.assert_close(scores[0], expected, atol=1e-6, rtol=0)


def test_vectors_have_the_type_of_the_products() -> None:
    images = make_images(FullDetector())
    vectors, _ = memory_vectors(images, [1, 2, 3], dtype=torch.bfloat16, device=CPU)
    assert vectors.data.dtype == torch.bfloat16
    assert vectors.data.shape == (3, 16, 8 + 3)


def test_features_on_a_grid_are_laid_out_row_by_row() -> None:
    class OnGrid(FullDetector):
        def features(self, images: Tensor) -> Tensor:
            return torch.tanh(self.encoder(images))

    detector = OnGrid()
    vectors, grid = memory_vectors(make_images(detector), [4, 5], dtype=FLOAT, device=CPU)
    expected = FullDetector.features(detector, ToyImages().images[[4, 5]])
    expected = expected / expected.norm(dim=-1, keepdim=True)
    assert grid == (4, 4)
    torch.testing.assert_close(vectors.data[..., :8], expected)


def test_no_images_and_no_room_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no images"):
        memory_vectors(make_images(FullDetector()), [], dtype=FLOAT, device=CPU)
    settings = CacheSettings(gb=1e-9, dir=str(tmp_path), shared=False)
    folder = FrozenCache.open(settings, ("encoded",), str).folder
    assert folder is not None
    with pytest.raises(UserError, match=r"no room for .* GB"), folder.scratch(1 << 60):
        pass
