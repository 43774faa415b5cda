"""Colours that people with any colour vision can tell apart, and what each of them says here.

The eight of Okabe and Ito (https://jfly.uni-koeln.de/color/), with grey for their black, which a
dark page would swallow. Blue is well and vermilion is broken: that pair differs in lightness too,
unlike green and red. No panel says anything by colour alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from grafana_foundation_sdk.builders.dashboard import ThresholdsConfig
from grafana_foundation_sdk.models.dashboard import (
    Threshold,
    ThresholdsMode,
    ValueMap,
    ValueMappingResult,
)

from agent.policy.rule import Severity
from agent.result import ClientAuth, Probe, Stage

BLUE: Final = "#0072B2"
SKY: Final = "#56B4E9"
GREEN: Final = "#009E73"
YELLOW: Final = "#F0E442"
ORANGE: Final = "#E69F00"
VERMILION: Final = "#D55E00"
PURPLE: Final = "#CC79A7"
GREY: Final = "#999999"

WELL: Final = BLUE
WATCH: Final = ORANGE
BROKEN: Final = VERMILION
UNKNOWN: Final = GREY
# What is only told and not judged has the page's own colour.
PLAIN: Final = "transparent"
TEXT: Final = "text"

STATES: Final[Mapping[str, str]] = {
    ClientAuth.ACCEPTED: WELL,
    ClientAuth.REJECTED: BROKEN,
    ClientAuth.SOFT_REJECTED: ORANGE,
    ClientAuth.NOT_REQUESTED: PURPLE,
    ClientAuth.UNCONFIRMED: UNKNOWN,
    ClientAuth.NOT_REACHED: YELLOW,
}
STAGES: Final[Mapping[str, str]] = {
    Stage.DNS: GREY,
    Stage.PROXY: YELLOW,
    Stage.TCP: SKY,
    Stage.TLS: BLUE,
    Stage.CLIENT_AUTH: VERMILION,
    Stage.DOOR: ORANGE,
    Stage.LOGIN: GREEN,
    Stage.SESSION: PURPLE,
}
PROBES: Final[Mapping[str, str]] = {
    Probe.HANDSHAKE: BLUE,
    Probe.LOGIN: GREEN,
    Probe.SESSION: PURPLE,
    Probe.REFUSAL: ORANGE,
    Probe.ENFORCEMENT: SKY,
}
SEVERITIES: Final[Mapping[str, str]] = {
    Severity.CRITICAL: BROKEN,
    Severity.WARNING: WATCH,
    Severity.INFO: SKY,
}


def thresholds(base: str, *steps: tuple[float, str]) -> ThresholdsConfig:
    """Return limits: `base` below the first step, then the colour of each from its value on."""
    made = [Threshold(None, base), *(Threshold(value, colour) for value, colour in steps)]
    return ThresholdsConfig().mode(ThresholdsMode.ABSOLUTE).steps(made)


def words(named: Mapping[str, tuple[str, str | None]]) -> ValueMap:
    """Return a mapping of values, as JSON writes them, to a text and perhaps a colour."""
    return ValueMap(
        {
            value: ValueMappingResult(text=text, color=colour, index=index)
            for index, (value, (text, colour)) in enumerate(named.items())
        }
    )


def coloured(named: Mapping[str, str]) -> ValueMap:
    """Return a mapping that leaves each value as it is and gives it a colour."""
    return words({value: (value, colour) for value, colour in named.items()})
