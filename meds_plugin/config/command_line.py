"""The command lines beside the main job: a shipped configuration, and options that change it."""

from __future__ import annotations

import sys
from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import OmegaConf

from meds_plugin.config.flatten import flatten
from meds_plugin.config.location import conf_dir
from meds_plugin.utils.errors import UserError, print_error
from meds_plugin.utils.openmp import limit_spinning
from meds_plugin.utils.stopping import Stopped, stoppable
from meds_plugin.utils.text import expand_home, unquoted
from meds_plugin.utils.values import is_whole

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

__all__ = ["Options", "run_command"]


class Options:
    """The options of a command.

    Each method reads one kind of value. Texts, such as names of files, are taken as they stand:
    nothing in them needs quotes beyond the shell's.

    Args:
        command: Its name. The keys of ``conf/COMMAND.yaml`` are its options, the values their
            defaults; the first line shows how to call it.
        arguments: ``KEY=VALUE``, ``--KEY=VALUE`` or ``--KEY VALUE``, which mean the same. A key
            whose default is true or false may stand alone, ``--KEY``, for true; one whose default
            is a list takes several values, ``--KEY A B`` or ``KEY=A KEY=B``.
        positional: Key whose value may be given without the key.

    Raises:
        UserError: If an argument is not an option, or a value is missing.
    """

    def __init__(
        self, command: str, arguments: Sequence[str], *, positional: str | None = None
    ) -> None:
        file = _file(command)
        self._usage = file.read_text(encoding="utf-8").partition("\n")[0].strip("# ")
        self._defaults = flatten(OmegaConf.to_container(OmegaConf.load(file)))  # type: ignore[arg-type]
        self._values = dict(self._defaults)
        remaining = deque(arguments)
        while remaining:
            argument = remaining.popleft()
            key, equals, value = argument.removeprefix("--").partition("=")
            if key in self._values and (equals or argument.startswith("--")):
                self._set(key, argument, [value] if equals else self._following(key, remaining))
            elif (
                positional is not None
                and self._values[positional] is None
                and not argument.startswith("-")
                and not (equals and key.isidentifier())  # a misspelt key; folders may hold a "="
            ):
                self._values[positional] = argument
            else:
                msg = (
                    f"{argument!r} is not an option: give KEY=VALUE with one of "
                    f"{', '.join(self._values)}"
                )
                raise UserError(msg)

    def _following(self, key: str, remaining: deque[str]) -> list[str]:
        """Take the values of ``--KEY`` from the arguments after it."""
        default, values = self._defaults[key], list[str]()
        if isinstance(default, bool):
            given = bool(remaining) and remaining[0].lower() in {"true", "false"}
            return [remaining.popleft() if given else "true"]
        while remaining and not remaining[0].startswith("--"):
            values.append(remaining.popleft())
            if not isinstance(default, list):
                break
        return values

    def _set(self, key: str, argument: str, values: list[str]) -> None:
        if not values:
            msg = f"{argument} needs a value: {argument}=VALUE"
            raise UserError(msg)
        several = isinstance(self._defaults[key], list)
        self._values[key] = [*self._values[key], *values] if several else values[0]

    def optional(self, key: str) -> str | None:
        """Return a text, without quotes around it; ``None`` where it is not given, or ``null``."""
        text = self._values[key]
        if text in (None, "null"):
            return None
        return unquoted(str(text))

    def text(self, key: str) -> str:
        """Return a text that must be given."""
        if not (text := self.optional(key)):
            msg = f"{key} is missing: {self._usage}"
            raise UserError(msg)
        return text

    def path(self, key: str) -> Path:
        """Return a path that must be given; a leading ``~`` is the home folder."""
        return Path(expand_home(self.text(key)))

    def optional_path(self, key: str) -> Path | None:
        """Return a path, or ``None``."""
        return self.path(key) if self.optional(key) else None

    def paths(self, key: str) -> list[Path]:
        """Return the paths of a key that takes several."""
        return [Path(expand_home(unquoted(text))) for text in self._values[key]]

    def value(self, key: str) -> Any:
        """Return a value that is YAML."""
        text = self._values[key]
        if not isinstance(text, str):
            return text
        try:
            parsed = OmegaConf.to_container(OmegaConf.from_dotlist([f"value={text}"]), resolve=True)
        except Exception as error:  # of YAML or of OmegaConf's own
            msg = f"{key}={text} cannot be read: {str(error).splitlines()[0]}"
            raise UserError(msg) from None
        return parsed["value"]  # type: ignore[index,call-overload]

    def flag(self, key: str) -> bool:
        """Return a value that is true or false."""
        value = self.value(key)
        if not isinstance(value, bool):
            msg = f"{key} must be true or false, got {value!r}"
            raise UserError(msg)
        return value

    def whole_number(self, key: str, *, minimum: int) -> int:
        """Return a whole number."""
        value = self.value(key)
        if not is_whole(value) or value < minimum:
            msg = f"{key} must be a whole number of at least {minimum}, got {value!r}"
            raise UserError(msg)
        return value

    def choice(self, key: str, allowed: Collection[str]) -> str | None:
        """Return one of some words, or ``None``."""
        word = self.optional(key)
        return word if word is None else _checked(key, [word], allowed)[0]

    def choices(self, key: str, allowed: Collection[str]) -> list[str]:
        """Return words that are given with commas between them, one at least."""
        return _checked(key, self.text(key).split(","), allowed)


def run_command(
    name: str,
    command: Callable[[Options], None],
    arguments: Sequence[str] | None,
    *,
    positional: str | None = None,
) -> int:
    """Do what a command line asks for and return the exit status.

    Args:
        name: See `Options`; ``--help`` prints its configuration.
        command: Takes the options.
        arguments: What follows the command's name; ``None``: the process's.
        positional: See `Options`.

    Returns:
        0; or, after one line on standard error, 2 if the input is wrong, and 130 or 143 if a signal
        ended the command.
    """
    given = sys.argv[1:] if arguments is None else arguments
    if {"-h", "--help"} & set(given):
        print(_file(name).read_text(encoding="utf-8"), end="")
        return 0
    limit_spinning()
    try:
        with stoppable():
            command(Options(name, given, positional=positional))
    except UserError as error:
        print_error(error)
        return 2
    except Stopped as stopped:
        print_error(f"{stopped}: run the command again")
        return stopped.status
    return 0


def _checked(key: str, words: list[str], allowed: Collection[str]) -> list[str]:
    if unknown := [word for word in words if word not in allowed]:
        msg = f"{key}={','.join(unknown)}: choose from {', '.join(allowed)}"
        raise UserError(msg)
    return words


def _file(command: str) -> Path:
    return Path(conf_dir(), f"{command}.yaml")
