import json
import shutil
import subprocess
import sys
import zipfile

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from penjing.data import Preprocess, image_folder
from penjing.graph import capture
from penjing.run.delivery import deliver
from penjing.targets import run, write_runner

PREPROCESS = Preprocess("RGB", 40, (32, 32), (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
CLASSES = ["ant", "bee", "cat", "dog", "elk"]
# Nothing but what a device has: an import of torch or penjing ends the script.
BLOCK = "import sys; sys.modules['torch'] = sys.modules['penjing'] = None; sys.argv = sys.argv[1:]; "
START = BLOCK + "import runpy; runpy.run_path(sys.argv[0], run_name='__main__')"


@pytest.fixture(scope="module")
def out(lowered, tmp_path_factory):
    folder = tmp_path_factory.mktemp("out")
    (folder / "model.onnx").write_bytes(lowered.path.read_bytes())
    (folder / "preprocess.json").write_text(json.dumps(PREPROCESS.to_dict()))
    (folder / "classes.txt").write_text("\n".join(CLASSES) + "\n")
    write_runner(folder)
    return folder


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos")
    generator = np.random.default_rng(0)
    for part in ("train", "val"):
        for name in CLASSES:
            (folder / part / name).mkdir(parents=True)
            for index in range(4):
                pixels = generator.integers(0, 256, (48, 60, 3), np.uint8)
                Image.fromarray(pixels).save(folder / part / name / f"{index}.png")
    return folder


def execute(out, *arguments):
    command = [sys.executable, "-c", START, out / "run.py", *arguments]
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False, cwd="/")
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def accuracy(lowered, files):
    inputs = torch.stack([PREPROCESS(Image.open(file)) for file in files])
    best = run(lowered, inputs).argmax(1).tolist()
    return sum(CLASSES[i] == file.parent.name for i, file in zip(best, files, strict=True)) / len(files)


def test_it_judges_the_validation_part_of_a_folder_and_of_a_zip(out, photos, lowered, tmp_path):
    files = sorted((photos / "val").rglob("*.png"))
    expected = f"accuracy {accuracy(lowered, files):.4f} (20 images)"
    assert execute(out, photos)[-1] == expected
    assert execute(out, photos / "val", "--threads", "2")[-1] == expected
    with zipfile.ZipFile(tmp_path / "photos.zip", "w") as archive:
        for file in photos.rglob("*.png"):
            archive.write(file, f"photos/{file.relative_to(photos)}".replace("val/", "test/"))
    assert execute(out, tmp_path / "photos.zip")[-1] == expected


def test_it_judges_arrays(out, lowered, tmp_path):
    generator = np.random.default_rng(1)
    x = generator.integers(0, 256, (100, 32, 32, 3), np.uint8)
    inputs = torch.stack([PREPROCESS(Image.fromarray(image)) for image in x])
    y = run(lowered, inputs).argmax(1).numpy()
    y[:10] = (y[:10] + 1) % 5
    np.savez(tmp_path / "examples.npz", x=x, y=y)
    assert execute(out, tmp_path / "examples.npz")[-1] == "accuracy 0.9000 (100 images)"


def test_it_names_the_classes_of_an_image(out, photos):
    lines = execute(out, photos / "val" / "ant" / "0.png")
    assert sorted(line.split()[-1] for line in lines[1:]) == CLASSES


def test_a_missing_image_is_said_plainly(out):
    done = subprocess.run([sys.executable, out / "run.py", "nowhere.jpg"], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.strip() == "There is no file nowhere.jpg."


def refused(out, *arguments):
    command = [sys.executable, str(out / "run.py"), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    return done.stderr


def test_it_judges_the_very_images_that_penjing_held_out(out, photos, lowered, tmp_path):
    shutil.copytree(out, tmp_path / "out")
    shutil.copytree(photos / "train", tmp_path / "photos" / "train")
    data = image_folder(tmp_path / "photos", size=32, resize=40)
    graph = capture(nn.Conv2d(3, 4, 1), torch.randn(2, 3, 32, 32))
    deliver(graph, data, "onnxruntime", tmp_path / "out")
    files = [tmp_path / "photos" / name for name, _ in data.validation_files]
    assert len(files) == 5
    assert execute(tmp_path / "out", tmp_path / "photos")[-1] == f"accuracy {accuracy(lowered, files):.4f} (5 images)"


@pytest.mark.parametrize("prefix", ["", "train/", "wrapper/", "wrapper/train/"])
def test_the_layout_tells_the_classes_without_a_list(out, photos, lowered, tmp_path, prefix):
    files = sorted((photos / "val").rglob("*.png"))
    with zipfile.ZipFile(tmp_path / "photos.zip", "w") as archive:
        for file in files:
            archive.write(file, prefix + file.relative_to(photos / "val").as_posix())
    assert execute(out, tmp_path / "photos.zip")[-1] == f"accuracy {accuracy(lowered, files):.4f} (20 images)"


def test_custom_data_is_judged_on_ready_inputs_alone(out, photos, lowered, tmp_path):
    shutil.copytree(out, tmp_path / "out")
    (tmp_path / "out" / "preprocess.json").write_text("null")
    x = torch.randn(70, 3, 32, 32)
    np.savez(tmp_path / "ready.npz", x=x.numpy(), y=run(lowered, x).argmax(1).numpy())
    assert execute(tmp_path / "out", tmp_path / "ready.npz")[-1] == "accuracy 1.0000 (70 inputs)"
    assert ".npz file of ready inputs" in refused(tmp_path / "out", photos / "val" / "ant" / "0.png")
    assert ".npz file of ready inputs" in refused(tmp_path / "out", photos)
    np.savez(tmp_path / "bytes.npz", x=np.zeros((4, 3, 32, 32), np.uint8), y=np.zeros(4, np.int64))
    assert "ready inputs (N, 3, 32, 32) of float32" in refused(tmp_path / "out", tmp_path / "bytes.npz")
