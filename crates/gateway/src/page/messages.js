// Sentences about the stream that more than one part of the page shows.

import { cursor, cut, plural } from "./dom.js";

export function missedText(missed) {
  const n = Number.isFinite(missed) ? plural(missed, "event") : "Some events";
  return `${n} missed here: no longer in the log`;
}

/** Why a stream could not be resumed. `opened` is the data of a `stream` event. */
export function resetText(opened) {
  const [requested, head] = [cursor(opened.requested), cursor(opened.head)];
  if (!requested || requested.epoch !== head?.epoch) return "Another log begins here: older ids are not valid in it";
  return `The log ends at ${cut(opened.head, 40)}, before ${cut(opened.requested, 40)}: it starts again here`;
}

/** What in a filter means nothing to the gateway, or an empty text. `opened` is the data of a `stream` event. */
export function remarksText(opened) {
  const list = (values) => (Array.isArray(values) ? values : []);
  const unknown = list(opened.unknown).map((value) => `“${cut(String(value), 60)}”`);
  const texts = list(opened.ignored).map(({ name, did_you_mean: meant }) => {
    const question = meant ? `; did you mean “${cut(String(meant), 60)}”?` : "";
    return `The gateway does not know the parameter “${cut(String(name), 60)}”${question}`;
  });
  if (unknown.length > 0) texts.unshift(`No source has the category, id, tag or country ${unknown.join(", ")}`);
  return texts.join(". ");
}

/** For a person without a valid token. `problem` is the gateway's answer. */
export function tokenText(problem) {
  const detail = cut(problem.detail, 120);
  if (problem.code === "token-required" || !detail) return "a token is required; ask the operator of this site for one";
  return `another token is required: ${detail}`;
}
