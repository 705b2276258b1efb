"""Fits on a GPU rank the training images as on a CPU, in any precision, resumed, as one rank."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import lightning as L
import pytest
import torch
from scipy.stats import spearmanr
from torch import Tensor, distributed
from torch.utils.data import DataLoader, TensorDataset

from meds_plugin.data import DataSettings
from meds_plugin.encoding.cache.settings import CacheSettings
from meds_plugin.evaluation.evaluate import evaluate
from meds_plugin.evaluation.protocol import EvaluationProtocol
from meds_plugin.training.optimizer import OptimizerSettings
from meds_plugin.wrapper import MeDSWrapper
from tests.ddp_ranks import fit as fit_mirror
from tests.ddp_ranks import make_data
from tests.gpu.detectors import DETECTORS, images_of
from tests.toys import quiet_trainer

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.gpu

CPU = torch.device("cpu")
COUNT = 24
RIVALS = ("patchcore", "softpatch", "inreach", "musc")
FLOAT32, HALF = 0.99, 0.95  # rank correlation with the CPU's float32


def on(device: torch.device) -> dict[str, Any]:
    return {"accelerator": "cpu" if device.type == "cpu" else "gpu", "devices": 1}


def loader(device: torch.device = CPU) -> DataLoader[tuple[Tensor, ...]]:
    pinned = device.type == "cuda"
    return DataLoader(TensorDataset(images_of(COUNT)), batch_size=4, pin_memory=pinned)


def wrapped(name: str = "dinomaly", **settings: Any) -> MeDSWrapper:
    detector: Any = DETECTORS[name]()
    rival = settings.get("method") in RIVALS
    return MeDSWrapper(
        detector.encoder if rival else detector,
        **{
            "distill_steps": 6,
            "finetune_steps": 8,
            "optimizer": OptimizerSettings(warmup=2),
            **settings,
        },
    )


def fitted(
    device: torch.device, name: str = "dinomaly", *, precision: Any = "32-true", **settings: Any
) -> MeDSWrapper:
    model = wrapped(name, **settings)
    trainer = quiet_trainer(model.total_steps, precision=precision, **on(device))
    trainer.fit(model, loader(device))
    assert trainer.strategy.root_device.type == device.type
    return model


def agreement(found: Tensor, expected: Tensor) -> float:
    assert found.device.type == expected.device.type == "cpu"
    assert torch.isfinite(found).all()
    return float(spearmanr(found.numpy(), expected.numpy()).statistic)


def final(model: MeDSWrapper) -> Tensor:
    return model.training_scores().score


@pytest.fixture(scope="module")
def on_cpu() -> Tensor:
    return final(fitted(CPU))


@pytest.mark.parametrize("name", DETECTORS)
def test_a_fit_ranks_as_on_a_cpu(device: torch.device, name: str) -> None:
    found, expected = fitted(device, name), fitted(CPU, name)
    assert found.memory is not None
    assert expected.memory is not None
    torch.testing.assert_close(
        found.memory.image_scores(), expected.memory.image_scores(), atol=1e-4, rtol=1e-3
    )
    assert agreement(final(found), final(expected)) > FLOAT32


@pytest.mark.parametrize("precision", ["bf16-mixed", "16-mixed"])
@pytest.mark.parametrize("products", ["float32", "bfloat16"])
def test_a_fit_in_half_precision_ranks_much_as_on_a_cpu(
    device: torch.device, on_cpu: Tensor, precision: str, products: str
) -> None:
    model = fitted(device, precision=precision, memory={"products": products})
    assert agreement(final(model), on_cpu) > HALF


def test_a_compiled_fit_ranks_as_on_a_cpu(device: torch.device, on_cpu: Tensor) -> None:
    assert agreement(final(fitted(device, compile=True)), on_cpu) > FLOAT32


@pytest.mark.parametrize("cache", [0.0, 4.0])
def test_what_is_cached_does_not_matter(device: torch.device, on_cpu: Tensor, cache: float) -> None:
    assert agreement(final(fitted(device, cache=CacheSettings(gb=cache))), on_cpu) > FLOAT32


@pytest.mark.parametrize("step", [3, 9])
def test_a_fit_goes_on_from_a_checkpoint_on_either_device(
    device: torch.device, on_cpu: Tensor, tmp_path: Path, step: int
) -> None:
    model = wrapped()
    trainer = quiet_trainer(step, **on(device))
    trainer.fit(model, loader(device))
    trainer.save_checkpoint(tmp_path / "c.ckpt")
    for where in (device, CPU):
        again = wrapped()
        resumed = quiet_trainer(again.total_steps, **on(where))
        resumed.fit(again, loader(where), ckpt_path=tmp_path / "c.ckpt", weights_only=True)
        assert again.global_step == again.total_steps
        assert agreement(final(again), on_cpu) > FLOAT32


def test_a_checkpoint_of_the_device_holds_the_weights_for_a_cpu(
    device: torch.device, tmp_path: Path
) -> None:
    model = fitted(device)
    model.trainer.save_checkpoint(tmp_path / "c.ckpt")
    saved = torch.load(tmp_path / "c.ckpt", map_location="cpu", weights_only=True)
    again = wrapped()
    again.load_state_dict(saved["state_dict"], strict=False)  # without the encoder's
    images = images_of(3)
    with torch.no_grad():
        found = model.to(device).eval()(images.to(device)).cpu()
        torch.testing.assert_close(found, again.eval()(images), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(
    "method",
    ["memory", "distilled", "memory_selected", "random_init", "plain", *RIVALS],
)
def test_every_method_ranks_as_on_a_cpu(device: torch.device, method: str) -> None:
    found, expected = (final(fitted(where, method=method)) for where in (device, CPU))
    assert agreement(found, expected) > FLOAT32


def test_a_model_has_the_metrics_that_it_has_on_a_cpu(device: torch.device) -> None:
    data = make_data(DataSettings(check=False))  # the check needs faiss
    protocol = EvaluationProtocol(resize=32)
    found = []
    for where in (device, CPU):
        model, trainer = fit_mirror(data, world=1, trainer=on(where))
        trainer.fit(model, data)
        found.append(evaluate(model, data, protocol=protocol)["mean"])
    assert found[0] == pytest.approx(found[1], abs=0.02)


class NoWaiting(L.Callback):
    """Let everything fail that waits for the GPU from the end of one step to that of another."""

    def on_train_batch_end(self, trainer: L.Trainer, *_: Any, **__: Any) -> None:
        if trainer.global_step in (2, 5):
            mode = "error" if trainer.global_step == 2 else "default"
            torch.cuda.set_sync_debug_mode(mode)


@pytest.mark.parametrize("name", DETECTORS)
@pytest.mark.parametrize("method", ["distilled", "plain"])
@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_steps_do_not_wait_for_a_gpu(
    device: torch.device, name: str, method: str, precision: Any
) -> None:
    if device.type != "cuda":
        pytest.skip("only CUDA tells")
    model = wrapped(name, method=method)
    trainer = quiet_trainer(
        model.total_steps, precision=precision, callbacks=[NoWaiting()], **on(device)
    )
    try:
        trainer.fit(model, loader(device))
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_cached_outputs_come_in_pinned_memory(device: torch.device) -> None:
    if device.type != "cuda":
        pytest.skip("a CPU has no pinned memory")
    model = fitted(device)
    assert model.stream is not None
    plain, pinned = (
        next(iter(model.stream.images.batches([[5, 2]], pinned=each)))["encoded"]
        for each in (False, True)
    )
    assert pinned.is_pinned()
    assert torch.equal(pinned, plain)


@pytest.fixture
def _one_rank() -> Iterator[None]:
    yield
    if distributed.is_initialized():
        distributed.destroy_process_group()


@pytest.mark.usefixtures("_one_rank")
def test_one_rank_of_ddp_ranks_as_without(device: torch.device, on_cpu: Tensor) -> None:
    model = wrapped()
    trainer = quiet_trainer(model.total_steps, strategy="ddp", **on(device))
    trainer.fit(model, loader(device))
    assert distributed.get_backend() == ("gloo" if device.type == "cpu" else "nccl")
    assert agreement(final(model), on_cpu) > FLOAT32
