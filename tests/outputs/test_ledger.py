"""The commit protocol: what counts, what a ghost can do (nothing), and what a finished output promises."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rayseg import storage
from rayseg.errors import JobError
from rayseg.formats.parts import RowError, rows_table
from rayseg.outputs import ledger as ledgers
from rayseg.outputs.writing import WriteJob, put_part

TOTAL = 100


@pytest.fixture
def out(tmp_path):
    return str(tmp_path)


def put(out, epoch, ordinals):
    """A part of `epoch` with one (failed) row for each of `ordinals`."""
    results = [RowError("read", "object_not_found", "gone")] * len(ordinals)
    rows = rows_table(np.array(ordinals), [f"{i}.jpg" for i in ordinals], results, ["thing"])
    return put_part(WriteJob(out, epoch, {}), rows)


def names(out):
    return {entry.uri.rpartition("/")[2] for page in storage.list_pages(storage.join(out, "data")) for entry in page}


def test_a_retried_write_lands_on_the_same_key(out):
    assert put(out, 1, [3, 1, 2]).name == put(out, 1, [1, 2, 3]).name
    assert len(names(out)) == 1
    assert put(out, 1, [1, 2]).name != put(out, 2, [1, 2]).name != put(out, 2, [1, 3]).name


def test_the_next_epoch_counts_what_the_last_one_stored(out):
    first, _ = ledgers.begin(out, TOTAL)
    parts = [put(out, first.epoch, range(0, 40)), put(out, first.epoch, range(60, 70))]
    second, _ = ledgers.begin(out, TOTAL)  # the first driver died without a word
    assert second.epoch == first.epoch + 1
    assert set(second.parts) == {part.name for part in parts}
    assert second.remaining == 50
    assert second.done.missing(0, TOTAL).tolist() == [*range(40, 60), *range(70, 100)]


def test_a_ghost_is_never_counted_and_is_removed_at_the_end(out):
    first, _ = ledgers.begin(out, TOTAL)
    put(out, first.epoch, range(0, 40))
    second, _ = ledgers.begin(out, TOTAL)
    ghost = put(out, first.epoch, range(40, 60))  # lands after the takeover
    assert second.accept(put(out, second.epoch, range(40, 80)))
    third, _ = ledgers.begin(out, TOTAL)
    assert ghost.name not in third.parts
    assert third.accept(put(out, third.epoch, range(80, 100)))
    manifest = third.finish({"failed": 100})
    assert ghost.name not in names(out)
    assert names(out) == {part["name"] for part in manifest["parts"]}
    assert sum(part["rows"] for part in manifest["parts"]) == TOTAL


def test_of_two_parts_that_share_an_ordinal_one_counts_and_the_rest_is_left_to_do(out):
    ledger, _ = ledgers.begin(out, TOTAL)
    assert ledger.accept(put(out, ledger.epoch, range(0, 10)))
    assert not ledger.accept(put(out, ledger.epoch, range(9, 20)))
    again, _ = ledgers.begin(out, TOTAL)
    assert again.done.missing(0, 20).tolist() == list(range(10, 20))


def test_a_broken_part_is_labelled_again(out):
    first, _ = ledgers.begin(out, TOTAL)
    part = put(out, first.epoch, range(0, 40))
    uri = storage.join(out, "data", part.name)
    storage.write(uri, storage.read(uri)[:-20])
    heard = []
    second, _ = ledgers.begin(out, TOTAL, say=heard.append)
    assert second.remaining == TOTAL
    assert part.name in heard[0]


def test_a_part_that_vanished_is_labelled_again(out):
    first, _ = ledgers.begin(out, TOTAL)
    part = put(out, first.epoch, range(0, 40))
    ledgers.begin(out, TOTAL)
    storage.delete(storage.join(out, "data", part.name))
    heard = []
    third, _ = ledgers.begin(out, TOTAL, say=heard.append)
    assert third.remaining == TOTAL
    assert part.name in heard[0]


def test_an_epoch_is_claimed_once(out, monkeypatch):
    ledgers.begin(out, TOTAL)
    monkeypatch.setattr(ledgers, "_last_epoch", lambda out: (0, set()))  # two drivers looked at the same moment
    with pytest.raises(JobError, match="another run claimed epoch 1"):
        ledgers.begin(out, TOTAL)


def test_an_unfinished_output_gets_no_manifest(out):
    ledger, _ = ledgers.begin(out, TOTAL)
    ledger.accept(put(out, ledger.epoch, range(0, 99)))
    with pytest.raises(JobError, match="1 of 100 images have no row yet"):
        ledger.finish({})
    assert ledgers.read_manifest(out) is None


def test_a_driver_that_finishes_second_bows_to_the_manifest_that_stands(out):
    paused, _ = ledgers.begin(out, TOTAL)
    paused.accept(put(out, paused.epoch, range(TOTAL)))
    other, _ = ledgers.begin(out, TOTAL, afresh=True)
    other.accept(put(out, other.epoch, range(TOTAL)))
    standing = paused.finish({"failed": TOTAL})
    assert other.finish({"failed": TOTAL}) == standing
    assert names(out) == {part["name"] for part in standing["parts"]}


def test_starting_afresh_leaves_the_epochs_so_that_late_parts_of_the_past_stay_ghosts(out):
    first, _ = ledgers.begin(out, TOTAL)
    first.accept(put(out, first.epoch, range(TOTAL)))
    first.finish({})
    ledgers.clear(out)
    assert ledgers.read_manifest(out) is None
    assert not ledgers.has_parts(out)
    put(out, first.epoch, range(10))
    second, _ = ledgers.begin(out, TOTAL)
    assert (second.epoch, second.remaining) == (3, TOTAL)


@settings(max_examples=30, deadline=None)
@given(
    story=st.lists(
        st.tuples(st.sampled_from(["die", "store", "ghost"]), st.integers(0, TOTAL - 1), st.integers(1, 40)),
        max_size=12,
    )
)
def test_whatever_happens_every_ordinal_ends_up_in_exactly_one_accepted_part(tmp_path_factory, story):
    out = str(tmp_path_factory.mktemp("story"))
    ledger, _ = ledgers.begin(out, TOTAL)
    for event, start, length in story:
        ordinals = range(start, min(TOTAL, start + length))
        if event == "die":
            ledger, _ = ledgers.begin(out, TOTAL)
        elif event == "ghost" and ledger.epoch > 1:
            put(out, ledger.epoch - 1, ordinals)
        else:
            ledger.accept(put(out, ledger.epoch, ordinals))
    if ledger.remaining:
        assert ledger.accept(put(out, ledger.epoch, ledger.done.missing(0, TOTAL)))
    manifest = ledger.finish({})
    rows = [i for name in names(out) for i in _ordinals(out, name)]
    assert sorted(rows) == list(range(TOTAL))
    assert {part["name"] for part in manifest["parts"]} == names(out)
    assert json.loads(storage.read(storage.join(out, "manifest.json"))) == manifest


def _ordinals(out, name):
    import pyarrow.parquet as pq

    return pq.read_table(f"{out}/data/{name}", columns=["ordinal"])["ordinal"].to_pylist()
