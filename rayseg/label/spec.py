"""What a label run is asked to do."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from rayseg.specs import Spec

# Fields that change how fast a run goes, never what it writes; a resumed run may differ in them.
RUNTIME_FIELDS = frozenset({"address", "workers", "gpus_per_worker", "flush_s", "part_bytes"})


class LabelSpec(Spec):
    """One label run: images and a model in, Parquet out."""

    images: str = Field(description="prefix, glob, list (.txt .csv .parquet) or COCO .json of the images")
    model: str = Field(description="checkpoint folder or URI, preset name, or torchvision .pth")
    out: str = Field(description="output folder: local path, file:// or s3://")
    column: str | None = Field(None, description="column of a CSV or Parquet list that holds the URIs")
    images_root: str | None = Field(None, description="folder that relative names of a list or COCO JSON start from")
    limit: int | None = Field(None, ge=1, description="label only the first N images")
    score_threshold: float | None = Field(None, ge=0, le=1, description="instances below it are not written")
    iou_threshold: float | None = Field(None, gt=0, le=1, description="NMS removes boxes of a class that overlap more")
    max_detections: int | None = Field(None, ge=1, description="best instances kept per image")
    max_pixels: int = Field(100_000_000, ge=1, description="larger images become error rows")
    max_bytes: int = Field(256 << 20, ge=1, description="larger files become error rows")
    address: str | None = Field(None, description="Ray cluster; none: $RAY_ADDRESS, else this machine")
    workers: int | None = Field(
        None, ge=1, description="most model workers at once; none: as many as the cluster holds"
    )
    gpus_per_worker: float | None = Field(None, ge=0, description="none: 1 where the cluster has GPUs, else 0")
    flush_s: float = Field(20.0, gt=0, description="no labelled image waits longer than this to be stored")
    part_bytes: int = Field(64 << 20, ge=1, description="a part is written once this much is waiting")

    def result_fields(self) -> dict[str, Any]:
        """The fields that decide what is written: a resumed run must agree in them."""
        return self.model_dump(exclude=set(RUNTIME_FIELDS))
