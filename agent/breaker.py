"""May we log in? Decides so that the agent never locks a user out and never logs in too often.

Pure decisions about a LoginState: moments come in from outside, and what must be remembered goes
out. The state belongs to a user name, because that is what Salesforce locks; a secret appears only
as a digest that somebody else made.

The breaker of a user opens at the first refusal that another login could make worse, and lets one
try through (half-open) when

- the secret is another one than those refused,
- host or API version is another one, where only those were refused and not the secret,
- an operator has reset it, or
- the hold time after the refusal is over; it doubles with each further refusal.

An attempt whose end is unknown may have been a refusal: the answer was lost, or the agent was
killed between sending and bookkeeping. One such attempt is forgiven; the second with the same
secret, with no success between them, is taken for a refusal: three strikes can lock a user
(PasswordPolicies, maxLoginAttempts). What Salesforce answers in between changes nothing, since only
a success sets its count of failed logins back. So a wrong secret is sent twice at most, and then
once in each hold, whatever happens to the answers.

A half-open try that ends without a verdict, such as a lost answer or an outage, keeps the breaker
open for the same hold again, neither closed nor doubled: a quicker second try could be the strike
that locks the user, while the right secret must not rest longer than its outage and one hold. A
half-open try whose end nobody wrote down is taken for a refusal.

When what was remembered is lost, whoever notices puts a refusal of `ANY` secret in its place: for
one hold nothing is tried, and then each secret once, until one of them succeeds.

No clock is trusted to run forward: an attempt "in the future" counts until its hour is over, so
that a clock set back never gives more logins. A reset also forgives a clock that was wrong.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final

from agent.reason import Reason
from agent.result import SkipCause

HOUR: Final = timedelta(hours=1)
# The digest of a refusal that holds for any secret of the user.
ANY: Final = ""
# Attempts are remembered longer than the hour that counts, so that a clock set back (a corrected
# time zone, say) still finds those of the hour that then is the last one.
MEMORY: Final = timedelta(hours=4)
_FORGIVEN: Final = 1

# Answers to a login that say something else than that the secret is wrong, from whoever answers: a
# gateway's 503 and a page about maintenance do, too. Any other failure after sending leaves open
# whether the secret was judged, as does an answer that cannot be read. A reason that is in no list
# is among those: to forget one here costs a rest of one hold, not a locked user.
_ANSWERS: Final = frozenset(
    {
        Reason.HTTP_STATUS,
        Reason.HTTP_REDIRECT,
        Reason.HTML_UNEXPECTED,
        Reason.MAINTENANCE,
        Reason.CLIENT_CERT_PAGE,
        Reason.MUTUAL_AUTH_FAILED,
        Reason.LOGIN_RESTRICTED,
        Reason.API_LIMIT,
        Reason.ORG_UNAVAILABLE,
        Reason.SESSION_INVALID,
        Reason.WRONG_ORG,
        Reason.HOST_POLICY,
        Reason.SERVER_ERROR,
        Reason.FAULT_OTHER,
    }
)

# Refusals of the place (host and API version) rather than of the secret.
_OF_THE_PLACE: Final = frozenset({Reason.API_VERSION, Reason.LOGIN_DISABLED, Reason.API_DISABLED})


@dataclass(frozen=True, slots=True)
class Limits:
    """How often one user may log in, and for how long a refused secret is not tried again."""

    logins_per_hour: int
    hold: timedelta = HOUR
    hold_max: timedelta = timedelta(hours=24)


@dataclass(frozen=True, slots=True)
class Attempt:
    """One login that has begun; a later one has a greater `id`.

    `digest` stands for the secret, `place` for host and API version. `hold` is for how long the
    secret must rest if this attempt turns out to be refused. The attempt may be under way until
    `expires_at`, or is known to be over when that is None.
    """

    id: int
    at: datetime
    digest: str
    place: str
    half_open: bool
    hold: timedelta
    expires_at: datetime | None


@dataclass(frozen=True, slots=True)
class Refusal:
    """A secret that must rest until `at + hold`, because of attempt number `attempt`.

    It is the secret with this digest, or `ANY`. It rests for logins to `place` only, or to any when
    that is empty. `released` when an operator allowed one try before that.
    """

    digest: str
    attempt: int
    at: datetime
    by: Reason
    hold: timedelta
    place: str = ""
    released: bool = False

    @property
    def until(self) -> datetime:
        """When the hold is over."""
        return self.at + self.hold


@dataclass(frozen=True, slots=True)
class LoginState:
    """What is remembered about the logins of one user.

    `attempts` are the moments of all attempts within MEMORY before the newest, whatever became of
    them. `unfinished` are the attempts whose end is not known, yet or for ever, except where a
    later attempt with the same secret succeeded or was refused. `proven` is the id of the last
    attempt that succeeded.
    """

    user: str
    attempts: tuple[datetime, ...] = ()
    unfinished: tuple[Attempt, ...] = ()
    refusals: tuple[Refusal, ...] = ()
    proven: int = 0

    @property
    def refusal(self) -> Refusal | None:
        """The latest refusal that stands, attempts taken for refusals included."""
        return _latest(_standing(self))

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


def decide(state: LoginState, digest: str, place: str, now: datetime, limits: Limits) -> Decision:
    """Tell whether a login with this secret to this place may be sent now."""
    barred = barring(state, digest, place, now)
    if barred is not None:
        return Denied(SkipCause.BREAKER_OPEN, barred.until)
    if budget_remaining(state, now, limits) <= 0:
        return Denied(SkipCause.BUDGET, _budget_until(state, now, limits))
    standing = _standing(state)
    own = _latest(_applicable(standing, digest, place))
    if own is None:
        # Another secret of this user was refused and none has worked since: perhaps it is the user
        # who is locked, so this one gets a single try too.
        half_open = any(refusal.attempt > state.proven for refusal in standing)
        return Allowed(half_open, limits.hold)
    if own.released:
        return Allowed(half_open=True, hold=limits.hold)
    return Allowed(half_open=True, hold=max(limits.hold, min(2 * own.hold, limits.hold_max)))


def barring(state: LoginState, digest: str, place: str, now: datetime) -> Refusal | None:
    """Return the refusal that keeps a login with this secret to this place from being sent now."""
    standing = [
        refusal
        for refusal in _applicable(_standing(state), digest, place)
        if not refusal.released and now < refusal.until
    ]
    return max(standing, key=lambda refusal: refusal.until, default=None)


def budget_remaining(state: LoginState, now: datetime, limits: Limits) -> int:
    """Return how many logins the budget leaves to this user now."""
    if _is_beyond_memory(state, now):
        return 0
    return max(0, limits.logins_per_hour - len(_counted(state, now)))


def in_flight(state: LoginState, now: datetime) -> Denied | None:
    """Deny while another login of this user may still be under way."""
    ends = [
        attempt.expires_at
        for attempt in state.unfinished
        if attempt.expires_at is not None and attempt.expires_at > now
    ]
    return Denied(SkipCause.IN_FLIGHT, max(ends)) if ends else None


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
    """Remember how an attempt ended: with a session (None) or with a failure after sending.

    An attempt that ends after a later one with the same secret changes nothing that the later one
    has shown.
    """
    if failure is None:
        return _after_success(state, attempt)
    ended = max(now, attempt.at)
    if failure in _OF_THE_PLACE:
        refusal = Refusal(attempt.digest, attempt.id, ended, failure, attempt.hold, attempt.place)
        return _with_refusal(_without(state, attempt), refusal)
    if failure.opens_breaker:
        refusal = Refusal(attempt.digest, attempt.id, ended, failure, attempt.hold)
        return _with_refusal(_judged(state, attempt), refusal)
    is_answer = failure in _ANSWERS
    if attempt.half_open:
        refusal = _refusal_again(state, attempt, ended, is_answer=is_answer)
        return _with_refusal(_without(state, attempt), refusal)
    return _without(state, attempt) if is_answer else _over(state, attempt)


def after_reset(state: LoginState, now: datetime) -> LoginState:
    """Remember that an operator allows one try with each secret at once.

    The hold then starts from the beginning, and what a wrong clock has put into the future is now.
    """
    return replace(
        state,
        attempts=tuple(min(moment, now) for moment in state.attempts),
        unfinished=tuple(_not_after(attempt, now) for attempt in state.unfinished),
        refusals=tuple(replace(refusal, released=True) for refusal in _standing(state)),
    )


# --- the parts


def _standing(state: LoginState) -> tuple[Refusal, ...]:
    """Return the refusals, together with the attempts that must be taken for refusals."""
    standing = state.refusals
    strikes: dict[str, int] = {}
    for attempt in sorted(state.unfinished, key=lambda attempt: attempt.id):
        digest = attempt.digest
        known = _same(standing, digest, place="")
        if known is not None and attempt.id <= known.attempt:
            continue
        strikes[digest] = strikes.get(digest, 0) + 1
        if attempt.half_open or strikes[digest] > _FORGIVEN:
            refusal = Refusal(digest, attempt.id, attempt.at, Reason.UNDETERMINED, attempt.hold)
            standing = _replaced(standing, refusal)
    return standing


def _applicable(refusals: tuple[Refusal, ...], digest: str, place: str) -> list[Refusal]:
    return [
        refusal
        for refusal in refusals
        if refusal.digest in {ANY, digest} and refusal.place in {"", place}
    ]


def _latest(refusals: Iterable[Refusal]) -> Refusal | None:
    return max(refusals, key=lambda refusal: refusal.attempt, default=None)


def _same(refusals: tuple[Refusal, ...], digest: str, place: str) -> Refusal | None:
    return next(
        (refusal for refusal in refusals if refusal.digest == digest and refusal.place == place),
        None,
    )


def _replaced(refusals: tuple[Refusal, ...], refusal: Refusal) -> tuple[Refusal, ...]:
    others = (
        other
        for other in refusals
        if (other.digest, other.place) != (refusal.digest, refusal.place)
    )
    return (*others, refusal)


def _with_refusal(state: LoginState, refusal: Refusal) -> LoginState:
    known = _same(state.refusals, refusal.digest, refusal.place)
    if known is not None and known.attempt > refusal.attempt:
        return state
    return replace(state, refusals=_replaced(state.refusals, refusal))


def _after_success(state: LoginState, attempt: Attempt) -> LoginState:
    over = [
        refusal
        for refusal in _applicable(state.refusals, attempt.digest, attempt.place)
        if refusal.attempt <= attempt.id
    ]
    return replace(
        _judged(state, attempt),
        refusals=tuple(refusal for refusal in state.refusals if refusal not in over),
        proven=max(state.proven, attempt.id),
    )


def _refusal_again(
    state: LoginState, attempt: Attempt, ended: datetime, *, is_answer: bool
) -> Refusal:
    """Return the refusal that stands on after a half-open try without a verdict."""
    before = replace(
        state, unfinished=tuple(other for other in state.unfinished if other.id < attempt.id)
    )
    earlier = [refusal for refusal in _standing(before) if refusal.attempt < attempt.id]
    own = _latest(_applicable(tuple(earlier), attempt.digest, attempt.place))
    cause = own or _latest(earlier)
    return Refusal(
        attempt.digest,
        attempt.id,
        ended,
        cause.by if cause else Reason.UNDETERMINED,
        own.hold if own and not own.released else attempt.hold,
        # The secret may have been judged unheard: then it must rest wherever it would go.
        own.place if own and is_answer else "",
    )


def _without(state: LoginState, attempt: Attempt) -> LoginState:
    """Forget this attempt as one whose end is not known."""
    return replace(
        state, unfinished=tuple(other for other in state.unfinished if other.id != attempt.id)
    )


def _judged(state: LoginState, attempt: Attempt) -> LoginState:
    """Forget it and all that came before it with the same secret: the secret has been judged."""
    return replace(
        state,
        unfinished=tuple(
            other
            for other in state.unfinished
            if other.digest != attempt.digest or other.id > attempt.id
        ),
    )


def _over(state: LoginState, attempt: Attempt) -> LoginState:
    """Remember that it is over, and that nobody will know how it ended."""
    return replace(
        state,
        unfinished=tuple(
            replace(other, expires_at=None) if other.id == attempt.id else other
            for other in state.unfinished
        ),
    )


def _not_after(attempt: Attempt, now: datetime) -> Attempt:
    wrong_by = attempt.at - now
    if wrong_by <= timedelta(0):
        return attempt
    expires_at = attempt.expires_at and attempt.expires_at - wrong_by
    return replace(attempt, at=now, expires_at=expires_at)


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
