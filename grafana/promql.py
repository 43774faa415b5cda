"""The pieces that expressions are made of.

An org's name is unique within one agent only, and one agent may be scraped under two jobs, so every
join is on job, instance and org. The operator's own labels stand on `sfmtls_org_info` alone.
"""

from __future__ import annotations

from textwrap import indent
from typing import Final

# The operator's labels by which dashboards filter. An org without one of them matches "All".
LABELS: Final = ("team", "tier")

ON_ORG: Final = "on (job, instance, org)"
_MATCHERS: Final = ", ".join(f'{label}=~"${label}"' for label in ("org", *LABELS))
CHOSEN: Final = f"sfmtls_org_info{{{_MATCHERS}}}"


def chosen(expression: str) -> str:
    """Return what the expression gives for the orgs that the variables choose.

    One with `or`, which binds less than `and`, must come in parentheses.
    """
    return f"{expression}\nand {ON_ORG} {CHOSEN}"


def named(expression: str) -> str:
    """Return the same, with the operator's labels on each series."""
    labels = ", ".join(LABELS)
    return f"{inside(expression)}\n* {ON_ORG} group_left ({labels}) {CHOSEN}"


def inside(expression: str, operation: str = "") -> str:
    """Return the expression in parentheses, as what the operation works on."""
    return f"{operation}(\n{indent(expression, '  ')}\n)".lstrip()


def most(limit: int, expression: str) -> str:
    """Return the series with the highest values: a table of thousands is read by nobody."""
    return f"topk({limit},\n{indent(expression, '  ')}\n)"


def least(limit: int, expression: str) -> str:
    """Return the series with the lowest values."""
    return f"bottomk({limit},\n{indent(expression, '  ')}\n)"


def orgs(expression: str) -> str:
    """Return how many chosen orgs the expression tells of, from 0; under two agents one is one."""
    return f"count({inside(chosen(expression), 'count by (org) ')}) or vector(0)"


def last_success(expression: str, probe: str = "") -> str:
    """Return, for each series, when its probe succeeded last, in ms; 0 when it never has.

    The series tell of a probe by their label, or of the one that is named.
    """
    if probe:
        on, selector = ON_ORG, f'{{probe="{probe}"}}'
    else:
        on, selector = "on (job, instance, org, probe)", ""
    seen = f"sfmtls_probe_last_success_timestamp_seconds{selector} * 1000"
    whole = inside(expression)
    return f"{whole} * 0 + {on} group_left () ({seen})\nor\n{whole} * 0"
