"""The main job's arguments, with paths taken as they stand."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Quote, QuotedString
from hydra.errors import HydraException

from meds_plugin.utils.errors import UserError
from meds_plugin.utils.text import expand_home, unquoted

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

__all__ = [
    "config_options",
    "is_sweep",
    "parses",
    "prepare_arguments",
    "quote",
    "requote",
    "split_top_level",
    "value_of",
]

_OF_CONFIGS = ("--config-dir", "-cd", "--config-path", "-cp", "--config-name", "-cn")
_WITH_VALUE = (*_OF_CONFIGS, "--package", "-p", "--cfg", "-c", "--experimental-rerun")
_SWEEP = ("--multirun", "-m")
_ALONE = (
    *_SWEEP,
    *("--help", "-h", "--hydra-help", "--version", "--resolve", "--run", "-r"),
    *("--shell-completion", "-sc", "--info", "-i"),
)
# Accept a list of paths, too.
_LIST_KEYS = ("data.test", "data.normal", "data.anomalous")
_INPUT_KEYS = (
    *_LIST_KEYS,
    *("data.root", "data.file", "data.exclude", "data.masks", "data.images", "data.variant"),
    *("data.split", "noise_file", "encoder.weights", "cache.dir", "trainer.default_root_dir"),
)
# Have one value in a sweep.
_OUTPUT_KEYS = (
    *("resume", "hydra.run.dir", "hydra.sweep.dir", "hydra.sweep.subdir"),
    "hydra.launcher.submitit_folder",
)
_KEYS = "|".join(map(re.escape, _INPUT_KEYS + _OUTPUT_KEYS))
_PATH = re.compile(rf"(\+{{0,2}}({_KEYS})=)(.*)", re.S)
# Means the same with and without quotes, unlike a number, for example.
_PLAIN = re.compile(r"(?=.*[/$])(?:[\w./-]|\$\{[^{}]*\})+", re.ASCII)
_FUNCTION = re.compile(r"(?:choice|range|interval|glob|shuffle|sort|tag)\s*\(.*\)", re.S)
_PIECE = re.compile(
    r"""\s*(?:'(?:\\.|[^'])*'|"(?:\\.|[^"])*"|\[[^\]]*\])\s*(?=,|$)|(?:\$\{[^{}]*\}|[^,])*""", re.S
)


def prepare_arguments(arguments: Sequence[str]) -> list[str]:
    """Return arguments for Hydra: its options first, then overrides with quoted paths.

    A leading ``~`` becomes the home folder. Values that are already quoted, ``null``,
    interpolations and a sweep's ``choice(...)`` and the like stay as they are. Commas separate the
    values of a sweep, unless a file or folder has a name with that comma in it. What goes to
    Lightning's trainer may have any name (`job` checks it), so it needs no leading ``+``.

    Args:
        arguments: The user's arguments.

    Raises:
        UserError: If one starts with a dash and is not an option.
    """
    options, overrides = _options_and_overrides(arguments)
    sweep = is_sweep(arguments)
    return [
        *(word for option in options for word in option),
        *(_quoted(each, sweep=sweep) for each in overrides),
    ]


def quote(text: str) -> str:
    """Return a text as the value of an override."""
    return QuotedString(text, Quote.single).with_quotes()


def requote(override: str) -> str:
    """Quote the paths in an override that Hydra wrote: it may have escaped them instead."""
    match = _PATH.fullmatch(override)
    if match is None:
        return override
    value = OverridesParser.create().parse_override(override).value()
    if isinstance(value, list):
        return f"{match[1]}[{','.join(quote(str(item)) for item in value)}]"
    return match[1] + quote(value) if isinstance(value, str) else override


def value_of(arguments: Sequence[str], key: str) -> str | None:
    """Return the value of a key that takes a path; ``None`` if it is not given.

    Args:
        arguments: As `prepare_arguments` returns them.
        key: The key.
    """
    given = [argument for argument in arguments if argument.startswith(f"{key}=")]
    value = OverridesParser.create().parse_override(given[-1]).value() if given else None
    return None if value is None else str(value)


