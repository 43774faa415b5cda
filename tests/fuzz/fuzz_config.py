"""A configuration of any bytes: Settings or a ConfigError, which shows nothing of the secrets."""

from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

from agent.config import ConfigError, load

HERE = Path(__file__).parent
CANARY = "canary-8443-secret"


def one_input(data: bytes) -> None:
    said = ""
    with TemporaryDirectory(prefix="fuzz-config-") as directory:
        file = Path(directory) / "config.toml"
        file.write_bytes(data)
        try:
            load(file, {})
        except ConfigError as error:
            said = str(error)
    assert CANARY not in said


def seeds() -> Iterator[bytes]:
    tests = HERE.parent
    yield (tests.parent / "config.example.toml").read_bytes()
    for file in sorted((tests / "configs").glob("*.toml")):
        yield file.read_bytes()
    yield f'[orgs.a]\nhost = "a.my.salesforce.com"\nlogin.password = "{CANARY}"\n'.encode()
