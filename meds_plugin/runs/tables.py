"""The paper's tables from finished runs: rows are detectors and methods, columns noise levels."""

from __future__ import annotations

import statistics
from dataclasses import asdict, dataclass, field
from itertools import product
from typing import TYPE_CHECKING

from meds_plugin.metrics import UndefinedMetricError
from meds_plugin.ranking import auprc, inspection_depth
from meds_plugin.runs.collection import differing, separate
from meds_plugin.runs.joined import join_categories
from meds_plugin.runs.published import NAMES, published_dataset, published_value
from meds_plugin.runs.read import read_rows
from meds_plugin.training.stages import METHODS, RIVAL_METHODS
from meds_plugin.utils.atomic import csv_text
from meds_plugin.utils.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from meds_plugin.runs.collection import Run

__all__ = [
    "COST",
    "METRICS",
    "RANKING",
    "Cell",
    "Table",
    "build_tables",
    "csv_table",
    "latex",
    "markdown",
    "stage_ranking",
]

METRICS = ("I-AUROC", "I-AP", "P-AUPRO", "P-AP")  # the paper's four
RANKING = ("auprc", "inspection_depth")
COST = {"seconds": "seconds without evaluation", "gigabytes": "memory in GB"}
STAGES = {"memory": "memory scores of MeDS", "distilled": "distilled scores of MeDS"}
_TITLES = {
    "auprc": "AUPRC of the ranking",
    "inspection_depth": "inspection depth (lower is better)",
    **COST,
}
_FIELDS = ("settings", "metric", "detector", "method", "noise", "mean", "std", "runs", "source")


@dataclass(frozen=True)
class Cell:
    """A value: mean, deviation over seeds (``None`` for one run), number of runs."""

    mean: float
    std: float | None
    runs: int

    def text(self, metric: str) -> str:
        """Return metrics in percent, as in the paper, and costs as they are."""
        if metric in COST:
            return f"{self.mean:.{0 if metric == 'seconds' and self.mean >= 10 else 1}f}"
        spread = "" if self.std is None else f" ± {100 * self.std:.2f}"
        return f"{100 * self.mean:.2f}{spread}"


@dataclass
class Table:
    """Runs of the same settings.

    Attributes:
        title: The data, and the settings that distinguish this table from the sweep's others.
        noises: The columns.
        cells: Values by metric, detector, method and noise.
        published: The paper's values, likewise, if the data set is the same.
        missing: A line for each combination or seed that other rows or columns have.
    """

    title: str
    noises: list[float | None]
    cells: dict[tuple[str, str, str, float | None], Cell] = field(default_factory=dict)
    published: dict[tuple[str, str, str, float | None], float] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)

    def rows(self, metric: str) -> list[tuple[str, str]]:
        """Return detector and method of each row of a metric, in order."""
        found = {(key[1], key[2]) for key in self.cells if key[0] == metric}
        return sorted(found, key=lambda row: (row[0], _order(row[1])))

    @property
    def metrics(self) -> list[str]:
        """The metrics that any run has."""
        every = (*METRICS, *RANKING, *COST)
        return [m for m in every if any(key[0] == m for key in self.cells)]


def build_tables(runs: Sequence[Run]) -> list[Table]:
    """Collect runs into tables, one for each combination of settings.

    Runs that train each category alone become one (see `join_categories`).

    Raises:
        UserError: If two runs do not differ: their mean would count one run twice.
    """
    return [_table(group, note) for group, note in separate(join_categories(runs))]


def markdown(table: Table) -> str:
    """Format a table in Markdown, metrics in percent."""
    lines = [f"### {table.title}", ""]
    for metric in table.metrics:
        heads = [_noise(noise) for noise in table.noises]
        lines.append(f"| {_TITLES.get(metric, metric)} | {' | '.join(heads)} |")
        lines.append("|---|" + "---|" * len(heads))
        for label, cells in _lines(table, metric):
            lines.append(f"| {label} | {' | '.join(cells)} |")
        lines.append("")
    return "\n".join([*lines, *(f"missing: {line}  " for line in table.missing), ""])


