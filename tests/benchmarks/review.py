"""What a review is worth: decisions as a reviewer who errs would make them, from the truth.

    python -m tests.benchmarks.review RUN DECISIONS --wrong 0.1

writes the decisions on a run with known contamination. `python -m meds_plugin.review RUN --apply
DECISIONS` then gives the command that trains again, which compares both runs at its end.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from meds_plugin.runs.read import read_rows
from meds_plugin.utils.atomic import write_csv
from meds_plugin.utils.rng import numpy_rng


def decide(run: Path, wrong: float) -> list[dict[str, str]]:
    """Return a decision on every training image.

    Args:
        run: The run's folder.
        wrong: Share of the good images that are dropped, and of the defective ones that are kept;
            of each category, halves rounded to even.
    """
    rows = read_rows(run / "manifest.csv")
    members: dict[tuple[str, str], list[str]] = {}
    for row in rows:
        members.setdefault((row["category"], row["injected"]), []).append(row["path"])
    mistaken: set[str] = set()
    for (category, injected), paths in members.items():
        rng = numpy_rng(0, "mistakes", category, injected)
        mistaken |= set(rng.permutation(paths)[: round(wrong * len(paths))].tolist())
    return [
        {
            "path": row["path"],
            "category": row["category"],
            "decision": ("keep", "drop")[(row["injected"] == "1") != (row["path"] in mistaken)],
        }
        for row in rows
    ]


def main() -> None:
    """Write the decisions."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("decisions", type=Path)
    parser.add_argument("--wrong", type=float, default=0.0)
    given = parser.parse_args()
    rows = decide(given.run, given.wrong)
    write_csv(given.decisions, ("path", "category", "decision"), rows)
    print(f"{given.decisions}: {sum(row['decision'] == 'drop' for row in rows)} dropped")


if __name__ == "__main__":
    main()
