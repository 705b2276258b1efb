"""Learns from a reviewer's decisions which of the other images are contaminated."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.linalg import cho_factor, cho_solve, solve_triangular
from scipy.special import expit

from meds_plugin.metrics.contamination import standardised

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import ArrayLike, NDArray

    Array = NDArray[np.float64]

__all__ = ["contamination_probability"]

# Log odds expected before the first decision: 1 to 50 at the median score.
_OFFSET, _SLOPE = -4.0, 2.5
# How far decisions may move that: standard deviations of the offset, of each category's own, and of
# the slope.
_OFFSET_SPREAD, _CATEGORY_SPREAD, _SLOPE_SPREAD = 1.0, 0.3, 0.7
# Variance, and distance (1 - cosine) within which images share what is learned.
_KERNELS = {"peak": (1.0, 0.5), "image": (2.0, 0.4)}
_STEPS = 50


def contamination_probability(
    scores: ArrayLike,
    categories: Sequence[str],
    decided: ArrayLike,
    dropped: ArrayLike,
    embeddings: Mapping[str, NDArray[np.float32]] | None = None,
) -> Array:
    """Return each image's probability of contamination, given the decisions on some of them.

    A Gaussian process with a logistic likelihood, in Laplace's approximation (Rasmussen and
    Williams, "Gaussian Processes for Machine Learning", 2006, algorithms 3.1 and 3.2). Its mean
    rises with the score, so that without a decision the order of a category is that of the scores;
    decisions shift it, change how much scores count, and carry over to images of the category that
    look alike.

    Args:
        scores: ``[N]`` finite scores, higher = more suspicious.
        categories: The category of each image.
        decided: ``[n]`` indices of the images that were looked at, possibly none.
        dropped: ``[n]`` whether each of these is contaminated.
        embeddings: ``peak`` and ``image``, each ``[N, D]``; ``None``: learn from the scores alone.

    Returns:
        ``[N]`` in [0, 1], of the decided images, too.
    """
    names, seen = np.asarray(categories), np.asarray(decided, dtype=np.int64)
    score = _deviations(np.asarray(scores, dtype=np.float64), names)
    mean = _OFFSET + _SLOPE * score
    vectors = (
        []
        if embeddings is None
        else [
            (_centred(embeddings[name], names), variance, reach)
            for name, (variance, reach) in _KERNELS.items()
        ]
    )
    prior = _OFFSET_SPREAD**2 + _CATEGORY_SPREAD**2 + (_SLOPE_SPREAD * score) ** 2
    prior += sum(variance for _, variance, _ in vectors)
    same = names[:, None] == names[seen]
    shared = _OFFSET_SPREAD**2 + _SLOPE_SPREAD**2 * np.outer(score, score[seen])
    shared += _CATEGORY_SPREAD**2 * same
    for unit, variance, reach in vectors:
        shared += variance * same * np.exp((unit @ unit[seen].T - 1.0) / reach)
    label = np.asarray(dropped, dtype=np.float64)
    weights, root, factor = _mode(shared[seen], mean[seen], label)
    latent = mean + shared @ weights
    explained = solve_triangular(factor, root[:, None] * shared.T, lower=True)
    variance = np.maximum(prior - (explained**2).sum(0), 0.0)
    # The logistic function averaged over a normal distribution (MacKay 1992).
    return np.asarray(expit(latent / np.sqrt(1.0 + np.pi * variance / 8.0)))


def _mode(kernel: Array, mean: Array, label: Array) -> tuple[Array, Array, Array]:
    """Find the most probable log odds of the decided images by Newton's method.

    Returns:
        The weights ``a`` with ``log odds = mean + kernel @ a``, and for the variance the square
        roots of the likelihood's curvature and the lower Cholesky factor of
        ``1 + root * kernel * root``.
    """
    weights = np.zeros_like(mean)
    best = -np.inf
    step = np.zeros_like(mean)
    for _ in range(_STEPS):
        size = 1.0
        while True:  # a full step may overshoot where an image is a surprise
            trial = weights + size * step
            latent = mean + kernel @ trial
            fit = -np.logaddexp(0.0, np.where(label > 0, -latent, latent)).sum()
            value = fit - 0.5 * trial @ (latent - mean)
            if value >= best or size < 1e-4:
                break
            size /= 2
        gain, best, weights = value - best, value, trial
        chance = expit(latent)
        curvature = np.maximum(chance * (1.0 - chance), 1e-9)
        root = np.sqrt(curvature)
        factor = cho_factor(np.eye(len(mean)) + root[:, None] * kernel * root, lower=True)
        if gain < 1e-8:
            break
        target = curvature * (latent - mean) + label - chance
        step = target - root * cho_solve(factor, root * (kernel @ target)) - weights
    return label - chance, root, np.tril(factor[0])


def _deviations(scores: Array, names: NDArray[np.str_]) -> Array:
    """Return robust deviations from each category's median, large ones compressed."""
    result = np.zeros(len(scores))
    for name in np.unique(names):
        own = names == name
        found = standardised(scores[own])
        if found is not None:
            result[own] = np.sign(found) * np.log1p(np.abs(found))
    return result


def _centred(vectors: NDArray[np.float32], names: NDArray[np.str_]) -> Array:
    """Return unit vectors from each category's mean: what all its images show says nothing."""
    result = vectors.astype(np.float64)
    for name in np.unique(names):
        result[names == name] -= result[names == name].mean(0)
    result /= np.maximum(np.linalg.norm(result, axis=1, keepdims=True), 1e-9)
    return result
