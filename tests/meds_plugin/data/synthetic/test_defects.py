from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from meds_plugin.data.synthetic import split
from meds_plugin.data.synthetic.defects import FLAWS
from meds_plugin.utils.rng import numpy_rng

KINDS = [(category, kind) for category in split.CATEGORIES for kind in sorted(FLAWS[category])]


@pytest.mark.parametrize(("category", "kind"), KINDS)
@pytest.mark.parametrize("number", [0, 1, 3])  # the three modes
def test_an_image_changes_where_the_mask_says_and_only_there(
    category: str, kind: str, number: int
) -> None:
    place = split._place(category, kind, number, 0, numpy_rng(0, "vary"))
    clean, nothing = split._render(category, 96, numpy_rng(0, "piece"))
    broken, mask = split._render(
        category, 96, numpy_rng(0, "piece"), lambda canvas: FLAWS[category][kind](canvas, place)
    )
    change = np.abs(clean.astype(float) - broken.astype(float)).max(axis=2)
    marked = mask > 0
    assert not nothing.any()
    assert marked.any()
    # Shadows and blur reach a little further than the mask.
    far = ~ndimage.binary_dilation(marked, iterations=5)
    assert change[far].max() <= 3.0
    assert change[marked].mean() > 6.0
    assert (change[marked] > 3.0).mean() > 0.6


@pytest.mark.parametrize(("category", "kind"), KINDS)
def test_a_mode_keeps_its_shape_while_its_images_vary(category: str, kind: str) -> None:
    def mask(number: int, key: str) -> np.ndarray:
        place = split._place(category, kind, number, 0, numpy_rng(0, key))
        _, marked = split._render(
            category, 96, numpy_rng(0, "piece"), lambda canvas: FLAWS[category][kind](canvas, place)
        )
        return np.asarray(ndimage.binary_dilation(marked > 0, iterations=2))

    first, again, varied, other = mask(0, "a"), mask(0, "a"), mask(1, "b"), mask(2, "a")
    np.testing.assert_array_equal(first, again)
    overlap = (first & varied).sum() / (first | varied).sum()
    assert overlap > 0.25
    assert overlap > 2 * (first & other).sum() / (first | other).sum()
