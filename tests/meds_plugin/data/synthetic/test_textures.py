from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from meds_plugin.data.synthetic.textures import YARNS, weave, wood

if TYPE_CHECKING:
    from collections.abc import Callable

    from meds_plugin.data.synthetic.canvas import Canvas, Pose


@pytest.mark.parametrize("texture", [weave, wood])
def test_each_image_is_another_cut_of_the_same_material(
    texture: Callable[[int, np.random.Generator], tuple[Canvas, Pose]],
) -> None:
    one, two = (texture(64, np.random.default_rng(seed))[0].rgb for seed in (0, 1))
    assert np.abs(one - two).mean() > 0.02
    assert np.abs(one.mean(axis=(0, 1)) - two.mean(axis=(0, 1))).max() < 0.06
    assert one.dtype == np.float32


def test_denim_repeats_with_its_yarns() -> None:
    canvas, _ = weave(256, np.random.default_rng(0))
    spectrum = np.abs(np.fft.rfft(canvas.rgb.mean(axis=2) - canvas.rgb.mean(), axis=1)).mean(axis=0)
    cycles = np.arange(spectrum.size) / (len(canvas.axis) * canvas.pixel)
    near = (cycles > 0.9 * YARNS) & (cycles < 1.1 * YARNS)
    assert spectrum[near].max() > 4 * np.median(spectrum)


def test_the_grain_of_wood_runs_across() -> None:
    canvas, _ = wood(128, np.random.default_rng(0))
    grey = canvas.rgb.mean(axis=2)
    assert np.abs(np.diff(grey, axis=0)).mean() > 2 * np.abs(np.diff(grey, axis=1)).mean()
