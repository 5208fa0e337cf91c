// The built-in page: the news as it arrives, and the true state of the connection.
// Reads /news/stream with the browser's own EventSource, and also /sources, /health and /ready.
//
// Must never happen here: text of a feed becoming markup (createElement and textContent only), anything loaded
// from elsewhere, a list or a queue without a limit, a wait without an end, a state shown that is not known.
//
// Order of reading: dom, fetch, filter, connection, items, sources, the panels, gateway; this file connects them.

import { connection } from "./connection.js";
import { announce, resumeFrom, showConnection, showTransport } from "./connection_panel.js";
import { examine } from "./doctor.js";
import { byId, say, showView } from "./dom.js";
import { repeat } from "./fetch.js";
import { readFilter } from "./filter.js";
import { addSource, applyFilter, clearFilter, showFilter, showOnlySource, submitFilter } from "./filter_panel.js";
import { updateGateway } from "./gateway.js";
import { items } from "./items.js";
import { LIVE_SOURCES_MAX, sources } from "./sources.js";
import { countItem } from "./sparkline.js";

const ASLEEP_MS = 60_000; // a second that took this long: the machine slept, the stream may be dead
const COUNTED_MS = 1_500; // by then the gateway counts this page among its clients
const GATEWAY_INTERVAL_MS = 10_000;
const SOURCES_INTERVAL_MS = 60_000;

async function copy(button) {
  const node = byId(button.dataset.copy);
  let copied = false;
  try {
    await navigator.clipboard.writeText(node.textContent);
    copied = true;
  } catch {
    // Over plain http pages have no clipboard: select the text, and try the old command.
    getSelection().selectAllChildren(node);
    copied = document.execCommand("copy");
  }
  const label = button.firstChild;
  say(label, copied ? "Copied" : "Selected");
  setTimeout(() => say(label, "Copy"), 1_600);
}

/** What the gateway does not know in the filter stays beside it: in the list it would move away with the items. */
function showRemarks() {
  const line = byId("filter-remarks");
  say(line, connection.remarks);
  line.hidden = connection.remarks === "";
}

let lastTick = Date.now();

/** Every second: updates durations. A second that took a minute means that the machine slept. */
function tick() {
  const elapsed = Date.now() - lastTick;
  lastTick = Date.now();
  if (elapsed > ASLEEP_MS && !document.hidden && connection.state === "open") connection.reopen();
  connection.checkSilence();
  if (document.hidden) return;
  showConnection();
  items.showAges();
  if (sources.loaded && sources.known.size <= LIVE_SOURCES_MAX) sources.show();
}

/** The connection and the sources do not know who shows them. */
function connectParts() {
  connection.onChange = () => {
    showConnection();
    showRemarks();
    announce();
  };
  connection.onItem = (entry) => {
    countItem(entry.item);
    sources.showSoon();
    items.arrive(entry);
  };
  connection.onVisit = (report) => sources.visited(report);
  connection.onWarning = (text) => items.note(text, "warn");
  sources.onLoad = showFilter;
  sources.onSelect = showOnlySource;
}

function listenToButtons() {
  byId("pause").addEventListener("click", () => items.togglePause());
  byId("filter-form").addEventListener("submit", submitFilter);
  byId("source-add-button").addEventListener("click", addSource);
  byId("filter-clear").addEventListener("click", () => {
    clearFilter();
    byId("filter").querySelector("summary").focus();
  });
  byId("drop").addEventListener("click", () => connection.drop());
  byId("reopen").addEventListener("click", () => connection.reopen());
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

function listenToBrowser() {
  addEventListener("hashchange", () => {
    readFilter();
    applyFilter();
  });
  addEventListener("online", () => {
    if (connection.state === "waiting") connection.reopen();
  });
  addEventListener("pagehide", () => connection.leave());
  addEventListener("pageshow", (event) => {
    if (event.persisted) connection.begin(connection.lastId);
  });
  document.addEventListener("visibilitychange", () => {
    if (document.hidden) return;
    items.unseen = 0;
    items.showCounts();
    lastTick = Date.now(); // browsers slow down the timers of hidden tabs: that was no sleep
    tick();
  });
}

readFilter();
const wide = matchMedia("(min-width: 60.01rem)").matches;
byId("filter").open = wide;
byId("gateway-more").open = !wide;
connectParts();
listenToButtons();
listenToBrowser();
showFilter();
showTransport();
connection.begin("");
setInterval(tick, 1_000);
const updateGatewayNow = repeat(updateGateway, GATEWAY_INTERVAL_MS);
setTimeout(updateGatewayNow, COUNTED_MS);
repeat(sources.load, SOURCES_INTERVAL_MS);
