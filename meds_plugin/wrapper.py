"""`MeDSWrapper`: trains any anomaly detector so that defects in its images do little harm."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any, TypeVar, cast

from lightning.pytorch.utilities import rank_zero_warn
from torchmetrics import MeanMetric

from meds_plugin.callbacks.rival import RivalCallback
from meds_plugin.callbacks.run_log import RunLog
from meds_plugin.callbacks.stage_callbacks import stage_callbacks
from meds_plugin.callbacks.stage_times import StageTimes, stage_seconds
from meds_plugin.callbacks.trainer import shows_progress, training_stream
from meds_plugin.callbacks.training_scores import TrainingScores, collect_scores
from meds_plugin.detectors.compiling import check_backend, compile_detector
from meds_plugin.detectors.frozen_part import FrozenPart, check_saved
from meds_plugin.detectors.validation.validate import validate_detector
from meds_plugin.detectors.view import DetectorView
from meds_plugin.encoders.default import default_features, encoder_of
from meds_plugin.encoding.cache.settings import CacheSettings
from meds_plugin.encoding.cache.store import FrozenCache
from meds_plugin.encoding.encoded_images import EncodedImages
from meds_plugin.encoding.scoring import selection_scores
from meds_plugin.evaluation.steps import EvaluationSteps
from meds_plugin.memory.settings import MemorySettings
from meds_plugin.rivals import make_rival
from meds_plugin.selection import SelectionSettings
from meds_plugin.training.distillation import check_loss
from meds_plugin.training.optimizer import OptimizerSettings
from meds_plugin.training.own_loss import own_loss
from meds_plugin.training.schedule import staged_optimizer
from meds_plugin.training.stages import Method, plan_stages
from meds_plugin.training.stream import TrainingStream
from meds_plugin.training.unused_parameters import prepare_ddp
from meds_plugin.utils.rng import torch_seeded

if TYPE_CHECKING:
    from collections.abc import Mapping

    import lightning as L
    import torch
    from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
    from torch import Tensor, nn
    from typing_extensions import Self

    from meds_plugin.encoders.normalization import Normalization
    from meds_plugin.encoding.cache.store import Kind
    from meds_plugin.encoding.reader import ImageReader
    from meds_plugin.rivals.base import Rival
    from meds_plugin.training.distillation import DistillLoss

__all__ = ["MeDSWrapper", "TrainingScores"]

S = TypeVar("S")


class MeDSWrapper(EvaluationSteps):
    """Train a detector with MeDS: memory ensemble, distillation, selection and fine-tuning.

    All stages run in one ``Trainer(max_steps=model.total_steps).fit(model, ...)``, with this
    module's optimiser and clipping. Data set, batch size (of all ranks) and workers are the
    loader's.

    Args:
        detector: Any module that maps images to an anomaly map (see `Detector`).
        method: ``meds``, or a method to compare it with (see `stages.plan_stages`).
        distill_steps: Optimiser steps of distillation; the paper trains 10 000.
        finetune_steps: Optimiser steps of fine-tuning; the paper trains 10 000.
        memory: How training patches are scored: settings, or a dictionary of some of them.
        distill_loss: ``l2`` (reference) or ``l1``.
        selection: How images are selected, likewise.
        optimizer: Optimiser and schedule, the same for both training stages, likewise.
        features: A frozen module for memory features (see `Detector`); default: the package's own.
        example: Images ``[2, 3, H, W]`` to check the detector on, as it expects them; default:
            random ones of its ``image_size``, or of the first common size that it accepts.
        seed: Keys the order of images and the detector's randomness in training.
        rival: Settings of the rival that is the method, which uses the detector's encoder only.
        cache: Where outputs of the frozen part are cached; default: up to 4 GB in memory. Nothing
            is cached for a data set or a detector that augments.
        scoring_batch: Images scored at once; default: the batch, on one accelerator at least 64.
        compile: Compile the trained part (see `compiling`); ``True`` or a backend's name.

    Attributes:
        plan: The stages as step ranges.

    Raises:
        DetectorError: If the detector breaks the protocol (see `validate_detector`).
        UserError: If a setting is out of its range.
    """

    def __init__(
        self,
        detector: nn.Module,
        *,
        method: Method = "meds",
        distill_steps: int = 300,
        finetune_steps: int = 600,
        memory: MemorySettings | Mapping[str, Any] | None = None,
        distill_loss: DistillLoss = "l2",
        selection: SelectionSettings | Mapping[str, Any] | None = None,
        optimizer: OptimizerSettings | Mapping[str, Any] | None = None,
        features: nn.Module | None = None,
        example: Tensor | None = None,
        seed: int = 0,
        rival: Rival | Mapping[str, Any] | None = None,
        cache: CacheSettings | None = None,
        scoring_batch: int | None = None,
        compile: bool | str = False,  # noqa: A002
    ) -> None:
        super().__init__()
        self.strict_loading = False  # frozen weights are not in the checkpoints
        check_loss(distill_loss)
        self.plan = plan_stages(method, distill_steps=distill_steps, finetune_steps=finetune_steps)
        own = make_rival(method, rival)
        self.rival = None if own is None else RivalCallback(own, encoder_of(detector), seed=seed)
        if self.rival is not None:
            detector = features = self.rival.features
        self.detector = detector
        self.memory_encoder = features
        self.view = DetectorView(detector, features or default_features)
        memory = _settings(MemorySettings, memory)
        selection = _settings(SelectionSettings, selection)
        self.optimizer_settings = _settings(OptimizerSettings, optimizer)
        self.selection_top = selection.top
        self.seed = seed
        self.cache_settings = cache or CacheSettings()
        self.scoring_batch = scoring_batch
        self._backend = check_backend(compile)
        self._mean_loss = MeanMetric(nan_strategy="disable")  # of batches; a check would wait
        self.stream: TrainingStream | None = None
        self._initial: dict[str, Tensor] | None = None
        self._frozen = FrozenPart(detector, self.view.trainable_parameters(), features)
        if self.rival is None:
            validate_detector(
                self.view, frozen=self._frozen.prefixes, example=example, memory_encoder=features
            )
        self._draw = (-1, 0)  # step, and batches seen in it
        self.memory, self.distillation, self.selection = stage_callbacks(
            self.plan, memory=memory, loss=distill_loss, selection=selection, seed=seed
        )
        self._times, self._log = StageTimes(self.plan), RunLog(self.plan, self.selection)
        # What determines the result, for load_from_checkpoint and loggers.
        self.save_hyperparameters(
            {
                "method": method,
                "distill_steps": distill_steps,
                "finetune_steps": finetune_steps,
                "memory": asdict(memory),
                "distill_loss": distill_loss,
                "selection": asdict(selection),
                "optimizer": asdict(self.optimizer_settings),
                "rival": self.rival and self.rival.settings,
                "seed": seed,
            }
        )
        self.train(self.training)  # what is frozen goes into evaluation mode

    @property
    def total_steps(self) -> int:
        """Optimiser steps of all stages, for ``Trainer(max_steps=...)``."""
        return self.plan.total_steps

    @property
    def normalization(self) -> Normalization:
        """How images must be prepared for the detector, for the data module."""
        return self.view.normalization

    @property
    def seconds(self) -> dict[str, float]:
        """Time of each stage so far, encoding and selection passes included."""
        return stage_seconds(self._times, self.stream, self.memory, self.rival)

    def forward(self, images: Tensor, category: Tensor | None = None) -> Tensor:
        """Return the detector's anomaly maps ``[B, h, w]``, higher = more anomalous.

        Args:
            images: ``[B, 3, H, W]``, normalised as the detector expects them.
            category: ``[B]`` places among the sorted training categories, for a detector that
                takes them; default: unknown.
        """
        return self.view.anomaly_map(self.view.encode(images), category=category)

    def train(self, mode: bool = True) -> Self:
        """Set the mode of the trained part; the frozen part stays in evaluation mode."""
        super().train(mode)
        self._frozen.settle()
        return self

    # Lightning's hooks, in the order in which they are called.

    def configure_callbacks(self) -> list[L.Callback]:
        """Return the callbacks of the method's stages."""
        stages = (self.memory, self.rival, self.distillation, self.selection)
        own = (*stages, self._times, self._log)
        return [callback for callback in own if callback is not None]

    def make_stream(self, reader: ImageReader) -> TrainingStream:
        """Make the stream of training batches; called once per fit, before any stage."""
        self.close_cache()
        self.categories = sorted(set(reader.categories))
        cache = FrozenCache.open(
            self.cache_settings, self._cached_kinds(), self._frozen.output_fingerprint
        )
        images = EncodedImages(
            reader,
            self.view,
            cache=cache,
            scoring_batch=self.scoring_batch,
            precision=self.trainer.precision_plugin.forward_context,
        )
        return TrainingStream(
            images, seed=self.seed, end_of_stage=lambda step: self.plan.at(step).end
        )

    def setup(self, stage: str) -> None:
        """Take over the training loader and drop the state of an earlier fit."""
        if stage == "fit":
            self._initial = None
            self._frozen.forget()
            self.stream = training_stream(self.trainer, self)
            # After the callbacks' listeners: selection must see the weights as distilled.
            self.stream.on_pass(self._enter_stage)
            names = [stage.name for stage in self.plan.stages]
            prepare_ddp(self.trainer.strategy, self, self.stream.images, stages=names)
            compile_detector(self.view, self._backend)

    def on_fit_start(self) -> None:
        """Encode the training images once and, if they are needed, copy the initial weights."""
        if self.stream is None or not self.plan.stages:
            return
        self.stream.images.encode_all(self.device, progress=shows_progress(self.trainer))
        if self.plan.reinitialise and self._initial is None:
            self._initial = self._frozen.copy_trained()

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        """Return the optimiser, and a schedule that restarts with every stage."""
        return staged_optimizer(self.view.parameter_groups(), self.optimizer_settings, self.plan)

    def on_train_start(self) -> None:
        """Stop at once if a checkpoint has all steps."""
        self._stop_when_done()

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        """Return the loss of the current stage."""
        del batch_idx
        if self.stream is None:
            msg = "training needs setup('fit')"
            raise RuntimeError(msg)
        stage = self.plan.at(self.global_step)
        clock = {"step": self.global_step - stage.start, "total_steps": stage.steps}
        with self._seeded():
            encoded = self.stream.images.encoded(batch)
            if stage.name == "distill" and self.distillation is not None:
                maps = self.view.anomaly_map(encoded, category=batch["category"])
                auxiliary = self.view.auxiliary_loss()
                loss = self.distillation.loss(maps, batch["index"])
                loss = loss if auxiliary is None else loss + auxiliary
            elif stage.name == "finetune" and self.selection is not None:
                loss = own_loss(
                    self.view,
                    encoded,
                    batch,
                    **clock,
                    top=self.selection_top,
                    hold=self.selection.hold_loss,
                )
            else:
                loss = self.view.loss(encoded, **clock, category=batch["category"])
        value, size = loss.detach(), len(batch["index"])
        self.log(f"loss/{stage.name}", value, batch_size=size)
        self._mean_loss(value)
        self.log("train_loss", self._mean_loss, on_step=True, on_epoch=True, batch_size=size)
        return loss * batch["weight"] if "weight" in batch else loss

    def configure_gradient_clipping(
        self,
        optimizer: torch.optim.Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clip to the settings' norm, unless the trainer is configured to clip."""
        if gradient_clip_val is None and self.optimizer_settings.gradient_clip:
            gradient_clip_val = self.optimizer_settings.gradient_clip
        self.clip_gradients(
            optimizer,
            gradient_clip_val=gradient_clip_val,
            gradient_clip_algorithm=gradient_clip_algorithm,
        )

    def on_train_batch_end(self, outputs: object, batch: object, batch_idx: int) -> None:
        """Stop after the last step."""
        del outputs, batch, batch_idx
        self._stop_when_done()

    def on_train_end(self) -> None:
        """Warn if a limit of the trainer ended the training early."""
        if cut_short := self.plan.cut_short(self.global_step):
            rank_zero_warn(f"{cut_short}: fit with Trainer(max_steps=model.total_steps)")

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Leave the frozen weights out; their fingerprint stays."""
        checkpoint["state_dict"] = self._frozen.trained(checkpoint["state_dict"])
        last = self.plan.named("finetune")
        checkpoint["meds"] = {
            "stage": self.plan.at(self.global_step).name if self.plan.stages else "memory",
            "categories": self.categories,  # their places are what a detector knows them by
            "frozen": self._frozen.fingerprint(),
            "initial": self._initial if last and self.global_step <= last.start else None,
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Check that the checkpoint belongs to this detector and restore it.

        Raises:
            UserError: If weights are missing, unexpected, or were trained on another encoder.
        """
        saved = checkpoint.get("meds", {})
        check_saved(
            checkpoint["state_dict"],
            expected=self._frozen.trained(self.state_dict()),
            saved_fingerprint=saved.get("frozen"),
            fingerprint=self._frozen.fingerprint(),
        )
        self._initial = saved.get("initial")
        self.categories = list(saved.get("categories", ()))

    # What a fit leaves behind.

    def training_scores(self, final: Tensor | None = None) -> TrainingScores:
        """Score every training image with the final model; after ``fit``, on every rank.

        Args:
            final: Image scores of the final model (of tiles: theirs), if they are known.

        Raises:
            RuntimeError: Before a fit.
        """
        if self.stream is None or self.trainer is None:
            msg = "training scores exist only after a fit"
            raise RuntimeError(msg)
        self.to(self.trainer.strategy.root_device)
        images, name = self.stream.images, "final scores" if shows_progress(self.trainer) else None
        return collect_scores(
            self.memory,
            self.distillation,
            self.selection,
            self.rival,
            reader=images.reader,
            trains=bool(self.plan.stages),
            step=self.global_step,
            final=lambda: (
                selection_scores(images, top=self.selection_top, device=self.device, progress=name)
                if final is None
                else final
            ),
        )

    def close_cache(self, *, remove: bool = False) -> None:
        """Free what is cached, in memory and in files, after the last scores of a fit.

        Args:
            remove: Remove a folder that is not shared; for one process of a job.
        """
        if self.stream is not None:
            self.stream.images.close(remove=remove and not self.cache_settings.shared)

    def _cached_kinds(self) -> tuple[Kind, ...]:
        """Return what is cached: a method without training needs the memory's features again."""
        if not self.plan.stages:
            return ("features",)
        shared = self.cache_settings.shared and self.plan.uses_memory
        return ("encoded", "features") if shared else ("encoded",)

    def _stop_when_done(self) -> None:
        """Stop a trainer that was told to go on for longer: there are no batches any more."""
        if self.global_step >= self.total_steps:
            self.trainer.should_stop = True

    def _enter_stage(self, step: int) -> None:
        """Start a later stage with a fresh optimiser, as the reference does."""
        if step == 0 or step != self.plan.at(step).start:
            return
        if self.plan.reinitialise and self._initial is not None:
            self.detector.load_state_dict(self._initial, strict=False)
            self._initial = None
        for optimizer in self.trainer.optimizers:
            optimizer.state.clear()

    def _seeded(self) -> Any:
        """Key the detector's randomness by step, whatever was sampled before."""
        step, seen = self._draw
        self._draw = (self.global_step, seen + 1 if step == self.global_step else 0)
        return torch_seeded(self.seed, "train", *self._draw, self.global_rank, device=self.device)


def _settings(kind: type[S], given: S | Mapping[str, Any] | None) -> S:
    return given if isinstance(given, kind) else kind(**cast("Mapping[str, Any]", given or {}))
