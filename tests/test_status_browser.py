"""The status page as a person sees it, in Chromium."""

from __future__ import annotations

import re
from contextlib import asynccontextmanager

import pytest
import structlog
from axe_playwright_python.async_playwright import Axe
from boards import failed, org, result, violation
from conftest import require_program
from playwright.async_api import async_playwright, expect
from test_status_pages import HOSTILE
from watching import validator, watching

from agent import report
from agent.reason import Reason
from agent.result import Failure, Probe, Undetermined
from agent.simulator.pki import ClientCertificate
from agent.simulator.scenario import SCENARIOS
from agent.status.view import State

pytestmark = [pytest.mark.component, pytest.mark.slow]

PATHS = ("/", "/?q=nobody", "/orgs/emea", "/orgs/apac", "/orgs/amer?tried=login", "/orgs/nobody")
PHONE = {"width": 390, "height": 844}
FLEET = {
    "emea": "healthy",
    "apac": "tls13_required_intermediate_missing",
    "amer": "invalid_login",
    "expiring": "tls13_required_expiring",
    "slow": "slow_but_well",
}


@pytest.fixture(autouse=True)
def logged():
    """Keep our own log lines, which would else be printed at length."""
    with structlog.testing.capture_logs() as entries:
        yield entries


@asynccontextmanager
async def chromium():
    """Give a browser; whatever its pages complain about fails the test."""
    program = require_program("chromium")
    async with async_playwright() as playwright:
        # As root there is no sandbox; the pages are our own.
        browser = await playwright.chromium.launch(
            executable_path=program, args=["--no-sandbox", "--disable-dev-shm-usage"]
        )
        try:
            yield browser
        finally:
            await browser.close()


@asynccontextmanager
async def opened(browser, *, complaining=False, **differently):
    """Give a page of a fresh visitor; unless it may complain, see that nothing was wrong.

    A request that is refused or cut is a complaint of the browser's.
    """
    context = await browser.new_context(**differently)
    page = await context.new_page()
    complaints = []
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on(
        "console",
        lambda message: complaints.append(message.text) if message.type == "error" else None,
    )
    page.on("dialog", lambda dialog: complaints.append(f"dialog: {dialog.message}"))
    yield page
    await context.close()
    assert complaining or complaints == []


async def serious(page):
    """Return what axe-core calls serious or critical."""
    found = await Axe().run(page)
    return [
        (violation["id"], [node["html"][:200] for node in violation["nodes"]][:3])
        for violation in found.response["violations"]
        if violation["impact"] in {"serious", "critical"}
    ]


# --- every scenario


@pytest.mark.timeout(300)
async def test_for_every_scenario_page_and_document_say_state_reason_cause_and_remedy(tmp_path):
    # An agent has a certificate to present, so what happens without one is not seen here.
    scenarios = {
        name.replace("_", "-"): scenario
        for name, scenario in SCENARIOS.items()
        if scenario.client_certificate is not ClientCertificate.NONE
    }
    described = validator("Org")
    wanted = {}
    async with watching(tmp_path, scenarios) as w, w.client() as client, chromium() as browser:
        await w.look()
        for name, scenario in scenarios.items():
            document = (await client.get(f"/api/v1/orgs/{name}")).json()
            known, last = w.services.board.get(name), w.journal.last(name)
            printed = report.cycle(last, known.judgement)
            assert {key: document[key] for key in printed} == printed
            described.validate(document)
            words = words_of(known, scenario)
            state = State(document["status"]["state"])
            failing = any(isinstance(status.last, Failure) for status in known.probes.values())
            assert (state is State.FAILING) is failing, scenario
            if isinstance(known.probes[Probe.HANDSHAKE].last, Undetermined):
                assert state is State.UNCLEAR, scenario
            wanted[name] = state, words
        async with opened(browser) as page:
            for name, (state, words) in wanted.items():
                await page.goto(f"{w.url}/orgs/{name}", wait_until="commit")
                shown = plain(await page.locator("main").inner_text())
                assert [word for word in words if word not in shown] == [], name
                assert state in await page.locator("h1").inner_text()
                assert (await page.title()).startswith(state.symbol)
    assert len(scenarios) > 250


