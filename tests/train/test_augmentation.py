"""Image, boxes and masks change together, as plain loops over pixels say, and the same way whoever asks."""

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from rayseg import kernels
from rayseg.train.augmentation import Augmentation, TrainingImage, augment
from rayseg.train.copy_paste import overlaid
from rayseg.train.scenes import cropped, framed, mirrored, resized, scene_of, tidied, tight_boxes, training_image

EVERYTHING = Augmentation(
    flip=0.5, scale_jitter=(0.4, 1.8), sizes=(24, 32), crop=0.5, colour=0.5, copy_paste=0.7, mosaic=0.3
)


def random_image(seed, height=23, width=31, count=4, boxes_alone=1, crowds=1):
    """Rectangular masks that may overlap, then boxes without masks; the first `crowds` are crowds."""
    rng = np.random.default_rng(seed)
    masks, boxes = np.zeros((count, height, width), bool), np.zeros((count, 4), np.float32)
    for i in range(count):
        (y1, y2), (x1, x2) = (np.sort(rng.choice(side + 1, 2, replace=False)) for side in (height, width))
        boxes[i] = x1, y1, x2, y2
        masks[i, y1:y2, x1:x2] = i < count - boxes_alone
    image = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    return TrainingImage(image, boxes, rng.integers(0, 5, count), masks, np.arange(count) < crowds, f"image {seed}")


def tight(mask):
    """The box by looking at every pixel."""
    places = [(x, y) for y in range(mask.shape[0]) for x in range(mask.shape[1]) if mask[y, x]]
    if not places:
        return [0, 0, 0, 0]
    xs, ys = [x for x, _ in places], [y for _, y in places]
    return [min(xs), min(ys), max(xs) + 1, max(ys) + 1]


def nearest(mask, image_hw):
    """The pixel of `mask` under the centre of each new pixel."""
    new = np.zeros(image_hw, bool)
    for y in range(image_hw[0]):
        for x in range(image_hw[1]):
            new[y, x] = mask[int((y + 0.5) * mask.shape[0] / image_hw[0]), int((x + 0.5) * mask.shape[1] / image_hw[1])]
    return new


def assert_sound(found):
    """What must hold of every result: one size, masks that fit their boxes, nothing of no area."""
    height, width = found.image_hw
    assert found.image.dtype == np.uint8 and found.image.shape == (height, width, 3)
    assert found.masks.shape == (len(found), height, width) and found.masks.dtype == bool
    assert found.boxes_xyxy.shape == (len(found), 4) and found.boxes_xyxy.dtype == np.float32
    assert found.crowd.shape == (len(found),) and found.classes.dtype == np.int64
    for mask, box in zip(found.masks, found.boxes_xyxy, strict=True):
        assert (box[2:] > box[:2]).all() and (box >= 0).all() and (box <= [width, height, width, height]).all()
        assert not mask.any() or box.tolist() == tight(mask)


def test_mirroring_is_reading_backwards():
    image = random_image(1)
    found = training_image(mirrored(scene_of(image)))
    assert np.array_equal(found.image, image.image[:, ::-1])
    assert np.array_equal(found.masks, image.masks[:, :, ::-1])
    x1, y1, x2, y2 = image.boxes_xyxy[-1]
    assert found.boxes_xyxy[-1].tolist() == [31 - x2, y1, 31 - x1, y2]


@pytest.mark.parametrize("seed", range(5))
def test_a_crop_is_a_slice(seed):
    image = random_image(seed, count=6, boxes_alone=2)
    found = training_image(cropped(scene_of(image), 5, 9, 11, 8))
    masks, expected = image.masks[:, 5:16, 9:17], []
    cut = np.clip(image.boxes_xyxy - [9, 5, 9, 5], 0, [8, 11, 8, 11])
    for i in range(6):
        box = tight(masks[i]) if i < 4 else cut[i].tolist()
        if box[2] > box[0] and box[3] > box[1]:
            expected.append((int(image.classes[i]), box))
    assert np.array_equal(found.image, image.image[5:16, 9:17])
    assert [(c, b.tolist()) for c, b in zip(found.classes, found.boxes_xyxy, strict=True)] == expected
    assert_sound(found)


