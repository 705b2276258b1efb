"""The command lines beside the main job: ``KEY=VALUE`` over a shipped configuration."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import OmegaConf

from meds_plugin.config.location import conf_dir
from meds_plugin.utils.errors import UserError
from meds_plugin.utils.openmp import limit_spinning

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    Options = Mapping[str, Any]

__all__ = ["choice", "number", "read_options", "required", "serve", "switch"]


def read_options(name: str, arguments: Sequence[str], *, texts: Collection[str]) -> Options:
    """Read a command line.

    Args:
        name: Of the configuration in ``conf``; its keys are those that may be given.
        arguments: ``KEY=VALUE`` each.
        texts: Keys whose values are taken as they stand, as names of files are, so that nothing in
            them needs quoting for us; other values are YAML.

    Returns:
        All values by their dotted names.

    Raises:
        UserError: If a key is unknown or a value cannot be read.
    """
    options = _flat(OmegaConf.to_container(OmegaConf.load(Path(conf_dir(), f"{name}.yaml"))))
    for argument in arguments:
        key, given, value = argument.partition("=")
        if not given or key not in options:
            msg = f"{argument!r} is no option: give KEY=VALUE with one of {', '.join(options)}"
            raise UserError(msg)
        options[key] = _text(value) if key in texts else _value(key, value)
    return options


def serve(
    name: str, work: Callable[[Options], None], arguments: Sequence[str], *, texts: Collection[str]
) -> int:
    """Do what a command line asks for and return the exit status.

    Args:
        name: See `read_options`.
        work: Takes the options.
        arguments: What follows the program's name; ``--help`` prints the configuration.
        texts: See `read_options`.

    Returns:
        0, or 2 after one line on standard error where the input is wrong.
    """
    if {"-h", "--help"} & set(arguments):
        print(Path(conf_dir(), f"{name}.yaml").read_text(encoding="utf-8"), end="")
        return 0
    limit_spinning()
    try:
        work(read_options(name, arguments, texts=texts))
    except UserError as error:
        print(f"meds_plugin: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    return 0


def required(options: Options, key: str, what: str) -> str:
    """Return a text that must be given."""
    value = options[key]
    if value is None or value == "":
        msg = f"{key}={what} is missing"
        raise UserError(msg)
    return str(value)


def switch(options: Options, key: str) -> bool:
    """Return a value that is true or false."""
    value = options[key]
    if not isinstance(value, bool):
        msg = f"{key} must be true or false, got {value!r}"
        raise UserError(msg)
    return value


def number(options: Options, key: str, least: int) -> int:
    """Return a whole number."""
    value = options[key]
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        msg = f"{key} must be a whole number of at least {least}, got {value!r}"
        raise UserError(msg)
    return value


def choice(options: Options, key: str, choices: Collection[str]) -> str | None:
    """Return one of some words, or ``None``."""
    value = options[key]
    if value is not None and value not in choices:
        msg = f"{key} must be {' or '.join(choices)}, got {value!r}"
        raise UserError(msg)
    return None if value is None else str(value)


def _flat(tree: Any, before: str = "") -> dict[str, Any]:
    """Return the leaves of a tree by their dotted names."""
    found: dict[str, Any] = {}
    for key, value in tree.items():
        inner = isinstance(value, dict)
        found |= _flat(value, f"{before}{key}.") if inner else {f"{before}{key}": value}
    return found


def _text(value: str) -> str | None:
    """Return a text without quotes around it; ``null`` is none."""
    if len(value) > 1 and value[0] == value[-1] and value[0] in "'\"":
        return value[1:-1]
    return None if value == "null" else value


def _value(key: str, text: str) -> Any:
    try:
        found = OmegaConf.to_container(OmegaConf.from_dotlist([f"value={text}"]), resolve=True)
    except Exception as error:  # of YAML or of OmegaConf's own
        msg = f"{key}={text} cannot be read: {str(error).splitlines()[0]}"
        raise UserError(msg) from None
    return found["value"]  # type: ignore[index,call-overload]
