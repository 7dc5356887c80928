import numpy as np
import pytest
from PIL import Image

from penjing.data import Data, load
from penjing.errors import PenjingError
from penjing.tasks import Unlabelled


@pytest.fixture
def photos(tmp_path):
    for index in range(4):
        Image.new("RGB", (8 + index, 8), (index, 0, 0)).save(tmp_path / f"{index}.png")
    return tmp_path


def test_digits_are_loaded_by_name_with_options():
    assert load("digits").name == "digits"
    assert next(iter(load("digits,channels=1,size=16").train))[0].shape == (64, 1, 16, 16)


def test_folders_take_options_after_commas(photos):
    data = load(f"folder:{photos},size=8,flip=False")
    assert data.preprocess.crop == (8, 8)


def test_images_become_inputs_as_before_where_the_text_does_not_say_how(photos):
    before = load(f"folder:{photos},size=4,mean=0.1,std=0.2")
    again = load(f"folder:{photos}", like=before.preprocess)
    assert again.preprocess == before.preprocess and again.source == f"folder:{photos}"
    other = load(f"folder:{photos},size=6,mean=0.5", like=before.preprocess).preprocess
    assert (other.crop, other.mean, other.std) == ((6, 6), (0.5,) * 3, (0.2,) * 3)


def test_a_path_with_a_comma_is_a_path(photos):
    inner = photos / "a,size=9"
    inner.mkdir()
    Image.new("RGB", (5, 5)).save(inner / "x.png")
    assert load(f"folder:{inner}").preprocess.crop == (5, 5)


def test_mnist_is_loaded_by_path(tmp_path):
    images, labels = np.zeros((12, 28, 28), np.uint8), np.arange(12) % 3
    np.savez(tmp_path / "m.npz", x_train=images, y_train=labels, x_test=images, y_test=labels)
    assert load(f"mnist:{tmp_path / 'm.npz'},batch_size=4").classes == ("0", "1", "2")


def test_a_users_function_gives_data(tmp_path, monkeypatch):
    source = "import penjing.data\ndef make():\n    return penjing.data.digits()\ndef wrong():\n    return 3\n"
    (tmp_path / "mydata.py").write_text(source)
    assert load(f"{tmp_path}/mydata.py:make").name == "digits"
    with pytest.raises(PenjingError, match="returned int"):
        load(f"{tmp_path}/mydata.py:wrong")
    monkeypatch.chdir(tmp_path)
    assert load("mydata:make").name == "digits"
    assert load("mydata.py:make").name == "digits"


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ("digit", "Did you mean 'digits'"),
        ("cifar:somewhere", "Did you mean 'cifar10'"),
        ("mnits:somewhere", "Did you mean 'mnist'"),
        ("mnist", "needs a path"),
        ("folder:", "needs a path"),
        ("digits:path", "takes no path"),
        ("digits,chanels=1", "Did you mean 'channels'"),
        ("digits,channels", "name=value"),
        ("digits,channels=x", "must be a number"),
        ("digits,size='a'", "'digits,size='a'': size='a': it must be a whole number from 1 to 8,192"),
        ("digits,size=100000", "size=100000: it must be a whole number from 1 to 8,192"),
        ("digits,size=" + "[" * 5000, "must be a number"),
        ("folder:nowhere", "no folder or zip"),
        ("folder:no,where", "no folder or zip no,where"),
        ("nowhere.py:make", "no file"),
        ("", "Unknown data set"),
    ],
)
def test_what_names_no_data_is_a_clear_error(spec, says):
    with pytest.raises(PenjingError, match=says):
        load(spec)


def test_a_bare_path_is_told_how_to_be_written(photos):
    with pytest.raises(PenjingError, match="Write folder:"):
        load(str(photos))


def test_data_refuses_loaders_that_run_dry_and_things_that_are_no_task():
    with pytest.raises(PenjingError, match="many times"):
        Data(train=iter([]), calibration=None, validation=None, task=Unlabelled())
    with pytest.raises(PenjingError, match="must be a penjing"):
        Data(train=None, calibration=None, validation=None, task="classification")
    assert Data(train=[], calibration=None, validation=None, task=Unlabelled()).name == "custom"


def test_a_seed_reaches_the_built_in_data_unless_the_text_names_one():
    assert load("digits").fingerprint == load("digits", seed=0).fingerprint
    assert load("digits", seed=1).fingerprint == load("digits,seed=1", seed=5).fingerprint != load("digits").fingerprint
