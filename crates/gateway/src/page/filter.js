// What the reader wants to see: categories, sources, words; the address and the shell command that say the same.

import { items } from "./items.js";
import { sources } from "./sources.js";
import { wire } from "./wire.js";
import { byId, cut, el, plural, say } from "./words.js";

const CATEGORIES_MAX = 24; // buttons of categories

export const filter = { categories: new Set(), sources: new Set(), words: "" };

export function filterQuery() {
  const query = new URLSearchParams();
  for (const category of filter.categories) query.append("category", category);
  for (const source of filter.sources) query.append("source", source);
  if (filter.words) query.set("q", filter.words);
  return query;
}

export function streamUrl(query = filterQuery()) {
  const url = new URL("/news/stream", location.origin);
  url.search = query.toString();
  return url.href;
}

/** The filter lives in the fragment, so that it can be bookmarked and is never sent anywhere. */
export function readFilter() {
  const query = new URLSearchParams(location.hash.slice(1));
  filter.categories = new Set(query.getAll("category"));
  filter.sources = new Set(query.getAll("source"));
  filter.words = query.get("q") ?? "";
}

export function changeFilter() {
  const query = filterQuery().toString();
  history.replaceState(null, "", query ? `#${query}` : location.pathname + location.search);
  applyFilter();
}

export function applyFilter() {
  showFilter();
  items.clear();
  wire.begin("");
}

export function isFiltered() {
  return filter.categories.size + filter.sources.size > 0 || filter.words !== "";
}

export function showFilter() {
  const url = streamUrl();
  say(byId("stream-url"), url);
  say(byId("curl"), `curl -N '${url}'`);
  const names = [...filter.sources].map((id) => sources.known.get(id)?.name ?? id);
  const parts = [[...filter.categories].join(", "), names.join(", "), filter.words && `“${filter.words}”`];
  say(byId("filter-words"), parts.filter(Boolean).join(" · ") || "everything");
  byId("filter-clear").hidden = !isFiltered();
  byId("words").value = filter.words;
  showCategories();
  showChosenSources();
}

function showCategories() {
  const counts = new Map([...filter.categories].map((category) => [category, 0]));
  for (const { category } of sources.known.values()) counts.set(category, (counts.get(category) ?? 0) + 1);
  if (counts.size === 0) return;
  const row = byId("categories");
  const wanted = [...counts].sort((a, b) => b[1] - a[1] || (a[0] < b[0] ? -1 : 1)).slice(0, CATEGORIES_MAX);
  const shown = new Map([...row.querySelectorAll("button")].map((chip) => [chip.value, chip]));
  const chips = wanted.map(([category, n]) => {
    const chip = shown.get(category) ?? categoryChip(category);
    chip.setAttribute("aria-pressed", String(filter.categories.has(category)));
    say(chip.lastChild, String(n));
    chip.title = plural(n, "source");
    return chip;
  });
  if (chips.some((chip, at) => row.children[at] !== chip) || row.children.length !== chips.length) {
    row.replaceChildren(...chips);
  }
}

function categoryChip(category) {
  const chip = el("button", "chip", category);
  chip.type = "button";
  chip.value = category;
  chip.append(el("span", "n", ""));
  chip.addEventListener("click", () => {
    if (!filter.categories.delete(category)) filter.categories.add(category);
    changeFilter();
  });
  return chip;
}

function showChosenSources() {
  const row = byId("chosen-sources");
  row.hidden = filter.sources.size === 0;
  row.replaceChildren(
    ...[...filter.sources].map((id) => {
      const name = sources.known.get(id)?.name ?? id;
      const chip = el("button", "chip", `${name} ×`);
      chip.type = "button";
      chip.setAttribute("aria-pressed", "true");
      chip.setAttribute("aria-label", `Only ${name}; press to remove`);
      chip.addEventListener("click", () => {
        filter.sources.delete(id);
        changeFilter();
        byId("source-add").focus();
      });
      return chip;
    }),
  );
}

/** Takes what was typed as a source, by id or by name; says so when it is neither. */
export function addSource() {
  const input = byId("source-add");
  const problem = byId("filter-problem");
  const typed = input.value.trim();
  problem.hidden = true;
  if (!typed) return;
  const byName = [...sources.known.values()].find((s) => s.name.toLowerCase() === typed.toLowerCase());
  const source = sources.known.get(typed) ?? byName;
  if (!source) {
    problem.textContent = `No source has the id or the name “${cut(typed, 60)}”.`;
    problem.hidden = false;
    return;
  }
  input.value = "";
  filter.sources.add(source.id);
  changeFilter();
}

/** Applies what stands in the fields, both of them. */
export function submitFilter(event) {
  event.preventDefault();
  const words = byId("words").value.trim();
  const changed = words !== filter.words;
  filter.words = words;
  if (byId("source-add").value.trim()) addSource();
  if (changed) changeFilter();
}
