"""Finds Node and the npm package onnxruntime-web, which the user installs. Nothing is ever downloaded here."""

import json
import os
import shutil
import subprocess
from functools import cache
from pathlib import Path

from penjing.errors import PenjingError
from penjing.files import cache_folder

PACKAGE = "onnxruntime-web"
VARIABLE = "PENJING_WEB"


def folder() -> Path:
    """Returns the folder into which the user installs the package: `$PENJING_WEB`, or else `web` in the folder of the cache."""
    told = os.environ.get(VARIABLE)
    return Path(told) if told else cache_folder() / "web"


def installed() -> str | None:
    """Returns the version of the package; None where it isn't installed."""
    try:
        version = json.loads((folder() / "node_modules" / PACKAGE / "package.json").read_bytes())["version"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return str(version)


def node() -> str | None:
    """Returns the path of Node's program; None where there is none."""
    return shutil.which("node")


@cache
def node_version() -> str:
    """Returns Node's version, such as "20.20.2".

    Raises:
        PenjingError: there is no Node, or it doesn't start.
    """
    program = node()
    if program is None:
        raise PenjingError(lacks())
    done = subprocess.run([program, "--version"], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise PenjingError(f"{program} doesn't start: {done.stderr.strip()[-300:]}")
    return done.stdout.strip().removeprefix("v")


def lacks() -> str:
    """Returns advice on what to install; "" where nothing is missing."""
    advice = []
    if node() is None:
        advice.append("Install Node 20 or later (https://nodejs.org), so that `node` is on the PATH.")
    if installed() is None:
        advice.append(f"npm install --prefix {folder()} {PACKAGE} (or set {VARIABLE} to a folder that has it).")
    return " ".join(advice)