def latex(table: Table) -> str:
    """Format a table as a LaTeX ``tabular`` that needs no package."""
    columns = "l" + "r" * len(table.noises)
    lines = [f"% {table.title}", f"\\begin{{tabular}}{{{columns}}}", "\\hline"]
    for metric in table.metrics:
        heads = " & ".join(_escaped(_noise(noise)) for noise in table.noises)
        lines.append(f"{_escaped(_TITLES.get(metric, metric))} & {heads} \\\\ \\hline")
        for label, cells in _lines(table, metric):
            values = " & ".join(c.replace(" ± ", " $\\pm$ ").replace("-", "--") for c in cells)
            lines.append(f"{_escaped(label)} & {values} \\\\")
        lines.append("\\hline")
    missing = [f"% missing: {line}" for line in table.missing]
    return "\n".join([*lines, "\\end{tabular}", *missing, ""])


def csv_table(tables: Sequence[Table]) -> str:
    """Return all tables as one CSV with a row for each value, ours or published.

    Metrics are in [0, 1].
    """
    rows: list[dict[str, object]] = []
    for table in tables:
        for key, cell in table.cells.items():
            row: dict[str, object] = dict(zip(_FIELDS[:5], (table.title, *key), strict=True))
            rows.append({**row, **asdict(cell), "source": "ours"})
            if key in table.published:
                rows.append({**row, "mean": table.published[key], "source": "published"})
    return csv_text(_FIELDS, rows)


def _table(runs: Sequence[Run], note: dict[str, str]) -> Table:
    labels = _detectors(runs)
    noises = sorted({run.noise for run in runs}, key=lambda z: (z is None, z or 0.0))
    table = Table(_title(runs[0], note), noises)
    places: dict[tuple[str, str, float | None], list[Run]] = {}
    for run in runs:
        place = places.setdefault((labels[run.path], run.method, run.noise), [])
        if twin := next((other for other in place if other.seed == run.seed), None):
            msg = f"{twin.path} and {run.path} are the same run twice: remove one"
            raise UserError(msg)
        place.append(run)
    dataset = published_dataset(runs[0].categories)
    for (detector, method, noise), members in places.items():
        for metric in (*METRICS, *RANKING, *COST):
            values = [v for run in members if (v := run.metric(metric)) is not None]
            if not values:
                continue
            key = (metric, detector, method, noise)
            table.cells[key] = _cell(values)
            paper = _paper(dataset, members[0], metric)
            if paper is not None:
                table.published[key] = paper
    for (detector, method, noise), members in places.items():
        if method == "meds":
            _add_stages(table, detector, noise, members)
    table.missing = _missing(places, noises)
    return table


def _cell(values: Sequence[float]) -> Cell:
    std = statistics.stdev(values) if len(values) > 1 else None
    return Cell(statistics.fmean(values), std, len(values))


def _add_stages(table: Table, detector: str, noise: float | None, runs: Sequence[Run]) -> None:
    """Evaluate the rankings by earlier stages of MeDS, unless a run of their own does."""
    for stage, name in STAGES.items():
        if ("auprc", detector, stage, noise) in table.cells:
            continue
        values = [pair for run in runs if (pair := stage_ranking(run, stage)) is not None]
        for number, metric in enumerate(RANKING if values else ()):
            table.cells[metric, detector, name, noise] = _cell([pair[number] for pair in values])


def stage_ranking(run: Run, stage: str) -> tuple[float, float] | None:
    """Return AUPRC and inspection depth of a stage's scores, if they and the truth are known.

    Args:
        run: A finished run.
        stage: The scores' column in ``ranking.csv``.
    """
    if run.parts:
        found = [pair for part in run.parts if (pair := stage_ranking(part, stage)) is not None]
        means = [statistics.fmean(values) for values in zip(*found, strict=True)]
        return (means[0], means[1]) if found else None
    rows = read_rows(run.path / "ranking.csv")
    if not rows or not all(row[stage] for row in rows):
        return None
    scores = [float(row[stage]) for row in rows]
    truth = [row["injected"] == "1" for row in rows]
    try:
        return auprc(scores, truth), inspection_depth(scores, truth)
    except UndefinedMetricError:
        return None


