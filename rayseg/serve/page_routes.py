"""GET /: the page. Files of the package as they are, without a build step; they load nothing from elsewhere.

The page asks the API beside it as any client does, so it needs no token to be looked at. Its policy lets it run its own
scripts and talk to its own server, and nothing else; text never becomes markup, as trusted types see to.
"""

from __future__ import annotations

import functools
import hashlib
from importlib import resources

from fastapi import APIRouter, Request, Response

from rayseg.serve.problems import Problem
from rayseg.views.colours import class_hex

POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "connect-src 'self'",
        "img-src data:",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",
        "trusted-types 'none'",
    )
)
_HEADERS = {
    "Content-Security-Policy": POLICY,
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-cache",
}
_METHODS = ["GET", "HEAD"]
_INDEX = "index.html"
_TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript"}
_COLOURED_CLASSES = 512  # colours of further classes repeat


def router() -> APIRouter:
    """The routes of the page."""
    routes = APIRouter(include_in_schema=False)

    @routes.api_route("/", methods=_METHODS)
    async def index(request: Request) -> Response:
        return _answer(request, _INDEX)

    @routes.api_route("/page/{name}", methods=_METHODS)
    async def part(request: Request, name: str) -> Response:
        return _answer(request, "" if name == _INDEX else name)

    return routes


def _answer(request: Request, name: str) -> Response:
    files = _files()
    if name not in files:
        raise Problem(404, "not-found", f"no page {name[:64]!r}")
    data, tag = files[name]
    headers = {**_HEADERS, "ETag": tag}
    if request.headers.get("If-None-Match") == tag:
        return Response(status_code=304, headers=headers)
    return Response(data, headers=headers, media_type=f"{_TYPES[name[name.rindex('.') :]]}; charset=utf-8")


@functools.cache
def _files() -> dict[str, tuple[bytes, str]]:
    """The page's files by name, each with its entity tag."""
    found = {}
    for file in resources.files("rayseg.serve").joinpath("page").iterdir():
        if file.name.endswith(tuple(_TYPES)):
            data = file.read_bytes()
            if file.name == _INDEX:
                colours = " ".join(map(class_hex, range(_COLOURED_CLASSES)))
                data = data.replace(b"{class_colours}", colours.encode())
            found[file.name] = (data, f'"{hashlib.sha256(data).hexdigest()[:32]}"')
    return found
