"""Does what docs/howto/factorise-layers.md says, with the code that stands there."""

import contextlib
import io
import re
from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs" / "howto" / "factorise-layers.md"


def test_the_page_prints_what_it_says():
    blocks = re.findall(r"```(\w*)\n(.*?)```", PAGE.read_text(), re.DOTALL)
    blocks = [block for block in blocks if block[0] != "sh"]  # commands need files
    names: dict = {}
    for (language, code), (_, said) in zip(blocks[::2], blocks[1::2], strict=True):
        assert language == "python"
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            exec(code, names)
        assert printed.getvalue() == said
