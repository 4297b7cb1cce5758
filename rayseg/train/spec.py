"""What a training run is asked to do."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from rayseg.specs import Spec
from rayseg.train.augmentation import Augmentation
from rayseg.train.recipe import Recipe
from rayseg.train.schedule import Budget

# Fields that change where and how fast a run goes, and how much of it is kept: a resumed run may differ in them.
RUNTIME_FIELDS = frozenset(
    {"address", "workers", "gpu", "cpus_per_worker", "threads", "loading", "loaders",
     "loader_cpus", "ahead", "save_every_steps", "save_every_s",
     "keep", "max_failures", "report_every_steps", "compile", "out",
     "mlflow", "mlflow_experiment"}
)  # fmt: skip

DEFAULT_EPOCHS = 40

Count = Annotated[int, Field(ge=1)]
Range = Annotated[tuple[Count, Count], Field(strict=False)]


class TrainSpec(Spec):
    """One training run: annotated images and a model to start from in, a checkpoint folder out."""

    data: str = Field(description="annotated images to learn from, in any format")
    data_format: str | None = Field(None, description="their format, where it is not clear from the files")
    images: str | None = Field(None, description="the folder of the images, where they are not at their usual place")
    split: str | None = Field(None, description="only the images of this split")
    val: str | None = Field(None, description="annotated images to measure AP on; none: no AP, no early stopping")
    val_format: str | None = Field(None, description="as data_format")
    val_images: str | None = Field(None, description="as images")
    val_split: str | None = Field(None, description="as split")
    on_error: Literal["raise", "skip"] = Field("raise", description="what to do about broken annotations and images")
    out: str = Field(description="output folder: local path, file:// or s3://; it becomes the checkpoint")

    model: str = Field(description="architecture, or a checkpoint to go on from")
    weights: str | None = Field(None, description="weights to start from: checkpoint, .pth, preset, torchvision name")
    backbone_weights: str | None = Field(None, description="of the backbone alone: a local file or torchvision name")
    settings: dict[str, Any] = Field({}, description="fields of the architecture's settings, such as min_size")
    fit_anchors: bool = Field(False, description="fit the sizes and ratios of the anchors to the data's boxes")

    epochs: float | None = Field(
        None, gt=0, description="times that every image is seen; 40 where nothing else is said"
    )
    steps: int | None = Field(None, ge=1, description="most steps, where they are fewer than those of the epochs")
    seconds: float | None = Field(None, gt=0, description="most seconds of training; the learning rate ends with them")
    batch_size: int = Field(4, ge=1, description="images of a step, over all workers")
    micro_batch: int | None = Field(
        None, ge=1, description="images that go through the network at once; none: batch_size / workers"
    )
    optimizer: Literal["adamw", "sgd"] = Field("adamw")
    learning_rate: float = Field(1e-3, gt=0, description="highest, of a step of learning_rate_batch images")
    learning_rate_batch: int | None = Field(
        None, ge=1, description="the rate grows linearly with batch_size from here; none: it stays as it is"
    )
    weight_decay: float = Field(0.05, ge=0)
    betas: tuple[float, float] = Field((0.9, 0.95), strict=False, description="adamw only")
    momentum: float = Field(0.9, ge=0, lt=1, description="sgd only")
    schedule: Literal["cosine", "step"] = Field("cosine")
    milestones: tuple[float, ...] = Field((0.67, 0.92), strict=False, description="step only: shares of the run")
    gamma: float = Field(0.1, gt=0, le=1, description="step only: factor at each milestone")
    warmup_steps: int = Field(50, ge=0, description="steps of linear rise")
    clip_norm: float = Field(5.0, gt=0, description="gradients of a larger norm are scaled down to it")
    precision: Literal["fp32", "bf16", "fp16"] = Field("fp32", description="of forward and backward")
    average: float | None = Field(None, gt=0, lt=1, description="decay of a moving average of the weights: 0.999")
    synchronised_norm: bool = Field(False, description="batch norm over the images of all workers; GPUs only")
    channels_last: bool = Field(True, description="memory format")
    max_skipped: int = Field(10, ge=1, description="steps in a row without a finite loss that end the run")
    seed: int = Field(0, ge=0)
    augmentation: Augmentation = Field(default_factory=lambda: Augmentation.model_validate({}))

    evaluate_every: int = Field(1, ge=1, description="epochs from one AP on val to the next")
    metric: Literal["segm", "bbox"] = Field("segm", description="whose AP decides which checkpoint is best")
    patience: int | None = Field(None, ge=1, description="evaluations without a better AP that end the run")

    address: str | None = Field(None, description="Ray cluster; none: $RAY_ADDRESS, else this machine")
    workers: Count | Range = Field(
        1,
        description="processes that compute, each on a GPU if there are any; [least, most]: as many as fit",
    )
    gpu: bool | None = Field(None, description="none: where the cluster has GPUs")
    cpus_per_worker: float = Field(1.0, gt=0)
    threads: int | None = Field(None, ge=1, description="torch's in a worker; none: its share of the cores")
    loading: Literal["auto", "tasks", "threads"] = Field(
        "auto",
        description="who reads, decodes and augments: Ray Data's tasks, anywhere in the cluster, or threads of the workers; "
        "auto: tasks where the workers leave a CPU for each",
    )
    loaders: int = Field(2, ge=0, description="of them per worker; 0: the loop itself")
    loader_cpus: float | None = Field(
        None, ge=0, description="CPUs that a task takes; none: 1, or as much as the workers leave"
    )
    ahead: int = Field(4, ge=1, description="steps that are loaded before they are needed")
    compile: bool = Field(False, description="torch.compile the backbone")
    save_every_steps: int | None = Field(None, ge=1, description="none: once per epoch")
    save_every_s: float | None = Field(600.0, gt=0, description="also after so many seconds")
    keep: int = Field(2, ge=1, description="last checkpoints kept, the best apart")
    report_every_steps: int = Field(1, ge=1, description="steps per row of metrics.csv")
    mlflow: str | None = Field(None, description="MLflow tracking server's URI; needs rayseg[mlflow]")
    mlflow_experiment: str = Field("rayseg", description="its experiment")
    max_failures: int = Field(3, ge=-1, description="lost workers that are replaced; -1: any number")

    @model_validator(mode="after")
    def _checked(self) -> TrainSpec:
        if self.val is None and self.patience is not None:
            raise ValueError("patience needs val: early stopping goes by the AP on it")
        if self.micro_batch is not None and self.micro_batch > self.batch_size:
            raise ValueError(f"micro_batch {self.micro_batch} is more than batch_size {self.batch_size}")
        if self.least_workers > self.most_workers:
            raise ValueError(f"workers: expected [least, most], found {list(self.worker_range)}")
        return self

    @property
    def worker_range(self) -> tuple[int, int]:
        """Fewest and most workers."""
        return self.workers if isinstance(self.workers, tuple) else (self.workers, self.workers)

    @property
    def least_workers(self) -> int:
        return self.worker_range[0]

    @property
    def most_workers(self) -> int:
        return self.worker_range[1]

    def result_fields(self) -> dict[str, Any]:
        """The fields that decide what is learnt: a resumed run must agree in them."""
        return self.model_dump(mode="json", exclude=set(RUNTIME_FIELDS))

    def recipe(self) -> Recipe:
        """The recipe, its learning rate that of the whole batch."""
        names = ("batch_size", "micro_batch", "optimizer", "weight_decay", "betas", "momentum", "schedule", "milestones",
                 "gamma", "warmup_steps", "clip_norm", "precision", "average", "max_skipped", "seed")  # fmt: skip
        scale = self.batch_size / self.learning_rate_batch if self.learning_rate_batch else 1.0
        return Recipe(learning_rate=self.learning_rate * scale, **{name: getattr(self, name) for name in names})

    def budget(self, steps_per_epoch: int) -> Budget:
        """How long to train: whichever of epochs, steps and seconds is spent first ends it."""
        epochs = DEFAULT_EPOCHS if self.epochs is self.steps is self.seconds is None else self.epochs
        of_epochs = None if epochs is None else max(1, round(epochs * steps_per_epoch))
        limits = [steps for steps in (of_epochs, self.steps) if steps is not None]
        return Budget(min(limits, default=None), self.seconds)
