"""Checkpoint folders, their cache, presets and foreign state dicts: what loads, and what is said of what does not."""

from __future__ import annotations

import http.server
import json
import pickle
import re
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torchvision.models import detection

import rayseg
from rayseg import storage
from rayseg.errors import ModelError
from rayseg.models import cache, checkpoints, presets
from rayseg.models.architectures import ARCHITECTURES, settings_of
from rayseg.models.maskrcnn import build
from rayseg.models.predictor import from_model

ARCHITECTURE = "maskrcnn_resnet10_fpn"
NAMES = ["cat", "dog", "owl"]


@pytest.fixture(scope="module")
def network(lively):
    return lively(ARCHITECTURE)


@pytest.fixture
def folder(network, tmp_path):
    """A whole checkpoint folder."""
    model, settings = network
    checkpoints.save(str(tmp_path / "ckpt"), model, ARCHITECTURE, settings, NAMES, metrics={"mask_ap": 0.5})
    return tmp_path / "ckpt"


@pytest.fixture(autouse=True)
def cache_root(tmp_path, monkeypatch):
    monkeypatch.setenv("RAYSEG_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    return tmp_path / "cache"


def edit_card(folder: Path, **changes) -> None:
    card = json.loads((folder / "model.json").read_text())
    card.update(changes)
    (folder / "model.json").write_text(json.dumps(card))


def said_of(uri: object) -> str:
    with pytest.raises(ModelError) as caught:
        rayseg.load(str(uri), "cpu")
    return str(caught.value)


def test_a_saved_model_predicts_as_before(network, folder, noise):
    model, settings = network
    (expected,) = from_model(model, ARCHITECTURE, settings, NAMES, "cpu").predict([noise(64, 96)])
    loaded = rayseg.load(str(folder), "cpu")
    (found,) = loaded.predict([noise(64, 96)])
    np.testing.assert_array_equal(found.boxes_xyxy, expected.boxes_xyxy)
    assert found.rles == expected.rles and len(found) > 0
    assert loaded.class_names == tuple(NAMES)
    assert (loaded.architecture, loaded.device) == (ARCHITECTURE, "cpu")


def test_describing_needs_no_weights(folder):
    fingerprint = rayseg.load(str(folder), "cpu").fingerprint
    (folder / "model.safetensors").unlink()
    info = checkpoints.describe(str(folder))
    assert (info.architecture, info.class_names, info.fingerprint) == (ARCHITECTURE, tuple(NAMES), fingerprint)
    assert info.metrics == {"mask_ap": 0.5}
    assert (info.preprocess.min_size, info.thresholds.max_detections) == (64, 25)


def test_the_fingerprint_follows_everything_that_matters(network, tmp_path):
    model, settings = network
    other = build(ARCHITECTURE, 3, settings)
    variants = [
        (model, settings, NAMES, {}),
        (model, settings, NAMES, {"training": {"epochs": 3}, "metrics": {"ap": 1}}),
        (other, settings, NAMES, {}),
        (model, settings.model_copy(update={"min_size": 65}), NAMES, {}),
        (model, settings, ["cat", "dog", "eel"], {}),
    ]
    prints = [
        checkpoints.save(str(tmp_path / str(i)), m, ARCHITECTURE, s, names, **notes).fingerprint
        for i, (m, s, names, notes) in enumerate(variants)
    ]
    assert prints[0] == prints[1], "how it was trained does not matter"
    assert len(set(prints)) == 4


def test_an_interrupted_save_does_not_look_whole(network, tmp_path, monkeypatch):
    model, settings = network
    written = []

    def failing(uri, data):
        if written:
            raise OSError("disk full")
        written.append(uri)

    monkeypatch.setattr(storage, "write", failing)
    with pytest.raises(OSError, match="disk full"):
        checkpoints.save(str(tmp_path / "half"), model, ARCHITECTURE, settings, NAMES)
    assert [uri.rsplit("/", 1)[1] for uri in written] == ["model.safetensors"]


def test_file_uris_are_local(folder):
    assert rayseg.load(folder.as_uri(), "cpu").class_names == tuple(NAMES)


@pytest.mark.parametrize("size_bytes", [0, 100, -1])
def test_truncated_weights(folder, size_bytes):
    weights = folder / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:size_bytes])
    said = said_of(folder)
    assert "model.safetensors" in said and f"{len(whole)} bytes" in said


