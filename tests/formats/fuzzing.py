"""Damaging data sets: bytes, JSON, XML and text of every format's files, with values that have hurt parsers before."""

import copy
import io
import json
import xml.etree.ElementTree as ET

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from hypothesis import strategies as st
from PIL import Image

from rayseg.annotations import AnnotatedImage, Annotation, Category, Dataset, Ellipse, Mask, Points, Polygons, Polyline
from rayseg.kernels import encode

OUTSIDE = "outside"  # a folder beside the data set that no reader has any business in

HOSTILE_TEXT = [
    "",
    " ",
    "..",
    f"../{OUTSIDE}/secret.png",
    f"../{OUTSIDE}/secret.json",
    f"a/../../{OUTSIDE}/secret.png",
    f"..\\{OUTSIDE}\\secret.png",
    "/etc/passwd",
    "file:///etc/passwd",
    "C:\\windows\\win.ini",
    "a\0b",
    "\ud800",
    "x" * 5000,
    "ümläut 熊.png",
    "nan",
    "-inf",
    "1e400",
    "0x10",
    "1_000",
    "９",
    "true",
    "9" * 400,
    "[" * 3000,
    "'",
    "&lt;",
    "%2e%2e%2f",
    "#x: [",
]
HOSTILE_NUMBERS = [0, -1, 1, 2, 0.5, -0.0, 1e-320, 1e308, -1e308, 10**9, 2**31, 2**53 + 1, 2**63, 2**64, 10**40, 65536]
HOSTILE_JSON = st.one_of(
    st.sampled_from([None, True, False, [], {}, [[]], [None], {"": None}, [[[]]], float("nan"), float("inf")]),
    st.sampled_from(HOSTILE_TEXT),
    st.sampled_from(HOSTILE_NUMBERS),
    st.sampled_from([[1, 2, 3], [0, 0, "a", 1], [float("nan")] * 8, [-1e308, 1e308] * 4, [1e9] * 6, [0] * 5, "0" * 50]),
)
TOKENS = [
    b"[" * 20_000,
    b'{"a":' * 20_000,
    b"<a>" * 5_000,
    b'<!DOCTYPE a [<!ENTITY b "bbbb"><!ENTITY c "&b;&b;&b;&b;">]>',
    b'<!DOCTYPE a [<!ENTITY b SYSTEM "file:///etc/passwd">]>',
    b"\xff\xfe",
    b"\xef\xbb\xbf",
    b"\0",
    b"NaN",
    b"1e999",
    b"-",
    b'"',
    b"\n\n",
    b"../",
    b"&b: [*b, *b]\n",
    b"!!python/object/apply:os.system [x]\n",
]


def hostile_dataset(folder):
    """Two images that hold every shape, flags, groups, scores and attributes; the pixels lie in `folder`."""
    rng = np.random.default_rng(0)
    hw = (24, 32)
    ring = np.array([(2, 2), (14, 2), (14, 14), (2, 14)], np.float64)
    hole = np.array([(5, 5), (8, 5), (8, 8), (5, 8)], np.float64)
    mask = Mask(encode(rng.random((1, *hw)) < 0.2).strings()[0], hw)
    annotations = (
        Annotation(0, (2.0, 2.0, 14.0, 14.0), Polygons(((ring, hole), (ring[:3] + 8,)))),
        Annotation(1, None, Polygons(((ring * 0.5,),)), attributes={"difficult": True, "pose": "left"}, group=3),
        Annotation(1, (0.0, 0.0, 32.0, 24.0), mask, crowd=True, score=0.5),
        Annotation(0, None, Ellipse((10.0, 12.0), (5.0, 3.0), 20.0)),
        Annotation(0, (1.0, 2.0, 5.0, 6.0)),
        Annotation(1, None, Polyline(ring)),
        Annotation(1, None, Points(ring[:2])),
    )
    images = []
    for name, split in (("a.png", "train"), ("b.png", "val")):
        buffer = io.BytesIO()
        Image.fromarray(rng.integers(0, 256, (*hw, 3), np.uint8)).save(buffer, "PNG")
        (folder / name).write_bytes(buffer.getvalue())
        images.append(AnnotatedImage(name, str(folder / name), hw, annotations, split, attributes={"site": "n"}))
    return Dataset((Category("cat", 3, "animal", (9, 8, 7)), Category("dog", 7)), images)


