"""`rayseg eval` from the command line: what it writes, says and refuses."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import evaluation_scenes as scenes
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from rayseg import cli, specs, storage
from rayseg.errors import UsageError
from rayseg.evaluation.spec import EvalSpec


def invoke(*words):
    """The command's standard output; its own errors are raised."""
    result = CliRunner().invoke(cli.app, ["eval", *map(str, words)], catch_exceptions=False)
    assert result.exit_code == 0
    return result.stdout


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("eval")
    truth, results = scenes.scene(8, images=30)
    (folder / "truth.json").write_text(json.dumps(truth))
    (folder / "results.json").write_text(json.dumps(results))
    (folder / "worse.json").write_text(json.dumps(results[::2]))
    for name in ("results", "worse"):
        invoke(
            "--data",
            folder / "truth.json",
            "--predictions",
            folder / f"{name}.json",
            "--out",
            folder / name,
            "draws=50",
        )
    return folder, truth, results


def test_everything_is_written(files):
    folder, truth, results = files
    out = folder / "results"
    names = sorted(str(path.relative_to(out)) for path in out.rglob("*") if path.is_file())
    assert names == [
        "classes.csv", "detections.parquet", "metrics.json",
        *(f"plots/{name}.png" for name in ("calibration", "classes", "confusion", "error_kinds", "precision_recall", "sizes")),
        "report.html", "truths.parquet",
    ]  # fmt: skip
    metrics = json.loads((out / "metrics.json").read_text())
    assert list(metrics["segm"].values()) == pytest.approx(
        scenes.reference(truth, scenes.only(results, "segmentation"), "segm"), abs=1e-12, nan_ok=True
    )
    assert metrics["spec"]["predictions"] == str(folder / "results.json") and metrics["spec"]["draws"] == 50
    assert metrics["intervals"]["segm"]["AP"][0] < metrics["segm"]["AP"]


def test_the_table_of_classes(files):
    with (files[0] / "results" / "classes.csv").open() as file:
        rows = list(csv.DictReader(file))
    metrics = json.loads((files[0] / "results" / "metrics.json").read_text())
    assert [row["class"] for row in rows] == list(metrics["classes"])
    for row in rows:
        value = metrics["classes"][row["class"]]["segm"]["AP"]
        assert row["segm_AP"] == ("n/a" if value is None else str(value))
    assert "-1" not in {cell for row in rows for cell in row.values()}


def test_the_tables_of_matches_can_be_queried(files):
    folder, truth, results = files
    detections, truths = (
        pq.read_table(folder / "results" / name).to_pylist() for name in ("detections.parquet", "truths.parquet")
    )
    assert len(detections) == len(results) and len(truths) == len(truth["annotations"])
    names = {one["id"]: one["file_name"] for one in truth["images"]}
    assert {one["image"] for one in detections} == {names[one["image_id"]] for one in results}
    assert all((one["segm_matched"] & 1) == (one["segm_iou"] is not None) for one in detections)
    assert {one["error"] for one in detections} <= {
        "right",
        "class",
        "localisation",
        "both",
        "duplicate",
        "background",
        "ignored",
    }


def test_it_says_the_numbers(files):
    folder = files[0]
    arguments = ["--data", folder / "truth.json", "--predictions", folder / "results.json", "--out", folder / "again"]
    text = invoke(*arguments, "draws=20", "boundary=false")
    metrics = json.loads((folder / "results" / "metrics.json").read_text())
    assert f"{metrics['segm']['AP']:.3f}" in text and "95 % interval" in text and "report.html" in text
    said = json.loads(invoke(*arguments, "--json", "draws=0"))
    assert said["segm"] == metrics["segm"] and said["event"] == "done" and said["intervals"] == {}


def test_two_outputs_are_compared(files):
    folder = files[0]
    text = invoke("--compare", folder / "worse", folder / "results", "draws=80")
    assert "paired draws" in text and "B is better" in text
    said = json.loads(
        invoke(
            "--compare", folder / "worse", folder / "results", "--json", "--out", folder / "both", "seed=3", "draws=80"
        )
    )
    assert said == json.loads((folder / "both" / "comparison.json").read_text())
    assert said["measures"]["segm"]["AP"]["difference"] > 0 and said["settings"] == {
        "draws": 80,
        "confidence": 0.95,
        "seed": 3,
    }


