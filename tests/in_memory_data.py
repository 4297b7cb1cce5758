"""Small data sets in memory, and a source that counts how often it is read."""

import numpy as np

from rayseg.annotations import AnnotatedImage, Annotation, Category, Dataset, Polygons


def square(x, y, side, category=0, **more):
    """An annotation of a square's outline with its upper left corner at (x, y)."""
    ring = np.array([(x, y), (x + side, y), (x + side, y + side), (x, y + side)], np.float64)
    return Annotation(category, shape=Polygons(((ring,),)), **more)


def boxed(category=0, box=(1.0, 1.0, 5.0, 5.0), **more):
    return Annotation(category, box_xyxy=box, **more)


class Source:
    """Images that are made anew each time, as a file's are."""

    def __init__(self, images):
        self.made = images
        self.passes = 0

    def __iter__(self):
        self.passes += 1
        return iter(list(self.made))


def dataset(images, names=("cat", "dog", "cow"), **more):
    return Dataset(tuple(Category(name) for name in names), Source(images), **more)


def of_classes(class_lists, name="{:04d}.jpg", **more):
    """Images with one box per class listed."""
    images = [
        AnnotatedImage(name.format(i), image_hw=(10, 10), annotations=tuple(boxed(c) for c in classes))
        for i, classes in enumerate(class_lists)
    ]
    return dataset(images, **more)


def names_of(dataset):
    return [image.name for image in dataset.images]
