"""Addresses of devices: what they may hold, and that nothing in them reaches a shell or becomes an option."""

import pytest

from penjing import capabilities
from penjing.errors import PenjingError
from penjing.targets import find_target
from penjing.targets.devices._address import Address


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("ssh://pi@raspberry.local/onnxruntime", Address("ssh", "raspberry.local", "onnxruntime", "pi")),
        ("ssh://board:2222/openvino", Address("ssh", "board", "openvino", None, 2222)),
        ("ssh://me@[fe80::1%25eth0]:22/litert", Address("ssh", "fe80::1%25eth0", "litert", "me", 22)),
        ("adb:///litert", Address("adb", "", "litert")),
        ("adb://emulator-5554/litert?python=/py", Address("adb", "emulator-5554", "litert", python="/py")),
    ],
)
def test_an_address_is_read(text, wanted):
    assert Address.parse(text) == wanted


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("ssh://host", "it names no runtime"),
        ("shh://host/onnxruntime", "Did you mean 'ssh'"),
        ("ssh://-oProxyCommand=x/onnxruntime", "'-oProxyCommand=x' can't be a host"),
        ("ssh://-l@host/onnxruntime", "'-l' can't be a user"),
        ("ssh://a;b@host/onnxruntime", "'a;b' can't be a user"),
        ("ssh://host;reboot/onnxruntime", "'host;reboot' can't be a host"),
        ("ssh://host:port/onnxruntime", "is no address of a device"),
        ("ssh://host/onnxruntime?phyton=x", "'phyton' is no option"),
        ("ssh://host/onnxruntime?python=-c", "'-c' can't be an interpreter"),
        ("adb://me@serial/litert", "adb has neither users nor ports"),
    ],
)
def test_what_is_no_address_is_refused_with_the_reason(text, message):
    with pytest.raises(PenjingError, match=message):
        Address.parse(text)


def test_the_device_is_the_address_without_the_runtime():
    assert Address.parse("ssh://me@host:22/onnxruntime?python=/p").device == "ssh://me@host:22"


def test_an_unknown_runtime_on_a_device_is_refused_with_the_nearest_name():
    with pytest.raises(PenjingError, match="Did you mean 'onnxruntime'"):
        find_target("ssh://host/onxruntime")


def test_pytorch_files_are_not_measured_elsewhere():
    with pytest.raises(PenjingError, match=r"can't be measured on other devices; those for .*onnxruntime"):
        find_target("ssh://host/torch")


def test_a_device_can_do_what_its_runtime_can():
    assert capabilities.find("ssh://host/openvino?python=/p") is capabilities.find("openvino")
