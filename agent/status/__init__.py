"""The status page and its JSON: what a person needs who was woken, and what other tools read.

`view` turns a snapshot into what is said about an org, in words; `fleet` filters, sorts and pages
many of them; `tree` lays out a chain; `trail` the last cycles; `document` is the JSON and `openapi`
its description; `pages` renders HTML from `templates`. `desk` is the one counter at which
`agent.web` asks for all of it. Everything is a function of what the board and the journal know at
one moment; nothing here probes, and nothing here is a socket.
"""

from agent.status.desk import Asked, Desk, Page

__all__ = ["Asked", "Desk", "Page"]
