// Requests to this gateway, each with a deadline, and its clock, by which ages are counted.

import { parsed, span } from "./dom.js";

const CLOCK_TOLERANCE_MS = 2_500; // the Date header counts whole seconds

/** Fetches JSON from this gateway. Rejects if there is no answer in time, or it is not a JSON object. */
export async function fetchJson(path, waitMs) {
  const sent = Date.now();
  const answer = await fetch(path, {
    headers: { Accept: "application/json" },
    cache: "no-store",
    signal: AbortSignal.timeout(waitMs),
  });
  const body = parsed(await answer.text());
  if (!body) throw new Error(`${path} answered with status ${answer.status} and without JSON`);
  return {
    status: answer.status,
    body,
    sent,
    date: Date.parse(answer.headers.get("date") ?? ""),
    allowOrigin: answer.headers.get("access-control-allow-origin"),
  };
}

/** Why `fetchJson` was rejected, for people. */
export function failureText(error, waitMs) {
  if (error.name === "TimeoutError") return `no answer within ${span(waitMs)}`;
  return error.name === "TypeError" ? "not reachable" : error.message;
}

/** Calls `work` now, and again `intervalMs` after each call ended, while the page is visible. */
export function repeat(work, intervalMs) {
  let timer = 0;
  let running = false;
  const run = async () => {
    clearTimeout(timer);
    if (running) return;
    running = true;
    try {
      if (!document.hidden) await work();
    } finally {
      running = false;
      timer = setTimeout(run, intervalMs);
    }
  };
  document.addEventListener("visibilitychange", () => {
    if (!document.hidden) run();
  });
  run();
  return run;
}

// Ages are counted by the gateway's clock, so that they are right on a device whose clock is wrong.
const clock = { aheadMs: 0, known: false };

export const now = () => Date.now() - clock.aheadMs;

export function setClock(answer) {
  if (Number.isNaN(answer.date)) return;
  const middle = (answer.sent + Date.now()) / 2;
  const ahead = middle - answer.date - 500;
  clock.aheadMs = Math.abs(ahead) > CLOCK_TOLERANCE_MS ? ahead : 0;
  clock.known = true;
}

export function clockText() {
  if (!clock.known) return "not known yet";
  if (clock.aheadMs === 0) return "same as the gateway's";
  return `this device is ${span(Math.abs(clock.aheadMs))} ${clock.aheadMs > 0 ? "ahead" : "behind"}; ages are counted by the gateway's clock`;
}

export function clockVerdict() {
  return { tone: clock.aheadMs === 0 ? "ok" : "warn", text: clockText() };
}
