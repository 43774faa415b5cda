"""What is handed out: wheel, sdist, Debian package, container, manual page, bill of materials."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import pty
import re
import select
import shlex
import subprocess
import sys
import tarfile
import time
import venv
import zipfile
from email.parser import HeaderParser
from pathlib import Path

import click
import pytest
from conftest import require_program
from fleet import Fleet
from machine import alone

import agent
from agent import cli

ROOT = Path(__file__).parent.parent
LOCK = ROOT / "requirements.txt"
BIN = Path(sys.executable).parent
# A moment of the past: what is made now must not show that it was.
EPOCH = "1750000000"


def output(*command, **differently):
    """Return what a command prints on standard output; it must succeed."""
    done = subprocess.run(
        command, check=False, capture_output=True, text=True, timeout=100, **differently
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return done.stdout


def script(name, *arguments, python=sys.executable, **environment):
    """Return what one of our scripts prints."""
    command = (python, ROOT / "scripts" / name, *arguments)
    return output(*command, env={**os.environ, **environment})


# --- wheel and sdist


def build(source, folder):
    """Build wheel and sdist with the pinned backend and no network."""
    output(sys.executable, "-m", "hatchling", "build", "--directory", folder, cwd=source)
    (wheel,) = folder.glob("*.whl")
    (sdist,) = folder.glob("*.tar.gz")
    return wheel, sdist


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    return build(ROOT, tmp_path_factory.mktemp("built"))


def files(folder):
    """Return the names of the files in a folder, below it too, but for what Python leaves there."""
    return {
        str(path.relative_to(folder))
        for path in folder.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }


def test_the_wheel_has_every_file_of_the_agent_and_no_other(built):
    wheel, _ = built
    ours = {f"agent/{name}" for name in files(ROOT / "agent")}

    names = set(zipfile.ZipFile(wheel).namelist())

    assert {"agent/data/policy.toml", "agent/data/chrome_roots.pem", "agent/py.typed"} <= ours
    assert {name for name in names if ".dist-info/" not in name} == ours


def test_the_sdist_has_what_the_same_wheel_and_the_packages_are_made_from(built, tmp_path):
    wheel, sdist = built
    with tarfile.open(sdist) as archive:
        archive.extractall(tmp_path, filter="data")
    (source,) = tmp_path.iterdir()

    again, _ = build(source, tmp_path / "again")

    assert again.read_bytes() == wheel.read_bytes()
    wanted = {"config.example.toml", "web-config.example.yml", "requirements.txt", "Makefile"}
    assert wanted <= {path.name for path in source.iterdir()}
    for folder in ("docs", "grafana", "packaging", "prometheus", "scripts", "systemd", "tests"):
        ours, theirs = files(ROOT / folder), files(source / folder)
        assert theirs == ours


@pytest.fixture(scope="module")
def installed(built, tmp_path_factory):
    """Return the programs' folder of an environment that has the wheel, and this one's packages."""
    wheel, _ = built
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, symlinks=True)
    python = folder / "bin" / "python"
    (mine, theirs) = (
        output(each, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").strip()
        for each in (sys.executable, python)
    )
    # Their own packages come first; the .pth files in mine, such as that of the agent's source, are
    # not followed.
    (Path(theirs) / "mine.pth").write_text(mine + "\n")
    pip = (sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-index")
    output(*pip, "--no-deps", wheel)
    return folder / "bin"


def test_what_the_wheel_installs_runs_away_from_its_source(installed, tmp_path):
    where = output(installed / "python", "-Ic", "import agent; print(agent.__file__)", cwd=tmp_path)

    assert Path(where.strip()).is_relative_to(installed.parent)
    program = installed / "sfmtls-agent"
    assert output(program, "--version", cwd=tmp_path) == f"sfmtls-agent {agent.__version__}\n"
    # The policy's tables and Chrome's roots are data files.
    assert json.loads(output(program, "rules", "--json", cwd=tmp_path))


async def test_what_the_wheel_installs_checks_a_configuration(installed, tmp_path):
    fleet = Fleet(tmp_path)
    await fleet.add("emea")
    await fleet.stop()

    def check():
        return subprocess.run(
            [installed / "sfmtls-agent", "check", "--config", fleet.file],
            check=False,
            capture_output=True,
            text=True,
            cwd=tmp_path,
        )

    good = check()
    (tmp_path / "password.txt").unlink()
    bad = check()

    assert (good.returncode, good.stderr) == (0, "")
    assert "emea" in good.stdout
    assert bad.returncode == cli.EX_CONFIG
    assert "password.txt" in bad.stdout


# --- shell completion


def completion(shell):
    asked = {**os.environ, "_SFMTLS_AGENT_COMPLETE": f"{shell}_source"}
    return output(BIN / "sfmtls-agent", env=asked)


@pytest.fixture(scope="module")
def start_up_file(tmp_path_factory):
    """Return what an interactive bash reads first, so that it knows how to complete."""
    path = tmp_path_factory.mktemp("bash") / "bashrc"
    path.write_text(f"PATH={shlex.quote(str(BIN))}:$PATH\nPS1='ready> '\n{completion('bash')}")
    return path


def line_after(start_up_file, keys, seconds=30.0):
    """Return the line that an interactive bash shows after somebody has typed these keys."""
    ours, theirs = pty.openpty()
    shell = subprocess.Popen(
        ["bash", "--rcfile", start_up_file, "-i"],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
        env={**os.environ, "TERM": "dumb"},
    )
    os.close(theirs)
    shown, waiting = "", [("ready> ", keys + "#end"), ("#end", "")]
    end = time.monotonic() + seconds
    try:
        while waiting and time.monotonic() < end:
            if select.select([ours], [], [], 0.1)[0]:
                shown += os.read(ours, 4096).decode()
            if waiting[0][0] in shown:
                os.write(ours, waiting.pop(0)[1].encode())
    finally:
        shell.kill()
        shell.wait()
        os.close(ours)
    return shown.rpartition("ready> ")[2].replace("\a", "").removesuffix("#end")


@pytest.mark.parametrize(
    ("keys", "line"),
    [
        ("sfmtls-agent ins\t", "sfmtls-agent inspect "),
        ("sfmtls-agent breaker re\t", "sfmtls-agent breaker reset "),
        ("sfmtls-agent probe --no-l\t", "sfmtls-agent probe --no-login "),
        ("sfmtls-agent inz\t", "sfmtls-agent inz"),
    ],
)
def test_tab_completes_commands_and_options_in_bash(start_up_file, keys, line):
    assert line_after(start_up_file, keys) == line


# --- manual page


@pytest.fixture(scope="module")
def page():
    return script("make_man.py")


def rendered(page):
    """Return the manual page as a terminal shows it; what groff warns of fails the test."""
    shown = subprocess.run(
        [require_program("groff"), "-man", "-Tutf8", "-ww", "-P-cbou"],
        check=False,
        input=page,
        capture_output=True,
        text=True,
    )
    assert (shown.returncode, shown.stderr) == (0, "")
    return shown.stdout


def not_explained(page):
    """Return each command and option that the page does not explain in its place."""
    text = rendered(page)
    # A command's part begins with how it is called, three columns in.
    parts = re.split(r"^ {3}(?=sfmtls-agent)", text, flags=re.MULTILINE)
    missing = []
    for context in commands(click.Context(cli._app, info_name="sfmtls-agent")):
        called = context.command_path
        heading = rf"{called}(?: (?:\[|FILE|ORG)|$)"
        (part,) = [part for part in parts if re.match(heading, part)] or [""]
        if not part:
            missing.append(called)
        for parameter in context.command.params:
            record = parameter.get_help_record(context)
            if record and not re.search(rf"^ +{re.escape(record[0])}(?: |$)", part, re.MULTILINE):
                missing.append(f"{called} {record[0]}")
    return missing


def commands(context):
    for name, command in context.command.commands.items():
        inner = click.Context(command, parent=context, info_name=name)
        yield inner
        if isinstance(command, click.Group):
            yield from commands(inner)


@pytest.mark.component
def test_the_manual_page_explains_every_command_and_option(page):
    assert not_explained(page) == []


@pytest.mark.component
@pytest.mark.parametrize(
    ("line", "named"),
    [
        (r"\fB\-\-chrome\-roots FILE\fR", "sfmtls-agent inspect --chrome-roots FILE"),
        (r"\fB\-\-ics FILE\fR", "sfmtls-agent forecast --ics FILE"),
    ],
)
def test_an_option_that_the_manual_page_leaves_out_is_named(page, line, named):
    before = page.split("\n")
    before[before.index(line)] = "an option"

    assert not_explained("\n".join(before)) == [named]


@pytest.mark.component
def test_the_manual_page_has_what_a_reader_looks_for(page):
    text = rendered(page)

    headings = re.findall(r"^([A-Z][A-Z ]+)$", text, re.MULTILINE)
    assert headings == [
        "NAME",
        "SYNOPSIS",
        "DESCRIPTION",
        "OPTIONS",
        "COMMANDS",
        "EXIT STATUS",
        "FILES",
        "ENVIRONMENT",
        "SEE ALSO",
    ]
    assert re.search(r"^ +78 +The configuration", text, re.MULTILINE)
    assert "/etc/sfmtls-agent/config.toml\n" in text
    assert f"sfmtls-agent {agent.__version__}" in text.splitlines()[-1]


# --- bill of materials


@pytest.fixture(scope="module")
def bill(installed):
    """Return a bill that is made where the agent is installed as it is now."""
    python = installed / "python"
    return json.loads(script("make_sbom.py", LOCK, python=python, SOURCE_DATE_EPOCH=EPOCH))


def test_the_bill_has_the_locked_packages_their_versions_and_hashes_and_no_other(bill):
    wanted = {}
    for line in LOCK.read_text().splitlines():
        # Of the markers in the lock, only this one does not hold where the agent runs.
        if (pin := re.match(r"([\w.-]+)==(\S+)", line)) and "win32" not in line:
            hashes = wanted[(pin[1], pin[2])] = set()
        elif pin:
            hashes = set()
        elif found := re.search(r"--hash=sha256:(\w+)", line):
            hashes.add(found[1])

    found = {
        (each["name"], each["version"]): {digest["content"] for digest in each["hashes"]}
        for each in bill["components"]
    }

    assert found == wanted


def test_the_bill_is_cyclonedx(bill):
    components = [bill["metadata"]["component"], *bill["components"]]
    references = [component["bom-ref"] for component in components]

    assert (bill["bomFormat"], bill["specVersion"], bill["version"]) == ("CycloneDX", "1.6", 1)
    assert re.fullmatch(r"urn:uuid:[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", bill["serialNumber"])
    assert bill["metadata"]["timestamp"] == "2025-06-15T15:06:40+00:00"
    assert len(references) == len(set(references))
    assert components[0]["name"] == "sfmtls-agent"
    for component in components:
        name, version = component["name"], component["version"]
        assert component["purl"] == f"pkg:pypi/{name}@{version}"
        assert component["type"] == ("application" if name == "sfmtls-agent" else "library")
        for digest in component.get("hashes", ()):
            assert digest["alg"] == "SHA-256"
            assert re.fullmatch("[0-9a-f]{64}", digest["content"])
    # SPDX licence expressions (the part of them that these packages use).
    name = r"(?:Apache-2\.0|BSD-[23]-Clause|MIT(?:-0)?|MPL-2\.0|PSF-2\.0)"
    for component in components:
        ((kind, expression),) = component["licenses"][0].items()
        assert kind == "expression"
        assert re.fullmatch(rf"{name}(?: (?:OR|AND) {name})*", expression), component["name"]


def test_everything_in_the_bill_is_there_because_the_agent_needs_it(bill):
    edges = {each["ref"]: each["dependsOn"] for each in bill["dependencies"]}
    reached, waiting = set(), [bill["metadata"]["component"]["bom-ref"]]
    while waiting:
        reference = waiting.pop()
        if reference not in reached:
            reached.add(reference)
            waiting += edges[reference]

    assert reached == set(edges)
    assert reached - {bill["metadata"]["component"]["bom-ref"]} == {
        component["bom-ref"] for component in bill["components"]
    }


def test_the_same_lock_gives_the_same_bill_and_another_lock_another_number(bill, tmp_path):
    other = tmp_path / "requirements.txt"
    other.write_text(LOCK.read_text() + "\n")

    first, second = (script("make_sbom.py", LOCK, SOURCE_DATE_EPOCH=EPOCH) for _ in range(2))
    changed = json.loads(script("make_sbom.py", other, SOURCE_DATE_EPOCH=""))

    assert first == second
    assert json.loads(first)["serialNumber"] == bill["serialNumber"] != changed["serialNumber"]
    assert "timestamp" not in changed["metadata"]


def test_a_bill_of_what_is_not_installed_is_refused(tmp_path):
    lock = tmp_path / "requirements.txt"
    text = LOCK.read_text()
    lock.write_text(text.replace("h11==0.16.0", "h11==0.15.0"))

    refused = subprocess.run(
        [sys.executable, ROOT / "scripts" / "make_sbom.py", lock],
        check=False,
        capture_output=True,
        text=True,
    )

    assert "h11==0.16.0" in text
    assert (refused.returncode, refused.stdout) == (1, "")
    assert refused.stderr == "h11 0.16.0 is installed, but the lock has h11==0.15.0\n"


# --- container


def instructions(text):
    """Return a Containerfile's instructions and their arguments, one stage after the other."""
    text = re.sub(r"^\s*#.*\n", "", text, flags=re.MULTILINE).replace("\\\n", " ")
    lines = [line.split(None, 1) for line in text.splitlines() if line.strip()]
    return [(name.upper(), rest.strip()) for name, rest in lines]


