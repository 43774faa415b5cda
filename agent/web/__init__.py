"""What the agent serves: /metrics, /-/healthy, /-/ready, /-/reload, the status page and its JSON.

`app` answers requests and knows no socket, `status` those for pages and documents, which
`agent.status` makes, and `forms` knows the browsers that may press their buttons; `server` and
`connection` carry it on sockets, and `negotiation` reads what a client accepts. Who may come in
says the `guard`, from a file that `webconfig` reads; `access` asks it about each request. Nothing
here probes, decides or changes the board.
"""

from agent.web.app import create_app
from agent.web.connection import Limits
from agent.web.guard import Guard
from agent.web.server import ListenError, WebServer
from agent.web.status import StatusSite
from agent.web.webconfig import examine

__all__ = [
    "Guard",
    "Limits",
    "ListenError",
    "StatusSite",
    "WebServer",
    "create_app",
    "examine",
]