@pytest.mark.parametrize("image_hw", [(46, 62), (10, 40), (23, 31), (7, 9), (1, 1)])
def test_a_resized_mask_takes_the_nearest_pixel(image_hw):
    image = random_image(7)
    found = resized(scene_of(image), image_hw)
    expected = np.stack([nearest(mask, image_hw) for mask in image.masks])
    assert np.array_equal(np.asarray(found.masks).astype(bool), expected)
    scale = np.array([image_hw[1] / 31, image_hw[0] / 23] * 2, np.float32)
    assert np.allclose(np.asarray(found.boxes), image.boxes_xyxy * scale, atol=1e-4)


def test_an_image_is_resized_as_the_network_would():
    image = random_image(8)
    found = resized(scene_of(image), (46, 50)).image
    floats = torch.from_numpy(image.image).permute(2, 0, 1).float()[None]
    expected = torch.nn.functional.interpolate(floats, size=(46, 50), mode="bilinear", align_corners=False)[0]
    assert (found.float() - expected).abs().max() <= 1  # in whole numbers, one direction after the other


@pytest.mark.parametrize(("top", "left"), [(3, 4), (-3, 4), (3, -4), (-6, -5)])
def test_a_frame_shows_every_pixel_at_its_place(top, left):
    image = random_image(9)
    found = framed(scene_of(image), (27, 30), top, left)
    pixels, masks = np.asarray(found.image), np.asarray(found.masks)
    for y in range(27):
        for x in range(30):
            inside = 0 <= y - top < 23 and 0 <= x - left < 31
            expected = image.image[y - top, x - left] if inside else (124, 116, 104)
            assert np.array_equal(pixels[:, y, x], expected)
            assert np.array_equal(masks[:, y, x], image.masks[:, y - top, x - left] if inside else np.zeros(4))


@given(st.integers(0, 5), st.integers(1, 9), st.integers(1, 9), st.integers(0, 1000))
def test_tight_boxes_are_those_of_every_pixel_looked_at(count, height, width, seed):
    masks = np.random.default_rng(seed).random((count, height, width)) < 0.15
    found = tight_boxes(torch.from_numpy(masks.astype(np.uint8)))
    assert found.tolist() == [tight(mask) for mask in masks]


def test_pasted_objects_hide_what_is_below():
    below = random_image(3, count=5, boxes_alone=1)
    above = random_image(4, count=3, boxes_alone=0, crowds=0)
    found = tidied(overlaid(scene_of(below), scene_of(above)))
    result = training_image(found)
    cover = above.masks.any(axis=0)
    for y in range(23):
        for x in range(31):
            assert np.array_equal(result.image[y, x], (above if cover[y, x] else below).image[y, x])
    left = [mask & ~cover for mask in below.masks[:4]]
    expected = [mask for mask in left if mask.any()]
    alone = 0 if len(result) == len(expected) + 3 else 1  # the box without a mask may be covered whole
    assert np.array_equal(result.masks[: len(expected)], np.array(expected).reshape(-1, 23, 31))
    assert not result.masks[len(expected) : len(expected) + alone].any()
    assert np.array_equal(result.masks[-3:], above.masks) and result.classes[-3:].tolist() == above.classes.tolist()
    assert not (result.masks[:-3].any(axis=0) & cover).any()


def test_what_is_covered_whole_is_gone_and_what_is_not_stays():
    below = random_image(3, count=3, boxes_alone=1)
    below.masks[:2] = False
    below.masks[0, 3:5, 3:5] = below.masks[1, 3:5, 3:9] = True
    below.boxes_xyxy[2] = 3, 3, 5, 5
    above = random_image(4, count=1, boxes_alone=0, crowds=0)
    above.masks[0] = False
    above.masks[0, 2:6, 2:6] = True
    result = training_image(overlaid(scene_of(below), scene_of(above)))
    assert result.boxes_xyxy.tolist() == [[6, 3, 9, 5], [2, 2, 6, 6]]


