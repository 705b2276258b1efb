"""No training step reads a tensor's value, for which the host would wait for an accelerator."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import lightning as L
import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from backbones.dinomaly import Dinomaly
from backbones.hvq import HVQ
from backbones.inp_former import INPFormer
from meds_plugin.wrapper import MeDSWrapper
from tests.backbones.small import loader_of, noisy_images, small
from tests.toys import quiet_trainer

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import nn

READS = (
    "aten._local_scalar_dense",  # item, float, int, bool
    "aten.nonzero",
    "aten.masked_select",
    "aten.bincount",
    "aten.unique",
    "aten.equal",
    "aten.is_nonzero",
)


class CountReads(TorchDispatchMode):
    """Counts operations that make the host wait for a device."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.reads: Counter[str] = Counter()
        self.calls = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        self.calls += 1
        name = str(func.name()).replace("::", ".")
        if name.startswith(READS):
            self.reads[name] += 1
        return func(*args, **(kwargs or {}))


class Watch(L.Callback):
    """Counts reads in every training step, from its batch to the updated weights."""

    def __init__(self) -> None:
        self.reads: dict[int, Counter[str]] = {}
        self.calls = 0
        self._mode: CountReads | None = None

    def on_train_batch_start(self, *args: Any) -> None:
        self._mode = CountReads()
        self._mode.__enter__()  # type: ignore[no-untyped-call]

    def on_train_batch_end(self, trainer: L.Trainer, *args: Any) -> None:
        assert self._mode is not None
        self._mode.__exit__(None, None, None)  # type: ignore[no-untyped-call]
        self.reads[trainer.global_step] = self._mode.reads
        self.calls += self._mode.calls


def small_hvq(**arguments: Any) -> nn.Module:
    return HVQ(
        small(Dinomaly, **arguments).encoder, embed_dim=16, codes=8, hidden=16, heads=2, depth=2
    )


def small_dinomaly(**arguments: Any) -> nn.Module:
    detector: nn.Module = small(Dinomaly, **arguments)
    return detector


def small_inp_former(**arguments: Any) -> nn.Module:
    detector: nn.Module = small(INPFormer, **arguments)
    return detector


@pytest.mark.parametrize("make", [small_dinomaly, small_inp_former, small_hvq])
@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_no_training_step_waits_for_a_value(make: Callable[..., nn.Module], precision: Any) -> None:
    watch = Watch()
    model = MeDSWrapper(make(image_size=28, layers=(1, 2)), distill_steps=5, finetune_steps=5)
    trainer = quiet_trainer(model.total_steps, callbacks=[watch], precision=precision)
    trainer.fit(model, loader_of(noisy_images(12, size=28)))
    assert len(watch.reads) == 10
    assert watch.calls > 10 * 100
    # A detector may look once whether its codes have started.
    reads = {step: dict(count) for step, count in watch.reads.items() if count and step > 3}
    assert not reads


def test_the_watch_sees_reads() -> None:
    class Reader(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = torch.nn.Parameter(torch.ones(()))

        def forward(self, images: Tensor) -> Tensor:
            return images.mean(1) * self.scale + float(self.scale.detach())

    watch = Watch()
    model = MeDSWrapper(Reader(), method="plain", distill_steps=2, finetune_steps=2)
    trainer = quiet_trainer(4, callbacks=[watch])
    trainer.fit(model, loader_of(noisy_images(8, size=16)))
    assert [sum(count.values()) for count in watch.reads.values()] == [1, 1, 1, 1]
