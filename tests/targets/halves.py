"""A target whose models are two files: an ONNX file cut in half. It stands in for runtimes with a graph and weights apart."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from penjing.errors import PenjingError
from penjing.targets import Artifact, Target, find_target

SUFFIXES = (".head", ".tail")


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """Yields the ONNX file that two halves make."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "whole.onnx")
        file.write_bytes(b"".join(path.with_suffix(suffix).read_bytes() for suffix in SUFFIXES))
        yield file


def halves() -> Target:
    """ONNX files in two halves."""
    onnx = find_target("onnxruntime")

    def opened(path: Path) -> Artifact:
        with whole(path) as file:
            found = onnx.open(file)
        return replace(found, target="halves", path=path, files=(path, path.with_suffix(".tail")))

    def lower(graph, path: Path) -> Artifact:
        with tempfile.TemporaryDirectory() as folder:
            content = onnx.lower(graph, Path(folder, "whole.onnx")).path.read_bytes()
        path.write_bytes(content[: len(content) // 2])
        if getattr(graph, "name", "") == "fails between its files":
            raise PenjingError("no second half")
        path.with_suffix(".tail").write_bytes(content[len(content) // 2 :])
        return opened(path)

    def with_whole(function):
        def call(artifact: Artifact, *arguments):
            with whole(artifact.path) as file:
                return function(replace(artifact, target="onnxruntime", path=file, files=(file,)), *arguments)

        return call

    return replace(
        onnx,
        name="halves",
        suffixes=SUFFIXES,
        lower=lower,
        open=opened,
        session=with_whole(onnx.session),
        profile=with_whole(onnx.profile),
        memory=with_whole(onnx.memory),
    )