def test_only_whole_objects_of_the_other_image_are_pasted():
    crowd_alone = random_image(2, count=2, boxes_alone=1, crowds=1)
    target = random_image(5)
    settings_ = Augmentation(flip=0, copy_paste=1)
    found = augment(target, settings_, seed=0, epoch=0, index=0, donor=lambda n: crowd_alone)
    assert np.array_equal(found.image, target.image)
    donor = random_image(6, count=5, boxes_alone=1, crowds=1)
    added = [
        len(augment(target, settings_, seed=0, epoch=e, index=0, donor=lambda n: donor).classes) for e in range(20)
    ]
    assert max(added) > len(target.classes) and max(added) <= len(target.classes) + 3


def test_the_same_image_of_the_same_epoch_is_the_same_whoever_asks_and_others_differ():
    images = [random_image(seed) for seed in range(8)]

    def run(order, seed=0, epoch=0):
        asked = {
            i: augment(images[i], EVERYTHING, seed=seed, epoch=epoch, index=i, donor=lambda n: images[n % 8])
            for i in order
        }
        return [asked[i] for i in range(8)]

    def same(one, other):
        return all(
            np.array_equal(getattr(a, name), getattr(b, name))
            for a, b in zip(one, other, strict=True)
            for name in ("image", "masks", "boxes_xyxy", "classes", "crowd")
        )

    torch.manual_seed(1)
    first = run(range(8))
    torch.manual_seed(2)
    np.random.seed(3)  # noqa: NPY002 (nothing may depend on it)
    assert same(first, run(reversed(range(8))))
    assert not same(first, run(range(8), epoch=1)) and not same(first, run(range(8), seed=1))


def test_nothing_of_the_given_image_changes():
    image, donor = random_image(1), random_image(2)
    before = [array.copy() for array in (image.image, image.masks, image.boxes_xyxy, donor.image, donor.masks)]
    for epoch in range(20):
        augment(image, EVERYTHING, seed=0, epoch=epoch, index=0, donor=lambda n: donor)
    after = [image.image, image.masks, image.boxes_xyxy, donor.image, donor.masks]
    assert all(np.array_equal(a, b) for a, b in zip(before, after, strict=True))


def test_without_any_setting_the_image_comes_out_as_it_went_in():
    image = random_image(1)
    found = augment(image, Augmentation(flip=0), seed=0, epoch=0, index=0)
    assert np.array_equal(found.image, image.image) and np.array_equal(found.masks, image.masks)
    assert found.classes.tolist() == image.classes.tolist() and found.name == image.name
    assert np.array_equal(found.boxes_xyxy, image.boxes_xyxy)


def test_packed_masks_give_what_dense_ones_give():
    image = random_image(1)
    packed = dataclasses.replace(image, masks=kernels.encode(image.masks))
    one, other = (
        augment(form, EVERYTHING, seed=0, epoch=3, index=1, donor=lambda n, form=form: form) for form in (image, packed)
    )
    assert np.array_equal(one.image, other.image) and np.array_equal(one.masks, other.masks)


def test_sizes_are_those_asked_for_and_the_longest_side_is_kept():
    image = random_image(1, height=20, width=60)
    seen = {augment(image, Augmentation(sizes=(10, 30)), seed=0, epoch=epoch, index=0).image_hw for epoch in range(20)}
    assert seen == {(6, 17), (17, 50)}  # 3 to 1 is longer than 5 to 3
    settings_ = Augmentation(sizes=(10,), max_side=1000)
    assert augment(image, settings_, seed=0, epoch=0, index=0).image_hw == (10, 30)


