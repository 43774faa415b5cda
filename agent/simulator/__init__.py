"""The far side, simulated: a door with mutual TLS and Salesforce's SOAP API behind it.

It serves the demo and the tests, and plays every scenario of one list. So that it can contradict
the agent, it must never know the agent: it imports no probe, policy, login or configuration.
"""

# Importing the package fills the list of scenarios, whoever asks for it.
from agent.simulator import scenarios

__all__ = ["scenarios"]
