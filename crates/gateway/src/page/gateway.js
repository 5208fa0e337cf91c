// What the gateway says of itself.

import { ask, clockWords, now, setClock, whyNoAnswer } from "./ask.js";
import { wire } from "./wire.js";
import { byId, cursor, cut, el, instant, number, plural, say, span, tone, when } from "./words.js";

const REACH_EVERY_MS = 60_000;
const ANSWER_WAIT_MS = 5_000; // for /health and /ready
const RATE_MS = 5_000; // a rate over less says little
const MEASURING = "measuring";

/** What /health and /ready said last, or why they said nothing. */
export async function askGateway() {
  const [health, ready] = await Promise.allSettled([ask("/health", ANSWER_WAIT_MS), ask("/ready", ANSWER_WAIT_MS)]);
  if (health.status === "fulfilled") setClock(health.value);
  showGateway(health, ready);
  if (ready.status !== "fulfilled") return;
  const { ring } = ready.value.body;
  wire.doubt(ring?.newest);
  wire.countTabs();
  await askReach(ring?.oldest);
  say(byId("gateway-span"), reachWords());
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
  say(byId("gateway-deliveries"), alive ? deliveriesWords(health.value) : "not known");
  say(byId("gateway-lag"), alive ? lagWords(health.value.body.lag_events_max) : "not known");
  say(byId("gateway-brief"), alive ? briefWords(health.value.body) : "");
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
  const oldest = ring.oldest ? `, from ${cut(String(ring.oldest), 40)}` : "";
  const size = Number.isFinite(ring.bytes) ? `, ${(ring.bytes / 1e6).toFixed(1)}\u00a0MB` : "";
  return `${number.format(ring.events ?? 0)} kept${size}${oldest}`;
}

/** What matters most of the details, for when they are closed. */
function briefWords({ clients, lag_events_max: lag }) {
  const behind = lag > 0 ? `the slowest ${number.format(lag)} behind` : "nobody behind";
  const words = [plural(clients ?? 0, "client"), deliveries.words, behind];
  return words.filter((word) => word !== MEASURING).join(" · ");
}

const rate = new Intl.NumberFormat("en", { maximumSignificantDigits: 3 });
const deliveries = { count: NaN, at: 0, words: MEASURING }; // as they stood when the rate was last measured

/** The counter only grows, so two readings make a rate; a smaller one is that of another process. */
function deliveriesWords({ body, sent }) {
  const elapsedMs = sent - deliveries.at;
  const more = body.delivered - deliveries.count;
  if (!Number.isFinite(more) || more < 0) deliveries.words = MEASURING;
  else if (elapsedMs < RATE_MS) return deliveries.words;
  else deliveries.words = `${rate.format((more * 1000) / elapsedMs)} a second`;
  deliveries.count = body.delivered;
  deliveries.at = sent;
  return deliveries.words;
}

function lagWords(lag) {
  if (!Number.isFinite(lag)) return "not known";
  return lag === 0 ? "has everything" : `${plural(lag, "event")} behind`;
}

const reach = { id: "", since: NaN, askedAt: 0 }; // the oldest event that the gateway keeps, and when it came

/** How far back the recent events go in time; the oldest of them knows, and is asked now and then. */
async function askReach(oldest) {
  if (!cursor(oldest) || oldest === reach.id || Date.now() - reach.askedAt < REACH_EVERY_MS) return;
  reach.askedAt = Date.now();
  try {
    const { body } = await ask(`/news/${oldest}`, ANSWER_WAIT_MS);
    reach.since = when(body.first_seen);
    reach.id = oldest;
  } catch {
    // It has been dropped meanwhile, or there is no answer: the next round asks for its successor.
  }
}

function reachWords() {
  return Number.isNaN(reach.since) ? "not known yet" : `${span(now() - reach.since)}, to ${instant.format(reach.since)}`;
}

function upWords(body) {
  const version = body.version ? `, version ${cut(String(body.version), 40)}` : "";
  return `${span((body.uptime_s ?? 0) * 1000)}${version}`;
}
