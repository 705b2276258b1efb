from __future__ import annotations

import numpy as np

from meds_plugin.faults.wrong_product import wrong_products


def test_swapped_images_are_found() -> None:
    rng = np.random.default_rng(0)
    centres = rng.normal(0, 1, (3, 64))
    true = np.arange(150) % 3
    vectors = centres[true] + rng.normal(0, 0.5, (150, 64))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    given = true.copy()
    given[:6] = (given[:6] + 1) % 3  # two of each
    names = [f"product {kind}" for kind in given]
    everything = np.ones(150, bool)
    assert np.flatnonzero(wrong_products(vectors, names, everything)).tolist() == [*range(6)]
    half = np.arange(150) % 2 == 0
    assert np.flatnonzero(wrong_products(vectors, names, half)).tolist() == [*range(6)]
    assert not wrong_products(vectors, ["all"] * 150, everything).any()


def test_a_category_may_have_one_image_or_no_normal_ones() -> None:
    vectors = np.eye(8)[[0, 0, 0, 0, 1]]
    categories = ["a", "a", "a", "b", "c"]
    normal = np.array([True, True, True, False, True])
    assert not wrong_products(vectors, categories, normal).any()
