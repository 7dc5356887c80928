"""Which ops become XNNPACK's: ExecuTorch's own rules, and integer kernels that these leave unused."""

from typing import Any

from executorch.backends.xnnpack.partition.config import ALL_PARTITIONER_CONFIGS
from executorch.backends.xnnpack.partition.config.generic_node_configs import ConstantPadConfig
from executorch.backends.xnnpack.partition.config.xnnpack_config import ConfigPrecisionType
from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner


class IntegerPadConfig(ConstantPadConfig):
    """A pad between a dequantise and a quantise node: XNNPACK pads integers too."""

    def supported_precision_types(self) -> list[ConfigPrecisionType]:
        """Returns the numbers that the kernel takes."""
        return [ConfigPrecisionType.FP32, ConfigPrecisionType.STATIC_QUANT]


_OURS = {ConstantPadConfig: IntegerPadConfig}


def partitioner() -> Any:
    """Returns what tells ExecuTorch which ops to give to XNNPACK."""
    return XnnpackPartitioner(configs=[_OURS.get(config, config) for config in ALL_PARTITIONER_CONFIGS])
