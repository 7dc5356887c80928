"""The command line: a thin skin over the package. Exit code 0: done and the budget met; 3: not met; 2: bad input."""

from penjing.cli.app import main

__all__ = ["main"]