@st.composite
def damage(draw, files):
    """What becomes of one or two of `files`, bytes by relative name: other bytes, or None for a file that is gone."""
    changed = {}
    for _ in range(draw(st.integers(1, 2))):
        name = draw(st.sampled_from(_names_to_damage(files)))
        how = draw(
            st.sampled_from(["structure"] * 8 + ["bytes"] * 4 + ["token", "arbitrary", "other", "gone", "empty"])
        )
        data = changed.get(name) or files[name]
        if how == "structure":
            changed[name] = draw(_restructured(name, data))
        elif how == "bytes":
            changed[name] = draw(_rebitten(data))
        elif how == "token":
            at = draw(st.integers(0, len(data)))
            changed[name] = data[:at] + draw(st.sampled_from(TOKENS)) + data[at:]
        elif how == "arbitrary":
            changed[name] = draw(st.binary(max_size=200))
        elif how == "other":
            changed[name] = files[draw(st.sampled_from(sorted(files)))]
        else:
            changed[name] = b"" if how == "empty" else None
    return changed


def _names_to_damage(files):
    """What tells the annotations comes up more often than plain pictures."""
    names = sorted(files)
    text = [name for name in names if not name.endswith((".jpg", ".png"))]
    return text * 4 + names


@st.composite
def _rebitten(draw, data):
    if not data:
        return draw(st.binary(max_size=50))
    kind = draw(st.sampled_from(["flip", "cut", "drop", "double", "insert"]))
    start, end = sorted(draw(st.tuples(st.integers(0, len(data)), st.integers(0, len(data)))))
    if kind == "flip":
        flipped = bytearray(data)
        for at in draw(st.lists(st.integers(0, len(data) - 1), min_size=1, max_size=8)):
            flipped[at] ^= draw(st.integers(1, 255))
        return bytes(flipped)
    if kind == "cut":
        return data[:start]
    if kind == "drop":
        return data[:start] + data[end:]
    if kind == "double":
        return data[:end] + data[start:]
    return data[:start] + draw(st.binary(min_size=1, max_size=40)) + data[start:]


def _restructured(name, data):
    if any(token[:3000] in data for token in TOKENS[:3]):  # nested too deep for the parsers used here
        return _rebitten(data)
    try:
        if name.endswith((".json", ".manifest")):
            return _json(json.loads(data))
        if name.endswith(".xml"):
            return _xml(ET.fromstring(data))
    except (ValueError, ET.ParseError):
        return _rebitten(data)
    if name.endswith(".parquet") and data.startswith(b"PAR1") and data.endswith(b"PAR1"):
        return _table(data)
    if name.endswith((".png", ".jpg")):
        return _picture(data)
    if name.endswith((".txt", ".yaml", ".yml", ".csv")):
        return _words(data)
    return _rebitten(data)


@st.composite
def _json(draw, tree):
    return json.dumps(draw(_edited(tree))).encode()


@st.composite
def _table(draw, data):
    """Parquet with other values, in columns of the same types or of those that the values have, and other metadata."""
    try:
        file = pq.ParquetFile(io.BytesIO(data))
        table = file.read()
    except (pa.ArrowException, OSError, ValueError):
        return draw(_rebitten(data))
    metadata = {key: value for key, value in (file.metadata.metadata or {}).items() if key != b"ARROW:schema"}
    rows, same_types = draw(_edited(table.to_pylist())), draw(st.booleans())
    if metadata and draw(st.booleans()):
        key = draw(st.sampled_from(sorted(metadata)))
        metadata[key] = draw(_restructured(".json", metadata[key]))
    buffer = io.BytesIO()
    try:
        table = pa.Table.from_pylist(rows, table.schema if same_types else None)
        pq.write_table(table.replace_schema_metadata(metadata), buffer)
    except (pa.ArrowException, TypeError, ValueError, OverflowError, AttributeError):
        return data[:100] + bytes([data[100] ^ 1]) + data[101:]  # values that no column takes
    return buffer.getvalue()