def words(rest):
    """Return the arguments of an instruction, written as a JSON list or not."""
    return json.loads(rest) if rest.startswith("[") else rest.split()


def flaws(text):
    """Return what a Containerfile does that it should not do."""
    every = instructions(text)
    arguments = dict(rest.split("=", 1) for name, rest in every if name == "ARG")
    last = max(index for index, (name, _) in enumerate(every) if name == "FROM")
    found = [flaw for name, rest in every for flaw in flaws_anywhere(name, rest, arguments)]
    return [*dict.fromkeys(found), *flaws_at_the_end(every[last:])]


def flaws_anywhere(name, rest, arguments):
    if name == "FROM":
        base = re.sub(r"\$\{(\w+)\}", lambda match: arguments[match[1]], rest.split()[0])
        if base.partition(":")[2] in {"", "latest"}:
            yield f"{base} has no tag that stays"
    if name == "ADD" or (name == "RUN" and "://" in rest):
        yield f"{name} fetches"
    if name in {"RUN", "ENTRYPOINT", "CMD"} and not rest.startswith("["):
        yield f"{name} needs a shell"
    if "install" in rest and not {"--require-hashes", "--no-index"} & {*words(rest)}:
        yield "pip installs without hashes"


def flaws_at_the_end(stage):
    users = [rest for name, rest in stage if name == "USER"]
    if not users or not re.fullmatch(r"[1-9]\d*:[1-9]\d*", users[-1]):
        yield "it does not run as a number that is not root's"
    if "RUN" in dict(stage):
        yield "the last stage builds"
    volumes = [word for name, rest in stage if name == "VOLUME" for word in words(rest)]
    if volumes != ["/var/lib/sfmtls-agent"]:
        yield f"what it may write is {volumes}"
    for wanted in ("HEALTHCHECK", "ENTRYPOINT"):
        if wanted not in dict(stage):
            yield f"there is no {wanted}"


