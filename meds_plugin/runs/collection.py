"""Finished runs for tables and figures, grouped by their settings."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from omegaconf import OmegaConf

from meds_plugin.config.flatten import flatten
from meds_plugin.runs.read import read_config, read_metrics
from meds_plugin.runs.settings import result_settings, under
from meds_plugin.training.stages import METHODS, RIVAL_METHODS
from meds_plugin.utils.errors import UserError, brief
from meds_plugin.utils.text import first_few

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from meds_plugin.training.stages import Method

__all__ = ["Run", "differing", "find_runs", "partner", "read_run", "row_name", "separate"]

Key = tuple[tuple[str, str], ...]

# A table's rows, columns and repetitions, and what depends on the detector.
_TABLE_KEYS = ("seed", "noise", "method", "data.noise")
_LIST_KEYS = ("data.variant", "data.source.variant")
_DETECTOR_KEYS = ("backbone", "evaluation.mask_rule", "preset")
_FITTING = ("encode", "memory", "fit", "distill", "finetune")
# Real-IAD's lists of training images with defects, named by their share.
_LISTS = re.compile(r".*_fuiad_([\d.]+)")


@dataclass(frozen=True)
class Run:
    """One finished run.

    Attributes:
        path: Its folder.
        metrics: Content of ``metrics.json``.
        config: Content of ``config.yaml``.
        parts: The runs that were put together to this one (see `join_categories`).
    """

    path: Path
    metrics: dict[str, Any]
    config: dict[str, Any]
    parts: tuple[Run, ...] = ()

    @property
    def method(self) -> Method:
        """The method, as in ``method=``."""
        return cast("Method", self.config["method"])

    @property
    def backbone(self) -> str:
        """The detector, as in ``backbone=``, or the rival that needs none."""
        return self.method if self.method in RIVAL_METHODS else str(self.config["backbone"]["name"])

    @property
    def row(self) -> str:
        """Detector and method, or the rival alone."""
        return row_name(self.backbone, self.method)

    @property
    def seed(self) -> int:
        """The seed."""
        return int(self.config["seed"])

    @property
    def noise(self) -> float | None:
        """The contamination asked for; ``None`` if images were taken as they are."""
        if self.config["noise"] is None:
            return self._listed
        return float(self.config["noise"])

    @property
    def _listed(self) -> float | None:
        """The contamination by which the data's own list of training images is named."""
        found = _LISTS.fullmatch(str(self.config["data"].get("variant")))
        return None if found is None else float(found[1])

    @property
    def data(self) -> str:
        """The data set's name: its folder's, or that of its generator."""
        root = self.config["data"].get("root")
        source = str(self.config["data"]["source"]["_target_"]).rpartition(".")[2]
        return source.removeprefix("read_").split("_")[0] if root is None else Path(str(root)).name

    @property
    def categories(self) -> list[str]:
        """Names of the categories."""
        return sorted(self.metrics["categories"])

    @cached_property
    def values(self) -> dict[str, str]:
        """The configuration that determines the results, by dotted keys."""
        encoder = _json(flatten(self.config.get("encoder", {})))
        values = {
            key: value
            for key, value in _json(result_settings(self.config)).items()
            # A detector repeats the encoder's settings and the seed.
            if not under(key, "backbone.detector.encoder")
            and (key, value) != ("backbone.detector.seed", str(self.seed))
        }
        return values | {f"encoder.{key}": value for key, value in encoder.items()}

    @property
    def settings(self) -> Key:
        """What comparable runs share: everything but method, noise, seed and detector."""
        others = [*_TABLE_KEYS, *_DETECTOR_KEYS, *RIVAL_METHODS]
        if self.config["noise"] is None and self._listed is not None:
            others += _LIST_KEYS
        return tuple(item for item in sorted(self.values.items()) if not under(item[0], *others))

    @property
    def detector(self) -> Key:
        """The detector's own settings, or the rival's."""
        items = sorted(self.values.items())
        keys = (self.method,) if self.method in RIVAL_METHODS else _DETECTOR_KEYS
        return tuple(item for item in items if under(item[0], *keys))

    @property
    def seconds(self) -> float:
        """Time that training, or what takes its place, took; without checks and evaluation."""
        parts = self.metrics["seconds"].items()
        return float(sum(value for name, value in parts if name in _FITTING))

    @property
    def gigabytes(self) -> float | None:
        """The most memory held: on the GPU where there was one, else by the process."""
        held = self.metrics.get("memory_gb") or {}
        return held.get("device") or held.get("host")

    def metric(self, name: str, category: str | None = None) -> float | None:
        """Return a metric by name, ``auprc`` or ``inspection_depth`` of the ranking, or a cost.

        Args:
            name: The metric; ``seconds`` and ``gigabytes`` are what the run took.
            category: One category; default: the mean, and the whole list for the ranking.
        """
        if name in ("seconds", "gigabytes"):
            return self.seconds if name == "seconds" else self.gigabytes
        if name in ("auprc", "inspection_depth"):
            ranking = self.metrics["ranking"]
            found = ranking if category is None else ranking["categories"].get(category, {})
        else:
            found = self.metrics["mean" if category is None else "categories"]
            found = found if category is None else found.get(category, {})
        value = found.get(name)
        return None if value is None else float(value)


