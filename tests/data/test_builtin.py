import inspect
import os
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits

from penjing.data import cifar10, digits, mnist, prepare
from penjing.errors import PenjingError

SHARED = Path(os.environ.get("PENJING_SHARED", Path(__file__).parents[3] / "shared"))


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("PENJING_CACHE", str(tmp_path / "cache"))


def joined(loader):
    images, targets = zip(*loader, strict=True)
    return torch.cat(images), torch.cat(targets)


@pytest.fixture
def small_mnist(tmp_path):
    random = np.random.default_rng(0)
    arrays = {
        "x_train": random.integers(0, 256, (60, 28, 28), dtype=np.uint8),
        "y_train": np.arange(60, dtype=np.uint8) % 10,
        "x_test": random.integers(0, 256, (20, 28, 28), dtype=np.uint8),
        "y_test": np.arange(20, dtype=np.uint8) % 10,
    }
    path = tmp_path / "mnist.npz"
    np.savez(path, **arrays)
    return path, arrays


@pytest.fixture
def small_cifar(tmp_path):
    random = np.random.default_rng(0)
    for part, count in (("train", 4), ("test", 2)):
        for number in range(10):
            folder = tmp_path / "cifar" / part / f"class{number}"
            folder.mkdir(parents=True)
            for index in range(count):
                Image.fromarray(random.integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(folder / f"{index}.png")
    return tmp_path / "cifar"


def zipped(folder, path):
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(folder.rglob("*.png")):
            archive.write(file, Path("cifar10") / file.relative_to(folder))
    return path


@pytest.mark.parametrize("channels", [1, 3])
def test_digits_inputs_are_bit_for_bit_what_preprocess_makes_of_the_raw_examples(channels):
    data = digits(channels=channels)
    images, targets = joined(data.validation)
    raw = data.examples
    assert raw["x"].shape == (360, 8, 8) and raw["x"].dtype == np.uint8
    assert torch.equal(images, torch.stack([data.preprocess(Image.fromarray(image)) for image in raw["x"]]))
    assert np.array_equal(targets, raw["y"])


def test_digits_are_scikit_learns_split_by_class_once_and_for_all():
    data, other = digits(), digits(seed=5)
    raw = load_digits()
    expected = {image.tobytes() for image in np.round(raw.images * 255 / 16).astype(np.uint8)}
    assert {image.tobytes() for image in data.examples["x"]} <= expected
    assert np.array_equal(data.examples["x"], other.examples["x"])
    assert np.bincount(data.examples["y"]).min() >= 34
    assert sum(len(batch[1]) for batch in data.calibration) == 256
    assert data.task.classes == 10 and data.classes == tuple("0123456789")


def test_calibration_digits_are_training_images_that_do_not_validate():
    data = digits()
    calibration, validation = joined(data.calibration)[0].flatten(1), joined(data.validation)[0].flatten(1)
    assert torch.cdist(calibration, validation).min() > 0


def test_the_order_and_augmentation_of_training_follow_seed_and_epoch_alone():
    data, again, other = digits(), digits(), digits(seed=1)

    def first(data, epoch):
        data.train.set_epoch(epoch)
        return next(iter(data.train))[0]

    assert torch.equal(first(data, 3), first(again, 3))
    assert torch.equal(first(data, 3), first(data, 3))
    assert not torch.equal(first(data, 3), first(data, 4))
    assert not torch.equal(first(data, 3), first(other, 3))


def test_training_batches_are_all_full_and_len_counts_them():
    data = digits(batch_size=100)
    assert [len(batch[1]) for batch in data.train] == [100] * 14
    assert len(data.train) == 14 and data.train.batch_size == 100
    assert len(digits(batch_size=5000).train) == 1
    assert len(data.validation) == len(list(data.validation)) == 2


def test_normalised_digits_have_mean_zero_and_deviation_one():
    data = digits()
    images = joined(data.calibration)[0]
    assert abs(images.mean()) < 0.05 and abs(images.std() - 1) < 0.05


def test_a_batch_size_below_one_is_an_error():
    with pytest.raises(PenjingError, match="batch_size"):
        digits(batch_size=0)


def test_digits_refuse_two_channels():
    with pytest.raises(PenjingError, match="channels"):
        digits(channels=2)


@pytest.mark.parametrize(("channels", "size"), [(1, 28), (3, 32)])
def test_mnist_gives_its_images(small_mnist, channels, size):
    path, arrays = small_mnist
    data = mnist(path, batch_size=16, channels=channels, size=size)
    images, targets = joined(data.validation)
    assert images.shape == (20, channels, size, size)
    assert torch.equal(images[3], data.preprocess(Image.fromarray(arrays["x_test"][3])))
    assert targets.tolist() == arrays["y_test"].tolist()
    assert len(joined(data.calibration)[0]) == 60
    assert next(iter(data.train))[0].shape == (16, channels, size, size)


def test_the_fingerprint_is_of_the_content_and_the_settings(small_mnist, tmp_path):
    path, arrays = small_mnist
    copy = tmp_path / "elsewhere.npz"
    copy.write_bytes(path.read_bytes())
    assert mnist(path).fingerprint == mnist(copy).fingerprint != mnist(path, seed=1).fingerprint
    arrays["x_test"][0, 0, 0] ^= 1
    np.savez(copy, **arrays)
    assert mnist(path).fingerprint != mnist(copy).fingerprint


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (None, "There is no file"),
        ("text", "isn't a NumPy"),
        ({"x_train": np.zeros(3)}, "has no y_train"),
        ({key: np.zeros((2, 2)) for key in ("x_train", "y_train", "x_test", "y_test")}, "should be"),
        ({key: np.array([object()]) for key in ("x_train", "y_train", "x_test", "y_test")}, "isn't a NumPy"),
    ],
)
def test_a_bad_mnist_file_is_a_clear_error(tmp_path, content, says):
    path = tmp_path / "bad.npz"
    if isinstance(content, str):
        path.write_text(content)
    elif content is not None:
        np.savez(path, **content)
    with pytest.raises(PenjingError, match=says):
        mnist(path)


