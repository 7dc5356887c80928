"""PyTorch alone: a `.pt2` file (`torch.export.save`), for servers, for further training, and for other tools that read one.

Reading a `.pt2` file can run code, since parts of it are pickles. So such files are opened only when this target is asked for
by name, and you should open only your own.
"""

from functools import partial
from pathlib import Path

from penjing.targets._fresh_memory import fresh_memory
from penjing.targets._registry import Target, targets


@targets.register(source="https://docs.pytorch.org/docs/stable/export.html", packages=("torch",))
def torch() -> Target:
    """PyTorch alone, op by op, from a .pt2 file; read only files of your own, as they can run code."""
    import torch as pytorch

    from penjing.targets.torch._lower import describe, lower
    from penjing.targets.torch._profile import profile
    from penjing.targets.torch._session import EagerSession

    return Target(
        name="torch",
        version=pytorch.__version__,
        device="cpu",
        suffixes=(".pt2",),
        lower=lower,
        open=describe,
        session=EagerSession,
        profile=profile,
        memory=partial(fresh_memory, Path(__file__).with_name("_on_device.py")),
        runner="torch/runner.py.j2",
    )
