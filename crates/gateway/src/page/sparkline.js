// Items per hour of one source as a row of bars: those that this page has received, by the time they were first seen.

import { cursor, plural, when } from "./dom.js";
import { now } from "./fetch.js";

const SVG = "http://www.w3.org/2000/svg";
const HOUR_MS = 3_600_000;
const HOURS = 24; // bars
const SOURCES_MAX = 2_000; // sources that are counted; others have no bars
const BAR = 3; // width, including the space after it
const HEIGHT = 14;

const counted = new Map(); // source → { hours: Map(hour → items), epoch, seq: the newest one counted }

/** Counts an item once, even if it is replayed; updates do not count. */
export function countItem(item) {
  if (item.kind === "update") return;
  const hour = Math.floor(when(item.first_seen) / HOUR_MS);
  const at = cursor(item.id);
  if (Number.isNaN(hour) || !at) return;
  let line = counted.get(item.source);
  if (!line) {
    if (counted.size >= SOURCES_MAX) return;
    line = { hours: new Map(), epoch: "", seq: 0 };
    counted.set(item.source, line);
  }
  if (line.epoch === at.epoch && at.seq <= line.seq) return;
  line.epoch = at.epoch;
  line.seq = at.seq;
  line.hours.set(hour, (line.hours.get(hour) ?? 0) + 1);
  if (line.hours.size > HOURS) line.hours.delete(Math.min(...line.hours.keys()));
}

/** An empty drawing. */
export function sparkline() {
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("class", "spark");
  svg.setAttribute("viewBox", `0 0 ${HOURS * BAR} ${HEIGHT}`);
  svg.setAttribute("width", String(HOURS * BAR));
  svg.setAttribute("height", String(HEIGHT));
  svg.setAttribute("role", "img");
  svg.append(document.createElementNS(SVG, "title"), document.createElementNS(SVG, "path"));
  return svg;
}

/** Draws the last 24 hours of a source; hides the drawing if nothing was received. */
export function drawSparkline(svg, source) {
  const hours = counted.get(source)?.hours ?? new Map();
  const last = Math.floor(now() / HOUR_MS);
  const counts = Array.from({ length: HOURS }, (_, at) => hours.get(last - HOURS + 1 + at) ?? 0);
  const all = counts.reduce((sum, n) => sum + n, 0);
  svg.classList.toggle("none", all === 0);
  const most = Math.max(1, ...counts);
  const bars = counts.map((n, at) => {
    const height = n ? Math.max(2, Math.round((n / most) * HEIGHT)) : 1;
    return `M${at * BAR} ${HEIGHT - height}h${BAR - 1}v${height}h${1 - BAR}z`;
  });
  const [title, path] = svg.children;
  const text = `${plural(all, "item")} received by this page in 24 h, at most ${plural(most, "item")} per hour`;
  if (title.textContent !== text) title.textContent = text;
  if (path.getAttribute("d") !== bars.join("")) path.setAttribute("d", bars.join(""));
}
