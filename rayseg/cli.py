"""The command line: each command parses, builds a spec, makes one call, prints what came of it.

Heavy imports happen inside the command that needs them, so that `rayseg --help` answers at once.
"""

from __future__ import annotations

import sys
from typing import Annotated, Any, Optional

import typer

from rayseg import cluster_commands
from rayseg.errors import RaysegError

app = typer.Typer(
    name="rayseg",
    help="Instance segmentation at any scale, on Ray.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

Words = Annotated[Optional[list[str]], typer.Argument(metavar="[KEY=VALUE]...", help="any field of the spec")]
_FORMATS = "coco, voc, yolo, labelme, cvat, via, cityscapes, masks, rayseg"
SpecFile = Annotated[Optional[str], typer.Option("-f", "--file", help="YAML file with the spec, see jobs/")]


@app.callback(invoke_without_command=True)
def _root(version: Annotated[bool, typer.Option("--version", help="print the version")] = False) -> None:
    if version:
        from rayseg import __version__

        typer.echo(__version__)
        raise typer.Exit


@app.command()
def demo(
    out: Annotated[str, typer.Option(help="folder for everything the demo makes")] = "rayseg-demo",
    train_seconds: Annotated[float, typer.Option(help="how long to train")] = 200.0,
) -> None:
    """Draw a data set, train a small Mask R-CNN, label images with it, verify, show a gallery. Under 5 minutes.

    Needs no network, no GPU and no arguments.
    """
    from rayseg.demo import run_demo

    raise typer.Exit(run_demo(out, train_seconds=train_seconds))


@app.command(
    epilog="""\b
Examples:
  rayseg label --images photos/ --model my-model/ --out labels/
  rayseg label --images "s3://bucket/2026/**/*.jpg" --model s3://models/m1 --out s3://bucket/labels
  rayseg label -f jobs/label.yaml score_threshold=0.3 workers=8
  rayseg label ... --dry-run --nodes 10 --price-per-node-hour 1.20
  rayseg label --images s3://lists/.../manifest.json ... --dry-run --rate 40 --nodes 100    # 100 million objects, on paper"""
)
def label(
    words: Words = None,
    images: Annotated[Optional[str], typer.Option(help="prefix, glob, list, COCO .json or inventory")] = None,
    model: Annotated[Optional[str], typer.Option(help="checkpoint folder or URI, preset name, .pth")] = None,
    out: Annotated[Optional[str], typer.Option(help="output folder, local or s3://")] = None,
    score_threshold: Annotated[Optional[float], typer.Option(help="least score that is written")] = None,
    limit: Annotated[Optional[int], typer.Option(help="only the first N images")] = None,
    file: SpecFile = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="start afresh: delete what OUT holds")] = False,
    retry_failed: Annotated[bool, typer.Option("--retry-failed", help="redo only the rows with an error")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="count, time a sample, estimate; write nothing")] = False,
    nodes: Annotated[int, typer.Option(min=1, help="with --dry-run: nodes like this one")] = 1,
    price_per_node_hour: Annotated[Optional[float], typer.Option(help="with --dry-run: for the cost")] = None,
    rate: Annotated[
        Optional[float], typer.Option(min=1e-6, help="with --dry-run: measured images/s of a node; times no sample")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="progress and result as JSON lines")] = False,
) -> None:
    """Label images into Parquet: one row per image, whatever happens on the way.

    Run the same command again after a crash or Ctrl-C: it goes on where it stopped.
    """
    from rayseg import specs
    from rayseg.label.spec import LabelSpec

    flags = {"images": images, "model": model, "out": out, "score_threshold": score_threshold, "limit": limit}
    spec = specs.build(LabelSpec, file, words or (), flags)
    if dry_run:
        from rayseg.label.estimate import estimate

        found = estimate(spec, nodes=nodes, price_per_node_hour=price_per_node_hour, rate=rate)
        _print(found.as_json() if json else found.text(), json)
        return
    from rayseg.label.run import run
    from rayseg.outputs.progress import reporter

    summary = run(spec, overwrite=overwrite, retry_failed=retry_failed, report=reporter("json" if json else "auto"))
    _print(summary.as_json() if json else summary.text(), json)


