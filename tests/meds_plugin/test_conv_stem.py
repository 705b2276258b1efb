from __future__ import annotations

import pytest
import torch

from meds_plugin.conv_stem import ConvStem
from meds_plugin.encoder import build_encoder


def test_a_patch_of_eight_pixels_becomes_one_token() -> None:
    stem = ConvStem(img_size=(32, 48), patch_size=8, in_chans=3, embed_dim=20)
    tokens = stem(torch.randn(2, 3, 32, 48))
    assert tokens.shape == (2, 4 * 6, 20)


def test_tokens_see_beyond_their_patch_but_not_far() -> None:
    stem = ConvStem(img_size=64, patch_size=8, in_chans=3, embed_dim=8)
    image = torch.randn(1, 3, 64, 64)
    changed = image.clone()
    changed[..., 32:40, 32:40] += 5  # the patch in row 4, column 4
    differs = (stem(image) != stem(changed)).any(dim=2).view(8, 8)
    rows, columns = differs.nonzero().T
    assert bool(differs[4, 4])
    assert (int(rows.min()), int(rows.max())) == (3, 5)
    assert (int(columns.min()), int(columns.max())) == (3, 5)


def test_other_patch_sizes_are_refused() -> None:
    with pytest.raises(ValueError, match="patches of 8 pixels"):
        ConvStem(img_size=32, patch_size=4, in_chans=3, embed_dim=8)


def test_the_embedded_encoder_takes_any_multiple_of_its_patch() -> None:
    encoder = build_encoder(model="embedded", image_size=[40, 64], layers=[1, 5])
    features = encoder.features(torch.randn(2, 3, 40, 64))
    assert features.shape == (2, 5 * 8, 128)
    assert bool(features.isfinite().all())
