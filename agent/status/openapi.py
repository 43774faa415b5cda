"""The description of the documents (OpenAPI 3.1), with every closed set as the code has it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from agent.diagnosis import Confidence
from agent.policy.rule import Severity, Side
from agent.reason import Reason
from agent.result import ClientAuth, Probe, SkipCause, Stage
from agent.state import Standing
from agent.status.fleet import MOST_PER_PAGE, PER_PAGE, SORTS
from agent.status.view import State

_Schema = dict[str, Any]

_TEXT: Final[_Schema] = {"type": "string"}
_COUNT: Final[_Schema] = {"type": "integer", "minimum": 0}
_FLAG: Final[_Schema] = {"type": "boolean"}
_MOMENT: Final[_Schema] = {"type": "string", "format": "date-time", "description": "UTC"}


def description(version: str) -> dict[str, Any]:
    """Return the whole description."""
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "sfmtls-agent",
            "version": version,
            "summary": "How every watched Salesforce org is: the status page for other tools.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "paths": {
            "/api/v1/orgs": {"get": _list_orgs()},
            "/api/v1/orgs/{name}": {"get": _get_org()},
            "/api/v1/orgs/{name}/probe": {"post": _probe_org()},
        },
        "components": {
            "schemas": {
                "Fleet": _FLEET,
                "Status": _STATUS,
                "Cycle": _CYCLE,
                "Org": _ORG,
                "Outcome": _OUTCOME,
                "Cause": _CAUSE,
                "Certificate": _CERTIFICATE,
                "Violation": _VIOLATION,
                "Suppressed": _SUPPRESSED,
                "Standing": _STANDING,
                "Step": _STEP,
                "Recent": _RECENT,
                "Error": _ERROR,
            },
            "securitySchemes": {"password": {"type": "http", "scheme": "basic"}},
        },
        "security": [{}, {"password": []}],
    }


def _list_orgs() -> dict[str, Any]:
    sorts = [*SORTS, *(f"-{key}" for key in SORTS)]
    return {
        "operationId": "listOrgs",
        "summary": "One page of orgs, the worst first unless sorted otherwise.",
        "parameters": [
            _parameter("state", _one_of(state.value for state in State), "only these"),
            _parameter("q", {"type": "string", "maxLength": 200}, "words that must all be found"),
            _parameter("sort", _one_of(sorts), "with - before it the other way round"),
            _parameter("page", _whole(1_000_000), "beyond the last one it is the last one"),
            _parameter("per_page", _whole(MOST_PER_PAGE), f"{PER_PAGE} unless said otherwise"),
        ],
        "responses": _answers("Fleet", "The orgs.") | {"400": _refusal("The query is wrong.")},
    }


def _get_org() -> dict[str, Any]:
    return {
        "operationId": "getOrg",
        "summary": "All that is known of one org.",
        "parameters": [_NAME],
        "responses": _answers("Org", "The org.")
        | {"404": _refusal("There is no such org.", "text")},
    }


def _probe_org() -> dict[str, Any]:
    return {
        "operationId": "probeOrg",
        "summary": "Probe one org now and tell what is known of it then.",
        "description": (
            "Only the handshake, unless `login` is true; then a login is made too if budget and "
            "breaker allow one. Enabled by `lifecycle` in the configuration; for local programs, "
            "or with a password or a client certificate."
        ),
        "parameters": [_NAME, _parameter("login", _one_of(("true", "false")), "false")],
        "responses": _answers("Org", "The org after the probe.")
        | {
            "400": _refusal("The query is wrong."),
            "404": _refusal("There is no such org.", "text"),
            "409": _refusal("The org is being probed at this moment."),
            "429": _refusal("Too much was asked for; Retry-After says when to ask again.", "text"),
            "503": _refusal("The agent is stopping."),
        },
    }


def _answers(schema: str, what: str) -> dict[str, Any]:
    plain = {"text/plain": {"schema": _TEXT}}
    return {
        "200": {
            "description": what,
            "content": {"application/json": {"schema": _reference(schema)}},
        },
        "401": {"description": "A password is needed.", "content": plain},
        "403": {"description": "This client may not do this.", "content": plain},
        "429": {"description": "Too many requests.", "content": plain},
    }


def _refusal(what: str, *others: str) -> dict[str, Any]:
    content: dict[str, Any] = {"application/json": {"schema": _reference("Error")}}
    if others:
        content["text/plain"] = {"schema": _TEXT}
    return {"description": what, "content": content}


def _parameter(name: str, schema: _Schema, what: str) -> dict[str, Any]:
    return {"name": name, "in": "query", "schema": schema, "description": what}


def _reference(name: str) -> _Schema:
    return {"$ref": f"#/components/schemas/{name}"}


def _one_of(values: Iterable[str]) -> _Schema:
    return {"type": "string", "enum": list(values)}


def _whole(most: int) -> _Schema:
    return {"type": "integer", "minimum": 1, "maximum": most}


def _or_null(schema: _Schema) -> _Schema:
    return {"anyOf": [schema, {"type": "null"}]}


def _list(schema: _Schema) -> _Schema:
    return {"type": "array", "items": schema}


def _map(values: _Schema, keys: Iterable[str] | None = None) -> _Schema:
    schema: _Schema = {"type": "object", "additionalProperties": values}
    if keys is not None:
        schema["propertyNames"] = {"enum": list(keys)}
    return schema


def _object(**properties: _Schema) -> _Schema:
    """Return an object that has all of these properties and no others."""
    return _open_object(**properties) | {"additionalProperties": False}


def _open_object(**properties: _Schema) -> _Schema:
    """Return an object that has all of these properties at least."""
    return {"type": "object", "properties": properties, "required": list(properties)}


def _merged(schema: _Schema, **more: _Schema) -> _Schema:
    return _object(**{**schema["properties"], **more})


_NAME: Final[Mapping[str, Any]] = {
    "name": "name",
    "in": "path",
    "required": True,
    "schema": {"type": "string", "minLength": 1},
}
_PROBES: Final = tuple(probe.value for probe in Probe)
_REASON: Final = _one_of([reason.value for reason in Reason])
_CLIENT_AUTH: Final = _one_of([verdict.value for verdict in ClientAuth])
_STAGES: Final = _map({"type": "number", "minimum": 0}, (stage.value for stage in Stage))

_OUTCOME: Final = _object(
    success=_or_null(_FLAG),
    reason=_or_null(_one_of([r.value for r in Reason] + [c.value for c in SkipCause])),
    detail=_TEXT,
)
_CAUSE: Final = _object(
    cause=_TEXT,
    confidence=_one_of([confidence.value for confidence in Confidence]),
    sentence=_TEXT,
    remedy=_TEXT,
)
_CERTIFICATE: Final = _object(
    subject=_TEXT,
    issuer=_TEXT,
    serial_number=_TEXT,
    not_before=_MOMENT,
    not_after=_MOMENT,
    fingerprint_sha256={"type": "string", "pattern": "^[0-9a-f]{64}$"},
    role=_one_of(("leaf", "intermediate", "root")),
)
_VIOLATION: Final = _object(
    rule=_TEXT,
    severity=_one_of([severity.value for severity in Severity]),
    side=_one_of([side.value for side in Side]),
    position=_or_null(_COUNT),
    fingerprint=_or_null(_TEXT),
    subject=_or_null(_TEXT),
    message=_TEXT,
    remedy=_TEXT,
    reference=_TEXT,
    bites_from=_or_null(_MOMENT),
)
_SUPPRESSED: Final = _merged(_VIOLATION, until=_MOMENT, reason=_TEXT)
_CYCLE: Final = _open_object(
    org=_TEXT,
    healthy=_or_null(_FLAG),
    client_auth=_CLIENT_AUTH,
    alert=_or_null(_TEXT),
    tls_version=_or_null(_TEXT),
    cipher_suite=_or_null(_TEXT),
    address=_or_null(_TEXT),
    stages=_STAGES,
    probes=_map(_reference("Outcome"), _PROBES),
    causes=_list(_reference("Cause")),
    certificates=_object(
        client=_list(_reference("Certificate")), server=_list(_reference("Certificate"))
    ),
    violations=_list(_reference("Violation")),
    suppressed=_list(_reference("Suppressed")),
) | {"description": "One cycle, as `sfmtls-agent probe --json` prints it."}
_STATUS: Final = _object(
    org=_TEXT,
    host=_TEXT,
    labels=_map(_TEXT),
    state=_one_of([state.value for state in State]),
    summary=_TEXT,
    code=_or_null(_TEXT),
    since=_or_null(_MOMENT),
    last_cycle=_or_null(_MOMENT),
    first_expiry=_or_null(
        _object(
            side=_one_of([side.value for side in Side]),
            not_after=_MOMENT,
            days_left={"type": "number"},
        )
    ),
    violations=_object(**{severity.value: _COUNT for severity in Severity}),
    logins=_or_null(
        _object(stopped=_or_null(_FLAG), left_this_hour=_or_null(_COUNT), per_hour=_COUNT)
    ),
    maintenance=_FLAG,
)
_STANDING: Final = _object(
    standing=_one_of([standing.value for standing in Standing]),
    since=_or_null(_MOMENT),
    reason=_or_null(_REASON),
    detail=_TEXT,
    cause=_or_null(_reference("Cause")),
    last_run=_or_null(_MOMENT),
    last_success=_or_null(_MOMENT),
    attempts=_COUNT,
    failures=_COUNT,
    skipped=_map(_COUNT, (cause.value for cause in SkipCause)),
)
_STEP: Final = _object(
    subject=_TEXT,
    code=_TEXT,
    because=_TEXT,
    confidence=_or_null(_one_of([confidence.value for confidence in Confidence])),
    remedy=_TEXT,
    link={"type": "string", "format": "uri"},
)
_RECENT: Final = _object(
    number=_COUNT,
    at=_MOMENT,
    troubled=_FLAG,
    client_auth=_CLIENT_AUTH,
    alert=_or_null(_TEXT),
    stages=_STAGES,
    probes=_map(_reference("Outcome"), _PROBES),
    causes=_map(_TEXT, _PROBES),
)
_ORG: Final[_Schema] = {
    "allOf": [
        _reference("Cycle"),
        _open_object(
            status=_reference("Status"),
            standings=_map(_reference("Standing"), _PROBES),
            next_steps=_list(_reference("Step")),
            deadlines=_map(_MOMENT),
            recent=_list(_reference("Recent")),
        ),
    ]
}
_FLEET: Final = _object(
    orgs=_list(_reference("Status")),
    page={"type": "integer", "minimum": 1},
    pages={"type": "integer", "minimum": 1},
    per_page={"type": "integer", "minimum": 1},
    matching=_COUNT,
    total=_COUNT,
    states=_object(**{state.value: _COUNT for state in State}),
)
_ERROR: Final = _open_object(error=_TEXT)
