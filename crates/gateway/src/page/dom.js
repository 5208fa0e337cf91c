// Nodes and text. Text of a feed becomes a text node, never markup.

export const byId = (id) => document.getElementById(id);

export function el(tag, className, text) {
  const node = document.createElement(tag);
  if (className) node.className = className;
  if (text !== undefined) node.textContent = text;
  return node;
}

/** Writes only what changed, so that neither the layout nor a screen reader has work for nothing. */
export function say(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

export function tone(node, value) {
  if (node.dataset.tone !== value) node.dataset.tone = value;
}

/** A duration in its one or two largest units: "8 s", "14 min", "3 h 12 min", "6 d". */
export function span(ms) {
  const s = Math.max(0, Math.floor(ms / 1000));
  if (s < 60) return `${s}\u00a0s`;
  const min = Math.floor(s / 60);
  if (min < 60) return `${min}\u00a0min`;
  const h = Math.floor(min / 60);
  if (h < 10 && min % 60) return `${h}\u00a0h ${min % 60}\u00a0min`;
  return h < 48 ? `${h}\u00a0h` : `${Math.floor(h / 24)}\u00a0d`;
}

/** The same in one unit, for the narrow column of ages. */
export function spanShort(ms) {
  const h = Math.floor(ms / 3_600_000);
  return h >= 1 && h < 48 ? `${h}\u00a0h` : span(ms);
}

export const number = new Intl.NumberFormat("en");
export const instant = new Intl.DateTimeFormat("en-GB", { dateStyle: "medium", timeStyle: "medium" });

export function plural(n, one, many = `${one}s`) {
  return `${number.format(n)}\u00a0${n === 1 ? one : many}`;
}

export function cut(text, max) {
  const chars = typeof text === "string" ? text.trim() : "";
  return chars.length > max ? `${chars.slice(0, max).trimEnd()}…` : chars;
}

/** Milliseconds since 1970 of an RFC 3339 text; NaN if it is not one. */
export function when(text) {
  return typeof text === "string" ? Date.parse(text) : NaN;
}

/** The two parts of "<epoch>-<seq>", or null. */
export function cursor(id) {
  const parts = /^([a-z0-9]+)-([0-9]+)$/.exec(id ?? "");
  return parts && { epoch: parts[1], seq: Number(parts[2]) };
}

/** The address if it may be followed, that is http or https; else "". */
export function webAddress(text) {
  try {
    const url = new URL(text);
    return url.protocol === "http:" || url.protocol === "https:" ? url.href : "";
  } catch {
    return "";
  }
}

export function outwardLink(text, address) {
  const link = el("a", "", text);
  link.href = address;
  link.target = "_blank";
  link.rel = "noopener noreferrer nofollow";
  link.referrerPolicy = "no-referrer";
  return link;
}

/** Sets the language of a text for screen readers and hyphenation, if the feed named a valid one. */
export function inLanguage(node, language) {
  if (typeof language === "string" && /^[A-Za-z]{2,3}(-[A-Za-z0-9]{2,8}){0,3}$/.test(language)) node.lang = language;
  node.dir = "auto";
}

export function parsed(text) {
  try {
    const value = JSON.parse(text);
    return value !== null && typeof value === "object" ? value : null;
  } catch {
    return null;
  }
}

/** In a narrow window one part is shown at a time; in a wide one all of them, whatever is selected. */
export function showView(view) {
  document.body.dataset.view = view;
  for (const button of document.querySelectorAll("[data-show]")) {
    button.setAttribute("aria-pressed", String(button.dataset.show === view));
  }
}
