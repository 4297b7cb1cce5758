"""The OpenAPI document, and schemathesis asking the server all that it allows and more."""

from __future__ import annotations

import contextlib
import json
import re

import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import checks
from serve.online import listening, with_app

EXAMPLES = 12  # of each kind, per route
BOUNDED = settings(
    max_examples=EXAMPLES,
    deadline=None,
    database=None,
    derandomize=True,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)
CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_schema_conformance",
    "response_headers_conformance",
)


def test_every_route_and_answer_is_documented_with_examples():
    async def check(client, made):
        document = (await client.get("/openapi.json")).json()
        paths = document["paths"]
        assert {
            "/v1/predict",
            "/v1/models",
            "/v1/batches",
            "/v1/batches/{id}",
            "/healthz",
            "/readyz",
            "/metrics",
        } <= set(paths)
        predict = paths["/v1/predict"]["post"]
        assert set(predict["requestBody"]["content"]) == {
            "image/*",
            "application/octet-stream",
            "multipart/form-data",
            "application/json",
        }
        assert predict["requestBody"]["content"]["application/json"]["examples"]
        assert predict["responses"]["200"]["content"]["application/json"]["example"]["instances"]
        assert set(predict["responses"]["200"]["content"]) == {"application/json", "image/png"}
        names = {parameter["name"] for parameter in predict["parameters"]}
        assert names == {"model", "score_threshold", "iou_threshold", "max_detections", "classes", "masks"}
        for path, methods in paths.items():
            for method, operation in methods.items():
                assert operation["description"] or operation["summary"], (method, path)
                for status, answer in operation["responses"].items():
                    if int(status) >= 400:
                        assert set(answer["content"]) == {"application/problem+json"}, (method, path, status)
        assert "HTTPValidationError" not in json.dumps(document)
        docs = await client.get("/docs")
        assert docs.status_code == 200 and "openapi.json" in docs.text
        loaded = re.findall(r'(?:src|href)="([^"]+)"', docs.text)
        files = {name.rpartition(".")[2]: await client.get(name) for name in loaded if name.startswith("/")}
        assert len(files) == len(loaded) == 3, "from here alone, as there may be no way to anywhere else"
        assert {answer.status_code for answer in files.values()} == {200}
        assert "SwaggerUIBundle" in files["js"].text and ".swagger-ui" in files["css"].text

    with_app(check)


def test_the_examples_fit_their_schemas():
    import jsonschema

    async def check(client, made):
        document = (await client.get("/openapi.json")).json()
        for methods in document["paths"].values():
            for operation in methods.values():
                for answer in operation["responses"].values():
                    content = answer.get("content", {}).get("application/json", {})
                    if "example" in content:
                        schema = {**content["schema"], "components": document["components"]}
                        jsonschema.validate(content["example"], schema)

    with_app(check)


def test_schemathesis_finds_no_server_error_and_no_undocumented_answer():
    with listening(max_queued=1000) as (port, _):
        schema = schemathesis.openapi.from_url(f"http://127.0.0.1:{port}/openapi.json")
        asked = [asked_much(found.ok()) for found in schema.get_all_operations()]
        assert len(asked) >= 9 and min(asked) >= 1


def asked_much(operation) -> int:
    """Ask one route, what its schema allows and what it does not; how often."""
    count = 0
    checks.load_all_checks()
    wanted = [checks.CHECKS.get_one(name) for name in CHECKS]
    for mode in (schemathesis.GenerationMode.POSITIVE, schemathesis.GenerationMode.NEGATIVE):

        @given(case=operation.as_strategy(generation_mode=mode))
        @settings(BOUNDED)
        def ask(case):
            nonlocal count
            count += 1
            case.call_and_validate(checks=wanted)

        with contextlib.suppress(Unsatisfiable):  # a route without parameters can only be asked one thing
            ask()
    return count