def row_name(backbone: str, method: str) -> str:
    """Return detector and method, or the rival alone."""
    return method if method in RIVAL_METHODS else f"{backbone}, {method}"


def read_run(path: Path) -> Run:
    """Read the folder of a finished run.

    Raises:
        UserError: If there is none in it.
    """
    return _run(path, read_metrics(path))


def _run(path: Path, metrics: dict[str, Any]) -> Run:
    run = Run(path, metrics, cast("dict[str, Any]", OmegaConf.to_container(read_config(path))))
    try:
        _ = run.backbone, run.seed, run.noise, run.categories
        if run.method not in METHODS:
            msg = f"method={run.method}"
            raise ValueError(msg)  # noqa: TRY301 - reported below, with all other faults
    except (KeyError, TypeError, ValueError) as error:
        msg = f"{path}/config.yaml is not a run's configuration ({brief(error)})"
        raise UserError(msg) from None
    return run


def find_runs(root: Path) -> tuple[list[Run], dict[Path, str]]:
    """Find all runs in a folder, at any depth.

    Args:
        root: The folder of a sweep, or any folder above runs.

    Returns:
        The finished runs, and what the folders of others lack, both by path.

    Raises:
        UserError: If there is no such folder, or no finished run in it.
    """
    if not root.is_dir():
        msg = f"{root}: no such folder; give the folder of a sweep"
        raise UserError(msg)
    # Hydra leaves its own folder even if a job was refused before it began.
    begun = {file.parent for file in root.rglob("config.yaml") if file.parent.name != ".hydra"}
    begun |= {file.parent.parent for file in root.rglob(".hydra/config.yaml")}
    runs: list[Run] = []
    others: dict[Path, str] = {}
    for path in sorted(begun):
        try:
            metrics = read_metrics(path)
        except UserError:
            metrics = {"cut_short": "not finished"}
        if (path / "config.yaml").is_file() and not metrics["cut_short"]:
            runs.append(_run(path, metrics))
        else:
            others[path] = metrics["cut_short"] or "not finished"
    if not runs:
        only = first_few([f"{path} ({why})" for path, why in others.items()])
        msg = f"{root}: no finished run in it{f', only {only}' if only else ''}"
        raise UserError(msg)
    return runs, others


def separate(runs: Sequence[Run]) -> list[tuple[list[Run], dict[str, str]]]:
    """Divide runs into groups of the same settings, one for each table.

    Returns:
        The runs of each group, and the settings that distinguish it from others on the same data.
    """
    groups: dict[str, dict[Key, list[Run]]] = {}
    for run in runs:
        groups.setdefault(run.data, {}).setdefault(run.settings, []).append(run)
    return [
        (own, note)
        for _, kinds in sorted(groups.items())
        for own, note in zip(kinds.values(), differing(kinds), strict=True)
    ]


def differing(keys: Iterable[Key]) -> list[dict[str, str]]:
    """Return, for each key, the values that differ between the keys."""
    tables = [dict(key) for key in keys]
    names = sorted({name for table in tables for name in table})
    varied = [name for name in names if len({table.get(name) for table in tables}) > 1]
    return [{name: table[name] for name in varied if name in table} for table in tables]


def partner(run: Run, others: Sequence[Run], *, method: str = "plain") -> Run | None:
    """Return the run of another method with the same data, noise, seed and detector, if any.

    The number of steps must agree, too, for a fair comparison.
    """

    def same(other: Run) -> bool:
        facts = [(r.settings, r.detector, r.noise, r.seed) for r in (run, other)]
        return other.method == method and facts[0] == facts[1]

    return next((other for other in others if same(other)), None)


def _json(values: Mapping[str, Any]) -> dict[str, str]:
    return {key: json.dumps(value, default=str) for key, value in values.items()}