@app.command(
    epilog="""\b
Examples:
  rayseg train --data train/ --val val/ --model maskrcnn_resnet50_fpn_v2 --weights maskrcnn_resnet50_fpn_v2 --out model/
  rayseg train --data s3://bucket/coco --model my-model/ --out s3://bucket/m2 --workers 8 epochs=12
  rayseg train -f jobs/train.yaml batch_size=16 augmentation.scale_jitter=[0.5,1.5]
  rayseg train -f model/job.json --out again/"""
)
def train(
    words: Words = None,
    data: Annotated[Optional[str], typer.Option(help="annotated images to learn from, in any format")] = None,
    val: Annotated[Optional[str], typer.Option(help="annotated images to measure AP on")] = None,
    model: Annotated[Optional[str], typer.Option(help="architecture, or a checkpoint to go on from")] = None,
    weights: Annotated[Optional[str], typer.Option(help="to start from: checkpoint, .pth, torchvision's name")] = None,
    out: Annotated[Optional[str], typer.Option(help="output folder, local or s3://; becomes the checkpoint")] = None,
    workers: Annotated[
        Optional[int], typer.Option(help="processes that compute, each on a GPU if there are any")
    ] = None,
    file: SpecFile = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="start afresh: delete what OUT holds")] = False,
    json: Annotated[bool, typer.Option("--json", help="progress and result as JSON lines")] = False,
) -> None:
    """Train a Mask R-CNN on annotated images; OUT becomes a checkpoint that label and eval take.

    Run the same command again after a crash or Ctrl-C: it goes on from the last checkpoint.
    """
    from rayseg import specs
    from rayseg.train.spec import TrainSpec

    flags = {"data": data, "val": val, "model": model, "weights": weights, "out": out, "workers": workers}
    spec = specs.build(TrainSpec, file, words or (), flags)
    from rayseg.train.run import run
    from rayseg.train.watching import reporter

    summary = run(spec, overwrite=overwrite, report=reporter("json" if json else "auto"))
    _print(summary.as_json() if json else summary.text(), json)


@app.command(
    epilog="""\b
Examples:
  rayseg serve --model my-model/
  rayseg serve --model s3://models/m1 --port 9000 max_replicas=8 read_prefixes=[s3://photos]
  rayseg serve --model small=models/s --model large=models/l -f jobs/serve.yaml
  rayseg serve --new-token alice              # a token for tokens_file
  rayseg serve -f jobs/serve.yaml --print-config > serve-config.yaml    # for serve deploy, or a RayService"""
)
def serve(
    words: Words = None,
    model: Annotated[Optional[list[str]], typer.Option(metavar="URI|NAME=URI", help="once, or several by name")] = None,
    host: Annotated[Optional[str], typer.Option(help="address to listen on; others than loopback need tokens")] = None,
    port: Annotated[Optional[int], typer.Option(help="port to listen on")] = None,
    file: SpecFile = None,
    print_config: Annotated[
        bool, typer.Option("--print-config", help="print a Ray Serve config, serve nothing")
    ] = False,
    new_token: Annotated[Optional[str], typer.Option(metavar="NAME", help="make a token, serve nothing")] = None,
) -> None:
    """Answer over HTTP: one image now, or a bucket of them as a batch. The page is at /, the documentation at /docs."""
    from rayseg import specs
    from rayseg.serve.auth import new_token as made_token
    from rayseg.serve.spec import ServeSpec, models_of

    if new_token is not None:
        token, line = made_token(new_token)
        typer.echo(f"token, for the caller, shown only here:\n  {token}\nline, for tokens_file:\n  {line}")
        return
    spec = specs.build(ServeSpec, file, words or (), {"host": host, "port": port, **models_of(model or ())})
    if print_config:
        import yaml

        from rayseg.serve.application import serve_config

        _print(yaml.safe_dump(serve_config(spec), sort_keys=False).rstrip(), False)
        return
    from rayseg.serve.run import run

    run(spec, lambda what: typer.echo(what, err=True))


