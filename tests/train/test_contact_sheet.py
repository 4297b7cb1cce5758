"""A contact sheet shows each image as it is, then as training sees it."""

import io

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from rayseg import cli, read
from rayseg.datasets.synthetic import generate, write_coco
from rayseg.train.augmentation import Augmentation
from rayseg.train.contact_sheet import contact_sheet, write_contact_sheet
from rayseg.train.records import packed


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    root = tmp_path_factory.mktemp("data")
    write_coco(root, generate(3, seed=0, size_px=64, max_objects=2))
    return root


def tile(sheet, row, column):
    return sheet[4 + row * 68 : 68 + row * 68, 4 + column * 68 : 68 + column * 68]


def test_a_row_is_the_image_and_then_its_epochs(data):
    records = packed(read(str(data)))
    sheet = contact_sheet(records, Augmentation(flip=1.0), seed=0, epochs=2, tile_px=64)
    assert sheet.shape == (3 * 68 + 4, 3 * 68 + 4, 3)
    for row in range(3):
        plain, image = tile(sheet, row, 0), records.training_image(row)
        outside = ~image.dense_masks().any(axis=0)
        edges = np.zeros_like(outside)
        for x1, y1, x2, y2 in image.boxes_xyxy.astype(int):
            edges[y1:y2, [x1, x2 - 1]] = edges[[y1, y2 - 1], x1:x2] = True
        assert np.array_equal(plain[outside & ~edges], image.image[outside & ~edges])
        assert not np.array_equal(plain[~outside], image.image[~outside])
        for column in (1, 2):
            assert np.array_equal(tile(sheet, row, column), plain[:, ::-1])


def test_the_sheet_is_a_png_wherever_it_is_written(data, tmp_path):
    target = tmp_path / "sheet.png"
    size_bytes = write_contact_sheet(packed(read(str(data))), Augmentation(), str(target), epochs=1, tile_px=32)
    assert target.stat().st_size == size_bytes and Image.open(target).size == (2 * 36 + 4, 3 * 36 + 4)


def test_the_command_takes_the_augmentation_of_a_training_spec(data, tmp_path):
    spec, sheets = tmp_path / "train.yaml", [tmp_path / "a.png", tmp_path / "b.png"]
    spec.write_text("data: elsewhere\nout: there\nmodel: maskrcnn_resnet10_fpn\naugmentation: {flip: 0}\n")
    for sheet, options in zip(sheets, ([], ["--train-spec", str(spec)]), strict=True):
        words = ["inspect", str(data), "--no-duplicates", "--augment", str(sheet), *options]
        assert CliRunner().invoke(cli.app, words).exit_code == 0
    every, none = (np.asarray(Image.open(io.BytesIO(sheet.read_bytes()))) for sheet in sheets)
    columns = [none[:, 4 + k * 260 : 260 + k * 260] for k in range(6)]
    assert all(np.array_equal(columns[0], column) for column in columns[1:])
    assert every.shape == none.shape and not np.array_equal(every, none)
