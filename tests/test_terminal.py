"""What the commands print stays text, whoever wrote it."""

from dataclasses import replace

import pytest
from boards import result, violation

from agent import terminal
from agent.policy import Judgement
from agent.reason import Reason
from agent.result import Failure, Probe

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