@app.command(
    epilog="""\b
Examples:
  rayseg tune -f jobs/tune.yaml
  rayseg tune -f jobs/tune.yaml trials=32 search.batch_size.choice=[2,4,8] --out s3://bucket/search"""
)
def tune(
    words: Words = None,
    out: Annotated[Optional[str], typer.Option(help="output folder, local or s3://")] = None,
    trials: Annotated[Optional[int], typer.Option(help="trainings, each with fields drawn anew")] = None,
    file: SpecFile = None,
    json: Annotated[bool, typer.Option("--json", help="result as one JSON object")] = False,
) -> None:
    """Search for a better training spec: trials with drawn fields, poor ones ended early; OUT/best.yaml is the best.

    Run the same command again after a crash or Ctrl-C: trials go on from their last checkpoints.
    """
    from rayseg import specs
    from rayseg.train.tune_spec import TuneSpec

    spec = specs.build(TuneSpec, file, words or (), {"out": out, "trials": trials})
    from rayseg.train.tuning import run
    from rayseg.train.watching import reporter

    summary = run(spec, report=reporter("json" if json else "lines"))
    _print(summary.as_json() if json else summary.text(), json)


@app.command(epilog="Example: rayseg verify s3://bucket/labels")
def verify(
    out: Annotated[str, typer.Argument(help="output folder of a label run")],
    json: Annotated[bool, typer.Option("--json", help="the report as one JSON object")] = False,
) -> None:
    """Prove that a label output is whole: every input exactly once, every mask valid. Exit code 1 says what is not."""
    from rayseg.outputs.verify import verify as verify_output

    report = verify_output(out)
    _print(report.as_json() if json else report.text(), json)
    if not report.ok:
        raise typer.Exit(1)


@app.command(
    epilog="""\b
Examples:
  rayseg inspect s3://bucket/coco --html look.html
  rayseg inspect annotations.json --images photos/ --no-duplicates --json
  rayseg inspect my-data/ --augment sheet.png --train-spec jobs/train.yaml"""
)
def inspect(
    uri: Annotated[str, typer.Argument(help="the data set, local or in object storage")],
    format: Annotated[
        Optional[str], typer.Option("--format", "--from", help="its format, where the files do not tell")
    ] = None,
    images: Annotated[Optional[str], typer.Option(help="folder of the images, where it is not the usual one")] = None,
    html: Annotated[Optional[str], typer.Option(help="also write a page with example overlays here")] = None,
    json: Annotated[bool, typer.Option("--json", help="the inspection as one JSON object")] = False,
    on_error: Annotated[str, typer.Option(help="what bad items do: skip counts them, raise stops")] = "skip",
    sample: Annotated[Optional[int], typer.Option(min=1, help="look at only N images, chosen by --seed")] = None,
    seed: Annotated[int, typer.Option(help="for --sample and the examples on the page")] = 0,
    duplicates: Annotated[bool, typer.Option(help="decode the images, to find near duplicates")] = True,
    strict: Annotated[bool, typer.Option("--strict", help="exit with 1 where anything was found")] = False,
    augment: Annotated[Optional[str], typer.Option(help="also write a PNG of images as training changes them")] = None,
    train_spec: Annotated[
        Optional[str], typer.Option(help="with --augment: YAML of the training; none: some of every change")
    ] = None,
) -> None:
    """Look at a data set: classes, sizes, missing images, odd annotations, near duplicates across splits.

    Exit code 0 says that it could be read; what is found is information, unless --strict.
    """
    from rayseg import datasets
    from rayseg.datasets.inspection import inspect as inspect_dataset
    from rayseg.formats import registry
    from rayseg.views.inspection_page import EXAMPLES, write_page
    from rayseg.views.progress import progress

    dataset = registry.read(uri, format, images, _on_error(on_error))
    if sample is not None:
        dataset = datasets.sample(dataset, sample, seed=seed)
    with progress("inspect") as show:
        examples = EXAMPLES if html else 0
        found = inspect_dataset(dataset, duplicates=duplicates, examples=examples, seed=seed, progress=show)
    if html:
        write_page(found, html, title=uri)
    if augment:
        _write_contact_sheet(dataset, augment, train_spec, uri, seed)
    if json:
        _print({"uri": uri} | found.as_json(), True)
    else:
        from rayseg.views.inspection import print_inspection

        print_inspection(found, uri)
    if strict and not found.clean:
        raise typer.Exit(1)


def _write_contact_sheet(dataset: Any, target: str, train_spec: Optional[str], uri: str, seed: int) -> None:
    from rayseg import datasets, specs
    from rayseg.train.contact_sheet import IMAGES, SHOWCASE, write_contact_sheet
    from rayseg.train.records import packed
    from rayseg.train.spec import TrainSpec

    settings = SHOWCASE
    if train_spec:
        spec = specs.build(TrainSpec, train_spec, (), {"data": uri, "out": target})
        settings, seed = spec.augmentation, spec.seed
    write_contact_sheet(packed(datasets.sample(dataset, IMAGES, seed=seed)), settings, target, seed=seed)


