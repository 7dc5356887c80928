"""Other devices as places where models are measured: over ssh, over adb, or by a folder that is carried there.

Each way to reach a device is one file, a `Connection`.
"""

from penjing.targets.devices._kit import KitResult, import_kit, write_kit
from penjing.targets.devices._target import on_device

__all__ = ["KitResult", "import_kit", "on_device", "write_kit"]
