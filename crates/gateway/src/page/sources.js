// The sources: the health of each, when it is visited next, and why.

import { byId, cut, el, instant, number, outwardLink, plural, say, showView, span, tone, webAddress, when } from "./dom.js";
import { failureText, fetchJson, now } from "./fetch.js";
import { drawSparkline, sparkline } from "./sparkline.js";

const SOURCES_MAX = 200; // rows of sources in the document
const SOURCE_NAMES_MAX = 500; // names suggested while typing
const SOURCES_WAIT_MS = 15_000; // for /sources
const SLOW_MS = 10_000; // a visit
const HANGING_MS = 30_000; // a visit
const OVERDUE_MS = 120_000; // a visit that should have begun
export const LIVE_SOURCES_MAX = 2_000; // with more sources the list is updated every SLOW_UPDATE_MS only
const SLOW_UPDATE_MS = 5_000;
const UPDATE_MS = 250;

const HEALTHY = new Set(["new", "unchanged", "partial"]);

export const sources = {
  list: byId("sources-list"),
  known: new Map(), // id → as in GET /sources, updated by `source` events
  rows: new Map(), // id → row
  loaded: false,
  showTimer: 0,
  reloadTimer: 0,
  onLoad: () => {}, // set by app.js
  onSelect: () => {}, // the id of the source whose items are to be shown

  async load() {
    const problem = byId("sources-problem");
    try {
      sources.known = await fetchSources();
      sources.loaded = true;
      problem.hidden = true;
      sources.suggestNames();
      sources.onLoad();
    } catch (error) {
      const stale = sources.loaded ? "; the list below is older" : "";
      problem.textContent = `Could not load the list of sources: ${failureText(error, SOURCES_WAIT_MS)}${stale}.`;
      problem.hidden = false;
      // The ingestion daemon may have been started a moment ago.
      if (!sources.loaded) sources.loadSoon();
    }
    sources.show();
  },

  /** A visit ended. What the event does not have (totals, HTTP status) comes with the next load. */
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
    this.showSoon();
  },

  showSoon() {
    if (this.showTimer) return;
    this.showTimer = setTimeout(() => this.show(), this.known.size > LIVE_SOURCES_MAX ? SLOW_UPDATE_MS : UPDATE_MS);
  },

  loadSoon() {
    if (!this.reloadTimer) {
      this.reloadTimer = setTimeout(() => {
        this.reloadTimer = 0;
        this.load();
      }, 3_000);
    }
  },

  suggestNames() {
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
    if (found.length === 0) say(more, find ? "No source matches." : "There are no sources yet.");
    else if (hiddenCount > 0) say(more, `${plural(hiddenCount, "more source")} not shown; search by name.`);
  },

  showRows(judged, at) {
    const shown = new Set(judged.map(({ s }) => s.id));
    for (const [id, row] of this.rows) {
      if (shown.has(id)) continue;
      row.node.remove();
      this.rows.delete(id);
    }
    for (const { s, verdict } of judged) {
      if (!this.rows.has(s.id)) this.rows.set(s.id, sourceRow(s.id));
      showRow(this.rows.get(s.id), s, verdict, at);
    }
    this.order(judged.map(({ s }) => this.rows.get(s.id).node));
  },

  /** Rows do not move under the pointer or the focus; until then new ones are added at the end. */
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
    if (count.warn) trouble.push(`${number.format(count.warn)} with warnings`);
    const worst = count.bad ? "bad" : count.warn ? "warn" : count.ok ? "ok" : "idle";
    const fine = count.ok ? "all healthy" : "none visited yet";
    if (!this.loaded) return;
    say(byId("sources-text"), `${number.format(judged.length)}, ${trouble.join(", ") || fine}`);
    say(byId("tab-sources"), trouble.length ? String(count.bad + count.warn) : "");
    tone(byId("pill-sources"), worst);
    say(byId("pill-sources-text"), trouble.join(", ") || fine);
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

/** All sources by id: the list has pages. */
async function fetchSources() {
  const known = new Map();
  let path = "/sources";
  while (path) {
    const { status, body } = await fetchJson(path, SOURCES_WAIT_MS);
    if (!Array.isArray(body.sources)) throw new Error(cut(body.detail ?? body.title, 160) || `the gateway answered with status ${status}`);
    for (const source of body.sources) known.set(source.id, source);
    // A page without sources would be the same one again.
    path = body.sources.length > 0 && String(body.next ?? "").startsWith("/sources?") ? body.next : "";
  }
  return known;
}

function byUrgency(a, b) {
  return (
    a.verdict.rank - b.verdict.rank ||
    (b.s.consecutive_failures ?? 0) - (a.s.consecutive_failures ?? 0) ||
    (a.s.name < b.s.name ? -1 : 1)
  );
}

