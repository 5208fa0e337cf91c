// The connection, and the truth about it. A tab is in one of four roles:
//
//   asking ──its turn──► holder    has the EventSource, and passes on what comes
//     │ ▲
//     ▼ │ the holder went
//   follower                       hears what the holder hears
//   alone                          has an EventSource of its own: no sharing here, or no answer, or a place of its own
//
// Must never happen here: an event shown twice because two tabs told it, a tab that waits for ever for another.

import { ask, now } from "./ask.js";
import { filterQuery, isFiltered, streamUrl } from "./filter.js";
import { items } from "./items.js";
import { canShare, share } from "./share.js";
import { sources } from "./sources.js";
import { announce, missedWords, showWire, tokenWords } from "./wire_panel.js";
import { cursor, parsed, span, when } from "./words.js";

const LAGS_MAX = 200; // measurements behind the percentiles
const CUTS_MAX = 20; // ends of streams that are remembered
const KEPT_MAX = 200; // events that a tab which comes later is given
const REOPEN_MIN_MS = 1_000;
const REOPEN_MAX_MS = 30_000;
const REOPEN_FIRST_MAX_MS = 4_000; // the widest first wait; doubles with each failure up to REOPEN_MAX_MS
const SILENT_MS = 30_000; // the gateway is ahead and nothing came for this long: the stream is dead
const WHY_WAIT_MS = 5_000; // for the reason of a refusal
const HOLDER_WAIT_MS = 3_000; // the holder of the stream does not answer: open one of our own
const EVENTS = ["stream", "item", "update", "source", "gap"];
const TAB = Array.from(crypto.getRandomValues(new Uint32Array(2)), (n) => n.toString(36)).join("");

