"""Write the OpenAPI 3.1 document of an application, from routes, dataclasses and a table."""

from __future__ import annotations

import functools
import inspect
import json
import re
from dataclasses import is_dataclass
from typing import Any, cast

import jinja2
from flask import Flask
from pydantic import TypeAdapter
from pydantic.json_schema import JsonSchemaMode

from gkt_core.wire.message_json import added_later
from gkt_core.wire.protocol import PROTOCOL_VERSION, ErrorBody, Message
from server_app.web.operations import OPERATIONS, PATH_PARTS, REFUSALS, USUAL_REFUSALS, Operation
from server_app.web.validation import adapter

_SCHEMAS = "#/components/schemas/"
_ABOUT = (
    "What devices and a gkt server say to each other. Bodies are JSON unless a media type says otherwise; "
    "unknown fields are refused. PUTs may be repeated at any time: they are kept once. Answers of 408, 429, "
    "500 and above are worth another try, after Retry-After seconds where that header stands."
)
_TAGS = {
    "server": "The server itself; no token needed.",
    "run": "What a run is and how it is doing.",
    "device": "A device introduces itself and asks what to do.",
    "round": "A device's part of a round.",
    "model": "What was trained.",
    "operator": "What the person who runs the server sees and changes, with the operator's secret.",
}


def openapi_json(app: Flask) -> bytes:
    """The document as it is served."""
    return _encoded(_routes(app))


def openapi_document(app: Flask) -> dict[str, Any]:
    """The document of an application.

    Raises:
        KeyError: A route is missing in :data:`server_app.web.operations.OPERATIONS`.
    """
    return cast(dict[str, Any], json.loads(openapi_json(app)))


def openapi_page(app: Flask) -> str:
    """The document as one HTML page that loads nothing."""
    return _page(_routes(app))


def _routes(app: Flask) -> tuple[tuple[str, str, str, str], ...]:
    """Endpoint, verb, path and docstring of every route, in the order of the table."""
    order = list(OPERATIONS)
    routes = [
        (rule.endpoint, verb.lower(), rule.rule, inspect.getdoc(app.view_functions[rule.endpoint]) or "")
        for rule in app.url_map.iter_rules()
        # Added by Flask to every route.
        for verb in sorted((rule.methods or set()) - {"HEAD", "OPTIONS"})
    ]
    return tuple(sorted(routes, key=lambda route: (order.index(route[0]) if route[0] in order else 0, route)))


@functools.cache
def _encoded(routes: tuple[tuple[str, str, str, str], ...]) -> bytes:
    return json.dumps(_document(routes), indent=1).encode()


@functools.cache
def _page(routes: tuple[tuple[str, str, str, str], ...]) -> str:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("server_app.web"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("docs.html.j2").render(document=_document(routes), schemas=_SCHEMAS)


def _document(routes: tuple[tuple[str, str, str, str], ...]) -> dict[str, Any]:
    schemas, references = _schemas([OPERATIONS[endpoint] for endpoint, *_ in routes])
    paths: dict[str, dict[str, Any]] = {}
    for endpoint, verb, rule, text in routes:
        path = re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", rule)
        described = _operation(OPERATIONS[endpoint], references)
        summary, _, rest = text.partition("\n")
        parameters = [
            {"name": name, "in": "path", "required": True, "schema": PATH_PARTS[name]}
            for name in re.findall(r"{(\w+)}", path)
        ]
        paths.setdefault(path, {})[verb] = {
            "operationId": endpoint.replace(".", "_"),
            "summary": summary,
            **({"description": rest.strip()} if rest.strip() else {}),
            **described,
            "parameters": parameters + described["parameters"],
        }
    return {
        "openapi": "3.1.0",
        "info": {"title": "gkt", "version": str(PROTOCOL_VERSION), "description": _ABOUT},
        # From where the document is: behind a proxy, a path may stand before all of them.
        "servers": [{"url": ".."}],
        "security": [{"bearer": []}],
        "tags": [{"name": name, "description": text} for name, text in _TAGS.items()],
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": {"bearer": {"type": "http", "scheme": "bearer"}},
        },
    }


