"""rayseg's own Parquet: what a label run writes, read as a data set with scores, and a data set form that holds all.

The data set form is `data/images-00000.parquet` and so on, one row per image, see `rayseg_columns`. It has the columns of a
label run, so whatever reads the one reads the other. Each file's footer holds, as JSON under `rayseg.dataset`, the
categories, what is said of the whole, and the file's number; the last one also how many there are, so a missing file is
noticed. Files that are each a whole data set of the same classes, as `to_bytes` makes them, may also lie side by side: many
writers add to such a folder, and reading it gives all their images. Everything in a record comes back exactly. Images are
held by URI, or embedded where the record embeds them.

Of a label run only the parts that count are read, see `rayseg_run`. A row with an error is an image without annotations,
its error in `extras["rayseg"]["error"]`; its name is its URI below the run's `images`, or the whole URI without the scheme.
"""

from __future__ import annotations

import dataclasses
import io
import json
import re
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq

from rayseg import storage
from rayseg.annotations import AnnotatedImage, Annotation, Category, Dataset
from rayseg.errors import ObjectNotFound
from rayseg.formats import data_paths, shapes
from rayseg.formats.faults import BadAnnotation, Faults
from rayseg.formats.keeping import keep_annotation, keep_values
from rayseg.formats.losses import Losses
from rayseg.formats.rayseg_columns import NAME, SCHEMA, Row, annotation_of, rows_of, table_of
from rayseg.formats.rayseg_run import is_run, read_run
from rayseg.formats.sink import Sink

_KEY = "rayseg.dataset"
_VERSION = 1
_FILE = re.compile(r"images-(\d{5,})\.parquet")
_GROUP_IMAGES, _GROUP_BYTES = 1024, 32 << 20  # images of a row group, and the bytes of embedded images that end one
_FILE_IMAGES, _FILE_BYTES = 1 << 20, 1 << 30


def detect(uri: str, names: Sequence[str]) -> bool:
    """Whether it is a label run's output, or has files of the data set form."""
    if len(names) == 1 and storage.exists(uri):
        return _FILE.fullmatch(names[0]) is not None
    return is_run(names) or any(_FILE.fullmatch(name.removeprefix("data/")) for name in names)


def read(uri: str, *, images: str | None, faults: Faults) -> Dataset:
    """The data set at `uri`: a folder, a label run's output, or one file. `images` is a folder to take the images from.

    Raises `BadAnnotation` for what is neither, where a file is missing, and for one that is no whole Parquet file.
    """
    files = _files(uri)
    if not files:
        return read_run(uri, images, faults)
    heads = [_head(one) for one in files]
    if not storage.exists(uri):
        _check_whole(uri, heads)
    try:
        categories = tuple(map(_category, heads[0]["categories"]))
        info = dict(heads[0]["info"])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise BadAnnotation(files[0], f"expected categories and info in its footer: {error!r}") from None
    return Dataset(categories, _Images(files, len(categories), images, faults), info, faults)


def write(dataset: Dataset, sink: Sink | _Memory, losses: Losses) -> None:
    """All of `dataset`; a row group's images are in memory at a time."""
    for category in dataset.categories:
        losses.kept("class")
        for kind, value in (
            ("class id", category.source_id),
            ("supercategory", category.supercategory),
            ("class colour", category.colour),
        ):
            if value is not None:
                losses.kept(kind)
    head = {
        "version": _VERSION,
        "categories": [_category_value(category, losses) for category in dataset.categories],
        "info": keep_values(dataset.info, "extra", losses),
    }
    writer = _Writer(sink, head, dataset.class_names)
    with writer:
        for image in dataset.images:
            held = _held(image, losses)
            if held is not None:
                writer.add(held)


def to_bytes(dataset: Dataset, losses: Losses) -> bytes:
    """A small data set as the one file that `write` makes of it."""
    sink = _Memory()
    write(dataset, sink, losses)
    return sink.data


# ---- writing


class _Memory:
    """A sink for one file."""

    data = b""

    @contextmanager
    def stream(self, name: str, *, last: bool = False) -> Iterator[IO[bytes]]:
        with io.BytesIO() as file:
            yield file
            file.seek(0)
            self.data += file.read()