def words_of(known, scenario):
    """Return what a page must say of a scenario: verdict, reasons, causes and remedies."""
    words = {known.client_auth.value} if known.client_auth else set()
    for probe, wanted in scenario.expected.items():
        if not isinstance(wanted, Reason):
            continue
        status = known.probes[probe]
        assert status.reason is wanted, (scenario, probe)
        words.add(wanted.value)
        if status.cause is None:
            words.add(plain(wanted.remedy))
        else:
            sentence = re.sub(r"[0-9a-f]{40}.*", "", plain(status.cause.sentence))
            words |= {sentence[:200], plain(status.cause.remedy)}
            words.add(f"{status.cause.confidence} cause")
    return words


def plain(text):
    """Return a text as it is between the edges of lines."""
    return " ".join(text.split())


# --- what a person does


async def test_filter_sort_and_deep_links_work_with_and_without_script(tmp_path):
    async with watching(tmp_path, FLEET) as w, chromium() as browser:
        await w.look()
        for script in (True, False):
            async with opened(browser, java_script_enabled=script) as page:
                await page.goto(w.url)
                assert (await page.title()).startswith("✕ 2 of 5 ")
                await page.get_by_role("link", name="failing").click()
                await expect(page).to_have_url(f"{w.url}/?state=failing")
                await expect(page.locator("tbody tr")).to_have_count(2)
                await page.get_by_role("link", name="Org", exact=True).click()
                await expect(page).to_have_url(f"{w.url}/?state=failing&sort=name")
                await expect(page.locator("tbody th a")).to_have_text(["amer", "apac"])
                await page.get_by_role("columnheader", name="Org").get_by_role("link").click()
                await expect(page.locator("tbody th a")).to_have_text(["apac", "amer"])
                await page.get_by_label("Name, host").fill("unknown_ca")
                await page.get_by_role("button", name="Search").click()
                await expect(page.locator("tbody th a")).to_have_text(["apac"])
                await expect(page).to_have_url(re.compile("q=unknown_ca"))
                assert "state=failing" in page.url
                assert "sort=-name" in page.url
                await page.goto(page.url)
                await expect(page.locator("tbody th a")).to_have_text(["apac"])
                await page.go_back()
                await page.get_by_role("link", name="apac", exact=True).click()
                await expect(page).to_have_url(f"{w.url}/orgs/apac")
                await expect(page.locator("h1")).to_contain_text("apac")


async def test_a_page_refreshes_itself_and_keeps_place_filter_words_and_what_is_open(tmp_path):
    async with watching(tmp_path, FLEET) as w, chromium() as browser:
        await w.look()
        async with opened(browser, viewport={"width": 900, "height": 400}) as page:
            await page.clock.install()
            await page.goto(f"{w.url}/orgs/apac")
            trouble = page.locator("details#trouble")
            await trouble.locator("summary").click()
            assert await trouble.get_attribute("open") is None
            await page.evaluate("window.scrollTo(0, 500)")
            before = await page.evaluate("window.scrollY")
            assert before > 300
            await page.get_by_role("button", name="Copy SHA-256").first.focus()
            await page.evaluate("window.scrollTo(0, 500)")
            await w.look("apac")
            await page.clock.fast_forward(15_000)
            await expect(page.locator(".strip li")).to_have_count(2)
            assert await page.evaluate("window.scrollY") == before
            assert await trouble.get_attribute("open") is None
            copied = await page.evaluate("document.activeElement.dataset.copy")
            assert len(copied) == 64

            await page.goto(f"{w.url}/?q=a")
            await page.keyboard.press("/")
            await page.keyboard.press("End")
            await page.keyboard.type("pac")
            await page.clock.run_for(300)
            await expect(page.locator("tbody th a")).to_have_text(["apac"])
            await expect(page).to_have_url(f"{w.url}/?q=apac")
            await page.keyboard.type("x")
            await page.clock.run_for(16_000)
            await expect(page.locator(".empty")).to_contain_text("No org is like that")
            assert await page.evaluate("document.activeElement.value") == "apacx"


async def test_a_page_says_when_the_agent_does_not_answer_any_more(tmp_path):
    async with watching(tmp_path, {"emea": "healthy"}) as w, chromium() as browser:
        await w.look()
        async with opened(browser, complaining=True) as page:
            await page.clock.install()
            await page.goto(w.url)
            await page.route("**/*", lambda route: route.abort())
            await page.clock.fast_forward(15_000)
            lost = page.locator("#lost")
            await expect(lost).to_contain_text("The agent has not answered since")
            assert "no answer" in await page.title()
            await expect(page.locator("tbody tr")).to_have_count(1)
            await page.unroute("**/*")
            await page.clock.fast_forward(15_000)
            await expect(lost).to_be_hidden()
            assert "no answer" not in await page.title()


