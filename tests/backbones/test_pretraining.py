from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from backbones import pretraining
from backbones.objectives import HeldOut
from backbones.pretraining import PretrainSettings, pretrain
from meds_plugin.conf_dir import conf_dir
from meds_plugin.errors import UserError

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

SHORT = PretrainSettings(
    steps=40,
    textures=8,
    canvas=64,
    sizes=(32,),
    tokens=256,
    lr=1e-3,
    warmup=5,
    check_every=0,
)
FEW = replace(SHORT, steps=6, sizes=(32, 64))


@pytest.fixture(scope="module")
def trained() -> tuple[dict[str, Tensor], list[float]]:
    return pretrain(SHORT)


def test_one_seed_gives_the_same_weights_and_another_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(pretraining, "HeldOut", partial(HeldOut, textures=2, views=2))
    first = pretrain(FEW)
    again = pretrain(replace(FEW, check_every=2), progress=True)  # which changes nothing
    assert same(first[0], again[0])
    assert first[1] == again[1]
    assert not same(first[0], pretrain(replace(FEW, seed=1))[0])


def test_every_draw_depends_on_the_seed(monkeypatch: pytest.MonkeyPatch) -> None:
    network = pretraining._network
    monkeypatch.setattr(pretraining, "_network", lambda seed: network(0))
    first, other = (pretrain(replace(FEW, seed=seed))[1] for seed in (0, 1))
    assert first[0] != other[0]


def test_a_training_that_was_stopped_ends_as_if_it_had_not_been(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(pretraining, "_KEEP_EVERY", 2)
    part, whole = tmp_path / "x.part", pretrain(FEW)
    draw, stopped = pretraining._draw, 5

    def stop(settings: PretrainSettings, bank: Tensor, step: int) -> Any:
        if step == stopped:
            raise KeyboardInterrupt
        return draw(settings, bank, step)

    with monkeypatch.context() as patch:
        patch.setattr(pretraining, "_draw", stop)
        with pytest.raises(KeyboardInterrupt):
            pretrain(FEW, part=part)
    steps: list[int] = []

    def watch(settings: PretrainSettings, bank: Tensor, step: int) -> Any:
        steps.append(step)
        return draw(settings, bank, step)

    monkeypatch.setattr(pretraining, "_draw", watch)
    rest = pretrain(FEW, part=part)
    assert steps == [4, 5]
    assert same(whole[0], rest[0])
    assert whole[1] == rest[1]
    with pytest.raises(UserError, match=r"x\.part was left by a training with other settings"):
        pretrain(replace(FEW, lr=2e-3), part=part)
    part.write_bytes(b"no training")
    with pytest.raises(UserError, match=r"x\.part cannot be read .*: remove it"):
        pretrain(FEW, part=part)


def test_torch_is_left_as_it_was() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        pretrain(replace(FEW, steps=1), threads=1)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_a_loss_that_is_no_number_ends_the_training() -> None:
    with pytest.raises(UserError, match=r"the loss is nan at step \d+: give a smaller pretrain.lr"):
        pretrain(replace(SHORT, lr=1e30, warmup=0, gradient_clip=1e30))


def same(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    """Whether all weights are equal to the last bit."""
    return first.keys() == second.keys() and all(torch.equal(first[k], second[k]) for k in first)


def test_the_loss_falls(trained: tuple[dict[str, Tensor], list[float]]) -> None:
    losses = trained[1]
    assert len(losses) == SHORT.steps
    assert sum(losses[-8:]) < 0.9 * sum(losses[:8])


def test_the_shipped_configuration_is_the_settings() -> None:
    with initialize_config_dir(conf_dir(), version_base="1.3"):
        config = compose("pretrain")
    given = OmegaConf.to_container(config.pretrain)
    assert isinstance(given, dict)
    assert PretrainSettings(**{str(k): v for k, v in given.items()}) == PretrainSettings()


@pytest.mark.parametrize(
    ("key", "wrong"),
    [
        ("steps", 0),
        ("steps", 2.5),
        ("steps", "abc"),
        ("steps", None),
        ("seed", -1),
        ("seed", True),
        ("check_every", -1),
        ("canvas", 1),
        ("warmup", -3),
        ("sizes", (60,)),
        ("sizes", ()),
        ("sizes", 64),
        ("sizes", ["a"]),
        ("sizes", (136,)),
        ("marked", 2.0),
        ("threshold", "high"),
        ("detection", -1.0),
        ("lr", 0),
        ("lr", float("nan")),
        ("gradient_clip", -1),
    ],
)
def test_wrong_settings_are_named(key: str, wrong: object) -> None:
    with pytest.raises(UserError, match=rf"pretrain\.{key} must be "):
        replace(SHORT, **{key: wrong})  # type: ignore[arg-type]
