import csv
import io
import json
import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rayseg import storage
from rayseg.errors import ObjectNotFound, StorageError, UsageError
from rayseg.outputs import inputs, lists
from rayseg.outputs.inputs import Inputs, plan_inputs
from rayseg.outputs.repeats import Repeats

DATA = Path(os.environ.get("RAYSEG_TEST_DATA", Path(__file__).parents[3] / "shared" / "data"))


def touch(folder: Path, *names: str) -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x" * len(name))


def uris(found: Inputs) -> list[str]:
    return [entry.uri for page in found.pages() for entry in page]


def names(found: Inputs, folder: Path) -> list[str]:
    return [uri.removeprefix(f"{folder}/") for uri in uris(found)]


@pytest.fixture
def objects(monkeypatch: pytest.MonkeyPatch) -> dict[str, bytes]:
    """Objects in a bucket, for lists and what they name."""
    found: dict[str, bytes] = {}
    monkeypatch.setattr(storage, "open", lambda uri: io.BytesIO(found[uri]))
    monkeypatch.setattr(storage, "exists", lambda uri: uri in found)
    return found


# ---- folders, globs, one file


def test_a_folder_gives_every_file_that_may_be_an_image(tmp_path: Path):
    kept = ["UPPER.JPG", "a b (1) é 图.jpg", "deep/er/x.png", "jpeg2000.jp2", "no_extension", "raw.CR2", ".hidden.jpg"]
    left_out = ["_annotations.JSON", "deep/x.txt", ".git/objects/ab", "deep/.cache/y.jpg", ".DS_Store", "._UPPER.JPG"]
    touch(tmp_path, *kept, *left_out, "deep/z.txt")
    found = plan_inputs(str(tmp_path))
    assert found.kind == "folder"
    assert sorted(names(found, tmp_path)) == sorted(kept)
    assert found.skipped == {".json": 1, ".txt": 2, "in a hidden folder": 2, "system file": 2}


def test_sizes_and_pages_come_from_the_listing(tmp_path: Path):
    touch(tmp_path, *(f"{i:04d}.jpg" for i in range(1500)))
    pages = list(plan_inputs(f"{tmp_path}/").pages())
    assert [len(page) for page in pages] == [1000, 500]
    assert {entry.size_bytes for page in pages for entry in page} == {8}


def test_a_hidden_folder_above_the_images_hides_nothing(tmp_path: Path):
    touch(tmp_path, ".data/a.jpg", ".data/b/c.jpg")
    assert len(uris(plan_inputs(f"{tmp_path}/.data"))) == 2
    assert len(uris(plan_inputs(f"{tmp_path}/.data/**/*.jpg"))) == 2


def test_every_odd_image_is_an_input():
    odd = DATA / "odd_images"
    if not odd.is_dir():
        pytest.skip(f"no {odd}")
    found = plan_inputs(str(odd))
    assert sorted(uris(found)) == sorted(str(path) for path in odd.rglob("*") if path.is_file())
    assert not found.skipped


def test_a_glob_takes_what_matches_and_leaves_sidecars_out(tmp_path: Path):
    touch(tmp_path, "a/1.jpg", "a/2.png", "b/3.jpg", "b/3.json", "c.jpg")
    assert names(plan_inputs(f"{tmp_path}/*/*.jpg"), tmp_path) == ["a/1.jpg", "b/3.jpg"]
    found = plan_inputs(f"{tmp_path}/b/*")
    assert names(found, tmp_path) == ["b/3.jpg"]
    assert found.skipped == {".json": 1}


def test_a_folder_named_like_a_glob_or_a_list_is_a_folder(tmp_path: Path):
    touch(tmp_path, "trip [2024]/a.jpg", "notes.txt/b.jpg")
    assert len(uris(plan_inputs(f"{tmp_path}/trip [2024]"))) == 1
    assert len(uris(plan_inputs(f"{tmp_path}/notes.txt/"))) == 1


def test_one_image_is_itself(tmp_path: Path):
    touch(tmp_path, "a.jpg", "a.jpg.jpg")
    assert [tuple(e) for page in plan_inputs(f"{tmp_path}/a.jpg").pages() for e in page] == [(f"{tmp_path}/a.jpg", 5)]


def test_a_relative_path_becomes_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    touch(tmp_path, "photos/a.jpg")
    (tmp_path / "list.txt").write_text("photos/a.jpg\n")
    monkeypatch.chdir(tmp_path)
    assert uris(plan_inputs("photos")) == uris(plan_inputs("list.txt")) == [f"{tmp_path}/photos/a.jpg"]