@st.composite
def _edited(draw, tree):
    """Lists and dicts with up to three values replaced, removed, or repeated."""
    tree = copy.deepcopy(tree)
    for _ in range(draw(st.integers(1, 3))):
        places = list(_places(tree))
        if not places:
            break
        holder, key = draw(st.sampled_from(places))
        how = draw(st.sampled_from(["value"] * 3 + ["like"] * 3 + ["gone", "key", "twice"]))
        if how == "like":
            holder[key] = draw(_of_the_type_of(holder[key]))
        elif how == "value":
            holder[key] = copy.deepcopy(draw(HOSTILE_JSON))  # it may be damaged in its turn
        elif how == "gone":
            del holder[key]
        elif how == "key" and isinstance(holder, dict):
            holder[draw(st.sampled_from(HOSTILE_TEXT))] = holder.pop(key)
        elif isinstance(holder, list):
            holder.append(copy.deepcopy(holder[key]))
    return tree


def _of_the_type_of(value):
    if isinstance(value, bool) or value is None:
        return st.sampled_from([True, False, None])
    if isinstance(value, str):
        return st.sampled_from([text for text in HOSTILE_TEXT if text != "\ud800"])
    if isinstance(value, int):
        return st.sampled_from([0, 1, -1, 255, 65536, 2**31 - 1, -(2**31), 2**62])
    if isinstance(value, float):
        return st.sampled_from([0.0, -1.0, float("nan"), float("inf"), 1e308, 1e-320, 0.5])
    if isinstance(value, bytes):
        return st.binary(max_size=20)
    return st.sampled_from([type(value)(), None])


def _places(tree):
    keys = list(tree) if isinstance(tree, dict) else range(len(tree)) if isinstance(tree, list) else ()
    for key in keys:
        yield tree, key
        yield from _places(tree[key])


@st.composite
def _xml(draw, root):
    root = copy.deepcopy(root)
    for _ in range(draw(st.integers(1, 3))):
        element = draw(st.sampled_from(list(root.iter())))
        how = draw(st.sampled_from(["text", "attribute", "attribute", "gone", "twice", "tag", "without"]))
        value = draw(st.sampled_from([text for text in HOSTILE_TEXT if "\0" not in text and "\ud800" not in text]))
        value = draw(st.sampled_from([value, str(draw(st.sampled_from(HOSTILE_NUMBERS))), "1,2;3", "1,2;3,4;nan,5"]))
        children, names = list(element), sorted(element.attrib)
        if how == "text":
            element.text = value
        elif how == "attribute" and names:
            element.set(draw(st.sampled_from(names)), value)
        elif how == "without" and names:
            del element.attrib[draw(st.sampled_from(names))]
        elif how == "tag":
            element.tag = draw(st.sampled_from(sorted({other.tag for other in root.iter()})))
        elif children and how in ("gone", "twice"):
            child = draw(st.sampled_from(children))
            (element.remove if how == "gone" else element.append)(child)
    return ET.tostring(root)


@st.composite
def _words(draw, data):
    """Text with some of its words, numbers and lines replaced, removed or repeated."""
    lines = data.decode("utf-8", "replace").split("\n")
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(lines) - 1))
        separator = "," if "," in lines[at] else " "
        words = lines[at].split(separator)
        k = draw(st.integers(0, len(words) - 1))
        how = draw(st.sampled_from(["word"] * 4 + ["gone", "line", "twice", "indent"]))
        if how == "word":
            words[k] = draw(st.sampled_from([*HOSTILE_TEXT, *map(str, HOSTILE_NUMBERS), "*a", "&a", "[]", "{}", "- -"]))
        elif how == "gone":
            del words[k]
        lines[at] = separator.join(words)
        if how == "line":
            lines[at] = ""
        elif how == "twice":
            lines.insert(at, lines[at])
        elif how == "indent":
            lines[at] = "   " + lines[at]
    return "\n".join(lines).encode("utf-8", "surrogatepass")


@st.composite
def _picture(draw, data):
    """A picture of another size, mode or format."""
    mode = draw(st.sampled_from(["RGB", "RGBA", "L", "LA", "P", "1", "I;16", "I", "CMYK"]))
    size = draw(st.sampled_from([(32, 24), (24, 32), (1, 1), (33, 24), (300, 2)]))
    picture = Image.new("RGB", size, draw(st.sampled_from(["black", "red", "#010203", "white"])))
    if mode.startswith("I"):
        gray = np.asarray(picture.convert("L")).astype(np.uint16 if mode == "I;16" else np.int32)
        picture = Image.fromarray(gray * 200)
    else:
        picture = picture.convert(mode)
    buffer = io.BytesIO()
    picture.save(buffer, "TIFF" if mode in ("I", "CMYK") else draw(st.sampled_from(["PNG", "PNG", "TIFF"])))
    return buffer.getvalue()
