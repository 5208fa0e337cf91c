// The connection to the stream, and its true state. A tab has one of four roles:
//
//   joining ──gets the lock──► holder     has the EventSource, and passes the events on
//     │ ▲
//     ▼ │ the holder closed
//   follower                              gets the events from the holder
//   alone                                 has its own EventSource: it cannot share, the holder does not answer, or
//                                         it resumed from its own id
//
// Must never happen here: an event shown twice because two tabs passed it on, a tab that waits forever for another.

import { cursor, parsed, span, when } from "./dom.js";
import { fetchJson, now } from "./fetch.js";
import { filterQuery, streamUrl } from "./filter.js";
import { missedText, remarksText, resetText, tokenText } from "./messages.js";
import { canShare, joinStream } from "./shared_connection.js";

const LAGS_MAX = 200; // measurements for the percentiles
const DROPS_MAX = 20; // lost connections that are remembered
const KEPT_MAX = 200; // events for tabs that join later
const REOPEN_MIN_MS = 1_000;
const REOPEN_MAX_MS = 30_000;
const REOPEN_FIRST_MAX_MS = 4_000; // the longest first wait; doubles with each failure up to REOPEN_MAX_MS
const SILENT_MS = 30_000; // not even a heartbeat came for this long: the connection is dead
const HOLDER_SILENT_MS = 40_000; // the same of the tab that holds the stream, which opens a new one in between
const REASON_WAIT_MS = 5_000; // for the reason of a refusal
const HOLDER_WAIT_MS = 3_000; // the holder of the stream does not answer: open a stream of our own
const EVENTS = ["stream", "item", "update", "source", "gap", "heartbeat"];
const TAB = Array.from(crypto.getRandomValues(new Uint32Array(2)), (n) => n.toString(36)).join("");

