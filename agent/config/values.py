"""Single values: each function takes what TOML gave and returns what it means.

What is wrong is said in a ValueError, without quoting the value: it may be a secret in the wrong
place.
"""

from __future__ import annotations

import difflib
import ipaddress
import itertools
import math
import re
import urllib.parse
from collections.abc import Iterable, Mapping
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError, available_timezones

from pydantic import ValidationInfo

from agent.credentials import is_credential_name
from agent.maintenance import start

# One login a minute is 60 of the 3,600 an hour that Salesforce allows a user (help 000381578); the
# user has other clients too.
_LOGIN_INTERVAL_FLOOR: Final = 60.0
_INTERVAL_FLOOR: Final = 1.0
_NOTICE_FLOOR: Final = 3600.0
_LONGEST: Final = 366 * 86400.0
# Salesforce help 000354473.
_LAST_RETIRED: Final = 30
_LONGEST_HOST: Final = 253  # RFC 1035 §2.3.4, without the final dot
LAST_PORT: Final = 65535
# A year with which the calendar, its leap years included, begins again; and how many beginnings
# are looked at.
_NEW_CALENDAR: Final = datetime(2000, 1, 1, tzinfo=UTC)
_LOOK_AHEAD: Final = 24
_UNITS: Final[Mapping[str, float]] = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400}


_DURATION: Final = re.compile(r"(?:\d{1,12}(?:\.\d{1,6})?(?:ms|s|m|h|d))+")


def duration(value: object) -> float:
    """Return seconds from a number or a text such as "1h30m"; ValueError if it is neither."""
    if isinstance(value, str) and _DURATION.fullmatch(value):
        parts = re.findall(r"([\d.]+)(ms|[smhd])", value)
        value = sum(float(number) * _UNITS[unit] for number, unit in parts)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(  # noqa: TRY004 - pydantic collects ValueError only
            'must be seconds (60) or a duration in quotes ("60s", "5m", "1h")'
        )
    if math.isnan(value) or value <= 0:
        raise ValueError("must be longer than nothing")
    if value > _LONGEST:
        raise ValueError("is longer than a year")
    return float(value)


def _str(value: object, shape: str) -> str:
    if not isinstance(value, str):
        raise ValueError(  # noqa: TRY004 - pydantic collects ValueError only
            f"must be a text in quotes: {shape}"
        )
    return value


def at_least_a_second(seconds: float) -> float:
    """Refuse an interval at which nothing but us would be served."""
    if seconds < _INTERVAL_FLOOR:
        raise ValueError(f"must be at least {told(_INTERVAL_FLOOR)}: a cycle is a whole handshake")
    return seconds


def above_the_floor(seconds: float) -> float:
    """Refuse a login interval that uses up what Salesforce grants a user."""
    if seconds < _LOGIN_INTERVAL_FLOOR:
        raise ValueError(
            f"{told(seconds)} makes {per_hour(seconds)} logins an hour; at least "
            f"{told(_LOGIN_INTERVAL_FLOOR)} ({per_hour(_LOGIN_INTERVAL_FLOOR)} an hour), because "
            "Salesforce limits the logins of a user"
        )
    return seconds


def at_least_an_hour(seconds: float) -> float:
    """Refuse a notice that leaves nobody time to act: mostly a number that was meant as days."""
    if seconds < _NOTICE_FLOOR:
        raise ValueError('must be at least 1 h; days are written in quotes: "30d"')
    return seconds


def printable(value: str) -> str:
    """Refuse an empty text and control characters."""
    if not value.strip():
        raise ValueError("must not be empty")
    # XML 1.0 §2.2: what stands in a SOAP envelope, and what nobody means to write anywhere else.
    if re.search("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ufffe\uffff]", value):
        raise ValueError("must not hold control characters")
    return value


def one_line(value: str) -> str:
    """Refuse an empty text, and what would not stay in its line of a log or a terminal."""
    if not value.strip():
        raise ValueError("must not be empty")
    if not value.isprintable():
        raise ValueError("must be one line of printable characters")
    return value


def host_name(value: str) -> str:
    """Return a host name in lower case, or an IP address without brackets."""
    if "://" in value:
        raise ValueError('must be a host name alone: leave out the scheme ("https://")')
    if "@" in value:
        raise ValueError("must be a host name alone: leave out user name and password")
    if any(mark in value for mark in "/?#"):
        raise ValueError("must be a host name alone: leave out the path")
    address = _address(value)
    if address is not None:
        return address
    if ":" in value:
        raise ValueError("must be a host name alone: a port has a key of its own, `port`")
    if not value.isascii():
        raise ValueError("must be ASCII; write an international name in its xn-- form")
    if len(value) > _LONGEST_HOST or not re.fullmatch(
        r"(?!-)[A-Za-z0-9_-]{1,63}(?:\.(?!-)[A-Za-z0-9_-]{1,63})*", value
    ):
        raise ValueError("is not a host name (letters, digits and hyphens between dots)")
    return value.lower()