@app.command(
    epilog="""\b
Examples:
  rayseg convert coco/ yolo/ --to yolo
  rayseg convert via_project.json s3://bucket/coco --from via --to coco --images photos/
  rayseg convert cvat.xml voc/ --to voc --strict --report losses.json
  rayseg convert labels/ coco/ --to coco --classes classes.yaml --on-error skip"""
)
def convert(
    source: Annotated[str, typer.Argument(metavar="SRC", help="the data set, local or in object storage")],
    target: Annotated[str, typer.Argument(metavar="DST", help="a new or empty folder, local or s3://")],
    to: Annotated[str, typer.Option("--to", metavar="FORMAT", help=f"one of {_FORMATS}")],
    source_format: Annotated[
        Optional[str], typer.Option("--from", metavar="FORMAT", help="where the files do not tell")
    ] = None,
    images: Annotated[Optional[str], typer.Option(help="folder of SRC's images, where it is not the usual one")] = None,
    strict: Annotated[
        bool, typer.Option("--strict", help="write nothing, exit with 1, if anything would be lost")
    ] = False,
    report: Annotated[Optional[str], typer.Option(help="write the account as JSON here")] = None,
    classes: Annotated[Optional[str], typer.Option(help="YAML: rename, merge, drop, order classes")] = None,
    on_error: Annotated[str, typer.Option(help="what faulty items do: raise stops, skip counts them")] = "raise",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="replace what DST holds")] = False,
) -> None:
    """Carry a data set from one annotation format to another, and say what was kept, approximated and dropped.

    DST appears whole or not at all.
    """
    from json import dumps

    from rayseg import specs, storage
    from rayseg.formats.class_mapping import ClassMapping
    from rayseg.formats.conversion import LossyConversion
    from rayseg.formats.conversion import convert as convert_dataset
    from rayseg.views.conversion import print_conversion
    from rayseg.views.progress import phases

    mapping = specs.build(ClassMapping, classes, (), {}) if classes else None
    lossy = None
    try:
        with phases("convert", "upload") as (show, uploading):
            conversion = convert_dataset(
                source, target, to, source_format=source_format, images=images, classes=mapping, strict=strict,
                on_error=_on_error(on_error), overwrite=overwrite, progress=show,
                uploading=uploading,
            )  # fmt: skip
    except LossyConversion as error:
        conversion, lossy = error.conversion, error
    if report:
        storage.write(report, dumps(conversion.as_json(), indent=1).encode())
    if lossy is not None:
        raise lossy
    print_conversion(conversion)


@app.command(
    name="eval",
    epilog="""\b
Examples:
  rayseg eval --data val/instances.json --predictions results.json --out eval/
  rayseg eval --data val/ --predictions s3://bucket/labels --out s3://bucket/eval
  rayseg eval --data val/ --model my-model/ --out eval/
  rayseg eval --compare eval-1/ eval-2/
  rayseg eval --data val/ --compare results-1.json results-2.json""",
)
def evaluate(
    words: Words = None,
    data: Annotated[Optional[str], typer.Option(help="ground truth, in any format")] = None,
    predictions: Annotated[Optional[str], typer.Option(help="COCO results .json, or a label run's output")] = None,
    model: Annotated[Optional[str], typer.Option(help="label the images with this model first")] = None,
    out: Annotated[Optional[str], typer.Option(help="output folder, local or s3://")] = None,
    data_format: Annotated[Optional[str], typer.Option("--format", help="of the data, if that is not clear")] = None,
    images: Annotated[Optional[str], typer.Option(help="folder of the images, if not at the usual place")] = None,
    compare: Annotated[Optional[tuple[str, str]], typer.Option(help="two outputs; with --data two predictions")] = None,
    file: SpecFile = None,
    json: Annotated[bool, typer.Option("--json", help="the result as one JSON object")] = False,
) -> None:
    """Measure predictions against a ground truth: COCO's metrics, what goes wrong, and a report to look at."""
    from rayseg import specs
    from rayseg.evaluation.spec import EvalSpec

    def say(what: str) -> None:
        typer.echo(f"{what} ...", err=True)

    flags = {"data": data, "predictions": predictions, "model": model, "out": out, "images": images}
    flags["data_format"] = data_format
    if compare is not None:
        _print_comparison(compare, flags, file, words, json, say)
        return
    spec = specs.build(EvalSpec, file, words or (), flags)
    from rayseg.evaluating import run

    found = run(spec, say)
    _print(found.as_json() if json else found.text(), json)


