"""All commands as one: ``meds-plugin run ...`` is ``python -m meds_plugin.run ...``."""

from __future__ import annotations

import runpy
import sys
from importlib import import_module

from meds_plugin.utils.errors import print_error

__all__ = ["main"]

_COMMANDS = {
    "run": "train a detector on contaminated images",
    "review": "review the most suspicious training images",
    "predict": "score new images",
    "export": "export a detector to ONNX or torch.export",
    "table": "make tables of a sweep",
    "plot": "draw the figures of a run or a sweep",
}


def main() -> None:
    """Run the command that is named first; a name that there is not ends with status 2."""
    name = sys.argv[1] if len(sys.argv) > 1 else "--help"
    if name in _COMMANDS:
        del sys.argv[1]
        # As with `python -m`: processes that a run starts find the module in __main__.
        runpy.run_module(f"meds_plugin.{name}", run_name="__main__", alter_sys=True)
    elif name in ("-h", "--help"):
        print("usage: meds-plugin COMMAND ...\n")
        print("\n".join(f"  {command:8} {what}" for command, what in _COMMANDS.items()))
        print("\nmeds-plugin COMMAND --help shows the settings of a command.")
    elif name == "--version":
        print(f"meds-plugin {import_module('meds_plugin').__version__}")
    else:
        print_error(f"there is no command {name!r}: give one of {', '.join(_COMMANDS)}")
        sys.exit(2)


if __name__ == "__main__":
    main()
