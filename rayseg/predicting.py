"""`rayseg predict`: instances of a few images, from a model here or an endpoint, as one COCO document or one per image.

    {"images": [{"id", "file_name", "width", "height"}], "categories": [{"id", "name"}],
     "annotations": [{"id", "image_id", "category_id", "bbox", "area", "segmentation", "score", "iscrowd"}],
     "errors": [{"file_name", "kind", "message"}]}

An image that fails is named under `errors` and stops nothing. For millions of images there is `rayseg label`.
"""

from __future__ import annotations

import io
import json
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Protocol

from rayseg import storage
from rayseg.client import Client
from rayseg.errors import RaysegError, UsageError
from rayseg.outputs.inputs import plan_inputs
from rayseg.records import Instances
from rayseg.serve.answers import selected
from rayseg.serve.options import PredictOptions, class_ids
from rayseg.serve.problems import Problem
from rayseg.storage.retry import Retry
from rayseg.views.page import plural
from rayseg.views.progress import Progress

AT_ONCE = 8  # images that are read, or asked about, at the same time


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one image: `instances`, or an `error`."""

    uri: str
    instances: Instances | None = None
    error: RaysegError | None = None

    def complaint(self) -> str:
        """What went wrong, with the image's name."""
        said = str(self.error)
        return said if self.uri in said else f"{shown_name(self.uri)}: {said}"


class Source(Protocol):
    """Where instances come from: `begin` runs on threads, beside each other; `finish` in turn, with what it returned."""

    @property
    def class_names(self) -> Sequence[str]: ...

    def begin(self, uri: str) -> Any: ...
    def finish(self, begun: Any) -> Instances: ...


class LocalModel:
    """The model at `uri`, on this machine."""

    def __init__(self, uri: str, device: str | None, options: dict[str, Any]) -> None:
        from rayseg.models.predictor import load

        self._predictor = load(uri, device)
        self.class_names = self._predictor.class_names
        try:
            classes = class_ids(options.pop("classes", None), self.class_names)
        except Problem as problem:
            raise UsageError(f"--{problem.detail}") from None
        self._options = PredictOptions(**options, classes=classes)
        thresholds = self._options.thresholds(self._predictor.info.thresholds)
        self._predictor.score_threshold, self._predictor.iou_threshold = thresholds.score, thresholds.iou
        self._predictor.max_detections = thresholds.max_detections

    def begin(self, uri: str) -> Any:
        from rayseg import images

        return self._predictor.prepare(images.decode(storage.read(uri)))

    def finish(self, begun: Any) -> Instances:
        return selected(self._predictor.predict([begun])[0], self._options)


class Endpoint:
    """A model of the endpoint at `url`; images are read here and sent."""

    def __init__(self, url: str, model: str | None, timeout_s: float, options: dict[str, Any]) -> None:
        if options.get("classes"):
            options["classes"] = options["classes"].split(",")
        self._client = Client(url, timeout_s=timeout_s, retry=Retry.from_environment())
        self._options = {**options, "model": model}
        models = {one.name: one for one in self._client.models()}
        default = next((one.name for one in models.values() if one.default), None)
        if (chosen := model or default) not in models:
            raise UsageError(f"--model {chosen!r}: {url} serves {', '.join(models) or 'none'}")
        self.class_names = models[chosen].classes

    def begin(self, uri: str) -> Any:
        return self._client.predict(uri, **self._options).instances

    def finish(self, begun: Any) -> Instances:
        return begun


def source_of(
    model: str | None, url: str | None, device: str | None, timeout_s: float, options: dict[str, Any]
) -> Source:
    """The endpoint at `url`, else the model here. `options` are those of `PredictOptions`, `classes` with commas.

    Raises `UsageError` where neither is named, `ModelError`, `EndpointError`.
    """
    if url is not None:
        if device is not None:
            raise UsageError("--device is for a model here: leave it out with --url")
        return Endpoint(url, model, timeout_s, options)
    if model is None:
        raise UsageError("expected --model (a checkpoint, a preset) or --url (an endpoint)")
    return LocalModel(model, device, options)


def outcomes(uris: Iterable[str], source: Source) -> Iterator[Outcome]:
    """What becomes of each image, in order."""
    pending: deque[tuple[str, Future[Any]]] = deque()
    with ThreadPoolExecutor(AT_ONCE, thread_name_prefix="rayseg-predict") as threads:
        for uri in uris:
            pending.append((uri, threads.submit(source.begin, uri)))
            if len(pending) >= 2 * AT_ONCE:
                yield _outcome(*pending.popleft(), source)
        while pending:
            yield _outcome(*pending.popleft(), source)


def _outcome(uri: str, begun: Future[Any], source: Source) -> Outcome:
    try:
        return Outcome(uri, instances=source.finish(begun.result()))
    except RaysegError as error:
        return Outcome(uri, error=error)