def _held(image: AnnotatedImage, losses: Losses) -> AnnotatedImage | None:
    """The image with what Parquet can hold of it; None where it cannot be named."""
    try:
        for text in (image.name, image.uri, image.split):
            (text or "").encode()
    except UnicodeEncodeError:
        losses.dropped("image", "its name or URI is not Unicode text")
        for annotation in image.annotations:
            losses.dropped("mask" if shapes.has_mask(annotation) else "box", "its image is dropped")
        return None
    losses.kept("image")
    if image.data is not None:
        losses.kept("image file")
    return dataclasses.replace(
        image,
        annotations=tuple(_held_annotation(annotation, losses) for annotation in image.annotations),
        attributes=keep_values(image.attributes, "attribute", losses),
        extras=keep_values(image.extras, "extra", losses),
    )


def _held_annotation(annotation: Annotation, losses: Losses) -> Annotation:
    if annotation.group is not None and not -(1 << 63) <= annotation.group < 1 << 63:
        losses.dropped("group", "64 bits cannot hold its number")
        annotation = dataclasses.replace(annotation, group=None)
    keep_annotation(annotation, losses)
    if not annotation.attributes and not annotation.extras:
        return annotation
    return dataclasses.replace(
        annotation,
        attributes=keep_values(annotation.attributes, "attribute", losses),
        extras=keep_values(annotation.extras, "extra", losses),
    )


class _Writer:
    """Gathers images into row groups and files."""

    def __init__(self, sink: Sink | _Memory, head: dict[str, Any], class_names: Sequence[str]) -> None:
        self._sink, self._head = sink, head
        # Arrow refuses halves of surrogate pairs; the footer, which counts, has the names as they are
        self._names = [name.encode("utf-8", "replace").decode() for name in class_names]
        self._stack = ExitStack()
        self._parquet: pq.ParquetWriter | None = None
        self._waiting: list[AnnotatedImage] = []
        self._waiting_bytes = self._file_images = self._file_bytes = self._ordinal = self._file = 0

    def __enter__(self) -> _Writer:
        return self

    def __exit__(self, kind: Any, *_: object) -> None:
        if kind is None:
            self._flush()
            self._close(last=True)
        self._stack.close()

    def add(self, image: AnnotatedImage) -> None:
        """Take one image; full row groups and files are written."""
        self._waiting.append(image)
        self._waiting_bytes += len(image.data or b"")
        if len(self._waiting) >= _GROUP_IMAGES or self._waiting_bytes >= _GROUP_BYTES:
            self._flush()
            if self._file_images >= _FILE_IMAGES or self._file_bytes >= _FILE_BYTES:
                self._close(last=False)

    def _flush(self) -> None:
        table = table_of(self._waiting, self._ordinal, self._names)
        self._opened().write_table(table, row_group_size=max(1, len(table)))
        self._ordinal += len(table)
        self._file_images += len(table)
        self._file_bytes += table.nbytes
        self._waiting, self._waiting_bytes = [], 0

    def _opened(self) -> pq.ParquetWriter:
        if self._parquet is None:
            file = self._stack.enter_context(self._sink.stream(f"data/images-{self._file:05d}.parquet", last=True))
            self._parquet = pq.ParquetWriter(file, SCHEMA, compression="zstd")
        return self._parquet

    def _close(self, *, last: bool) -> None:
        parquet = self._opened()
        head = {**self._head, "file": self._file, **({"files": self._file + 1} if last else {})}
        parquet.add_key_value_metadata({_KEY: json.dumps(head)})
        parquet.close()
        self._stack.close()
        self._parquet = None
        self._file, self._file_images, self._file_bytes = self._file + 1, 0, 0


def _category_value(category: Category, losses: Losses) -> dict[str, Any]:
    value = dataclasses.asdict(category)
    value["extras"] = keep_values(category.extras, "extra", losses)
    return {key: one for key, one in value.items() if one not in (None, {})}


# ---- reading


def _files(uri: str) -> list[str]:
    """The files of the data set form at `uri`, by their numbers."""
    if storage.exists(uri):
        return [uri]
    try:
        entries = [entry.uri for page in storage.list_pages(storage.join(uri, "data")) for entry in page]
    except ObjectNotFound:
        return []
    found = [(int(match[1]), one) for one in entries if (match := _FILE.fullmatch(one.rpartition("/")[2]))]
    return [one for _, one in sorted(found)]


