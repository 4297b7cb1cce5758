"""What a run says of itself: which stage holds it up, and how long it will take."""

import json

import pytest

from rayseg.outputs.progress import JsonReporter, LineReporter, Meter, Snapshot, add_seconds, bottleneck, clock


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        ({}, "starting"),
        ({"read": 1, "decode": 9, "idle": 8, "detect": 2, "finish": 0}, "decode starves the model: add CPUs"),
        ({"read": 9, "decode": 1, "idle": 8, "detect": 2, "finish": 0}, "storage starves the model: reads are slow"),
        ({"read": 1, "decode": 1, "idle": 0.1, "detect": 9, "finish": 1}, "the model is the limit: add GPUs or nodes"),
        ({"read": 1, "decode": 1, "idle": 0.1, "detect": 1, "finish": 5}, "mask encoding holds the model up"),
    ],
)
def test_the_bottleneck_is_named_in_words(seconds, words):
    assert bottleneck(seconds).startswith(words)


@pytest.mark.parametrize(("seconds", "text"), [(0, "0:00"), (59.6, "1:00"), (3599, "59:59"), (3600, "1:00:00")])
def test_clock(seconds, text):
    assert clock(seconds) == text


def test_a_resumed_run_counts_from_what_is_stored_and_never_past_the_total():
    meter = Meter(total=100, stored=60, failed=2)
    assert (meter.snapshot().done, meter.snapshot().rate, meter.snapshot().eta_s) == (60, 0.0, None)
    for _ in range(3):
        meter.labelled(16)
    snapshot = meter.snapshot()
    assert snapshot.done == 100
    meter.part(40, 1, {"detect": 1.0})
    assert (meter.snapshot().stored, meter.snapshot().failed) == (100, 3)


SNAPSHOT = Snapshot(500, 2000, 3, 400, 12.5, 120.0, 40.0, "decode starves the model: add CPUs")


def test_lines_come_once_per_interval_and_hold_the_figures(capsys):
    reporter = LineReporter(every_s=3600)
    reporter.show(SNAPSHOT)
    reporter.show(SNAPSHOT)
    assert (
        capsys.readouterr().err == "500/2,000 images, 12.5/s, 2:00 left, 3 failed; decode starves the model: add CPUs\n"
    )


def test_json_lines_are_json(capsys):
    reporter = JsonReporter(every_s=0)
    reporter.say("resuming")
    reporter.show(SNAPSHOT)
    message, progress = (json.loads(line) for line in capsys.readouterr().out.splitlines())
    assert message == {"event": "message", "message": "resuming"}
    assert (progress["event"], progress["done"], progress["eta_s"]) == ("progress", 500, 120.0)


def test_seconds_add_up_by_stage():
    assert add_seconds([{"read": 1.0}, {"read": 2.0, "idle": 3.0}]) == {"read": 3.0, "idle": 3.0}
