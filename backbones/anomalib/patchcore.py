"""anomalib's PatchCore as a scorer of training images.

PatchCore stores a coreset of the training set's features and has no loss to train by, so it is no
detector here; but it can tell which training images to review first. Its coreset is picked by
distance, rarest patches first, and a stored defect scores 0. Every image is therefore scored by a
memory of other images.
"""

from __future__ import annotations

import contextlib
import io
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from backbones.anomalib.library import build_model
from meds_plugin.encoding.reader import ImageReader, images_of
from meds_plugin.utils.errors import UserError
from meds_plugin.utils.groups import group_indices
from meds_plugin.utils.rng import derive_seed, torch_generator, torch_seeded

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["patchcore_scores"]


@torch.no_grad()
def patchcore_scores(
    loader: object,
    *,
    folds: int = 5,
    seed: int = 0,
    device: torch.device | str = "cpu",
    progress: bool = False,
    **arguments: Any,
) -> Tensor:
    """Score training images by anomalib's PatchCore, to rank them.

    The images of each category are split into folds; those of a fold are scored by a memory of the
    others.

    Args:
        loader: A `torch.utils.data.DataLoader` of ImageNet-normalised images ``[B, 3, H, W]``; its
            order is not used. If its data set has ``categories`` (or ``groups``), each gets a
            memory of its own.
        folds: Number of folds, reduced to one an image where images are fewer; 1: all images are in
            the memory that scores them, as in anomalib.
        seed: For the folds and the coreset.
        device: Where the model runs.
        progress: Show anomalib's progress bar for each coreset.
        **arguments: For ``anomalib.models.Patchcore``: ``backbone``, ``layers``,
            ``coreset_sampling_ratio``, ``num_neighbors``, ``pre_trained``.

    Returns:
        ``[N]`` image scores on the CPU in the data set's order, >= 0, higher = more suspicious.

    Raises:
        UserError: If anomalib is not installed, the arguments do not fit, or a category has too few
            images for two folds.
        TypeError: If the loader is no data loader.

    Example:
        >>> scores = patchcore_scores(loader)
        >>> suspicious_first = scores.argsort(descending=True)
        >>> meds_plugin.ranking.auprc(scores, is_defective)  # where it is known
    """
    if not isinstance(folds, int) or folds < 1:
        msg = f"folds must be a whole number of at least 1, got {folds!r}"
        raise UserError(msg)
    reader = ImageReader(loader)
    module = build_model("Patchcore", seed=seed, **arguments)
    model = module.model.to(device).eval()
    scores = torch.zeros(len(reader))
    for category, members in group_indices(reader.categories).items():
        for fold, (stored, scored) in enumerate(_split(members.tolist(), folds, seed, category)):
            model.train()
            for images in _images(reader, stored, device):
                model(images)  # in training mode, it stores the features
            model.eval()
            with _seeded(seed, category, fold), _quiet(progress):
                model.subsample_embedding(module.coreset_sampling_ratio)
            found = [model(images).pred_score.cpu() for images in _images(reader, scored, device)]
            scores[torch.tensor(scored)] = torch.cat(found).float()
    return scores


def _split(
    members: list[int], folds: int, seed: int, category: str
) -> Iterator[tuple[list[int], list[int]]]:
    """Yield, for each fold, the images to store and the images to score."""
    if folds == 1:
        yield members, members
        return
    if len(members) < 2:
        msg = f"category {category!r} has only one image: nothing to compare it with"
        raise UserError(msg)
    generator = torch_generator(seed, "patchcore", "folds", category)
    order = torch.randperm(len(members), generator=generator).tolist()
    count = min(folds, len(members))
    for fold in range(count):
        scored = {members[place] for place in order[fold::count]}
        yield [i for i in members if i not in scored], sorted(scored)


def _images(
    reader: ImageReader, indices: list[int], device: torch.device | str
) -> Iterator[Tensor]:
    size = reader.batch_size
    plan = [indices[start : start + size] for start in range(0, len(indices), size)]
    for batch in reader.batches(plan):
        yield images_of(batch).to(device)


@contextlib.contextmanager
def _seeded(seed: int, category: str, fold: int) -> Iterator[None]:
    """Seed the global generators of torch and numpy, from which anomalib samples."""
    state = np.random.get_state()  # noqa: NPY002
    np.random.seed(derive_seed(seed, "patchcore", category, fold) % 2**32)  # noqa: NPY002
    try:
        with torch_seeded(seed, "patchcore", category, fold):
            yield
    finally:
        np.random.set_state(state)  # noqa: NPY002


@contextlib.contextmanager
def _quiet(progress: bool) -> Iterator[None]:
    """Hide anomalib's progress bar, which has no switch, and the warnings about its own code."""
    shown = contextlib.nullcontext() if progress else contextlib.redirect_stderr(io.StringIO())
    with warnings.catch_warnings(), shown:
        warnings.simplefilter("ignore", DeprecationWarning)
        yield
