"""What a label run is asked to do."""

from __future__ import annotations

from pydantic import Field

from rayseg.outputs.spec import OutputSpec


class LabelSpec(OutputSpec):
    """One label run: an output, and what changes how fast it comes, never what it holds; a resumed run may differ in that."""

    address: str | None = Field(None, description="Ray cluster; none: $RAY_ADDRESS, else this machine")
    workers: int | None = Field(
        None, ge=1, description="most model workers at once; none: as many as the cluster holds"
    )
    gpus_per_worker: float | None = Field(None, ge=0, description="none: 1 where the cluster has GPUs, else 0")
    worker_resources: dict[str, float] = Field(
        {}, description="Ray's custom resources that a model worker takes: it runs on nodes that offer them"
    )
    read_resources: dict[str, float] = Field({}, description="the same for a task that reads and decodes")
    flush_s: float = Field(20.0, gt=0, description="no labelled image waits longer than this to be stored")
    part_bytes: int = Field(64 << 20, ge=1, description="a part is written once this much is waiting")
