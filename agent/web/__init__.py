"""What the agent serves: /metrics, /-/healthy, /-/ready, /-/reload and a landing page.

`app` answers requests and knows no socket; `server` carries it on one; `negotiation` reads what a
client accepts. Nothing here probes, decides or changes the board.
"""

from agent.web.app import Facts, create_app
from agent.web.server import ListenError, WebServer

__all__ = ["Facts", "ListenError", "WebServer", "create_app"]
