"""How the ordinals that have no row are divided into read tasks."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rayseg.formats.ordinals import OrdinalBitmap
from rayseg.label import pipeline


@pytest.fixture(scope="module", autouse=True)
def few_chunks():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pipeline, "MOST_CHUNKS", 40)
        patch.setattr(pipeline, "MOST_TASKS", 30)
        yield


@given(st.integers(1, 700), st.integers(1, 9), st.integers(1, 3), st.integers(0, 100), st.randoms())
def test_each_missing_ordinal_is_read_once_in_order_and_no_more_than_one_execution_takes(
    total, rows_per_chunk, workers, percent_done, random
):
    done = OrdinalBitmap(total)
    there = np.array(sorted(random.sample(range(total), total * percent_done // 100)), np.int64)
    done.add(there)
    missing = np.setdiff1d(np.arange(total), there)
    tasks = list(pipeline.task_batches(done, rows_per_chunk, workers))
    taken = [ordinal for task in tasks for start, stop in task for ordinal in range(start, stop)]
    assert taken == missing[: 40 * rows_per_chunk].tolist()
    sizes = [sum(stop - start for start, stop in task) for task in tasks]
    assert all(size % rows_per_chunk == 0 for size in sizes[:-1])
    assert len(tasks) <= 30
