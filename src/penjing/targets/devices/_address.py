"""Addresses of runtimes on devices: `ssh://user@host:port/onnxruntime`, `adb://serial/litert`."""

import re
from dataclasses import dataclass
from urllib.parse import parse_qsl, unquote, urlsplit

from penjing.errors import PenjingError, unknown_name

SCHEMES = ("ssh", "adb")
PYTHON = "python3"
# What a host, a user or a serial number may be made of. None begins with "-", which ssh and adb would take for an option.
_HOST, _USER = re.compile(r"[A-Za-z0-9_\[:][A-Za-z0-9._:\[\]%-]*"), re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*")
FORM = (
    "ssh://user@host/onnxruntime or adb://serial/litert, with ?python=/path/of/python3 behind it where that is needed"
)


@dataclass(frozen=True)
class Address:
    """Where a runtime is.

    Attributes:
        scheme: how the device is reached: "ssh" or "adb".
        host: its name, or its serial number; "" for the only one that adb knows.
        runtime: name of the target whose runtime it has.
        user: for ssh; None for the one that ssh would take.
        port: for ssh; None for the one that ssh would take.
        python: the interpreter there.
    """

    scheme: str
    host: str
    runtime: str
    user: str | None = None
    port: int | None = None
    python: str = PYTHON

    @property
    def device(self) -> str:
        """The address without the runtime and the interpreter."""
        user = "" if self.user is None else f"{self.user}@"
        port = "" if self.port is None else f":{self.port}"
        return f"{self.scheme}://{user}{self.host}{port}"

    @classmethod
    def parse(cls, text: str) -> "Address":
        """Reads an address.

        Raises:
            PenjingError: it has another form.
        """
        try:
            parts = urlsplit(text)
            port = parts.port
            options = dict(parse_qsl(parts.query, strict_parsing=bool(parts.query)))
        except ValueError as error:
            raise PenjingError(f"'{text}' is no address of a device ({error}): write {FORM}.") from error
        if parts.scheme not in SCHEMES:
            raise unknown_name("kind of device", parts.scheme, SCHEMES)
        login, _, host = parts.netloc.rpartition("@")
        host = host if port is None else host.rpartition(":")[0]
        user, runtime, python = unquote(login) or None, parts.path.strip("/"), options.pop("python", PYTHON)
        wrong = (
            "it names no runtime" if not runtime
            else f"'{next(iter(options))}' is no option of an address" if options
            else "adb has neither users nor ports" if parts.scheme == "adb" and (user or port)
            else f"'{host}' can't be a host" if not (_HOST.fullmatch(host) or (parts.scheme == "adb" and not host))
            else f"'{user}' can't be a user" if user is not None and not _USER.fullmatch(user)
            else f"'{python}' can't be an interpreter" if not python or python.startswith("-") or not python.isprintable()
            else None
        )  # fmt: skip
        if wrong:
            raise PenjingError(f"'{text}' is no address of a device: {wrong}. Write {FORM}.")
        return cls(parts.scheme, host.strip("[]"), runtime, user, port, python)
