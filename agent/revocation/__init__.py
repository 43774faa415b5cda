"""Whether certificates were revoked: asked of their authorities, beside the cycles.

Off unless the operator wants it. Lists come first, OCSP second where it is wanted too. A failure to
ask is an answer (unavailable): never an exception, and never "good".

`watch` knows what was asked for and when to ask again, `checker` asks one place after the other,
`fetch` speaks HTTP; `lists`, `responder` and `signature` read what came, without I/O.
"""

from agent.revocation.checker import Limits, RevocationChecker
from agent.revocation.watch import RevocationWatch, pairs

__all__ = ["Limits", "RevocationChecker", "RevocationWatch", "pairs"]
