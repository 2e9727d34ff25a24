"""A client's transport that holds every answer against the OpenAPI document."""

import json
import re
from typing import Any

import httpx
from flask import Flask
from jsonschema import Draft202012Validator  # type: ignore[import-untyped] # it has no types

from server_app.web.openapi import openapi_document


class Documented:
    """The document of an application, and what was called of it."""

    def __init__(self, app: Flask) -> None:
        self.document = openapi_document(app)
        self.called: set[tuple[str, str, int]] = set()
        self._patterns = {
            path: re.compile(re.sub(r"{\w+}", "[^/]+", path)) for path in self.document["paths"]
        }

    def operations(self) -> set[tuple[str, str]]:
        return {(verb, path) for path, verbs in self.document["paths"].items() for verb in verbs}

    def find(self, verb: str, path: str) -> tuple[str, dict[str, Any]] | None:
        """The operation of a request; one of a fixed path goes first. None if there is none."""
        templates = [template for template, pattern in self._patterns.items() if pattern.fullmatch(path)]
        for template in sorted(templates, key=lambda template: template.count("{")):
            if verb.lower() in self.document["paths"][template]:
                return template, self.document["paths"][template][verb.lower()]
        return None

    def known(self, verb: str, path: str) -> tuple[str, dict[str, Any]]:
        operation = self.find(verb, path)
        assert operation is not None, f"{verb} {path} is not documented"
        return operation

    def schema(self, reference: dict[str, Any]) -> Draft202012Validator:
        return Draft202012Validator({**reference, "components": self.document["components"]})

    def check_request(self, verb: str, path: str, body: bytes) -> None:
        _, operation = self.known(verb, path)
        content = operation["requestBody"]["content"].get("application/json")
        if content is not None:
            self.schema(content["schema"]).validate(json.loads(body))

    def check_answer(self, verb: str, path: str, status: int, media_type: str, body: bytes) -> None:
        template, operation = self.known(verb, path)
        where = f"{verb} {template}: {status} {body[:200]!r}"
        assert str(status) in operation["responses"], f"{where}: this status is not documented"
        content = operation["responses"][str(status)]["content"]
        assert set(content) in ({media_type}, {"*/*"}), f"{where}: the document says {set(content)}"
        if media_type == "application/json" and "schema" in content[media_type]:
            self.schema(content[media_type]["schema"]).validate(json.loads(body))
        self.called.add((verb.lower(), template, status))


class CheckedTransport(httpx.BaseTransport):
    """Sends requests to the application itself."""

    def __init__(self, app: Flask, documented: Documented) -> None:
        self._inner, self._documented = httpx.WSGITransport(app=app), documented

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        response = self._inner.handle_request(request)
        body = response.read()
        media_type = response.headers["content-type"].split(";")[0]
        self._documented.check_answer(
            request.method, request.url.path, response.status_code, media_type, body
        )
        if response.status_code == 200 and request.content:
            self._documented.check_request(request.method, request.url.path, request.content)
        return response
