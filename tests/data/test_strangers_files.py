"""Files of strangers do no harm: they start no program, take no memory for what they claim, and shift no label."""

import io
import os
import random
import struct
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import EpsImagePlugin, Image

from penjing.data import Data, cifar10, digits, image_folder, mnist
from penjing.data._source import ImageSource
from penjing.data.prepare import PIXELS
from penjing.errors import PenjingError
from penjing.tasks import Classification


def picture(size=(16, 16), seed=0):
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8))


def drawn(folder, count=3, suffix=".png"):
    for name in ("ant", "bee"):
        (folder / name).mkdir(parents=True)
        for index in range(count):
            picture(seed=index).save(folder / name / f"{index}{suffix}")
    return folder


# Formats


@pytest.mark.parametrize("suffix", [".bmp", ".gif", ".jpg", ".png", ".ppm", ".tif", ".webp"])
def test_the_formats_of_photos_are_read(tmp_path, suffix):
    data = image_folder(drawn(tmp_path / "photos", suffix=suffix), num_workers=0)
    assert next(iter(data.validation))[0].shape == (2, 3, 16, 16)


@pytest.mark.parametrize("name", ["EPS", "PCX", "ICO", "DDS", "SGI", "PDF"])
def test_a_file_of_another_format_under_a_photos_name_is_not_opened(tmp_path, monkeypatch, name):
    started = []
    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", lambda *_, **__: started.append(name))
    drawn(tmp_path / "photos")
    content = io.BytesIO()
    picture().save(content, name)
    (tmp_path / "photos/ant/1.jpg").write_bytes(content.getvalue())
    with pytest.raises(PenjingError, match=r"ant/1\.jpg is damaged or not an image .*: BMP, GIF, JPEG.*WEBP\.") as told:
        image_folder(tmp_path / "photos", 16)
    assert " at 0x" not in str(told.value)
    assert not started


# Pixels and memory


def png_that_claims(width, height):
    content = io.BytesIO()
    Image.new("RGB", (4, 4)).save(content, "PNG")
    bomb = bytearray(content.getvalue())
    bomb[16:24] = struct.pack(">II", width, height)
    bomb[29:33] = zlib.crc32(bytes(bomb[12:29])).to_bytes(4, "big")
    return bytes(bomb)


def bmp_that_claims(width, height):
    content = io.BytesIO()
    Image.new("RGB", (4, 4)).save(content, "BMP")
    bomb = bytearray(content.getvalue())
    bomb[18:26] = struct.pack("<ii", width, height)
    return bytes(bomb)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.png", png_that_claims(13_000, 13_000)),  # below what Pillow itself refuses
        ("a.png", png_that_claims(60_000, 60_000)),
        ("a.png", png_that_claims(PIXELS // 2 + 1, 2)),
        ("a.bmp", bmp_that_claims(9_000, 9_000)),
    ],
)
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_an_image_that_claims_too_many_pixels_is_refused_by_its_header(tmp_path, name, content):
    drawn(tmp_path / "photos")
    (tmp_path / "photos/ant" / name).write_bytes(content)
    with pytest.raises(PenjingError, match=rf"ant/{name} is too large.*scale it down"):
        image_folder(tmp_path / "photos", 16)


def test_a_line_of_pixels_is_not_scaled_to_billions(tmp_path):
    drawn(tmp_path / "photos")
    for index in range(10):
        Image.new("L", (60_000, 1)).save(tmp_path / f"photos/ant/{index}.png")
    with pytest.raises(PenjingError, match=r"with its short side scaled to 256 it is 15360000x256, more than"):
        image_folder(tmp_path / "photos", 224)


@pytest.mark.parametrize("size", [100_000, 8193, 0, -3, 2.5, True, "16", None])
def test_a_size_that_no_network_takes_is_refused(small_mnist, size):
    for make in (digits, lambda size: mnist(small_mnist({}), size=size)):
        with pytest.raises(PenjingError, match=r"size=.*: it must be a whole number from 1 to 8,192"):
            make(size=size)


@pytest.mark.parametrize(
    "make",
    [
        lambda tmp_path, write: digits(size=2000),
        lambda tmp_path, write: mnist(
            write({"x_train": np.zeros((30, 8, 8), np.uint8), "y_train": np.arange(30) % 3}), size=8192, channels=3
        ),
        lambda tmp_path, write: image_folder(drawn(tmp_path / "photos"), 8000),
        lambda tmp_path, write: image_folder(drawn(tmp_path / "photos"), 224, batch_size=10_000),
    ],
    ids=["digits", "mnist", "folder", "batch"],
)
def test_sizes_that_take_more_memory_than_there_may_be_are_refused_before_anything_is_scaled(
    tmp_path, small_mnist, make
):
    with pytest.raises(PenjingError, match=r"would take \d+\.\d GB of memory"):
        make(tmp_path, small_mnist)


