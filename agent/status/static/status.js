// What the page does beyond HTML: it keeps itself fresh, follows its own links without losing the
// place, and copies. Everything works without it too.
"use strict";
(() => {
  const EVERY = 15000;
  const main = document.getElementById("main");
  const lost = document.getElementById("lost");
  let paused = false;
  let timer = 0;
  let asked = 0;

  const clock = () => new Date().toISOString().slice(11, 19) + " UTC";

  // Take what a fresh page says without moving what somebody reads or types.
  function take(text) {
    const fresh = new DOMParser().parseFromString(text, "text/html");
    const body = fresh.getElementById("main");
    if (!body) throw new Error("no page");
    const focused = document.activeElement;
    const open = new Set([...main.querySelectorAll("details[open]")].map((d) => d.id));
    const known = new Set([...main.querySelectorAll("details")].map((d) => d.id));
    const typed = focused && focused.id === "q" ? [focused.value, focused.selectionStart, focused.selectionEnd] : null;
    const place = focused && main.contains(focused) ? path(focused) : null;
    main.replaceChildren(...body.childNodes);
    document.title = fresh.title;
    const icon = fresh.querySelector("link[rel=icon]");
    if (icon) document.querySelector("link[rel=icon]").href = icon.getAttribute("href");
    for (const details of main.querySelectorAll("details")) {
      if (known.has(details.id)) details.open = open.has(details.id);
    }
    dress();
    if (typed) {
      const q = document.getElementById("q");
      if (q) {
        q.value = typed[0];
        q.focus({ preventScroll: true });
        q.setSelectionRange(typed[1], typed[2]);
      }
    } else if (place) {
      const again = find(place);
      if (again) again.focus({ preventScroll: true });
    }
  }

  // Where an element is, in words that hold for the next page too.
  function path(element) {
    if (element.id) return { id: element.id };
    if (element.dataset.copy) return { copy: element.dataset.copy };
    if (element.href) return { href: element.getAttribute("href") };
    return null;
  }
  function find(place) {
    if (place.id) return document.getElementById(place.id);
    const all = [...main.querySelectorAll(place.copy ? "[data-copy]" : "a")];
    return all.find((e) => (place.copy ? e.dataset.copy === place.copy : e.getAttribute("href") === place.href));
  }

  async function get(address) {
    const mine = ++asked;
    main.setAttribute("aria-busy", "true");
    try {
      const answer = await fetch(address, { headers: { accept: "text/html" }, cache: "no-store" });
      const text = await answer.text();
      if (mine !== asked) return false;
      if (answer.status >= 500 || !(answer.headers.get("content-type") || "").startsWith("text/html")) {
        throw new Error("HTTP " + answer.status);
      }
      take(text);
      lost.hidden = true;
      lost.dataset.since = "";
      return true;
    } catch (error) {
      if (mine !== asked) return false;
      if (!lost.dataset.since) lost.dataset.since = clock();
      lost.textContent = "The agent has not answered since " + lost.dataset.since + "; what stands here is older.";
      lost.hidden = false;
      if (!document.title.startsWith("⚠")) document.title = "⚠ no answer – " + document.title;
      return false;
    } finally {
      if (mine === asked) main.removeAttribute("aria-busy");
    }
  }

  function later() {
    clearTimeout(timer);
    if (!paused) timer = setTimeout(refresh, EVERY);
    tell();
  }
  async function refresh() {
    // Nobody sees a hidden tab but its title, and a selection would be lost.
    const selecting = String(window.getSelection()) !== "";
    if (!selecting) await get(location.href);
    later();
  }
  function tell() {
    const place = document.getElementById("refreshing");
    if (place) place.textContent = paused ? "Refreshing is paused; p goes on." : "Refreshes every " + EVERY / 1000 + " s; p pauses.";
  }

  async function go(address, replace) {
    clearTimeout(timer);
    if (await get(address)) history[replace ? "replaceState" : "pushState"](null, "", address);
    later();
  }

  async function copy(button) {
    const text = button.dataset.copy;
    try {
      await navigator.clipboard.writeText(text);
    } catch {
      // Without TLS a browser gives no clipboard; what is selected can be copied all the same.
      const code = button.parentElement.querySelector("code");
      window.getSelection().selectAllChildren(code);
      document.execCommand("copy");
      window.getSelection().removeAllRanges();
    }
    button.firstChild.textContent = "Copied";
    setTimeout(() => { button.firstChild.textContent = "Copy"; }, 1500);
  }

  function dress() {
    for (const button of main.querySelectorAll(".copy")) button.hidden = false;
    tell();
  }

  document.addEventListener("click", (event) => {
    const button = event.target.closest(".copy");
    if (button) {
      copy(button);
      return;
    }
    const link = event.target.closest("a[data-swap]");
    if (!link || event.button || event.metaKey || event.ctrlKey || event.shiftKey || event.altKey) return;
    event.preventDefault();
    go(link.href, false);
  });
  document.addEventListener("submit", (event) => {
    if (event.target.id === "search") {
      event.preventDefault();
      go(address(event.target), false);
    } else {
      // One click is enough.
      clearTimeout(timer);
      for (const button of document.querySelectorAll(".actions button")) {
        setTimeout(() => { button.disabled = true; }, 0);
      }
    }
  });
  function address(form) {
    const asks = new URLSearchParams(new FormData(form));
    if (!asks.get("q")) asks.delete("q");
    return "/" + (String(asks) ? "?" + asks : "");
  }
  let typing = 0;
  document.addEventListener("input", (event) => {
    if (event.target.id !== "q") return;
    clearTimeout(typing);
    typing = setTimeout(() => go(address(event.target.form), true), 250);
  });
  window.addEventListener("popstate", () => go(location.href, true));
  document.addEventListener("keydown", (event) => {
    if (event.metaKey || event.ctrlKey || event.altKey) return;
    const typing = event.target.closest("input, textarea, select");
    if (typing) {
      if (event.key === "Escape") event.target.blur();
      return;
    }
    const q = document.getElementById("q");
    if (event.key === "/" && q) {
      event.preventDefault();
      q.focus();
      q.select();
    } else if (event.key === "r") {
      refresh();
    } else if (event.key === "p") {
      paused = !paused;
      later();
    } else if (event.key === "h") {
      location.href = "/";
    }
  });

  document.getElementById("keys").hidden = false;
  dress();
  later();
})();
