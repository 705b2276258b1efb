"""Trains the embedded encoder from nothing.

It learns to tell, patch by patch, which of many drawn textures a mosaic shows: features of one
texture gather, whatever the place, and those of anything else lie apart. Beside that, patches with
foreign marks are to be farther from the nearest clean patch of another view than clean ones are,
which is how the memory ensemble finds defects.
"""

from __future__ import annotations

import contextlib
import math
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from backbones.mosaics import Mosaics, draw_mosaics
from backbones.objectives import IMAGE_SIZE, HeldOut, detection, patch_features, recognition
from backbones.procedural import texture_bank
from meds_plugin.atomic import replacing
from meds_plugin.encoder import build_encoder
from meds_plugin.errors import UserError
from meds_plugin.optim import warm_cosine
from meds_plugin.rng import torch_generator, torch_seeded

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["PretrainSettings", "pretrain"]

_KEEP_EVERY = 100  # steps


@dataclass(frozen=True)
class PretrainSettings:
    """What the weights depend on, beside the machine, the device and its threads.

    Attributes:
        seed: Of every draw.
        steps: Updates.
        textures: Size of the bank that mosaics are made of.
        canvas: Side of a texture in pixels; larger pictures show it mirrored at its edges.
        sizes: Sides of the pictures in pixels, step by step in turn, at most 128.
        tokens: Patches a batch.
        regions: Textures a mosaic.
        marked: Chance of a first foreign mark for each 64 pixels of a picture's side; half of it of
            a second.
        single: Share of mosaics of one texture only.
        aligned: Share of mosaics whose views show the same places.
        detection: Weight of the loss of finding marked patches, beside recognition's 1.
        threshold: Cosine that parts clean patches from marked ones.
        sharpness: Steepness of that loss.
        lr: Learning rate after the warm-up; it falls to a hundredth.
        warmup: Steps of the warm-up.
        weight_decay: Of the blocks' matrices.
        gradient_clip: Largest norm of the gradient.
        check_every: Steps between held-out scores; 0: never.

    Raises:
        UserError: If a value is out of its range, naming it as ``pretrain.NAME``.
    """

    seed: int = 0
    steps: int = 2000
    textures: int = 1024
    canvas: int = 160
    sizes: tuple[int, ...] = (64, 64, 64, 128)
    tokens: int = 3072
    regions: int = 4
    marked: float = 0.6
    single: float = 0.2
    aligned: float = 0.4
    detection: float = 1.0
    threshold: float = 0.8
    sharpness: float = 15.0
    lr: float = 2e-3
    warmup: int = 50
    weight_decay: float = 0.05
    gradient_clip: float = 1.0
    check_every: int = 500

    def __post_init__(self) -> None:
        """Check every value."""
        for key, least in _WHOLE.items():
            value = getattr(self, key)
            fits = _is_number(value, whole=True) and value >= least
            _require(key, value, fits=fits, expected=f"a whole number of at least {least}")
        for key, (low, high) in _RANGES.items():
            value = getattr(self, key)
            fits = _is_number(value) and low <= value <= high
            limits = f"from {low:g} to {high:g}" if high < math.inf else f"of at least {low:g}"
            _require(key, value, fits=fits, expected=f"a number {limits}")
        for key in ("lr", "gradient_clip", "sharpness"):
            value = getattr(self, key)
            _require(key, value, fits=_is_number(value) and value > 0, expected="above 0")
        sizes = self.sizes
        listed = isinstance(sizes, (list, tuple)) and len(sizes) > 0
        fits = listed and all(
            _is_number(size, whole=True) and size % 8 == 0 and 16 <= size <= IMAGE_SIZE
            for size in sizes
        )
        expected = f"a list of multiples of 8 from 16 to {IMAGE_SIZE}"
        _require("sizes", sizes, fits=fits, expected=expected)
        object.__setattr__(self, "sizes", tuple(sizes))


