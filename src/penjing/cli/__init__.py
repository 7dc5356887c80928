"""The command line, a thin layer over the package. Exit codes: 0, done and the budget met; 3, budget not met; 2, bad input."""

from penjing.cli.app import main

__all__ = ["main"]
