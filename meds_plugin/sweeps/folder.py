"""A sweep's folder: which job has which folder in it, and how far each has come.

A job is known by its settings, never by its number, so that a sweep may be stopped, put in another
order, extended and started again.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import re
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

from meds_plugin.config.flatten import flatten
from meds_plugin.utils.atomic import write_json
from meds_plugin.utils.file_locks import lock, try_lock

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence
    from pathlib import Path

__all__ = ["Job", "changes", "find_jobs", "job_name", "locked", "place", "read_job", "write_job"]

log = logging.getLogger(__name__)

_RECORD = "job.json"
_LONGEST = 100  # characters of a name; folders may have 255, paths on Windows 260


@dataclass(frozen=True)
class Job:
    """What ``job.json`` in a job's folder holds.

    Args:
        overrides: The job's own, as Hydra gives them.
        settings: The whole configuration, with absolute paths.
        sweep: Which start of a sweep had to do with it last.
        status: Its exit status; ``None`` while it runs, and where it was stopped.
        reason: Why it failed, in one line.
        seconds: It took in its last process.
    """

    overrides: list[str]
    settings: dict[str, Any] = field(repr=False)
    sweep: str
    status: int | None = None
    reason: str = ""
    seconds: float = 0.0


def read_job(folder: Path) -> Job | None:
    """Return what is known of the job of a folder."""
    try:
        return Job(**json.loads((folder / _RECORD).read_text(encoding="utf-8")))
    except FileNotFoundError:
        return None


def write_job(folder: Path, job: Job, **changed: Any) -> None:
    """Write down what is known of a job."""
    write_json(folder / _RECORD, asdict(replace(job, **changed)))


def find_jobs(sweep: Path) -> Iterator[tuple[Path, Job]]:
    """Yield the folders and jobs of a sweep, by name."""
    for record in sorted(sweep.glob(f"*/{_RECORD}")):
        job = read_job(record.parent)
        if job is not None:
            yield record.parent, job


def place(sweep: Path, name: str, settings: Mapping[str, Any]) -> Path:
    """Return the folder of a job: that of the same settings, whatever it is called, or its own."""
    own = sweep / name
    known = read_job(own)
    if known is None or known.settings != settings:
        for folder, job in find_jobs(sweep):
            if job.settings == settings:
                return folder
    return own


def job_name(overrides: Sequence[str], swept: Collection[str]) -> str:
    """Name a job by the overrides that tell it from the others of its sweep.

    The order of the overrides does not matter. ``=`` and ``,`` would have to be quoted in
    ``resume=FOLDER``.

    Args:
        overrides: Of the job, ``KEY=VALUE``.
        swept: The keys whose values differ between jobs.

    Returns:
        Such as ``method-plain+noise-0.1``; ``job`` where nothing is swept.
    """
    pairs = sorted(o.lstrip("+").partition("=")[::2] for o in overrides)
    chosen = [(key, value) for key, value in pairs if key in swept]
    parts = [f"{_plain(key)}-{_plain(value)}" for key, value in chosen]
    name = "+".join(parts)[:_LONGEST] or "job"
    if any(re.search(r"[^\w.\-]", value, re.ASCII) for _, value in chosen) or len(name) == _LONGEST:
        # Not all of it can stand in the name.
        name += "-" + hashlib.sha256(repr(chosen).encode()).hexdigest()[:8]
    return name


def _plain(text: str) -> str:
    return re.sub(r"[^\w.\-]+", "-", text.strip("[]{}'\"/"), flags=re.ASCII)


def changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Return which settings differ, such as ``steps.finetune: 14, now 20``."""
    old, new = flatten(before), flatten(now)
    return [
        f"{key}: {old.get(key, 'not there')}, now {new.get(key, 'not there')}"
        for key in sorted(old.keys() | new.keys())
        if key not in old or key not in new or old[key] != new[key]
    ]


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep other processes from running the same job; wait for one that does."""
    with contextlib.ExitStack() as stack:
        file = stack.enter_context((folder / ".lock").open("ab"))
        try:
            if not try_lock(file):
                log.info("%s: another process runs it, waiting", folder.name)
                stack.enter_context(lock(file))
        except OSError as error:  # a file system without locks
            log.warning("%s cannot be locked (%s): do not start its sweep twice", folder, error)
        yield
