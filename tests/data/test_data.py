from dataclasses import replace

import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader, TensorDataset

from penjing.data import Data, digits, image_folder
from penjing.tasks import Classification


def custom(seed=0, count=20, **options):
    generator = torch.Generator().manual_seed(seed)
    samples = TensorDataset(torch.randn(count, 3, generator=generator), torch.arange(count) % 2)
    loader = DataLoader(samples, batch_size=4, **options)
    return Data(loader, loader, loader, Classification(2))


def test_built_in_data_is_identified_by_name_and_fingerprint():
    data = digits()
    assert data.identity() == f"digits {data.fingerprint}"


@pytest.mark.parametrize("shuffle", [False, True])
def test_custom_data_has_the_same_identity_each_time(shuffle):
    assert custom(shuffle=shuffle).identity() == custom(shuffle=shuffle).identity()


def test_other_contents_lengths_and_parts_are_other_data():
    data = custom()
    others = [custom(seed=1), custom(count=24), replace(data, validation=None), replace(data, name="other")]
    assert len({each.identity() for each in [data, *others]}) == 5


def test_the_identity_leaves_torchs_random_state_as_it_was():
    before = torch.get_rng_state()
    custom(shuffle=True).identity()
    assert torch.equal(torch.get_rng_state(), before)


def test_data_that_streams_or_holds_more_than_tensors_has_an_identity():
    class Stream:
        def __iter__(self):
            yield {"image": torch.ones(2, 3, dtype=torch.bfloat16), "name": ["a", "b"], "extra": object()}, None

    first, second = (Data(None, None, Stream(), Classification(2)).identity() for _ in range(2))
    assert first == second


@pytest.mark.parametrize("folders", [("train",), ("train", "val"), ("train", "test")])
def test_the_validation_files_are_the_validation_images_in_order(tmp_path, folders):
    for part in folders:
        for number, name in enumerate("ab"):
            for index in range(3):
                (tmp_path / part / name).mkdir(parents=True, exist_ok=True)
                color = (number * 100, index * 50, len(part))
                Image.new("RGB", (8, 8), color).save(tmp_path / part / name / f"{index}.png")
    data = image_folder(tmp_path)
    images, targets = (torch.cat(parts) for parts in zip(*data.validation, strict=True))
    assert [label for _, label in data.validation_files] == targets.tolist()
    for image, (name, _) in zip(images, data.validation_files, strict=True):
        assert torch.equal(image, data.preprocess(Image.open(tmp_path / name)))


def test_unlabelled_images_have_no_validation_list(tmp_path):
    for index in range(4):
        Image.new("RGB", (8, 8)).save(tmp_path / f"{index}.png")
    assert image_folder(tmp_path).validation_files is None