def _address(value: str) -> str | None:
    bare = value[1:-1] if value.startswith("[") and value.endswith("]") else value
    if ":" not in bare and not bare[-1:].isdigit():
        return None  # as nearly all are, and to let the library find it out takes longer
    try:
        return str(ipaddress.ip_address(bare))
    except ValueError:
        return None


def my_domain(host: str) -> str:
    """Refuse Salesforce's general login hosts."""
    if host in {"login.salesforce.com", "test.salesforce.com"}:
        raise ValueError(
            "use the org's own My Domain name (NAME.my.salesforce.com): the general login host "
            "has no mutual TLS door"
        )
    return host


def _host_and_port(value: str) -> tuple[str, int | None]:
    """Cut "HOST", "HOST:PORT", "[V6]" or "[V6]:PORT" in two; a bare IPv6 address is a host."""
    if _address(value) is not None:
        return host_name(value), None
    host, colon, port = value.rpartition(":")
    if not colon:
        return host_name(value), None
    return host_name(host), _port_text(port)


def _port_text(port: str) -> int:
    if not re.fullmatch(r"[0-9]{1,5}", port) or int(port) > LAST_PORT:
        raise ValueError(f"has a port that is not a number up to {LAST_PORT}")
    return int(port)


def dialled_address(value: object) -> tuple[str, int | None]:
    """Return host and, if it is said, port of an address to connect to."""
    host, port = _host_and_port(_str(value, '"HOST", "HOST:PORT" or "[IPV6]:PORT"'))
    if port == 0:
        raise ValueError("has port 0, to which nothing can connect")
    return host, port


def listen_address(value: object) -> tuple[str, int]:
    """Return host and port to listen on; the host is empty for every interface."""
    text = _str(value, '"HOST:PORT", "[IPV6]:PORT" or ":PORT"')
    if text.startswith(":") and text.count(":") == 1:
        return "", _port_text(text[1:])
    host, port = _host_and_port(text)
    if port is None:
        raise ValueError('needs a port: "HOST:PORT", "[IPV6]:PORT" or ":PORT"')
    return host, port


def proxy_address(value: object) -> tuple[str, int]:
    """Return host and port from the URL of an HTTP proxy."""
    scheme, separator, rest = _str(value, '"http://HOST:PORT"').partition("://")
    if not separator or scheme.lower() not in {"http", "https"}:
        raise ValueError('must look like "http://HOST:PORT"')
    if scheme.lower() == "https":
        raise ValueError(
            "TLS to the proxy itself (https://) is not supported; use its http:// port: what "
            "goes through it is TLS from end to end anyway"
        )
    if "@" in rest:
        raise ValueError("must not hold user name or password; use `username` and `password`")
    if urllib.parse.unquote(rest).rstrip("/").count("/") or any(mark in rest for mark in "?#"):
        raise ValueError('must end after the port: "http://HOST:PORT"')
    host, port = _host_and_port(rest.rstrip("/"))
    if not port:
        raise ValueError('needs the proxy\'s port: "http://HOST:PORT"')
    return host, port


def served_version(value: object) -> str:
    """Return a version that Salesforce still serves, as "NN.0"."""
    text = _str(value, '"64.0"')
    if text[:1] in {"v", "V"}:
        raise ValueError(
            'write it without the "v" ("64.0"): Salesforce does not reject the "v" but answers '
            "as another version"
        )
    if not re.fullmatch(r"[1-9][0-9]{0,2}\.0", text):
        raise ValueError('must look like "64.0"')
    if major_version(text) <= _LAST_RETIRED:
        raise ValueError('is retired: Salesforce has switched off all up to 30.0; use "64.0"')
    return text


def major_version(api_version: str) -> int:
    """Return the number before the dot."""
    return int(api_version.partition(".")[0])


def id_of_an_organization(value: str) -> str:
    """Refuse what has not the form of an organization id."""
    if not re.fullmatch(r"00D[A-Za-z0-9]{12}(?:[A-Za-z0-9]{3})?", value):
        raise ValueError("must be the 15 or 18 letters and digits of an organization id, from 00D")
    return value


def file_path(value: str) -> str:
    """Refuse what is content rather than a path."""
    if "-----BEGIN" in value:
        raise ValueError("must be the path of a file, not what is in it")
    if not value.strip() or re.search(r"[\x00-\x1f\x7f]", value):
        raise ValueError("must be the path of a file")
    return value


def absolute_path(value: str, info: ValidationInfo) -> str:
    """Make the path relative to the file that mentions it, as its author sees it."""
    base = info.context if isinstance(info.context, str) else ""
    return str(Path(base, file_path(value)))