def test_garbled_weights(folder):
    weights = folder / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[len(data) // 2] ^= 1
    weights.write_bytes(data)
    assert "damaged" in said_of(folder) and "model.safetensors" in said_of(folder)


def test_missing_weights(folder):
    (folder / "model.safetensors").unlink()
    assert "model.safetensors" in said_of(folder) and "no file" in said_of(folder)


def put_weights(folder: Path, tensors: dict[str, torch.Tensor] | bytes) -> None:
    """Replace the weights, and make the card agree with the new bytes."""
    path = folder / "model.safetensors"
    path.write_bytes(tensors) if isinstance(tensors, bytes) else save_file(tensors, path)
    weights = {"size_bytes": path.stat().st_size, "sha256": cache.sha256_of(path)}
    edit_card(folder, weights=weights, fingerprint=None)


def test_weights_that_are_not_safetensors(folder):
    put_weights(folder, b"not tensors at all" * 10)
    assert "expected safetensors" in said_of(folder)


def test_weights_of_another_network(folder):
    tensors = load_file(folder / "model.safetensors")
    name = "roi_heads.box_predictor.cls_score.weight"
    put_weights(folder, {k: v for k, v in tensors.items() if k != name})
    assert f"{name} is missing" in said_of(folder)
    put_weights(folder, {**tensors, "surplus": torch.zeros(2)})
    assert "surplus is not expected" in said_of(folder)
    put_weights(folder, {**tensors, name: tensors[name][:2]})
    assert f"{name} is (2, 128), expected (4, 128)" in said_of(folder)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"architecture": "maskrcnn_resnet1O_fpn"}, "did you mean maskrcnn_resnet10_fpn"),
        ({"format": 2}, "found 2"),
        ({"class_names": "cat"}, "class_names"),
        ({"class_names": []}, "class_names"),
        ({"settings": {"min_sise": 3}}, "settings.min_sise"),
        ({"settings": {"min_size": "large"}}, "settings.min_size"),
        ({"settings": {"anchor_sizes": [[8], [16]]}}, "anchor_sizes"),
        ({"class_names": ["a", "b", "c"]}, "edited"),
        ({"class_names": ["a", "b"], "fingerprint": None}, "not the weights of a maskrcnn_resnet10_fpn of 2 classes"),
    ],
)
def test_a_broken_card_is_named(folder, changes, expected):
    edit_card(folder, **changes)
    assert expected in said_of(folder)
    assert str(folder) in said_of(folder)


@pytest.mark.parametrize("data", [b"", b"{", b"[1]", b"\xff\xfe", b"null"])
def test_a_card_that_is_not_json(folder, data):
    (folder / "model.json").write_bytes(data)
    assert "model.json: expected" in said_of(folder)


def test_an_edited_card_is_taken_once_its_fingerprint_is_gone(folder):
    before = checkpoints.describe(str(folder)).fingerprint
    edit_card(folder, class_names=["a", "b", "c"], fingerprint=None)
    assert rayseg.load(str(folder), "cpu").class_names == ("a", "b", "c")
    assert checkpoints.describe(str(folder)).fingerprint != before