_WHOLE = {
    "seed": 0,
    "steps": 1,
    "textures": 1,
    "canvas": 16,
    "tokens": 1,
    "regions": 1,
    "warmup": 0,
    "check_every": 0,
}
_RANGES = {
    "marked": (0.0, 1.0),
    "single": (0.0, 1.0),
    "aligned": (0.0, 1.0),
    "threshold": (-1.0, 1.0),
    "detection": (0.0, math.inf),
    "weight_decay": (0.0, math.inf),
}


def _is_number(value: object, *, whole: bool = False) -> bool:
    kinds = int if whole else (int, float)
    return isinstance(value, kinds) and not isinstance(value, bool) and math.isfinite(value)


def _require(key: str, value: object, *, fits: bool, expected: str) -> None:
    if not fits:
        msg = f"pretrain.{key} must be {expected}, got {value!r}"
        raise UserError(msg)


def pretrain(
    settings: PretrainSettings,
    *,
    device: torch.device | str = "cpu",
    threads: int = 1,
    progress: bool = False,
    part: Path | None = None,
) -> tuple[dict[str, Tensor], list[float]]:
    """Train the weights.

    Args:
        settings: What to do; the same settings, device and threads give the same weights on the
            same machine.
        device: Where to compute; the draws are made on the CPU in any case.
        threads: Of the CPU, beside one that draws ahead.
        progress: Show a bar, and the held-out score while it runs.
        part: File that keeps what has been done, every 100 steps. Where it is there, training goes
            on from it and ends with the weights of an undisturbed one.

    Returns:
        The weights by timm's names, on the CPU, float32; the loss of every step.

    Raises:
        UserError: If `part` is of other settings or cannot be read, or if the loss is no number.
    """
    device = torch.device(device)
    with _repeatable(device, threads):
        training = _Training(settings, device, threads)
        if part is not None and part.is_file():
            training.take_up(part)
        training.run(progress=progress, part=part)
    state = training.network.state_dict()
    return {name: value.detach().cpu() for name, value in state.items()}, training.losses


class _Training:
    """The network, what trains it, and how far it has come."""

    def __init__(self, settings: PretrainSettings, device: torch.device, threads: int) -> None:
        self.settings, self.device = settings, device
        self.identity = {**asdict(settings), "device": device.type, "threads": threads}
        self.network = _network(settings.seed).to(device)
        width = self.network.get_parameter("norm.weight").numel()
        with torch_seeded(settings.seed, "pretrain", "head"):
            self.head = nn.Linear(width, settings.textures).to(device)
        self.optimizers = _optimizers(self.network, self.head, settings)
        self.losses: list[float] = []

    def run(self, *, progress: bool, part: Path | None) -> None:
        """Do the steps that are left."""
        settings = self.settings
        bank = texture_bank(
            settings.textures, settings.canvas, seed=settings.seed, progress=progress
        )
        shown = progress and settings.check_every > 0
        held_out = HeldOut(settings.seed, canvas=settings.canvas) if shown else None
        steps = range(len(self.losses), settings.steps)
        bar = tqdm(
            steps,
            desc="pretrain",
            initial=steps.start,
            total=settings.steps,
            disable=not progress,
            mininterval=5,
        )
        with ThreadPoolExecutor(1) as ahead:
            drawn = ahead.submit(_draw, settings, bank, steps.start)
            for step in bar:
                batch, corner = drawn.result()
                last = step + 1 == settings.steps
                if not last:
                    drawn = ahead.submit(_draw, settings, bank, step + 1)
                self._step(step, batch.to(self.device), corner)
                if part is not None and not last and (step + 1) % _KEEP_EVERY == 0:
                    self._keep(part)
                if held_out and (last or (step + 1) % settings.check_every == 0):
                    image, patch = held_out.score(self.network)
                    recent = self.losses[-50:]
                    bar.write(
                        f"step {step + 1}: loss {sum(recent) / len(recent):.3f}, "
                        f"held-out image AUROC {image:.3f}, patch AUROC {patch:.3f}"
                    )

    def _step(self, step: int, batch: Mosaics, corner: tuple[int, int]) -> None:
        settings = self.settings
        features = patch_features(self.network, batch.images, corner=corner)
        loss = recognition(features, self.head, batch)
        if settings.detection:
            loss = loss + settings.detection * detection(
                features, batch, threshold=settings.threshold, sharpness=settings.sharpness
            )
        self.losses.append(float(loss.detach()))
        if not math.isfinite(self.losses[-1]):
            msg = f"the loss is {self.losses[-1]} at step {step + 1}: give a smaller pretrain.lr"
            raise UserError(msg)
        lr = warm_cosine(
            step + 1,
            base=settings.lr,
            final=settings.lr / 100,
            total=settings.steps,
            warmup=settings.warmup,
        )
        for optimizer in self.optimizers:
            optimizer.zero_grad(set_to_none=True)
            for group in optimizer.param_groups:
                group["lr"] = lr
        loss.backward()
        nn.utils.clip_grad_norm_(self.network.parameters(), settings.gradient_clip)
        for optimizer in self.optimizers:
            optimizer.step()

    def _keep(self, part: Path) -> None:
        content = {
            "identity": self.identity,
            "losses": self.losses,
            "network": self.network.state_dict(),
            "head": self.head.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
        }
        with replacing(part) as temporary:
            torch.save(content, temporary)

    def take_up(self, part: Path) -> None:
        """Go on from what a training that was stopped has kept."""
        try:
            kept: dict[str, Any] = torch.load(part, map_location=self.device, weights_only=True)
            same = kept["identity"] == self.identity
            if same:
                self.network.load_state_dict(kept["network"])
                self.head.load_state_dict(kept["head"])
                for optimizer, state in zip(self.optimizers, kept["optimizers"], strict=True):
                    optimizer.load_state_dict(state)
                self.losses = list(kept["losses"])
        except Exception as error:
            kind = type(error).__name__
            msg = f"{part} cannot be read as a training that was stopped ({kind}): remove it"
            raise UserError(msg) from None
        if not same:
            msg = f"{part} was left by a training with other settings: give those, or remove it"
            raise UserError(msg)


