from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest
import torch
from torch.utils.data import DataLoader, Subset

from meds_plugin.detectors.view import DetectorView
from meds_plugin.encoding.cache.settings import CacheSettings
from meds_plugin.encoding.cache.store import FrozenCache
from meds_plugin.encoding.encoded_images import EncodedImages
from meds_plugin.encoding.reader import ImageReader, images_of
from meds_plugin.training.stream import TrainingStream
from tests.toys import BareDetector, FullDetector, ToyImages, loader

if TYPE_CHECKING:
    import lightning as L


def make_stream(
    count: int = 10, batch_size: int = 4, *, end: int = 1000, workers: int = 0, **trainer: int
) -> tuple[TrainingStream, SimpleNamespace]:
    view = DetectorView(BareDetector(), lambda images: images)
    reader = ImageReader(loader(count, batch_size, workers))
    stream = TrainingStream(EncodedImages(reader, view), seed=1, end_of_stage=lambda _: end)
    state = {
        "global_step": 0,
        "global_rank": 0,
        "world_size": 1,
        "accumulate_grad_batches": 1,
        "strategy": SimpleNamespace(root_device=torch.device("cpu")),
        "fit_loop": SimpleNamespace(_data_source=SimpleNamespace(instance=None, name="x")),
        **trainer,
    }
    fake = SimpleNamespace(**state)
    stream.attach(cast("L.Trainer", fake))
    return stream, fake


def indices(stream: TrainingStream) -> list[list[int]]:
    return [batch["index"].tolist() for batch in stream]


def test_a_pass_holds_every_image_at_most_once_in_whole_batches() -> None:
    stream, _ = make_stream(10, 4)
    batches = indices(stream)
    assert [len(batch) for batch in batches] == [4, 4]
    assert len({i for batch in batches for i in batch}) == 8


def test_images_come_with_their_index() -> None:
    stream, _ = make_stream()
    for batch in stream:
        torch.testing.assert_close(batch["images"], ToyImages(10).images[batch["index"]])


def test_order_depends_on_the_step_a_pass_begins_at_only() -> None:
    first, trainer = make_stream()
    second, other = make_stream()
    before = indices(first)
    assert indices(second) == before  # the same pass, asked for again
    trainer.global_step = other.global_step = 2
    assert indices(first) == indices(second) != before


def test_goes_on_in_the_middle_of_a_pass() -> None:
    stream, trainer = make_stream(12, 4)
    whole = indices(stream)
    resumed, other = make_stream(12, 4)
    trainer.global_step = other.global_step = 1
    resumed.load_state_dict(stream.state_dict())
    assert indices(resumed) == whole[1:]


def test_no_pass_goes_beyond_its_stage() -> None:
    stream, trainer = make_stream(12, 4, end=5)
    assert len(indices(stream)) == 3
    trainer.global_step = 3
    assert len(indices(stream)) == 2


def test_listeners_choose_the_images_of_the_next_pass() -> None:
    stream, trainer = make_stream(12, 4)
    asked: list[int] = []

    def choose(step: int) -> None:
        asked.append(step)
        stream.subset = torch.tensor([1, 5, 7, 8, 11])

    stream.on_pass(choose)
    assert set(indices(stream)[0]) < {1, 5, 7, 8, 11}
    trainer.global_step = 1
    indices(stream)
    assert asked == [0, 1]


@pytest.mark.parametrize("kept", [1, 3])
def test_a_subset_smaller_than_a_batch_is_one_batch(kept: int) -> None:
    stream, trainer = make_stream(12, 4)
    stream.subset = torch.arange(kept)
    for step in range(3):
        trainer.global_step = step
        assert [sorted(batch) for batch in indices(stream)] == [list(range(kept))]


def test_ranks_share_each_batch() -> None:
    whole = indices(make_stream(12, 4)[0])
    shares = [indices(make_stream(12, 4, global_rank=rank, world_size=2)[0]) for rank in (0, 1)]
    for batch, left, right in zip(whole, *shares, strict=True):
        assert batch[0::2] == left
        assert batch[1::2] == right


def test_every_rank_gets_an_image_of_a_tiny_batch() -> None:
    stream, _ = make_stream(12, 4, global_rank=2, world_size=3)
    stream.subset = torch.tensor([6])
    (batch,) = stream
    assert batch["index"].tolist() == [6]
    assert float(batch["weight"]) == 0


def test_held_images_come_last_in_their_batches_on_every_rank() -> None:
    plain, _ = make_stream(20, 5)
    whole = indices(plain)
    held = torch.tensor([1, 4, 7, 8, 13])
    shares = []
    for rank in (0, 1):
        stream, _ = make_stream(20, 5, global_rank=rank, world_size=2)
        stream.held = held
        shares.append(list(stream))
    for images, parts in zip(whole, zip(*shares, strict=True), strict=True):
        assert sorted(images) == sorted(i for part in parts for i in part["index"].tolist())
        for part in parts:
            marks = [index in held.tolist() for index in part["index"].tolist()]
            assert marks == sorted(marks)
            assert part["held"] == sum(marks)
    assert all("held" not in batch for batch in plain)


