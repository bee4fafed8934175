"""`python -m tests.experiments`: its budget, and the table's place in the README."""

import pytest

from r1lab.errors import InputError
from tests.experiments.__main__ import BEGIN, END, budget_seconds, update_readme


def test_the_table_goes_between_the_markers(tmp_path):
    readme = tmp_path / "README.md"
    readme.write_text(f"# r1lab\n{BEGIN}\nold\n{END}\nmore\n")
    update_readme(readme, "| new |")
    assert readme.read_text() == f"# r1lab\n{BEGIN}\n| new |\n{END}\nmore\n"
    readme.write_text("# r1lab\n")
    with pytest.raises(InputError, match="claims:begin"):
        update_readme(readme, "| new |")


@pytest.mark.parametrize("text, seconds", [("90s", 90), ("30m", 1800), ("1.5h", 5400)])
def test_a_budget_is_read(text, seconds):
    assert budget_seconds(text) == seconds


@pytest.mark.parametrize("text", ["30", "m", "-3m", "3 days"])
def test_a_budget_that_is_none_is_refused(text):
    with pytest.raises(InputError, match="30m"):
        budget_seconds(text)
