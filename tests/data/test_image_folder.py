import io
import os
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from penjing.data import Split, image_folder
from penjing.data._source import ImageSource
from penjing.errors import PenjingError
from penjing.tasks import Classification, Unlabelled

SHARED = Path(os.environ.get("PENJING_SHARED", Path(__file__).parents[3] / "shared"))


def save(path, size=(16, 16), seed=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng([seed, len(str(path))]).integers(0, 256, (*size, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


@pytest.fixture
def labelled(tmp_path):
    root = tmp_path / "photos"
    for part, count in (("train", 10), ("val", 4)):
        for label, name in enumerate(("cat", "ant", "bee")):
            for index in range(count):
                save(root / part / name / f"{index}.png", seed=100 * label + index)
    return root


def zipped(folder, path, prefix=""):
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(file for file in folder.rglob("*") if file.is_file()):
            archive.write(file, prefix + file.relative_to(folder).as_posix())
    return path


def joined(loader):
    return tuple(torch.cat(parts) for parts in zip(*loader, strict=True))


def test_train_and_val_folders_are_labelled_in_alphabetical_order(labelled):
    data = image_folder(labelled)
    images, targets = joined(data.validation)
    assert data.split == Split(30, 3, 12, 3)
    assert data.classes == ("ant", "bee", "cat") and isinstance(data.task, Classification) and data.task.classes == 3
    assert targets.tolist() == [0] * 4 + [1] * 4 + [2] * 4 and targets.dtype == torch.int64
    assert torch.equal(images[4], data.preprocess(Image.open(labelled / "val/bee/0.png")))
    assert len(joined(data.calibration)[0]) == 30
    assert data.name == "photos" and len(data.train) == 1  # 30 images, one batch of 32 at most


@pytest.mark.parametrize("prefix", ["", "photos/", "a/"])
def test_a_zip_gives_what_the_folder_gives(labelled, tmp_path, prefix):
    folder, archive = image_folder(labelled), image_folder(zipped(labelled, tmp_path / "photos.zip", prefix))
    folder.train.set_epoch(2)
    archive.train.set_epoch(2)
    for part in ("train", "calibration", "validation"):
        for a, b in zip(joined(getattr(folder, part)), joined(getattr(archive, part)), strict=True):
            assert torch.equal(a, b)


@pytest.mark.parametrize("size", [None, 14])
def test_training_follows_seed_and_epoch_alone_whatever_reads_the_files(labelled, size):
    def first(epoch, **options):
        data = image_folder(labelled, size, batch_size=8, **options)
        data.train.set_epoch(epoch)
        return joined(data.train)

    images, targets = first(3)
    assert images.shape == (24, 3, size or 16, size or 16)
    assert torch.equal(images, first(3)[0]) and torch.equal(targets, first(3)[1])
    assert torch.equal(images, first(3, num_workers=2)[0])
    assert not torch.equal(images, first(4)[0])
    assert not torch.equal(images, first(3, seed=1)[0])


def test_images_that_do_not_fit_in_memory_are_streamed_alike(labelled, tmp_path, monkeypatch):
    archive = zipped(labelled, tmp_path / "photos.zip")
    kept = image_folder(archive, 14)
    monkeypatch.setattr("penjing.data._image_folder._IN_MEMORY", 100)
    streamed = image_folder(archive, 14, num_workers=2)
    assert streamed.train.dataset._kept is None and kept.train.dataset._kept is not None
    for part in ("train", "validation"):
        assert torch.equal(joined(getattr(kept, part))[0], joined(getattr(streamed, part))[0])


def test_a_source_can_be_pickled_with_its_zip_open(labelled, tmp_path):
    source = ImageSource(zipped(labelled, tmp_path / "photos.zip"))
    content = source.read(source.names[0])
    assert pickle.loads(pickle.dumps(source)).read(source.names[0]) == content


def test_size_resizes_the_short_side_by_eight_sevenths_and_crops(labelled):
    data = image_folder(labelled, size=28)
    assert (data.preprocess.resize, data.preprocess.crop) == (32, (28, 28))
    images, _ = joined(data.validation)
    assert torch.equal(images[0], data.preprocess(Image.open(labelled / "val/ant/0.png")))
    assert image_folder(labelled, size=28, resize=30).preprocess.resize == 30


def test_images_of_several_sizes_need_a_size(labelled):
    save(labelled / "train/bee/wide.png", (16, 20))
    with pytest.raises(PenjingError, match=r"different sizes .*20x16.*size=224"):
        image_folder(labelled)
    assert next(iter(image_folder(labelled, 16).train))[0].shape[2:] == (16, 16)


def test_oblong_images_of_one_size_stay_oblong(tmp_path):
    for index in range(4):
        save(tmp_path / f"{index}.png", (10, 14))
    data = image_folder(tmp_path)
    assert data.preprocess.crop == (10, 14)
    assert next(iter(data.validation))[0].shape[1:] == (3, 10, 14)


def test_rotated_photos_have_their_upright_size(tmp_path):
    for index in range(2):
        exif = Image.Exif()
        exif[0x0112] = 6
        Image.new("RGB", (14, 10)).save(tmp_path / f"{index}.jpg", exif=exif)
    save(tmp_path / "upright.png", (14, 10))
    assert image_folder(tmp_path).preprocess.crop == (14, 10)


def test_grey_inputs_have_one_channel(labelled):
    images, _ = joined(image_folder(labelled, channels=1).validation)
    assert images.shape[1] == 1


@pytest.mark.parametrize("inner", ["train", "."])
def test_without_validation_images_a_fixed_tenth_of_each_class_validates(labelled, inner):
    for file in (labelled / "val").rglob("*.png"):
        file.unlink()
    root = labelled if inner == "train" else labelled / "train"
    data = image_folder(root)
    images, targets = joined(data.validation)
    assert targets.tolist() == [0, 1, 2] and data.split == Split(27, 3, 3, 3, held_out=True)
    assert torch.equal(images, joined(image_folder(root, seed=3).validation)[0])
    calibration = joined(data.calibration)[0]
    assert len(calibration) == 27
    assert torch.cdist(images.flatten(1), calibration.flatten(1)).min() > 0


def test_validation_images_alone_leave_nothing_to_train_on(labelled):
    for file in (labelled / "train").rglob("*.png"):
        file.unlink()
    data = image_folder(labelled)
    assert data.train is None and data.split == Split(0, None, 9, 3)
    assert len(joined(data.calibration)[1]) == 3 and len(joined(data.validation)[1]) == 9


def test_a_flat_folder_is_unlabelled_and_split_without_overlap(tmp_path):
    for index in range(7):
        save(tmp_path / f"{index:02}.png", seed=index)
    data = image_folder(tmp_path)
    assert data.train is None and isinstance(data.task, Unlabelled) and data.classes is None
    (calibration,), (validation,) = joined(data.calibration), joined(data.validation)
    assert (len(calibration), len(validation)) == (4, 3)
    assert torch.cdist(calibration.flatten(1), validation.flatten(1)).min() > 0
    assert len(joined(image_folder(tmp_path, calibration=2).validation)[0]) == 5


def test_a_single_image_both_calibrates_and_validates(tmp_path):
    save(tmp_path / "only.png")
    data = image_folder(tmp_path)
    assert len(joined(data.calibration)[0]) == len(joined(data.validation)[0]) == 1


@pytest.mark.parametrize("wrapped", [True, False])
def test_flat_calibration_and_validation_folders_are_kept_apart(tmp_path, wrapped):
    root = tmp_path / "sample"
    for index in range(5):
        save(root / "calibration" / f"c{index}.png", seed=index)
    for index in range(3):
        save(root / "validation" / f"v{index}.png", seed=index)
    data = image_folder(zipped(root, tmp_path / "sample.zip", "sample/")) if wrapped else image_folder(root)
    assert len(joined(data.calibration)[0]) == 5 and len(joined(data.validation)[0]) == 3
    assert not data.task.labelled


def test_a_flat_calibration_folder_serves_labelled_data(labelled):
    for index in range(5):
        save(labelled / "calibration" / f"{index}.png", seed=index)
    data = image_folder(labelled)
    batch = next(iter(data.calibration))
    assert len(batch) == 1 and data.task.split(batch)[1] is None and data.task.labelled


def test_hidden_files_and_other_files_are_left_out(labelled, tmp_path):
    before = image_folder(labelled).fingerprint
    (labelled / "train" / ".DS_Store").touch()
    (labelled / "train/cat/._0.png").write_bytes(b"resource fork")
    (labelled / "__MACOSX/train/cat").mkdir(parents=True)
    (labelled / "__MACOSX/train/cat/0.png").touch()
    (labelled / "notes.txt").touch()
    assert image_folder(labelled).fingerprint == before


def test_a_folder_that_links_to_itself_is_read_once(labelled):
    (labelled / "train/cat/again").symlink_to(labelled)
    assert len(joined(image_folder(labelled).calibration)[0]) == 30


def test_another_image_is_another_fingerprint(labelled):
    before = image_folder(labelled).fingerprint
    assert image_folder(labelled).fingerprint == before
    save(labelled / "train/cat/new.png")
    assert image_folder(labelled).fingerprint != before


@pytest.mark.parametrize("damage", ["truncated", "text", "empty"])
@pytest.mark.parametrize("suffix", ["png", "jpg"])
@pytest.mark.parametrize("size", [None, 8])
def test_a_damaged_image_is_named(labelled, damage, suffix, size):
    path = labelled / "train" / "bee" / f"broken.{suffix}"
    save(path)
    content = {"truncated": path.read_bytes()[:-300], "text": b"no image", "empty": b""}[damage]
    path.write_bytes(content)
    with pytest.raises(PenjingError, match=rf"broken\.{suffix} is damaged"):
        image_folder(labelled, size)


@pytest.fixture
def streamed(labelled, monkeypatch, tmp_path):
    """The folder, of which nothing is kept in memory, with a truncated validation image."""
    path = labelled / "val" / "bee" / "broken.jpg"
    save(path)
    path.write_bytes(path.read_bytes()[:-300])
    monkeypatch.setenv("PENJING_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("penjing.data._image_folder._IN_MEMORY", 100)
    return labelled


def test_a_damaged_image_is_named_before_anything_is_read_where_images_are_streamed_too(streamed):
    for _ in range(2):  # a folder with a damaged image is never remembered as whole
        with pytest.raises(PenjingError, match=r"broken\.jpg is damaged"):
            image_folder(streamed, 8)
    (streamed / "val" / "bee" / "broken.jpg").unlink()
    image_folder(streamed, 8)


def test_images_that_were_found_whole_are_not_decoded_again(streamed, monkeypatch):
    (streamed / "val" / "bee" / "broken.jpg").unlink()
    image_folder(streamed, 8)
    decoded = []
    monkeypatch.setattr("penjing.data._source._decoded", lambda image: decoded.append(image) or image)
    image_folder(streamed, 8)
    assert decoded == []
    save(streamed / "val" / "bee" / "more.png")
    image_folder(streamed, 8)
    assert decoded


@pytest.mark.parametrize("workers", [0, 1])
def test_in_a_set_too_large_to_check_a_damaged_image_is_named_when_it_is_read(streamed, monkeypatch, workers):
    monkeypatch.setattr("penjing.data._image_folder._CHECKED", 0)
    data = image_folder(streamed, 8, num_workers=workers)
    with pytest.raises(PenjingError, match=r"^[^\n]*broken\.jpg is damaged[^\n]*$"):
        joined(data.validation)


def test_an_image_with_too_many_pixels_is_refused(tmp_path):
    save(tmp_path / "fine.png")
    bomb = bytearray((tmp_path / "fine.png").read_bytes())
    bomb[16:24] = (60000).to_bytes(4, "big") * 2
    import zlib

    bomb[29:33] = zlib.crc32(bytes(bomb[12:29])).to_bytes(4, "big")
    (tmp_path / "bomb.png").write_bytes(bytes(bomb))
    with pytest.raises(PenjingError, match=r"bomb\.png is too large"):
        image_folder(tmp_path)


def bad(name):
    def make(root, tmp_path):
        if name == "missing":
            return tmp_path / "nowhere"
        if name == "empty":
            (tmp_path / "void").mkdir()
            return tmp_path / "void"
        if name == "not a zip":
            (tmp_path / "text.zip").write_text("not a zip")
            return tmp_path / "text.zip"
        if name == "one class":
            return zipped(root / "train/cat", tmp_path / "one.zip", "train/cat/")
        if name == "one class folder":
            save(tmp_path / "solo/cat/1.png")
            return tmp_path / "solo"
        if name == "classes differ":
            (root / "val/bee").rename(root / "val/wasp")
        if name == "loose":
            save(root / "train/loose.png")
        if name == "half labelled":
            for file in list((root / "val").rglob("*.png")):
                file.rename(root / "val" / f"{file.parent.name}{file.name}")
        return root

    return make


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("missing", "no folder or zip"),
        ("empty", "no images"),
        ("not a zip", "neither a folder nor a readable zip"),
        ("one class", r"only one class \(cat\)"),
        ("one class folder", r"only one class \(cat\)"),
        ("classes differ", r"classes of training and validation differ .*bee.*wasp"),
        ("loose", r"class folders and images beside them \(train/loose.png\)"),
        ("half labelled", "validation images aren't in class folders"),
    ],
)
def test_bad_folders_are_clear_errors(labelled, tmp_path, name, says):
    with pytest.raises(PenjingError, match=says):
        image_folder(bad(name)(labelled, tmp_path))


@pytest.mark.parametrize("entry", ["../evil.png", "/etc/evil.png", "a/../../evil.png"])
def test_a_zip_that_points_outside_is_refused_and_nothing_is_written(tmp_path, entry):
    buffer = io.BytesIO()
    Image.new("RGB", (4, 4)).save(buffer, "png")
    with zipfile.ZipFile(tmp_path / "evil.zip", "w") as archive:
        archive.writestr(entry, buffer.getvalue())
    with pytest.raises(PenjingError, match="points outside"):
        image_folder(tmp_path / "evil.zip")
    assert [file.name for file in tmp_path.iterdir()] == ["evil.zip"]


def test_a_zip_entry_that_unpacks_to_too_much_is_refused(labelled, tmp_path, monkeypatch):
    monkeypatch.setattr("penjing.data._source._LARGEST_FILE", 10)
    with pytest.raises(PenjingError, match=r"would unpack to 852 bytes, more than the 10"):
        image_folder(zipped(labelled, tmp_path / "bomb.zip"))


@pytest.mark.parametrize("options", [{"size": 0}, {"size": 28, "resize": 20}, {"resize": 20}, {"channels": 4}])
def test_impossible_sizes_are_errors(labelled, options):
    with pytest.raises(PenjingError):
        image_folder(labelled, **options)


def test_the_imagenet_sample_is_unlabelled():
    path = SHARED / "data/imagenet-sample.zip"
    if not path.exists():
        pytest.skip(f"needs the shared data: {path} is not there")
    data = image_folder(path, size=224)
    assert len(data.calibration.dataset) == 200 and len(data.validation.dataset) == 400
    assert next(iter(data.calibration))[0].shape == (64, 3, 224, 224)