export const wire = {
  stream: null, // the EventSource, while this tab has one
  role: "asking",
  shared: null, // what share() gave
  tabs: 1, // that share, as last counted
  holderTimer: 0,
  state: "connecting", // connecting, open, reconnecting, waiting
  since: Date.now(), // of that state
  why: "", // of waiting
  locked: "", // what is said of the token, when that is why
  reopenAt: 0,
  reopenTimer: 0,
  failures: 0, // in a row
  reconnects: 0,
  broken: false, // it was open and fell
  cuts: [], // how long streams had been open when they fell, and how long nothing had come
  kept: [], // events for tabs that come later
  lastId: "",
  lastEventAt: 0,
  headSeq: Infinity, // events after this one are new, not replayed
  headEpoch: "",
  resume: null, // the last `stream` event
  received: { item: 0, update: 0, source: 0, doubles: 0, unreadable: 0 },
  lags: [],

  /** Begins to listen as the filter says: after `afterId`, or with the recent items when it is empty. */
  begin(afterId) {
    this.leave();
    this.lastId = afterId;
    if (!afterId) this.kept = [];
    if (!canShare()) {
      this.openAlone(afterId);
      return;
    }
    this.enter("connecting");
    this.shared = share(streamUrl(), { lead: () => this.lead(), hear: (message) => this.hear(message) });
    this.askHolder();
  },

  /** Ends whatever there is, and stands in no line. */
  leave() {
    this.close();
    clearTimeout(this.holderTimer);
    this.shared?.leave();
    this.shared = null;
    this.tabs = 1;
  },

  /** Listens on a connection of its own, from a place of its own. */
  openAlone(afterId) {
    this.leave();
    this.role = "alone";
    this.resume = null;
    this.lastId = afterId;
    this.connect(afterId);
  },

  /** Opens the stream again where it stood; in a tab that follows, has the holder do so. */
  reopen() {
    if (this.role === "follower") this.shared.tell({ say: "reopen" });
    else if (this.role !== "asking") this.connect(this.lastId);
  },

  /** Lets the connection fall, as a network would. */
  drop() {
    if (this.role === "follower") {
      this.shared.tell({ say: "drop" });
      return;
    }
    this.broken = true;
    this.reopenLater("you dropped the connection");
  },

  connect(afterId) {
    this.close();
    const query = filterQuery();
    if (afterId) query.set("last_event_id", afterId);
    else this.lastId = "";
    this.enter("connecting");
    const stream = new EventSource(streamUrl(query));
    this.stream = stream;
    const on = (name, take) => {
      stream.addEventListener(name, (event) => {
        if (this.stream === stream) take(event);
      });
    };
    on("open", () => this.opened());
    on("error", () => this.fell());
    for (const name of EVENTS) {
      on(name, ({ type, data, lastEventId }) => {
        const event = { type, data, lastEventId };
        this.take(event);
        this.shared?.tell({ say: "event", event });
      });
    }
  },

  close() {
    clearTimeout(this.reopenTimer);
    this.stream?.close();
    this.stream = null;
  },

  // -- sharing

  askHolder() {
    this.role = "asking";
    this.shared.tell({ say: "ask", from: TAB, after: this.lastId });
    clearTimeout(this.holderTimer);
    this.holderTimer = setTimeout(() => this.openAlone(this.lastId), HOLDER_WAIT_MS);
    this.countTabs();
  },

  lead() {
    clearTimeout(this.holderTimer);
    if (this.role === "follower") this.broken = true;
    this.role = "holder";
    this.shared?.tell({ say: "lead" });
    this.connect(this.lastId);
    this.countTabs();
  },

  hear(message) {
    if (this.role === "holder") {
      if (message.say === "ask") this.answer(message);
      else if (message.say === "drop") this.drop();
      else if (message.say === "reopen") this.reopen();
      return;
    }
    if (message.say === "lead") this.askHolder();
    else if (message.say === "answer" && message.to === TAB) this.follow(message);
    else if (this.role === "follower" && message.say === "event") this.take(message.event);
    else if (this.role === "follower" && message.say === "state") this.mirror(message.state);
  },

  answer({ from, after }) {
    const events = this.kept.filter((event) => isAfter(event.lastEventId, after));
    const { headSeq, headEpoch, resume, lastId } = this;
    this.shared.tell({ say: "answer", to: from, events, headSeq, headEpoch, resume, lastId, state: this.told() });
    this.countTabs();
  },

  follow({ events, headSeq, headEpoch, resume, lastId, state }) {
    clearTimeout(this.holderTimer);
    this.role = "follower";
    this.resume = resume;
    // What the holder had already is not new, when this tab has only come.
    this.headEpoch = headEpoch;
    this.headSeq = this.lastId ? headSeq : (cursor(lastId)?.seq ?? headSeq);
    for (const event of events) this.take(event);
    this.mirror(state);
  },

  /** The state as a tab that follows is to show it. */
  told() {
    const { state, since, why, locked, reopenAt, reconnects, cuts } = this;
    return { state, since, why, locked, reopenAt, reconnects, cuts };
  },

  mirror(told) {
    Object.assign(this, told);
    showWire();
    announce();
  },

  async countTabs() {
    const shared = this.shared;
    if (!shared) return;
    const tabs = await shared.count();
    if (this.shared === shared) this.tabs = Math.max(1, tabs);
  },

  // -- states

  enter(state, why = "") {
    if (state !== this.state) this.since = Date.now();
    this.state = state;
    this.why = why;
    if (this.role === "holder") this.shared?.tell({ say: "state", state: this.told() });
    showWire();
    announce();
  },

  opened() {
    if (this.broken) this.reconnects += 1;
    this.broken = false;
    this.locked = "";
    this.failures = 0;
    this.enter("open");
  },

  /** The browser comes again by itself while it says CONNECTING; when it gave up, coming again is ours. */
  fell() {
    this.broken = true;
    if (this.state === "open") {
      const at = Date.now();
      this.cuts.push({ openMs: at - this.since, silentMs: at - Math.max(this.since, this.lastEventAt) });
      if (this.cuts.length > CUTS_MAX) this.cuts.shift();
    }
    if (this.stream.readyState === EventSource.CLOSED) {
      this.reopenLater(this.locked || "the gateway refused the stream or could not be reached");
      this.askWhy();
    } else {
      this.enter("reconnecting");
    }
  },

  /** An EventSource is not told why it was refused; whoever asks is. It comes again all the same: a token may come. */
  async askWhy() {
    const { reopenAt } = this;
    try {
      const { status, body } = await ask("/categories", WHY_WAIT_MS);
      if (this.state !== "waiting" || this.reopenAt !== reopenAt) return;
      this.locked = status === 401 ? tokenWords(body) : "";
      if (this.locked) this.enter("waiting", this.locked);
    } catch {
      // No answer either: then it could not be reached, as is said already.
    }
  },

  /** Full jitter over a window that doubles, so that a thousand pages do not come back together. */
  reopenLater(why) {
    this.close();
    const widest = Math.min(REOPEN_MAX_MS, REOPEN_FIRST_MAX_MS * 2 ** Math.min(this.failures, 10));
    const waitMs = REOPEN_MIN_MS + Math.random() * (widest - REOPEN_MIN_MS);
    this.failures += 1;
    this.reopenAt = Date.now() + waitMs;
    this.reopenTimer = setTimeout(() => this.reopen(), waitMs);
    this.enter("waiting", why);
  },

  /** A stream can be dead without its end being seen (sleep, a lost route): then it is opened again, with the id. */
  doubt(newestId) {
    const newest = cursor(newestId);
    const last = cursor(this.lastId);
    if (this.state !== "open" || isFiltered() || !newest || !last) return;
    const silentMs = Date.now() - Math.max(this.lastEventAt, this.since);
    if (silentMs <= SILENT_MS || newest.epoch !== last.epoch || newest.seq <= last.seq) return;
    if (this.role === "follower") {
      this.openAlone(this.lastId); // its holder is stuck
      return;
    }
    this.broken = true;
    this.reopenLater(`nothing came for ${span(silentMs)} although the gateway is ahead`);
  },

  // -- events, from the stream or from the tab that holds it

  take(event) {
    const keeps = event.type === "item" || event.type === "update";
    if (keeps && this.role === "follower" && !isAfter(event.lastEventId, this.lastId)) return;
    const data = parsed(event.data);
    this.lastEventAt = Date.now();
    if (event.lastEventId) this.lastId = event.lastEventId;
    if (!data) {
      this.received.unreadable += 1;
      return;
    }
    if (keeps) {
      this.kept.push(event);
      if (this.kept.length > KEPT_MAX) this.kept.shift();
      this.took(data, event);
    } else if (event.type === "stream") {
      this.opens(data);
    } else if (event.type === "source") {
      this.received.source += 1;
      sources.visited(data);
    } else {
      items.note(missedWords(data.missed), "warn");
    }
  },

  opens(data) {
    this.resume = data;
    const head = cursor(data.head);
    this.headEpoch = head?.epoch ?? "";
    this.headSeq = head?.seq ?? Infinity;
    if (data.resume === "gap") items.note(missedWords(data.missed), "warn");
    if (data.resume === "reset") items.note("Another log begins here: older ids mean nothing in it", "warn");
    showWire();
    announce();
  },

  took(item, { type, lastEventId }) {
    this.received[type] += 1;
    const at = cursor(item.id ?? lastEventId);
    const live = at !== null && at.epoch === this.headEpoch && at.seq > this.headSeq;
    if (live && type === "item") this.measure(when(item.first_seen));
    sources.counted(item);
    items.arrive({ item, kind: type, live });
  },

  measure(firstSeen) {
    if (Number.isNaN(firstSeen)) return;
    this.lags.push(Math.max(0, now() - firstSeen));
    if (this.lags.length > LAGS_MAX) this.lags.shift();
  },
};

/** Whether an id comes after another; ids of different logs cannot be compared, and are not held back. */
function isAfter(id, other) {
  const [a, b] = [cursor(id), cursor(other)];
  return !a || !b || a.epoch !== b.epoch || a.seq > b.seq;
}
