// The doctor: checks what is between this browser and the gateway.
// That takes half a minute and a second connection, so it is started by a button only.

import { connection } from "./connection.js";
import { byId, el, plural, say, span, tone } from "./dom.js";
import { clockVerdict, failureText, fetchJson, setClock } from "./fetch.js";

const FIRST_WAIT_MS = 8_000; // for the first bytes of a stream
const LISTEN_MS = 25_000; // a little more than two heartbeats
const HELD_BACK_MS = 2_000; // between the head and the first bytes: more than a slow network needs
const HEARTBEAT_MS = 10_000; // a stream that asks for heartbeats gets one after this time at the latest
const HEARTBEATS_ENOUGH = 2;
const HEARTBEAT = /^event: heartbeat\n/gm;
const CHUNKS_MAX = 1_000;
const ANSWER_WAIT_MS = 5_000;
const SIMILAR_DROPS_MIN = 3;
const SIMILAR_MS = 3_000; // drops that differ by less have one cause

const verdict = (toneName, text) => ({ tone: toneName, text });

/** Runs the checks, and shows each finding as soon as it is known. */
export async function examine() {
  const button = byId("doctor-start");
  button.disabled = true;
  byId("doctor-sentence").hidden = false;
  showFindings([["Buffering", verdict("idle", `listening for ${span(LISTEN_MS)}`)]]);
  const quick = await checkOrigin();
  showFindings([["Buffering", verdict("idle", `listening for ${span(LISTEN_MS)}`)], ...quick]);
  const buffering = await checkBuffering();
  showFindings([["Buffering", buffering], ["Lost connections", dropsVerdict(connection.drops)], ...quick]);
  button.disabled = false;
}

function showFindings(findings) {
  const lines = findings.map(([name, { tone: toneName, text }]) => {
    const line = el("div");
    const dd = el("dd", "finding", text);
    dd.dataset.tone = toneName;
    line.append(el("dt", "", name), dd);
    return line;
  });
  byId("doctor-findings").replaceChildren(...lines);
  const worst = ["bad", "warn", "idle"].find((t) => findings.some(([, found]) => found.tone === t)) ?? "ok";
  const sentences = {
    bad: "Something is wrong between here and the gateway.",
    warn: "There are warnings.",
    idle: "Checking.",
    ok: "No problem between here and the gateway.",
  };
  tone(byId("doctor-sentence"), worst);
  say(byId("doctor-sentence"), sentences[worst]);
}

/** Reads a separate stream as bytes, to see when each of them came. */
async function checkBuffering() {
  const abort = new AbortController();
  const timing = { head: NaN, chunks: [] };
  const began = performance.now();
  let timer = setTimeout(() => abort.abort(), FIRST_WAIT_MS);
  const decoder = new TextDecoder();
  let heartbeats = 0;
  let headVerdict = null;
  try {
    const answer = await fetch("/news/stream?snapshot=0&heartbeat=1", {
      headers: { Accept: "text/event-stream" },
      cache: "no-store",
      signal: abort.signal,
    });
    timing.head = performance.now() - began;
    headVerdict = judgeHead(answer);
    const reader = answer.body.getReader();
    for (let chunk = await reader.read(); !chunk.done; chunk = await reader.read()) {
      if (timing.chunks.length === 0) {
        clearTimeout(timer);
        timer = setTimeout(() => abort.abort(), LISTEN_MS);
      }
      timing.chunks.push(performance.now() - began);
      heartbeats += (decoder.decode(chunk.value, { stream: true }).match(HEARTBEAT) ?? []).length;
      if (heartbeats >= HEARTBEATS_ENOUGH || timing.chunks.length >= CHUNKS_MAX) return headVerdict ?? judgeTiming(timing);
    }
    timing.ended = performance.now() - began;
  } catch (error) {
    if (!abort.signal.aborted) return verdict("bad", `the stream could not be read: ${failureText(error, FIRST_WAIT_MS)}`);
  } finally {
    clearTimeout(timer);
    abort.abort();
  }
  timing.silentMs = performance.now() - began - (timing.chunks.at(-1) ?? 0);
  return headVerdict ?? judgeTiming(timing);
}

