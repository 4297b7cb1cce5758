"""What decides an output's rows, whoever writes them."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from rayseg.errors import UsageError
from rayseg.specs import Spec


class OutputSpec(Spec):
    """Images and a model in, Parquet out: two drivers that agree in these fields write the same rows."""

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

    def result_fields(self) -> dict[str, Any]:
        """The fields that decide what is written: a resumed run must agree in them."""
        return self.model_dump(include=set(OutputSpec.model_fields))

    def check_apart(self) -> None:
        """Raise `UsageError` where the output lies among the images."""
        if (self.out.rstrip("/") + "/").startswith(self.images.rstrip("/") + "/"):
            raise UsageError(
                f"out: {self.out} lies inside images ({self.images}); its own files would be listed as images"
            )
