"""Vector quantisation by codebooks that follow the data: one set of codes for each category."""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor, nn

from backbones.hvq.ranks import first_with, max_over_ranks, sum_over_ranks
from backbones.shared.arguments import check_choice, check_counts, check_rates
from meds_plugin.utils.rng import torch_generator

__all__ = ["CodebookInit", "CodebookUpdate", "Codebooks"]

CodebookInit = Literal["data", "normal", "reference"]
CodebookUpdate = Literal["batch", "image"]

SMOOTHING = 1e-5


class Codebooks(nn.Module):
    """K sets of codes, one a category; tokens are replaced by the nearest code of their set.

    In training, each code is a moving average of the tokens it stands for. Codes are buffers, not
    parameters.

    Args:
        sets: Number K of sets.
        codes: Codes in a set.
        dim: Width D of tokens and codes.
        decay: Of the moving averages, per image.
        init: How codes start. ``data``: as tokens sampled from the first batch with images of the
            category. ``normal``: normal random vectors that count as one token each.
            ``reference``: normal random vectors that count as none, so that the first update
            throws every code without tokens far away, never to return.
        update: When codes move. ``batch``: once a batch, after all its lookups; the order of the
            images does not matter. ``image``: after each image of their category, as in the
            reference, so that a second image finds other codes; this takes as many rounds as the
            most frequent category has images.
        revival: Codes whose moving average is below this share of the set's mean are replaced by
            tokens sampled from the batch; 0: never, as in the reference.
        seed: For the initial codes and sampled tokens.
        level: Distinguishes the random numbers of a detector's codebooks.

    Attributes:
        embed: ``[K, codes, D]`` codes.
        cluster_size: ``[K, codes]`` moving average of the number of tokens per image.
        embed_avg: ``[K, codes, D]`` moving average of the sum of those tokens.
        started: ``[K]`` bool; False until a set has its first codes.
        draws: How many times tokens have been sampled.

    Raises:
        UserError: If an argument is out of range.

    Source:
        docs/method.md, section 6, HVQ; values of `init`, `update` and `revival` other
        than the reference's are ours.
    """

    embed: Tensor
    cluster_size: Tensor
    embed_avg: Tensor
    started: Tensor
    draws: Tensor

    def __init__(
        self,
        sets: int,
        codes: int,
        dim: int,
        *,
        decay: float = 0.99,
        init: CodebookInit = "data",
        update: CodebookUpdate = "batch",
        revival: float = 0.0,
        seed: int = 0,
        level: int = 0,
    ) -> None:
        super().__init__()
        check_choice("codebook_init", init, get_args(CodebookInit))
        check_choice("codebook_update", update, get_args(CodebookUpdate))
        check_counts(classes=sets, codes=codes)
        check_rates(decay=decay, revival=revival)
        self.decay = decay
        self.update_rule = update
        self.revival = revival
        self.seed = seed
        self.level = level
        generator = torch_generator(seed, "codebooks", "start", level)
        embed = torch.randn(sets, codes, dim, generator=generator)
        self.register_buffer("embed", embed)
        count = torch.ones if init == "normal" else torch.zeros
        self.register_buffer("cluster_size", count(sets, codes))
        self.register_buffer("embed_avg", embed.clone())
        self.register_buffer("started", torch.full((sets,), init != "data"))
        self.register_buffer("draws", torch.zeros((), dtype=torch.long))
        # Version of `started` in which all sets had started: reading it at every step would make an
        # accelerator wait.
        self._started_version = -1

    def forward(self, tokens: Tensor, category: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Replace tokens by codes; in training, move the codes.

        Args:
            tokens: ``[B, T, D]``.
            category: ``[B]`` indices of the sets, 0..K-1.

        Returns:
            ``[B, T, D]`` codes, whose gradient goes to the tokens unchanged (straight-through); the
            mean squared difference of tokens and codes, a scalar whose gradient goes to the tokens;
            ``[B, T]`` indices of the codes.
        """
        with torch.autocast(tokens.device.type, enabled=False):
            tokens = tokens.float()
            fixed = tokens.detach()
            if self.training:
                self._replace_lost(fixed, category)
            if self.training and self.update_rule == "image":
                codes, ids = self._in_rounds(fixed, category)
            else:
                codes, ids = self._lookup(fixed, category)
                if self.training:
                    self._move(fixed, ids, category)
            latent = (codes - tokens).square().mean()
            return tokens + (codes - fixed), latent, ids

    def codes_of(self, category: Tensor) -> Tensor:
        """Return the codes of each image's set, ``[B, codes, D]``, or ``[1, ...]`` where K = 1."""
        return self.embed if len(self.embed) == 1 else self.embed[category]

    @torch.no_grad()
    def _lookup(self, tokens: Tensor, category: Tensor) -> tuple[Tensor, Tensor]:
        """Return the nearest codes ``[B, T, D]`` and their indices ``[B, T]``."""
        own = self.codes_of(category)
        # The squared distance, less the token's own square.
        distance = own.square().sum(-1).unsqueeze(1) - 2.0 * (tokens @ own.mT)
        ids = distance.argmin(dim=-1)
        return self.embed.flatten(0, 1)[self._places(ids, category)], ids

    def _places(self, ids: Tensor, category: Tensor) -> Tensor:
        """Return ``[B, T]`` indices of codes among those of all sets."""
        return category.unsqueeze(1) * self.embed.shape[1] + ids

    @torch.no_grad()
    def _in_rounds(self, tokens: Tensor, category: Tensor) -> tuple[Tensor, Tensor]:
        """Look up and move the codes after the first image of each category, the second, ..."""
        codes, ids = torch.empty_like(tokens), category.new_empty(tokens.shape[:2])
        same = category.unsqueeze(1) == category.unsqueeze(0)
        turn = same.tril(-1).sum(dim=1)  # images of the same category that come before
        # Every process has to take part in each round's sums.
        for now in range(max_over_ranks(turn) + 1):
            members = (turn == now).nonzero().squeeze(1)
            codes[members], ids[members] = self._lookup(tokens[members], category[members])
            self._move(tokens[members], ids[members], category[members])
        return codes, ids

    @torch.no_grad()
    def _move(self, tokens: Tensor, ids: Tensor, category: Tensor) -> None:
        """Update the moving averages, and the codes of the categories in the batch."""
        sets, codes, dim = self.embed.shape
        places = self._places(ids, category).flatten()
        counts = _counts(places, sets * codes).view(sets, codes)
        sums = tokens.new_zeros(sets * codes, dim).index_add_(0, places, tokens.flatten(0, 1))
        images = _counts(category, sets).unsqueeze(1)
        counts, sums, images = sum_over_ranks(counts, sums.view_as(self.embed), images)
        remaining = self.decay**images
        share = (1.0 - remaining) / images.clamp_min(1.0)
        self.cluster_size.mul_(remaining).add_(share * counts)
        self.embed_avg.mul_(remaining.unsqueeze(-1)).add_(share.unsqueeze(-1) * sums)
        total = self.cluster_size.sum(dim=1, keepdim=True)
        smooth = (self.cluster_size + SMOOTHING) / (total + codes * SMOOTHING) * total
        present = (images > 0).unsqueeze(-1)
        self.embed.copy_(torch.where(present, self.embed_avg / smooth.unsqueeze(-1), self.embed))

    def _all_started(self) -> bool:
        """Whether all sets have codes; once seen, it holds until `started` is written to."""
        if self._started_version != self.started._version and bool(self.started.all()):
            self._started_version = self.started._version
        return self._started_version == self.started._version

    @torch.no_grad()
    def _replace_lost(self, tokens: Tensor, category: Tensor) -> None:
        """Replace codes of sets that have not started, and codes that stand for nothing, by tokens.

        In a distributed job, a set takes them from the first process that has images of it.
        """
        if not self.revival and self._all_started():
            return
        sets, codes = self.cluster_size.shape
        images = torch.bincount(category, minlength=sets)
        (everywhere,) = sum_over_ranks(images.clone())
        mean = self.cluster_size.mean(dim=1, keepdim=True)
        lost = (self.cluster_size < self.revival * mean) | ~self.started.unsqueeze(1)
        lost &= (everywhere > 0).unsqueeze(1)
        if not bool(lost.any()):
            return
        length = tokens.shape[1]
        generator = torch_generator(self.seed, "codebooks", "draw", self.level, int(self.draws))
        shuffled = torch.randperm(tokens.shape[0] * length, generator=generator).to(tokens.device)
        # The tokens set by set, in random order within a set.
        order = shuffled[category.repeat_interleave(length)[shuffled].argsort(stable=True)]
        available = (images * length).clamp_min(1).unsqueeze(1)
        start = (images.cumsum(0) - images).unsqueeze(1) * length
        turn = (lost.cumsum(1) - 1).clamp_min(0) % available
        sampled = tokens.flatten(0, 1)[order[(start + turn).clamp_max(len(order) - 1)]]
        (sampled,) = sum_over_ranks(sampled * first_with(images > 0).view(-1, 1, 1))
        # They start with the average weight of a code.
        weight = torch.where(self.started.unsqueeze(1), mean, length / codes)
        self.embed.copy_(torch.where(lost.unsqueeze(-1), sampled, self.embed))
        self.cluster_size.copy_(torch.where(lost, weight, self.cluster_size))
        heavy = self.embed * self.cluster_size.unsqueeze(-1)
        self.embed_avg.copy_(torch.where(lost.unsqueeze(-1), heavy, self.embed_avg))
        self.started |= everywhere > 0
        self.draws += 1


def _counts(places: Tensor, size: int) -> Tensor:
    """Return how often each of 0..size-1 occurs; `torch.bincount` waits for an accelerator."""
    ones = torch.ones(len(places), device=places.device)
    return ones.new_zeros(size).index_add_(0, places, ones)
