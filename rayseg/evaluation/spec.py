"""What an evaluation is asked to do."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from rayseg.specs import Spec


class EvalSpec(Spec):
    """One evaluation: ground truth and predictions in, numbers and a report out."""

    data: str = Field(description="the ground truth, in any format")
    data_format: str | None = Field(None, description="its format, where it is not clear from its files")
    images: str | None = Field(None, description="the folder of its images, where they are not at their usual place")
    split: str | None = Field(None, description="only the images of this split")
    predictions: str | None = Field(None, description="COCO results (.json) or the output folder of a label run")
    model: str | None = Field(None, description="a model to label the images with first, instead of predictions")
    out: str = Field(description="output folder: local path, file:// or s3://")

    max_dets: tuple[int, int, int] = Field(
        (1, 10, 100),
        description="best detections of each image and class that count, for the three ARs; last for the rest",
    )
    sizes: Literal["own", "loadres"] = Field(
        "own", description="a detection's size class: its own mask's or box's; as the COCO API's loadRes has it"
    )
    boundary: bool = Field(True, description="also measure by Boundary IoU")
    panoptic_score: float = Field(0.5, ge=0, le=1, description="least score of predictions for panoptic quality")
    score_threshold: float | None = Field(None, description="of the confusion matrix; none: where F1 is best")
    draws: int = Field(1000, ge=0, description="draws of images for the intervals; 0 for none")
    confidence: float = Field(0.95, gt=0, lt=1, description="of the intervals")
    seed: int = Field(0, ge=0, description="of the draws")
    on_error: Literal["raise", "skip"] = Field("raise", description="what to do about a broken truth or prediction")
    examples: int = Field(8, ge=0, le=100, description="images of each kind in the report")
    threads: int | None = Field(None, ge=1, description="none: one for each core")

    model_score_threshold: float = Field(0.01, ge=0, le=1, description="with a model: least score that it writes")
    address: str | None = Field(None, description="with a model: Ray cluster; none: $RAY_ADDRESS, else this machine")

    @model_validator(mode="before")
    @classmethod
    def _lists_are_tuples(cls, values: object) -> object:
        """YAML and the command line have lists where the spec has a tuple."""
        if isinstance(values, dict) and isinstance(values.get("max_dets"), list):
            return {**values, "max_dets": tuple(values["max_dets"])}
        return values

    @model_validator(mode="after")
    def _checked(self) -> EvalSpec:
        if not 0 < self.max_dets[0] < self.max_dets[1] < self.max_dets[2]:
            raise ValueError(f"max_dets: expected three rising numbers from 1, found {list(self.max_dets)}")
        if (self.predictions is None) == (self.model is None):
            given = "both" if self.model else "neither"
            raise ValueError(f"expected either predictions or a model, found {given}")
        return self
