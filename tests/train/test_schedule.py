"""Budgets and learning rates."""

import itertools
import math

import pytest

from rayseg.errors import UsageError
from rayseg.train.schedule import Budget, warmup_cosine


def test_whichever_is_spent_first_ends_it():
    assert Budget(steps=10).progress(5, 1e9) == 0.5
    assert Budget(seconds=8).progress(10**9, 2) == 0.25
    assert Budget(steps=10, seconds=8).progress(1, 6) == 0.75


@pytest.mark.parametrize("wrong", [{}, {"steps": 0}, {"seconds": -1.0}, {"seconds": math.nan}])
def test_budgets_that_end_before_they_begin_are_refused(wrong):
    with pytest.raises(UsageError):
        Budget(**wrong)


def test_the_rate_rises_then_falls_to_nothing():
    rates = [warmup_cosine(step, step / 100, 10) for step in range(101)]
    assert all(a < b for a, b in itertools.pairwise(rates[:10]))
    assert all(a > b for a, b in itertools.pairwise(rates[12:]))
    assert max(rates) <= 1 and rates[100] == pytest.approx(0, abs=1e-12)
    assert warmup_cosine(1000, 0.5, 10) == pytest.approx(0.5)
