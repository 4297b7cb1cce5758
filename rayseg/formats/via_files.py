"""VIA's four forms of a file, read whole into one: a project, bare annotations, CSV, and the JSON of VIA 1.

    project       {"_via_settings", "_via_img_metadata": {key: entry}, "_via_attributes", ...}
    annotations   {key: entry}
    via1          {key: entry}, where regions are an object instead of a list; `fileref`, `base64_img_data`
    csv           filename, file_size, file_attributes, region_count, region_id, region_shape_attributes, region_attributes

An entry has `filename`, `size`, `regions` (each with `shape_attributes` and `region_attributes`) and `file_attributes`.
Source: VIA's `via.js`, versions 1 and 2 (`pack_via_metadata`, `import_annotations_from_csv`, `project_open_parse_json_file`).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from rayseg import storage
from rayseg.formats import json_values
from rayseg.formats.faults import BadAnnotation

METADATA, ATTRIBUTES = "_via_img_metadata", "_via_attributes"
CSV_COLUMNS = (
    "filename", "file_size", "file_attributes", "region_count", "region_id", "region_shape_attributes", "region_attributes",
)  # fmt: skip
_CELL = re.compile(r'"((?:[^"]|"")*)"|([^,"]*)')
_HEAD_BYTES = 1 << 16
_MAX_BYTES = 1 << 30


@dataclass(slots=True)
class ViaFile:
    """One file: `entries` as (key, entry), `rest` what a project says besides, `problems` as (kind, item, message)."""

    uri: str
    form: str
    entries: list[tuple[str, Any]]
    rest: dict[str, Any] = field(default_factory=dict)
    problems: list[tuple[str, str, str]] = field(default_factory=list)

    def region_attributes(self) -> Iterator[dict[str, Any]]:
        """The attributes of every region that has any form."""
        for _, entry in self.entries:
            for _, region in regions_of(entry):
                attributes = region.get("region_attributes") if isinstance(region, dict) else None
                yield attributes if isinstance(attributes, dict) else {}


def form_of(uri: str) -> str | None:
    """The form that the file's first bytes are of; None for a file that is none of VIA's, and for one not to be read."""
    data = storage.read_range(uri, 0, _HEAD_BYTES)
    line = data.removeprefix(b"\xef\xbb\xbf").lstrip(b"#").partition(b"\n")[0].strip()
    if line.replace(b'"', b"").replace(b" ", b"") == ",".join(CSV_COLUMNS).encode():
        return "csv"
    keys = json_values.first_keys(data)
    if METADATA in keys or ("_via_settings" in keys and ATTRIBUTES in keys):
        return "project"
    if keys and not keys[0].startswith("_via") and b'"filename"' in data and b'"regions"' in data:
        return "annotations"
    return "project" if keys and keys[0].startswith("_via_") else None


def load(uri: str) -> ViaFile:
    """The whole of a file. Raises `BadAnnotation` for one that is none of VIA's."""
    data = storage.read(uri, max_bytes=_MAX_BYTES)
    if form_of(uri) == "csv":
        return _csv(data, uri)
    content = json_values.parsed(data, uri)
    if not isinstance(content, dict):
        raise BadAnnotation(uri, f"expected VIA's object of images, found {json_values.shown(content)}")
    if METADATA in content:
        metadata = content.pop(METADATA)
        if not isinstance(metadata, dict):
            raise BadAnnotation(uri, f"{METADATA}: expected an object of images, found {json_values.shown(metadata)}")
        return ViaFile(uri, "project", list(metadata.items()), content)
    entries = list(content.items())
    if entries and not any(isinstance(entry, dict) and "filename" in entry for _, entry in entries):
        raise BadAnnotation(uri, f"expected VIA's object of images, found the keys {', '.join(list(content)[:5])}")
    first = next((entry for _, entry in entries if isinstance(entry, dict)), {})
    is_old = "fileref" in first or "base64_img_data" in first or isinstance(first.get("regions"), dict)
    return ViaFile(uri, "via1" if is_old else "annotations", entries)


def regions_of(entry: Any) -> list[tuple[str, Any]]:
    """An entry's regions, each with what it is called in an error; none where they are neither list nor object."""
    regions = entry.get("regions") if isinstance(entry, dict) else None
    if isinstance(regions, dict):
        return [(f"regions[{key!r}]", region) for key, region in regions.items()]
    return [(f"regions[{i}]", region) for i, region in enumerate(regions)] if isinstance(regions, list) else []


def csv_rows(filename: str, size: Any, file_attributes: dict[str, Any], regions: list[dict[str, Any]]) -> Iterator[str]:
    """The lines of one image."""
    known = [_cell(filename), str(size), _cell(_json(file_attributes)), str(len(regions))]
    for i, region in enumerate(regions or [{"shape_attributes": {}, "region_attributes": {}}]):
        cells = (_cell(_json(region["shape_attributes"])), _cell(_json(region["region_attributes"])))
        yield ",".join([*known, str(i), *cells]) + "\n"


def _json(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"))


def _cell(text: str) -> str:
    if text and not any(char in text for char in ',"\r\n#'):
        return text
    return '"' + text.replace('"', '""') + '"'


def _csv(data: bytes, uri: str) -> ViaFile:
    try:
        lines = data.decode("utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise BadAnnotation(uri, f"line {line}: expected UTF-8, found other bytes") from None
    found = ViaFile(uri, "csv", [])
    entries: dict[str, dict[str, Any]] = {}
    for number, line in enumerate(lines[1:], 2):
        if not line.strip():
            continue
        try:
            _add_row(_cells(line.rstrip("\r")), entries)
        except ValueError as error:
            found.problems.append(("region", f"line {number}", str(error)))
    found.entries = list(entries.items())
    return found


def _add_row(cells: list[str], entries: dict[str, dict[str, Any]]) -> None:
    if len(cells) != len(CSV_COLUMNS):
        raise ValueError(f"expected {len(CSV_COLUMNS)} columns, found {len(cells)}")
    row = dict(zip(CSV_COLUMNS, cells, strict=True))
    file_attributes, shape, attributes = (
        _object(row[name], name) for name in ("file_attributes", "region_shape_attributes", "region_attributes")
    )
    size = int(row["file_size"]) if re.fullmatch(r"-?[0-9]{1,18}", row["file_size"]) else row["file_size"]
    entry = entries.setdefault(
        row["filename"] + row["file_size"],
        {"filename": row["filename"], "size": size, "regions": [], "file_attributes": file_attributes},
    )
    if shape or attributes:
        entry["regions"].append({"shape_attributes": shape, "region_attributes": attributes})


def _cells(line: str) -> list[str]:
    cells, at = [], 0
    while True:
        match = _CELL.match(line, at)
        if match is None or (match.end() < len(line) and line[match.end()] != ","):
            raise ValueError("expected cells parted by commas, found a quote out of its place")
        cells.append(match[2] if match[1] is None else match[1].replace('""', '"'))
        at = match.end() + 1
        if match.end() == len(line):
            return cells


def _object(text: str, name: str) -> dict[str, Any]:
    try:
        value = json.loads(text or "{}")
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise ValueError(f"expected {name} as a JSON object, found {text[:80]!r}")
    return value
