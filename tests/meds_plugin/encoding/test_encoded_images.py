from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from meds_plugin.detectors.view import DetectorView
from meds_plugin.encoders.normalization import IMAGENET, Normalization
from meds_plugin.encoding.cache.folder import CacheFolder
from meds_plugin.encoding.cache.settings import CacheSettings
from meds_plugin.encoding.cache.store import FrozenCache, Kind, content_key
from meds_plugin.encoding.encoded_images import EncodedImages
from meds_plugin.encoding.reader import ImageReader
from meds_plugin.utils.errors import UserError
from tests.toys import SIZE, BareDetector, FullDetector, ToyImages, loader, quiet_trainer, wrap

if TYPE_CHECKING:
    from pathlib import Path

    from meds_plugin.wrapper import MeDSWrapper

CPU = torch.device("cpu")
ONE = 8 * 4 * 4 * 4  # bytes that `FullDetector` makes of an image


class JointDetector(FullDetector):
    """Gives encoding and features in one pass."""

    def __init__(self) -> None:
        super().__init__()
        self.passes = 0

    def encode(self, images: Tensor) -> Tensor:
        self.passes += len(images)
        return super().encode(images)

    def features(self, images: Tensor) -> Tensor:
        self.passes += len(images)
        return super().features(images)

    def encode_and_features(self, images: Tensor) -> tuple[Tensor, Tensor]:
        self.passes += len(images)
        encoded = torch.tanh(self.encoder(images))
        return encoded, encoded.flatten(2).transpose(1, 2)


class AugmentedImages(ToyImages):
    """Images that are turned at random."""

    def __getitem__(self, index: int) -> Tensor:
        return self.images[index] + torch.rand(())


def files_in(path: Path) -> CacheSettings:
    """Nothing fits into memory."""
    return CacheSettings(gb=1e-9, dir=str(path), shared=False)


def images_with(
    settings: CacheSettings, detector: nn.Module | None = None, *kinds: Kind, count: int = 10
) -> EncodedImages:
    torch.manual_seed(5)
    detector = detector or FullDetector()
    cache = FrozenCache.open(settings, kinds or ("encoded",), lambda: "weights")
    return EncodedImages(
        ImageReader(loader(count)), DetectorView(detector, nn.Identity()), cache=cache
    )


def detector_of(images: EncodedImages) -> FullDetector:
    detector = images.view.detector
    assert isinstance(detector, FullDetector)
    return detector


def all_encoded(images: EncodedImages) -> Tensor:
    plan = [[3, 1], [9, 0, 2], [4, 5, 6, 7, 8]]
    batches = list(images.batches(plan))
    values = torch.cat([images.encoded(batch) for batch in batches])
    order = torch.cat([batch["index"] for batch in batches])
    return values[order.argsort()]


def test_files_hold_what_memory_would(tmp_path: Path) -> None:
    plain, filed = (images_with(s) for s in (CacheSettings(), files_in(tmp_path)))
    for images in (plain, filed):
        assert images.encode_all(CPU)
    assert torch.equal(all_encoded(plain), all_encoded(filed))
    assert detector_of(plain).encoded == 10
    # Two fixed images more, whose encoding is part of the files' name.
    assert detector_of(filed).encoded == 12
    assert len(list(tmp_path.glob("*/*.tensor"))) == 10


def test_another_process_finds_the_files(tmp_path: Path) -> None:
    settings = CacheSettings(dir=str(tmp_path))
    first = images_with(settings)
    first.encode_all(CPU)
    expected = all_encoded(first)
    second = images_with(settings)
    assert second.encode_all(CPU)
    assert torch.equal(all_encoded(second), expected)
    assert detector_of(second).encoded == 2
    torch.manual_seed(6)
    other = images_with(settings, FullDetector().requires_grad_(requires_grad=False))
    assert other.encode_all(CPU)  # other weights: nothing is found
    assert detector_of(other).encoded == 12


