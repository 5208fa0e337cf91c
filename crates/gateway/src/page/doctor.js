// The doctor: what lies between this browser and the gateway, found out from here, said in words.
// Examining takes half a minute and a second connection, so it is done when somebody asks for it.

import { ask, clockVerdict, setClock, whyNoAnswer } from "./ask.js";
import { wire } from "./wire.js";
import { byId, el, plural, say, span, tone } from "./words.js";

const FIRST_WAIT_MS = 8_000; // for the first bytes of a stream
const LISTEN_MS = 25_000; // two heartbeats and some
const HELD_BACK_MS = 2_000; // between the head and the first bytes: more than a slow network does
const HEARTBEAT_MS = 10_000; // as the gateway has it unless told otherwise
const BEATS = 2; // heartbeats heard: enough
const HEARTBEAT = /^id: [^\n]*\n\n/gm;
const PIECES_MAX = 1_000;
const ANSWER_WAIT_MS = 5_000;
const CUTS_ALIKE_MIN = 3;
const ALIKE_MS = 3_000; // cuts that differ by less have one cause

const verdict = (toneName, words) => ({ tone: toneName, words });

/** Examines, and shows what was found as it is found. */
export async function examine() {
  const button = byId("doctor-start");
  button.disabled = true;
  byId("doctor-sentence").hidden = false;
  showFindings([["Buffering", verdict("idle", `listening for ${span(LISTEN_MS)}`)]]);
  const quick = await sameOrigin();
  showFindings([["Buffering", verdict("idle", `listening for ${span(LISTEN_MS)}`)], ...quick]);
  const buffering = await bufferingVerdict();
  showFindings([["Buffering", buffering], ["Idle cuts", cutsVerdict(wire.cuts)], ...quick]);
  button.disabled = false;
}

function showFindings(findings) {
  const lines = findings.map(([name, { tone: toneName, words }]) => {
    const line = el("div");
    const dd = el("dd", "finding", words);
    dd.dataset.tone = toneName;
    line.append(el("dt", "", name), dd);
    return line;
  });
  byId("doctor-findings").replaceChildren(...lines);
  const worst = ["bad", "warn", "idle"].find((t) => findings.some(([, found]) => found.tone === t)) ?? "ok";
  const sentences = {
    bad: "Something is wrong between here and the gateway.",
    warn: "Something should be looked at.",
    idle: "Examining.",
    ok: "Nothing stands between here and the gateway.",
  };
  tone(byId("doctor-sentence"), worst);
  say(byId("doctor-sentence"), sentences[worst]);
}

/** Reads a stream of its own byte by byte: heartbeats too, which an EventSource does not show. */
async function bufferingVerdict() {
  const hangUp = new AbortController();
  const heard = { head: NaN, pieces: [] };
  const began = performance.now();
  let impatience = setTimeout(() => hangUp.abort(), FIRST_WAIT_MS);
  const decoder = new TextDecoder();
  let beats = 0;
  let odd = null;
  try {
    const answer = await fetch("/news/stream?snapshot=0", {
      headers: { Accept: "text/event-stream" },
      cache: "no-store",
      signal: hangUp.signal,
    });
    heard.head = performance.now() - began;
    odd = oddHead(answer);
    const reader = answer.body.getReader();
    for (let piece = await reader.read(); !piece.done; piece = await reader.read()) {
      if (heard.pieces.length === 0) {
        clearTimeout(impatience);
        impatience = setTimeout(() => hangUp.abort(), LISTEN_MS);
      }
      heard.pieces.push(performance.now() - began);
      beats += (decoder.decode(piece.value, { stream: true }).match(HEARTBEAT) ?? []).length;
      if (beats >= BEATS || heard.pieces.length >= PIECES_MAX) return odd ?? judgeTiming(heard);
    }
    heard.ended = performance.now() - began;
  } catch (error) {
    if (!hangUp.signal.aborted) return verdict("bad", `the stream could not be read: ${whyNoAnswer(error, FIRST_WAIT_MS)}`);
  } finally {
    clearTimeout(impatience);
    hangUp.abort();
  }
  heard.silentMs = performance.now() - began - (heard.pieces.at(-1) ?? 0);
  return odd ?? judgeTiming(heard);
}

