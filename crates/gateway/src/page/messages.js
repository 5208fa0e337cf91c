// Sentences about the stream that more than one part of the page shows.

import { cut, plural } from "./dom.js";

export function missedText(missed) {
  const n = Number.isFinite(missed) ? plural(missed, "event") : "Some events";
  return `${n} missed here: no longer in the log`;
}

/** For a person without a valid token. `problem` is the gateway's answer. */
export function tokenText(problem) {
  const detail = cut(problem.detail, 120);
  if (problem.code === "token-required" || !detail) return "a token is required; ask the operator of this site for one";
  return `another token is required: ${detail}`;
}
