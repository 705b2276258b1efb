from __future__ import annotations

import torch

from meds_plugin.detectors.view import DetectorView
from meds_plugin.encoders.default import default_features
from meds_plugin.encoding.encoded_images import EncodedImages
from meds_plugin.encoding.patch_features import EncodedFeatures
from meds_plugin.encoding.reader import ImageReader
from tests.toys import FullDetector, ToyImages, loader


def test_features_come_as_often_as_asked_and_know_their_images() -> None:
    view = DetectorView(FullDetector(), default_features)
    images = EncodedImages(ImageReader(loader(batch_size=3)), view)
    wanted = [7, 2, 5, 11, 0]
    features = EncodedFeatures(images, wanted, device=torch.device("cpu"), layers=(3, 5))
    assert (len(features), features.grid, features.image_size) == (5, (4, 4), (16, 16))
    assert features.layers == (3, 5)
    pixels = torch.stack([ToyImages()[place] for place in wanted])
    expected = view.features(pixels)
    for _ in range(2):
        places, values = zip(*features, strict=True)
        assert [list(some) for some in places] == [[0, 1, 2], [3, 4]]
        torch.testing.assert_close(torch.cat(values), expected)
    mean = view.normalization.undo(pixels).double().mean(0)
    torch.testing.assert_close(features.mean_image(), mean)
