"""Proves that Salesforce's mutual-TLS door opens for the right key and stays shut without it.

For every configured org the agent opens a fresh connection to port 8443 of the My Domain host,
presents the client certificate, finds out whether the door opened, logs in over SOAP when a login
is due, makes one call with the session, judges what it saw, and serves all of it to Prometheus.

The line, left to right: config → schedule → probe → result → policy → state → metrics → web.
Read `org`, `result`, `probe` and `metrics` in this order to know the rest.
"""

__version__ = "0.1.0"
