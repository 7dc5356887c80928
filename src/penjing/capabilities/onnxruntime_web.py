"""What ONNX Runtime can do in WebAssembly. Its profiles show which ops it executes in integers (version 1.30).

They are those of the CPU's provider, whose tables stand in `onnxruntime.py`; but integers gain less. Against floating point, one
thread, a 3x3 convolution of 64 to 128 channels is 2.5 times as fast, one of 16 channels 1.6 times, and a 1x1 convolution of 128
channels 2 times; depthwise convolutions and linear layers with one sample take 3 times as long. In floating point, latency
follows MACs whatever the number of channels; in integers, multiples of 8 are the fastest.

The kernels for WebGPU compute in floating point.
"""

from dataclasses import replace

from penjing.capabilities.onnxruntime import ONNXRUNTIME
from penjing.capabilities.onnxruntime_providers import in_float

ONNXRUNTIME_WEB = replace(ONNXRUNTIME, name="onnxruntime-web", channel_multiples=(8,))
IN_CHROMIUM = replace(ONNXRUNTIME_WEB, name="onnxruntime-web:chromium")
WEBGPU = replace(in_float("onnxruntime-web:webgpu"), channel_multiples=(8, 4))  # its kernels work on vectors of 4
