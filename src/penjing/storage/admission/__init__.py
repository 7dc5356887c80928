"""What may stand in a `.penjing` file, so that one from a stranger does no harm: which ops, which arguments, how much of it.

    _ops         the positive list of ops
    _limits      what integers and strings an argument may be
    _arguments   checks each call against its op's schema, before anything is computed
    _trust       what single kernels take on trust
    _work        what single ops compute, and need beside their outputs
    _values      watches shapes while they are propagated: bytes and multiplications are bounded
    _sizes       symbolic sizes as numbers

An honest file is checked as well: `save` refuses what `load` would.
"""

from penjing.storage.admission._arguments import DTYPES, OPERATORS, Calls, check_admitted, operator_name
from penjing.storage.admission._limits import nodes_for
from penjing.storage.admission._ops import ADMITTED, REFUSED, name_of
from penjing.storage.admission._values import LARGEST_DEFAULT, LARGEST_RATIO, Values, largest_for

__all__ = [
    "ADMITTED",
    "DTYPES",
    "LARGEST_DEFAULT",
    "LARGEST_RATIO",
    "OPERATORS",
    "REFUSED",
    "Calls",
    "Values",
    "check_admitted",
    "largest_for",
    "name_of",
    "nodes_for",
    "operator_name",
]