def test_nothing_to_label_is_an_error_that_counts_what_was_left_out(tmp_path: Path):
    touch(tmp_path, "a.json", "b.json", "empty.txt")
    with pytest.raises(ObjectNotFound, match=r"no images under it \(left out: 2 \.json, 1 \.txt\)"):
        uris(plan_inputs(str(tmp_path)))
    with pytest.raises(ObjectNotFound, match="missing"):
        uris(plan_inputs(f"{tmp_path}/missing"))
    with pytest.raises(ObjectNotFound, match="no images in it"):
        uris(plan_inputs(f"{tmp_path}/*.png"))
    (tmp_path / "empty.txt").write_text("# nothing\n\n")
    with pytest.raises(ObjectNotFound, match=r"empty\.txt: no images in it"):
        uris(plan_inputs(f"{tmp_path}/empty.txt"))


# ---- text lists


def test_a_text_list_resolves_relative_lines_against_its_folder(objects: dict[str, bytes]):
    objects["s3://b/lists/a.txt"] = (
        "\ufeff# comment\r\n\r\nx.jpg\r\n  sub/y z.jpg  \n/abs/é.jpg\ns3://other/k#1.jpg\n../up.jpg\n./here.jpg\n"
        "../../../over.jpg\nlast\u2028one.jpg"
    ).encode()
    assert uris(plan_inputs("s3://b/lists/a.txt")) == [
        "s3://b/lists/x.jpg",
        "s3://b/lists/sub/y z.jpg",
        "/abs/é.jpg",
        "s3://other/k#1.jpg",
        "s3://b/up.jpg",
        "s3://b/lists/here.jpg",
        "s3://b/over.jpg",
        "s3://b/lists/last\u2028one.jpg",
    ]
    assert uris(plan_inputs("s3://b/lists/a.txt", root="s3://photos/2026/"))[:2] == [
        "s3://photos/2026/x.jpg",
        "s3://photos/2026/sub/y z.jpg",
    ]


def test_names_below_a_file_uri_are_encoded_as_it_is(tmp_path: Path):
    touch(tmp_path, "a b%20.jpg", "up.jpg")
    (tmp_path / "lists").mkdir()
    (tmp_path / "lists" / "a.txt").write_text("../a b%20.jpg\n../up.jpg\n")
    found = uris(plan_inputs(f"file://{tmp_path}/lists/a.txt"))
    assert found == [f"file://{tmp_path}/a%20b%2520.jpg", f"file://{tmp_path}/up.jpg"]
    assert all(storage.exists(uri) for uri in found)


def test_sizes_of_a_text_list_are_unknown(objects: dict[str, bytes]):
    objects["s3://b/a.lst"] = b"a\nb\n"
    assert [tuple(e) for page in plan_inputs("s3://b/a.lst").pages() for e in page] == [
        ("s3://b/a", -1),
        ("s3://b/b", -1),
    ]


@given(
    st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\n\r"), max_size=12), max_size=20),
    st.integers(1, 30),
)
def test_text_lines_survive_any_cut_of_the_stream(lines: list[str], read_bytes: int):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(storage, "open", lambda _: io.BytesIO("\n".join(lines).encode()))
        patch.setattr(lists, "_READ_BYTES", read_bytes)
        found = list(lists.text_uris("s3://b/a.txt"))
    bare = [line.removeprefix("\ufeff") if i == 0 else line for i, line in enumerate(lines)]
    assert found == [line.strip() for line in bare if line.strip() and not line.strip().startswith("#")]


def test_a_text_list_of_other_bytes_is_named_with_its_line(objects: dict[str, bytes], monkeypatch: pytest.MonkeyPatch):
    objects["s3://b/a.txt"] = b"a.jpg\n" * 1000 + b"b\xff.jpg\nc.jpg\n"
    monkeypatch.setattr(lists, "_READ_BYTES", 700)
    with pytest.raises(StorageError, match=r"s3://b/a\.txt: line 1001: holds bytes that are not UTF-8"):
        uris(plan_inputs("s3://b/a.txt"))


