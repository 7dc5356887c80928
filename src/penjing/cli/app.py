"""The application: its commands, and how errors are shown.

The modules of this package import at the top only the packages that parse and print. A command imports the rest, PyTorch
above all, when it runs, so that `--help` and a mistyped option are answered at once.
"""

import importlib
import os
import sys
import time
import warnings

import typer
from rich.text import Text

from penjing.cli.screen import Screen, styled
from penjing.errors import PenjingError, unknown_name
from penjing.version import __version__

app = typer.Typer(
    name="penjing",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Makes trained PyTorch models small and fast on the device they must run on, and proves it.",
)

SHELLS = ("bash", "zsh", "fish")
COMPLETE = "_PENJING_COMPLETE"  # the variable by which a shell's script asks what a word may become
_COMMANDS = (
    "compressing",
    "sweeping",
    "pruning",
    "factorizing",
    "quantizing",
    "choosing",
    "exporting",
    "finished",
    "profiling",
    "looking",
)


def _tell_version(asked: bool) -> None:
    if asked:
        print(f"penjing {__version__}")
        raise typer.Exit


def _tell_completion(shell: str | None) -> None:
    """Prints the script by which a shell completes the commands and options."""
    if shell is None:
        return
    from typer.completion import get_completion_script  # type: ignore[attr-defined]

    if shell not in SHELLS:
        raise unknown_name("shell", shell, SHELLS)
    print(get_completion_script(prog_name="penjing", complete_var=COMPLETE, shell=shell))
    raise typer.Exit


@app.callback()
def _options(
    debug: bool = typer.Option(False, "--debug", help="Show the traceback of an error."),
    version: bool = typer.Option(
        False, "--version", callback=_tell_version, is_eager=True, help="Show Penjing's version."
    ),
    completion: str | None = typer.Option(
        None,
        "--completion",
        metavar="SHELL",
        callback=_tell_completion,
        is_eager=True,
        help=f"Print a script that completes commands and options in a shell: {', '.join(SHELLS)}.",
    ),
) -> None:
    """Options before the command."""
    # `main` reads --debug, since an error may come before any command runs; callbacks read the others.
    del debug, version, completion


def main() -> None:
    """Runs the command line; a `PenjingError` is printed without a traceback and exits with 2."""
    began = time.monotonic()  # --max-minutes counts from here, since loading the model and the data takes time too
    arguments = sys.argv[1:]
    debug = "--debug" in arguments
    # The flag may stand anywhere: people add it to the end of a command that failed.
    arguments = [a for a in arguments if a != "--debug"]
    if not debug:
        warnings.filterwarnings("ignore")
    for name in _COMMANDS:
        importlib.import_module(f"penjing.cli.{name}")
    if COMPLETE in os.environ:
        from typer.completion import completion_init  # type: ignore[attr-defined]

        completion_init()
    try:
        app(args=arguments, prog_name="penjing", obj=began)
    except (PenjingError, OSError) as error:
        if debug:
            raise
        Screen(stderr=True, soft_wrap=True).print(Text.assemble(styled("Error:", "bold red"), styled(f" {error}", "")))
        sys.exit(2)
    except SystemExit as stop:
        # Typer turns Ctrl-C into an exit without a message.
        if stop.__context__ is not None and isinstance(stop.__context__.__cause__, KeyboardInterrupt):
            print("Stopped. Run again, demo, compress and recover continue where they were.", file=sys.stderr)
        raise