def _print_comparison(
    pair: tuple[str, str], flags: dict[str, Any], file: Optional[str], words: Optional[list[str]], json: bool, say: Any
) -> None:
    from rayseg import specs
    from rayseg.errors import UsageError
    from rayseg.evaluating import run_comparison
    from rayseg.evaluation.spec import EvalSpec

    if flags["predictions"] or flags["model"]:
        raise UsageError("--compare names what is compared: leave out --predictions and --model")
    # the spec wants data, predictions and an output: two outputs are compared without any
    given = {name: value or (None if file else "") for name, value in flags.items() if name in ("data", "out")}
    spec = specs.build(EvalSpec, file, words or (), {**flags, **given, "predictions": pair[0]})
    settings = {name: getattr(spec, name) for name in ("draws", "confidence", "seed", "threads")}
    found = run_comparison(*pair, spec if spec.data else None, out=spec.out or None, say=say, **settings)
    _print(found.to_json() if json else found.text(), json)


cluster_commands.add_to(app)


@app.command(
    epilog="""\b
Examples:
  rayseg predict photo.jpg --model rayseg-demo/model
  rayseg predict photos/ --model my-model/ --out found.json --overlay drawn/
  rayseg predict s3://bucket/a.jpg *.png --url http://127.0.0.1:8000 --score-threshold 0.5 --classes cat,dog"""
)
def predict(
    images: Annotated[list[str], typer.Argument(metavar="IMAGE...", help="files, folders, globs, lists, s3:// URIs")],
    model: Annotated[Optional[str], typer.Option(help="checkpoint, preset, .pth; with --url a name there")] = None,
    url: Annotated[Optional[str], typer.Option(help="ask this endpoint; $RAYSEG_TOKEN is its token")] = None,
    out: Annotated[
        Optional[str], typer.Option(help="FILE.json for all, or a folder with one each; none: stdout")
    ] = None,
    overlay: Annotated[Optional[str], typer.Option(help="folder for PNGs with the instances drawn in")] = None,
    score_threshold: Annotated[Optional[float], typer.Option(min=0, max=1, help="least score")] = None,
    iou_threshold: Annotated[Optional[float], typer.Option(min=0, max=1, help="boxes that overlap more go")] = None,
    max_detections: Annotated[Optional[int], typer.Option(min=1, max=1000, help="most instances per image")] = None,
    classes: Annotated[Optional[str], typer.Option(help="only these, with commas")] = None,
    device: Annotated[Optional[str], typer.Option(help="of a model here; none: the first GPU, else the CPU")] = None,
    timeout_s: Annotated[float, typer.Option(min=0.1, help="of an endpoint, for each image")] = 60.0,
) -> None:
    """Find the instances in a few images, with a model here or an endpoint: COCO JSON on standard output or in files.

    An image that fails is said, and stops nothing; the exit code is then 1.
    """
    from rayseg import predicting
    from rayseg.views.progress import progress

    options = {"score_threshold": score_threshold, "iou_threshold": iou_threshold, "classes": classes}
    options["max_detections"] = max_detections
    source = predicting.source_of(model, url, device, timeout_s, options)
    writer = predicting.Writer(source.class_names, out, overlay)

    def told(outcome: predicting.Outcome) -> None:
        typer.echo(outcome.complaint(), err=True)

    with progress("predict") as show:
        data = predicting.run(images, source, writer, told, show)
    if data is not None:
        sys.stdout.write(data.decode() + "\n")
    typer.echo(writer.text(), err=True)
    if writer.failed:
        raise typer.Exit(1)


def main() -> None:
    """Entry point: an error of rayseg's own becomes one message and its exit code."""
    try:
        app()
    except RaysegError as error:
        typer.echo(f"rayseg: {error}", err=True)
        sys.exit(error.exit_code)


def _on_error(value: str) -> Any:
    if value not in ("raise", "skip"):
        from rayseg.errors import UsageError

        raise UsageError(f"--on-error {value!r}: expected raise or skip")
    return value


def _print(value: Any, as_json: bool) -> None:
    if as_json:
        from json import dumps

        value = dumps(value)
    typer.echo(value)


if __name__ == "__main__":
    main()
