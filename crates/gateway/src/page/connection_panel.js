// The panel of the connection: its state in sentences, and the buttons for it.

import { connection } from "./connection.js";
import { byId, cut, number, plural, say, span, tone } from "./dom.js";
import { items } from "./items.js";
import { canShare } from "./shared_connection.js";

function resumeText(resume) {
  if (!resume) return "not known yet";
  if (resume.resume === "live") return "live: from now on";
  if (resume.resume === "exact") return `exact: nothing missed since ${cut(resume.requested, 40) || "the last id"}`;
  if (resume.resume === "gap") {
    return `missed ${Number.isFinite(resume.missed) ? number.format(resume.missed) : "some"}: no longer in the log`;
  }
  if (resume.resume === "reset") return "the id is not in the log: started again";
  return cut(String(resume.resume), 40);
}

function connectionSentence() {
  const elapsed = Date.now() - connection.since;
  const secondsLeft = Math.max(0, Math.ceil((connection.reopenAt - Date.now()) / 1000));
  switch (connection.state) {
    case "open":
      return `Open for ${span(elapsed)}.`;
    case "reconnecting":
      return `Connection lost; the browser is reconnecting (${span(elapsed)}).`;
    case "waiting":
      return `Reconnecting in ${secondsLeft}\u00a0s: ${navigator.onLine ? connection.why : "this device is offline"}.`;
    default:
      return `Connecting (${span(elapsed)}).`;
  }
}

const STATE_TONES = { open: "ok", connecting: "idle", reconnecting: "warn", waiting: "bad" };

export function showConnection() {
  tone(byId("pill-stream"), STATE_TONES[connection.state]);
  say(byId("pill-stream-text"), connection.state);
  tone(byId("connection-sentence"), STATE_TONES[connection.state]);
  say(byId("connection-sentence"), connectionSentence());
  say(byId("connection-resume"), resumeText(connection.resume));
  say(byId("connection-last-event"), connection.lastEventAt ? `${span(Date.now() - connection.lastEventAt)} ago` : "none yet");
  say(byId("connection-last-id"), connection.lastId || "none yet");
  say(byId("connection-reconnects"), number.format(connection.reconnects));
  say(byId("connection-received"), receivedText());
  say(byId("connection-lag"), lagText());
  say(byId("connection-tabs"), tabsText());
  showButtons();
  items.showEmpty();
}

/** The buttons for this state; a button that disappears passes its focus on. */
function showButtons() {
  const waiting = connection.state === "waiting";
  const reopen = byId("reopen");
  const drop = byId("drop");
  const focused = document.activeElement;
  drop.disabled = waiting;
  reopen.hidden = !waiting;
  if (waiting && focused === drop) reopen.focus();
  if (!waiting && focused === reopen) drop.focus();
}

function receivedText() {
  const { item, update, source, duplicates, unreadable } = connection.received;
  const words = [plural(item, "item"), plural(update, "update"), plural(source, "visit")];
  if (duplicates) words.push(plural(duplicates, "duplicate"));
  if (unreadable) words.push(`${number.format(unreadable)} unreadable`);
  return words.join(", ");
}

function lagText() {
  if (connection.lags.length === 0) return "no new item yet";
  const sorted = [...connection.lags].sort((a, b) => a - b);
  const at = (share) => {
    const ms = Math.round(sorted[Math.floor(share * (sorted.length - 1))]);
    return ms < 1_000 ? `${ms}\u00a0ms` : `${(ms / 1_000).toFixed(1)}\u00a0s`;
  };
  return `median ${at(0.5)}, p99 ${at(0.99)}`;
}

/** Whose connection this is: all tabs of a browser with the same filter share one. */
function tabsText() {
  const others = Math.max(0, connection.tabs - 1);
  if (connection.role === "follower") return `shared: another tab holds it for ${plural(connection.tabs, "tab")}`;
  if (connection.role === "holder") return others ? `shared: this tab holds it for ${plural(others, "other")}` : "held by this tab";
  if (connection.role === "alone") return canShare() ? "not shared" : "not shared: tabs can share on https and localhost only";
  return "joining the other tabs";
}

/** Announces a changed state to screen readers, and nothing else. */
export function announce() {
  const resumed = connection.state === "open" && connection.resume ? `, ${resumeText(connection.resume)}` : "";
  say(byId("announce"), `Stream ${connection.state}${resumed}`);
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
  connection.openAlone(id);
}

/** The protocol of this page. With HTTP/1.1 all tabs of a browser together have six connections; tabs with the same
    filter share one, so six different filters are possible. */
export function showTransport() {
  const protocol = performance.getEntriesByType("navigation")[0]?.nextHopProtocol ?? "";
  const six = /^http\/1/.test(protocol);
  say(byId("connection-transport"), six ? `${protocol.toUpperCase()}, at most six connections per browser` : protocol || "not known");
}
