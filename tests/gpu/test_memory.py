"""Memory scores on a GPU are those of a CPU, wherever the vectors are stored."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import Tensor

from meds_plugin.memory import (
    bootstrap_scores,
    expected_scores,
    gap_curve,
    patch_vectors,
    sample_subsets,
)
from meds_plugin.memory.embeddings import embed
from meds_plugin.memory.interval import interval_scores
from meds_plugin.memory.neighbors import nearest_distances
from meds_plugin.memory.patch_vectors import PatchVectors, vector_bytes
from meds_plugin.memory.refinement import refined_scores

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from meds_plugin.memory.neighbors import Backend

pytestmark = pytest.mark.gpu

CPU = torch.device("cpu")
IMAGES, PATCHES, CHANNELS = 24, 36, 40
FLOAT32 = 1e-5
BFLOAT16 = 2**-6  # both round vectors and distances to 8 bits, perhaps differently
PAIRS = torch.arange(IMAGES) // 2
VIEWS = ["top", "side", "side"] * (IMAGES // 3)
SUBSETS = sample_subsets(IMAGES, 0.2, 9, generator=torch.Generator().manual_seed(0))
SOME = torch.arange(0, IMAGES, 2)
# Too few bytes for all pairs at once: enough for strips of columns, and for single rows only.
STRIPS, ROWS = IMAGES * PATCHES * 4 * 22, IMAGES * PATCHES * 4

CALLS: dict[str, Callable[[PatchVectors], Tensor]] = {
    "all pairs": lambda v: expected_scores(v, 0.1),
    "strips": lambda v: expected_scores(v, 0.7, memory_budget=STRIPS),
    "rows": lambda v: expected_scores(v, 0.1, memory_budget=ROWS),
    "without replacement": lambda v: expected_scores(v, 0.1, replacement=False),
    "others only": lambda v: expected_scores(v, 0.1, leave_self_out=True),
    "clusters": lambda v: expected_scores(v, 0.2, clusters=PAIRS),
    "views": lambda v: expected_scores(v, 0.2, strata=VIEWS, replacement=False),
    "stored": lambda v: expected_scores(v, 0.3, stored=10),
    "stored, clusters, views": lambda v: expected_scores(
        v, 0.3, stored=6, clusters=PAIRS, strata=["top", "side"] * (IMAGES // 2)
    ),
    "curve": lambda v: gap_curve(v, [0.05, 0.5, 1.0]),
    "curve, stored": lambda v: gap_curve(v, [0.1, 0.5], stored=10),
    "queries": lambda v: expected_scores(v, 0.1, queries=made_up(5, seed=1)),
    "patches": lambda v: expected_scores(v, 0.1, unit="patch", search="torch"),
    "bootstrap": lambda v: bootstrap_scores(v, SUBSETS, decimals=None),
    "bootstrap, rows": lambda v: bootstrap_scores(v, SUBSETS, decimals=None, memory_budget=1),
    "interval": lambda v: interval_scores(v, (0.0, 0.3)),
    "interval, clusters": lambda v: interval_scores(v, (0.1, 0.5), clusters=PAIRS),
}


def made_up(count: int = IMAGES, *, seed: int = 0) -> Tensor:
    """Return ``[N, P, D]`` features of textures that images share."""
    generator = torch.Generator().manual_seed(seed)
    textures = torch.randn(6, CHANNELS, generator=torch.Generator().manual_seed(9))
    layout = torch.randint(6, (count, PATCHES), generator=generator)
    return textures[layout] + 0.5 * torch.randn(count, PATCHES, CHANNELS, generator=generator)


def vectors_on(device: torch.device, dtype: torch.dtype = torch.float32) -> PatchVectors:
    return PatchVectors.of(made_up().to(device), dtype)


@pytest.fixture(params=["device", "host", "file"])
def stored(
    request: pytest.FixtureRequest,
    device: torch.device,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> PatchVectors:
    """Return vectors that are compared on the device and stored there or elsewhere."""
    if request.param == "device":
        return vectors_on(device)
    size = vector_bytes(IMAGES, PATCHES, CHANNELS, dtype=torch.float32, device=device)
    # So that several pieces are fetched.
    monkeypatch.setattr(patch_vectors, "_FETCHED_BYTES", size * 5 // IMAGES)
    file = None
    if request.param == "file":
        file = tmp_path / "vectors"
        file.write_bytes(bytes(size))
    vectors = PatchVectors(IMAGES, PATCHES, CHANNELS, device=device, home=CPU, file=file)
    vectors.put(range(IMAGES), made_up().to(device))
    return vectors


@pytest.mark.parametrize("name", CALLS)
def test_scores_are_those_of_a_cpu(stored: PatchVectors, device: torch.device, name: str) -> None:
    found = CALLS[name](stored)
    assert found.device.type == device.type
    expected = CALLS[name](vectors_on(CPU))
    assert expected.std() > 1e-3
    torch.testing.assert_close(found.cpu(), expected, atol=FLOAT32, rtol=0)


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_scores_are_close_to_those_of_a_cpu(
    device: torch.device, name: str, dtype: torch.dtype
) -> None:
    found = CALLS[name](vectors_on(device, dtype)).cpu()
    torch.testing.assert_close(
        found, CALLS[name](vectors_on(CPU, dtype)), atol=BFLOAT16 / 4, rtol=BFLOAT16
    )


def test_rounded_cosines_differ_by_a_step_at_most(device: torch.device) -> None:
    found, expected = (bootstrap_scores(vectors_on(d), SUBSETS) for d in (device, CPU))
    torch.testing.assert_close(found.cpu(), expected, atol=1e-5 + FLOAT32, rtol=0)


@pytest.mark.parametrize(
    "options", [{}, {"stored": SOME}, {"clusters": PAIRS}, {"images": SOME, "stored": SOME}]
)
def test_a_second_look_has_the_scores_of_a_cpu(
    stored: PatchVectors, options: dict[str, Any]
) -> None:
    maps = expected_scores(vectors_on(CPU), 0.1)
    found, expected = (
        refined_scores(v, maps, keep=0.7, ratio=0.2, **options) for v in (stored, vectors_on(CPU))
    )
    assert expected.std() > 1e-3
    torch.testing.assert_close(found, expected, atol=FLOAT32, rtol=0)


def test_images_are_summed_up_as_on_a_cpu(stored: PatchVectors) -> None:
    maps = expected_scores(vectors_on(CPU), 0.1)
    for found, expected in zip(embed(stored, maps), embed(vectors_on(CPU), maps), strict=True):
        torch.testing.assert_close(found, expected, atol=2e-3, rtol=0)  # in float16


@pytest.mark.parametrize("backend", ["torch", "auto", "faiss"])
@pytest.mark.parametrize("leave_self_out", [True, False])
def test_the_nearest_are_those_of_a_cpu(
    stored: PatchVectors, device: torch.device, backend: Backend, leave_self_out: bool
) -> None:
    if backend == "faiss" or (backend == "auto" and device.type == "cpu"):
        faiss = pytest.importorskip("faiss")
        if device.type != "cpu" and getattr(faiss, "get_num_gpus", int)() == 0:
            pytest.skip("faiss was not built for this GPU")
    found = nearest_distances(stored, None, 153, leave_self_out=leave_self_out, backend=backend)
    expected = nearest_distances(
        vectors_on(CPU), None, 153, leave_self_out=leave_self_out, backend="torch"
    )
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours.cpu(), theirs, atol=FLOAT32, rtol=0)
