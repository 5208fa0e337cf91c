// The list of items, newest first; bounded, and unchanged while it is paused.

import { connection } from "./connection.js";
import { byId, cut, el, inLanguage, instant, number, outwardLink, say, spanShort, webAddress, when } from "./dom.js";
import { now } from "./fetch.js";
import { isFiltered } from "./filter.js";
import { tokenText } from "./messages.js";

const ITEMS_MAX = 200; // items in the document, and items kept while paused
const TITLE_CHARS_MAX = 300;
const SUMMARY_CHARS_MAX = 600;

export const items = {
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

  /** Adds a batch on top, oldest first, and keeps the scroll position if the browser does not. */
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
      connection.received.duplicates += 1;
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
    say(byId("items-text"), this.paused ? `paused, ${number.format(this.waitingCount)} waiting${dropped}` : shownText(shown));
    say(byId("tab-items"), this.paused ? `${number.format(this.waitingCount)} waiting` : "");
    document.title = this.unseen ? `(${number.format(this.unseen)}) newswire` : "newswire";
    this.showEmpty();
  },

  showEmpty() {
    const empty = byId("items-empty");
    empty.hidden = this.list.children.length > 0;
    if (empty.hidden) return;
    if (connection.tokenProblem) say(empty, `Nothing to show: ${tokenText(connection.tokenProblem)}.`);
    else if (connection.state !== "open") say(empty, "Nothing to show until the stream is open.");
    else say(empty, isFiltered() ? "Waiting for items. No item matches the filter yet." : "Waiting for items.");
  },

  showAges() {
    for (const { ageNode, at, dated } of this.byKey.values()) say(ageNode, ageText(at, dated));
  },
};

function shownText(shown) {
  return shown >= ITEMS_MAX ? `the newest ${ITEMS_MAX}, newest first` : shown > 1 ? `${shown}, newest first` : "";
}

/** An item without a date shows how long ago it was first seen; a date in the future is shown as such. */
function ageText(at, dated) {
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
  const node = el("time", "age", ageText(at, dated));
  if (Number.isNaN(at)) return node;
  node.dateTime = new Date(at).toISOString();
  const first = Number.isNaN(seen) ? "" : `, first seen ${instant.format(seen)}`;
  node.title = `${dated ? `published ${instant.format(published)}` : "no date in the feed"}${first}`;
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
