// The built-in page: what the wire says, as it says it, and the truth about the connection to it.
// Reads /news/stream with the browser's own EventSource, and /sources, /health and /ready beside it.
//
// Must never happen here: text of a feed becoming markup (createElement and textContent only), anything loaded
// from elsewhere, a list or a queue without a bound, a wait without an end, a state shown that is not known.
//
// Order of reading: words, ask, filter, wire (the connection), items, sources, gateway; this file starts them.

import { keepAsking } from "./ask.js";
import { addSource, applyFilter, changeFilter, filter, readFilter, showFilter, submitFilter } from "./filter.js";
import { examine } from "./doctor.js";
import { askGateway } from "./gateway.js";
import { items } from "./items.js";
import { LIVELY_SOURCES_MAX, sources } from "./sources.js";
import { wire } from "./wire.js";
import { resumeFrom, showTransport, showWire } from "./wire_panel.js";
import { byId, say, showView } from "./words.js";

const ASLEEP_MS = 60_000; // a second that took this long: the machine slept, the stream may be dead
const COUNTED_MS = 1_500; // by then the gateway counts this page among its clients
const GATEWAY_EVERY_MS = 10_000;
const SOURCES_EVERY_MS = 60_000;

async function copy(button) {
  const node = byId(button.dataset.copy);
  let copied = false;
  try {
    await navigator.clipboard.writeText(node.textContent);
    copied = true;
  } catch {
    // Over plain http browsers have no clipboard for pages: select the text, and try the old way.
    getSelection().selectAllChildren(node);
    copied = document.execCommand("copy");
  }
  const label = button.firstChild;
  say(label, copied ? "Copied" : "Selected");
  setTimeout(() => say(label, "Copy"), 1_600);
}

let lastTick = Date.now();

/** Every second: what counts, counts on. A second that took a minute means that the machine slept. */
function tick() {
  const elapsed = Date.now() - lastTick;
  lastTick = Date.now();
  if (elapsed > ASLEEP_MS && !document.hidden && wire.state === "open") wire.reopen();
  if (document.hidden) return;
  showWire();
  items.showAges();
  if (sources.loaded && sources.known.size <= LIVELY_SOURCES_MAX) sources.show();
}

function listenToPeople() {
  byId("pause").addEventListener("click", () => items.togglePause());
  byId("filter-form").addEventListener("submit", submitFilter);
  byId("source-add-button").addEventListener("click", addSource);
  byId("filter-clear").addEventListener("click", () => {
    filter.categories.clear();
    filter.sources.clear();
    filter.words = "";
    changeFilter();
    byId("filter").querySelector("summary").focus();
  });
  byId("drop").addEventListener("click", () => wire.drop());
  byId("reopen").addEventListener("click", () => wire.reopen());
  byId("doctor-start").addEventListener("click", examine);
  byId("resume-form").addEventListener("submit", resumeFrom);
  byId("sources-find").addEventListener("input", () => sources.show());
  byId("skip").addEventListener("click", (event) => {
    event.preventDefault();
    showView("items");
    byId("items").focus();
  });
  for (const button of document.querySelectorAll("[data-copy]")) button.addEventListener("click", () => copy(button));
  for (const button of document.querySelectorAll("[data-show]")) {
    button.addEventListener("click", () => {
      showView(button.dataset.show);
      scrollTo(0, 0);
    });
  }
}

function listenToTheBrowser() {
  addEventListener("hashchange", () => {
    readFilter();
    applyFilter();
  });
  addEventListener("online", () => {
    if (wire.state === "waiting") wire.reopen();
  });
  addEventListener("pagehide", () => wire.leave());
  addEventListener("pageshow", (event) => {
    if (event.persisted) wire.begin(wire.lastId);
  });
  document.addEventListener("visibilitychange", () => {
    if (document.hidden) return;
    items.unseen = 0;
    items.showCounts();
    lastTick = Date.now(); // browsers slow the timers of hidden tabs: that was no sleep
    tick();
  });
}

readFilter();
const wide = matchMedia("(min-width: 60.01rem)").matches;
byId("filter").open = wide;
byId("gateway-more").open = !wide;
listenToPeople();
listenToTheBrowser();
showFilter();
showTransport();
wire.begin("");
setInterval(tick, 1_000);
const askGatewayNow = keepAsking(askGateway, GATEWAY_EVERY_MS);
setTimeout(askGatewayNow, COUNTED_MS);
keepAsking(sources.load, SOURCES_EVERY_MS);
