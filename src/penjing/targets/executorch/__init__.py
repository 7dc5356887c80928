"""ExecuTorch on the CPU (https://docs.pytorch.org/executorch): one `.pte` file, whose kernels are XNNPACK's.

A file has fixed sizes: it is written for one sample unless the graph fixes another batch.
"""

from functools import partial
from pathlib import Path

from penjing.targets._fresh_memory import fresh_memory
from penjing.targets._registry import Target, targets

ON_DEVICE = Path(__file__).with_name("_on_device.py")


@targets.register(source="https://docs.pytorch.org/executorch", packages=("executorch",))
def executorch() -> Target:
    """ExecuTorch on the CPU with XNNPACK's kernels, for apps on phones and small devices; a file takes one sample at a time."""
    from penjing.targets.executorch._open import describe
    from penjing.targets.executorch._profile import profile, rows
    from penjing.targets.executorch._runtime import VERSION
    from penjing.targets.executorch._session import XnnpackSession
    from penjing.targets.executorch._write import lower

    return Target(
        name="executorch",
        version=VERSION,
        device="cpu",
        suffixes=(".pte",),
        lower=lower,
        open=describe,
        session=XnnpackSession,
        profile=profile,
        memory=partial(fresh_memory, ON_DEVICE),
        on_device=ON_DEVICE,
        rows=rows,
        runner="executorch/runner.py.j2",
        fixed_sizes=True,
    )
