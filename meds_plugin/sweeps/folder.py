"""A sweep's folder: the folder and the progress of each job.

Settings identify a job, not its number, so a sweep may be stopped, reordered, extended and started
again.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import re
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

from meds_plugin.utils.atomic import write_json
from meds_plugin.utils.errors import UserError
from meds_plugin.utils.file_locks import lock, try_lock

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence
    from pathlib import Path

__all__ = ["Job", "find_jobs", "job_name", "locked", "place", "read_job", "write_job"]

log = logging.getLogger(__name__)

_RECORD = "job.json"
_MAX_LENGTH = 100  # characters of a name; folders may have 255, paths on Windows 260


@dataclass(frozen=True)
class Job:
    """The content of ``job.json`` in a job's folder.

    Args:
        overrides: The job's overrides, as Hydra gives them.
        settings: The whole configuration, with absolute paths.
        sweep: Identifies the sweep's start that last handled the job.
        status: Its exit status; ``None`` while it runs and if it was stopped.
        reason: Why it failed, in one line.
        seconds: Duration of its last process.
    """

    overrides: list[str]
    settings: dict[str, Any] = field(repr=False)
    sweep: str
    status: int | None = None
    reason: str = ""
    seconds: float = 0.0


def read_job(folder: Path) -> Job | None:
    """Return the job of a folder; ``None`` if the folder has none.

    Raises:
        UserError: If its record is damaged.
    """
    file = folder / _RECORD
    try:
        return Job(**json.loads(file.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return None
    except (ValueError, TypeError) as error:
        msg = f"{file} is damaged ({error}): remove the job's folder to run it again"
        raise UserError(msg) from error


def write_job(folder: Path, job: Job, **changed: Any) -> None:
    """Write a job with some changed fields."""
    write_json(folder / _RECORD, asdict(replace(job, **changed)))


def find_jobs(sweep: Path) -> Iterator[tuple[Path, Job]]:
    """Yield the folders and jobs of a sweep, by name."""
    for record in sorted(sweep.glob(f"*/{_RECORD}")):
        job = read_job(record.parent)
        if job is not None:
            yield record.parent, job


def place(sweep: Path, name: str, settings: Mapping[str, Any]) -> Path:
    """Return a job's folder: one with the same settings, whatever its name, or a new one."""
    own = sweep / name
    known = read_job(own)
    if known is None or known.settings != settings:
        for folder, job in find_jobs(sweep):
            if job.settings == settings:
                return folder
    return own


def job_name(overrides: Sequence[str], swept: Collection[str]) -> str:
    """Name a job by the overrides that distinguish it from the others of its sweep.

    The order of the overrides does not matter. The name contains no ``=`` or ``,``, which would
    need quotes in ``resume=FOLDER``.

    Args:
        overrides: The job's overrides, ``KEY=VALUE``.
        swept: The keys whose values differ between jobs.

    Returns:
        A name such as ``method-plain+noise-0.1``; ``job`` if nothing is swept.
    """
    pairs = sorted(o.lstrip("+").partition("=")[::2] for o in overrides)
    chosen = [(key, value) for key, value in pairs if key in swept]
    parts = [f"{_slug(key)}-{_slug(value)}" for key, value in chosen]
    name = "+".join(parts)[:_MAX_LENGTH] or "job"
    changed = any(re.search(r"[^\w.\-]", value, re.ASCII) for _, value in chosen)
    if changed or len(name) == _MAX_LENGTH:
        # The name does not contain all of it.
        name += "-" + hashlib.sha256(repr(chosen).encode()).hexdigest()[:8]
    return name


def _slug(text: str) -> str:
    return re.sub(r"[^\w.\-]+", "-", text.strip("[]{}'\"/"), flags=re.ASCII)


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
