"""Explains in one line what is wrong with a command line that Hydra refuses."""

from __future__ import annotations

import inspect
import re
import shlex
from difflib import get_close_matches
from pathlib import Path
from pkgutil import resolve_name
from typing import TYPE_CHECKING, Any, cast

from hydra.errors import MissingConfigException, OverrideParseException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import ConfigAttributeError, ConfigKeyError, OmegaConfBaseException

from meds_plugin.config.flatten import flatten
from meds_plugin.config.location import conf_dir
from meds_plugin.config.overrides import parses, quote, split_top_level
from meds_plugin.config.registry import GENERIC
from meds_plugin.utils.errors import UserError
from meds_plugin.utils.text import first_few

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

__all__ = ["check_names", "check_sections", "explain"]

_MAX_KEYS, _MAX_SUGGESTIONS = 15, 3
# Hydra's own, and values that other keys refer to.
_INTERNAL = ("hydra", "preset", "resolution")


def explain(error: Exception, arguments: Sequence[str]) -> str:
    """Return one line for an error that Hydra or OmegaConf raised.

    Args:
        error: The error.
        arguments: The command line's arguments.
    """
    if isinstance(error, MissingConfigException):
        return _unknown_choice(error)
    if isinstance(error, OverrideParseException):
        return _unreadable(error.override)
    text, cause = str(error), error.__cause__
    key = re.match(r"Could not override '(.*?)'", text)
    if key and isinstance(cause, (ConfigAttributeError, ConfigKeyError)):
        return _unknown_key(cause.parent_node._get_root(), key[1])
    if added := re.search(r"An item is already at '(.*?)'", text):
        return f"{added[1]} exists already: leave out the +"
    if text.startswith(("Ambiguous value", "Sweep parameters")):
        swept = next(each for each in arguments if parses(each, as_sweep=True))
        return f"{swept}: give -m to run each of these values, or [] around them for a list"
    lines = [*text.splitlines(), *(str(cause).splitlines()[:1] if cause else ())]
    return " ".join(line for line in lines if "hydra.cc" not in line)


def check_names(given: Mapping[str, Any], known: Collection[str], level: str) -> None:
    """Refuse unknown names in one level of the configuration.

    Args:
        given: The level's values by name.
        known: All names that the level may have.
        level: Its key.

    Raises:
        UserError: For the first unknown name, with the nearest known one.
    """
    for name in given:
        if name not in known:
            near = [f"{level}.{each}" for each in _nearest(name, known)]
            raise UserError(_message(f"{level}.{name}", near, known, level))


def check_sections(config: DictConfig) -> None:
    """Refuse a single value in the place of a section, such as ``steps=100``.

    Raises:
        UserError: Naming the section and its keys.
    """
    shipped = cast("DictConfig", OmegaConf.load(Path(conf_dir(), "config.yaml")))
    for key in map(str, shipped):
        section: Any = shipped._get_node(key)
        if isinstance(section, DictConfig) and not isinstance(config.get(key, section), DictConfig):
            keys = ", ".join(f"{key}.{name}" for name in map(str, section))
            msg = f"{key}={config[key]}: {key} is a section, give one of its keys: {keys}"
            raise UserError(msg)


def _unknown_choice(error: MissingConfigException) -> str:
    """Explain a ``GROUP=NAME`` that names nothing."""
    group, _, name = str(error.missing_cfg_file).rpartition("/")
    # `_base` and the like are parts of choices.
    options = [each for each in error.options or () if each != GENERIC and each[0] != "_"]
    if not group or not options:
        return str(error)
    return f"{group}={name} does not exist: choose from {', '.join(options)}"