def _paper(dataset: str | None, run: Run, metric: str) -> float | None:
    """Return the paper's value for the run's data set, detector, method and noise."""
    if dataset is None or run.noise is None:
        return None
    if dataset == "real_iad":  # has its own lists of contaminated images
        same = run.config["noise"] is None
    else:
        protocol = (run.config["noise_definition"], run.config["noise_protocol"])
        same = protocol == ("normal", "overlap")
    if run.noise > 0 and not same:
        return None
    return published_value(dataset, run.backbone, run.method, metric, run.noise)


def _detectors(runs: Sequence[Run]) -> dict[object, str]:
    """Name each run's detector, with the settings that distinguish it from others of its kind."""
    labels: dict[object, str] = {}
    for backbone in {run.backbone for run in runs}:
        own = [run for run in runs if run.backbone == backbone]
        kinds = list(dict.fromkeys(run.detector for run in own))
        notes = dict(zip(kinds, differing(kinds), strict=True))
        for run in own:
            values = notes[run.detector]
            note = ", ".join(f"{key.split('.')[-1]}={value}" for key, value in values.items())
            name = NAMES.get(backbone, backbone)
            labels[run.path] = f"{name} ({note})" if note else name
    return labels


def _missing(
    places: dict[tuple[str, str, float | None], list[Run]], noises: Sequence[float | None]
) -> list[str]:
    """Name the combinations of detector, method and noise that lack seeds which others have."""
    lines = []
    rows = {(detector, method) for detector, method, _ in places}
    seeds = sorted({run.seed for members in places.values() for run in members})
    methods = sorted({method for _, method, _ in places}, key=_order)
    detectors = sorted({detector for detector, _, _ in places})
    rivals = {detector for detector, method, _ in places if method in RIVAL_METHODS}
    for detector, method, noise in product(detectors, methods, noises):
        if (detector in rivals or method in RIVAL_METHODS) and (detector, method) not in rows:
            continue
        have = {run.seed for run in places.get((detector, method, noise), [])}
        lacking = [str(seed) for seed in seeds if seed not in have]
        if lacking:
            name = "seed" if len(lacking) == 1 else "seeds"
            where = f"{detector}, method={method}, noise={_noise(noise)}"
            lines.append(f"{where}: no {name} {', '.join(lacking)}")
    return lines


def _lines(table: Table, metric: str) -> list[tuple[str, list[str]]]:
    """Return labels and cells of a metric's rows, published values below ours."""
    result = []
    for detector, method in table.rows(metric):
        keys = [(metric, detector, method, noise) for noise in table.noises]
        ours = [table.cells[key].text(metric) if key in table.cells else "-" for key in keys]
        result.append((_label(detector, method), ours))
        paper = [table.published.get(key) for key in keys]
        if any(value is not None for value in paper):
            texts = ["-" if value is None else f"{100 * value:.2f}" for value in paper]
            result.append((f"{_label(detector, method)} (published)", texts))
    return result


def _label(detector: str, method: str) -> str:
    if method in RIVAL_METHODS:
        return detector
    return {"plain": detector, "meds": f"{detector} + MeDS"}.get(method, f"{detector}: {method}")


def _title(run: Run, note: dict[str, str]) -> str:
    settings = (f"{key}={value}" for key, value in note.items())
    return ", ".join([f"data {run.data}, encoder {run.config['encoder']['model']}", *settings])


def _noise(noise: float | None) -> str:
    return "as found" if noise is None else f"{100 * noise:g} %"


def _order(method: str) -> int:
    order: list[str] = ["plain", "meds", *METHODS, *STAGES.values()]
    return order.index(method)


def _escaped(text: str) -> str:
    for character in "_%&#":
        text = text.replace(character, f"\\{character}")
    return text