def test_a_file_that_is_too_long_for_an_image_is_not_read(tmp_path):
    drawn(tmp_path / "photos")
    with (tmp_path / "photos/ant/0.png").open("r+b") as file:
        file.truncate(2**40)  # it takes no room on the disk
    with pytest.raises(PenjingError, match=r"ant/0\.png has 1,099,511,627,776 bytes, more than"):
        image_folder(tmp_path / "photos")


# MNIST


@pytest.fixture
def small_mnist(tmp_path):
    """Writes a .npz file of ten images, with some arrays replaced: by another array, or by the bytes of its file."""

    def write(changes, compression=zipfile.ZIP_DEFLATED):
        images, labels = np.zeros((10, 8, 8), np.uint8), np.arange(10) % 3
        arrays = {"x_train": images, "y_train": labels, "x_test": images, "y_test": labels} | changes
        path = tmp_path / "mnist.npz"
        with zipfile.ZipFile(path, "w", compression) as archive:
            for key, value in arrays.items():
                archive.writestr(f"{key}.npy", value if isinstance(value, bytes) else npy(value))
        return path

    return write


def npy(array):
    content = io.BytesIO()
    np.lib.format.write_array(content, array, allow_pickle=True)
    return content.getvalue()


def header(shape, descr="|u1", version=1, text=None):
    text = text or repr({"descr": descr, "fortran_order": False, "shape": shape})
    length = struct.pack("<H" if version == 1 else "<I", len(text))
    return b"\x93NUMPY" + bytes([version, 0]) + length + text.encode()


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"y_train": np.full(10, 2**40)}, r"y_train holds labels from 1099511627776 to"),
        ({"y_test": np.full(10, 2**63, np.uint64)}, r"y_test holds labels from 9223372036854775808"),
        ({"y_test": np.arange(10) - 5}, r"y_test holds labels from -5 to 4; classes are numbered from 0"),
        ({"y_train": np.zeros(10)}, r"y_train \(N,\) integers"),
        ({"x_train": np.zeros((10, 0, 0), np.uint8)}, r"x_train holds no images: its shape is \(10, 0, 0\)"),
        (
            {"x_test": np.zeros((0, 8, 8), np.uint8), "y_test": np.zeros(0, int)},
            r"x_test holds no images: its shape is \(0, 8, 8\)",
        ),
        ({"x_train": np.zeros((10, 8, 8, 3), np.uint8)}, r"x_train should be \(N, H, W\) uint8"),
        ({"x_train": np.array([{}] * 10, object)}, r"x_train\.npy: it holds Python objects"),
        ({"y_test": header((10,), "|O") + b"cos\nsystem\n."}, r"y_test\.npy: it holds Python objects"),
        ({"x_train": header((10**12, 28, 28))}, r"claims 784,000,000,000,000 bytes"),
        ({"x_train": header((2**62, 2**62, 2**62))}, r"claims .* bytes, shape"),
        ({"x_train": header((-1, 8, 8)) + bytes(64)}, r"claims the shape \(-1, 8, 8\)"),
        ({"x_train": header((11, 8, 8)) + bytes(640)}, r"claims 704 bytes, shape \(11, 8, 8\), and 640 are there"),
        ({"x_train": header((9, 8, 8)) + bytes(640)}, r"claims 576 bytes"),
        ({"x_train": header((), text="(" * 9000)}, r"no header of a \.npy file"),
        ({"x_train": header((), text="{}")}, r"no header of a \.npy file"),
        ({"x_train": b"\x93NUMPY\x02\x00" + b"\xff" * 20_000}, r"no header of a \.npy file"),
        ({"x_train": b"\x93NUMPY\x09\x00" + bytes(64)}, r"no header|version \(9, 0\)"),
        ({"x_train": b""}, r"no header of a \.npy file"),
    ],
)
def test_an_mnist_file_that_is_wrong_is_refused_before_memory_is_taken(small_mnist, changes, says):
    with pytest.raises(PenjingError, match=says):
        mnist(small_mnist(changes))


def test_mnist_by_columns_first_and_of_other_integers_is_the_same(small_mnist):
    images = np.random.default_rng(0).integers(0, 256, (10, 8, 8), np.uint8)
    plain = mnist(small_mnist({"x_test": images}), size=8)
    other = mnist(
        small_mnist({"x_test": np.asfortranarray(images), "y_test": (np.arange(10) % 3).astype(">i2")}), size=8
    )
    for one, two in zip(next(iter(plain.validation)), next(iter(other.validation)), strict=True):
        assert one.equal(two)


def test_a_zip_that_would_unpack_to_gigabytes_is_refused_by_its_directory(small_mnist):
    path = small_mnist({})
    content = bytearray(path.read_bytes())
    at = content.index(b"PK\x01\x02")  # the first entry of the directory
    content[at + 24 : at + 28] = (2**32 - 2).to_bytes(4, "little")
    path.write_bytes(content)
    with pytest.raises(PenjingError, match=r"'x_train\.npy' would unpack to 4,294,967,294 bytes"):
        mnist(path)


# Zips


