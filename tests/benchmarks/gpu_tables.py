"""The tables of docs/performance.md, from what the GPU benchmark wrote."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

__all__ = ["tables"]

_TOTAL = "whole run, worked out"


def tables(report: dict[str, Any]) -> str:
    """Return markdown: a line on the machine, a table for each part, and what is missing."""
    parts: dict[str, dict[str, Any]] = report["parts"]
    found = {name: part["found"] for name, part in parts.items() if part.get("found")}
    texts = []
    for each in list(found.values())[:1]:
        machine = each["machine"]
        texts.append(f"Measured on {machine['device']} with torch {machine['torch']}.")
    make = {"setting": _setting, "memory": _memory, "compiled": _compiled, "fit": _fit}
    texts += [make[name](found[name]) for name in make if _whole(name, found.get(name))]
    if "tests" in found:
        counts = found["tests"]["counts"]
        words = ", ".join(f"{count} {word}" for word, count in counts.items())
        texts.append(f"`pytest -m gpu`: {words or 'no result'}.")
    if "memory" in found and found["memory"]["left_out"]:
        texts.append("Left out of stage 1: " + "; ".join(found["memory"]["left_out"]) + ".")
    for name, part in parts.items():
        if part["status"] != "done":
            reason = part.get("why") or part["error"].strip().rpartition("\n")[2]
            texts.append(f"{name}: {part['status']}, {reason}")
    return "\n\n".join(texts)


def _whole(name: str, found: dict[str, Any] | None) -> bool:
    """Whether a part got as far as its table."""
    needed = {"setting": "reference", "memory": "rows", "compiled": "compiled", "fit": "seconds"}
    return bool(found and found.get(needed[name]))


def _setting(found: dict[str, Any]) -> str:
    ours, theirs = found["ours"], found["reference"]
    shares = found["share_of_product_rate"]
    rows = [
        (name, ours[name], theirs[name], theirs[name] / ours[name], _percent(shares.get(name)))
        for name in ours
    ]
    totals = found["ours_total"], found["reference_total"]
    rows.append((_TOTAL, *totals, found["ratio"], ""))
    size = (
        f"{found['images']} images of {found['size']} px in {found['categories']} categories, "
        f"batch {found['batch']}, {found['steps']} + {found['steps']} steps"
    )
    table = _table((size + ", s", "ours, bf16", "reference, float32", "ratio", "of products"), rows)
    rate = found["product_gflops"] / 1e3
    return (
        f"{table}\n\nMatrix products: {rate:.0f} TFLOP/s in bfloat16. Encoding: "
        f"{found['images'] / ours['encoding']:.0f} images/s. Memory of the GPU: "
        f"{_number(found['gpu_gigabytes'])} GB. Of the reference, encoding, memory scores and "
        "selection pass are worked out from a part."
    )


def _memory(found: dict[str, Any]) -> str:
    rows = [
        (
            row["images"],
            row["stored"] or "all",
            row["dtype"],
            row["seconds"],
            row["gigabytes"],
            _percent(row["share_of_product_rate"]),
        )
        for row in found["rows"]
    ]
    size = f"images, of {found['patches']} patches with {found['channels']} channels"
    return _table((size, "stored", "products", "s", "GB", "of products"), rows)


def _compiled(found: dict[str, Any]) -> str:
    rows = [
        (name, 1e3 * found["plain"][name], 1e3 * seconds, found["first_compiled"][name])
        for name, seconds in found["compiled"].items()
    ]
    head = f"batch {found['batch']} at {found['size']} px"
    return _table((head, "ms", "compiled, ms", "first step, s"), rows)


def _fit(found: dict[str, Any]) -> str:
    steps = " + ".join(map(str, found["steps"]))
    head = f"{found['images']} images of {found['size']} px, {steps} steps of {found['batch']}"
    table = _table((head, "s"), found["seconds"].items())
    busy = found["utilisation"]
    return table + ("" if busy is None else f"\n\nThe GPU was busy {busy:.0f} % of the fit.")


def _table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    lines = [head, ["---"] * len(head), *([_number(cell) for cell in row] for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _number(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"
    return str(value)


def _percent(share: float | None) -> str:
    return "" if share is None else f"{100 * share:.0f} %"
