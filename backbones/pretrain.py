"""Train the embedded encoder from nothing: ``python -m backbones.pretrain``.

It learns to tell, patch by patch, which of many drawn textures a mosaic shows: features of one
texture gather, whatever the place, and those of anything else lie apart. Beside that, patches with
foreign marks are to be farther from the nearest clean patch of another view than clean ones are,
which is how the memory ensemble finds defects.
"""

from __future__ import annotations

import hashlib
import os
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import hydra
import torch
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from safetensors.torch import save
from torch import Tensor, nn
from tqdm import tqdm

from backbones.mosaics import Mosaics, draw_mosaics
from backbones.objectives import IMAGE_SIZE, HeldOut, detection, patch_features, recognition
from backbones.procedural import texture_bank
from meds_plugin.conf_dir import conf_dir
from meds_plugin.encoder import build_encoder
from meds_plugin.errors import UserError
from meds_plugin.optim import warm_cosine
from meds_plugin.rng import torch_generator, torch_seeded

if TYPE_CHECKING:
    from omegaconf import DictConfig

__all__ = ["PretrainSettings", "main", "pretrain", "write_weights"]


@dataclass(frozen=True)
class PretrainSettings:
    """Everything that the weights depend on.

    Attributes:
        seed: Of every draw.
        steps: Updates.
        textures: Size of the bank that mosaics are made of.
        canvas: Side of a texture in pixels.
        sizes: Sides of the pictures in pixels, step by step in turn, at most 128.
        tokens: Patches a batch.
        regions: Textures a mosaic.
        marked: Share of pictures with foreign marks.
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
        """Check every value that a user may get wrong."""
        object.__setattr__(self, "sizes", tuple(self.sizes))
        for key in ("steps", "textures", "canvas", "tokens", "regions"):
            _require(key, getattr(self, key), ok=getattr(self, key) >= 1, expected="at least 1")
        for size in self.sizes or (0,):
            fits = size % 8 == 0 and 16 <= size <= IMAGE_SIZE
            _require("sizes", size, ok=fits, expected=f"multiples of 8 from 16 to {IMAGE_SIZE}")
        for key in ("marked", "single", "aligned"):
            share = getattr(self, key)
            _require(key, share, ok=0 <= share <= 1, expected="from 0 to 1")
        _require("detection", self.detection, ok=self.detection >= 0, expected="at least 0")


def _require(key: str, value: object, *, ok: bool, expected: str) -> None:
    if not ok:
        msg = f"{key} must be {expected}, got {value!r}"
        raise UserError(msg)


def pretrain(
    settings: PretrainSettings, *, device: torch.device | str = "cpu", progress: bool = False
) -> tuple[dict[str, Tensor], list[float]]:
    """Train the weights.

    Args:
        settings: What to do; the same settings on the same machine give the same weights.
        device: Where to compute; the draws are made on the CPU in any case.
        progress: Show a bar, and the held-out score while it runs.

    Returns:
        The weights by timm's names, on the CPU, float32; the loss of every step.
    """
    network = _network(settings.seed).to(device)
    with torch_seeded(settings.seed, "pretrain", "head"):
        head = nn.Linear(network.get_parameter("norm.weight").numel(), settings.textures).to(device)
    optimizers = _optimizers(network, head, settings)
    bank = texture_bank(settings.textures, settings.canvas, seed=settings.seed, progress=progress)
    held_out = HeldOut(settings.seed, canvas=settings.canvas) if settings.check_every else None
    losses: list[float] = []

    def draw(step: int) -> tuple[Mosaics, list[int]]:
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
        corner = torch.randint((IMAGE_SIZE - size) // 8 + 1, (2,), generator=generator)
        return batch.to(device), corner.tolist()

    ahead = ThreadPoolExecutor(1)
    drawn = ahead.submit(draw, 0)
    bar = tqdm(range(settings.steps), desc="pretrain", disable=not progress, mininterval=5)
    for step in bar:
        batch, (top, left) = drawn.result()
        drawn = ahead.submit(draw, step + 1)
        features = patch_features(network, batch.images, corner=(top, left))
        loss = recognition(features, head, batch)
        if settings.detection:
            loss = loss + settings.detection * detection(
                features, batch, threshold=settings.threshold, sharpness=settings.sharpness
            )
        for group in [group for each in optimizers for group in each.param_groups]:
            group["lr"] = warm_cosine(
                step + 1,
                base=settings.lr,
                final=settings.lr / 100,
                total=settings.steps,
                warmup=settings.warmup,
            )
        for optimizer in optimizers:
            optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), settings.gradient_clip)
        for optimizer in optimizers:
            optimizer.step()
        losses.append(float(loss.detach()))
        last = step + 1 == settings.steps
        if held_out and (last or (step + 1) % settings.check_every == 0):
            score = held_out.score(network)
            tqdm.write(
                f"step {step + 1}: loss {sum(losses[-50:]) / len(losses[-50:]):.3f}, "
                f"held-out image AUROC {score[0]:.3f}, patch AUROC {score[1]:.3f}"
            )
    ahead.shutdown(cancel_futures=True)
    state = {name: value.detach().cpu() for name, value in network.state_dict().items()}
    return state, losses


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


def write_weights(path: Path, state: dict[str, Tensor], dtype: torch.dtype) -> str:
    """Write a safetensors file, whole or not at all; return its SHA-256."""
    content = save({name: value.to(dtype).contiguous() for name, value in state.items()})
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_bytes(content)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    return hashlib.sha256(content).hexdigest()


@hydra.main(version_base="1.3", config_path=conf_dir(), config_name="pretrain")
def _hydra_main(config: DictConfig) -> None:
    given = OmegaConf.to_container(config.pretrain, resolve=True)
    try:
        settings = PretrainSettings(**given)  # type: ignore[arg-type]
    except UserError as error:
        _refuse(error)  # raised through Hydra, it would be printed twice
    output = Path(config.output)
    torch.set_num_threads(config.threads)
    device = config.device
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if device != "cpu":  # there, some sums are fast because their order is left open
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(mode=True)
    start = time.perf_counter()
    state, losses = pretrain(settings, device=device, progress=True)
    checksum = write_weights(output, state, torch.float16 if config.half else torch.float32)
    seconds = time.perf_counter() - start
    print(f"{output}: sha256 {checksum}, last loss {losses[-1]:.3f}, {seconds:.0f} s on {device}")


def _refuse(error: Exception) -> NoReturn:
    print(f"backbones.pretrain: {' '.join(str(error).split())}", file=sys.stderr)
    sys.exit(2)


def main() -> None:
    """Run the command line; ends with status 2 and one line where the input is wrong."""
    os.environ["HYDRA_FULL_ERROR"] = "1"  # errors reach this function instead of Hydra's printer
    try:
        _hydra_main()
    except (HydraException, OmegaConfBaseException) as error:
        _refuse(error)


if __name__ == "__main__":
    main()
