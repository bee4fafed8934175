"""`python -m tests.experiments`: its budget."""

import pytest

from r1lab.errors import InputError
from tests.experiments.__main__ import budget_seconds


@pytest.mark.parametrize("text, seconds", [("90s", 90), ("30m", 1800), ("1.5h", 5400)])
def test_a_budget_is_read(text, seconds):
    assert budget_seconds(text) == seconds


@pytest.mark.parametrize("text", ["30", "m", "-3m", "3 days"])
def test_a_budget_that_is_none_is_refused(text):
    with pytest.raises(InputError, match="30m"):
        budget_seconds(text)
