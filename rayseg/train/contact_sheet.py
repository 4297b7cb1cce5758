"""A contact sheet of augmented images: a row per image, as it is and as it comes in some epochs, masks and boxes drawn.

N instances, H W pixels of an image, T pixels of a tile's side.
"""

from __future__ import annotations

import io

import numpy as np
from PIL import Image, ImageDraw

from rayseg import storage
from rayseg.train.augmentation import Augmentation, TrainingImage, augment
from rayseg.train.records import Records
from rayseg.views.colours import class_rgb
from rayseg.views.overlay import paint_mask

IMAGES = 8
EPOCHS = 5
_GAP = 4
_PAPER = (32, 32, 32)
_CROWD = (160, 160, 160)

SHOWCASE = Augmentation(
    flip=0.5, scale_jitter=(0.5, 1.5), crop=0.3, colour=0.5, copy_paste=0.5, mosaic=0.2
)  # some of everything, where no spec says what is done


def write_contact_sheet(
    data: Records, settings: Augmentation, target: str, *, seed: int = 0, epochs: int = EPOCHS, tile_px: int = 256
) -> int:
    """Write the sheet of all images of `data` as a PNG to `target`, a path or URI; returns its bytes.

    The first column shows each image as it is; the next ones are what training with `seed` sees of it. Raises what
    reading an image raises, StorageError where the sheet cannot be written.
    """
    sheet = io.BytesIO()
    Image.fromarray(contact_sheet(data, settings, seed=seed, epochs=epochs, tile_px=tile_px)).save(sheet, "PNG")
    storage.write(target, sheet.getvalue())
    return sheet.tell()


def contact_sheet(data: Records, settings: Augmentation, *, seed: int, epochs: int, tile_px: int) -> np.ndarray:
    """The sheet (rows of T, columns of T, 3) uint8, with gaps around each tile."""
    step = tile_px + _GAP
    sheet = Image.new("RGB", ((epochs + 1) * step + _GAP, len(data) * step + _GAP), _PAPER)
    for row in range(len(data)):
        image = data.training_image(row)
        shown = [image] + [
            augment(
                image,
                settings,
                seed=seed,
                epoch=epoch,
                index=row,
                donor=lambda n: data.training_image(n % len(data)),
            )
            for epoch in range(epochs)
        ]
        for column, one in enumerate(shown):
            sheet.paste(_tile(one, tile_px), (column * step + _GAP, row * step + _GAP))
    return np.asarray(sheet)


def _tile(image: TrainingImage, tile_px: int) -> Image.Image:
    """The image with its instances drawn, as large as fits into a tile; crowds are grey."""
    canvas = image.image.copy()
    colours = [_CROWD if crowd else class_rgb(int(c)) for c, crowd in zip(image.classes, image.crowd, strict=True)]
    for mask, colour in zip(image.dense_masks(), colours, strict=True):
        paint_mask(canvas, mask, colour)
    picture = Image.fromarray(canvas)
    scale = tile_px / max(picture.size)
    picture = picture.resize((max(1, round(picture.width * scale)), max(1, round(picture.height * scale))))
    pen = ImageDraw.Draw(picture)
    for box, colour in zip(np.asarray(image.boxes_xyxy, float) * scale, colours, strict=True):
        x1, y1, x2, y2 = box.tolist()
        pen.rectangle((x1, y1, max(x1, x2 - 1), max(y1, y2 - 1)), outline=colour)
    return picture
