"""In which order an image is changed, and what is drawn for it.

mosaic    three other images beside it
crop      a window of the image
flip      left and right
size      multi-scale size and large-scale jitter, one resize for both; Ghiasi et al., "Simple Copy-Paste", 2021
paste     objects of another image, over it
colour    of what is there then
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from torchvision.transforms.v2 import functional as F

from rayseg.train.augmentation import Augmentation, Donor, TrainingImage
from rayseg.train.copy_paste import pasted
from rayseg.train.mosaic import mosaic
from rayseg.train.scenes import Scene, cropped, framed, mirrored, resized, scene_of, training_image

_CROP_SHARE = (0.3, 1.0)  # of each side
_CROP_TRIES = 10
_COLOUR_SHARE = 0.4  # brightness, contrast and saturation are multiplied by up to 1 +- this
_HUE_SHARE = 0.04  # of the colour circle, either way
_MAX_SIDE_SHARE = 5 / 3  # 1333 for 800, as detectors are trained on COCO


def augmented(
    image: TrainingImage, settings: Augmentation, rng: np.random.Generator, donor: Donor | None
) -> TrainingImage:
    """See `augmentation.augment`."""
    scene = scene_of(image)
    if donor is not None and rng.random() < settings.mosaic:
        scene = mosaic([scene, *(scene_of(_drawn(donor, rng)) for _ in range(3))], rng)
    if rng.random() < settings.crop:
        scene = _random_crop(scene, rng)
    if rng.random() < settings.flip:
        scene = mirrored(scene)
    canvas_hw = _canvas_hw(scene.image_hw, settings, rng)
    scene = _on_canvas(scene, canvas_hw, _scale(settings, rng), rng)
    if donor is not None and rng.random() < settings.copy_paste:
        other = scene_of(_drawn(donor, rng))
        other = mirrored(other) if rng.random() < settings.flip else other
        scene = pasted(scene, _on_canvas(other, canvas_hw, _scale(settings, rng), rng), rng)
    if rng.random() < settings.colour:
        scene = _coloured(scene, rng)
    return training_image(scene)


def _drawn(donor: Donor, rng: np.random.Generator) -> TrainingImage:
    return donor(int(rng.integers(2**31)))


def _random_crop(scene: Scene, rng: np.random.Generator) -> Scene:
    """A window with at least one object's centre in it, where the image has any and a few tries find one."""
    height, width = scene.image_hw
    boxes = np.asarray(scene.boxes)[~scene.crowd]
    centres = (boxes[:, :2] + boxes[:, 2:]) / 2
    for _ in range(_CROP_TRIES):
        window_hw = np.maximum(np.round(rng.uniform(*_CROP_SHARE, 2) * (height, width)), 1).astype(int)
        top, left = (
            int(rng.integers(whole - part + 1)) for whole, part in zip((height, width), window_hw, strict=True)
        )
        low = np.array([left, top])
        if not len(centres) or ((centres >= low) & (centres < low + window_hw[::-1])).all(axis=1).any():
            return cropped(scene, top, left, int(window_hw[0]), int(window_hw[1]))
    return scene


def _canvas_hw(image_hw: tuple[int, int], settings: Augmentation, rng: np.random.Generator) -> tuple[int, int]:
    """(H, W) that the image will have: its own, or with `sizes` of a shorter side drawn from them."""
    if not settings.sizes:
        return image_hw
    side = settings.sizes[int(rng.integers(len(settings.sizes)))]
    longest = settings.max_side if settings.max_side is not None else side * _MAX_SIDE_SHARE
    return _scaled(image_hw, min(side / min(image_hw), longest / max(image_hw)))


def _scale(settings: Augmentation, rng: np.random.Generator) -> float:
    return float(rng.uniform(*settings.scale_jitter)) if settings.scale_jitter else 1.0


def _on_canvas(scene: Scene, canvas_hw: tuple[int, int], scale: float, rng: np.random.Generator) -> Scene:
    """The scene as large as fits into the canvas, times `scale`, somewhere at random: cut or padded to the canvas."""
    if canvas_hw == scene.image_hw and scale == 1:
        return scene
    fit = min(canvas / own for canvas, own in zip(canvas_hw, scene.image_hw, strict=True))
    scene = resized(scene, _scaled(scene.image_hw, fit * scale))
    room = [canvas - own for canvas, own in zip(canvas_hw, scene.image_hw, strict=True)]
    top, left = (int(rng.integers(min(free, 0), max(free, 0) + 1)) for free in room)
    return framed(scene, canvas_hw, top, left)


def _scaled(image_hw: tuple[int, int], scale: float) -> tuple[int, int]:
    return max(1, round(image_hw[0] * scale)), max(1, round(image_hw[1] * scale))


def _coloured(scene: Scene, rng: np.random.Generator) -> Scene:
    image = scene.image
    for adjust in (F.adjust_brightness, F.adjust_contrast, F.adjust_saturation):
        image = adjust(image, float(1 + rng.uniform(-_COLOUR_SHARE, _COLOUR_SHARE)))
    return replace(scene, image=F.adjust_hue(image, float(rng.uniform(-_HUE_SHARE, _HUE_SHARE))))