def test_a_picture_given_as_a_list_is_refused(objects: dict[str, bytes], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(lists, "_LINE_BYTES_MAX", 1000)
    monkeypatch.setattr(lists, "_READ_BYTES", 100)
    objects["s3://b/a.txt"] = b"x" * 5000
    with pytest.raises(StorageError, match="line 1: endless"):
        uris(plan_inputs("s3://b/a.txt"))


def test_a_missing_list_is_an_error(tmp_path: Path):
    for name in ("a.txt", "a.csv", "a.json"):
        with pytest.raises(ObjectNotFound, match=name):
            uris(plan_inputs(f"{tmp_path}/{name}"))
    with pytest.raises(StorageError, match=r"a\.parquet"):
        uris(plan_inputs(f"{tmp_path}/a.parquet"))


# ---- repeats


def test_a_uri_that_comes_again_is_one_input(objects: dict[str, bytes], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(inputs, "PAGE_ENTRIES", 4)
    objects["s3://b/a.txt"] = "\n".join(["a", "b", "a", "c", "./b", "d", "s3://b/a", "e", "e"]).encode()
    found = plan_inputs("s3://b/a.txt")
    assert uris(found) == [f"s3://b/{name}" for name in "abcde"]
    assert found.skipped == {"repeated": 4}


@given(st.lists(st.lists(st.integers(0, 300).map(str), max_size=40), max_size=30))
@settings(max_examples=60)
def test_repeats_are_found_like_with_a_set(batches: list[list[str]]):
    repeats, seen = Repeats(), set()
    for batch in batches:
        expected = []
        for uri in batch:
            expected.append(uri not in seen)
            seen.add(uri)
        assert repeats.fresh(batch).tolist() == expected


def test_repeats_takes_few_bytes_a_uri():
    repeats = Repeats()
    for start in range(0, 100_000, 1000):
        assert repeats.fresh([f"s3://bucket/{i}" for i in range(start, start + 1000)]).all()
    assert sum(keys.nbytes + checks.nbytes for keys, checks in repeats._runs) == 12 * 100_000
    assert not repeats.fresh([f"s3://bucket/{i}" for i in np.random.default_rng(0).permutation(100_000).tolist()]).any()


# ---- CSV


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("ending", ["\n", "\r\n"])
def test_a_csv_column_as_any_tool_writes_it(objects: dict[str, bytes], delimiter: str, ending: str):
    text = io.StringIO()
    writer = csv.writer(text, delimiter=delimiter, lineterminator=ending)
    values = ["a.jpg", 'quote " and, semi; tab\t.jpg', "line\nbreak.jpg", "", "é.jpg"]
    writer.writerows([["id", "Image", "n"], *([i, value, i * i] for i, value in enumerate(values))])
    objects["s3://b/t.csv"] = text.getvalue().encode()
    assert uris(plan_inputs("s3://b/t.csv")) == [f"s3://b/{value}" for value in values if value]
    assert uris(plan_inputs("s3://b/t.csv", column="n")) == [f"s3://b/{i * i}" for i in range(5)]


def test_the_column_is_the_named_one_or_the_first_known(objects: dict[str, bytes]):
    objects["s3://b/t.csv"] = b"file_name,uri,label\nx,y,z\n"
    assert uris(plan_inputs("s3://b/t.csv")) == ["s3://b/y"]
    assert uris(plan_inputs("s3://b/t.csv", column="label")) == ["s3://b/z"]
    with pytest.raises(UsageError, match=r"column: no 'nope' in s3://b/t\.csv; it has file_name, uri, label"):
        uris(plan_inputs("s3://b/t.csv", column="nope"))
    objects["s3://b/t.csv"] = b"s3://b/1.jpg,cat\ns3://b/2.jpg,dog\n"
    with pytest.raises(UsageError, match=r"say which of its columns holds the images: s3://b/1\.jpg, cat"):
        uris(plan_inputs("s3://b/t.csv"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("uri,n\na,1\nb\n", "line 3: expected 2 columns, found 1"),
        ("uri,n\na,1\n\nb, c.jpg,1\n", "line 4: expected 2 columns, found 3"),
        ('uri,n\na,1\n"b,1\nc,1\n', "line 4: malformed CSV: unexpected end of data"),
        ("uri\na\nb\xff\n", "line 3: holds bytes that are not UTF-8"),
    ],
)
def test_a_malformed_csv_is_named_with_its_line(objects: dict[str, bytes], text: str, message: str):
    objects["s3://b/t.csv"] = text.encode("latin-1")
    with pytest.raises(StorageError, match=rf"s3://b/t\.csv: {message}"):
        uris(plan_inputs("s3://b/t.csv"))


# ---- Parquet


def test_a_parquet_list_brings_its_sizes(tmp_path: Path):
    table = pa.table({"uri": ["a", None, "b", "", "c"], "size": [1, 2, None, 4, 5]})
    pq.write_table(table, tmp_path / "l.parquet", row_group_size=2)
    found = [tuple(e) for page in plan_inputs(f"{tmp_path}/l.parquet").pages() for e in page]
    assert found == [(f"{tmp_path}/a", 1), (f"{tmp_path}/b", -1), (f"{tmp_path}/c", 5)]


def test_a_folder_of_parquet_and_dictionary_columns(tmp_path: Path):
    for i in range(3):
        column = pa.array([f"s3://b/{i}", "s3://b/same"]).dictionary_encode()
        (tmp_path / "l.parquet").mkdir(exist_ok=True)
        pq.write_table(pa.table({"my column": column}), tmp_path / "l.parquet" / f"part-{i}.parquet")
    (tmp_path / "l.parquet" / "_SUCCESS").touch()
    found = plan_inputs(f"{tmp_path}/l.parquet", column="my column")
    assert uris(found) == ["s3://b/0", "s3://b/same", "s3://b/1", "s3://b/2"]


def test_a_parquet_list_that_is_none(tmp_path: Path):
    path = tmp_path / "l.parquet"
    path.write_bytes(b"PAR1 no")
    with pytest.raises(StorageError, match=r"l\.parquet: not a Parquet list"):
        uris(plan_inputs(str(path)))
    pq.write_table(pa.table({"image": [1, 2], "b": ["x", "y"]}), path)
    with pytest.raises(UsageError, match=r"column: image of .*l\.parquet holds int64, expected strings"):
        uris(plan_inputs(str(path)))
    with pytest.raises(UsageError, match=r"no 'c' in .*; it has image, b"):
        uris(plan_inputs(str(path), column="c"))


# ---- COCO


def coco(*file_names: str) -> bytes:
    return json.dumps({"images": [{"id": i, "file_name": name} for i, name in enumerate(file_names)]}).encode()


@pytest.mark.parametrize(
    ("place", "json_name"),
    [
        ("d/annotations", "instances_val2017"),
        ("d/annotations/images", "instances_val2017"),
        ("d/images", "instances_val2017"),
        ("d/val2017", "instances_val2017"),
        ("d/images/val2017", "instances_val2017"),
        ("d", "coco"),
    ],
)
def test_images_of_a_coco_file_are_found_in_the_usual_places(objects: dict[str, bytes], place: str, json_name: str):
    uri = f"s3://b/d/annotations/{json_name}.json"
    objects[uri] = coco("gone.jpg", "2.jpg", "also gone.jpg")
    objects[f"s3://b/{place}/2.jpg"] = b""
    assert uris(plan_inputs(uri)) == [f"s3://b/{place}/{name}" for name in ("gone.jpg", "2.jpg", "also gone.jpg")]


def test_a_root_is_where_coco_images_are(objects: dict[str, bytes]):
    objects |= {"s3://b/c.json": coco("1.jpg"), "s3://b/1.jpg": b"", "s3://b/elsewhere/1.jpg": b""}
    assert uris(plan_inputs("s3://b/c.json", root="s3://b/elsewhere")) == ["s3://b/elsewhere/1.jpg"]


def test_coco_images_that_are_nowhere_are_a_clear_error(objects: dict[str, bytes]):
    objects["s3://b/d/c.json"] = coco(*(f"{i}.jpg" for i in range(100)))
    with pytest.raises(
        UsageError, match=r"none of the first 20 images of s3://b/d/c\.json \(such as 0\.jpg\).*s3://b/d/im"
    ):
        uris(plan_inputs("s3://b/d/c.json"))


def test_the_real_coco_sample_is_found():
    annotations = DATA / "coco_small" / "annotations"
    if not annotations.is_dir():
        pytest.skip(f"no {annotations}")
    (path,) = [path for path in annotations.iterdir() if "val" in path.name]
    found = uris(plan_inputs(str(path)))
    assert sorted(found) == sorted(str(image) for image in (DATA / "coco_small" / "val2017").iterdir())


# ---- arguments


def test_arguments_that_mean_nothing_here_are_refused(tmp_path: Path):
    with pytest.raises(UsageError, match=r"column: 'uri' given"):
        plan_inputs(str(tmp_path), column="uri")
    with pytest.raises(UsageError, match=r"images_root: 's3://b' given"):
        plan_inputs(str(tmp_path), root="s3://b")
