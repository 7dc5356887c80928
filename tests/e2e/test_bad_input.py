"""Every bad input gets exit code 2 and a message that says what is wrong and what to do; nothing is half-written."""

import errno
import importlib
import os
import shutil
import zipfile
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from penjing.data._source import ImageSource
from penjing.errors import PenjingError

GOOD = {"model": "net.py:small", "--data": "folder:photos", "--out": "new"}


@pytest.fixture
def refused(penjing, home):
    """Runs compress with something bad and returns the message; checks all that is common to bad input."""

    def run(**changes):
        options = GOOD | {
            (name if name == "model" else f"--{name.replace('_', '-')}"): v for name, v in changes.items()
        }
        files = sorted(home.rglob("*"))
        ran = penjing("compress", options.pop("model"), *[part for pair in options.items() for part in pair])
        assert ran.code == 2, ran.text
        assert "Traceback" not in ran.text
        assert [file for file in sorted(home.rglob("*")) if "__pycache__" not in str(file)] == [
            file for file in files if "__pycache__" not in str(file)
        ]
        assert ran.err.startswith("Error: ")
        return ran.err

    return run


def says(message, *parts):
    for part in parts:
        assert part in message, message


# Models


@pytest.mark.parametrize(
    ("model", "parts"),
    [
        ("nett.py:small", ("there is no file nett.py", "Did you mean 'net.py'?")),
        ("net.py:smal", ("there is no 'smal' in", "net.py", "Did you mean 'small'?")),
        (
            "net.py:fails",
            ("net.py:fails raised RuntimeError: the licence server sleeps", 'net.py:43: raise RuntimeError("'),
        ),
        ("net.py:number", ("net.py:number returned an int; it must return an nn.Module",)),
        ("no_such_package.nets:make", ("there is no module no_such_package",)),
        ("zoo:resnt20", ("Unknown network 'resnt20'", "Did you mean 'resnet20'?")),
        ("resnet20", ("'resnet20' names no function", "package.module:factory")),
        ("none.penjing", ("none.penjing",)),
        ("none.pt2", ("There is no file none.pt2",)),
        ("w.pt", ("w.pt holds weights, and no network", "give the file as --weights w.pt")),
        ("w.safetensors", ("--weights w.safetensors", "--teacher-weights w.safetensors")),
        ("net.py:moody", ("torch.export can't capture Moody", "net.py:20", "if x.sum() > 0:")),
        ("net.py:grey", ("The model fails on its example inputs", "expected input", "net.py:14")),
    ],
)
def test_a_model_that_can_not_be_had(refused, model, parts):
    says(refused(model=model), *parts)


def test_outputs_that_do_not_fit_the_classes(refused):
    says(refused(model="net.py:ten"), "The model has 10 outputs, but the data has 3 classes", "Classification(CLASSES)")


def test_weights_that_do_not_fit(refused, tmp_path):
    state = torch.nn.Sequential(torch.nn.Linear(2, 2)).state_dict()
    torch.save({**state, "head.weight": torch.zeros(5, 32)}, tmp_path / "w.pt")
    says(
        refused(weights=tmp_path / "w.pt"),
        "w.pt doesn't fit Net. missing: stem.0.weight, stem.1.weight, stem.1.bias, stem.1.running_mean and 7 more.",
        "not in the model: 0.weight, 0.bias.",
        "other shapes: head.weight: (5, 32) in the file, (3, 32) in the model.",
    )


class Hostile:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (self.path,)


def test_weights_that_would_run_code(refused, tmp_path):
    torch.save({"weight": Hostile(str(tmp_path / "ran"))}, tmp_path / "w.pt")
    says(refused(weights=tmp_path / "w.pt"), "holds no plain weights", "torch.save(model.state_dict(), …)")
    assert not (tmp_path / "ran").exists()


def test_weights_that_are_not_there(refused, tmp_path):
    says(refused(weights=tmp_path / "w.pt"), "There is no weights file", "w.pt")


def test_a_whole_network_in_the_place_of_weights(refused, graph_file):
    message = refused(weights=graph_file)
    says(message, "m.penjing is a .penjing file, which holds a whole network", "give it as the model")
    assert "enforce" not in message


@pytest.fixture
def graph_file(home, penjing, tmp_path):
    import penjing as pj

    graph = pj.capture(torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.Flatten()), torch.zeros(2, 3, 24, 24))
    graph.save(tmp_path / "m.penjing")
    return tmp_path / "m.penjing"


