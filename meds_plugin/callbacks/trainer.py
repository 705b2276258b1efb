"""What callbacks get from a trainer: its training images, and whether it shows progress."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, cast

from lightning.pytorch.callbacks import StochasticWeightAveraging

from meds_plugin.detectors.view import DetectorView
from meds_plugin.distributed.fail_fast import watch_ranks
from meds_plugin.encoders.default import default_features
from meds_plugin.encoding.encoded_images import EncodedImages
from meds_plugin.encoding.reader import ImageReader
from meds_plugin.training.stream import TrainingStream
from meds_plugin.utils.errors import UserError

if TYPE_CHECKING:
    import lightning as L

__all__ = ["check_trainer", "shows_progress", "training_stream"]


class _MakesStream(Protocol):
    def make_stream(self, reader: ImageReader) -> TrainingStream: ...


def training_stream(trainer: L.Trainer, module: L.LightningModule) -> TrainingStream:
    """Return the stream the trainer trains on; put one in the place of its loader first.

    From then on, the ranks of a distributed job end together.

    A `MeDSWrapper` makes its own. Any other LightningModule whose call turns images into an
    anomaly map trains on batches as its loader gives them, in an order and subset of ours.

    Raises:
        TypeError: If the training loader is no DataLoader over a map-style data set.
        UserError: If the trainer has a setting that does not go with it.
    """
    source: Any = trainer.fit_loop._data_source
    if isinstance(source.instance, TrainingStream):
        return source.instance
    check_trainer(trainer)
    _check_callbacks(trainer, module)
    watch_ranks()
    reader = ImageReader(source.dataloader())
    if hasattr(module, "make_stream"):
        stream = cast("_MakesStream", module).make_stream(reader)
    else:
        view = DetectorView(module, default_features)
        last = trainer.max_steps
        stream = TrainingStream(
            EncodedImages(reader, view, precision=trainer.precision_plugin.forward_context),
            seed=0,
            end_of_stage=lambda _: last if last > 0 else 2**62,
            raw=True,
        )
    stream.attach(trainer)
    return stream


def check_trainer(trainer: L.Trainer) -> None:
    """Refuse what Lightning would report later, and in other terms.

    Raises:
        UserError: For weights that are not float32, and for shares of passes.
    """
    precision = str(trainer.precision)
    if precision.endswith("-true") and precision != "32-true":
        msg = (
            f"trainer.precision={precision}: scores need float32 weights; take 32-true, bf16-mixed "
            "or 16-mixed"
        )
        raise UserError(msg)
    for name in ("overfit_batches", "limit_train_batches", "val_check_interval"):
        share = getattr(trainer, name)
        if isinstance(share, float) and share % 1:
            msg = (
                f"trainer.{name}={share}: passes over the selected images differ in length; give a "
                "whole number of batches"
            )
            raise UserError(msg)


def _check_callbacks(trainer: L.Trainer, module: L.LightningModule) -> None:
    """Refuse callbacks that would mix the stages of a method.

    Raises:
        UserError: For an average of weights, and a schedule, that run across stages.
    """
    stages = getattr(getattr(module, "plan", None), "stages", ())
    averages = any(isinstance(each, StochasticWeightAveraging) for each in trainer.callbacks)  # type: ignore[attr-defined]
    if averages and len(stages) > 1:
        names = " and ".join(stage.name for stage in stages)
        msg = (
            f"StochasticWeightAveraging averages weights of {names} and keeps one schedule for "
            "both: remove it, or give method=plain, which has one stage"
        )
        raise UserError(msg)


def shows_progress(trainer: L.Trainer) -> bool:
    """Whether this rank shows progress bars."""
    bar: Any = trainer.progress_bar_callback
    return trainer.is_global_zero and bar is not None and bool(bar.is_enabled)
