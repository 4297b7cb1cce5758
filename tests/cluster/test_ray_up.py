"""cluster/ray-up-aws.yaml against Ray's own schema and checks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import ray
import yaml
from ray.autoscaler._private.util import prepare_config, validate_config


@pytest.fixture
def config(cluster_folder: Path) -> dict[str, Any]:
    return yaml.safe_load((cluster_folder / "ray-up-aws.yaml").read_text())


def test_ray_takes_it(config: dict[str, Any]) -> None:
    schema = json.loads((Path(ray.__file__).parent / "autoscaler" / "ray-schema.json").read_text())
    jsonschema.Draft7Validator(schema).validate(config)
    prepared = prepare_config(config)
    validate_config(prepared)
    assert prepared["available_node_types"]["gpu-spot"]["resources"]["GPU"] == 1


@pytest.mark.parametrize("section", [[], ["auth"], ["available_node_types", "cpu"]])
def test_a_misspelt_field_is_found(config: dict[str, Any], section: list[str]) -> None:
    place = config
    for name in section:
        place = place[name]
    place["misspelt"] = 1
    with pytest.raises((jsonschema.ValidationError, ValueError), match="misspelt"):
        validate_config(prepare_config(config))


def test_every_node_has_the_token_and_the_head_listens_to_itself(config: dict[str, Any]) -> None:
    assert config["file_mounts"]["/home/ubuntu/.ray/auth_token"] == "~/.ray/auth_token"
    assert any("RAY_AUTH_MODE=token" in command for command in config["setup_commands"])
    starts = [command for command in config["head_start_ray_commands"] if "ray start" in command]
    assert all("--dashboard-host=127.0.0.1" in command for command in starts) and starts


def test_machines_have_encrypted_disks_and_keep_their_credentials(config: dict[str, Any]) -> None:
    for node in config["available_node_types"].values():
        assert node["node_config"]["BlockDeviceMappings"][0]["Ebs"]["Encrypted"] is True
        assert node["node_config"]["MetadataOptions"] == {"HttpTokens": "required", "HttpPutResponseHopLimit": 1}
