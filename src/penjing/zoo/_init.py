"""Initial weights of the reference networks."""

from torch import nn


def initialise(model: nn.Module) -> None:
    """Draws the weights: He et al. 2015 for convolutions, N(0, 0.01) for classifiers, ones and zeros for norms.

    In grouped convolutions only the connections that exist count for the variance.
    """
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            fan_out = module.weight[0, 0].numel() * module.out_channels / module.groups
            nn.init.normal_(module.weight, 0.0, (2 / fan_out) ** 0.5)
        elif isinstance(module, nn.BatchNorm2d):
            nn.init.ones_(module.weight)
        elif isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, 0.0, 0.01)
        else:
            continue
        if module.bias is not None:
            nn.init.zeros_(module.bias)