def trust_file(path: str) -> str:
    """Refuse a file in which there is no certificate to trust."""
    try:
        content = Path(path).read_bytes() if Path(path).is_file() else None
    except OSError as error:
        raise ValueError(f"cannot be read: {path} ({error.strerror})") from None
    if content is None:
        raise ValueError(f"there is no file {path}")
    if not re.search(rb"-----BEGIN (?:X509 |TRUSTED )?CERTIFICATE-----", content):
        raise ValueError(f"has no certificate in PEM format: {path}")
    return path


def profile_name(value: str) -> str:
    """Refuse what is no profile of the policy."""
    # Here, because to import the policy takes 0.1 s, and most configurations name nothing of it.
    from agent.policy.tables import shipped_tables  # noqa: PLC0415 - as said above

    profiles = sorted(shipped_tables().profiles)
    if value not in profiles:
        near = _near(value, profiles)
        raise ValueError(f"no such profile{near}; there are {' and '.join(profiles)}")
    return value


def rule_name(value: str) -> str:
    """Refuse what is no rule of the policy, or one that must not be silent."""
    from agent.policy import CATALOGUE  # noqa: PLC0415 - as in profile_name

    if value not in CATALOGUE:
        near = _near(value, CATALOGUE)
        raise ValueError(f"no such rule{near}; `sfmtls-agent rules` shows all")
    if value == "internal":
        raise ValueError("cannot be suppressed: it tells of a bug in the agent")
    return value


def _near(value: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(value, list(known), n=1)
    return f" (did you mean {near[0]}?)" if near else ""


def moment(value: object) -> datetime:
    """Return the moment, in UTC, that TOML's date (its beginning) or date-time means.

    A date in quotes is refused: TOML has dates of its own, which name no day that does not exist.
    """
    if not isinstance(value, date):
        raise ValueError(  # noqa: TRY004 - pydantic collects ValueError only
            "must be a date without quotes: 2027-01-01 (from 00:00 UTC) or 2027-01-01T08:00:00Z"
        )
    if not isinstance(value, datetime):
        return datetime(value.year, value.month, value.day, tzinfo=UTC)
    if value.tzinfo is None:
        raise ValueError("needs an offset from UTC: 2027-01-01T08:00:00Z or …T08:00:00+02:00")
    try:
        return value.astimezone(UTC)
    except OverflowError:
        raise ValueError("is before the year 1 or after 9999 in UTC") from None


def cron_line(value: str) -> str:
    """Refuse what is no line of crontab(5), and one that no day of any year fits."""
    if start(value, "UTC", _NEW_CALENDAR) is None:
        raise ValueError("names a day that no year has")
    return value


def crontab_gap(value: str) -> timedelta:
    """Return how soon after one beginning the next one follows, as far as a look ahead shows."""
    starts: list[datetime] = []
    earliest = _NEW_CALENDAR
    # In UTC: an hour that the clocks show twice is no mistake.
    while len(starts) < _LOOK_AHEAD and (begins := start(value, "UTC", earliest)):
        starts.append(begins)
        earliest = begins + timedelta(minutes=1)
    return min(after - before for before, after in itertools.pairwise(starts))


def time_zone(value: str) -> str:
    """Refuse what is no time zone of the system."""
    try:
        # The one that needs no file.
        if value != "UTC":
            ZoneInfo(value)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        known = available_timezones()
        if not known:
            raise ValueError("no time zone is known here: install the package tzdata") from None
        near = _near(value, known)
        raise ValueError(
            f'no such time zone here{near}; give its IANA name, such as "Europe/Berlin"'
        ) from None
    return value


def sha256_fingerprint(value: str) -> str:
    """Return a fingerprint in lower case without colons."""
    if not re.fullmatch(r"[0-9A-Fa-f]{64}|[0-9A-Fa-f]{2}(?::[0-9A-Fa-f]{2}){31}", value):
        raise ValueError(
            "must be a certificate's SHA-256 fingerprint: 64 hexadecimal digits, with or without "
            "colons between the octets"
        )
    return value.replace(":", "").lower()


def tables(value: object) -> object:
    """Refuse what is no list, such as a table of the same name."""
    if not isinstance(value, list):
        raise ValueError(  # noqa: TRY004 - pydantic collects ValueError only
            "must be a list of tables: each begins with its name in two pairs of brackets, [[…]]"
        )
    return value


def variable_name(value: str) -> str:
    """Refuse what is no name of an environment variable (POSIX.1 §8.1)."""
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", value):
        raise ValueError("must be the name of an environment variable")
    return value


def credential_name(value: str) -> str:
    """Refuse what systemd would not take as the name of a credential."""
    if not is_credential_name(value):
        raise ValueError("must be the name of a systemd credential: a file name without a slash")
    return value


def told(seconds: float) -> str:
    """Write seconds for people."""
    return f"{seconds:g} s"


def told_in_days(seconds: float) -> str:
    """Write a long time for people."""
    return f"{seconds / 86400:g} d"


def per_hour(seconds: float) -> str:
    """Write for people how often an hour something happens."""
    return f"{3600 / seconds:g}"