def rewritten(path, change):
    """Replaces the graph of a .penjing file by what `change` makes of its text."""
    with zipfile.ZipFile(path) as archive:
        content = {name: archive.read(name) for name in archive.namelist()}
    content["graph.json"] = change(content["graph.json"].decode()).encode()
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in content.items():
            archive.writestr(name, data)


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text.replace("aten.conv2d.default", "os.system"),
        lambda text: text.replace("aten.conv2d.default", "aten.from_file.default"),
        lambda text: text.replace("aten.conv2d.default", "__import__('os').getcwd"),
        lambda text: text[: len(text) // 2],
        lambda text: "[" * 100_000,
        lambda text: "{}",
    ],
    ids=["system", "file", "import", "cut", "deep", "empty"],
)
def test_a_hostile_penjing_file(refused, graph_file, change):
    rewritten(graph_file, change)
    says(refused(model=graph_file), "m.penjing")


def test_a_penjing_file_that_is_no_zip_or_cut_short(refused, graph_file):
    whole = graph_file.read_bytes()
    for content in (b"", b"nothing", whole[: len(whole) // 2], whole[:-30]):
        graph_file.write_bytes(content)
        says(refused(model=graph_file), "m.penjing", "it was cut short, or is no .penjing file")


# Data


def test_a_data_set_that_does_not_exist(refused):
    says(refused(data="digit"), "Unknown data set 'digit'", "Did you mean 'digits'?")
    says(refused(data="photos"), "'photos' is a path", "Write folder:photos")
    says(refused(data="folder:fotos"), "fotos")
    says(refused(data="folder:photos,sice=24"), "Did you mean 'size'?")
    says(refused(data="net.py:number"), "returned int", "penjing.Data")
    says(refused(data="cifar10:nowhere.zip"), "nowhere.zip")
    says(refused(data="mnist:nowhere.npz"), "nowhere.npz")


def test_a_folder_without_images(refused, tmp_path):
    (tmp_path / "empty").mkdir()
    says(refused(data=f"folder:{tmp_path}/empty"), f"{tmp_path}/empty", "no images")


def test_a_folder_with_one_class(refused, home, tmp_path):
    shutil.copytree(home / "photos/train/red", tmp_path / "one/train/red")
    says(refused(data=f"folder:{tmp_path}/one"), "only one class (red)")


@pytest.mark.parametrize("content", [b"", b"no picture", "cut"])
def test_a_corrupt_image(refused, home, tmp_path, content):
    shutil.copytree(home / "photos", tmp_path / "photos")
    victim = tmp_path / "photos/train/red/3.png"
    victim.write_bytes(victim.read_bytes()[:600] if content == "cut" else content)
    says(refused(data=f"folder:{tmp_path}/photos"), "3.png")


@pytest.mark.parametrize("part", ["train", "val"])
def test_a_corrupt_image_in_a_set_too_large_to_check_is_named_and_finished_stages_stay(
    penjing, home, tmp_path, monkeypatch, chosen, part
):
    folder = importlib.import_module("penjing.data._image_folder")
    monkeypatch.setattr(folder, "_IN_MEMORY", 0)
    monkeypatch.setattr(folder, "_CHECKED", 0)
    shutil.copytree(home / "photos", tmp_path / "photos")
    victim = max((tmp_path / "photos" / part / "red").iterdir())
    read = ImageSource.read

    def damaged(source, name):  # as by a disk that fails: the same file, at another time
        content = read(source, name)
        return content[:600] + bytes(len(content) - 600) if name.endswith(f"{part}/red/{victim.name}") else content

    monkeypatch.setattr(ImageSource, "read", damaged)
    data, out = f"folder:{tmp_path}/photos,size=24", tmp_path / "out"
    command = ("compress", "net.py:small", "--data", data, "--epochs", 1, "--out", out)
    ran = penjing(*command)
    assert ran.code == 2 and victim.name in ran.err and "Traceback" not in ran.err, ran.text
    finished = {path.name for path in (out / ".penjing").iterdir()} if out.exists() else set()
    monkeypatch.setattr(ImageSource, "read", read)
    ran = penjing(*command)
    assert ran.code == 0 and finished <= {path.name for path in (out / ".penjing").iterdir()}, ran.text


def test_images_of_several_sizes(refused, home, tmp_path):
    shutil.copytree(home / "photos", tmp_path / "photos")
    Image.fromarray(np.zeros((30, 24, 3), np.uint8)).save(tmp_path / "photos/train/red/3.png")
    says(refused(data=f"folder:{tmp_path}/photos"), "different sizes", "size=224 on the command line")


# Options


@pytest.mark.parametrize(
    ("option", "parts"),
    [
        ({"latency": "fast"}, ("latency='fast' is no budget", "'5ms' or '0.5x'")),
        ({"latency": "-1ms"}, ("latency='-1ms' is no budget",)),
        ({"size": "5ms"}, ("size='5ms' is no budget", "'1MB' or '0.25x'")),
        ({"macs": "5MB"}, ("macs='5MB' is no budget", "'20M' or '0.5x'")),
        ({"peak_memory": "64"}, ("peak_memory='64' is no budget", "'64KB' or '0.5x'")),
        ({"largest_tensor": "big"}, ("largest_tensor='big' is no budget",)),
        ({"layers": "-2"}, ("layers='-2' is no budget", "'20' or '0.5x'")),
        ({"drop": "-0.1"}, ("drop=-0.1 is no budget", "such as 0.01")),
        ({"drop": "nan"}, ("drop=nan is no budget",)),
        ({"drop": "much"}, ("drop=much is no budget", "'2%'")),
        ({"drop": "150%"}, ("drop=150% is no budget", "more than 100%", "'1.5 units'")),
        ({"drop": "1"}, ("drop=1 would let the metric fall by 100 points", "'1 points'", "'1%'", "'1 units'")),
        ({"target": "onxruntime"}, ("Unknown target 'onxruntime'", "Did you mean 'onnxruntime'?")),
        ({"target": "tensorrt"}, ("Unknown target 'tensorrt'", "onnxruntime", "openvino", "torch")),
        ({"solver": "widest"}, ("Unknown solver 'widest'", "Did you mean 'widest_that_fits'?")),
        ({"grid": "imt8"}, ("Unknown grid 'imt8'", "Did you mean 'int8'?")),
        ({"grid": "int9"}, ("can't multiply int9 weights per channel in integers", "per channel int2…int8")),
        ({"criterion": "tailor"}, ("Unknown criterion 'tailor'", "Did you mean 'taylor'?")),
        ({"criterion": "taylor", "data": "folder:flat"}, ("'taylor' needs labelled data", "'l2'")),
        ({"criterion": "bn_scale", "model": "net.py:plain"}, ("bn_scale needs a norm", "use another criterion")),
        ({"precision": "float16"}, ("Unknown precision 'float16'", "bfloat16")),
        ({"exclude": "haed*"}, ("haed*", "Did you mean 'head'?")),
        ({"include": "haed*"}, ("haed*",)),
        ({"units": "head"}, ("Unknown units 'head'", "Did you mean 'heads'?")),
        ({"lr": "-1"}, ("--lr=-1.0", "more than 0")),
        ({"lr": "inf"}, ("--lr=inf: it must be a number, more than 0",)),
        ({"max_minutes": "0"}, ("--max-minutes=0.0: it must be a number, more than 0.",)),
        ({"max_minutes": "nan"}, ("--max-minutes=nan", "more than 0")),
        ({"seed": "-1"}, ("--seed=-1: it must be a whole number from 0 to 4,294,967,295",)),
        ({"seed": 2**32}, ("--seed=4294967296: it must be a whole number from 0",)),
        ({"threads": 2**40}, ("--threads=1099511627776: it must be a whole number from 1 to 1,024",)),
        ({"epochs": 10**30}, ("--epochs=10^30 (about): it must be a whole number from 0 to 1,000,000",)),
        ({"batch": 2**40}, ("--batch=1099511627776: it must be a whole number from 1 to 4,096",)),
        ({"min_channels": 10**30}, ("--min-channels=10^30 (about): it must be a whole number from 1",)),
        ({"data": "folder:photos,size=100000"}, ("size=100000: it must be a whole number from 1 to 8,192",)),
        ({"data": "folder:photos,size=:b:"}, ("'size=:b:'", "must be a number")),
        ({"criterion": "[bold]"}, ("Unknown criterion '[bold]'",)),
        ({"augment": "mixap:0.2"}, ("Unknown augmentation 'mixap'", "Did you mean 'mixup'?")),
        ({"augment": "erasing:2"}, ("augment='erasing:2'", "probability", "at most 1")),
        ({"ema": "1"}, ("--ema=1.0: it must be a number, more than 0, less than 1",)),
        ({"layer_decay": "2"}, ("--layer-decay=2.0: it must be a number", "at most 1")),
        ({"penalty": "grouplasso"}, ("Unknown penalty 'grouplasso'", "Did you mean 'group_lasso'?")),
        ({"penalty": "subspace:2"}, ("penalty='subspace:2'", "from 0.0 to 1.0")),
        ({"penalty": "bn_scale", "model": "net.py:plain"}, ("penalty='bn_scale'", "'group_lasso' needs none")),
        ({"penalty_weight": "0.1"}, ("penalty_weight=0.1 is the factor of a penalty",)),
        ({"penalty": "orthogonal", "penalty_weight": "-1"}, ("--penalty-weight=-1.0: it must be a number, 0 or more",)),
        ({"stop_at": "nan"}, ("--stop-at=nan: it must be a number",)),
        ({"keep": "bests"}, ("--keep='bests': it must be 'last' or 'best'",)),
        ({"tracker": "tensorbord"}, ("Unknown tracker 'tensorbord'", "Did you mean 'tensorboard'?")),
        ({"label_smoothing": "1"}, ("--label-smoothing=1.0: it must be a number", "less than 1")),
    ],
)
def test_an_option_that_can_not_be(refused, option, parts):
    says(refused(**option), *parts)


@pytest.mark.parametrize(
    "arguments",
    [["--epochs", "-1"], ["--latenzy", "5ms"], ["--threads", "0"], ["--min-channels", "0"]],
)
def test_what_the_parser_refuses(penjing, home, arguments):
    ran = penjing("compress", "net.py:small", "--data", "folder:photos", "--out", "new", *arguments)
    assert ran.code == 2 and arguments[0] in ran.err and "Traceback" not in ran.err
    assert not (home / "new").exists()


# The folder to write to


def test_an_out_that_is_a_file_or_holds_other_things(refused, tmp_path):
    (tmp_path / "file").touch()
    says(refused(out=tmp_path / "file"), "file is a file; give a folder")
    says(refused(out=tmp_path / "file" / "below"), "Can't write to", "below", "Not a directory")
    says(refused(out=tmp_path), "is not empty and holds no Penjing run; give a new or empty folder")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.skipif(not os.path.isdir("/proc/sys"), reason="needs a folder in which even root can't write")
def test_an_out_without_the_right_to_write(refused):
    says(refused(out="/proc/sys/penjing"), "Can't write to /proc/sys/penjing")


def test_an_out_without_space(refused, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    says(refused(), "Can't write to new: No space left on device")


@pytest.mark.parametrize(
    ("make", "part"),
    [
        (lambda out: out.touch(), "is a file; give a folder"),
        (lambda out: (out.mkdir(), (out / "thesis.tex").touch()), "is not empty and holds no Penjing run"),
    ],
)
def test_a_dry_run_refuses_a_bad_out_too(penjing, tmp_path, make, part):
    out = tmp_path / "out"
    make(out)
    ran = penjing("compress", "net.py:small", "--data", "folder:photos", "--out", out, "--dry-run")
    assert ran.code == 2 and part in ran.err, ran.text


def test_a_dry_run_refuses_a_full_disk(penjing, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=10_000))
    ran = penjing("compress", "net.py:small", "--data", "folder:photos", "--dry-run", "--out", "new")
    assert ran.code == 2 and "Not enough space for new: about 5 MB are needed and 0 MB are free" in ran.err, ran.text


# The other commands


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (
            ["verify", "photos", "--data", "folder:photos"],
            ("There is no report.json in 'photos'", "penjing compress --out"),
        ),
        (["report", "photos"], ("report.json",)),
        (
            ["recover", "net.py", "--data", "digits"],
            ("takes a .penjing file, or the folder of a finished run, not net.py",),
        ),
        (["recover", "none.penjing", "--data", "digits"], ("none.penjing",)),
        (["recover", "none.penjing", "--data", "digits", "--augment", "cutmux"], ("Did you mean 'cutmix'?",)),
        (["list", "criterias"], ("Unknown family 'criterias'", "Did you mean 'criteria'?")),
        (["profile", "zoo:lenet6"], ("Unknown network 'lenet6'", "Did you mean 'lenet5'?")),
        (["profile", "net.py:small"], ("No example inputs are known for net.py:small", "or give data")),
        (["profile", "zoo:lenet5", "--target", "tensorrt"], ("Unknown target 'tensorrt'",)),
        (["channels", "zoo:lenet5", "--exclude", "nothing"], ("nothing",)),
        (["demo", "--out", "photos"], ("photos is not empty and holds no Penjing run",)),
        (["demo", "--out", "new", "--seed", "-1"], ("seed=-1: it must be a whole number",)),
        (["profile", "zoo:lenet5", "--threads", 2**40], ("threads=1099511627776: it must be a whole number",)),
        (["profile", "zoo:lenet5", "--batch", 2**40], ("batch=1099511627776: it must be a whole number",)),
    ],
)
def test_other_commands_refuse_in_the_same_way(penjing, arguments, parts):
    ran = penjing(*arguments)
    assert ran.code == 2 and "Traceback" not in ran.text, ran.text
    says(ran.err, "Error: ", *parts)


def test_the_traceback_is_shown_only_when_asked_for(shell, penjing):
    arguments = ("compress", "net.py:fails", "--data", "folder:photos", "--out", "new")
    plain = shell(*arguments)
    assert plain.code == 2 and plain.out == ""
    assert plain.err.strip().count("\n") == 0 and plain.err.startswith("Error: net.py:fails raised RuntimeError")
    with pytest.raises(PenjingError, match="the licence server sleeps"):  # which Python shows with its traceback
        penjing(*arguments, "--debug")
