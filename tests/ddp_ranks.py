"""What a rank of `tests.test_ddp` does: ``python -m tests.ddp_ranks WORLD FOLDER``."""

from __future__ import annotations

import json
import os
import signal
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest import mock

import lightning as L
import torch
from torch import Tensor, nn

from meds_plugin import AnomalyDataModule, evaluate
from meds_plugin.callbacks import progressive_selection
from meds_plugin.callbacks.run_checkpoint import RunCheckpoint
from meds_plugin.data import DataSettings, Split, synthetic_split
from meds_plugin.distributed.ranks import (
    from_all,
    from_first,
    gather_in_order,
    largest,
    rank_and_world,
)
from meds_plugin.encoders.build import build_encoder
from meds_plugin.encoders.normalization import IMAGENET
from meds_plugin.evaluation.protocol import EvaluationProtocol
from meds_plugin.training.optimizer import OptimizerSettings
from tests.toys import quiet_trainer, wrap

if TYPE_CHECKING:
    from meds_plugin.wrapper import MeDSWrapper

STEPS = 7  # of each stage
BATCH = 5  # neither two nor three ranks divide it


class Mirror(nn.Module):
    """A detector whose loss is a mean over images, so that ranks can sum it up exactly."""

    image_size = 32

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Conv2d(3, 8, 4, stride=4).requires_grad_(requires_grad=False)
        self.head = nn.Conv2d(8, 8, 1)
        self.turn = nn.Conv2d(8, 8, 1)  # only the loss uses it
        self.idle = nn.Linear(2, 2)  # nothing does

    def forward(self, images: Tensor) -> Tensor:
        return self.anomaly_map(self.encode(images))

    def encode(self, images: Tensor) -> Tensor:
        return torch.tanh(self.encoder(images))

    def features(self, images: Tensor) -> Tensor:
        return torch.tanh(self.encoder(images))

    def anomaly_map(self, encoded: Tensor) -> Tensor:
        return 1 - nn.functional.cosine_similarity(self.head(encoded), encoded)

    def loss(self, encoded: Tensor, *, step: int, total_steps: int) -> Tensor:
        other = self.head(self.turn(encoded))
        return 1 - nn.functional.cosine_similarity(other, encoded).mean()


def make_data(settings: DataSettings | None = None) -> AnomalyDataModule:
    """Return two categories of different size."""
    split = synthetic_split(
        categories=["weave", "wood"], size=32, train_normal=13, test_normal=4, test_defective=3
    )
    few = [s for s in split.train if s.category == "wood"][:4]
    train = [s for s in split.train if s.category == "weave"] + few
    source = Split(train, split.test)
    return AnomalyDataModule(source=source, image_size=32, batch_size=BATCH, settings=settings)


def fit(
    data: AnomalyDataModule, *, world: int, lr: float = 1e-2, **settings: Any
) -> tuple[MeDSWrapper, L.Trainer]:
    """Fit a model on all ranks."""
    torch.manual_seed(rank_and_world()[0])  # the first rank's weights are to be everyone's
    trainer_settings = settings.pop("trainer", {})
    model = wrap(
        settings.pop("detector", None) or Mirror(),
        distill_steps=STEPS,
        finetune_steps=STEPS,
        optimizer=OptimizerSettings(lr=lr, final_lr=lr / 10, warmup=2),
        **settings,
    )
    trainer = quiet_trainer(model.total_steps, **strategy(world), **trainer_settings)
    return model, trainer


def strategy(world: int) -> dict[str, Any]:
    return {"devices": world, "strategy": "ddp"} if world > 1 else {}


def every_fourth(memory: Tensor, _groups: object) -> Tensor:
    return torch.arange(len(memory)) % 4 == 3


def holding() -> Any:
    """Let every fourth image be held; so few never stand apart by themselves."""
    return mock.patch.object(progressive_selection, "stand_apart", every_fourth)


def results(world: int) -> dict[str, Any]:
    """Return everything that must not depend on the number of ranks."""
    data = make_data()
    protocol = EvaluationProtocol(resize=32)
    found: dict[str, Any] = {}
    for name, lr, method in (
        ("fixed", 1e-30, "meds"),
        ("trained", 1e-2, "meds"),
        ("anew", 1e-2, "random_init"),
        ("memory", 1e-2, "memory"),
    ):
        model, trainer = fit(data, world=world, lr=lr, method=method)
        with holding():
            trainer.fit(model, data)
            scores = model.training_scores()
        assert model.memory is not None
        found[name] = {
            "memory": model.memory.maps,
            "images": model.memory.image_scores(),
            "score": scores.score,
            "selected": scores.selected,
            "history": json.dumps(model.selection.history if model.selection else []),
            "metrics": json.dumps(evaluate(model, data, protocol=protocol)),
            "weights": {k: v.clone() for k, v in model.detector.state_dict().items()},
        }
    encoder = build_encoder(
        model="resnet18",
        image_size=32,
        layers=[1, 2],
        weights="random",
        pyramid={"stride": 4},
        normalization=asdict(IMAGENET),
    )
    model, trainer = fit(data, world=world, method="plain")
    trainer.fit(model, data)
    model.protocol = protocol
    found["tested"] = json.dumps(trainer.test(model, data, verbose=False)[0])
    found["evaluated"] = json.dumps(evaluate(model, data, protocol=protocol)["mean"])
    model, trainer = fit(data, world=world, method="softpatch", detector=encoder)
    trainer.fit(model, data)
    found["rival"] = {
        "score": model.training_scores().score,
        "metrics": json.dumps(evaluate(model, data, protocol=protocol)),
    }
    return found


class Fails(L.Callback):
    """Let a rank fail at a step."""

    def __init__(self, rank: int, step: int, *, killed: bool) -> None:
        self.rank, self.step, self.killed = rank, step, killed

    def on_train_batch_end(self, trainer: L.Trainer, *_: Any, **__: Any) -> None:
        if (trainer.global_rank, trainer.global_step) != (self.rank, self.step):
            return
        if self.killed:
            os.kill(os.getpid(), signal.SIGKILL)
        msg = f"the lamp of rank {self.rank} is broken"
        raise ValueError(msg)


def main(world: int, folder: Path) -> None:
    """Do everything, then fail: an error of one of two ranks, the death of one of three."""
    found = results(world)
    rank, _ = rank_and_world()
    found["gathered"] = gather_in_order(
        None if rank == 0 else torch.full((rank, 2), float(rank), dtype=torch.float64)
    )
    found["said"] = [from_all(rank), from_first(lambda: f"by {rank}")]
    found["largest"] = largest(rank)
    torch.save(found, folder / f"rank{rank}.pt")
    data = make_data()
    model, trainer = fit(data, world=world)
    saver = RunCheckpoint(folder / "model.ckpt", model.plan, every=2)
    trainer.callbacks.extend([saver, Fails(world - 1, 9, killed=world == 3)])  # type: ignore[attr-defined]
    with holding():
        trainer.fit(model, data)


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(int(sys.argv[1]), Path(sys.argv[2]))
