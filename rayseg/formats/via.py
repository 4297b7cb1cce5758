"""VIA, the VGG Image Annotator: projects, annotation JSON and CSV of version 2, and the JSON of version 1.

Reading takes a file, or a folder: its own file and those of its subfolders, each of which is a split. Of several forms in
one folder a project counts, else JSON, else CSV.
- `rect` is a box, a `circle` an ellipse; regions of one `rayseg_object` are parts of one object.
- VIA has attributes and no classes: `via_classes` says which attribute is taken for the class, and what becomes of regions
  without it; `class_attribute` overrides it. All other region attributes are attributes, `file_attributes` those of the
  image.
- An image lies beside the file, or where a project's `default_filepath` says; of an address on the web the last name counts.

Writing gives the form that was read, and a project of what comes from elsewhere, in a folder for each split.
- VIA has no holes, parts or masks: each part is a polygon, its holes joined to it by bridges that have no width, a mask is
  drawn along its pixels' edges. What that leaves out stands in region attributes: `rayseg_object` ties regions,
  `rayseg_shape` has the exact shape, `rayseg_box` a box beside it (see `exact_notes` for how they are read), `rayseg_group`,
  `rayseg_score`, `rayseg_crowd`. The image's size is the file attribute `rayseg_size`, as VIA writes none.
- It cannot hold colours and supercategories of classes; a list of classes stands in projects alone. Other formats' extras
  are left out, as VIA shows every attribute to the people who draw.
- Images are not copied, as VIA asks for them when it is opened; embedded ones are written beside the file.

Which raster of a rotated photo is meant is `rayseg.formats.orientation`'s rule; `drawn_on` overrides it.
Source for the format: VIA's `via.js`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rayseg import storage
from rayseg.annotations import Category, Dataset
from rayseg.errors import StorageError
from rayseg.formats import data_paths, via_classes, via_files
from rayseg.formats.faults import BadAnnotation, Faults
from rayseg.formats.listing import below, suffix
from rayseg.formats.losses import Losses
from rayseg.formats.orientation import Raster
from rayseg.formats.sink import Sink
from rayseg.formats.via_reading import Source, ViaImages
from rayseg.formats.via_writing import write_dataset

_PROBED_FILES = 20
_RANKS = ("project", "annotations", "csv")


def detect(uri: str, names: Sequence[str]) -> bool:
    """Whether there is a JSON or CSV file, at most one folder down, that begins as one of VIA's does."""
    alone = len(names) == 1 and uri.endswith(names[0])
    found = _candidates(names)[:_PROBED_FILES]
    return any(_form(uri if alone else data_paths.at(uri, name)) is not None for name in found)


def read(
    uri: str,
    *,
    images: str | None = None,
    faults: Faults,
    drawn_on: Raster | None = None,
    class_attribute: str | None = None,
) -> Dataset:
    """The data set of one file, or of those of a folder, which are read whole.

    Raises `BadAnnotation` where there is none of VIA's, or several of the same form in one folder.
    """
    sources = _sources(uri)
    declared: dict[str, Any] = {}
    for source in sources:
        attributes = source.file.rest.get(via_files.ATTRIBUTES)
        regions = attributes.get("region") if isinstance(attributes, dict) else None
        declared = {**(regions if isinstance(regions, dict) else {}), **declared}
    found = (attributes for source in sources for attributes in source.file.region_attributes())
    classes = via_classes.find(found, declared, class_attribute)
    options = {name: option for option, name in classes.options.items() if option != name}
    categories = tuple(
        Category(name, extras={"via": {"option": options[name], "text": name}} if name in options else {})
        for name in classes.names
    )
    first = sources[0].file
    info: dict[str, Any] = {"form": first.form, "class_attribute": classes.attribute}
    rest = {key: value for key, value in first.rest.items() if key != "_via_image_id_list"}
    info |= {"rest": rest} if rest else {}
    return Dataset(categories, ViaImages(sources, classes, images, faults, drawn_on), {"via": info}, faults)


def write(dataset: Dataset, sink: Sink, losses: Losses) -> None:
    """A file for each split; see the rules above."""
    write_dataset(dataset, sink, losses)


def _sources(uri: str) -> list[Source]:
    if storage.exists(uri):
        return [Source(via_files.load(uri), data_paths.folder_of(uri), None)]
    folders: dict[str, dict[str, list[str]]] = {}
    for name in _candidates(list(below(uri))):
        if (form := _form(data_paths.at(uri, name))) is not None:
            folders.setdefault(name.rpartition("/")[0], {}).setdefault(form, []).append(name)
    if not folders:
        raise BadAnnotation(uri, "expected a JSON or CSV file of VIA's, found none")
    sources = []
    for folder, forms in sorted(folders.items()):
        names = next(forms[form] for form in _RANKS if form in forms)
        if len(names) > 1:
            raise BadAnnotation(uri, f"expected one file in a folder, found {', '.join(names)}; read one of them")
        file = via_files.load(data_paths.at(uri, names[0]))
        sources.append(Source(file, data_paths.at(uri, folder) if folder else uri, folder or None))
    return sources


def _candidates(names: Sequence[str]) -> list[str]:
    return [name for name in names if suffix(name) in ("json", "csv") and name.count("/") <= 1]


def _form(uri: str) -> str | None:
    try:
        return via_files.form_of(uri)
    except StorageError:
        return None