def _draw(settings: PretrainSettings, bank: Tensor, step: int) -> tuple[Mosaics, tuple[int, int]]:
    """Return a step's mosaics, and where on the grid they stand."""
    size = settings.sizes[step % len(settings.sizes)]
    generator = torch_generator(settings.seed, "pretrain", "step", step)
    batch = draw_mosaics(
        bank,
        generator,
        mosaics=max(2, settings.tokens * 64 // (2 * size * size)),
        size=size,
        regions=settings.regions,
        marked=settings.marked,
        single=settings.single,
        aligned=settings.aligned,
    )
    top, left = torch.randint((IMAGE_SIZE - size) // 8 + 1, (2,), generator=generator).tolist()
    return batch, (top, left)


@contextlib.contextmanager
def _repeatable(device: torch.device, threads: int) -> Iterator[None]:
    """Let torch compute in one order only, and as before afterwards."""
    before = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    torch.set_num_threads(threads)
    if device.type != "cpu":  # there, some sums are fast because their order is left open
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(mode=True)
    try:
        yield
    finally:
        torch.set_num_threads(before[0])
        torch.use_deterministic_algorithms(mode=before[1])


def _network(seed: int) -> nn.Module:
    encoder = build_encoder(
        model="embedded", image_size=IMAGE_SIZE, layers=[5], weights="random", seed=seed
    )
    network: nn.Module = encoder.model
    return network.requires_grad_(requires_grad=True).train()


def _optimizers(
    network: nn.Module, head: nn.Module, settings: PretrainSettings
) -> list[torch.optim.Optimizer]:
    """Return Muon for the blocks' matrices and Adam for the rest."""
    named = list(network.named_parameters())
    matrices = [p for name, p in named if "blocks" in name and p.ndim == 2]
    others = [p for name, p in named if not ("blocks" in name and p.ndim == 2)]
    return [
        torch.optim.Muon(
            matrices,
            lr=settings.lr,
            weight_decay=settings.weight_decay,
            adjust_lr_fn="match_rms_adamw",  # one learning rate for both
        ),
        torch.optim.Adam([*others, *head.parameters()], lr=settings.lr, betas=(0.9, 0.98)),
    ]
