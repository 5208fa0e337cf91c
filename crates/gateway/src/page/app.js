// The built-in page: what the wire says, as it says it, and the truth about the connection to it.
// Reads /news/stream with the browser's own EventSource, and /sources, /health and /ready beside it.
//
// Must never happen here: text of a feed becoming markup (createElement and textContent only), anything loaded
// from elsewhere, a list or a queue without a bound, a wait without an end, a state shown that is not known.
//
// Order of reading: limits, words, clock, filter, wire (the connection), items, sources, gateway, start.

// ---------------------------------------------------------------------------------------------------- limits

const ITEMS_MAX = 200; // items in the document, and items kept while paused
const SOURCES_MAX = 200; // rows of sources in the document
const SOURCE_NAMES_MAX = 500; // names offered while typing
const CATEGORIES_MAX = 24; // buttons of categories
const TITLE_CHARS_MAX = 300;
const SUMMARY_CHARS_MAX = 600;
const LAGS_MAX = 200; // measurements behind the percentiles
const REOPEN_MIN_MS = 1_000;
const REOPEN_MAX_MS = 30_000;
const REOPEN_FIRST_MAX_MS = 4_000; // the widest first wait; doubles with each failure up to REOPEN_MAX_MS
const SILENT_MS = 30_000; // the gateway is ahead and nothing came for this long: the stream is dead
const ASLEEP_MS = 60_000; // a second that took this long: the machine slept, the stream may be dead
const GATEWAY_EVERY_MS = 10_000;
const SOURCES_EVERY_MS = 60_000;
const ANSWER_WAIT_MS = 5_000; // for /health and /ready
const SOURCES_WAIT_MS = 15_000; // for /sources
const SLOW_MS = 10_000; // a visit
const HANGING_MS = 30_000; // a visit
const OVERDUE_MS = 120_000; // a visit that should have begun
const LIVELY_SOURCES_MAX = 2_000; // above this the list is judged anew every few seconds only
const SLUGGISH_MS = 5_000; // that few
const CLOCK_TOLERANCE_MS = 2_500; // the Date header counts whole seconds

// ----------------------------------------------------------------------------------------------------- words

const byId = (id) => document.getElementById(id);

function el(tag, className, text) {
  const node = document.createElement(tag);
  if (className) node.className = className;
  if (text !== undefined) node.textContent = text;
  return node;
}

