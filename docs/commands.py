"""Writes docs/commands.md, the help texts of every command: ``python docs/commands.py``.

They are read from where ``--help`` reads them and laid out here, since typer's own layout changes from one of its versions to the next.
"""

import inspect
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, get_args

from typer.models import ArgumentInfo, OptionInfo

from loopkit.cli import app

WIDTH = 90
KINDS = {"str": "TEXT", "int": "INTEGER", "float": "NUMBER", "Path": "PATH", "bool": ""}
HEAD = """# Commands

The help of each command, as `loopkit COMMAND --help` has it. `python docs/commands.py` writes this page, and a test compares it with the
commands. Results go to stdout, progress and errors to stderr. Exit codes are 0 done, 1 failed, 2 misused. With `--json` stdout holds
JSON and nothing else. `loopkit --version` prints the version.
"""


def chapter(name: str, command: Callable[..., Any]) -> str:
    """A command's heading, what it does, examples, and its arguments and options."""
    about, _, examples = str(inspect.getdoc(command)).partition("Examples:")
    shown = "\n".join(line.removeprefix("- ") for line in examples.strip().splitlines())
    entries = list(parameters(command))
    column = 2 + max(len(left) for left, _ in entries)
    lines = [line for left, text in entries for line in entry(left, text, column)]
    return f"\n## loopkit {name}\n\n{about.strip()}\n\n```\n{shown}\n```\n\n```text\n" + "\n".join(lines) + "\n```\n"


def parameters(command: Callable[..., Any]) -> Iterator[tuple[str, str]]:
    """Each argument and option as it is typed, and its help."""
    for parameter in inspect.signature(command).parameters.values():
        for info in get_args(parameter.annotation)[1:]:
            yield typed(parameter, info), described(parameter, info)


def typed(parameter: inspect.Parameter, info: ArgumentInfo | OptionInfo) -> str:
    """``CKPT``, ``--plan TEXT``, ``--json``."""
    if isinstance(info, ArgumentInfo):
        return info.metavar or parameter.name.upper()
    first = [info.default] if isinstance(info.default, str) else []  # of what stands in Option(...), typer takes the first for a default
    flag = ", ".join([*first, *(info.param_decls or ())]) or "--" + parameter.name.replace("_", "-")
    return f"{flag} {info.metavar or KINDS[kind(get_args(parameter.annotation)[0])]}".strip()


def kind(annotation: Any) -> str:
    """The name of what one value is: ``str`` for ``list[str] | None``."""
    inner = [each for each in get_args(annotation) if each is not type(None)]
    return kind(inner[0]) if inner else annotation.__name__


def described(parameter: inspect.Parameter, info: ArgumentInfo | OptionInfo) -> str:
    """The help, with the default where ``--help`` shows it, or that there must be one."""
    if parameter.default is inspect.Parameter.empty:
        return f"{info.help} [required]"
    shown = info.show_default and parameter.default is not None and parameter.default is not False
    return f"{info.help} [default: {parameter.default}]" if shown else str(info.help)


def entry(left: str, text: str, column: int) -> list[str]:
    """Two columns, the right one wrapped."""
    return textwrap.wrap(text, WIDTH, initial_indent=left.ljust(column), subsequent_indent=" " * column, break_on_hyphens=False)


def main() -> None:
    """Write the page, or what it would be to the path given."""
    out = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).with_name("commands.md")
    chapters = [chapter(str(each.name), each.callback) for each in app.registered_commands if each.callback]
    out.write_text(HEAD + "".join(chapters), encoding="utf-8")


if __name__ == "__main__":
    main()
