"""May we log in? Decides so that the agent never locks a user out and never logs in too often.

Pure decisions about a LoginState: moments come in from outside, and what must be remembered goes
out. The state belongs to a user name, because that is what Salesforce locks; a secret appears only
as a digest that somebody else made.

The breaker of a user opens at the first refusal that another login could make worse, and lets one
try through (half-open) when

- the secret is another one than those refused,
- an operator has reset it, or
- the hold time after the refusal is over; it doubles with each further refusal.

An attempt whose end nobody wrote down (the agent was killed between sending and bookkeeping) may
have been a refusal. One such attempt in a row is forgiven; the second is taken for a refusal, and
so is a half-open try at once: three strikes can lock a user (PasswordPolicies, maxLoginAttempts).

A half-open try that ends without a verdict, such as a lost answer or an outage, keeps the breaker
open for the same hold again, neither closed nor doubled. The password may have been judged before
the answer was lost, so a quicker second try could be the strike that locks the user.

No clock is trusted to run forward: an attempt "in the future" counts until its hour is over, so
that a clock set back never gives more logins. A reset also forgives a clock that was wrong.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final

from agent.reason import Reason
from agent.result import SkipCause

HOUR: Final = timedelta(hours=1)
# Attempts are remembered longer than the hour that counts, so that a clock set back (a corrected
# time zone, say) still finds those of the hour that then is the last one.
MEMORY: Final = timedelta(hours=4)
_FORGIVEN_IN_A_ROW: Final = 1


@dataclass(frozen=True, slots=True)
class Limits:
    """How often one user may log in, and for how long a refused secret is not tried again."""

    logins_per_hour: int
    hold: timedelta = HOUR
    hold_max: timedelta = timedelta(hours=24)


@dataclass(frozen=True, slots=True)
class Attempt:
    """One login that has begun; a later one has a greater `id`.

    `hold` is for how long the secret must rest if this attempt turns out to be refused.
    """

    id: int
    at: datetime
    digest: str
    half_open: bool
    hold: timedelta


@dataclass(frozen=True, slots=True)
class Refusal:
    """A secret that must rest until `at + hold`, because of attempt number `attempt`.

    `released` when an operator allowed one try before that.
    """

    digest: str
    attempt: int
    at: datetime
    by: Reason
    hold: timedelta
    released: bool = False

    @property
    def until(self) -> datetime:
        """When the hold is over."""
        return self.at + self.hold


@dataclass(frozen=True, slots=True)
class LoginState:
    """What is remembered about the logins of one user.

    `attempts` are the moments of all attempts within MEMORY before the newest, whatever became of
    them. `unfinished` are the attempts whose end was not written down, except where a later attempt
    with the same secret has ended. `proven` is the id of the last attempt that succeeded.
    """

    user: str
    attempts: tuple[datetime, ...] = ()
    unfinished: tuple[Attempt, ...] = ()
    refusals: tuple[Refusal, ...] = ()
    proven: int = 0

    @property
    def refusal(self) -> Refusal | None:
        """The latest refusal that stands, attempts taken for refusals included."""
        return max(_standing(self), key=lambda refusal: refusal.attempt, default=None)

    @property
    def opened_at(self) -> datetime | None:
        """When the latest refusal was, or None while nothing is refused."""
        return self.refusal.at if self.refusal else None

    @property
    def opened_by(self) -> Reason | None:
        """Why the latest refusal was; `undetermined` for an attempt whose end is unknown."""
        return self.refusal.by if self.refusal else None

    @property
    def hold(self) -> timedelta | None:
        """For how long the secret last refused must rest."""
        return self.refusal.hold if self.refusal else None

    @property
    def digest(self) -> str | None:
        """The digest of the secret last refused."""
        return self.refusal.digest if self.refusal else None


@dataclass(frozen=True, slots=True)
class Allowed:
    """One login may be made now; `hold` is what follows if it is refused."""

    half_open: bool
    hold: timedelta


@dataclass(frozen=True, slots=True)
class Denied:
    """No login now; `until` is when that may change by itself, if it can."""

    cause: SkipCause
    until: datetime | None = None


Decision = Allowed | Denied


# --- questions


def decide(state: LoginState, digest: str, now: datetime, limits: Limits) -> Decision:
    """Tell whether a login with this secret may be sent now."""
    standing = _standing(state)
    own = _of(standing, digest)
    if own is not None and not _may_try(own, now):
        return Denied(SkipCause.BREAKER_OPEN, own.until)
    if budget_remaining(state, now, limits) <= 0:
        return Denied(SkipCause.BUDGET, _budget_until(state, now, limits))
    if own is None:
        # Another secret of this user was refused and none has worked since: perhaps it is the user
        # who is locked, so this one gets a single try too.
        half_open = any(refusal.attempt > state.proven for refusal in standing)
        return Allowed(half_open, limits.hold)
    if own.released:
        return Allowed(half_open=True, hold=limits.hold)
    return Allowed(half_open=True, hold=max(limits.hold, min(2 * own.hold, limits.hold_max)))


def breaker_open(state: LoginState, digest: str, now: datetime) -> bool:
    """Tell whether the breaker keeps a login with this secret from being sent now."""
    own = _of(_standing(state), digest)
    return own is not None and not _may_try(own, now)


def budget_remaining(state: LoginState, now: datetime, limits: Limits) -> int:
    """Return how many logins the budget leaves to this user now."""
    if _is_beyond_memory(state, now):
        return 0
    return max(0, limits.logins_per_hour - len(_counted(state, now)))


def in_flight(state: LoginState, now: datetime, lease: timedelta) -> Denied | None:
    """Deny while another login of this user may still be under way, that is for `lease`."""
    begun = [attempt.at for attempt in state.unfinished if attempt.at > now - lease]
    return Denied(SkipCause.IN_FLIGHT, max(begun) + lease) if begun else None


# --- what happened


def after_begin(state: LoginState, attempt: Attempt) -> LoginState:
    """Remember an attempt that is about to be sent."""
    moments = (*state.attempts, attempt.at)
    oldest = max(moments) - MEMORY
    return replace(
        state,
        attempts=tuple(moment for moment in moments if moment > oldest),
        unfinished=(*state.unfinished, attempt),
    )


def after_finish(
    state: LoginState, attempt: Attempt, now: datetime, failure: Reason | None
) -> LoginState:
    """Remember how an attempt ended: with a session (None) or with a failure.

    An attempt that ends after a later one with the same secret changes nothing that the later one
    has shown.
    """
    before = replace(
        state, unfinished=tuple(other for other in state.unfinished if other.id < attempt.id)
    )
    earlier = [refusal for refusal in _standing(before) if refusal.attempt < attempt.id]
    own = _of(earlier, attempt.digest)
    settled = replace(
        state,
        unfinished=tuple(
            other
            for other in state.unfinished
            if other.digest != attempt.digest or other.id > attempt.id
        ),
    )
    if failure is None:
        return replace(
            settled,
            refusals=tuple(
                refusal
                for refusal in state.refusals
                if refusal.digest != attempt.digest or refusal.attempt > attempt.id
            ),
            proven=max(state.proven, attempt.id),
        )
    ended = max(now, attempt.at)
    if failure.opens_breaker:
        refusal = Refusal(attempt.digest, attempt.id, ended, failure, attempt.hold)
        return _with_refusal(settled, refusal)
    if not attempt.half_open:
        return settled
    if own is not None and not own.released:
        refusal = replace(own, attempt=attempt.id, at=ended)
        return _with_refusal(settled, refusal)
    cause = max(earlier, key=lambda refusal: refusal.attempt, default=None)
    by = cause.by if cause else Reason.UNDETERMINED
    return _with_refusal(settled, Refusal(attempt.digest, attempt.id, ended, by, attempt.hold))


def after_reset(state: LoginState, now: datetime) -> LoginState:
    """Remember that an operator allows one try with each secret at once.

    The hold then starts from the beginning, and what a wrong clock has put into the future is now.
    """
    return replace(
        state,
        attempts=tuple(min(moment, now) for moment in state.attempts),
        unfinished=tuple(replace(attempt, at=min(attempt.at, now)) for attempt in state.unfinished),
        refusals=tuple(replace(refusal, released=True) for refusal in _standing(state)),
    )


# --- the parts


def _standing(state: LoginState) -> tuple[Refusal, ...]:
    """Return the refusals, together with the attempts that must be taken for refusals."""
    standing = {refusal.digest: refusal for refusal in state.refusals}
    in_a_row: dict[str, int] = {}
    for attempt in sorted(state.unfinished, key=lambda attempt: attempt.id):
        digest = attempt.digest
        known = standing.get(digest)
        if known is not None and attempt.id <= known.attempt:
            continue
        in_a_row[digest] = in_a_row.get(digest, 0) + 1
        if attempt.half_open or in_a_row[digest] > _FORGIVEN_IN_A_ROW:
            standing[digest] = Refusal(
                digest, attempt.id, attempt.at, Reason.UNDETERMINED, attempt.hold
            )
    return tuple(standing.values())


def _of(refusals: list[Refusal] | tuple[Refusal, ...], digest: str) -> Refusal | None:
    return next((refusal for refusal in refusals if refusal.digest == digest), None)


def _may_try(refusal: Refusal, now: datetime) -> bool:
    return refusal.released or now >= refusal.until


def _with_refusal(state: LoginState, refusal: Refusal) -> LoginState:
    known = _of(state.refusals, refusal.digest)
    if known is not None and known.attempt > refusal.attempt:
        return state
    others = (other for other in state.refusals if other.digest != refusal.digest)
    return replace(state, refusals=(*others, refusal))


def _counted(state: LoginState, now: datetime) -> list[datetime]:
    return sorted(moment for moment in state.attempts if moment > now - HOUR)


def _is_beyond_memory(state: LoginState, now: datetime) -> bool:
    # The clock was set back so far that some attempts of the last hour may be forgotten.
    return bool(state.attempts) and now - HOUR < max(state.attempts) - MEMORY


def _budget_until(state: LoginState, now: datetime, limits: Limits) -> datetime | None:
    if limits.logins_per_hour <= 0:
        return None
    if _is_beyond_memory(state, now):
        return max(state.attempts) - MEMORY + HOUR
    return _counted(state, now)[-limits.logins_per_hour] + HOUR