/** Writes only what changed, so that neither layout nor a screen reader is woken for nothing. */
function say(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

function tone(node, value) {
  if (node.dataset.tone !== value) node.dataset.tone = value;
}

/** A duration in its one or two largest units: "8 s", "14 min", "3 h 12 min", "6 d". */
function span(ms) {
  const s = Math.max(0, Math.floor(ms / 1000));
  if (s < 60) return `${s}\u00a0s`;
  const min = Math.floor(s / 60);
  if (min < 60) return `${min}\u00a0min`;
  const h = Math.floor(min / 60);
  if (h < 10 && min % 60) return `${h}\u00a0h ${min % 60}\u00a0min`;
  return h < 48 ? `${h}\u00a0h` : `${Math.floor(h / 24)}\u00a0d`;
}

/** The same in one unit, for the narrow column of ages. */
function spanShort(ms) {
  const h = Math.floor(ms / 3_600_000);
  return h >= 1 && h < 48 ? `${h}\u00a0h` : span(ms);
}

const number = new Intl.NumberFormat("en");
const instant = new Intl.DateTimeFormat("en-GB", { dateStyle: "medium", timeStyle: "medium" });

function plural(n, one, many = `${one}s`) {
  return `${number.format(n)}\u00a0${n === 1 ? one : many}`;
}

function cut(text, max) {
  const chars = typeof text === "string" ? text.trim() : "";
  return chars.length > max ? `${chars.slice(0, max).trimEnd()}…` : chars;
}

/** Milliseconds since 1970 of an RFC 3339 text; NaN when there is none. */
function when(text) {
  return typeof text === "string" ? Date.parse(text) : NaN;
}

/** "<epoch>-<seq>" in its two parts, or nothing. */
function cursor(id) {
  const parts = /^([a-z0-9]+)-([0-9]+)$/.exec(id ?? "");
  return parts && { epoch: parts[1], seq: Number(parts[2]) };
}

/** The address as it may be followed: http and https only, else nothing. */
function webAddress(text) {
  try {
    const url = new URL(text);
    return url.protocol === "http:" || url.protocol === "https:" ? url.href : "";
  } catch {
    return "";
  }
}

function outwardLink(text, address) {
  const link = el("a", "", text);
  link.href = address;
  link.target = "_blank";
  link.rel = "noopener noreferrer nofollow";
  link.referrerPolicy = "no-referrer";
  return link;
}

/** The language of a text for screen readers and hyphenation, when the feed named one that is one. */
function inLanguage(node, language) {
  if (typeof language === "string" && /^[A-Za-z]{2,3}(-[A-Za-z0-9]{2,8}){0,3}$/.test(language)) node.lang = language;
  node.dir = "auto";
}

function parsed(text) {
  try {
    const value = JSON.parse(text);
    return value !== null && typeof value === "object" ? value : null;
  } catch {
    return null;
  }
}

/** Asks this gateway for JSON. Rejects when there is no answer in time or it is no JSON object. */
async function ask(path, waitMs) {
  const sent = Date.now();
  const answer = await fetch(path, {
    headers: { Accept: "application/json" },
    cache: "no-store",
    signal: AbortSignal.timeout(waitMs),
  });
  const body = parsed(await answer.text());
  if (!body) throw new Error(`${path} answered ${answer.status} without JSON`);
  return { status: answer.status, body, sent, date: Date.parse(answer.headers.get("date") ?? "") };
}

function whyNoAnswer(error, waitMs) {
  if (error.name === "TimeoutError") return `no answer within ${span(waitMs)}`;
  return error.name === "TypeError" ? "not reachable" : error.message;
}

/** Calls `work` now and again `everyMs` after it ended, while the page is looked at. */
function keepAsking(work, everyMs) {
  let timer = 0;
  let running = false;
  const round = async () => {
    clearTimeout(timer);
    if (running) return;
    running = true;
    try {
      if (!document.hidden) await work();
    } finally {
      running = false;
      timer = setTimeout(round, everyMs);
    }
  };
  document.addEventListener("visibilitychange", () => {
    if (!document.hidden) round();
  });
  round();
  return round;
}

// ----------------------------------------------------------------------------------------------------- clock

// Ages are counted by the gateway's clock, so that a phone whose clock is wrong shows them right.
const clock = { aheadMs: 0, known: false };

const now = () => Date.now() - clock.aheadMs;

function setClock(answer) {
  if (Number.isNaN(answer.date)) return;
  const middle = (answer.sent + Date.now()) / 2;
  const ahead = middle - answer.date - 500;
  clock.aheadMs = Math.abs(ahead) > CLOCK_TOLERANCE_MS ? ahead : 0;
  clock.known = true;
}

function clockWords() {
  if (!clock.known) return "not known yet";
  if (clock.aheadMs === 0) return "agrees with the gateway's";
  return `this device is ${span(Math.abs(clock.aheadMs))} ${clock.aheadMs > 0 ? "ahead" : "behind"}; ages follow the gateway`;
}

// ---------------------------------------------------------------------------------------------------- filter

const filter = { categories: new Set(), sources: new Set(), words: "" };

function filterQuery() {
  const query = new URLSearchParams();
  for (const category of filter.categories) query.append("category", category);
  for (const source of filter.sources) query.append("source", source);
  if (filter.words) query.set("q", filter.words);
  return query;
}

function streamUrl(query = filterQuery()) {
  const url = new URL("/news/stream", location.origin);
  url.search = query.toString();
  return url.href;
}

/** The filter lives in the fragment, so that it can be bookmarked and is never sent anywhere. */
function readFilter() {
  const query = new URLSearchParams(location.hash.slice(1));
  filter.categories = new Set(query.getAll("category"));
  filter.sources = new Set(query.getAll("source"));
  filter.words = query.get("q") ?? "";
}

function changeFilter() {
  const query = filterQuery().toString();
  history.replaceState(null, "", query ? `#${query}` : location.pathname + location.search);
  applyFilter();
}

function applyFilter() {
  showFilter();
  items.clear();
  wire.open("");
}

function isFiltered() {
  return filter.categories.size + filter.sources.size > 0 || filter.words !== "";
}

function showFilter() {
  const url = streamUrl();
  say(byId("stream-url"), url);
  say(byId("curl"), `curl -N '${url}'`);
  const names = [...filter.sources].map((id) => sources.known.get(id)?.name ?? id);
  const parts = [[...filter.categories].join(", "), names.join(", "), filter.words && `“${filter.words}”`];
  say(byId("filter-words"), parts.filter(Boolean).join(" · ") || "everything");
  byId("filter-clear").hidden = !isFiltered();
  byId("words").value = filter.words;
  showCategories();
  showChosenSources();
}

function showCategories() {
  const counts = new Map([...filter.categories].map((category) => [category, 0]));
  for (const { category } of sources.known.values()) counts.set(category, (counts.get(category) ?? 0) + 1);
  if (counts.size === 0) return;
  const row = byId("categories");
  const wanted = [...counts].sort((a, b) => b[1] - a[1] || (a[0] < b[0] ? -1 : 1)).slice(0, CATEGORIES_MAX);
  const shown = new Map([...row.querySelectorAll("button")].map((chip) => [chip.value, chip]));
  const chips = wanted.map(([category, n]) => {
    const chip = shown.get(category) ?? categoryChip(category);
    chip.setAttribute("aria-pressed", String(filter.categories.has(category)));
    say(chip.lastChild, String(n));
    chip.title = plural(n, "source");
    return chip;
  });
  if (chips.some((chip, at) => row.children[at] !== chip) || row.children.length !== chips.length) {
    row.replaceChildren(...chips);
  }
}

function categoryChip(category) {
  const chip = el("button", "chip", category);
  chip.type = "button";
  chip.value = category;
  chip.append(el("span", "n", ""));
  chip.addEventListener("click", () => {
    if (!filter.categories.delete(category)) filter.categories.add(category);
    changeFilter();
  });
  return chip;
}

function showChosenSources() {
  const row = byId("chosen-sources");
  row.hidden = filter.sources.size === 0;
  row.replaceChildren(
    ...[...filter.sources].map((id) => {
      const name = sources.known.get(id)?.name ?? id;
      const chip = el("button", "chip", `${name} ×`);
      chip.type = "button";
      chip.setAttribute("aria-pressed", "true");
      chip.setAttribute("aria-label", `Only ${name}; press to remove`);
      chip.addEventListener("click", () => {
        filter.sources.delete(id);
        changeFilter();
        byId("source-add").focus();
      });
      return chip;
    }),
  );
}

/** Takes what was typed as a source, by id or by name; says so when it is neither. */
function addSource() {
  const input = byId("source-add");
  const problem = byId("filter-problem");
  const typed = input.value.trim();
  problem.hidden = true;
  if (!typed) return;
  const byName = [...sources.known.values()].find((s) => s.name.toLowerCase() === typed.toLowerCase());
  const source = sources.known.get(typed) ?? byName;
  if (!source) {
    problem.textContent = `No source has the id or the name “${cut(typed, 60)}”.`;
    problem.hidden = false;
    return;
  }
  input.value = "";
  filter.sources.add(source.id);
  changeFilter();
}

/** Applies what stands in the fields, both of them. */
function submitFilter(event) {
  event.preventDefault();
  const words = byId("words").value.trim();
  const changed = words !== filter.words;
  filter.words = words;
  if (byId("source-add").value.trim()) addSource();
  if (changed) changeFilter();
}

// ------------------------------------------------------------------------------------------------------ wire

const wire = {
  stream: null, // the EventSource, while there is one
  state: "connecting", // connecting, open, reconnecting, waiting
  since: Date.now(), // of that state
  why: "", // of waiting
  reopenAt: 0,
  reopenTimer: 0,
  failures: 0, // in a row
  reconnects: 0,
  broken: false, // it was open and fell
  lastId: "",
  lastEventAt: 0,
  headSeq: Infinity, // events after this one are new, not replayed
  headEpoch: "",
  resume: null, // the last `stream` event
  received: { item: 0, update: 0, source: 0, doubles: 0, unreadable: 0 },
  lags: [],

  /** Opens the stream after `afterId`, or with the recent items when it is empty; a stream that was open ends. */
  open(afterId) {
    this.close();
    const query = filterQuery();
    if (afterId) query.set("last_event_id", afterId);
    else this.lastId = "";
    this.enter("connecting");
    const stream = new EventSource(streamUrl(query));
    this.stream = stream;
    const on = (name, take) => {
      stream.addEventListener(name, (event) => {
        if (this.stream === stream) take.call(this, event);
      });
    };
    on("open", this.opened);
    on("error", this.fell);
    on("stream", this.told);
    on("item", this.took);
    on("update", this.took);
    on("source", this.visited);
    on("gap", this.fellBehind);
  },

  close() {
    clearTimeout(this.reopenTimer);
    this.stream?.close();
    this.stream = null;
  },

  enter(state, why = "") {
    if (state !== this.state) this.since = Date.now();
    this.state = state;
    this.why = why;
    showWire();
    announce();
  },

  opened() {
    if (this.broken) this.reconnects += 1;
    this.broken = false;
    this.failures = 0;
    this.enter("open");
  },

  /** The browser comes again by itself while it says CONNECTING; when it gave up, coming again is ours. */
  fell() {
    this.broken = true;
    if (this.stream.readyState === EventSource.CLOSED) {
      this.reopenLater("the gateway refused the stream or could not be reached");
    } else {
      this.enter("reconnecting");
    }
  },

  /** Full jitter over a window that doubles, so that a thousand pages do not come back together. */
  reopenLater(why) {
    this.close();
    const widest = Math.min(REOPEN_MAX_MS, REOPEN_FIRST_MAX_MS * 2 ** Math.min(this.failures, 10));
    const waitMs = REOPEN_MIN_MS + Math.random() * (widest - REOPEN_MIN_MS);
    this.failures += 1;
    this.reopenAt = Date.now() + waitMs;
    this.reopenTimer = setTimeout(() => this.open(this.lastId), waitMs);
    this.enter("waiting", why);
  },

  /** Any event: a byte was had, and the cursor may have moved, also past what the filter left out. */
  heard(event) {
    this.lastEventAt = Date.now();
    if (event.lastEventId) this.lastId = event.lastEventId;
    const data = parsed(event.data);
    if (!data) this.received.unreadable += 1;
    return data;
  },

  told(event) {
    const data = this.heard(event);
    if (!data) return;
    this.resume = data;
    const head = cursor(data.head);
    this.headEpoch = head?.epoch ?? "";
    this.headSeq = head?.seq ?? Infinity;
    if (data.resume === "gap") items.note(missedWords(data.missed), "warn");
    if (data.resume === "reset") items.note("Another log begins here: older ids mean nothing in it", "warn");
    showWire();
    announce();
  },

  took(event) {
    const data = this.heard(event);
    if (!data) return;
    this.received[event.type] += 1;
    const at = cursor(data.id ?? event.lastEventId);
    const live = at !== null && at.epoch === this.headEpoch && at.seq > this.headSeq;
    if (live && event.type === "item") this.measure(when(data.first_seen));
    items.arrive({ item: data, kind: event.type, live });
  },

  visited(event) {
    const data = this.heard(event);
    if (!data) return;
    this.received.source += 1;
    sources.visited(data);
  },

  fellBehind(event) {
    const data = this.heard(event);
    if (data) items.note(missedWords(data.missed), "warn");
  },

  measure(firstSeen) {
    if (Number.isNaN(firstSeen)) return;
    this.lags.push(Math.max(0, now() - firstSeen));
    if (this.lags.length > LAGS_MAX) this.lags.shift();
  },

  /** A stream can be dead without its end being seen (sleep, a lost route): then it is opened again, with the id. */
  doubt(newestId) {
    const newest = cursor(newestId);
    const last = cursor(this.lastId);
    if (this.state !== "open" || isFiltered() || !newest || !last) return;
    const silentMs = Date.now() - Math.max(this.lastEventAt, this.since);
    if (silentMs > SILENT_MS && newest.epoch === last.epoch && newest.seq > last.seq) {
      this.broken = true;
      this.reopenLater(`nothing came for ${span(silentMs)} although the gateway is ahead`);
    }
  },
};

function missedWords(missed) {
  const n = Number.isFinite(missed) ? plural(missed, "event") : "Some events";
  return `${n} missed here: the log no longer has them`;
}

function resumeWords(told) {
  if (!told) return "not known yet";
  if (told.resume === "live") return "live: from now on";
  if (told.resume === "exact") return `exact: nothing missed since ${cut(told.requested, 40) || "the last id"}`;
  if (told.resume === "gap") {
    return `missed ${Number.isFinite(told.missed) ? number.format(told.missed) : "some"}: older than what the log keeps`;
  }
  if (told.resume === "reset") return "another log: starting afresh";
  return cut(String(told.resume), 40);
}

function wireSentence() {
  const elapsed = Date.now() - wire.since;
  const secondsLeft = Math.max(0, Math.ceil((wire.reopenAt - Date.now()) / 1000));
  switch (wire.state) {
    case "open":
      return `Open for ${span(elapsed)}.`;
    case "reconnecting":
      return `Fell; the browser is coming again (${span(elapsed)}).`;
    case "waiting":
      return `Waiting ${secondsLeft}\u00a0s before coming again: ${navigator.onLine ? wire.why : "this device is offline"}.`;
    default:
      return `Connecting (${span(elapsed)}).`;
  }
}

const WIRE_TONES = { open: "ok", connecting: "idle", reconnecting: "warn", waiting: "bad" };

function showWire() {
  tone(byId("pill-wire"), WIRE_TONES[wire.state]);
  say(byId("pill-wire-words"), wire.state);
  tone(byId("wire-sentence"), WIRE_TONES[wire.state]);
  say(byId("wire-sentence"), wireSentence());
  say(byId("wire-resume"), resumeWords(wire.resume));
  say(byId("wire-last-event"), wire.lastEventAt ? `${span(Date.now() - wire.lastEventAt)} ago` : "none yet");
  say(byId("wire-last-id"), wire.lastId || "none yet");
  say(byId("wire-reconnects"), number.format(wire.reconnects));
  say(byId("wire-received"), receivedWords());
  say(byId("wire-lag"), lagWords());
  showWireButtons();
  items.showEmpty();
}

/** What can be pressed now; a button that goes takes no focus with it. */
function showWireButtons() {
  const waiting = wire.state === "waiting";
  const reopen = byId("reopen");
  const drop = byId("drop");
  const focused = document.activeElement;
  drop.disabled = waiting;
  reopen.hidden = !waiting;
  if (waiting && focused === drop) reopen.focus();
  if (!waiting && focused === reopen) drop.focus();
}

function receivedWords() {
  const { item, update, source, doubles, unreadable } = wire.received;
  const words = [plural(item, "item"), plural(update, "update"), plural(source, "visit")];
  if (doubles) words.push(plural(doubles, "double"));
  if (unreadable) words.push(`${number.format(unreadable)} unreadable`);
  return words.join(", ");
}

function lagWords() {
  if (wire.lags.length === 0) return "no new item yet";
  const sorted = [...wire.lags].sort((a, b) => a - b);
  const at = (share) => `${(sorted[Math.floor(share * (sorted.length - 1))] / 1000).toFixed(1)}\u00a0s`;
  return `median ${at(0.5)}, p99 ${at(0.99)}`;
}

/** Tells a screen reader the state when it changed, and nothing else. */
function announce() {
  const resumed = wire.state === "open" && wire.resume ? `, ${resumeWords(wire.resume)}` : "";
  say(byId("announce"), `Stream ${wire.state}${resumed}`);
}

function resumeFrom(event) {
  event.preventDefault();
  const input = byId("resume-id");
  const id = input.value.trim();
  if (!id) {
    input.focus();
    return;
  }
  items.clear();
  wire.resume = null;
  wire.open(id);
}

/** What the browser used to reach this page; with HTTP/1.1 it grants six connections to all its tabs together. */
function showTransport() {
  const protocol = performance.getEntriesByType("navigation")[0]?.nextHopProtocol ?? "";
  const six = /^http\/1/.test(protocol);
  say(byId("wire-transport"), six ? `${protocol.toUpperCase()}: six tabs at most` : protocol || "not known");
}

// ----------------------------------------------------------------------------------------------------- items

const items = {
  list: byId("items-list"),
  byKey: new Map(), // source and key → the entry shown for that article
  entryOf: new WeakMap(), // node → entry
  arrived: [], // since the last flush
  waiting: [], // while paused; the newest ITEMS_MAX
  waitingCount: 0,
  unseen: 0, // while the tab was hidden
  paused: false,
  flushTimer: 0,

  arrive(entry) {
    this.arrived.push(entry);
    if (this.arrived.length > ITEMS_MAX) this.arrived.shift();
    if (!this.flushTimer) this.flushTimer = setTimeout(() => this.flush(), 40);
    if (this.paused && entry.item) this.waitingCount += 1;
    if (document.hidden && entry.live) this.unseen += 1;
  },

  note(text, noteTone) {
    this.arrive({ text, noteTone });
  },

  flush() {
    this.flushTimer = 0;
    const batch = this.arrived.splice(0);
    if (this.paused) {
      this.waiting = this.waiting.concat(batch).slice(-ITEMS_MAX);
    } else {
      this.show(batch);
    }
    this.showCounts();
  },

  /** Puts a batch on top, oldest first, and keeps the reader's place when the browser does not. */
  show(batch) {
    const heightBefore = this.list.offsetHeight;
    for (const entry of batch) {
      if (entry.item) this.showItem(entry);
      else this.list.prepend(noteNode(entry));
    }
    while (this.list.children.length > ITEMS_MAX) this.forget(this.list.lastElementChild);
    const grew = this.list.offsetHeight - heightBefore;
    const reading = window.scrollY > this.list.offsetTop;
    if (reading && grew > 0 && !CSS.supports("overflow-anchor", "auto")) window.scrollBy(0, grew);
  },

  showItem({ item, kind, live }) {
    const key = `${item.source}\n${item.key ?? item.id}`;
    const before = this.byKey.get(key);
    if (before?.id === item.id) {
      wire.received.doubles += 1;
      return;
    }
    if (before) this.forget(before.node);
    const entry = itemEntry(item, kind, key);
    if (live) entry.node.classList.add("fresh");
    this.byKey.set(key, entry);
    this.entryOf.set(entry.node, entry);
    this.list.prepend(entry.node);
  },

  forget(node) {
    const entry = this.entryOf.get(node);
    if (entry) this.byKey.delete(entry.key);
    node.remove();
  },

  clear() {
    this.arrived = [];
    this.waiting = [];
    this.waitingCount = 0;
    this.byKey.clear();
    this.list.replaceChildren();
    this.showCounts();
  },

  togglePause() {
    this.paused = !this.paused;
    if (!this.paused) {
      this.show(this.waiting.splice(0));
      this.waitingCount = 0;
    }
    this.showCounts();
  },

  showCounts() {
    const button = byId("pause");
    const shown = this.list.children.length;
    say(button, this.paused ? "Continue" : "Pause");
    button.classList.toggle("strong", this.paused);
    const dropped = this.waitingCount > ITEMS_MAX ? `, the newest ${ITEMS_MAX} kept` : "";
    say(byId("items-words"), this.paused ? `paused, ${number.format(this.waitingCount)} waiting${dropped}` : shownWords(shown));
    say(byId("tab-items"), this.paused ? `${number.format(this.waitingCount)} waiting` : "");
    document.title = this.unseen ? `(${number.format(this.unseen)}) newswire` : "newswire";
    this.showEmpty();
  },

  showEmpty() {
    const empty = byId("items-empty");
    empty.hidden = this.list.children.length > 0;
    if (empty.hidden) return;
    if (wire.state !== "open") say(empty, "Nothing to show until the stream is open.");
    else say(empty, isFiltered() ? "Listening. Nothing that is kept matches the filter yet." : "Listening. Nothing has come yet.");
  },

  showAges() {
    for (const { ageNode, at, dated } of this.byKey.values()) say(ageNode, ageWords(at, dated));
  },
};

function shownWords(shown) {
  return shown >= ITEMS_MAX ? `the newest ${ITEMS_MAX}, newest first` : shown > 1 ? `${shown}, newest first` : "";
}

/** A feed that gave no date is aged by when it was first seen, and says so; a date ahead of time is not hidden. */
function ageWords(at, dated) {
  const ms = now() - at;
  if (Number.isNaN(ms)) return "";
  if (ms < -60_000) return `in ${spanShort(-ms)}`;
  return dated ? spanShort(ms) : `seen ${spanShort(ms)}`;
}

function noteNode({ text, noteTone }) {
  const node = el("li", "break", text);
  node.dataset.tone = noteTone;
  return node;
}

function itemEntry(item, kind, key) {
  const published = when(item.published);
  const seen = when(item.first_seen);
  const dated = !Number.isNaN(published);
  const at = dated ? published : seen;
  const node = el("li", "item");
  const ageNode = ageElement(at, dated, published, seen);
  const body = el("article", "item-body");
  body.append(metaLine(item, kind), titleLine(item));
  const summary = cut(item.summary, SUMMARY_CHARS_MAX);
  if (summary) {
    const text = el("p", "summary", summary);
    inLanguage(text, item.language);
    body.append(text);
  }
  node.append(ageNode, body);
  return { key, id: item.id, node, ageNode, at, dated };
}

function ageElement(at, dated, published, seen) {
  const node = el("time", "age", ageWords(at, dated));
  if (Number.isNaN(at)) return node;
  node.dateTime = new Date(at).toISOString();
  const first = Number.isNaN(seen) ? "" : `, first seen ${instant.format(seen)}`;
  node.title = `${dated ? `published ${instant.format(published)}` : "the feed gave no date"}${first}`;
  return node;
}

function metaLine(item, kind) {
  const line = el("p", "meta");
  const from = el("bdi", "from", cut(item.source_name, 80) || cut(item.source, 64));
  line.append(from, el("span", "category", cut(item.category, 40)));
  if (item.country) line.append(el("span", "country", cut(item.country, 8)));
  if (kind === "update") line.append(el("span", "mark", "updated"));
  line.append(el("code", "id", cut(item.id, 64)));
  return line;
}

function titleLine(item) {
  const text = cut(item.title, TITLE_CHARS_MAX) || cut(item.summary, 90) || "(no title)";
  const address = webAddress(item.link);
  const title = el("h3", "title");
  inLanguage(title, item.language);
  title.append(address ? outwardLink(text, address) : document.createTextNode(text));
  return title;
}

// --------------------------------------------------------------------------------------------------- sources

const HEALTHY = new Set(["new", "unchanged", "partial"]);

const sources = {
  list: byId("sources-list"),
  known: new Map(), // id → as in GET /sources, moved on by `source` events
  rows: new Map(), // id → row
  loaded: false,
  showTimer: 0,
  reloadTimer: 0,

  async load() {
    const problem = byId("sources-problem");
    try {
      const { status, body } = await ask("/sources", SOURCES_WAIT_MS);
      if (!Array.isArray(body.sources)) throw new Error(cut(body.detail ?? body.title, 160) || `the gateway answered ${status}`);
      sources.known = new Map(body.sources.map((s) => [s.id, s]));
      sources.loaded = true;
      problem.hidden = true;
      sources.offerNames();
      showFilter();
    } catch (error) {
      const kept = sources.loaded ? "; what is shown is older" : "";
      problem.textContent = `The list of sources: ${whyNoAnswer(error, SOURCES_WAIT_MS)}${kept}.`;
      problem.hidden = false;
    }
    sources.show();
  },

  /** A visit ended. What the event does not tell (totals, HTTP status) is had by the next load. */
  visited(report) {
    const source = this.known.get(report.source);
    if (!source) {
      this.loadSoon();
      return;
    }
    const healthy = HEALTHY.has(report.status);
    source.last_status = report.status;
    source.last_code = null;
    source.last_visit = new Date(now()).toISOString();
    source.last_took_ms = report.took_ms;
    source.last_error = report.error;
    source.next_visit = report.next_visit;
    source.why = report.why;
    source.activity = "waiting";
    source.consecutive_failures = healthy ? 0 : (source.consecutive_failures ?? 0) + 1;
    if (healthy) source.last_success = source.last_visit;
    const counts = (source.counts ??= {});
    counts.visits = (counts.visits ?? 0) + 1;
    counts.items = (counts.items ?? 0) + (report.new ?? 0);
    counts.updates = (counts.updates ?? 0) + (report.updated ?? 0);
    if (!this.showTimer) this.showTimer = setTimeout(() => this.show(), this.known.size > LIVELY_SOURCES_MAX ? SLUGGISH_MS : 250);
  },

  loadSoon() {
    if (!this.reloadTimer) {
      this.reloadTimer = setTimeout(() => {
        this.reloadTimer = 0;
        this.load();
      }, 3_000);
    }
  },

  offerNames() {
    const options = [...this.known.values()].slice(0, SOURCE_NAMES_MAX).map((s) => {
      const option = el("option");
      option.value = s.name;
      option.label = s.id;
      return option;
    });
    byId("source-names").replaceChildren(...options);
  },

  show() {
    clearTimeout(this.showTimer);
    this.showTimer = 0;
    const at = now();
    const judged = [...this.known.values()].map((s) => ({ s, verdict: judge(s, at) })).sort(byUrgency);
    this.showTotals(judged);
    const find = byId("sources-find").value.trim().toLowerCase();
    const found = find ? judged.filter(({ s }) => `${s.id} ${s.name} ${s.category}`.toLowerCase().includes(find)) : judged;
    this.showRows(found.slice(0, SOURCES_MAX), at);
    const more = byId("sources-more");
    const hiddenCount = found.length - SOURCES_MAX;
    more.hidden = !this.loaded || (found.length > 0 && hiddenCount <= 0);
    if (found.length === 0) say(more, find ? "No source is called that." : "There are no sources yet.");
    else if (hiddenCount > 0) say(more, `${plural(hiddenCount, "more source")} not shown; find them by name.`);
  },

  showRows(judged, at) {
    const wanted = new Set(judged.map(({ s }) => s.id));
    for (const [id, row] of this.rows) {
      if (wanted.has(id)) continue;
      row.node.remove();
      this.rows.delete(id);
    }
    for (const { s, verdict } of judged) {
      if (!this.rows.has(s.id)) this.rows.set(s.id, sourceRow(s.id));
      showRow(this.rows.get(s.id), s, verdict, at);
    }
    this.order(judged.map(({ s }) => this.rows.get(s.id).node));
  },

  /** Rows do not move under a pointer or a focus; new ones go to the end until both have left. */
  order(nodes) {
    const pointed = matchMedia("(hover: hover)").matches && this.list.matches(":hover");
    if (pointed || this.list.contains(document.activeElement)) {
      for (const node of nodes) if (!node.isConnected) this.list.append(node);
      return;
    }
    nodes.forEach((node, at) => {
      if (this.list.children[at] !== node) this.list.insertBefore(node, this.list.children[at] ?? null);
    });
  },

  showTotals(judged) {
    const count = { bad: 0, warn: 0, ok: 0, idle: 0 };
    for (const { verdict } of judged) count[verdict.tone] += 1;
    const trouble = [];
    if (count.bad) trouble.push(`${number.format(count.bad)} failing`);
    if (count.warn) trouble.push(`${number.format(count.warn)} to watch`);
    const worst = count.bad ? "bad" : count.warn ? "warn" : count.ok ? "ok" : "idle";
    const well = count.ok ? "all well" : "none visited yet";
    if (!this.loaded) return;
    say(byId("sources-words"), `${number.format(judged.length)}, ${trouble.join(", ") || well}`);
    say(byId("tab-sources"), trouble.length ? String(count.bad + count.warn) : "");
    tone(byId("pill-sources"), worst);
    say(byId("pill-sources-words"), trouble.join(", ") || well);
    this.showShare(count);
  },

  showShare(count) {
    const bar = byId("sources-share");
    bar.hidden = this.known.size === 0;
    const parts = Object.entries(count).filter(([, n]) => n > 0);
    if (bar.children.length !== parts.length) bar.replaceChildren(...parts.map(() => el("span")));
    parts.forEach(([name, n], at) => {
      tone(bar.children[at], name);
      bar.children[at].style.flexGrow = String(n);
    });
  },
};

function byUrgency(a, b) {
  return (
    a.verdict.rank - b.verdict.rank ||
    (b.s.consecutive_failures ?? 0) - (a.s.consecutive_failures ?? 0) ||
    (a.s.name < b.s.name ? -1 : 1)
  );
}

/** How a source is, in a word, a colour and a place in the list; the most urgent first. */
function judge(s, at) {
  const verdict = (rank, toneName, words) => ({ rank, tone: toneName, words });
  if (s.enabled === false || s.activity === "disabled") return verdict(8, "idle", "paused");
  if (s.activity === "down") return verdict(0, "bad", "down, being rebuilt");
  const busy = isBusy(s);
  const busyMs = busy ? at - when(s.activity_since) : 0;
  if (busyMs >= HANGING_MS) return verdict(1, "bad", `hanging for ${span(busyMs)}`);
  if (s.last_status === "error") return verdict(2, "bad", "failed");
  if (s.last_status === "gone") return verdict(2, "bad", "gone for good");
  if (s.last_status === "throttled") return verdict(3, "warn", "told to come later");
  if (busyMs >= SLOW_MS) return verdict(4, "warn", `slow for ${span(busyMs)}`);
  if (s.last_took_ms >= SLOW_MS) return verdict(4, "warn", `slow: took ${span(s.last_took_ms)}`);
  if (!busy && at - when(s.next_visit) >= OVERDUE_MS) return verdict(4, "warn", "overdue");
  if (s.last_status === "partial") return verdict(5, "warn", "damaged, read in part");
  if (s.last_status === "new") return verdict(7, "ok", "new items");
  if (s.last_status === "unchanged") return verdict(7, "ok", "unchanged");
  return verdict(6, "idle", "not visited yet");
}

function isBusy(s) {
  return s.activity === "fetching" || s.activity === "parsing" || s.activity === "recording";
}

function visitWords(s, at) {
  const words = [];
  const last = at - when(s.last_visit);
  if (!Number.isNaN(last)) words.push(`visited ${span(last)} ago`);
  const since = at - when(s.activity_since);
  if (isBusy(s)) return [Number.isNaN(since) ? s.activity : `${s.activity} for ${span(since)}`, ...words].join(" · ");
  const next = when(s.next_visit) - at;
  const why = s.why ? `: ${cut(s.why, 120)}` : "";
  if (next > 0) words.push(`next in ${span(next)}${why}`);
  else if (next <= 0) words.push(next > -2_000 ? `due now${why}` : `due ${span(-next)} ago${why}`);
  else words.push(`no next visit${why}`);
  return words.join(" · ");
}

function troubleWords(s) {
  const failures = s.consecutive_failures > 0 ? `${plural(s.consecutive_failures, "failure")} in a row` : "";
  return [failures, cut(s.last_error, 240)].filter(Boolean).join(" · ");
}

function sourceRow(id) {
  const node = el("li", "source");
  const details = el("details");
  const summary = el("summary");
  const line = el("span", "line");
  const name = el("bdi", "name");
  const status = el("span", "status");
  const sub = el("span", "sub");
  const trouble = el("span", "trouble");
  line.append(el("span", "dot"), name, status);
  summary.append(line, sub, trouble);
  details.append(summary);
  node.append(details);
  const row = { node, details, name, status, sub, trouble, facts: null };
  details.addEventListener("toggle", () => {
    if (details.open && sources.known.has(id)) showFacts(row, sources.known.get(id));
  });
  return row;
}

function showRow(row, s, verdict, at) {
  tone(row.node, verdict.tone);
  say(row.name, cut(s.name, 120) || s.id);
  say(row.status, verdict.words);
  say(row.sub, `${visitWords(s, at)} · ${plural(s.counts?.items ?? 0, "item")}`);
  const trouble = troubleWords(s);
  row.trouble.hidden = trouble === "";
  say(row.trouble, trouble);
  if (row.details.open) showFacts(row, s);
}

/** The opened part of a row; built when it is first looked at. */
function showFacts(row, s) {
  const facts = sourceFacts(s);
  if (!row.facts) {
    row.facts = el("dl", "facts");
    const only = el("button", "button small only", "Show only its items");
    only.type = "button";
    only.addEventListener("click", () => {
      filter.categories.clear();
      filter.sources = new Set([s.id]);
      filter.words = "";
      showView("items");
      changeFilter();
    });
    row.details.append(row.facts, only);
  }
  const drawn = JSON.stringify(facts);
  if (row.drawn === drawn) return;
  row.drawn = drawn;
  row.facts.replaceChildren(...facts.map(([name, value]) => factLine(name, value)));
}

function factLine(name, value) {
  const line = el("div");
  const dd = el("dd");
  const address = name === "Address" && !value.includes("…") ? webAddress(value) : "";
  dd.append(address ? outwardLink(value, address) : document.createTextNode(value));
  line.append(el("dt", "", name), dd);
  return line;
}

function sourceFacts(s) {
  const c = s.counts ?? {};
  const n = (value) => number.format(value ?? 0);
  const place = [s.category, s.country, s.language, ...(s.tags ?? []).slice(0, 8)].filter(Boolean).join(", ");
  const took = Number.isFinite(s.last_took_ms) ? `${(s.last_took_ms / 1000).toFixed(1)}\u00a0s` : "";
  const success = when(s.last_success);
  const facts = [
    ["Id", s.id],
    ["Address", cut(s.url, 300)],
    ["Filed under", place],
    ["Last answer", [s.last_code ? `HTTP ${s.last_code}` : "", took && `took ${took}`].filter(Boolean).join(", ")],
    ["Last success", Number.isNaN(success) ? "never" : instant.format(success)],
    ["Visits", `${n(c.visits)}: ${n(c.unchanged)} unchanged, ${n(c.errors)} failed`],
    ["Had", `${n(c.items)} items, ${n(c.updates)} updates, ${((c.body_bytes ?? 0) / 1e6).toFixed(1)}\u00a0MB`],
    ["Rebuilt", s.restarts > 0 ? plural(s.restarts, "time") : ""],
    ["Last event", s.last_event ?? ""],
    ...(s.warnings ?? []).slice(0, 8).map((warning) => ["Repaired", cut(warning, 200)]),
  ];
  return facts.filter(([, value]) => value);
}

// --------------------------------------------------------------------------------------------------- gateway

/** What /health and /ready said last, or why they said nothing. */
async function askGateway() {
  const [health, ready] = await Promise.allSettled([ask("/health", ANSWER_WAIT_MS), ask("/ready", ANSWER_WAIT_MS)]);
  if (health.status === "fulfilled") setClock(health.value);
  showGateway(health, ready);
  if (ready.status === "fulfilled") wire.doubt(ready.value.body.ring?.newest);
}

function showGateway(health, ready) {
  const alive = health.status === "fulfilled";
  const state = ready.status === "fulfilled" ? ready.value.body : null;
  const verdict = gatewayVerdict(health, state);
  tone(byId("gateway-sentence"), verdict.tone);
  say(byId("gateway-sentence"), verdict.sentence);
  tone(byId("pill-gateway"), verdict.tone);
  say(byId("pill-gateway-words"), verdict.word);
  showReasons(state?.reasons);
  say(byId("gateway-daemon"), daemonWords(state?.wire));
  say(byId("gateway-ring"), ringWords(state?.ring));
  say(byId("gateway-clients"), alive ? number.format(health.value.body.clients ?? 0) : "not known");
  say(byId("gateway-up"), alive ? upWords(health.value.body) : "not known");
  say(byId("gateway-clock"), clockWords());
}

function gatewayVerdict(health, state) {
  if (health.status === "rejected") {
    const why = whyNoAnswer(health.reason, ANSWER_WAIT_MS);
    return { tone: "bad", sentence: `The gateway: ${why}.`, word: "not known" };
  }
  if (!state) return { tone: "warn", sentence: "The gateway serves, but does not say whether it is ready.", word: "not known" };
  const word = state.wire?.connected ? "connected" : "not connected";
  if (state.draining) return { tone: "warn", sentence: "The gateway is draining: it will stop, another takes over.", word };
  if (state.ready) return { tone: "ok", sentence: "Ready.", word };
  return { tone: state.wire?.connected ? "warn" : "bad", sentence: "Serving, but not ready:", word };
}

function showReasons(reasons) {
  const list = byId("gateway-reasons");
  const lines = (Array.isArray(reasons) ? reasons : []).slice(0, 8).map((reason) => cut(String(reason), 240));
  list.hidden = lines.length === 0;
  if (list.textContent !== lines.join("")) list.replaceChildren(...lines.map((line) => el("li", "", line)));
}

function daemonWords(link) {
  if (!link) return "not known";
  if (!link.connected) return "not connected: what is kept is still served";
  if (!Number.isFinite(link.heartbeat_age_ms)) return "connected";
  return `connected, heard ${span(link.heartbeat_age_ms)} ago`;
}

function ringWords(ring) {
  if (!ring) return "not known";
  const oldest = ring.oldest ? `, back to ${cut(String(ring.oldest), 40)}` : "";
  return `${number.format(ring.events ?? 0)} kept${oldest}`;
}

function upWords(body) {
  const version = body.version ? `, version ${cut(String(body.version), 40)}` : "";
  return `${span((body.uptime_s ?? 0) * 1000)}${version}`;
}

// ----------------------------------------------------------------------------------------------------- start

/** On a narrow window one part is shown at a time; on a wide one all of them, whatever is chosen. */
function showView(view) {
  document.body.dataset.view = view;
  for (const button of document.querySelectorAll("[data-show]")) {
    button.setAttribute("aria-pressed", String(button.dataset.show === view));
  }
}

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
  if (elapsed > ASLEEP_MS && !document.hidden && wire.state === "open") wire.open(wire.lastId);
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
  byId("drop").addEventListener("click", () => {
    wire.broken = true;
    wire.reopenLater("you dropped the connection");
  });
  byId("reopen").addEventListener("click", () => wire.open(wire.lastId));
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
    if (wire.state === "waiting") wire.open(wire.lastId);
  });
  addEventListener("pagehide", () => wire.close());
  addEventListener("pageshow", (event) => {
    if (event.persisted) wire.open(wire.lastId);
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
wire.open("");
setInterval(tick, 1_000);
keepAsking(askGateway, GATEWAY_EVERY_MS);
keepAsking(sources.load, SOURCES_EVERY_MS);