/** The health of a source: a text, a colour and a rank in the list, the most urgent first. */
function judge(s, at) {
  const verdict = (rank, toneName, text) => ({ rank, tone: toneName, text });
  if (s.enabled === false || s.activity === "disabled") return verdict(8, "idle", "disabled");
  if (s.paused) return verdict(8, "idle", "paused");
  if (s.activity === "down") return verdict(0, "bad", "stopped, restarting");
  const busy = isBusy(s);
  const busyMs = busy ? at - when(s.activity_since) : 0;
  if (busyMs >= HANGING_MS) return verdict(1, "bad", `hanging for ${span(busyMs)}`);
  if (s.last_status === "error") return verdict(2, "bad", "failed");
  if (s.last_status === "gone") return verdict(2, "bad", "gone");
  if (s.last_status === "throttled") return verdict(3, "warn", "throttled");
  if (s.quarantine) return verdict(3, "warn", "in quarantine");
  if (busyMs >= SLOW_MS) return verdict(4, "warn", `slow for ${span(busyMs)}`);
  if (s.last_took_ms >= SLOW_MS) return verdict(4, "warn", `slow: took ${span(s.last_took_ms)}`);
  if (!busy && at - when(s.next_visit) >= OVERDUE_MS) return verdict(4, "warn", "overdue");
  if (s.last_status === "partial") return verdict(5, "warn", "damaged, parsed in part");
  if (s.last_status === "new") return verdict(7, "ok", "new items");
  if (s.last_status === "unchanged") return verdict(7, "ok", "unchanged");
  return verdict(6, "idle", "not visited yet");
}

function isBusy(s) {
  return s.activity === "fetching" || s.activity === "parsing" || s.activity === "recording";
}

function visitText(s, at) {
  const words = [];
  const last = at - when(s.last_visit);
  if (!Number.isNaN(last)) words.push(`visited ${span(last)} ago`);
  const since = at - when(s.activity_since);
  if (isBusy(s)) return [Number.isNaN(since) ? s.activity : `${s.activity} for ${span(since)}`, ...words].join(" · ");
  if (s.activity === "waiting" && s.waiting_for) return [`due, but ${cut(s.waiting_for, 120)}`, ...words].join(" · ");
  const next = when(s.next_visit) - at;
  const why = s.why ? `: ${cut(s.why, 120)}` : "";
  if (next > 0) words.push(`next in ${span(next)}${why}`);
  else if (next <= 0) words.push(next > -2_000 ? `due now${why}` : `due ${span(-next)} ago${why}`);
  else words.push(`no next visit${why}`);
  return words.join(" · ");
}

function problemText(s) {
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
  const spark = sparkline();
  const sub = el("span", "sub");
  const trouble = el("span", "trouble");
  line.append(el("span", "dot"), name, status);
  const under = el("span", "under");
  under.append(sub, spark);
  summary.append(line, under, trouble);
  details.append(summary);
  node.append(details);
  const row = { node, details, name, spark, status, sub, trouble, facts: null };
  details.addEventListener("toggle", () => {
    if (details.open && sources.known.has(id)) showFacts(row, sources.known.get(id));
  });
  return row;
}

function showRow(row, s, verdict, at) {
  tone(row.node, verdict.tone);
  say(row.name, cut(s.name, 120) || s.id);
  drawSparkline(row.spark, s.id);
  say(row.status, verdict.text);
  say(row.sub, `${visitText(s, at)} · ${plural(s.counts?.items ?? 0, "item")}`);
  const trouble = problemText(s);
  row.trouble.hidden = trouble === "";
  say(row.trouble, trouble);
  if (row.details.open) showFacts(row, s);
}

/** The details of a row; built when they are first opened. */
function showFacts(row, s) {
  const facts = sourceFacts(s);
  if (!row.facts) {
    row.facts = el("dl", "facts");
    const only = el("button", "button small only", "Show only its items");
    only.type = "button";
    only.addEventListener("click", () => {
      showView("items");
      sources.onSelect(s.id);
    });
    row.details.append(row.facts, only);
  }
  const drawn = JSON.stringify(facts);
  if (row.drawn === drawn) return;
  row.drawn = drawn;
  row.facts.replaceChildren(...facts.map((fact) => factLine(...fact)));
}

function factLine(name, value, address) {
  const line = el("div");
  const dd = el("dd");
  dd.append(address ? outwardLink(value, address) : document.createTextNode(value));
  line.append(el("dt", "", name), dd);
  return line;
}

function sourceFacts(s) {
  const c = s.counts ?? {};
  const n = (value) => number.format(value ?? 0);
  const labels = [s.category, s.country, s.language, ...(s.tags ?? []).slice(0, 8)].filter(Boolean).join(", ");
  const url = cut(s.url, 300);
  const took = Number.isFinite(s.last_took_ms) ? `${(s.last_took_ms / 1000).toFixed(1)}\u00a0s` : "";
  const success = when(s.last_success);
  const facts = [
    ["Id", s.id],
    ["Address", url, url.includes("…") ? "" : webAddress(url)], // "…": cut, or without a secret
    ["Labels", labels],
    ["Last response", [s.last_code ? `HTTP ${s.last_code}` : "", took && `took ${took}`].filter(Boolean).join(", ")],
    ["Last success", Number.isNaN(success) ? "never" : instant.format(success)],
    ["Visits", `${n(c.visits)}: ${n(c.unchanged)} unchanged, ${n(c.errors)} failed`],
    ["Received", `${n(c.items)} items, ${n(c.updates)} updates, ${((c.body_bytes ?? 0) / 1e6).toFixed(1)}\u00a0MB`],
    ["Restarts", s.restarts > 0 ? plural(s.restarts, "time") : ""],
    ["Last event", s.last_event ?? ""],
    ...(s.warnings ?? []).slice(0, 8).map((warning) => ["Repaired", cut(warning, 200)]),
  ];
  return facts.filter(([, value]) => value);
}
