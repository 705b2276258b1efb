"""Compiled detectors: the same results under the same names."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import _dynamo

from backbones.dinomaly import Dinomaly
from meds_plugin.utils.errors import UserError
from tests.backbones.small import loader_of, noisy_images, small
from tests.toys import BareDetector, FullDetector, loader, quiet_trainer, wrap

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from torch import nn

    from meds_plugin.wrapper import MeDSWrapper


@pytest.fixture(autouse=True)
def _forgotten() -> Iterator[None]:
    """Begin and end without compiled code and counts of other tests."""
    _dynamo.reset()
    _dynamo.utils.counters.clear()
    yield
    _dynamo.reset()


def compiled_frames() -> int:
    return int(_dynamo.utils.counters["frames"]["ok"])


def fit(detector: nn.Module, images: Any, **settings: Any) -> MeDSWrapper:
    model = wrap(detector, distill_steps=4, finetune_steps=4, **settings)
    quiet_trainer(model.total_steps).fit(model, images)
    return model


@pytest.mark.parametrize("kind", [BareDetector, FullDetector])
def test_a_compiled_detector_ends_with_the_same_weights(kind: type[nn.Module]) -> None:
    states = []
    for how in (False, "eager"):
        torch.manual_seed(5)
        model = fit(kind(), loader(), compile=how)
        assert bool(compiled_frames()) == bool(how)
        states.append((model.state_dict(), model.training_scores().score))
    (plain, scores), (compiled, others) = states
    assert plain.keys() == compiled.keys()
    for key, value in plain.items():
        torch.testing.assert_close(compiled[key], value)
    torch.testing.assert_close(others, scores)


def test_dinomaly_compiled_ahead_of_time_goes_on_from_a_plain_checkpoint(tmp_path: Path) -> None:
    images = loader_of(noisy_images(8, size=28))
    detector: dict[str, Any] = {"image_size": 28, "layers": (1, 2), "dropout": 0.0}
    plain = fit(small(Dinomaly, **detector), images)
    plain.trainer.save_checkpoint(tmp_path / "c.ckpt")
    assert compiled_frames() == 0
    model = wrap(
        small(Dinomaly, **detector), distill_steps=4, finetune_steps=6, compile="aot_eager"
    )
    trainer = quiet_trainer(model.total_steps)
    trainer.fit(model, images, ckpt_path=tmp_path / "c.ckpt", weights_only=True)
    # Blocks of one kind share their code: not one for each block, step and mode.
    assert 0 < compiled_frames() <= 8
    assert trainer.global_step == 10
    again = wrap(small(Dinomaly, **detector), distill_steps=4, finetune_steps=6)
    quiet_trainer(10).fit(again, images, ckpt_path=tmp_path / "c.ckpt", weights_only=True)
    for key, value in again.state_dict().items():
        torch.testing.assert_close(model.state_dict()[key], value)


def test_names_a_backend_that_does_not_exist() -> None:
    with pytest.raises(UserError, match=r"compile must be true, .*inductor.*got 'x'"):
        wrap(BareDetector(), compile="x")
