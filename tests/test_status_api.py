"""The documents are as the description says, whatever is asked: schemathesis tries."""

from __future__ import annotations

import time
from datetime import timedelta

import pytest
import schemathesis
import structlog
from boards import ALL_WELL, DEADLINES, NOON, board, cause, failed, org, result, violation
from hypothesis import HealthCheck, settings
from making import world
from prometheus_client import CollectorRegistry
from watching import validator

from agent.chain import Anchors
from agent.journal import Journal
from agent.maintenance import Window
from agent.metrics import Exposition, Instruments
from agent.ondemand import OnDemand, Turns
from agent.org import Suppression
from agent.policy import Suppressed
from agent.reason import Reason
from agent.result import Probe, Undetermined
from agent.status import Desk
from agent.web import StatusSite, create_app

NAMES = ("emea", "apac", "door-only", "never-probed")


@pytest.fixture(autouse=True)
def logged():
    """Keep our own log lines, which would else be printed at length."""
    with structlog.testing.capture_logs() as entries:
        yield entries


class Local:
    """Lets whoever asks be on this machine, as far as the application can see."""

    def __init__(self, app):
        self._app = app

    async def __call__(self, scope, receive, send):
        if scope["type"] == "http":
            scope = {**scope, "client": ("127.0.0.1", 5)}
        await self._app(scope, receive, send)


def made_app():
    made, journal = board(*map(org, NAMES[:2]), org("door-only", login=None)), Journal()
    made.add(org("never-probed", labels={}))
    known = violation()
    w = world()

    def take(seen, **judged):
        made.record(seen, **judged)
        journal.take(seen, made.get(seen.org))

    async def run(name, _probes):
        take(result(name, client_chain=w.client_chain))
        return journal.last(name)

    take(result("emea", outcomes={**ALL_WELL, Probe.REFUSAL: Undetermined(Reason.UNDETERMINED)}))
    take(
        result("emea", at=NOON + timedelta(minutes=1), outcomes=failed(Reason.TLS_EOF, "<closed>")),
        causes={Probe.HANDSHAKE: (cause(),)},
        violations=[known],
        suppressed=[Suppressed(known, Suppression(known.rule, NOON, "known"))],
        deadlines=DEADLINES,
    )
    take(result("apac"))
    made.in_maintenance("apac", Window(NOON + timedelta(hours=1), reason="release"))
    made.login_limits("apac", False, 3)  # noqa: FBT003 - a state that is told
    ondemand = OnDemand(run, Turns(), time.monotonic)
    desk = Desk(made, journal, version="1.2.3", now=lambda: NOON, anchors=lambda _: Anchors(()))
    app = create_app(
        Exposition(made, Instruments(CollectorRegistry())),
        readiness=made.every_org_seen,
        now=lambda: NOON,
        pages=StatusSite(desk, ondemand.ask).routes(),
    )
    return Local(app)


schema = schemathesis.openapi.from_asgi("/api/v1/openapi.json", made_app())


@schema.parametrize()
@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
def test_every_answer_is_as_described_and_none_is_a_bug(case):
    case.call_and_validate()


@pytest.mark.parametrize("name", [*NAMES, "nobody", "<script>", "a/b"])
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_orgs_in_every_condition_are_as_described(method, name):
    path = "/api/v1/orgs/{name}" + ("/probe" if method == "POST" else "")
    case = schema[path][method].Case(path_parameters={"name": name})
    answer = case.call_and_validate()

    assert answer.status_code in ({200, 429} if name in NAMES else {404})


@pytest.mark.parametrize(
    ("change", "valid"),
    [
        (lambda d: d, True),
        (lambda d: d.pop("standings"), False),
        (lambda d: d.pop("client_auth"), False),
        (lambda d: d["status"].update(state="open"), False),
        (lambda d: d["status"].update(colour="red"), False),
        (lambda d: d["probes"].update(guess=d["probes"]["handshake"]), False),
        (lambda d: d["probes"]["handshake"].update(reason="because"), False),
        (lambda d: d["recent"][0].update(at="yesterday"), False),
        (lambda d: d["recent"][0].update(at="2026-03-01T12:00:00Z"), True),
    ],
)
def test_the_description_is_strict_about_keys_and_closed_sets(change, valid):
    document = (
        schema["/api/v1/orgs/{name}"]["GET"].Case(path_parameters={"name": "emea"}).call().json()
    )
    change(document)

    assert validator("Org").is_valid(document) is valid
