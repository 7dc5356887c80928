"""Small convolutional networks, each with one thing that is hard to prune."""

import torch
import torch.nn.functional as F
from torch import nn


def conv(inputs, outputs, size=3, **options):
    return nn.Conv2d(inputs, outputs, size, padding=size // 2, **options)


def block(inputs, outputs, size=3, **options):
    return nn.Sequential(conv(inputs, outputs, size, bias=False, **options), nn.BatchNorm2d(outputs), nn.ReLU())


class Head(nn.Module):
    def __init__(self, channels, classes=5):
        super().__init__()
        self.linear = nn.Linear(channels, classes)

    def forward(self, x):
        return self.linear(x.mean((2, 3)))


class OptionA(nn.Module):
    """A CIFAR ResNet's shortcut: a strided slice, then zero channels on both sides."""

    def __init__(self):
        super().__init__()
        self.stem = block(3, 4)
        self.a, self.b = block(4, 8, stride=2), nn.Sequential(conv(8, 8), nn.BatchNorm2d(8))
        self.c, self.d = block(8, 6), nn.Sequential(conv(6, 8), nn.BatchNorm2d(8))
        self.head = Head(8)

    def forward(self, x):
        x = self.stem(x)
        x = F.relu(self.b(self.a(x)) + F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 2, 2)))
        return self.head(F.relu(self.d(self.c(x)) + x))


class InvertedResidual(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem, self.expand = block(3, 4), block(4, 12, 1)
        self.depthwise, self.project = block(12, 12, groups=12), conv(12, 4, 1)
        self.head = Head(4)

    def forward(self, x):
        x = self.stem(x)
        return self.head(x + self.project(self.depthwise(self.expand(x))))


class ChannelShuffle(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem, self.branch, self.last = block(3, 8), block(4, 4), block(8, 6)
        self.head = Head(6)

    def forward(self, x):
        a, b = self.stem(x).chunk(2, 1)
        x = torch.cat([a, self.branch(b)], 1)
        n, c, h, w = x.shape
        x = x.view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w)
        return self.head(self.last(x))


class Dense(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem, self.one, self.two, self.norm = block(3, 4), conv(4, 3), conv(7, 3), nn.BatchNorm2d(10)
        self.last = conv(10, 6, 1)
        self.head = Head(6)

    def forward(self, x):
        x = self.stem(x)
        x = torch.cat([x, self.one(x)], 1)
        x = torch.cat([x, self.two(F.relu(x))], 1)
        return self.head(self.last(F.relu(self.norm(x))))


class SqueezeExcite(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem, self.down, self.up, self.last = block(3, 8), nn.Conv2d(8, 4, 1), nn.Conv2d(4, 8, 1), block(8, 6)
        self.head = Head(6)

    def forward(self, x):
        x = self.stem(x)
        gate = torch.sigmoid(self.up(F.relu(self.down(F.adaptive_avg_pool2d(x, 1)))))
        return self.head(self.last(x * gate))


class SqueezeExciteLinear(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem, self.down, self.up, self.last = block(3, 8), nn.Linear(8, 4), nn.Linear(4, 8), block(8, 6)
        self.head = Head(6)

    def forward(self, x):
        x = self.stem(x)
        gate = self.up(self.down(x.mean((2, 3))).relu()).sigmoid()
        return self.head(self.last(x * gate.view(gate.shape[0], 8, 1, 1)))


class Split(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem, self.a, self.b, self.last = block(3, 10), block(4, 5), block(6, 5), block(5, 4)
        self.head = Head(4)

    def forward(self, x):
        a, b = torch.split(self.stem(x), [4, 6], 1)
        return self.head(self.last(self.a(a) + self.b(b)))


class Slices(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem, self.a, self.last = block(3, 10), block(6, 6), block(10, 4)
        self.head = Head(4)

    def forward(self, x):
        x = self.stem(x)
        return self.head(self.last(torch.cat([self.a(x[:, 2:8]), x[:, :2], x[:, -2:]], 1)))


class UNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.one, self.two, self.up, self.three = block(3, 4), block(4, 8), nn.ConvTranspose2d(8, 4, 2, 2), block(8, 4)
        self.last = conv(4, 2, 1)

    def forward(self, x):
        one = self.one(x)
        two = self.two(F.max_pool2d(one, 2))
        return self.last(self.three(torch.cat([self.up(two), one], 1)))


class Upsampled(nn.Module):
    def __init__(self):
        super().__init__()
        self.one, self.two, self.shuffle, self.last = block(3, 4), block(4, 8), nn.PixelShuffle(2), conv(2, 2)

    def forward(self, x):
        x = F.interpolate(self.one(x), scale_factor=2, mode="nearest")
        return self.last(self.shuffle(self.two(x)))


class Gated(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem, self.gate, self.last = block(3, 4), conv(4, 8), block(4, 4)
        self.slopes = nn.PReLU(4)
        self.scale = nn.Parameter(torch.randn(4, 1, 1))
        self.head = Head(4)

    def forward(self, x):
        return self.head(self.last(self.slopes(F.glu(self.gate(self.stem(x)), 1)) * self.scale))


class Multiplied(nn.Module):
    """A depthwise convolution with two outputs per channel, transposed and one-dimensional ones."""

    def __init__(self):
        super().__init__()
        self.stem, self.wide = block(3, 4), block(4, 8, groups=4)
        self.flat, self.back = nn.Conv1d(8, 6, 3, padding=1), nn.ConvTranspose1d(6, 4, 3)
        self.linear = nn.Linear(4, 3)

    def forward(self, x):
        x = self.wide(self.stem(x)).flatten(2)
        return self.linear(self.back(self.flat(x).relu()).amax(2))


def networks():
    """Name -> (network, channels of the input, side of the input)."""
    return {
        "option A": OptionA(),
        "inverted residual": InvertedResidual(),
        "depthwise with multiplier": Multiplied(),
        "grouped": nn.Sequential(block(3, 8), block(8, 12, groups=4), block(12, 8, 1), Head(8)),
        "grouped transposed": nn.Sequential(block(3, 8), nn.ConvTranspose2d(8, 6, 3, groups=2), block(6, 4), Head(4)),
        "depthwise transposed": nn.Sequential(block(3, 4), nn.ConvTranspose2d(4, 4, 3, groups=4), block(4, 4), Head(4)),
        "dense": Dense(),
        "squeeze and excite": SqueezeExcite(),
        "squeeze and excite, linear": SqueezeExciteLinear(),
        "channel shuffle": ChannelShuffle(),
        "split": Split(),
        "slices": Slices(),
        "group norm of small groups": nn.Sequential(conv(3, 8), nn.GroupNorm(4, 8), nn.ReLU(), block(8, 4), Head(4)),
        "flatten": nn.Sequential(
            block(3, 4), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(64, 6), nn.ReLU(), nn.Linear(6, 5)
        ),
        "U-Net": UNet(),
        "pixel shuffle": Upsampled(),
        "gates": Gated(),
        "tied": Tied(),
    }


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem, self.one, self.two = block(3, 6), conv(6, 6), conv(6, 6)
        self.two.weight = self.one.weight
        self.head = Head(6)

    def forward(self, x):
        return self.head(self.two(self.one(self.stem(x)).relu()))


def randomised(model: nn.Module) -> nn.Module:
    """Gives norms statistics and scales that a trained network might have."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d | nn.GroupNorm | nn.LayerNorm):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias)
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
    return model.eval()