CONTAINERFILE = (ROOT / "packaging" / "container" / "Containerfile").read_text()


def test_the_container_is_as_locked_as_it_says():
    assert flaws(CONTAINERFILE) == []


@pytest.mark.parametrize(
    ("good", "bad", "flaw"),
    [
        ("python:3.13-slim-trixie", "python:latest", "python:latest has no tag that stays"),
        ("python:3.13-slim-trixie", "python", "python has no tag that stays"),
        ("COPY requirements.txt", "ADD https://x.example/r.txt", "ADD fetches"),
        ('"--require-hashes", ', "", "pip installs without hashes"),
        (
            "USER 65532:65532",
            "USER 65532:65532\nUSER 0:0",
            "it does not run as a number that is not root's",
        ),
        (
            "USER 65532:65532",
            "USER nobody",
            "it does not run as a number that is not root's",
        ),
        ('CMD ["run"]', "CMD run", "CMD needs a shell"),
        (
            'VOLUME ["/var/lib/sfmtls-agent"]',
            'VOLUME ["/var/lib/sfmtls-agent", "/tmp"]',
            "what it may write is ['/var/lib/sfmtls-agent', '/tmp']",
        ),
        ("HEALTHCHECK ", "LABEL health=", "there is no HEALTHCHECK"),
    ],
)
def test_a_container_that_is_less_locked_is_named(good, bad, flaw):
    assert good in CONTAINERFILE

    assert flaws(CONTAINERFILE.replace(good, bad, 1)) == [flaw]


