// The connection in words: what a person sees of the wire, and the buttons that act on it.

import { items } from "./items.js";
import { canShare } from "./share.js";
import { wire } from "./wire.js";
import { byId, cut, number, plural, say, span, tone } from "./words.js";

export function missedWords(missed) {
  const n = Number.isFinite(missed) ? plural(missed, "event") : "Some events";
  return `${n} missed here: the log no longer has them`;
}

function resumeWords(told) {
  if (!told) return "not known yet";
  if (told.resume === "live") return "live: from now on";
  if (told.resume === "exact") return `exact: nothing missed since ${cut(told.requested, 40) || "the last id"}`;
  if (told.resume === "gap") {
    return `missed ${Number.isFinite(told.missed) ? number.format(told.missed) : "some"}: older than what the log keeps`;
  }
  if (told.resume === "reset") return "another log: starting afresh";
  return cut(String(told.resume), 40);
}

/** What a person is told whose token is missing or no good. */
export function tokenWords(problem) {
  const detail = cut(problem.detail, 120);
  if (problem.code === "token-required" || !detail) return "this wire needs a token; whoever runs it can give you one";
  return `this wire needs another token: ${detail}`;
}

function wireSentence() {
  const elapsed = Date.now() - wire.since;
  const secondsLeft = Math.max(0, Math.ceil((wire.reopenAt - Date.now()) / 1000));
  switch (wire.state) {
    case "open":
      return `Open for ${span(elapsed)}.`;
    case "reconnecting":
      return `Fell; the browser is coming again (${span(elapsed)}).`;
    case "waiting":
      return `Waiting ${secondsLeft}\u00a0s before coming again: ${navigator.onLine ? wire.why : "this device is offline"}.`;
    default:
      return `Connecting (${span(elapsed)}).`;
  }
}

const WIRE_TONES = { open: "ok", connecting: "idle", reconnecting: "warn", waiting: "bad" };

export function showWire() {
  tone(byId("pill-wire"), WIRE_TONES[wire.state]);
  say(byId("pill-wire-words"), wire.state);
  tone(byId("wire-sentence"), WIRE_TONES[wire.state]);
  say(byId("wire-sentence"), wireSentence());
  say(byId("wire-resume"), resumeWords(wire.resume));
  say(byId("wire-last-event"), wire.lastEventAt ? `${span(Date.now() - wire.lastEventAt)} ago` : "none yet");
  say(byId("wire-last-id"), wire.lastId || "none yet");
  say(byId("wire-reconnects"), number.format(wire.reconnects));
  say(byId("wire-received"), receivedWords());
  say(byId("wire-lag"), lagWords());
  say(byId("wire-tabs"), tabsWords());
  showWireButtons();
  items.showEmpty();
}

/** What can be pressed now; a button that goes takes no focus with it. */
function showWireButtons() {
  const waiting = wire.state === "waiting";
  const reopen = byId("reopen");
  const drop = byId("drop");
  const focused = document.activeElement;
  drop.disabled = waiting;
  reopen.hidden = !waiting;
  if (waiting && focused === drop) reopen.focus();
  if (!waiting && focused === reopen) drop.focus();
}

function receivedWords() {
  const { item, update, source, doubles, unreadable } = wire.received;
  const words = [plural(item, "item"), plural(update, "update"), plural(source, "visit")];
  if (doubles) words.push(plural(doubles, "double"));
  if (unreadable) words.push(`${number.format(unreadable)} unreadable`);
  return words.join(", ");
}

function lagWords() {
  if (wire.lags.length === 0) return "no new item yet";
  const sorted = [...wire.lags].sort((a, b) => a - b);
  const at = (share) => {
    const ms = Math.round(sorted[Math.floor(share * (sorted.length - 1))]);
    return ms < 1_000 ? `${ms}\u00a0ms` : `${(ms / 1_000).toFixed(1)}\u00a0s`;
  };
  return `median ${at(0.5)}, p99 ${at(0.99)}`;
}

/** Whose connection this is: all tabs of a browser that want the same share one. */
function tabsWords() {
  const others = Math.max(0, wire.tabs - 1);
  if (wire.role === "follower") return `shared: another tab holds it, ${plural(wire.tabs, "tab")} in all`;
  if (wire.role === "holder") return others ? `shared: this tab holds it for ${plural(others, "other")}` : "one, this tab's";
  if (wire.role === "alone") return canShare() ? "this tab's own, not shared" : "this tab's own: tabs share on https and localhost only";
  return "asking the other tabs";
}

/** Tells a screen reader the state when it changed, and nothing else. */
export function announce() {
  const resumed = wire.state === "open" && wire.resume ? `, ${resumeWords(wire.resume)}` : "";
  say(byId("announce"), `Stream ${wire.state}${resumed}`);
}

export function resumeFrom(event) {
  event.preventDefault();
  const input = byId("resume-id");
  const id = input.value.trim();
  if (!id) {
    input.focus();
    return;
  }
  items.clear();
  wire.openAlone(id);
}

/** What the browser used to reach this page; with HTTP/1.1 it grants six connections to all its tabs together.
    Tabs that want the same share one, so six different filters can be looked at. */
export function showTransport() {
  const protocol = performance.getEntriesByType("navigation")[0]?.nextHopProtocol ?? "";
  const six = /^http\/1/.test(protocol);
  say(byId("wire-transport"), six ? `${protocol.toUpperCase()}, six per browser` : protocol || "not known");
}
