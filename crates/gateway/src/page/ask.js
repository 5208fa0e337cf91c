// Questions to this gateway, each with a deadline, and its clock, by which ages are counted.

import { parsed, span } from "./words.js";

const CLOCK_TOLERANCE_MS = 2_500; // the Date header counts whole seconds

/** Asks this gateway for JSON. Rejects when there is no answer in time or it is no JSON object. */
export async function ask(path, waitMs) {
  const sent = Date.now();
  const answer = await fetch(path, {
    headers: { Accept: "application/json" },
    cache: "no-store",
    signal: AbortSignal.timeout(waitMs),
  });
  const body = parsed(await answer.text());
  if (!body) throw new Error(`${path} answered ${answer.status} without JSON`);
  return {
    status: answer.status,
    body,
    sent,
    date: Date.parse(answer.headers.get("date") ?? ""),
    allowOrigin: answer.headers.get("access-control-allow-origin"),
  };
}

export function whyNoAnswer(error, waitMs) {
  if (error.name === "TimeoutError") return `no answer within ${span(waitMs)}`;
  return error.name === "TypeError" ? "not reachable" : error.message;
}

/** Calls `work` now and again `everyMs` after it ended, while the page is looked at. */
export function keepAsking(work, everyMs) {
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

// Ages are counted by the gateway's clock, so that a phone whose clock is wrong shows them right.
const clock = { aheadMs: 0, known: false };

export const now = () => Date.now() - clock.aheadMs;

export function setClock(answer) {
  if (Number.isNaN(answer.date)) return;
  const middle = (answer.sent + Date.now()) / 2;
  const ahead = middle - answer.date - 500;
  clock.aheadMs = Math.abs(ahead) > CLOCK_TOLERANCE_MS ? ahead : 0;
  clock.known = true;
}

export function clockWords() {
  if (!clock.known) return "not known yet";
  if (clock.aheadMs === 0) return "agrees with the gateway's";
  return `this device is ${span(Math.abs(clock.aheadMs))} ${clock.aheadMs > 0 ? "ahead" : "behind"}; ages follow the gateway`;
}

export function clockVerdict() {
  return { tone: clock.aheadMs === 0 ? "ok" : "warn", words: clockWords() };
}