def test_a_resumed_pass_still_holds_the_same_images() -> None:
    stream, _ = make_stream(10, 4)
    stream.held = torch.tensor([2, 3])
    again, _ = make_stream(10, 4)
    again.load_state_dict(stream.state_dict())
    assert again.held.equal(stream.held)


def test_parts_of_different_size_are_weighed() -> None:
    (whole,) = make_stream(5, 5)[0]
    assert "weight" not in whole
    shares = [next(iter(make_stream(5, 5, global_rank=r, world_size=3)[0])) for r in range(3)]
    assert sorted(i for share in shares for i in share["index"].tolist()) == list(range(5))
    losses = [share["weight"] * share["images"].mean() for share in shares]
    torch.testing.assert_close(sum(losses) / 3, whole["images"].mean())


def test_the_users_own_batches_are_filled_up() -> None:
    view = DetectorView(BareDetector(), lambda images: images)
    reader = ImageReader(loader(5, 5))
    sizes = []
    for rank in range(2):
        images = EncodedImages(reader, view)
        stream = TrainingStream(images, seed=1, end_of_stage=lambda _: 9, raw=True)
        stream.attach(cast("L.Trainer", make_stream(global_rank=rank, world_size=2)[1]))
        sizes += [len(batch) for batch in stream]
    assert sizes == [3, 3]


def test_accumulated_batches_count_as_one_step() -> None:
    stream, trainer = make_stream(20, 4, accumulate_grad_batches=2)
    whole = indices(stream)
    assert len(whole) == 5
    trainer.global_step = 1
    assert indices(stream) == whole[2:]


def test_the_number_of_workers_changes_nothing() -> None:
    assert indices(make_stream(workers=0)[0]) == indices(make_stream(workers=2)[0])


def test_the_frozen_part_runs_once_an_image() -> None:
    detector = FullDetector()
    view = DetectorView(detector, lambda images: images)
    images = EncodedImages(ImageReader(loader(10)), view, cache=FrozenCache(CacheSettings(gb=1)))
    expected = torch.tanh(detector.encoder(ToyImages(10).images))
    assert images.encode_all(torch.device("cpu"))
    for _ in range(3):
        for batch in images.batches([[3, 1], [9]]):
            torch.testing.assert_close(images.encoded(batch), expected[batch["index"]])
    assert detector.encoded == 10


def test_encodings_that_do_not_fit_are_made_each_time() -> None:
    detector = FullDetector()
    view = DetectorView(detector, lambda images: images)
    images = EncodedImages(ImageReader(loader(10)), view, cache=FrozenCache(CacheSettings(gb=1e-6)))
    assert not images.encode_all(torch.device("cpu"))
    (batch,) = images.batches([[2, 0]])
    expected = torch.tanh(detector.encoder(ToyImages(10).images[[2, 0]]))
    torch.testing.assert_close(images.encoded(batch), expected)


def test_reader_takes_groups_also_through_a_subset() -> None:
    assert ImageReader(loader(4)).groups == ["right", "left", "right", "left"]
    part: DataLoader[Any] = DataLoader(Subset(ToyImages(4), [1, 2, 3]))
    assert ImageReader(part).groups == ["left", "right", "left"]


def test_reader_refuses_what_it_cannot_index() -> None:
    with pytest.raises(TypeError, match="map-style data set"):
        ImageReader([torch.zeros(1, 3, 4, 4)])
    wrong = ToyImages(4)
    wrong.groups = ["a"]
    with pytest.raises(ValueError, match="4 images but its groups name 1"):
        ImageReader(DataLoader(wrong))


def test_finds_the_images_of_common_batches() -> None:
    images = torch.zeros(2, 3, 4, 4)
    for batch in (
        images,
        (images, 1),
        [images],
        {"image": images},
        {"images": images},
        SimpleNamespace(image=images),
    ):
        assert images_of(batch) is images
    with pytest.raises(TypeError, match="'image' key or attribute; got dict"):
        images_of({"pixels": images})
    with pytest.raises(TypeError, match=r"floating-point and normalised, got torch\.uint8"):
        images_of(images.byte())


@pytest.mark.parametrize("kind", ["cpu", "cuda"])
def test_batches_for_a_gpu_are_asked_for_in_pinned_memory(
    monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    stream, fake = make_stream(8, 4)
    fake.strategy.root_device = torch.device(kind)
    asked: list[bool] = []

    def batches(plan: list[list[int]], *, pinned: bool) -> list[dict[str, Any]]:
        asked.append(pinned)
        return [{"index": torch.tensor(each)} for each in plan]

    monkeypatch.setattr(stream.images, "batches", batches)
    assert len(list(stream)) == 2
    assert asked == [kind == "cuda"]