def test_no_model_there(tmp_path):
    assert "did you mean maskrcnn_resnet50_fpn" in said_of("maskrcnn_resnet50fpn")
    assert "did you mean rectangles" in said_of("rectangle")
    assert "found no model.json" in said_of(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    assert "found no model.json" in said_of(tmp_path / "empty")
    assert "must be trained first" in said_of("maskrcnn_mobilenet_v3_large_fpn")


def test_an_unknown_device(folder):
    with pytest.raises(ModelError, match="'warp'"):
        rayseg.load(str(folder), "warp")


# Object storage and the cache


def test_object_storage_is_read_once_per_machine(network, bucket, cache_root, monkeypatch):
    model, settings = network
    uri = f"{bucket}/models/ours"
    info = checkpoints.save(uri, model, ARCHITECTURE, settings, NAMES)
    downloads, download = [], checkpoints._download

    def counted(uri, file):
        downloads.append(uri)
        download(uri, file)

    monkeypatch.setattr(checkpoints, "_download", counted)
    with ThreadPoolExecutor(3) as pool:
        loaded = list(pool.map(rayseg.load, [uri] * 3, ["cpu"] * 3))
    loaded.append(rayseg.load(uri, "cpu"))
    assert downloads == [f"{uri}/model.safetensors"]
    assert {predictor.fingerprint for predictor in loaded} == {info.fingerprint}
    kept = cache_root / "models" / info.fingerprint
    assert [path.name for path in kept.glob("[!.]*")] == ["model.safetensors"]


def test_a_damaged_cache_entry_is_fetched_again(network, bucket, cache_root):
    model, settings = network
    uri = f"{bucket}/ours"
    info = checkpoints.save(uri, model, ARCHITECTURE, settings, NAMES)
    rayseg.load(uri, "cpu")
    kept = cache_root / "models" / info.fingerprint / "model.safetensors"
    whole = kept.read_bytes()
    kept.write_bytes(whole[:-7] + b"garbage")
    rayseg.load(uri, "cpu")
    assert kept.read_bytes() == whole


def test_damaged_objects_are_not_kept(network, bucket, cache_root):
    model, settings = network
    uri = f"{bucket}/ours"
    checkpoints.save(uri, model, ARCHITECTURE, settings, NAMES)
    storage.write(f"{uri}/model.safetensors", b"short")
    assert f"{uri}/model.safetensors: expected" in said_of(uri) and "found 5" in said_of(uri)
    assert not [path for path in cache_root.rglob("*") if path.is_file() and path.stat().st_size]
    assert "no checkpoint there" in said_of(f"{bucket}/theirs")


def test_one_fetches_while_the_others_wait(tmp_path):
    target, fetches = tmp_path / "models" / "x" / "weights", []
    arrived = threading.Barrier(4)

    def fetch(file):
        fetches.append(1)
        file.write(b"weights")

    def ask():
        arrived.wait(20)
        cache.fetched_once(target, lambda path: None, fetch)

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert fetches == [1] and target.read_bytes() == b"weights"


def test_a_cache_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(ModelError, match="RAYSEG_CACHE"):
        cache.fetched_once(tmp_path / "file" / "x" / "weights", lambda path: None, lambda file: None)


# Presets and torchvision's own files


@pytest.mark.parametrize("name", presets._URLS)
def test_presets_are_torchvisions(name):
    enum = {
        "maskrcnn_resnet50_fpn": detection.MaskRCNN_ResNet50_FPN_Weights,
        "maskrcnn_resnet50_fpn_v2": detection.MaskRCNN_ResNet50_FPN_V2_Weights,
    }[name].COCO_V1
    chosen = presets.preset(name)
    assert chosen.url == enum.url
    categories = enum.meta["categories"]
    assert chosen.settings.label_ids == tuple(i for i, c in enumerate(categories) if c not in ("__background__", "N/A"))
    assert chosen.info.class_names == tuple(categories[i] for i in presets.COCO_LABEL_IDS)
    assert len(chosen.info.class_names) == 80


class Silent(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_error(403)

    def log_message(self, *_):
        pass


def test_weights_that_cannot_be_downloaded(monkeypatch, tmp_path):
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Silent) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}/weights-0123abcd.pth"
        monkeypatch.setitem(presets._URLS, "maskrcnn_resnet50_fpn", url)
        try:
            refused = said_of("maskrcnn_resnet50_fpn")
        finally:
            server.shutdown()
    assert url in refused and "403" in refused
    assert str(tmp_path / "torch" / "hub" / "checkpoints" / "weights-0123abcd.pth") in refused
    assert url in said_of("maskrcnn_resnet50_fpn"), "nobody listens there any more"


@pytest.mark.parametrize("name", ["maskrcnn_resnet50_fpn", "maskrcnn_resnet50_fpn_v2"])
def test_networks_are_torchvisions_to_the_name(name):
    with torch.device("meta"):
        theirs = getattr(detection, name)(weights=None, weights_backbone=None, num_classes=91)
        ours = build(name, 90)
    assert {k: v.shape for k, v in ours.state_dict().items()} == {k: v.shape for k, v in theirs.state_dict().items()}
    defaults = ("score_thresh", "nms_thresh", "detections_per_img")
    assert [getattr(ours.roi_heads, k) for k in defaults] == [getattr(theirs.roi_heads, k) for k in defaults]
    assert vars(ours.rpn)["_pre_nms_top_n"] == vars(theirs.rpn)["_pre_nms_top_n"]
    assert ours.transform.min_size == theirs.transform.min_size


def test_a_torchvision_state_dict(tmp_path, noise, by_torchvision, mask_difference):
    torch.manual_seed(0)
    fewer = {"rpn_pre_nms_top_n_test": 20, "rpn_post_nms_top_n_test": 10}
    model = detection.maskrcnn_resnet50_fpn(weights=None, weights_backbone=None, num_classes=3, **fewer).eval()
    with torch.no_grad():
        model.roi_heads.box_predictor.cls_score.bias[1] += 3
    torch.save(model.state_dict(), tmp_path / "theirs.pth")
    loaded = rayseg.load(str(tmp_path / "theirs.pth"), "cpu")
    assert (loaded.architecture, loaded.class_names) == ("maskrcnn_resnet50_fpn", ("class_0", "class_1"))
    assert loaded.info == checkpoints.describe(str(tmp_path / "theirs.pth"))
    for mine in (model.transform, loaded.preprocess):
        assert (mine.max_size, mine.size_divisible) == (1333, 32)
    rpn = loaded._detector._model.rpn  # pyright: ignore[reportAttributeAccessIssue]
    rpn._pre_nms_top_n, rpn._post_nms_top_n = model.rpn._pre_nms_top_n, model.rpn._post_nms_top_n
    image = noise(40, 600)  # 88 x 1333 for the network, which is less than 800 x 1333
    expected = by_torchvision(model, image)
    (found,) = loaded.predict([image])
    assert len(found) == len(expected["scores"]) > 0
    np.testing.assert_allclose(found.boxes_xyxy, expected["boxes"], atol=1e-2)
    assert mask_difference(found.rles.to_coco(), expected["rles"]) <= 4


