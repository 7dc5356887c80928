"""The rule for names of classes: a file must be able to list them, one per line."""

import re

# Control characters, other characters at which Python splits lines, and halves of surrogate pairs, which stand for bytes of a
# file's name that aren't UTF-8.
_UNWRITABLE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


def is_one_line(name: str) -> bool:
    """Tells whether a name can be written as one line of UTF-8 and read back."""
    return bool(name) and _UNWRITABLE.search(name) is None
