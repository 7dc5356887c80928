"""Reference networks as plain `nn.Module`s, untrained, under the names of the literature."""

from penjing.zoo._lenet import lenet5, lenet300
from penjing.zoo._mobilenet_v2 import mobilenet_v2, mobilenet_v2_cifar
from penjing.zoo._registry import build, example_input, networks
from penjing.zoo._resnet import resnet20, resnet32, resnet44, resnet56
from penjing.zoo._shufflenet_v2 import shufflenet_v2, shufflenet_v2_cifar
from penjing.zoo._squeezenet import squeezenet, squeezenet_cifar
from penjing.zoo._vgg import vgg16_cifar

__all__ = [
    "build",
    "example_input",
    "lenet5",
    "lenet300",
    "mobilenet_v2",
    "mobilenet_v2_cifar",
    "networks",
    "resnet20",
    "resnet32",
    "resnet44",
    "resnet56",
    "shufflenet_v2",
    "shufflenet_v2_cifar",
    "squeezenet",
    "squeezenet_cifar",
    "vgg16_cifar",
]