def is_sweep(arguments: Sequence[str]) -> bool:
    """Whether arguments start a sweep."""
    return not {*_SWEEP, "hydra.mode=MULTIRUN"}.isdisjoint(arguments)


def config_options(arguments: Sequence[str]) -> list[str]:
    """Return Hydra's options that say where configurations are, with their values."""
    options, _ = _options_and_overrides(arguments)
    return [word for option in options if option[0].startswith(_OF_CONFIGS) for word in option]


def split_top_level(text: str) -> list[str]:
    """Split a text at commas, but not within quotes, brackets and interpolations."""
    pieces, place = [], 0
    while match := _PIECE.match(text, place):
        pieces.append(match[0])
        place = match.end() + 1
        if place > len(text):
            break
    return pieces


def _options_and_overrides(arguments: Sequence[str]) -> tuple[list[list[str]], list[str]]:
    """Separate options, each with its value, from overrides: Hydra does not accept them mixed."""
    options, overrides = [], []
    remaining = iter(arguments)
    for argument in remaining:
        name, equals, _ = argument.partition("=")
        if not argument.startswith("-"):
            overrides.append(argument)
        elif argument in _ALONE or (equals and name in (*_WITH_VALUE, "--info")):
            options.append([argument])
        elif argument in _WITH_VALUE:
            value = next(remaining, None)
            if value is None:
                msg = f"{argument} needs a value"
                raise UserError(msg)
            options.append([argument, value])
        else:
            setting = argument.lstrip("-") if equals else f"{name.lstrip('-')}=VALUE"
            msg = f"{argument} is not an option: settings have no dashes, as in {setting}"
            raise UserError(msg)
    return options, overrides


def _quoted(override: str, *, sweep: bool) -> str:
    """Quote an override's paths, if its key takes any."""
    if override.startswith("trainer."):
        override = f"++{override}"
    match = _PATH.fullmatch(override)
    if match is None or not match[3]:
        return override
    start, key, value = match.groups()
    if not sweep or key in _OUTPUT_KEYS or _exists(value):
        return start + _quoted_path(value, key)
    if _FUNCTION.fullmatch(value):
        return override
    return start + ",".join(_quoted_path(piece, key) for piece in _split_paths(value))


def _quoted_path(text: str, key: str) -> str:
    """Quote a path, or each path in a list."""
    if text.lower() == "null":
        return text
    if not _exists(text):
        if _PLAIN.fullmatch(text) or _is_quoted(text):
            return text
        if key in _LIST_KEYS and text[0] == "[" and text[-1] == "]":
            items = (_quoted_path(item, "") for item in _split_paths(text[1:-1]))
            return f"[{','.join(items)}]"
        text = unquoted(text)  # Lightning adds quotes without escaping those inside
    return text if _PLAIN.fullmatch(text) else quote(expand_home(text))


def _split_paths(text: str) -> Iterator[str]:
    """Split a text at its commas, except those in names of existing files and folders."""
    pieces = split_top_level(text)
    while pieces:
        ends = range(len(pieces), 1, -1)
        end = next((end for end in ends if _exists(",".join(pieces[:end]).strip())), 1)
        if path := ",".join(pieces[:end]).strip():
            yield path
        del pieces[:end]


def _exists(text: str) -> bool:
    return os.path.lexists(expand_home(text))


def _is_quoted(text: str) -> bool:
    return unquoted(text) != text and parses(f"key={text}", as_sweep=False)


def parses(override: str, *, as_sweep: bool | None = None) -> bool:
    """Whether an override follows the grammar and, if asked, is or is not one of a sweep."""
    try:
        parsed = OverridesParser.create().parse_override(override)
    except HydraException:
        return False
    return as_sweep in (None, parsed.is_sweep_override())
