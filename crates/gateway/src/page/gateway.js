// The panel of the gateway: what it reports about itself.

import { connection } from "./connection.js";
import { byId, cursor, cut, el, instant, number, plural, say, span, tone, when } from "./dom.js";
import { clockText, failureText, fetchJson, now, setClock } from "./fetch.js";

const REACH_INTERVAL_MS = 60_000;
const ANSWER_WAIT_MS = 5_000; // for /health and /ready
const RATE_MS = 5_000; // a rate over less time means little
const MEASURING = "measuring";

/** Shows the answers of /health and /ready, or why there are none. */
export async function updateGateway() {
  const [health, ready] = await Promise.allSettled([
    fetchJson("/health", ANSWER_WAIT_MS),
    fetchJson("/ready", ANSWER_WAIT_MS),
  ]);
  if (health.status === "fulfilled") setClock(health.value);
  showGateway(health, ready);
  if (ready.status !== "fulfilled") return;
  const { ring } = ready.value.body;
  connection.countTabs();
  await updateReach(ring?.oldest);
  say(byId("gateway-span"), reachText());
}

function showGateway(health, ready) {
  const alive = health.status === "fulfilled";
  const state = ready.status === "fulfilled" ? ready.value.body : null;
  const verdict = gatewayVerdict(health, state);
  tone(byId("gateway-sentence"), verdict.tone);
  say(byId("gateway-sentence"), verdict.sentence);
  tone(byId("pill-gateway"), verdict.tone);
  say(byId("pill-gateway-text"), verdict.word);
  showReasons([...(state?.reasons ?? []), ...degradedTexts(state)]);
  say(byId("gateway-daemon"), daemonText(state?.wire));
  say(byId("gateway-ring"), ringText(state?.ring));
  say(byId("gateway-deliveries"), alive ? deliveriesText(health.value) : "not known");
  say(byId("gateway-lag"), alive ? lagText(health.value.body.lag_events_max) : "not known");
  say(byId("gateway-brief"), alive ? briefText(health.value.body) : "");
  say(byId("gateway-clients"), alive ? number.format(health.value.body.clients ?? 0) : "not known");
  say(byId("gateway-up"), alive ? upText(health.value.body) : "not known");
  say(byId("gateway-clock"), clockText());
}

function gatewayVerdict(health, state) {
  if (health.status === "rejected") {
    const why = failureText(health.reason, ANSWER_WAIT_MS);
    return { tone: "bad", sentence: `The gateway does not answer: ${why}.`, word: "not known" };
  }
  if (!state) return { tone: "warn", sentence: "The gateway serves, but does not report whether it is ready.", word: "not known" };
  const isDegraded = degradedTexts(state).length > 0;
  const word = isDegraded ? "recording paused" : state.wire?.connected ? "connected" : "not connected";
  if (state.draining) return { tone: "warn", sentence: "The gateway is draining: it is about to stop.", word };
  if (state.ready && isDegraded) {
    return { tone: "warn", sentence: "Serving what is recorded; nothing new is recorded:", word };
  }
  if (state.ready) return { tone: "ok", sentence: "Ready.", word };
  return { tone: state.wire?.connected ? "warn" : "bad", sentence: "Serving, but not ready:", word };
}

/** What is missing although the gateway is ready. */
function degradedTexts(state) {
  const degraded = Array.isArray(state?.degraded) ? state.degraded : [];
  return degraded.map(({ detail, since }) => `${detail}, for ${span(now() - when(since))}`);
}

function showReasons(reasons) {
  const list = byId("gateway-reasons");
  const lines = (Array.isArray(reasons) ? reasons : []).slice(0, 8).map((reason) => cut(String(reason), 240));
  list.hidden = lines.length === 0;
  if (list.textContent !== lines.join("")) list.replaceChildren(...lines.map((line) => el("li", "", line)));
}

function daemonText(wire) {
  if (!wire) return "not known";
  if (!wire.connected) return "not connected; kept items are still served";
  if (!Number.isFinite(wire.heartbeat_age_ms)) return "connected";
  return `connected, last heartbeat ${span(wire.heartbeat_age_ms)} ago`;
}

function ringText(ring) {
  if (!ring) return "not known";
  const oldest = ring.oldest ? `, from ${cut(String(ring.oldest), 40)}` : "";
  const size = Number.isFinite(ring.bytes) ? `, ${(ring.bytes / 1e6).toFixed(1)}\u00a0MB` : "";
  return `${number.format(ring.events ?? 0)} kept${size}${oldest}`;
}

/** The most important details, shown while they are closed. */
function briefText({ clients, lag_events_max: lag }) {
  const behind = lag > 0 ? `the slowest ${number.format(lag)} behind` : "none behind";
  const words = [plural(clients ?? 0, "client"), deliveries.text, behind];
  return words.filter((word) => word !== MEASURING).join(" · ");
}

const rate = new Intl.NumberFormat("en", { maximumSignificantDigits: 3 });
const deliveries = { count: NaN, at: 0, text: MEASURING }; // at the last measurement

/** The rate between two readings of a counter; a smaller value than before is from a new process. */
function deliveriesText({ body, sent }) {
  const elapsedMs = sent - deliveries.at;
  const delivered = body.delivered - deliveries.count;
  if (!Number.isFinite(delivered) || delivered < 0) deliveries.text = MEASURING;
  else if (elapsedMs < RATE_MS) return deliveries.text;
  else deliveries.text = `${rate.format((delivered * 1000) / elapsedMs)} per second`;
  deliveries.count = body.delivered;
  deliveries.at = sent;
  return deliveries.text;
}

function lagText(lag) {
  if (!Number.isFinite(lag)) return "not known";
  return lag === 0 ? "up to date" : `${plural(lag, "event")} behind`;
}

const reach = { id: "", since: NaN, askedAt: 0 }; // the oldest event of the ring, and when it was first seen

/** Reads from time to time how old the oldest event of the ring is. */
async function updateReach(oldest) {
  if (!cursor(oldest) || oldest === reach.id || Date.now() - reach.askedAt < REACH_INTERVAL_MS) return;
  reach.askedAt = Date.now();
  try {
    const { body } = await fetchJson(`/news/${oldest}`, ANSWER_WAIT_MS);
    reach.since = when(body.first_seen);
    reach.id = oldest;
  } catch {
    // It has left the ring, or there is no answer: the next update reads another one.
  }
}

function reachText() {
  return Number.isNaN(reach.since) ? "not known yet" : `${span(now() - reach.since)}, to ${instant.format(reach.since)}`;
}

function upText(body) {
  const version = body.version ? `, version ${cut(String(body.version), 40)}` : "";
  return `${span((body.uptime_s ?? 0) * 1000)}${version}`;
}
