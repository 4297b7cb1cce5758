"""From stored bytes to an image that a model can take, or to the error that its row will hold.

An image that cannot be read or decoded is at fault itself and becomes a row with `error`; storage that does not answer
at all is nobody's row, and raises.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from rayseg import images
from rayseg.errors import ImageError, ModelError, RaysegError, StorageError, Unreachable, WrongCredentials
from rayseg.formats.parts import RowError
from rayseg.models.predictor import Predictor
from rayseg.models.preprocess import Prepared, Preprocess
from rayseg.records import RawDetections


def read_image(read: Callable[[], bytes]) -> bytes | RowError:
    """What `read` returns, or why the image has none. Raises `Unreachable` and `WrongCredentials`."""
    try:
        return read()
    except (Unreachable, WrongCredentials):
        raise
    except StorageError as error:
        return _row_error("read", error)


def prepare_image(data: bytes, preprocess: Preprocess, *, max_pixels: int, max_bytes: int) -> Prepared | RowError:
    """The decoded image on its way to the model, or why there is none."""
    try:
        return preprocess.prepare(images.decode(data, max_pixels=max_pixels, max_bytes=max_bytes))
    except ImageError as error:
        return _row_error("decode", error)


def detect_images(predictor: Predictor, prepared: Sequence[Prepared]) -> list[RawDetections | RowError]:
    """Detections per image; an image that the model cannot take, even alone, becomes an error."""
    if not prepared:
        return []
    try:
        return list(predictor.detect(prepared))
    except ModelError as error:
        if len(prepared) == 1:
            return [RowError("model", error.kind, str(error), prepared[0].image_hw)]
    return [result for image in prepared for result in detect_images(predictor, [image])]


def _row_error(stage: str, error: RaysegError) -> RowError:
    return RowError(stage, error.kind, str(error))
