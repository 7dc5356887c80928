"""Small networks, each with one thing that placement must get right; inputs are (N, 8, 8, 8) unless it says otherwise."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(8, 8, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(8)
        self.conv2 = nn.Conv2d(8, 8, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(8)
        self.head = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu(self.bn1(self.conv1(x)))
        out = F.relu(self.bn2(self.conv2(out)) + x)
        return self.head(F.adaptive_avg_pool2d(out, 1).flatten(1))


class OptionA(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(8, 16, 3, stride=2, padding=1)
        self.conv2 = nn.Conv2d(16, 4, 3)

    def forward(self, x: Tensor) -> Tensor:
        shortcut = F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 4, 4))
        return self.conv2(F.relu(self.conv1(x) + shortcut))


class SqueezeExcite(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(8, 8, 1)
        self.reduce = nn.Conv2d(8, 4, 1)
        nn.init.constant_(self.reduce.bias, 0.5)  # or the ReLU lets nothing through
        self.expand = nn.Conv2d(4, 8, 1)
        self.head = nn.Conv2d(8, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = F.hardswish(self.conv(x))
        gate = torch.sigmoid(self.expand(F.relu(self.reduce(x.mean((2, 3), keepdim=True)))))
        return self.head(x * gate)


class Shuffle(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(4, 4, 1)
        self.head = nn.Conv2d(8, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        passed, filtered = x.chunk(2, 1)
        x = torch.cat([passed, F.relu(self.conv(filtered))], 1)
        n, c, h, w = x.shape
        x = x.reshape(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w)
        return self.head(x)


class Fire(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(8, 4, 1)
        self.expand1 = nn.Conv2d(4, 8, 1)
        self.expand3 = nn.Conv2d(4, 8, 3, padding=1)
        self.head = nn.Conv2d(16, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.squeeze(x))
        x = torch.cat([F.relu(self.expand1(x)), F.relu(self.expand3(x))], 1)
        return self.head(F.max_pool2d(x, 2))


class Depthwise(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.widen = nn.Conv2d(8, 16, 1)
        self.filter = nn.Conv2d(16, 16, 3, padding=1, groups=16)
        self.narrow = nn.Conv2d(16, 8, 1)
        self.head = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu6(self.widen(x))
        y = F.hardtanh(self.filter(y), -1.0, 1.0)
        return self.head((self.narrow(y) + x).mean((-1, -2)))


class Gated(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(8, 8, 3)
        self.conv2 = nn.Conv2d(8, 8, 3)
        self.conv3 = nn.Conv2d(8, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv3(F.gelu(self.conv2(F.silu(self.conv1(x)))))


class PoolFirst(nn.Module):
    """The activation stands behind the pool, as in the first networks."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(8, 8, 3, padding=1)
        self.conv2 = nn.Conv2d(8, 4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return F.log_softmax(self.conv2(F.relu(F.max_pool2d(self.conv1(x), 2))).flatten(1), 1)


class Upsampled(nn.Module):
    """Transposed convolution and a bilinear upsampling, which stay in floating point."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(8, 8, 3, padding=1)
        self.up = nn.ConvTranspose2d(8, 8, 2, stride=2)
        self.conv2 = nn.Conv2d(16, 4, 3)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.conv1(x))
        y = torch.cat([self.up(y), F.interpolate(y, scale_factor=2, mode="bilinear")], 1)
        return self.conv2(y)


class Tokens(nn.Module):
    """Linear layers on (N, positions, features), a constant that is added, and products of activations."""

    def __init__(self) -> None:
        super().__init__()
        self.position = nn.Parameter(torch.randn(1, 8, 1, 16) * 0.1)
        self.up = nn.Linear(8, 16)
        self.down = nn.Linear(16, 8)
        self.head = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.up(x)) + self.position
        x = self.down(x)
        return F.log_softmax(self.head((x @ x.transpose(-1, -2)).flatten(1, 2).mean(1)), -1)


class Shared(nn.Module):
    """One convolution used twice."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(8, 8, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.relu(self.conv(x)))


NETWORKS = [Residual, OptionA, SqueezeExcite, Shuffle, Fire, Depthwise, Gated, PoolFirst, Upsampled, Tokens, Shared]
