"""Loading by threads: the same slices as without, and nothing taken from the network's own; images that are broken."""

import itertools
import threading
from contextlib import closing

import pytest
import torch
from tiny_runs import write_data
from tiny_training import drawn

from rayseg import read
from rayseg.datasets.synthetic import generate, write_coco
from rayseg.errors import ImageError, UsageError
from rayseg.train import slice_bytes
from rayseg.train.augmentation import Augmentation
from rayseg.train.batches import training_image
from rayseg.train.loading import batches
from rayseg.train.order import Order
from rayseg.train.records import packed
from rayseg.train.stand_ins import StandIn

FLIPS = Augmentation.model_validate({"flip": 0.5})
LIVELY = Augmentation.model_validate({"flip": 0.5, "scale_jitter": [0.5, 1.5], "colour": 0.5})


@pytest.fixture
def two_threads():
    """The caller computes on two threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize(("threads", "ahead"), [(1, 0), (3, 0), (2, 4)])
def test_threads_bring_the_same_slices_in_the_same_order(threads, ahead):
    samples, order = drawn(4), Order(4, batch_size=3, micro_batch=2)
    load = [training_image(sample, str(i)) for i, sample in enumerate(samples)].__getitem__
    alone = itertools.islice(batches(load, order, FLIPS), 5)
    with closing(batches(load, order, FLIPS, threads=threads, ahead=ahead)) as source:
        for ours, theirs in zip(itertools.islice(source, 5), alone, strict=True):
            assert [list(one.names) for one in ours] == [list(one.names) for one in theirs]
            for one, other in zip(ours, theirs, strict=True):
                assert all(torch.equal(a, b) for a, b in zip(one.images, other.images, strict=True))


def test_loading_threads_compute_alone_and_the_caller_keeps_its_own(two_threads):
    samples, found = drawn(4), set[tuple[bool, int]]()

    def image_of(index):
        found.add((threading.current_thread() is threading.main_thread(), torch.get_num_threads()))
        return training_image(samples[index], str(index))

    with closing(batches(image_of, Order(4, batch_size=2, micro_batch=2), FLIPS, threads=2)) as source:
        for _ in range(3):
            next(source)
    assert found == {(False, 1)}
    later = list[int]()
    started_later = threading.Thread(target=lambda: later.append(torch.get_num_threads()))
    started_later.start()
    started_later.join()
    assert torch.get_num_threads() == 2 and later == [2]


def steps_of(records, threads, count=6):
    order = Order(len(records), batch_size=3, micro_batch=2, seed=1)
    with closing(batches(records.training_image, order, LIVELY, threads=threads)) as source:
        return [one for step in itertools.islice(source, count) for one in step]


def break_two(folder):
    """Cut one image off, and put one of another size in another one's place; their names."""
    cut, other = (folder / "data" / "images" / name for name in ("000001.jpg", "000004.jpg"))
    cut.write_bytes(cut.read_bytes()[:300])
    write_coco(folder / "other", generate(1, seed=9, size_px=48))
    other.write_bytes((folder / "other" / "images" / "000000.jpg").read_bytes())
    return {cut.name, other.name}


@pytest.mark.parametrize("threads", [0, 2])
def test_where_broken_images_are_skipped_others_stand_in_and_nothing_else_changes(tmp_path, threads):
    data = write_data(tmp_path / "data", images=6)
    records = packed(read(data, on_error="skip"))
    whole = steps_of(records, 0)
    broken = break_two(tmp_path)
    found = steps_of(records, threads)
    stood_in = set()
    for sent, expected in zip(map(slice_bytes.pack, found), whole, strict=True):
        one = slice_bytes.unpack(sent)  # as from a task
        assert (one.seed, one.weight, len(one.images)) == (expected.seed, expected.weight, len(expected.images))
        for name, image, theirs, before in zip(one.names, one.images, expected.names, expected.images, strict=True):
            if theirs in broken:
                assert isinstance(name, StandIn) and name not in broken and theirs in name.why
                stood_in.add(name.why)
            else:
                assert name == theirs and not isinstance(name, StandIn) and torch.equal(image, before)
    assert len(stood_in) == 2
    assert any("annotated as (64, 64) (height, width), the image is (48, 48)" in why for why in stood_in)


def test_a_broken_image_is_named_where_it_is_not_skipped(tmp_path):
    data = write_data(tmp_path / "data", images=6)
    records = packed(read(data))
    break_two(tmp_path)
    for rank in (1, 4):
        with pytest.raises((ImageError, UsageError), match=rf"00000{rank}\.jpg: "):
            records.training_image(rank)


def test_images_that_are_all_broken_are_no_matter_of_skipping(tmp_path):
    records = packed(read(write_data(tmp_path, images=3), on_error="skip"))
    for path in (tmp_path / "images").iterdir():
        path.unlink()
    with pytest.raises(UsageError, match="all 50 images that were tried"):
        steps_of(records, 0)