function oddHead(answer) {
  const type = answer.headers.get("content-type") ?? "nothing";
  if (answer.status !== 200) return verdict("bad", `the stream is answered with status ${answer.status}`);
  if (!type.startsWith("text/event-stream")) return verdict("bad", `something answers in the gateway's place, with ${type}`);
  const coding = answer.headers.get("content-encoding");
  if (coding) return verdict("warn", `a proxy compresses the stream (${coding}), and may hold back small pieces`);
  return null;
}

function judgeTiming({ head, pieces, ended, silentMs = 0 }) {
  const wait = span(FIRST_WAIT_MS);
  if (Number.isNaN(head)) return verdict("bad", `no answer within ${wait}: something holds the whole stream back`);
  if (pieces.length === 0) {
    return verdict("bad", `an answer, but not one byte of it within ${wait}: a proxy holds back what comes in small pieces`);
  }
  if (pieces[0] - head > HELD_BACK_MS) {
    return verdict("bad", `the first bytes came ${span(pieces[0] - head)} after the head: a proxy holds them back`);
  }
  if (ended) return verdict("warn", `the stream ended after ${span(ended)} by itself: something cuts it, or the gateway is full`);
  const gaps = pieces.slice(1).map((at, i) => at - pieces[i]);
  const longest = Math.max(silentMs, ...gaps);
  const first = `first bytes after ${Math.round(pieces[0])}\u00a0ms`;
  if (gaps.length === 0 || longest > 2 * HEARTBEAT_MS) {
    return verdict("warn", `${first}, then silence for ${span(longest)}: a heartbeat is due each ${span(HEARTBEAT_MS)}`);
  }
  return verdict("ok", `none: ${first}, never silent for more than ${span(longest + 999)}`);
}

/** What the ends of streams have in common. */
export function cutsVerdict(cuts) {
  if (cuts.length === 0) {
    const open = wire.state === "open" ? `, in ${span(Date.now() - wire.since)}` : "";
    return verdict("ok", `none seen so far${open}`);
  }
  for (const [key, words] of [
    ["silentMs", "of silence: a proxy's idle timeout is shorter than the heartbeat"],
    ["openMs", "whatever comes: something limits how long a connection may last"],
  ]) {
    const last = cuts.slice(-CUTS_ALIKE_MIN).map((cut) => cut[key]);
    const alike = last.length === CUTS_ALIKE_MIN && Math.max(...last) - Math.min(...last) < ALIKE_MS;
    if (alike && Math.min(...last) > ALIKE_MS) return verdict("warn", `the stream is cut after ${span(last[0])} ${words}`);
  }
  return verdict("idle", `cut ${plural(cuts.length, "time")}, without a rule; last after ${span(cuts.at(-1).openMs)}`);
}

/** What one plain answer tells: the clock, and whether a proxy lets foreign pages read. */
async function sameOrigin() {
  try {
    const answer = await ask("/health", ANSWER_WAIT_MS);
    setClock(answer);
    return [["Clock", clockVerdict()], ["Origin", originVerdict(answer.allowOrigin)]];
  } catch (error) {
    return [["Origin", verdict("bad", `the gateway does not answer: ${whyNoAnswer(error, ANSWER_WAIT_MS)}`)]];
  }
}

function originVerdict(allowed) {
  if (allowed === "*") return verdict("warn", "a proxy adds Access-Control-Allow-Origin: *, so every page anywhere may read this");
  if (allowed && allowed !== location.origin) return verdict("warn", `the answer is allowed to ${allowed}, which is not this page`);
  return verdict("ok", `this page is at ${location.origin}, the gateway's own: it needs no CORS`);
}