def zipped(path, entries, compression=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in entries:
            archive.writestr(name, content)
    return path


def png():
    content = io.BytesIO()
    picture().save(content, "PNG")
    return content.getvalue()


@pytest.mark.parametrize("read", [image_folder, cifar10], ids=["folder", "cifar10"])
@pytest.mark.parametrize(
    ("names", "options", "says"),
    [
        (["a/0.png", "../b/1.png"], {}, "points outside"),
        (["a/0.png", "/etc/1.png"], {}, "points outside"),
        (["a/0.png", "b\\..\\..\\1.png"], {}, "points outside"),
        (["a/0.png", "a/0.png", "b/1.png"], {}, r"'a/0\.png' twice"),
        (["a/0.png", "b/1.png"], {"compression": zipfile.ZIP_LZMA}, "neither stored nor deflated"),
        (["a/0.png", "b/1.png"], {"compression": zipfile.ZIP_BZIP2}, "neither stored nor deflated"),
        (["a/0.txt"], {}, "no images"),
    ],
)
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_zip_that_is_not_to_be_trusted_is_refused(tmp_path, read, names, options, says):
    with pytest.raises(PenjingError, match=says):
        read(zipped(tmp_path / "photos.zip", [(name, png()) for name in names], **options))


def test_one_flipped_byte_of_a_zip_is_an_error_that_says_so_or_does_nothing(tmp_path):
    whole = zipped(tmp_path / "whole.zip", [(f"{name}/{i}.png", png()) for name in "ab" for i in range(2)])
    content, generator = whole.read_bytes(), random.Random(0)
    directory = content.index(b"PK\x01\x02")
    places = [generator.randrange(directory, len(content)) for _ in range(50)] + list(range(0, directory, 97))
    refused = 0
    for place in places:
        damaged = bytearray(content)
        damaged[place] ^= 1 << generator.randrange(8)
        (tmp_path / "damaged.zip").write_bytes(damaged)
        try:
            source = ImageSource(tmp_path / "damaged.zip")
            for name in source.names:
                source.image(name, lambda image: image.load() and image)
        except PenjingError:
            refused += 1
    assert 0 < refused < len(places)


# Classes


@pytest.mark.parametrize("name", ["two\nlines", "carriage\rreturn", "bell\a", "next\x85line", "line\u2028separator"])
@pytest.mark.parametrize("packed", [False, True], ids=["folder", "zip"])
def test_a_class_whose_name_is_no_line_is_refused_and_named(tmp_path, name, packed):
    if packed:
        path = zipped(tmp_path / "photos.zip", [("ant/0.png", png()), (f"{name}/0.png", png())])
    else:
        path = drawn(tmp_path / "photos")
        (path / "ant").rename(path / name)
    with pytest.raises(PenjingError) as refused:
        image_folder(path)
    assert f"class folder {name!r}" in str(refused.value) and "Rename the folder" in str(refused.value)


@pytest.mark.skipif(os.name != "posix", reason="needs a file system that takes any bytes")
@pytest.mark.parametrize("part", ["", "train", "val"])
def test_a_class_whose_name_is_not_utf_8_is_refused_and_named(tmp_path, part):
    root = drawn(tmp_path / "photos" / part)
    os.rename(os.fsencode(root / "ant"), os.fsencode(root) + b"/caf\xe9")
    with pytest.raises(PenjingError, match=r"the class folder 'caf\\udce9'.*UTF-8"):
        image_folder(tmp_path / "photos")


@pytest.mark.parametrize("name", ["two words", "über", "日本", "a,b;c", "0"])
def test_other_names_of_classes_are_fine(tmp_path, name):
    path = drawn(tmp_path / "photos")
    (path / "ant").rename(path / name)
    assert name in image_folder(path).classes


@pytest.mark.parametrize("classes", [("a", "b\nc"), ("a", "\udce9"), ("a", ""), ("a", 3), "ab", 2])
def test_classes_of_other_data_are_held_to_the_same(classes):
    with pytest.raises(PenjingError, match=r"classes=.*: it must be a sequence of names, each on one line"):
        Data(None, None, [], Classification(2), classes=classes)


# Which data it is


@pytest.mark.parametrize("length", [100, 6000, 50_000])
@pytest.mark.parametrize("place", [0, 0.5, -1])
def test_a_folder_whose_files_changed_with_equal_sizes_and_times_is_another(tmp_path, length, place):
    (tmp_path / "a").mkdir()
    file = tmp_path / "a/0.png"
    file.write_bytes(bytes(length))
    status = file.stat()
    before = ImageSource(tmp_path).fingerprint
    assert ImageSource(tmp_path).fingerprint == before
    content = bytearray(length)
    content[int(place * length) if place > 0 else place] = 1
    file.write_bytes(content)
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert ImageSource(tmp_path).fingerprint != before


def test_what_is_hashed_of_a_file_does_not_grow_with_it(tmp_path, monkeypatch):
    (tmp_path / "0.png").write_bytes(bytes(10**6))
    read, pread = [], os.pread
    monkeypatch.setattr(os, "pread", lambda *arguments: read.append(arguments[1]) or pread(*arguments))
    assert ImageSource(Path(tmp_path)).fingerprint and sum(read) < 10_000