def test_a_damaged_or_lost_file_is_encoded_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    images = images_with(files_in(tmp_path))
    images.encode_all(CPU)
    expected = all_encoded(images)
    images.cache.folder.close()  # type: ignore[union-attr]
    again = images_with(files_in(tmp_path))
    again.encode_all(CPU)
    lost, damaged = sorted(tmp_path.glob("*/*.tensor"))[:2]
    lost.unlink()
    content = bytearray(damaged.read_bytes())
    damaged.write_bytes(content[:-4])
    with caplog.at_level(logging.WARNING):
        assert torch.equal(all_encoded(again), expected)
    assert [str(damaged) in message for message in caplog.messages] == [True]
    assert len(list(tmp_path.glob("*/*.tensor"))) == 10


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_takes_half_the_room_and_stays_close(tmp_path: Path, dtype: Any) -> None:
    exact = images_with(CacheSettings())
    exact.encode_all(CPU)
    found = []
    for settings in (
        CacheSettings(gb=10 * ONE / 2 / 1e9, dtype=dtype),
        CacheSettings(gb=1e-9, dtype=dtype, dir=str(tmp_path), shared=False),
    ):
        images = images_with(settings)
        assert images.encode_all(CPU)
        found.append(all_encoded(images))
    assert torch.equal(*found)
    assert found[0].dtype == torch.float32
    assert not torch.equal(found[0], all_encoded(exact))
    torch.testing.assert_close(found[0], all_encoded(exact), atol=0.004, rtol=0)


def test_what_fits_nowhere_is_encoded_each_time(tmp_path: Path) -> None:
    settings = CacheSettings(gb=1e-9, dir=str(tmp_path), disk_gb=9 * ONE / 1e9, shared=False)
    images = images_with(settings)
    assert not images.encode_all(CPU)
    all_encoded(images)
    assert detector_of(images).encoded == 4 + 10
    assert not list(tmp_path.glob("*/*.tensor"))


@pytest.mark.parametrize("says", [None, True])
def test_nothing_is_kept_of_images_that_change(
    caplog: pytest.LogCaptureFixture, says: bool | None
) -> None:
    images = AugmentedImages(10)
    if says is not None:
        images.augments = says  # type: ignore[attr-defined]
    reader = ImageReader(DataLoader(images, batch_size=4))
    view = DetectorView(FullDetector(), nn.Identity())
    found = EncodedImages(reader, view, cache=FrozenCache(CacheSettings(gb=1.0)))
    assert not found.encode_all(CPU)
    first, second = (all_encoded(found) for _ in range(2))
    assert not torch.equal(first, second)
    assert caplog.messages == (
        [] if says else ["the images change each time they are read and are not cached"]
    )


def test_nothing_is_kept_of_a_detector_that_augments() -> None:
    detector = FullDetector()
    detector.augments = True  # type: ignore[assignment]
    images = images_with(CacheSettings(), detector)
    assert not images.encode_all(CPU)


def test_memory_and_training_share_one_pass() -> None:
    images = images_with(CacheSettings(), JointDetector())
    detector = detector_of(images)
    assert isinstance(detector, JointDetector)
    for indices in ([0, 2, 4, 6, 8], [1, 3, 5, 7, 9]):
        for places, features, grid in images.features(indices, device=CPU):
            part = [indices[place] for place in places]
            assert torch.equal(features, FullDetector.features(detector, ToyImages().images[part]))
            assert grid == (4, 4)
    assert images.encode_all(CPU)
    all_encoded(images)
    assert detector.passes == 10


def test_features_are_kept_where_they_are_all_there_is() -> None:
    images = images_with(CacheSettings(), JointDetector(), "features")
    detector = detector_of(images)
    assert isinstance(detector, JointDetector)
    first, second = (
        torch.cat([features for _, features, _ in images.features(range(10), device=CPU)])
        for _ in range(2)
    )
    assert torch.equal(first, second)
    assert detector.passes == 10


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_test_images_seen_in_training_are_not_encoded_again(dtype: Any) -> None:
    train = images_with(CacheSettings(dtype=dtype))
    train.encode_all(CPU)
    detector = detector_of(train)
    before = detector.encoded
    other = ToyImages(12)
    other.images[[0, 5, 7]] += 1.0  # ten of them are the training images, but for three
    reader = ImageReader(DataLoader(other, batch_size=4))
    test = EncodedImages(reader, train.view, known=train)
    found = torch.cat([test.encoded(b) for b in test.batches([[0, 1], [5, 7], [8, 9, 10]])])
    assert detector.encoded == before + 4
    expected = torch.tanh(detector.encoder(other.images[[0, 1, 5, 7, 8, 9, 10]]))
    if dtype == "bfloat16":  # all rounded alike, whether they are known or not
        expected = expected.bfloat16().float()
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)