def test_the_container_starts_a_command_that_there_is():
    last = dict(instructions(CONTAINERFILE))

    assert words(last["ENTRYPOINT"]) == ["sfmtls-agent"]
    assert words(last["CMD"]) == ["run"]
    assert "run" in cli._app.commands


# --- Debian package


def build_package(folder, *options, **differently):
    """Build the Debian package as its users do, and return its path."""
    for program in ("dh", "dpkg-deb", "py3compile"):
        require_program(program)
    environment = {**os.environ, "SOURCE_DATE_EPOCH": EPOCH, **differently}
    shell = ROOT / "packaging" / "build_deb.sh"
    environment["PYTHON"] = sys.executable
    told = output(shell, "--output", folder, *options, env=environment, cwd="/")
    return Path(told.splitlines()[-1])


@pytest.fixture(scope="session")
def package(tmp_path_factory):
    """Return the package, built once for all processes of this run, and its files unpacked."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "debian"
    with alone(folder) as missing:
        if missing:
            deb = build_package(folder)
            output("dpkg-deb", "--extract", deb, folder / "root")
    (deb,) = folder.glob("*.deb")
    return deb, folder / "root"


@pytest.mark.component
@pytest.mark.slow
def test_the_debian_package_has_its_files_in_the_usual_places(package):
    _, root = package
    documents = root / "usr/share/doc/sfmtls-agent"
    page = gzip.decompress((root / "usr/share/man/man1/sfmtls-agent.1.gz").read_bytes())

    assert page.decode() == script("make_man.py")
    assert {str(path.relative_to(root)) for path in root.rglob("etc/**")} == {
        "etc",
        "etc/sfmtls-agent",
    }
    units = root / "lib/systemd/system"
    for unit in (ROOT / "systemd").glob("sfmtls-agent.*"):
        if unit.is_file():
            assert (units / unit.name).read_bytes() == unit.read_bytes()
    condition = (units / "sfmtls-agent.service.d/needs-config.conf").read_text()
    assert "\nConditionPathExists=/etc/sfmtls-agent/config.toml\n" in condition
    for name in (
        "config.example.toml",
        "prometheus/rules/alerts.yml",
        "grafana/dashboards/org.json",
    ):
        assert (documents / "examples" / name).read_bytes() == (ROOT / name).read_bytes()
    for shell, place in (
        ("bash", "bash-completion/completions/sfmtls-agent"),
        ("zsh", "zsh/vendor-completions/_sfmtls-agent"),
        ("fish", "fish/vendor_completions.d/sfmtls-agent.fish"),
    ):
        assert (root / "usr/share" / place).read_text() == completion(shell)


@pytest.mark.component
@pytest.mark.slow
def test_the_debian_package_says_what_is_in_it(package):
    _, root = package
    tree = root / "usr/lib/sfmtls-agent"
    bill = json.loads((root / "usr/share/doc/sfmtls-agent/sfmtls-agent.cdx.json").read_text())

    named = {each["purl"] for each in (bill["metadata"]["component"], *bill["components"])}
    found = set()
    for path in tree.glob("*.dist-info/METADATA"):
        said = HeaderParser().parsestr(path.read_text())
        name = re.sub("[-_.]+", "-", said["Name"]).lower()
        found.add(f"pkg:pypi/{name}@{said['Version']}")

    assert named == found


@pytest.mark.component
@pytest.mark.slow
def test_the_debian_package_brings_all_that_it_needs(package, tmp_path):
    """Run its program as it is, but for where its packages lie, with the system's Python."""
    _, root = package
    launcher = (root / "usr/bin/sfmtls-agent").read_text()
    tree = "/usr/lib/sfmtls-agent"
    program = tmp_path / "sfmtls-agent"
    program.write_text(launcher.replace(tree, f"{root}{tree}"))
    program.chmod(0o755)

    assert launcher.count(tree) == 1
    assert output(program, "--version") == f"sfmtls-agent {agent.__version__}\n"
    listening = subprocess.run(
        [program, "demo", "--listen", "127.0.0.1:0", "--for", "1s"],
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
        env={"PATH": "/usr/bin:/bin"},
    )
    assert listening.returncode == 0, listening.stderr
    assert "Traceback" not in listening.stderr, listening.stderr


