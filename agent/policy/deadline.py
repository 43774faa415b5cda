"""The dated ends that concern one org: what `sfmtls_deadline_timestamp_seconds` exports."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from types import MappingProxyType
from typing import Final

from agent.certificate import CLIENT_AUTH
from agent.policy.rule import Evidence

# Every deadline by name: what may become the label `deadline`, and what happens then.
DEADLINES: Final[Mapping[str, str]] = MappingProxyType(
    {
        "soap_login_retirement": "SOAP login() is switched off for every API version.",
        "api_version_deprecation": "The configured API version is no longer supported.",
        "api_version_removal": "The configured API version answers no more.",
        "client_auth_cutoff": "The authority of the client certificate stops to issue clientAuth.",
        "server_root_phase_out": "Chrome stops to trust new certificates under the server's root.",
    }
)


def deadlines(evidence: Evidence) -> Mapping[str, datetime]:
    """Return the deadlines that concern this org, past ones included, by their name."""
    tables = evidence.tables
    found: dict[str, datetime] = {}
    if evidence.soap_login:
        found["soap_login_retirement"] = tables.dates["soap_login_retirement"].date
    versions = tables.versions(evidence.api_version) if evidence.api_version else None
    if versions is not None:
        found["api_version_deprecation"] = versions.deprecated
        found["api_version_removal"] = versions.removed
    if evidence.client_chain and evidence.client.public:
        cutoff = tables.client_auth_cutoff(evidence.client.authorities())
        if cutoff and CLIENT_AUTH in (evidence.client.leaf.extended_key_usage or ()):
            found["client_auth_cutoff"] = cutoff.date
    if evidence.server_chain:
        ends = [root.sct_not_after for root in evidence.server.roots if root.sct_not_after]
        if ends:
            found["server_root_phase_out"] = min(ends)
    return found
