"""Train the embedded encoder from nothing: ``python -m backbones.pretrain``.

Of two views of a mosaic of textures, every patch is to be closer to its own texture in the other
view than to anything else: other textures, places where textures meet, foreign marks. Closeness is
the cosine that the memory ensemble compares patches by, of the very features that it stores.
"""

from __future__ import annotations

import hashlib
import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hydra
import torch
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from safetensors.torch import save
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

from backbones.mosaics import IGNORED, MARKED, Mosaics, draw_mosaics
from backbones.procedural import texture_bank
from meds_plugin.conf_dir import conf_dir
from meds_plugin.encoder import build_encoder
from meds_plugin.errors import UserError
from meds_plugin.optim import warm_cosine
from meds_plugin.rng import torch_generator

if TYPE_CHECKING:
    from omegaconf import DictConfig

__all__ = [
    "HeldOut",
    "PretrainSettings",
    "contrast",
    "main",
    "patch_features",
    "pretrain",
    "write_weights",
]

IMAGE_SIZE = 128  # the embedded encoder's weights are made at


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
        anchors: Patches that are compared with all the others of their batch.
        temperature: Divides the cosines.
        spread: 0: a patch has to find one like it in the other view; 1: all patches of its texture
            there have to be like it; between: the mean of the two losses.
        lr: Learning rate after the warm-up; it falls to a hundredth.
        warmup: Steps of the warm-up.
        weight_decay: AdamW's, of matrices only.
        gradient_clip: Largest norm of the gradient.
        check_every: Steps between held-out scores; 0: never.
    """

    seed: int = 0
    steps: int = 2000
    textures: int = 1024
    canvas: int = 160
    sizes: tuple[int, ...] = (64, 64, 128)
    tokens: int = 2048
    anchors: int = 768
    temperature: float = 0.1
    spread: float = 0.5
    lr: float = 1e-3
    warmup: int = 50
    weight_decay: float = 0.05
    gradient_clip: float = 1.0
    check_every: int = 250

    def __post_init__(self) -> None:
        """Check every value that a user may get wrong."""
        object.__setattr__(self, "sizes", tuple(self.sizes))
        for key in ("steps", "textures", "canvas", "tokens", "anchors"):
            _require(key, getattr(self, key), ok=getattr(self, key) >= 1, expected="at least 1")
        for size in self.sizes or (0,):
            fits = size % 8 == 0 and 16 <= size <= IMAGE_SIZE
            _require("sizes", size, ok=fits, expected=f"multiples of 8 from 16 to {IMAGE_SIZE}")
        _require("spread", self.spread, ok=0 <= self.spread <= 1, expected="from 0 to 1")
        positive = self.temperature > 0
        _require("temperature", self.temperature, ok=positive, expected="above 0")


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
    decayed = [p for n, p in network.named_parameters() if p.ndim > 1 and "blocks" in n]
    rest = [p for n, p in network.named_parameters() if not (p.ndim > 1 and "blocks" in n)]
    optimizer = torch.optim.AdamW(
        [
            {"params": decayed, "weight_decay": settings.weight_decay},
            {"params": rest, "weight_decay": 0.0},
        ],
        lr=settings.lr,
        betas=(0.9, 0.98),
    )
    bank = texture_bank(settings.textures, settings.canvas, seed=settings.seed)
    held_out = HeldOut(settings) if settings.check_every else None
    losses: list[float] = []
    bar = tqdm(range(settings.steps), desc="pretrain", disable=not progress, mininterval=5)
    for step in bar:
        size = settings.sizes[step % len(settings.sizes)]
        mosaics = max(2, settings.tokens * 64 // (2 * size * size))
        generator = torch_generator(settings.seed, "pretrain", "step", step)
        batch = draw_mosaics(bank, generator, mosaics=mosaics, size=size).to(device)
        corner = torch.randint((IMAGE_SIZE - size) // 8 + 1, (2,), generator=generator).tolist()
        chosen = torch.randperm(batch.labels.numel(), generator=generator)
        features = patch_features(network, batch.images, corner=(corner[0], corner[1]))
        loss = contrast(
            features,
            batch,
            order=chosen.to(device),
            anchors=settings.anchors,
            temperature=settings.temperature,
            spread=settings.spread,
        )
        for group in optimizer.param_groups:
            group["lr"] = warm_cosine(
                step + 1,
                base=settings.lr,
                final=settings.lr / 100,
                total=settings.steps,
                warmup=settings.warmup,
            )
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), settings.gradient_clip)
        optimizer.step()
        losses.append(float(loss.detach()))
        last = step + 1 == settings.steps
        if held_out and (last or (step + 1) % settings.check_every == 0):
            score = held_out.score(network)
            tqdm.write(
                f"step {step + 1}: loss {sum(losses[-50:]) / len(losses[-50:]):.3f}, "
                f"held-out image AUROC {score[0]:.3f}, patch AUROC {score[1]:.3f}"
            )
    state = {name: value.detach().cpu() for name, value in network.state_dict().items()}
    return state, losses


def patch_features(
    network: nn.Module, images: Tensor, *, corner: tuple[int, int] = (0, 0)
) -> Tensor:
    """Return the embedded encoder's memory features, with gradients, also of smaller images.

    Args:
        network: The encoder's transformer, made for 128 pixels.
        images: Normalised, ``[B, 3, S, S]``, S at most 128.
        corner: Row and column of the patch grid that the images' first patch stands at.

    Returns:
        ``[B, P, D]``; for 128 pixels the same as `ViTEncoder.features`.
    """
    vit: Any = network
    tokens = vit.patch_embed.proj(images)
    height, width = tokens.shape[2:]
    side = IMAGE_SIZE // 8
    positions = vit.pos_embed.view(1, side, side, -1)
    top, left = corner
    positions = positions[:, top : top + height, left : left + width].flatten(1, 2)
    tokens = tokens.flatten(2).transpose(1, 2) + positions
    tokens = torch.cat([vit.cls_token.expand(len(tokens), -1, -1), tokens], dim=1)
    features: Tensor = vit.norm(vit.blocks(tokens))[:, 1:]
    return features


def contrast(
    features: Tensor,
    batch: Mosaics,
    *,
    order: Tensor,
    anchors: int,
    temperature: float,
    spread: float,
) -> Tensor:
    """Return the loss: how little patches resemble their likes in the other view.

    Args:
        features: ``[V, P, D]``.
        batch: What the patches show.
        order: A permutation of all V * P patches; the first usable ones are the anchors.
        anchors: Their number at most.
        temperature: Divides the cosines.
        spread: See `PretrainSettings`.

    Returns:
        A scalar >= 0. Patches of the same label in the same view, other meeting places of the same
        mosaic and doubtful patches count neither for nor against.
    """
    views, patches = batch.labels.shape
    labels, mixed = batch.labels.flatten(), batch.mixed.flatten()
    view = torch.arange(views, device=labels.device).repeat_interleave(patches)
    mosaic = batch.mosaic.repeat_interleave(patches)
    usable = order[labels[order] >= 0][:anchors]
    unit = F.normalize(features.flatten(0, 1), dim=1)
    similar = unit[usable] @ unit.T / temperature
    same_label = labels[usable, None] == labels
    same_view = view[usable, None] == view
    same_pair = mosaic[usable, None] == mosaic
    positive = same_label & ~same_view
    void = (same_label & same_view) | (labels == IGNORED)
    edges = mixed[usable, None] & mixed & (labels != MARKED) & same_pair & ~same_label
    everything = torch.logsumexp(similar.masked_fill(void | edges, -1e4), dim=1)
    nearest = torch.logsumexp(similar.masked_fill(~positive, -1e4), dim=1)
    count = positive.sum(dim=1)
    mean = similar.where(positive, 0).sum(dim=1) / count.clamp(min=1)
    each = everything - (1 - spread) * nearest - spread * mean
    return each.where(count > 0, 0).sum() / (count > 0).sum().clamp(min=1)


class HeldOut:
    """Foreign marks on textures that are not trained on, to be found by the nearest stored patch.

    Args:
        settings: Seed and size of the textures.
        textures: Their number.
    """

    def __init__(self, settings: PretrainSettings, textures: int = 12) -> None:
        bank = texture_bank(textures, settings.canvas, seed=settings.seed, purpose="held-out")
        generator = torch_generator(settings.seed, "pretrain", "held-out")
        self.batches = [
            draw_mosaics(
                each, generator, mosaics=len(each), views=12, size=IMAGE_SIZE, single=1, marked=0.5
            )
            for each in bank.split(3)
        ]

    @torch.no_grad()
    def score(self, network: nn.Module) -> tuple[float, float]:
        """Return AUROC over images (by the largest patch distance) and over patches."""
        device = next(network.parameters()).device
        scores = []
        for batch in self.batches:
            features = patch_features(network, batch.images.to(device)).cpu()
            for mosaic in batch.mosaic.unique():
                own = batch.mosaic == mosaic
                scores.append(_find(F.normalize(features[own], dim=-1), batch.labels[own]))
        known = torch.tensor([score for score in scores if score is not None])
        image, patch = known.mean(dim=0).tolist()
        return image, patch


def _find(features: Tensor, labels: Tensor) -> tuple[float, float] | None:
    """Store the first half of the clean views, search with all other views."""
    clean = (labels >= 0).all(dim=1).nonzero()[:, 0]
    stored = clean[: (len(clean) + 1) // 2]
    rest = torch.ones(len(labels), dtype=torch.bool)
    rest[stored] = False
    defect = labels[rest] == MARKED
    images = defect.any(dim=1)
    if not len(stored) or not bool(images.any()) or bool(images.all()):
        return None
    distance = 1 - (features[rest] @ features[stored].flatten(0, 1).T).amax(dim=-1)
    sure = labels[rest] != IGNORED
    return _auroc(distance.amax(dim=1), images), _auroc(distance[sure], defect[sure])


def _auroc(scores: Tensor, positive: Tensor) -> float:
    """Return the chance that a positive scores higher than a negative; ties do not matter here."""
    ranks = scores.argsort().argsort().double() + 1
    count, others = int(positive.sum()), int((~positive).sum())
    return float((ranks[positive].sum() - count * (count + 1) / 2) / (count * others))


def _network(seed: int) -> nn.Module:
    encoder = build_encoder(
        model="embedded", image_size=IMAGE_SIZE, layers=[5], weights="random", seed=seed
    )
    network: nn.Module = encoder.model
    return network.requires_grad_(requires_grad=True).train()


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
    settings = PretrainSettings(**given)  # type: ignore[arg-type]
    output = Path(config.output)
    torch.set_num_threads(config.threads)
    device = config.device
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    start = time.perf_counter()
    state, losses = pretrain(settings, device=device, progress=True)
    checksum = write_weights(output, state, torch.float16 if config.half else torch.float32)
    seconds = time.perf_counter() - start
    print(f"{output}: sha256 {checksum}, last loss {losses[-1]:.3f}, {seconds:.0f} s on {device}")


def main() -> None:
    """Run the command line; ends with status 2 and one line where the input is wrong."""
    os.environ["HYDRA_FULL_ERROR"] = "1"  # errors reach this function instead of Hydra's printer
    try:
        _hydra_main()
    except (UserError, HydraException, OmegaConfBaseException) as error:
        print(f"backbones.pretrain: {' '.join(str(error).split())}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
