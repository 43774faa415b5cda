"""What the agent serves: /metrics, /-/healthy, /-/ready, /-/reload and a landing page.

`app` answers requests and knows no socket; `server` and `connection` carry it on sockets, and
`negotiation` reads what a client accepts. Who may come in says the `guard`, from a file that
`webconfig` reads; `access` asks it about each request. Nothing here probes, decides or changes the
board.
"""

from agent.web.app import Facts, create_app
from agent.web.connection import Limits
from agent.web.guard import Guard
from agent.web.server import ListenError, WebServer
from agent.web.webconfig import examine

__all__ = ["Facts", "Guard", "Limits", "ListenError", "WebServer", "create_app", "examine"]