def _head(uri: str) -> dict[str, Any]:
    """What the footer of one file says."""
    with storage.open(uri) as file:
        try:
            text = (pq.read_metadata(file).metadata or {}).get(_KEY.encode())
            head = None if text is None else json.loads(text)
        except (pa.ArrowException, OSError, ValueError, RecursionError) as error:
            raise BadAnnotation(uri, f"expected a whole Parquet file of a data set: {error}") from None
    if not isinstance(head, dict) or head.get("version") != _VERSION:
        found = head.get("version") if isinstance(head, dict) else None
        raise BadAnnotation(uri, f"expected {_KEY} of version {_VERSION} in its footer, found {found}")
    return head


def _check_whole(uri: str, heads: list[dict[str, Any]]) -> None:
    numbers = [head.get("file") for head in heads]
    if all((head.get("file"), head.get("files")) == (0, 1) for head in heads):
        if any(head["categories"] != heads[0]["categories"] for head in heads):
            raise BadAnnotation(uri, "its files are data sets of different classes; read them one by one")
        return
    if numbers != list(range(len(heads))) or heads[-1].get("files") != len(heads):
        expected = heads[-1].get("files", f"more than {len(heads)}")
        raise BadAnnotation(uri, f"expected {expected} files, found those numbered {numbers}")


def _category(value: dict[str, Any]) -> Category:
    """One class. Raises KeyError without a name, ValueError for a value of another kind than written."""
    colour = value.get("colour")
    if colour is not None and not (
        isinstance(colour, list) and len(colour) == 3 and all(type(v) is int for v in colour)
    ):
        raise ValueError(f"expected a colour of three whole numbers, found {colour!r}")
    category = Category(
        value["name"],
        value.get("source_id"),
        value.get("supercategory"),
        None if colour is None else (colour[0], colour[1], colour[2]),
        value.get("extras", {}),
    )
    for key, one, kinds in (
        ("name", category.name, str),
        ("source_id", category.source_id, int | None),
        ("supercategory", category.supercategory, str | None),
        ("extras", category.extras, dict),
    ):
        if not isinstance(one, kinds) or isinstance(one, bool):
            raise ValueError(f"found {one!r} as a category's {key}")
    return category


class _Images:
    """The images of all files, a row group at a time."""

    def __init__(self, files: list[str], classes: int, images: str | None, faults: Faults) -> None:
        self._files, self._classes, self._images, self._faults = files, classes, images, faults

    def __iter__(self) -> Iterator[AnnotatedImage]:
        self._faults.counts.clear()
        self._faults.messages.clear()
        names: set[int] = set()
        for uri in self._files:
            for number, row in enumerate(_rows(uri)):
                image = self._image(uri, number, row, names)
                if image is not None:
                    yield image

    def _image(self, uri: str, number: int, row: Row, names: set[int]) -> AnnotatedImage | None:
        try:
            image = row.image()
            if image.name is None or data_paths.inside(image.name) != image.name or hash(image.name) in names:
                raise ValueError(f"expected a path that no other image has as its name, found {image.name!r}")
        except ValueError as error:
            self._faults.add(uri, "image", f"row {number}", str(error))
            return None
        names.add(hash(image.name))
        annotations = []
        for k, (values, parts) in enumerate(row.instances):
            try:
                annotation = annotation_of(values, parts, image.image_hw)
                if not 0 <= annotation.category < self._classes:
                    raise ValueError(f"expected a category_id of 0 to {self._classes - 1}, found {annotation.category}")
                kind, message = shapes.fault(annotation, None) or ("", "")
            except ValueError as error:
                kind, message = "annotation", str(error)
            if kind:
                self._faults.add(uri, kind, f"row {number}, instance {k}", message)
            else:
                annotations.append(annotation)
        place = image.uri if self._images is None else data_paths.at(self._images, image.name)
        return dataclasses.replace(image, annotations=tuple(annotations), uri=place)


def _rows(uri: str) -> Iterator[Row]:
    """The rows of one file. Raises `BadAnnotation` where it has other columns or cannot be read."""
    with storage.open(uri) as file:
        try:
            parquet = pq.ParquetFile(file)
            if not parquet.schema_arrow.equals(SCHEMA):
                raise BadAnnotation(uri, f"expected the columns of a data set, found {str(parquet.schema_arrow)[:300]}")
            for group in range(parquet.num_row_groups):
                yield from rows_of(parquet.read_row_group(group))
        except (pa.ArrowException, OSError, ValueError) as error:
            raise BadAnnotation(uri, f"its rows cannot be read: {error}") from None


__all__ = ["NAME", "detect", "read", "write"]