def test_two_predictions_are_compared_where_the_data_are_given(files):
    folder = files[0]
    pair = [folder / "worse.json", folder / "results.json"]
    given = json.loads(invoke("--data", folder / "truth.json", "--compare", *pair, "--json", "draws=80"))
    outputs = json.loads(invoke("--compare", folder / "worse", folder / "results", "--json", "draws=80"))
    assert given["measures"] == outputs["measures"] and given["a"] == str(folder / "worse.json")
    (folder / "spec.yaml").write_text(f"data: {folder / 'truth.json'}\nout: {folder / 'third'}\ndraws: 80\n")
    assert json.loads(invoke("--compare", *pair, "--json", "-f", folder / "spec.yaml")) == given
    assert (folder / "third" / "comparison.json").exists()


def test_object_storage_is_read_and_written(files, bucket):
    folder = files[0]
    for name in ("truth.json", "results.json"):
        storage.write(f"{bucket}/{name}", (folder / name).read_bytes())
    out = f"{bucket}/evaluations/first"
    invoke("--data", f"{bucket}/truth.json", "--predictions", f"{bucket}/results.json", "--out", out, "draws=50")
    written, local = (
        json.loads(data)
        for data in (storage.read(f"{out}/metrics.json"), (folder / "results/metrics.json").read_bytes())
    )
    assert written["segm"] == local["segm"] and written["spec"]["out"] == out
    assert storage.read(f"{out}/plots/sizes.png").startswith(b"\x89PNG") and storage.exists(f"{out}/report.html")
    assert json.loads(invoke("--compare", out, folder / "results", "--json", "draws=20"))["images"] == 30


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--predictions", "x.json", "--out", "o"], "data: is required"),
        (["--data", "t.json", "--out", "o"], "either predictions or a model, found neither"),
        (
            ["--data", "t", "--out", "o", "--model", "m", "--predictions", "p"],
            "either predictions or a model, found both",
        ),
        (["--data", "t", "--out", "o", "--predictions", "p", "max_dets=[10, 1, 100]"], "three rising numbers"),
        (["--data", "t", "--out", "o", "--predictions", "p", "max_det=5"], "did you mean max_dets"),
        (
            ["--data", "t", "--out", "o", "--predictions", "p", "sizes=mine"],
            "sizes: input should be 'own' or 'loadres'",
        ),
        (["--compare", "a", "b", "--model", "m"], "leave out --predictions and --model"),
        (["--compare", "a", "b"], "expected the output of rayseg eval"),
    ],
)
def test_wrong_usage_is_named(words, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match=message.replace("[", r"\[")):
        invoke(*words)


def test_images_that_cannot_be_found_are_not_labelled(files, tmp_path):
    folder, _, _ = files
    (tmp_path / "truth.json").write_text((folder / "truth.json").read_text())
    with pytest.raises(UsageError, match="30 of 30 images of the ground truth cannot be found"):
        invoke("--data", tmp_path / "truth.json", "--model", tmp_path / "model", "--out", tmp_path / "out")


def test_the_job_file_is_a_spec_with_every_field():
    path = Path(__file__).parent.parent / "jobs" / "evaluate.yaml"
    spec = specs.build(EvalSpec, str(path), (), {})
    import yaml

    written = yaml.safe_load(path.read_text())
    assert set(written) == set(EvalSpec.model_fields)
    for name, field in EvalSpec.model_fields.items():
        if not field.is_required() and name not in ("model", "predictions"):
            assert getattr(spec, name) == field.default, name


def test_help_loads_neither_torch_nor_matplotlib():
    import subprocess
    import sys

    code = (
        "import sys\nfrom typer.testing import CliRunner\nfrom rayseg import cli\n"
        "assert '--compare' in CliRunner().invoke(cli.app, ['eval', '--help']).stdout\n"
        "assert not {'torch', 'matplotlib', 'hotcoco', 'ray', 'numba'} & set(sys.modules), sorted(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
