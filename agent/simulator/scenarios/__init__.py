"""The list of scenarios, by subject: each file registers its own when it is imported."""

from agent.simulator.scenarios import answers, doors, faults, server_certificates

__all__ = ["answers", "doors", "faults", "server_certificates"]