export const connection = {
  stream: null, // the EventSource, while this tab has one
  role: "joining",
  shared: null, // what joinStream() returned
  tabs: 1, // that share the stream, as last counted
  holderTimer: 0,
  state: "connecting", // connecting, open, reconnecting, waiting
  since: Date.now(), // of that state
  why: "", // of waiting
  tokenProblem: null, // the gateway's answer, if a token is missing or invalid
  reopenAt: 0,
  reopenTimer: 0,
  failures: 0, // in a row
  reconnects: 0,
  wasLost: false, // it was open and was lost
  drops: [], // for each lost connection: how long it was open, and how long silent
  kept: [], // events for tabs that join later
  lastId: "",
  lastEventAt: 0,
  headSeq: Infinity, // events after this one are new, not replayed
  headEpoch: "",
  resume: null, // the last `stream` event
  remarks: "", // what the gateway said about the filter
  received: { item: 0, update: 0, source: 0, duplicates: 0, unreadable: 0 },
  lags: [],

  // Set by app.js.
  onChange: () => {}, // the state changed
  onItem: () => {}, // { item, kind, live }
  onVisit: () => {}, // the data of a `source` event
  onWarning: () => {}, // a text for the list of items

  /** Starts to listen with the filter: after `afterId`, or with the newest items if it is empty. */
  begin(afterId) {
    this.leave();
    this.remarks = "";
    this.lastId = afterId;
    if (!afterId) this.kept = [];
    if (!canShare()) {
      this.openAlone(afterId);
      return;
    }
    this.setState("connecting");
    this.shared = joinStream(streamUrl(), {
      onLead: () => this.lead(),
      onMessage: (message) => this.onMessage(message),
    });
    this.join();
  },

  /** Closes the stream and leaves the other tabs. */
  leave() {
    this.close();
    clearTimeout(this.holderTimer);
    this.shared?.leave();
    this.shared = null;
    this.tabs = 1;
  },

  /** Opens a stream that is not shared, after its own id. */
  openAlone(afterId) {
    this.leave();
    this.role = "alone";
    this.resume = null;
    this.lastId = afterId;
    this.connect(afterId);
  },

  /** Opens the stream again after the last event; a follower has the holder do so. */
  reopen() {
    if (this.role === "follower") this.shared.send({ type: "reopen" });
    else if (this.role !== "joining") this.connect(this.lastId);
  },

  /** Drops the connection, as a network would. */
  drop() {
    if (this.role === "follower") {
      this.shared.send({ type: "drop" });
      return;
    }
    this.wasLost = true;
    this.reopenLater("you dropped the connection");
  },

  connect(afterId) {
    this.close();
    const query = filterQuery();
    query.set("heartbeat", "1");
    query.set("content", "0");
    if (afterId) query.set("last_event_id", afterId);
    else this.lastId = "";
    this.setState("connecting");
    const stream = new EventSource(streamUrl(query));
    this.stream = stream;
    const on = (name, handler) => {
      stream.addEventListener(name, (event) => {
        if (this.stream === stream) handler(event);
      });
    };
    on("open", () => this.onOpen());
    on("error", () => this.onError());
    for (const name of EVENTS) {
      on(name, ({ type, data, lastEventId }) => {
        const event = { type, data, lastEventId };
        this.onEvent(event);
        this.shared?.send({ type: "event", event });
      });
    }
  },

  close() {
    clearTimeout(this.reopenTimer);
    this.stream?.close();
    this.stream = null;
  },

  // -- sharing

  join() {
    this.role = "joining";
    this.shared.send({ type: "join", from: TAB, after: this.lastId });
    clearTimeout(this.holderTimer);
    this.holderTimer = setTimeout(() => this.openAlone(this.lastId), HOLDER_WAIT_MS);
    this.countTabs();
  },

  lead() {
    clearTimeout(this.holderTimer);
    if (this.role === "follower") this.wasLost = true;
    this.role = "holder";
    this.shared?.send({ type: "lead" });
    this.connect(this.lastId);
    this.countTabs();
  },

  onMessage(message) {
    if (this.role === "holder") {
      if (message.type === "join") this.answerJoin(message);
      else if (message.type === "drop") this.drop();
      else if (message.type === "reopen") this.reopen();
      return;
    }
    if (message.type === "lead") this.join();
    else if (message.type === "joined" && message.to === TAB) this.follow(message);
    else if (this.role === "follower" && message.type === "event") this.onEvent(message.event);
    else if (this.role === "follower" && message.type === "state") this.copyState(message.state);
  },

  answerJoin({ from, after }) {
    const events = this.kept.filter((event) => isAfter(event.lastEventId, after));
    const { headSeq, headEpoch, resume, lastId } = this;
    const state = this.sharedState();
    this.shared.send({ type: "joined", to: from, events, headSeq, headEpoch, resume, lastId, state });
    this.countTabs();
  },

  follow({ events, headSeq, headEpoch, resume, lastId, state }) {
    clearTimeout(this.holderTimer);
    this.role = "follower";
    this.resume = resume;
    // For a tab that has just been opened, the events that the holder has are not new.
    this.headEpoch = headEpoch;
    this.headSeq = this.lastId ? headSeq : (cursor(lastId)?.seq ?? headSeq);
    for (const event of events) this.onEvent(event);
    this.copyState(state);
  },

  /** The state as a follower shows it. */
  sharedState() {
    const { state, since, why, tokenProblem, reopenAt, reconnects, drops } = this;
    return { state, since, why, tokenProblem, reopenAt, reconnects, drops };
  },

  copyState(state) {
    Object.assign(this, state);
    this.onChange();
  },

  async countTabs() {
    const shared = this.shared;
    if (!shared) return;
    const tabs = await shared.count();
    if (this.shared === shared) this.tabs = Math.max(1, tabs);
  },

  // -- states

  setState(state, why = "") {
    if (state !== this.state) this.since = Date.now();
    this.state = state;
    this.why = why;
    if (this.role === "holder") this.shared?.send({ type: "state", state: this.sharedState() });
    this.onChange();
  },

  onOpen() {
    if (this.wasLost) this.reconnects += 1;
    this.wasLost = false;
    this.tokenProblem = null;
    this.failures = 0;
    this.setState("open");
  },

  /** While the browser says CONNECTING, it reconnects by itself; after CLOSED, this page has to. */
  onError() {
    this.wasLost = true;
    if (this.state === "open") this.rememberDrop();
    if (this.stream.readyState === EventSource.CLOSED) {
      const why = this.tokenProblem ? tokenText(this.tokenProblem) : "the gateway refused the stream or is unreachable";
      this.reopenLater(why);
      this.fetchReason();
    } else {
      this.setState("reconnecting");
    }
  },

  rememberDrop() {
    const at = Date.now();
    this.drops.push({ openMs: at - this.since, silentMs: at - Math.max(this.since, this.lastEventAt) });
    if (this.drops.length > DROPS_MAX) this.drops.shift();
  },

  /** An EventSource does not get the reason of a refusal, another request does. The page retries nevertheless: a token
      may be set meanwhile. */
  async fetchReason() {
    const { reopenAt } = this;
    try {
      const { status, body } = await fetchJson("/categories", REASON_WAIT_MS);
      if (this.state !== "waiting" || this.reopenAt !== reopenAt) return;
      this.tokenProblem = status === 401 ? { code: body.code, detail: body.detail } : null;
      if (this.tokenProblem) this.setState("waiting", tokenText(this.tokenProblem));
    } catch {
      // No answer either: the gateway is unreachable, as the page says already.
    }
  },

  /** Full jitter over a window that doubles, so that a thousand pages do not reconnect together. */
  reopenLater(why) {
    this.close();
    const longest = Math.min(REOPEN_MAX_MS, REOPEN_FIRST_MAX_MS * 2 ** Math.min(this.failures, 10));
    const waitMs = REOPEN_MIN_MS + Math.random() * (longest - REOPEN_MIN_MS);
    this.failures += 1;
    this.reopenAt = Date.now() + waitMs;
    this.reopenTimer = setTimeout(() => this.reopen(), waitMs);
    this.setState("waiting", why);
  },

  /** A stream can be dead without an error (sleep, a lost route, a proxy that passes nothing on): then the heartbeats
      are missing. It is opened again after the last event. */
  checkSilence() {
    const waits = this.state === "connecting" || this.state === "reconnecting";
    const silentMs = Date.now() - (waits ? this.since : Math.max(this.lastEventAt, this.since));
    if (this.state === "waiting" || silentMs <= SILENT_MS) return;
    if (this.role === "follower") {
      if (silentMs > HOLDER_SILENT_MS) this.openAlone(this.lastId); // its holder is stuck
      return;
    }
    if (this.role === "joining") return;
    if (this.state === "open") this.rememberDrop();
    this.wasLost = true;
    this.reopenLater(`nothing came for ${span(silentMs)}, not even a heartbeat`);
  },

  // -- events, from the stream or from the holder

  onEvent(event) {
    const isItem = event.type === "item" || event.type === "update";
    if (isItem && this.role === "follower" && !isAfter(event.lastEventId, this.lastId)) return;
    const data = parsed(event.data);
    this.lastEventAt = Date.now();
    if (event.lastEventId) this.lastId = event.lastEventId;
    if (!data) {
      this.received.unreadable += 1;
      return;
    }
    if (isItem) {
      this.kept.push(event);
      if (this.kept.length > KEPT_MAX) this.kept.shift();
      this.onItemEvent(data, event);
    } else if (event.type === "stream") {
      this.onStreamEvent(data);
    } else if (event.type === "source") {
      this.received.source += 1;
      this.onVisit(data);
    } else if (event.type === "gap") {
      this.onWarning(missedText(data.missed));
    }
  },

  onStreamEvent(data) {
    this.resume = data;
    const head = cursor(data.head);
    this.headEpoch = head?.epoch ?? "";
    this.headSeq = head?.seq ?? Infinity;
    if (data.resume === "gap") this.onWarning(missedText(data.missed));
    if (data.resume === "reset") this.onWarning(resetText(data));
    this.remarks = remarksText(data);
    this.onChange();
  },

  onItemEvent(item, { type, lastEventId }) {
    this.received[type] += 1;
    const at = cursor(item.id ?? lastEventId);
    const live = at !== null && at.epoch === this.headEpoch && at.seq > this.headSeq;
    if (live && type === "item") this.measureLag(when(item.first_seen));
    this.onItem({ item, kind: type, live });
  },

  measureLag(firstSeen) {
    if (Number.isNaN(firstSeen)) return;
    this.lags.push(Math.max(0, now() - firstSeen));
    if (this.lags.length > LAGS_MAX) this.lags.shift();
  },
};

/** Whether an id comes after another; ids of different logs cannot be compared, and count as later. */
function isAfter(id, other) {
  const [a, b] = [cursor(id), cursor(other)];
  return !a || !b || a.epoch !== b.epoch || a.seq > b.seq;
}
