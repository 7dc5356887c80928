"""Translated pages keep step with the English ones: the same headings by level, code, options and links."""

import re
from pathlib import Path

import pytest

HOME = Path(__file__).parents[2]
PAGES = {"README.zh-CN.md": "README.md"} | {
    f"docs/zh-CN/{path.name}": f"docs/howto/{path.name}" for path in sorted((HOME / "docs" / "zh-CN").glob("*.md"))
}


def parts(text: str) -> tuple[list[int], list[str], str]:
    """Returns the headings' levels, the blocks of code, and the rest."""
    pattern = re.compile(r"^```.*?^```", re.DOTALL | re.MULTILINE)
    rest = pattern.sub("", text)
    return [len(one) for one in re.findall(r"^(#+) ", rest, re.MULTILINE)], pattern.findall(text), rest


@pytest.mark.parametrize(("translated", "english"), PAGES.items())
def test_a_translation_has_the_headings_and_the_code_of_the_original(translated, english):
    levels, blocks, _ = parts((HOME / english).read_text())
    assert parts((HOME / translated).read_text())[:2] == (levels, blocks)


@pytest.mark.parametrize(("translated", "english"), PAGES.items())
def test_a_translation_names_no_command_that_the_original_lacks_and_all_of_its_own(translated, english):
    def commands(text):
        found = re.findall(r"`(penjing [^`]*|--[a-z][^`]*|make [^`]*)`", text)
        return {" ".join(one.split()) for one in found}

    original, other = ((HOME / name).read_text() for name in (english, translated))
    assert commands(parts(other)[2]) <= commands(parts(original)[2])
    head = parts(original)[2].partition("## What is supported")[0]
    assert commands(head) <= commands(parts(other)[2])


@pytest.mark.parametrize("translated", PAGES)
def test_links_of_a_translation_lead_somewhere(translated):
    links = re.findall(r"\]\(([^)#]+)[^)]*\)", (HOME / translated).read_text())
    assert links and all(((HOME / translated).parent / link).exists() for link in links if "://" not in link)