def _unreadable(override: str) -> str:
    """Explain an override that breaks Hydra's grammar, and show it quoted."""
    key, equals, value = override.partition("=")
    if not equals:
        return f"{override} is not a setting: give KEY=VALUE"
    if not parses(f"{key}=1"):
        return f"{key} is not a key, in {override}: give KEY=VALUE"
    quoted = quote(value)
    if value.startswith("[") and value.endswith("]"):
        items = [item.strip() for item in split_top_level(value[1:-1])]
        listed = ",".join(each if parses(f"key=[{each}]") else quote(each) for each in items)
        quoted = f"[{listed}]" if parses(f"key=[{listed}]") else quoted
    argument = f"{key}={quoted}"
    # Double quotes are easier to read, where the shell leaves what is in them alone.
    safe = not re.search(r'["$`\\!]', argument)
    example = f'"{argument}"' if safe else shlex.quote(argument)
    return f"{override} cannot be read: quote the text, as in {example}"


def _unknown_key(root: DictConfig, key: str) -> str:
    """Explain a key that does not exist, with the nearest one that does."""
    if "/" in key:  # a group, such as hydra/launcher
        return _message(key, _nearest(key, _groups()), _groups())
    node: Any = root
    found: list[str] = []
    plus = ""
    for name in key.split("."):
        level = ".".join(found)
        if not isinstance(node, DictConfig) or not node:  # trying to set the key left it empty
            return _message(key, [], [], level)
        names = [str(each) for each in node if str(each)[0] != "_"]
        if not level:
            names = [each for each in names if each not in _INTERNAL]
            names += [each for each in _groups() if each not in names and "/" not in each]
        optional, open_ended = _optional_names(node)
        known = {*node, *names, *optional}
        if name in known:
            near = name
        elif not level and (elsewhere := _elsewhere(root, name, exact=True)):
            return _message(key, elsewhere)
        elif nearest := _nearest(name, known):
            near = nearest[0]
        else:
            line = _message(key, _elsewhere(root, name, exact=False), names, level)
            return f"{line}; any other as +{key}=VALUE" if open_ended else line
        plus = plus or ("+" if near in optional and near not in names else "")
        node = _child(node, near)
        found.append(near)
    if found == key.split("."):
        return f"{key} has no default: give +{key}=VALUE"
    return _message(key, [plus + ".".join(found)])


def _message(key: str, near: Sequence[str], known: Collection[str] = (), level: str = "") -> str:
    if near:
        return f"{key} is not a key: did you mean {' or '.join(near)}?"
    listed = first_few(list(known), _MAX_KEYS)
    there = f"{level} has" if level else "there are"
    return f"{key} is not a key: {there} {listed or 'no keys below it'}"


def _nearest(name: str, known: Collection[Any]) -> list[str]:
    """Return the known name most like another, if any is."""
    return get_close_matches(name.lower(), sorted(map(str, known)), n=1, cutoff=0.7)


def _elsewhere(root: DictConfig, name: str, *, exact: bool) -> list[str]:
    """Return keys of any level that end in a name or, if not exact, in the one most like it."""
    tree: Any = OmegaConf.to_container(root, resolve=False)
    keys = [key for key in flatten(tree) if key.partition(".")[0] not in _INTERNAL]
    last = {key: key.rpartition(".")[2] for key in keys}
    wanted = [name] if exact else _nearest(name, {*last.values()})
    return [key for key in keys if last[key] in wanted][:_MAX_SUGGESTIONS]


def _child(node: DictConfig, name: str) -> Any:
    """Return a node's child, following interpolations; ``None`` if there is none to follow."""
    try:
        return OmegaConf.select(node, name)
    except OmegaConfBaseException:
        return None


def _optional_names(node: DictConfig) -> tuple[set[str], bool]:
    """Return the names that a level accepts with ``+``, and whether it accepts any other."""
    target = node.get("_target_")
    if target is None:
        return set(), False
    try:
        parameters = inspect.signature(resolve_name(target)).parameters.values()
    except Exception:  # its package is not installed
        return set(), False
    names = {each.name for each in parameters if each.kind != inspect.Parameter.VAR_KEYWORD}
    return names, len(names) < len(parameters)


def _groups() -> list[str]:
    """Return the groups of configurations, such as ``data`` and ``hydra/launcher``."""
    root = Path(conf_dir())
    return sorted({file.parent.relative_to(root).as_posix() for file in root.glob("*/**/*.yaml")})
