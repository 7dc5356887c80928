"""A U-Net: two scales down, a transposed convolution and an interpolation up, with what was seen before joined in."""

import torch
import torch.nn.functional as F
from torch import nn


class Double(nn.Sequential):
    def __init__(self, inputs, outputs):
        layers = []
        for width in (inputs, outputs):
            layers += [
                nn.Conv2d(width, outputs, 3, padding=1, bias=False),
                nn.BatchNorm2d(outputs),
                nn.ReLU(inplace=True),
            ]
        super().__init__(*layers)


class UNet(nn.Module):
    """Images (batch, 3, H, W) of any size to class scores of each pixel; sizes that don't halve are padded as they come."""

    def __init__(self, classes=4, width=12):
        super().__init__()
        self.one, self.two, self.three = Double(3, width), Double(width, 2 * width), Double(2 * width, 4 * width)
        self.rise = nn.ConvTranspose2d(4 * width, 2 * width, 2, 2)
        self.four, self.five = Double(4 * width, 2 * width), Double(3 * width, width)
        self.head = nn.Conv2d(width, classes, 1)

    def forward(self, image):
        one = self.one(image)
        two = self.two(F.max_pool2d(one, 2))
        three = self.three(F.max_pool2d(two, 2))
        x = self.rise(three)
        x = F.pad(x, (0, two.shape[3] - x.shape[3], 0, two.shape[2] - x.shape[2]))
        x = self.four(torch.cat([x, two], 1))
        x = F.interpolate(x, size=one.shape[2:], mode="bilinear", align_corners=False)
        return self.head(self.five(torch.cat([x, one], 1)))