def named_images(words: Sequence[str], failed: Callable[[Outcome], object]) -> Iterator[str]:
    """The images that files, folders, globs and lists name, each once; of a word that names none, `failed` hears."""
    seen: set[str] = set()
    for word in words:
        try:
            for page in plan_inputs(word).pages():
                for entry in page:
                    if entry.uri not in seen:
                        seen.add(entry.uri)
                        yield entry.uri
        except RaysegError as error:
            failed(Outcome(word, error=error))


def run(
    words: Sequence[str], source: Source, writer: Writer, told: Callable[[Outcome], object], progress: Progress
) -> bytes | None:
    """Predict what `words` name; `told` hears of each failure. The document, where it is for standard output."""

    def failed(outcome: Outcome) -> None:
        told(writer.add(outcome))

    for done, outcome in enumerate(outcomes(named_images(words, failed), source), 1):
        written = writer.add(outcome)
        if written.error is not None:
            told(written)
        progress(done, None)
    return writer.finish()


class Document:
    """The COCO document, grown image by image."""

    def __init__(self, class_names: Sequence[str]) -> None:
        self.images: list[dict[str, Any]] = []
        self.categories = [{"id": i, "name": name} for i, name in enumerate(class_names)]
        self.annotations: list[dict[str, Any]] = []
        self.errors: list[dict[str, str]] = []

    def add(self, outcome: Outcome) -> None:
        name = shown_name(outcome.uri)
        if outcome.instances is None:
            error = outcome.error
            self.errors.append({"file_name": name, "kind": error.kind if error else "", "message": str(error)})
            return
        image_id = len(self.images) + 1
        height, width = outcome.instances.image_hw
        self.images.append({"id": image_id, "file_name": name, "width": width, "height": height})
        for row in outcome.instances.to_coco(image_id):
            self.annotations.append({"id": len(self.annotations) + 1, **row, "iscrowd": 0})

    def data(self) -> bytes:
        """The document's bytes; `errors` only where there are any."""
        values = {"images": self.images, "categories": self.categories, "annotations": self.annotations}
        if self.errors:
            values["errors"] = self.errors
        return json.dumps(values).encode()


class Writer:
    """Puts outcomes where they are wanted: in one document, in a folder with one each, as overlays."""

    def __init__(self, class_names: Sequence[str], out: str | None, overlay: str | None) -> None:
        self.class_names = class_names
        self.whole = Document(class_names)
        self._folder = out if out is not None and not out.lower().endswith(".json") else None
        self._file = None if self._folder is not None else out
        self._overlay = overlay
        self._taken: set[str] = set()
        self.failed = 0
        self.labelled = 0
        self.found = 0

    def add(self, outcome: Outcome) -> Outcome:
        """Write what is of this image alone. The outcome as it turned out: an overlay may fail too."""
        name = self._free_name(outcome.uri)
        if outcome.instances is not None and self._overlay is not None:
            outcome = self._with_overlay(outcome, storage.join(self._overlay, f"{name}.png"))
        if self._folder is None:
            self.whole.add(outcome)
        elif outcome.instances is not None:
            alone = Document(self.class_names)
            alone.add(outcome)
            storage.write(storage.join(self._folder, f"{name}.json"), alone.data())
        self.failed += outcome.instances is None
        self.labelled += outcome.instances is not None
        self.found += 0 if outcome.instances is None else len(outcome.instances)
        return outcome

    def finish(self) -> bytes | None:
        """Write the one document; returns it where it is meant for standard output."""
        if self._folder is not None:
            return None
        if self._file is None:
            return self.whole.data()
        storage.write(self._file, self.whole.data())
        return None

    def text(self) -> str:
        """What came of it, for people."""
        failed = f", {self.failed:,} failed" if self.failed else ""
        return f"{plural(self.labelled, 'image')} with {plural(self.found, 'instance')}{failed}"

    def _with_overlay(self, outcome: Outcome, target: str) -> Outcome:
        from PIL import Image

        from rayseg import images
        from rayseg.views import overlay

        assert outcome.instances is not None
        try:
            pixels = images.decode(storage.read(outcome.uri))
            drawn = overlay.draw(pixels, outcome.instances, self.class_names)
        except RaysegError as error:
            return Outcome(outcome.uri, error=error)
        buffer = io.BytesIO()
        Image.fromarray(drawn).save(buffer, "PNG", compress_level=1)
        storage.write(target, buffer.getvalue())
        return outcome

    def _free_name(self, uri: str) -> str:
        """The image's name without its ending, with a number where another image took that."""
        stem = os.path.splitext(uri.rstrip("/").rpartition("/")[2])[0] or "image"
        name, number = stem, 1
        while name in self._taken:
            number += 1
            name = f"{stem}-{number}"
        self._taken.add(name)
        return name


def shown_name(uri: str) -> str:
    """A local path as seen from the working folder, where that is shorter to say; anything else as it is."""
    here = os.getcwd() + os.sep
    return uri.removeprefix(here)