def test_a_bare_npy_file_is_no_mnist(tmp_path):
    np.save(tmp_path / "bare.npy", np.zeros(3))
    with pytest.raises(PenjingError, match="isn't a NumPy"):
        mnist(tmp_path / "bare.npy")


def test_cifar_is_the_same_from_a_folder_and_a_zip(small_cifar, tmp_path):
    folder = cifar10(small_cifar, batch_size=8)
    archive = cifar10(zipped(small_cifar, tmp_path / "cifar.zip"), batch_size=8)
    for part in ("calibration", "validation"):
        for a, b in zip(joined(getattr(folder, part)), joined(getattr(archive, part)), strict=True):
            assert torch.equal(a, b)
    images, targets = joined(folder.validation)
    assert targets.tolist() == [number for number in range(10) for _ in range(2)]
    assert torch.equal(images[2], folder.preprocess(Image.open(small_cifar / "test/class1/0.png")))
    assert folder.classes == tuple(f"class{number}" for number in range(10))
    assert len(joined(folder.calibration)[0]) == 40


def test_cifar_from_the_cache_is_the_same_and_a_damaged_cache_is_made_anew(small_cifar, tmp_path):
    first = joined(cifar10(small_cifar).validation)[0]
    files = list((tmp_path / "cache").glob("*.npy"))
    assert len(files) == 2
    assert torch.equal(joined(cifar10(small_cifar).validation)[0], first)
    for file in files:
        file.write_bytes(file.read_bytes()[:1000])
    assert torch.equal(joined(cifar10(small_cifar).validation)[0], first)


def test_cifar_without_a_place_for_its_cache_still_loads(small_cifar, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("PENJING_CACHE", str(tmp_path / "file"))
    assert len(joined(cifar10(small_cifar).validation)[0]) == 20


def test_cifar_of_another_form_is_an_error(small_cifar):
    Image.new("RGB", (31, 32)).save(small_cifar / "test/class3/0.png")
    with pytest.raises(PenjingError, match=r"class3.0\.png.*31x32"):
        cifar10(small_cifar)
    for file in (small_cifar / "train/class3").iterdir():
        file.unlink()
    for file in (small_cifar / "test/class3").iterdir():
        file.unlink()
    with pytest.raises(PenjingError, match="9 classes"):
        cifar10(small_cifar)
    with pytest.raises(PenjingError, match="test/CLASS"):
        cifar10(small_cifar / "train")


def test_what_a_deployed_model_needs_imports_pil_and_numpy_alone():
    imports = [line for line in inspect.getsource(prepare).splitlines() if line.startswith(("import", "from"))]
    assert {line.split()[1].split(".")[0] for line in imports} == {"collections", "numpy", "PIL", "typing"}


def test_the_fine_tuned_resnet20_is_as_good_as_published_on_part_of_cifar():
    archive, weights = SHARED / "data/cifar10.zip", SHARED / "models/cifar10jpeg-resnet20.safetensors"
    if not (archive.exists() and weights.exists()) or not os.environ.get("PENJING_SLOW"):
        pytest.skip("set PENJING_SLOW=1 and have the shared data to decode and run all of CIFAR-10")
    from safetensors.torch import load_file

    from penjing import tasks, zoo

    model = zoo.resnet20()
    model.load_state_dict(load_file(weights))
    data = cifar10(archive)
    assert tasks.evaluate(model, data.validation, data.task) == pytest.approx(0.8854, abs=2e-4)