async def test_without_script_a_page_refreshes_itself_too_and_nothing_is_missing(tmp_path):
    async with watching(tmp_path, FLEET) as w, chromium() as browser:
        await w.look()
        async with opened(browser, java_script_enabled=False) as page:
            await page.goto(f"{w.url}/?state=failing")
            refresh = page.locator('meta[http-equiv="refresh"]')
            assert await refresh.get_attribute("content") == "60"
            assert await page.locator("[data-copy]:visible").count() == 0
            await page.goto(f"{w.url}/orgs/apac")
            # One click selects all of what there is no button to copy.
            style = "getComputedStyle(e).userSelect"
            assert await page.locator("code.whole").first.evaluate(f"e => {style}") == "all"


async def test_fingerprints_and_serial_numbers_are_copied(tmp_path):
    async with watching(tmp_path, {"emea": "healthy"}) as w, chromium() as browser:
        await w.look()
        leaf = w.journal.last("emea").client_chain[0]
        async with opened(browser, permissions=["clipboard-read", "clipboard-write"]) as page:
            await page.goto(f"{w.url}/orgs/emea")
            for label, value in (
                ("SHA-256", leaf.fingerprint_sha256),
                ("serial number", leaf.serial_number),
            ):
                button = page.locator(f'[data-copy="{value}"]')
                await expect(button).to_have_text(f"Copy {label}")
                await button.click()
                await expect(button).to_contain_text("Copied")
                assert await page.evaluate("navigator.clipboard.readText()") == value


async def test_a_button_tries_again_and_what_must_not_be_is_refused_in_a_sentence(tmp_path):
    async with watching(tmp_path, FLEET) as w, chromium() as browser:
        for script in (True, False):
            before = w.cycles
            w.ondemand._ended.clear()
            async with opened(browser, java_script_enabled=script, complaining=True) as page:
                await page.goto(f"{w.url}/orgs/emea")
                await page.get_by_role("button", name="Try the door now").click()
                await expect(page.locator(".notice")).to_have_text(
                    "Tried just now: the door works."
                )
                await expect(page).to_have_url(f"{w.url}/orgs/emea?tried=door")
                assert w.cycles == before + 1
                assert w.simulators["emea"].record.logins == 0
                await page.get_by_role("button", name="Try the door now").click()
                await expect(page.locator("h1")).to_have_text("That was not done")
                await expect(page.locator("main")).to_contain_text("asked for too often")
                await page.get_by_role("link", name="Back to emea").click()
                await expect(page).to_have_url(f"{w.url}/orgs/emea")
                assert w.cycles == before + 1
        async with opened(browser) as page:
            for _ in range(2):
                w.ondemand._ended.clear()
                await page.goto(f"{w.url}/orgs/amer")
                await page.get_by_role("button", name="Try door and login now").click()
                await expect(page.locator(".notice")).to_contain_text("Tried just now")
            await expect(page.locator(".notice")).to_contain_text("breaker_open")
            assert w.simulators["amer"].record.logins == 1
            # Under another name of this machine, as after DNS rebinding, there is no button.
            await page.goto(f"{w.url}/orgs/amer".replace("127.0.0.1", "rebound.localhost"))
            assert await page.locator("form[method=post]").count() == 0
            await expect(page.locator("main")).to_contain_text("Open this page under localhost")


async def test_where_it_is_not_enabled_there_is_no_button_and_a_sentence_says_so(tmp_path):
    async with (
        watching(tmp_path, {"emea": "healthy"}, probing=False) as w,
        chromium() as browser,
        opened(browser) as page,
    ):
        await page.goto(f"{w.url}/orgs/emea")
        assert await page.locator("form[method=post]").count() == 0
        await expect(page.locator("main")).to_contain_text("Trying on demand is off")


async def test_a_page_of_another_site_cannot_press_the_button(tmp_path):
    async with watching(tmp_path, {"emea": "healthy"}) as w, chromium() as browser:
        async with w.client() as client:
            page_text = (await client.get("/orgs/emea")).text
        action = re.search(r'action="([^"]*token=[^"]*)"', page_text)[1].replace("&amp;", "&")
        async with opened(browser, complaining=True) as page:
            # It has even learned the token.
            form = f'<form method="post" action="{w.url}{action}"><button>Win</button></form>'
            await page.route(
                "http://evil.example/",
                lambda route: route.fulfill(body=form, content_type="text/html"),
            )
            await page.goto("http://evil.example/")
            await page.get_by_role("button").click()
            await expect(page.locator("body")).to_contain_text(
                "Another site's page may not do this."
            )
        assert w.cycles == 0


