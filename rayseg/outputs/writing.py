"""Rows to a part in storage: one atomic put, whose name follows from its epoch and its ordinals."""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa

from rayseg import storage
from rayseg.formats.parts import PartFooter, parse_footer, part_bytes
from rayseg.outputs.ledger import part_name


@dataclass(frozen=True)
class WriteJob:
    """Where parts go and what their footers say."""

    out: str
    epoch: int
    metadata: dict[str, str]


@dataclass(frozen=True)
class Written:
    """One part that is in storage, and the seconds its images took by stage."""

    part: PartFooter
    seconds: dict[str, float]


def put_part(job: WriteJob, rows: pa.Table) -> PartFooter:
    """Put `rows` of the data schema as one part of `job.epoch`."""
    rows = rows.sort_by("ordinal")
    ordinals = rows["ordinal"].to_numpy()
    name = part_name(job.epoch, ordinals)
    data = part_bytes(rows, ordinals=ordinals, metadata=job.metadata)
    uri = storage.join(job.out, "data", name)
    storage.write(uri, data)
    return parse_footer(uri, data)
