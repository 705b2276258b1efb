"""A progress bar for each training stage, with its name, learning rate and loss."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lightning.pytorch.callbacks import ProgressBar
from torch import Tensor
from tqdm import tqdm

from meds_plugin.utils.progress import pace

if TYPE_CHECKING:
    import lightning as L

    from meds_plugin.training.stages import Stage, StagePlan

__all__ = ["StageBar"]


class StageBar(ProgressBar):
    """Show one bar a stage instead of Lightning's one a pass, whose length would change each time.

    Args:
        plan: The stages.
        every: Steps between two updates of the loss; each costs a synchronisation on a GPU.
    """

    def __init__(self, plan: StagePlan, *, every: int = 10) -> None:
        super().__init__()
        self._plan = plan
        self._every = every
        self._enabled = True
        self._bar: tqdm[Any] | None = None
        self._stage: Stage | None = None

    @property
    def is_enabled(self) -> bool:
        """Whether bars are shown."""
        return self._enabled

    def enable(self) -> None:
        """Show bars; Lightning calls this on the first rank."""
        self._enabled = True

    def disable(self) -> None:
        """Show nothing; Lightning calls this on the other ranks."""
        self._enabled = False

    def on_train_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Move the bar of the step's stage."""
        del pl_module, batch, batch_idx
        step = trainer.global_step
        if not self._enabled or step == 0:
            return
        stage = self._plan.at(step - 1)
        if stage != self._stage:
            self._close()
            self._stage = stage
            self._bar = tqdm(
                desc=stage.name,
                total=stage.steps,
                initial=step - 1 - stage.start,
                unit="step",
                dynamic_ncols=True,
                mininterval=pace(),
            )
        if self._bar is None:
            return
        self._bar.update(step - stage.start - self._bar.n)
        loss = outputs.get("loss") if isinstance(outputs, dict) else outputs
        if isinstance(loss, Tensor) and (step % self._every == 0 or step == stage.end):
            rate = trainer.optimizers[0].param_groups[0]["lr"]
            self._bar.set_postfix_str(f"loss {float(loss):.4f}, lr {rate:.1e}", refresh=False)
        if step == stage.end:
            self._close()

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Leave the last bar as it is."""
        del trainer, pl_module
        self._close()

    def on_exception(
        self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException
    ) -> None:
        """End the bar's line."""
        del trainer, pl_module, exception
        self._close()

    def _close(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None