def test_tensors_of_something_else(tmp_path):
    path = tmp_path / "m.pth"
    torch.save({"weight": torch.zeros(3)}, path)
    assert "expected the state dict of a torchvision Mask R-CNN" in said_of(path)
    with torch.device("meta"):
        boxes_only = detection.fasterrcnn_resnet50_fpn(weights=None, weights_backbone=None, num_classes=2)
    torch.save({k: torch.zeros(()).expand(v.shape) for k, v in boxes_only.state_dict().items()}, path)
    assert "no roi_heads.mask_predictor" in said_of(path)


def test_files_that_hold_more_than_tensors_are_not_unpickled(tmp_path):
    path = tmp_path / "m.pth"
    torch.save({"model": {}, "args": Trap(tmp_path / "sprung")}, path)
    assert "never loaded" in said_of(path)
    path.write_bytes(pickle.dumps(Trap(tmp_path / "sprung"), protocol=2))
    said_of(path)
    assert not (tmp_path / "sprung").exists()


OLD_NAMES = [
    (re.compile(r"(backbone\.fpn\.\w+_blocks\.\d)\.0\.(\w+)"), r"\1.\2"),
    (re.compile(r"(rpn\.head\.conv)\.0\.0\.(\w+)"), r"\1.\2"),
    (re.compile(r"(roi_heads\.mask_head)\.(\d)\.0\.(\w+)"), lambda m: f"{m[1]}.mask_fcn{int(m[2]) + 1}.{m[3]}"),
]


def test_the_names_that_older_torchvisions_gave(network, tmp_path):
    model, _ = network
    state = model.state_dict()
    for pattern, name in OLD_NAMES:
        state = {pattern.sub(name, key): tensor for key, tensor in state.items()}
    assert {"rpn.head.conv.weight", "roi_heads.mask_head.mask_fcn1.bias"} < set(state)
    torch.save(state, tmp_path / "old.pth")
    loaded = checkpoints.load(str(tmp_path / "old.pth")).module.state_dict()
    assert all(torch.equal(tensor, loaded[name]) for name, tensor in model.state_dict().items())
    torch.save({**state, "roi_heads.mask_head.mask_fcn1.bias": torch.zeros(3)}, tmp_path / "odd.pth")
    assert "old.pth" not in said_of(tmp_path / "odd.pth") and "size mismatch" in said_of(tmp_path / "odd.pth")


class Trap:
    """Makes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@pytest.mark.parametrize("data", [b"", b"PK\x03\x04 broken", b"\x80\x02", b"text"])
def test_files_that_torch_cannot_read(tmp_path, data):
    (tmp_path / "m.pth").write_bytes(data)
    assert "m.pth: expected" in said_of(tmp_path / "m.pth")


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_state_dicts_tell_their_architecture(architecture, tmp_path):
    update = {"fpn_channels": 32, "box_head_size": 16, "mask_layers": (8, 24)}
    if "resnet50" in architecture:
        update |= {"rpn_depth": 3}
    if architecture.endswith("v2"):
        update |= {"box_head_convs": (32, 32)}
    elif "resnet50" in architecture:
        update |= {"backbone_norm": "frozen_batch", "backbone_norm_eps": 0.0}
    settings = settings_of(architecture).model_copy(update=update)
    model = build(architecture, 90, settings)
    state = {f"module.{k}": v for k, v in model.state_dict().items()}
    torch.save({"model": state, "epoch": 3}, tmp_path / "m.pth")  # as torchvision's training script does
    info = checkpoints.describe(str(tmp_path / "m.pth"))
    assert info.architecture == architecture
    assert info.class_names == presets.COCO_CLASS_NAMES
    network = checkpoints.load(str(tmp_path / "m.pth"))
    assert network.settings == settings.model_copy(update={"label_ids": presets.COCO_LABEL_IDS})
    assert all(torch.equal(v, state[f"module.{k}"]) for k, v in network.module.state_dict().items())