function judgeHead(answer) {
  const type = answer.headers.get("content-type") ?? "nothing";
  if (answer.status !== 200) return verdict("bad", `the stream was answered with status ${answer.status}`);
  if (!type.startsWith("text/event-stream")) return verdict("bad", `something else answers instead of the gateway, with ${type}`);
  const coding = answer.headers.get("content-encoding");
  if (coding) return verdict("warn", `a proxy compresses the stream (${coding}), and may hold back small chunks`);
  return null;
}

function judgeTiming({ head, chunks, ended, silentMs = 0 }) {
  const wait = span(FIRST_WAIT_MS);
  if (Number.isNaN(head)) return verdict("bad", `no answer within ${wait}: something holds back the whole stream`);
  if (chunks.length === 0) {
    return verdict("bad", `an answer, but no byte of its body within ${wait}: a proxy holds back small chunks`);
  }
  if (chunks[0] - head > HELD_BACK_MS) {
    return verdict("bad", `the first bytes came ${span(chunks[0] - head)} after the head: a proxy holds them back`);
  }
  if (ended) return verdict("warn", `the stream ended after ${span(ended)}: something closes it, or the gateway is at its limit`);
  const gaps = chunks.slice(1).map((at, i) => at - chunks[i]);
  const longest = Math.max(silentMs, ...gaps);
  const first = `first bytes after ${Math.round(chunks[0])}\u00a0ms`;
  if (gaps.length === 0 || longest > 2 * HEARTBEAT_MS) {
    return verdict("warn", `${first}, then silence for ${span(longest)}: expected a heartbeat every ${span(HEARTBEAT_MS)}`);
  }
  return verdict("ok", `none: ${first}, never silent for more than ${span(longest + 999)}`);
}

/** What the lost connections have in common. */
export function dropsVerdict(drops) {
  if (drops.length === 0) {
    const open = connection.state === "open" ? `, in ${span(Date.now() - connection.since)}` : "";
    return verdict("ok", `none so far${open}`);
  }
  for (const [key, cause] of [
    ["silentMs", "of silence: a proxy's idle timeout is shorter than the heartbeat"],
    ["openMs", "whatever it carries: something limits the duration of connections"],
  ]) {
    const last = drops.slice(-SIMILAR_DROPS_MIN).map((drop) => drop[key]);
    const isSimilar = last.length === SIMILAR_DROPS_MIN && Math.max(...last) - Math.min(...last) < SIMILAR_MS;
    if (isSimilar && Math.min(...last) > SIMILAR_MS) return verdict("warn", `the stream is lost after ${span(last[0])} ${cause}`);
  }
  return verdict("idle", `lost ${plural(drops.length, "time")}, without a pattern; last after ${span(drops.at(-1).openMs)}`);
}

/** Checks with one request: the clock, and whether a proxy lets pages of other origins read. */
async function checkOrigin() {
  try {
    const answer = await fetchJson("/health", ANSWER_WAIT_MS);
    setClock(answer);
    return [["Clock", clockVerdict()], ["Origin", originVerdict(answer.allowOrigin)]];
  } catch (error) {
    return [["Origin", verdict("bad", `the gateway does not answer: ${failureText(error, ANSWER_WAIT_MS)}`)]];
  }
}

function originVerdict(allowed) {
  if (allowed === "*") return verdict("warn", "a proxy adds Access-Control-Allow-Origin: *, so every page on the web may read this");
  if (allowed && allowed !== location.origin) return verdict("warn", `the answer is readable for ${allowed}, which is not this page`);
  return verdict("ok", `this page is served by the gateway itself, at ${location.origin}: it needs no CORS`);
}
