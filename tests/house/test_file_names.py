"""No two files of tests have one name: pytest imports them as modules of that name, and refuses the second."""

from collections import Counter
from pathlib import Path

TESTS = Path(__file__).parents[1]


def test_every_file_of_tests_has_a_name_of_its_own():
    names = Counter(path.name for path in TESTS.rglob("test_*.py"))
    assert names and {name for name, count in names.items() if count > 1} == set()
