from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from meds_plugin.callbacks import progressive_selection
from meds_plugin.detectors.view import DetectorView
from meds_plugin.encoding.cache.settings import CacheSettings
from meds_plugin.encoding.encoded_images import EncodedImages
from meds_plugin.encoding.reader import ImageReader
from meds_plugin.encoding.scoring import anomaly_maps, selection_scores
from meds_plugin.metrics import image_score
from meds_plugin.utils.errors import UserError
from tests.ddp_ranks import every_fourth
from tests.toys import BareDetector, FullDetector, ToyImages, loader, quiet_trainer, wrap

CPU = torch.device("cpu")


def encoded(detector: BareDetector, count: int = 10) -> EncodedImages:
    view = DetectorView(detector, lambda images: images)
    return EncodedImages(ImageReader(loader(count)), view)


def test_scores_in_evaluation_mode_and_goes_back() -> None:
    detector = BareDetector()
    maps = anomaly_maps(encoded(detector), [7, 2, 3], device=CPU)
    assert detector.training
    with torch.no_grad():
        expected = detector.eval()(ToyImages(10).images[[7, 2, 3]]).squeeze(1)
    torch.testing.assert_close(maps, expected)


def test_image_scores_are_those_of_the_maps() -> None:
    images = encoded(BareDetector())
    expected = image_score(anomaly_maps(images, range(10), device=CPU), 0.1)
    torch.testing.assert_close(selection_scores(images, top=0.1, device=CPU), expected)


def test_names_maps_that_are_no_numbers() -> None:
    class Broken(BareDetector):
        def forward(self, images: Tensor) -> Tensor:
            return super().forward(images) / 0.0

    with pytest.raises(ValueError, match=r"Broken\.forward returned values that are not finite"):
        anomaly_maps(encoded(Broken()), [0], device=CPU)


def test_batches_are_of_the_size_that_was_asked_for() -> None:
    sizes: list[int] = []

    class Counting(BareDetector):
        def forward(self, images: Tensor) -> Tensor:
            sizes.append(len(images))
            return super().forward(images)

    view = DetectorView(Counting(), lambda images: images)
    reader = ImageReader(loader(10))
    small, large = (
        anomaly_maps(EncodedImages(reader, view, scoring_batch=size), range(10), device=CPU)
        for size in (None, 7)
    )
    assert sizes == [4, 4, 2, 7, 3]
    torch.testing.assert_close(small, large)
    with pytest.raises(UserError, match="scoring_batch must be a whole number"):
        EncodedImages(reader, view, scoring_batch=0)
    with pytest.raises(UserError, match="got True"):
        EncodedImages(reader, view, scoring_batch=True)


@pytest.mark.parametrize(("precision", "expected"), [("32-true", False), ("bf16-mixed", True)])
def test_selection_ranking_and_training_run_in_the_trainers_precision(
    precision: Any, expected: bool
) -> None:
    seen: dict[bool, set[bool]] = {True: set(), False: set()}

    class Watching(BareDetector):
        def forward(self, images: Tensor) -> Tensor:
            seen[self.training].add(torch.is_autocast_enabled("cpu"))
            return super().forward(images)

    model = wrap(Watching(), distill_steps=2, finetune_steps=6)
    seen[True].clear()  # of the check
    seen[False].clear()
    quiet_trainer(model.total_steps, precision=precision).fit(model, loader())
    scores = model.training_scores().score
    assert seen == {True: {expected}, False: {expected}}
    assert scores.dtype == torch.float32


@pytest.mark.parametrize("gb", [0.0, 1.0])
@pytest.mark.parametrize(("precision", "expected"), [("32-true", False), ("bf16-mixed", True)])
def test_the_frozen_part_runs_in_it_too_whatever_is_kept(
    precision: Any, expected: bool, gb: float
) -> None:
    seen: set[bool] = set()

    class Watching(FullDetector):
        def encode(self, images: Tensor) -> Tensor:
            seen.add(torch.is_autocast_enabled("cpu"))
            return super().encode(images)

    model = wrap(Watching(), distill_steps=2, finetune_steps=6, cache=CacheSettings(gb=gb))
    seen.clear()  # of the check
    quiet_trainer(model.total_steps, precision=precision).fit(model, loader())
    model.training_scores()
    assert seen == {expected}


@pytest.mark.parametrize("held", [False, True])
def test_a_detectors_own_image_score_is_computed_in_full_precision_throughout(
    monkeypatch: pytest.MonkeyPatch, held: bool
) -> None:
    if held:
        monkeypatch.setattr(progressive_selection, "stand_apart", every_fourth)
    seen: list[tuple[bool, torch.dtype]] = []

    class Scoring(BareDetector):
        def image_score(self, maps: Tensor) -> Tensor:
            seen.append((torch.is_autocast_enabled("cpu"), maps.dtype))
            return maps.flatten(1).amax(1)

    model = wrap(Scoring(), distill_steps=2, finetune_steps=6)
    seen.clear()  # of the check
    quiet_trainer(model.total_steps, precision="bf16-mixed").fit(model, loader())
    model.training_scores()
    assert seen
    assert set(seen) == {(False, torch.float32)}


def test_halved_outputs_of_the_frozen_part_come_in_float32() -> None:
    view = DetectorView(FullDetector(), lambda images: images)
    with torch.autocast("cpu", torch.bfloat16):
        images = ToyImages(2).images
        assert view.encode(images).dtype == torch.float32
        assert {part.dtype for part in view.encode_and_features(images)} == {torch.float32}