@pytest.mark.component
@pytest.mark.slow
def test_the_debian_package_depends_on_the_python_it_was_built_for_and_asks_nothing(package):
    deb, _ = package
    fields = HeaderParser().parsestr(output("dpkg-deb", "--field", deb))
    control = output("dpkg-deb", "--info", deb)

    minor = int(output("/usr/bin/python3", "-c", "import sys; print(sys.version_info.minor)"))
    depends = fields["Depends"].split(", ")
    assert f"python3 (>= 3.{minor}~)" in depends
    assert f"python3 (<< 3.{minor + 1}~)" in depends
    assert fields["Version"] == f"{agent.__version__}-1"
    # No question, and no file in /etc of which dpkg could ask whose it wants.
    assert not re.search(r"^ .* (conffiles|config|templates) ", control, re.MULTILINE)


@pytest.mark.component
@pytest.mark.slow
def test_lintian_finds_no_fault_in_the_debian_package(package):
    deb, _ = package
    found = subprocess.run(
        [require_program("lintian"), "--allow-root", "--fail-on=error,warning", deb],
        check=False,
        capture_output=True,
        text=True,
    )

    assert found.returncode == 0, found.stdout


@pytest.mark.component
@pytest.mark.slow
def test_the_same_source_gives_the_same_debian_package(package, tmp_path):
    deb, _ = package
    again = build_package(tmp_path / "again", TZ="Asia/Tokyo", LC_ALL="C", TMPDIR=str(tmp_path))

    assert again.name == deb.name
    assert digest(again) == digest(deb)


def digest(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize("arguments", [["--version", "1"], ["--output"], ["--outptu", "x"], ["x"]])
def test_a_build_with_arguments_that_it_does_not_know_is_refused(arguments):
    refused = subprocess.run(
        [ROOT / "packaging" / "build_deb.sh", *arguments],
        check=False,
        capture_output=True,
        text=True,
    )

    assert (refused.returncode, refused.stdout) == (2, "")
    assert refused.stderr.endswith("usage: build_deb.sh --output DIRECTORY [--version VERSION]\n")