# --- how it looks and for whom


@pytest.mark.parametrize(
    ("scheme", "viewport"),
    [
        ("light", None),
        ("dark", None),
        ("light", PHONE),
        ("dark", PHONE),
    ],
)
async def test_axe_finds_nothing_serious_and_nothing_is_wider_than_the_screen(
    scheme, viewport, tmp_path
):
    async with watching(tmp_path, FLEET) as w, chromium() as browser:
        await w.look()
        await w.look()
        async with opened(
            browser,
            color_scheme=scheme,
            viewport=viewport or {"width": 1280, "height": 900},
            complaining=True,
        ) as page:
            backgrounds = set()
            for path in PATHS:
                await page.goto(w.url + path)
                assert await serious(page) == [], path
                widths = "[document.documentElement.scrollWidth, window.innerWidth]"
                whole, screen = await page.evaluate(widths)
                assert whole <= screen, path
                color = "getComputedStyle(document.body).backgroundColor"
                backgrounds.add(await page.evaluate(color))
    assert backgrounds == {"rgb(255, 255, 255)" if scheme == "light" else "rgb(20, 23, 28)"}


async def test_the_keyboard_alone_reaches_everything_and_sees_where_it_is(tmp_path):
    async with (
        watching(tmp_path, FLEET) as w,
        chromium() as browser,
        opened(browser) as page,
    ):
        await w.look()
        await page.goto(w.url)
        await page.keyboard.press("Tab")
        await expect(page.get_by_role("link", name="Skip to the content")).to_be_focused()
        await expect(page.get_by_role("link", name="Skip to the content")).to_be_in_viewport()
        await page.keyboard.press("Enter")
        reached = []
        for _ in range(40):
            await page.keyboard.press("Tab")
            reached.append(await page.evaluate("document.activeElement.innerText"))
            outline = "getComputedStyle(document.activeElement).outlineStyle"
            if reached[-1] == "apac":
                assert await page.evaluate(outline) == "solid"
                break
        assert {"State ▴", "Search"} <= set(reached)
        await page.keyboard.press("Enter")
        await expect(page).to_have_url(f"{w.url}/orgs/apac")
        await page.keyboard.press("h")
        await expect(page).to_have_url(f"{w.url}/")


async def test_in_print_there_are_no_buttons_and_every_time_is_whole(tmp_path):
    async with (
        watching(tmp_path, FLEET) as w,
        chromium() as browser,
        opened(browser) as page,
    ):
        await w.look()
        await page.goto(f"{w.url}/orgs/apac")
        await page.emulate_media(media="print")
        assert await page.locator("button:visible").count() == 0
        after = "getComputedStyle(document.querySelector('main time'), '::after').content"
        assert "datetime" in await page.evaluate(after) or "20" in await page.evaluate(after)
        assert len(await page.pdf()) > 10_000


async def test_what_strangers_write_runs_nowhere_and_breaks_no_layout(tmp_path):
    async with (
        watching(tmp_path, {"plain": "healthy"}) as w,
        chromium() as browser,
        opened(browser, viewport=PHONE) as page,
    ):
        await w.look()
        made = w.services.board
        for number, text in enumerate(HOSTILE):
            name = f"{number}{text}".replace("/", "")[:800]
            made.add(org(name, labels={"team": text}))
            seen = result(name, outcomes=failed(Reason.HTML_UNEXPECTED, text), client_chain=())
            seen = result(name, outcomes=seen.outcomes, client_chain=(), handshake=None)
            made.record(seen, violations=[violation()])
            w.journal.take(seen, made.get(name))
        await page.goto(f"{w.url}/?sort=name")
        rows = page.locator("tbody tr")
        assert await rows.count() == len(HOSTILE) + 1
        for path in ["/?sort=name", *[f"#{n}" for n in range(len(HOSTILE))]]:
            if path.startswith("#"):
                await page.goto(f"{w.url}/?sort=name")
                await page.locator("tbody th a").nth(int(path[1:])).click()
                await expect(page.locator("h2").first).to_have_text("What to do next")
            whole = await page.evaluate("document.documentElement.scrollWidth")
            assert whole <= PHONE["width"], path
