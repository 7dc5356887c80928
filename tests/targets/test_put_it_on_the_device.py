"""Does what docs/howto/put-it-on-the-device.md says: compiles its programs, runs them on a delivered folder beside run.py."""

import os
import re
import runpy
import shlex
import shutil
import subprocess
import sys
import warnings
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import sklearn.datasets
import torch
from PIL import Image
from torch import nn

import penjing as pj
from penjing.data import Preprocess, image_folder
from penjing.run.delivery import deliver

PAGE = Path(__file__).parents[2] / "docs" / "howto" / "put-it-on-the-device.md"
PROGRAMS = PAGE.parent / "device"
STAND_IN = Path(__file__).with_name("litert_on_a_jvm")
HEADERS = [Path(folder) for folder in os.environ.get("PENJING_INCLUDE", "").split(os.pathsep) if folder]
JARS = [Path(jar) for jar in os.environ.get("PENJING_JARS", "").split(os.pathsep) if jar]
SYSTEM = [Path("/usr/include"), Path("/usr/include/stb"), Path("/usr/local/include")]
EXACT = 2e-5  # scores are printed to five digits
JPEG = 0.02  # of what a photo's scores span: stb_image and libjpeg decode a little differently; 0.008 was measured


class Net(nn.Module):
    """Two convolutions and a linear layer; with `batch`, a reshape fixes how many images a call takes."""

    def __init__(self, channels: int, height: int, width: int, batch: int) -> None:
        super().__init__()
        self.stem, self.body = nn.Conv2d(channels, 8, 3, 2), nn.Conv2d(8, 8, 3, 2)
        features = 8 * ((height - 3) // 4) * ((width - 3) // 4)
        self.head = nn.Linear(features, 4)
        self.head.weight.data *= 8  # scores that differ
        self.shape = (batch, features)

    def forward(self, image):
        x = torch.relu(self.body(torch.relu(self.stem(image))))
        return self.head(x.reshape(self.shape) if self.shape[0] else x.flatten(1))


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Photos as cameras store them, with a turn in EXIF, and drawings, which every decoder reads alike."""
    folder = tmp_path_factory.mktemp("photos")
    source = Path(sklearn.datasets.__file__).parent / "images"
    for turn in (3, 5, 6, 8):
        note = Image.Exif()
        note[0x0112] = turn
        Image.open(source / "flower.jpg").save(folder / f"turn{turn}.jpg", exif=note)
    drawing = Image.open(source / "china.jpg")
    drawing.save(folder / "drawing.png")
    drawing.convert("L").save(folder / "grey.png")
    drawing.convert("RGBA").resize((31, 20)).save(folder / "small.png")
    return folder


@pytest.fixture(scope="module")
def samples(photos, tmp_path_factory):
    """Pieces of the photos as an image folder of four classes."""
    folder = tmp_path_factory.mktemp("samples")
    generator = np.random.default_rng(0)
    for index, name in enumerate(("ant", "bee", "cat", "red deer")):
        (folder / name).mkdir()
        image = Image.open(photos / ("drawing.png" if index % 2 else "turn6.jpg"))
        for number in range(20):
            left, top = generator.integers(0, 200, 2)
            image.crop((left, top, left + 100, top + 90)).save(folder / name / f"{number}.png")
    return folder


# What is delivered: how an image becomes an input, images in a call (0: any number), numbers.
COLOUR, GREY = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)), ((0.4,), (0.3,))
KINDS = {
    "float": (Preprocess("RGB", 61, (56, 48), *COLOUR), 0, "float"),
    "int8": (Preprocess("RGB", 64, (56, 56), *COLOUR), 0, "int8"),
    "grey": (Preprocess("L", 33, (48, 47), *GREY), 0, "float"),  # black at the edges
    "enlarged": (Preprocess("RGB", 500, (488, 480), *COLOUR), 4, "float"),
    "as it is": (Preprocess("RGB", None, (60, 60), *COLOUR), 0, "float"),
}


@pytest.fixture(scope="module", params=KINDS)
def kind(request):
    return request.param


@pytest.fixture(scope="module")
def delivered(kind, samples, tmp_path_factory):
    """Returns a function that writes what `compress` writes for a target, and returns the folder."""
    preprocess, batch, numbers = KINDS[kind]
    data = replace(image_folder(samples, size=56, resize=64), preprocess=preprocess)
    shape = (len(preprocess.mean), *preprocess.crop)
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Net was captured for batches of 4 alone")
        graph = pj.capture(Net(*shape, batch).eval(), torch.randn(batch or 2, *shape))

    def write(target, suffix):
        out = tmp_path_factory.mktemp("out")
        small = pj.quantize(graph, data, target=target) if numbers == "int8" else graph
        pj.lower(small, target=target, path=out / f"model{suffix}")
        deliver(small, data, target, out)
        return out

    return write


def program(folder, name, *others):
    for file in (name, *others):
        shutil.copy(PROGRAMS / file, folder)
    return folder


def command(start, *last):
    """Returns the page's command that begins so, with other words at its end."""
    (line,) = [line for line in PAGE.read_text().splitlines() if line.startswith(start)]
    words = shlex.split(line)
    return [*words[: len(words) - len(last)], *map(str, last)]


def execute(words, folder, **more):
    around = {**os.environ, "CPATH": os.pathsep.join(map(str, HEADERS)), "JAVA_OPTS": "-Xmx1g", **more}
    done = subprocess.run(words, cwd=folder, env=around, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def needs_tools(*names):
    missing = [name for name in names if shutil.which(name) is None]
    if missing or sys.platform != "linux":
        pytest.skip(f"The page's commands need Linux and {', '.join(missing or names)}.")


def needs_headers(*names):
    folders = [*HEADERS, *SYSTEM]
    missing = [name for name in names if not any((folder / name).exists() for folder in folders)]
    if missing:
        pytest.skip(f"PENJING_INCLUDE names no folder with {', '.join(missing)}.")


def link_library(folder, package, pattern, *names):
    """Gives a library of an installed package the names by which the linker and the loader look for it."""
    found = find_spec(package)
    libraries = sorted(Path(found.origin).parent.glob(pattern)) if found else []
    if not libraries:
        pytest.skip(f"The library {pattern} of {package} isn't installed.")
    folder.mkdir(parents=True)
    for name in names:
        (folder / name).symlink_to(libraries[0])


@pytest.fixture(scope="module")
def onnx_in_cpp(tmp_path_factory):
    needs_tools("g++")
    needs_headers("onnxruntime_cxx_api.h", "nlohmann/json.hpp", "stb_image.h")
    folder = program(tmp_path_factory.mktemp("cpp"), "classify_onnx.cpp", "delivered.hpp")
    names = ("libonnxruntime.so", "libonnxruntime.so.1")
    link_library(folder / "onnxruntime" / "lib", "onnxruntime", "capi/libonnxruntime.so.*", *names)
    execute(command("g++ -std=c++17 -O2 -I onnxruntime"), folder)
    return lambda out, photo: execute(command("./classify_onnx", out, photo), folder)


@pytest.fixture(scope="module")
def litert_in_cpp(tmp_path_factory):
    needs_tools("g++")
    needs_headers("litert/c/litert_compiled_model.h", "nlohmann/json.hpp", "stb_image.h")
    folder = program(tmp_path_factory.mktemp("cpp"), "classify_litert.cpp", "delivered.hpp")
    link_library(folder / "litert" / "lib", "ai_edge_litert", "libLiteRt.so", "libLiteRt.so")
    execute(command("g++ -std=c++17 -O2 -I litert"), folder)
    return lambda out, photo: execute(command("./classify_litert", out, photo), folder)


@pytest.fixture(scope="module")
def onnx_in_kotlin(tmp_path_factory):
    needs_tools("kotlinc", "java")
    folder = program(tmp_path_factory.mktemp("kotlin"), "Classify.kt", "Delivered.kt", "Decode.kt")
    for part in ("onnxruntime", "json"):
        jars = [jar for jar in JARS if part in jar.name]
        if not jars:
            pytest.skip(f"PENJING_JARS names no jar of {part}.")
        (folder / f"{part}.jar").symlink_to(jars[0].resolve())
    execute(command("kotlinc"), folder)
    return lambda out, photo: execute(command("java", out, photo), folder)


@pytest.fixture(scope="module")
def litert_in_kotlin(tmp_path_factory):
    """The page's program, compiled with a stand-in for the classes that exist for Android alone."""
    needs_tools("kotlinc", "java")
    pytest.importorskip("ai_edge_litert")
    jars = [jar for jar in JARS if "json" in jar.name]
    if not jars:
        pytest.skip("PENJING_JARS names no jar of json.")
    folder = program(tmp_path_factory.mktemp("kotlin"), "ClassifyLitert.kt", "Delivered.kt", "Decode.kt")
    sources = [*sorted(path.name for path in folder.glob("*.kt")), STAND_IN / "Litert.kt"]
    execute(["kotlinc", "-include-runtime", "-cp", jars[0], *sources, "-d", "classify.jar"], folder)
    java = ["java", "-cp", f"classify.jar:{jars[0].resolve()}", "ClassifyLitertKt"]
    runner = f"{sys.executable} {STAND_IN / 'run.py'}"
    return lambda out, photo: execute([*java, out, photo], folder, LITERT_RUN=runner)


def check_answers(run, out, photos, jpeg):
    """Compares the scores that a program prints with those of run.py, for each photo."""
    script = runpy.run_path(str(out / "run.py"))
    model = script["Model"](1)
    for photo in sorted(photos.iterdir()):
        expected = model.scores([model.input_of(script["open_image"](photo))])[0]
        order = np.argsort(-expected)
        printed = [line.split(maxsplit=2) for line in run(out, photo).splitlines()]
        assert [name for _, _, name in printed] == [model.classes[index] for index in order]
        near = jpeg * np.ptp(expected) if photo.suffix == ".jpg" else EXACT
        scores = np.array([float(score) for _, score, _ in printed])
        np.testing.assert_allclose(scores, expected[order], atol=near, rtol=0)
        shares = np.exp(scores) / np.exp(scores).sum()
        np.testing.assert_allclose([float(share.rstrip("%")) for share, _, _ in printed], 100 * shares, atol=0.06)


def test_the_page_shows_the_programs_as_they_are():
    shown = re.findall(r"```(?:cpp|kotlin)\n(.*?)```", PAGE.read_text(), re.DOTALL)
    for name in ("classify_onnx.cpp", "classify_litert.cpp", "Classify.kt", "ClassifyLitert.kt"):
        assert (PROGRAMS / name).read_text() in shown
    assert all(f"(device/{program.name})" in PAGE.read_text() for program in PROGRAMS.iterdir())
    assert f"docs/howto/{PAGE.name}" in (PAGE.parents[2] / "README.md").read_text()


def test_onnx_runtime_in_cpp_answers_as_run_py_does(onnx_in_cpp, delivered, photos):
    check_answers(onnx_in_cpp, delivered("onnxruntime", ".onnx"), photos, JPEG)


def test_litert_in_cpp_answers_as_run_py_does(litert_in_cpp, delivered, photos):
    check_answers(litert_in_cpp, delivered("litert", ".tflite"), photos, JPEG)


def test_onnx_runtime_in_kotlin_answers_as_run_py_does(onnx_in_kotlin, delivered, photos):
    check_answers(onnx_in_kotlin, delivered("onnxruntime", ".onnx"), photos, EXACT)


def test_litert_in_kotlin_answers_as_run_py_does(litert_in_kotlin, delivered, photos):
    check_answers(litert_in_kotlin, delivered("litert", ".tflite"), photos, EXACT)