def test_scale_jitter_keeps_the_size_and_changes_the_objects():
    image = random_image(1, count=1, boxes_alone=0, crowds=0)
    image.masks[:] = False
    image.masks[0, 8:16, 10:22] = True  # 96 pixels
    areas = []
    for epoch in range(60):
        found = augment(image, Augmentation(scale_jitter=(0.5, 1.0)), seed=0, epoch=epoch, index=0)
        assert found.image_hw == (23, 31)
        areas.append(int(found.masks.sum()))
    assert min(areas) < 40 and max(areas) > 80 and all(15 <= area <= 100 for area in areas)


def test_a_random_crop_keeps_an_object_where_there_is_one():
    image = random_image(1, height=60, width=80, count=1, boxes_alone=0, crowds=0)
    image.masks[:] = False
    image.masks[0, 5:8, 5:8] = True
    image.boxes_xyxy[0] = 5, 5, 8, 8
    sizes = set()
    for epoch in range(40):
        found = augment(image, Augmentation(flip=0, crop=1.0), seed=0, epoch=epoch, index=0)
        sizes.add(found.image_hw)
        assert len(found) == 1
    assert len(sizes) > 10


def test_colour_changes_the_image_alone():
    image = random_image(1)
    found = augment(image, Augmentation(flip=0, colour=1.0), seed=0, epoch=0, index=0)
    assert not np.array_equal(found.image, image.image) and np.array_equal(found.masks, image.masks)


def test_a_mosaic_shows_four_images_in_the_frame_of_the_first():
    def plain(value):
        masks = np.ones((1, 40, 50), bool)
        image = np.full((40, 50, 3), value, np.uint8)
        return TrainingImage(image, np.array([[0, 0, 50, 40]]), np.array([value]), masks, np.zeros(1, bool))

    others = iter(plain(value) for value in (2, 3, 4))
    found = augment(plain(1), Augmentation(flip=0, mosaic=1.0), seed=0, epoch=0, index=0, donor=lambda n: next(others))
    assert found.image_hw == (40, 50) and found.classes.tolist() == [1, 2, 3, 4]
    assert (found.masks.sum(axis=0) == 1).all()
    assert np.array_equal(found.image[..., 0], (found.masks * found.classes[:, None, None]).sum(axis=0))
    assert_sound(found)


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 12), st.integers(1, 12), st.integers(0, 4), st.integers(0, 4), st.integers(0, 4),
    st.integers(0, 10_000), st.booleans(),
)  # fmt: skip
def test_every_image_comes_out_sound(height, width, count, boxes_alone, crowds, seed, sized):
    boxes_alone = min(boxes_alone, count)
    settings_ = EVERYTHING if sized else EVERYTHING.model_copy(update={"sizes": ()})
    image = random_image(seed, height, width, count, boxes_alone, crowds)
    donor = random_image(seed + 1, 9, 4, 3)
    found = augment(image, settings_, seed=seed, epoch=1, index=2, donor=lambda n: donor if n % 2 else image)
    assert_sound(found)
    if not sized:
        assert max(found.image_hw[0] - height, found.image_hw[1] - width) <= 0
    if not image.crowd.any() and not donor.crowd.any():
        assert not found.crowd.any()


def test_odd_boxes_are_cut_or_dropped():
    image = random_image(1, count=4, boxes_alone=4, crowds=0)
    image.boxes_xyxy[:] = [[-5, -5, 4, 4], [3, 3, 3, 9], [40, 40, 50, 50], [np.nan, 0, 5, 5]]
    found = augment(image, Augmentation(flip=0), seed=0, epoch=0, index=0)
    assert found.boxes_xyxy.tolist()[0] == [0, 0, 4, 4] and len(found) <= 2
    assert_sound(found)


@pytest.mark.parametrize(
    "bad",
    [{"flip": 1.5}, {"scale_jitter": (2, 1)}, {"scale_jitter": (0, 1)}, {"sizes": (0,)}, {"crop": -1}, {"zoom": 1}],
)
def test_wrong_settings_are_refused(bad):
    with pytest.raises(ValidationError):
        Augmentation(**bad)


def test_settings_come_back_from_json():
    assert Augmentation.model_validate(EVERYTHING.model_dump(mode="json")) == EVERYTHING
