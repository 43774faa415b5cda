"""What the commands print stays text, whoever wrote it."""

from dataclasses import replace

import pytest
from boards import result, violation

from agent import terminal
from agent.policy import Judgement
from agent.policy.rule import Severity
from agent.reason import Reason
from agent.result import ClientAuth, Failure, Probe

# Clears the screen, goes to the title of the window, and turns the direction of writing.
HOSTILE = "CN=\x1b[2J\x1b]0;owned\x07\u202eevil[red]"


@pytest.mark.parametrize("place", ["message", "detail"])
def test_a_name_out_of_a_certificate_or_a_fault_cannot_steer_the_terminal(place, capsys):
    found = replace(violation(), message=f"{HOSTILE} expired")
    failure = Failure(Reason.INVALID_LOGIN, f"{HOSTILE} said so")
    seen = result(outcomes={Probe.HANDSHAKE: failure}) if place == "detail" else result()
    judgement = Judgement((found,) if place == "message" else (), ())

    terminal.print_cycles([(seen, judgement)], everything=True)

    out = capsys.readouterr().out
    assert "\\u001b[2J" in out
    assert "evil[red]" in out
    assert not {"\x1b", "\x07", "\u202e"} & set(out)


def test_causes_stand_under_their_failure_the_best_first_and_stay_text(capsys):
    expired = replace(violation("expired", Severity.CRITICAL), message=f"{HOSTILE} expired.")
    outcomes = {
        Probe.HANDSHAKE: Failure(Reason.CLIENT_CERT_UNKNOWN, "alert certificate_unknown"),
        Probe.LOGIN: Failure(Reason.INVALID_LOGIN),
    }
    seen = result(outcomes=outcomes, client_auth=ClientAuth.REJECTED)

    terminal.print_cycles([(seen, Judgement((expired,), ()))], everything=False)

    out = capsys.readouterr().out
    wanted = (
        "handshake: client_cert_unknown",
        "likely: client_certificate_expired",
        "→ Renew it.",
        "login: invalid_login",
        "possible: password_wrong",
        "possible: user_inactive",
        "critical: expired",
    )
    places = [out.index(text) for text in wanted]
    assert places == sorted(places)
    assert not {"\x1b", "\x07", "\u202e"} & set(out)