def test_the_key_is_the_content() -> None:
    image = torch.randn(3, SIZE, SIZE)
    assert content_key(image) == content_key(image.clone())
    assert content_key(image) != content_key(image.half())
    assert content_key(image) != content_key(image.view(3, SIZE * SIZE // 8, 8))
    changed = image.clone()
    changed[2, 3, 4] += 1e-6
    assert content_key(image) != content_key(changed)


def fitted(detector: nn.Module, settings: CacheSettings, **others: Any) -> MeDSWrapper:
    torch.manual_seed(7)
    model = wrap(detector, cache=settings, **others)
    quiet_trainer(model.total_steps).fit(model, loader())
    return model


@pytest.mark.parametrize("kind", [FullDetector, JointDetector])
def test_training_is_the_same_with_and_without(tmp_path: Path, kind: type[nn.Module]) -> None:
    results = []
    for name, settings in {
        "off": CacheSettings(gb=0),
        "memory": CacheSettings(),
        "files": files_in(tmp_path / "own"),
        "shared": CacheSettings(dir=str(tmp_path / "shared")),
        "found": CacheSettings(dir=str(tmp_path / "shared")),
    }.items():
        torch.manual_seed(5)
        model = fitted(kind(), settings)
        assert model.memory is not None
        weights = torch.cat([value.flatten() for value in model.detector.state_dict().values()])
        results.append((model.memory.maps, model.training_scores().score, weights))
        model.close_cache(remove=True)
        assert (tmp_path / "own").exists() is False, name
    for found in results[1:]:
        for one, other in zip(found, results[0], strict=True):
            assert one is not None
            assert torch.equal(one, other)  # type: ignore[arg-type]


def test_a_shared_folder_spares_a_second_run_the_encoder(tmp_path: Path) -> None:
    settings = CacheSettings(dir=str(tmp_path))
    torch.manual_seed(5)
    fitted(JointDetector(), settings).close_cache()
    torch.manual_seed(5)
    detector = JointDetector()
    wrapped = wrap(detector, cache=settings)
    detector.passes = 0
    quiet_trainer(wrapped.total_steps).fit(wrapped, loader())
    assert detector.passes == 4  # the two fixed images, for encodings and features
    assert isinstance(wrapped.stream.images.cache.folder, CacheFolder)  # type: ignore[union-attr]


def test_a_detector_without_frozen_part_needs_no_files(tmp_path: Path) -> None:
    model = fitted(BareDetector(), files_in(tmp_path / "own"), method="plain")
    model.training_scores()
    assert not (tmp_path / "own").exists()


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({"gb": None}, r"cache\.gb must be a number of at least 0, got None"),
        ({"gb": -1.0}, r"cache\.gb must be"),
        ({"disk_gb": "much"}, r"cache\.disk_gb must be"),
        ({"dtype": "int8"}, r"cache\.dtype must be float32, bfloat16, float16, got 'int8'"),
    ],
)
def test_wrong_settings_are_named(settings: dict[str, Any], line: str) -> None:
    with pytest.raises(UserError, match=line):
        CacheSettings(**settings)


def test_images_of_another_normalisation_than_the_detectors_are_refused() -> None:
    half = Normalization((0.5,) * 3, (0.5,) * 3)
    data = ToyImages()
    data.normalization = IMAGENET  # type: ignore[attr-defined]
    detector = FullDetector()
    cache = FrozenCache(CacheSettings(), ("encoded",), None, lambda: "weights")
    reader = ImageReader(DataLoader(data, batch_size=4))
    EncodedImages(reader, DetectorView(detector, nn.Identity()), cache=cache)
    detector.normalization = half  # type: ignore[assignment]
    with pytest.raises(UserError, match="give AnomalyDataModule") as caught:
        EncodedImages(reader, DetectorView(detector, nn.Identity()), cache=cache)
    assert "\n" not in str(caught.value)
    model = wrap(detector)
    with pytest.raises(UserError, match="but the detector expects"):
        quiet_trainer(1).fit(model, DataLoader(data, batch_size=4))
    data.normalization = model.normalization  # type: ignore[attr-defined]
    quiet_trainer(1).fit(model, DataLoader(data, batch_size=4))


def test_a_closed_cache_holds_no_memory_and_images_are_encoded_again() -> None:
    torch.manual_seed(5)
    detector = JointDetector()
    model = fitted(detector, CacheSettings())
    before, passes = model.training_scores().score, detector.passes
    model.close_cache()
    assert model.stream is not None
    images = model.stream.images
    assert not any(store.active for store in images._outputs.stores.values())
    assert torch.equal(model.training_scores().score, before)
    assert detector.passes > passes