def _schemas(operations: list[Operation]) -> tuple[dict[str, Any], dict[tuple[type, str], Any]]:
    """JSON schemas of all messages, and how each is referred to."""
    messages: set[tuple[Any, JsonSchemaMode]] = {(ErrorBody, "serialization")}
    messages |= {(each.body, "validation") for each in operations if isinstance(each.body, type)}
    messages |= {(each.answer, "serialization") for each in operations if isinstance(each.answer, type)}
    named, definitions = TypeAdapter.json_schemas(
        [(kind, mode, adapter(kind)) for kind, mode in messages], ref_template=_SCHEMAS + "{model}"
    )
    schemas = cast(dict[str, Any], definitions.get("$defs", {}))
    references: dict[tuple[type, str], Any] = {}
    for (kind, mode), schema in named.items():
        name = cast(type, kind).__name__
        if "$ref" in schema:
            references[cast(type, kind), mode] = schema
        else:
            schemas[name] = schema
            references[cast(type, kind), mode] = {"$ref": _SCHEMAS + name}
    for kind in {*Message.__subclasses__()}:
        # Who speaks the first minor version, or says nothing, is not sent what was added later.
        if is_dataclass(kind) and "required" in (said := schemas.get(kind.__name__, {})):
            said["required"] = [each for each in said["required"] if each not in added_later(kind)]
    return dict(sorted(schemas.items())), references


def _operation(operation: Operation, references: dict[tuple[type, str], Any]) -> dict[str, Any]:
    described: dict[str, Any] = {
        "tags": [operation.tag],
        "parameters": [
            {"name": name, "in": "header", "required": is_required, "schema": schema}
            for name, is_required, schema in operation.headers
        ]
        + [
            {"name": name, "in": "query", "required": False, "schema": schema}
            for name, schema in operation.queries
        ],
    }
    if not operation.needs_token:
        described["security"] = []
    described["x-gkt-access"] = operation.access
    if operation.body is not None:
        described["requestBody"] = {
            "required": True,
            "description": operation.body_text,
            "content": _content(operation.body, "validation", references),
        }
    refusals = operation.refusals + (USUAL_REFUSALS if operation.needs_token else ())
    content = _content(operation.answer, "serialization", references)
    parts = {}
    if operation.has_parts:
        refusals += (416,)
        parts = {"206": {"description": "the part that Range asks for", "content": content}}
        described["parameters"] += [
            {"name": name, "in": "header", "required": False, "schema": {"type": "string"}}
            for name in ("Range", "If-Range")
        ]
    if operation.has_etag:
        parts = {"304": {"description": "it is what If-None-Match names", "content": {}}}
        described["parameters"].append(
            {"name": "If-None-Match", "in": "header", "required": False, "schema": {"type": "string"}}
        )
    described["responses"] = {
        "200": {"description": operation.answer_text, "content": content},
        **parts,
        **{str(status): _refusal(status, references) for status in sorted(refusals)},
    }
    return described


def _refusal(status: int, references: dict[tuple[type, str], Any]) -> dict[str, Any]:
    refusal: dict[str, Any] = {
        "description": REFUSALS[status],
        "content": _content(ErrorBody, "serialization", references),
    }
    if status == 503:
        refusal["headers"] = {"Retry-After": {"description": "seconds", "schema": {"type": "integer"}}}
    return refusal


def _content(kind: type | str, mode: str, references: dict[tuple[type, str], Any]) -> dict[str, Any]:
    # OpenAPI 3.1 says nothing about bytes: a media type alone.
    return {kind: {}} if isinstance(kind, str) else {"application/json": {"schema": references[kind, mode]}}
