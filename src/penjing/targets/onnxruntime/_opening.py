"""Opens a file with one of ONNX Runtime's providers.

Only the runtime is imported, since the process that measures memory runs this text too.
"""

import contextlib
import importlib
import importlib.util

import onnxruntime as ort

ASSIGNMENT = "session.record_ep_graph_assignment_info"  # makes a session tell which provider takes which nodes
CPU = "CPUExecutionProvider"


class NotTaken(Exception):
    """The session would run the whole model elsewhere than asked."""


def plug_in(module: str, provider: str) -> None:
    """Registers a provider that a package of its own brings, unless it is there already or the package isn't installed."""
    if provider not in ort.get_available_providers() and importlib.util.find_spec(module) is not None:
        ort.register_execution_provider_library(provider, importlib.import_module(module).get_library_path())


def opened(
    path: str, chosen: ort.SessionOptions, provider: str, plugin: str = "", backend: str = "", preload: bool = False
) -> ort.InferenceSession:
    """Returns a session of which the provider runs at least one node.

    Args:
        path: the file.
        chosen: the session's options.
        provider: ONNX Runtime's name of the provider.
        plugin: the module that brings the provider, where it isn't built into the runtime.
        backend: the function of that module that tells the path of the library to which the provider hands over.
        preload: whether the provider's libraries may lie in packages of their own, where the runtime has to look for them.

    Raises:
        NotTaken: the session came without the provider, or the provider takes no node.
    """
    chosen.add_session_config_entry(ASSIGNMENT, "1")
    if preload:
        with contextlib.redirect_stdout(None):  # it prints which libraries are missing
            ort.preload_dlls()
    if plugin:
        session = _plugged(path, chosen, provider, plugin, backend)
    else:
        session = ort.InferenceSession(path, chosen, providers=[provider])
    if provider not in session.get_providers():
        raise NotTaken(f"the session came without {provider}, whose driver or libraries couldn't be loaded")
    taking = {one.ep_name for one in session.get_provider_graph_assignment_info()}
    if provider != CPU and not taking:  # every session runs on the CPU what nothing else takes
        raise NotTaken(f"the session doesn't tell which of the model's ops {provider} takes")
    if taking and provider not in taking:
        raise NotTaken(f"{provider} takes none of the model's ops")
    return session


def _plugged(path: str, chosen: ort.SessionOptions, provider: str, plugin: str, backend: str) -> ort.InferenceSession:
    plug_in(plugin, provider)
    devices = [one for one in ort.get_ep_devices() if one.ep_name == provider]
    if not devices:
        raise NotTaken(f"{provider} finds no device on this machine")
    settings = {"backend_path": getattr(importlib.import_module(plugin), backend)()} if backend else {}
    chosen.add_provider_for_devices(devices[:1], settings)
    return ort.InferenceSession(path, chosen)
