"""An SSD detector: a backbone, heads on several scales, and post-processing that depends on the data."""

import torch
import torch.nn.functional as F
from torch import nn


def block(inputs, outputs, stride=1):
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU6(inplace=True)
    )


class Backbone(nn.Module):
    """Features at 1/4, 1/8 and 1/16 of the image's size."""

    def __init__(self, width):
        super().__init__()
        self.stem = nn.Sequential(block(3, width, 2), block(width, 2 * width, 2))
        self.residual = nn.Sequential(block(2 * width, 2 * width), block(2 * width, 2 * width))
        self.down = nn.ModuleList([block(2 * width, 3 * width, 2), block(3 * width, 4 * width, 2)])

    def forward(self, x):
        x = self.stem(x)
        features = [x + self.residual(x)]
        for layer in self.down:
            features.append(layer(features[-1]))
        return features


class Head(nn.Module):
    """One convolution for each scale; all scales' predictions after one another, (batch, boxes, columns)."""

    def __init__(self, widths, anchors, columns):
        super().__init__()
        self.columns = columns
        self.layers = nn.ModuleList(
            nn.Sequential(block(width, width), nn.Conv2d(width, anchors * columns, 3, padding=1)) for width in widths
        )

    def forward(self, features):
        found = []
        for layer, x in zip(self.layers, features, strict=True):
            y = layer(x)
            b, _, h, w = y.shape
            y = y.view(b, -1, self.columns, h, w).permute(0, 3, 4, 1, 2)
            found.append(y.reshape(b, -1, self.columns))
        return torch.cat(found, 1)


class Predictor(nn.Module):
    """The part whose shapes don't depend on what is seen: from images to raw boxes and scores."""

    def __init__(self, width, classes, anchors):
        super().__init__()
        widths = (2 * width, 3 * width, 4 * width)
        self.backbone = Backbone(width)
        self.boxes, self.scores = Head(widths, anchors, 4), Head(widths, anchors, classes)

    def forward(self, image):
        features = self.backbone(image)
        return {"boxes": self.boxes(features), "scores": self.scores(features)}


class SSD(nn.Module):
    """Images to detections: for each image a dict of boxes (x1, y1, x2, y2), scores and labels of what was found."""

    def __init__(self, width=12, classes=4, anchors=3):
        super().__init__()
        self.anchors = anchors
        self.predictor = Predictor(width, classes, anchors)

    def forward(self, image):
        raw = self.predictor(image)
        boxes = self.decoded(raw["boxes"], image.shape[2:])
        return [self.detections(*one) for one in zip(boxes, raw["scores"].softmax(-1), strict=True)]

    def decoded(self, raw, size):
        """Adds the anchors' places and sizes, in pixels."""
        centres, extents = [], []
        h, w = ((n + 3) // 4 for n in size)
        for scale in (4, 8, 16):
            y, x = torch.meshgrid(torch.arange(h) + 0.5, torch.arange(w) + 0.5, indexing="ij")
            place = torch.stack([x, y], -1).reshape(-1, 1, 2).expand(-1, self.anchors, 2) * scale
            centres.append(place.reshape(-1, 2))
            sizes = scale * torch.tensor([1.0, 2.0, 3.0])[: self.anchors]
            extents.append(sizes[None, :, None].expand(len(centres[-1]) // self.anchors, -1, 2).reshape(-1, 2))
            h, w = (h + 1) // 2, (w + 1) // 2
        centre, extent = torch.cat(centres).to(raw), torch.cat(extents).to(raw)
        centre = centre + 0.1 * raw[..., :2] * extent
        half = extent * (0.2 * raw[..., 2:]).exp() / 2
        return torch.cat([centre - half, centre + half], -1)

    def detections(self, boxes, scores, least=0.3, overlap=0.5):
        """Greedy suppression of what overlaps with something better: as many turns as the data asks for."""
        best, labels = scores[:, 1:].max(-1)
        order = [i for i in best.argsort(descending=True).tolist() if best[i] > least]
        kept: list[int] = []
        for i in order:
            if all(labels[i] != labels[j] or iou(boxes[i], boxes[j]) <= overlap for j in kept):
                kept.append(i)
        return {"boxes": boxes[kept], "scores": best[kept], "labels": labels[kept] + 1}


def iou(a, b):
    """Intersection over union of two boxes."""
    sides = (torch.minimum(a[2:], b[2:]) - torch.maximum(a[:2], b[:2])).clamp(min=0)
    areas = [F.relu(box[2:] - box[:2]).prod() for box in (a, b)]
    return sides.prod() / (areas[0] + areas[1] - sides.prod())
