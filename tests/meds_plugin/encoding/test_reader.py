from __future__ import annotations

from torch.utils.data import DataLoader, Subset

from meds_plugin.encoders.normalization import Normalization
from meds_plugin.encoding.reader import ImageReader
from tests.toys import ToyImages


class Judged(ToyImages):
    """Toy images of which it is known, or not, whether they are contaminated."""

    def __init__(self, injected: list[bool | None]) -> None:
        super().__init__()
        self.injected = (injected * len(self))[: len(self)]


def test_knows_what_is_contaminated_only_where_that_is_known_of_all() -> None:
    known = ImageReader(DataLoader(Judged([True, False])))
    assert known.injected is not None
    assert known.injected[:3] == [True, False, True]
    assert ImageReader(DataLoader(Judged([True, None]))).injected is None
    assert ImageReader(DataLoader(Judged([None]))).injected is None
    assert ImageReader(DataLoader(ToyImages())).injected is None
    part = ImageReader(DataLoader(Subset(Judged([True, False]), [1, 2])))
    assert part.injected == [False, True]


def test_knows_how_images_are_normalised_where_the_data_set_says_it() -> None:
    images = ToyImages()
    assert ImageReader(DataLoader(images)).normalization is None
    half = Normalization((0.5,) * 3, (0.5,) * 3)
    images.normalization = half  # type: ignore[attr-defined]
    assert ImageReader(DataLoader(images)).normalization is half
    part = Subset(Subset(images, [1, 2, 3]), [0, 2])
    assert ImageReader(DataLoader(part)).normalization is half
