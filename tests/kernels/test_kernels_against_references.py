"""Every kernel against its slow reference on seeded random cases; `tests/bench/kernels.py --check N` runs more."""

from __future__ import annotations

import os

import pytest
from kernels.kernel_references import CHECKS

COUNTS = {"paste": 500, "nms": 12000, "encode": 400, "resize": 150, "polygons": 150, "refinement": 120, "id_map": 400}


@pytest.mark.parametrize("name", sorted(CHECKS))
def test_agrees_with_reference(name: str) -> None:
    count = int(os.environ.get("RAYSEG_KERNEL_CASES", str(COUNTS.get(name, 200))))
    seed = int(os.environ.get("RAYSEG_KERNEL_SEED", "0"))
    assert CHECKS[name](count, seed) >= count
