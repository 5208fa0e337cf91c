// The panel of the filter: the address and the shell command for it, buttons for categories and sources.

import { connection } from "./connection.js";
import { byId, cut, el, plural, say } from "./dom.js";
import { filter, isFiltered, storeFilter, streamUrl } from "./filter.js";
import { items } from "./items.js";
import { sources } from "./sources.js";

const CATEGORIES_MAX = 24; // buttons for categories

export function changeFilter() {
  storeFilter();
  applyFilter();
}

export function applyFilter() {
  showFilter();
  items.clear();
  connection.begin("");
}

export function showOnlySource(id) {
  filter.categories.clear();
  filter.sources = new Set([id]);
  filter.words = "";
  filter.others = [];
  changeFilter();
}

export function clearFilter() {
  filter.categories.clear();
  filter.sources.clear();
  filter.words = "";
  filter.others = [];
  changeFilter();
}

export function showFilter() {
  const url = streamUrl();
  say(byId("stream-url"), url);
  say(byId("curl"), `curl -N '${url}'`);
  const names = [...filter.sources].map((id) => sources.known.get(id)?.name ?? id);
  const others = filter.others.map(([name, value]) => `${name}=${value}`);
  const words = filter.words && `“${filter.words}”`;
  const parts = [[...filter.categories].join(", "), names.join(", "), words, others.join(", ")];
  say(byId("filter-text"), parts.filter(Boolean).join(" · ") || "everything");
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
  const largest = [...counts].sort((a, b) => b[1] - a[1] || (a[0] < b[0] ? -1 : 1)).slice(0, CATEGORIES_MAX);
  const shown = new Map([...row.querySelectorAll("button")].map((chip) => [chip.value, chip]));
  const chips = largest.map(([category, n]) => {
    const chip = shown.get(category) ?? categoryChip(category);
    chip.setAttribute("aria-pressed", String(filter.categories.has(category)));
    say(chip.lastChild, String(n));
    chip.title = plural(n, "source");
    return chip;
  });
  if (chips.some((chip, index) => row.children[index] !== chip) || row.children.length !== chips.length) {
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

/** Adds the source that was typed, by its id or name; shows a message if there is none. */
export function addSource() {
  const input = byId("source-add");
  const problem = byId("filter-problem");
  const typed = input.value.trim();
  problem.hidden = true;
  if (!typed) return;
  const byName = [...sources.known.values()].find((s) => s.name.toLowerCase() === typed.toLowerCase());
  const source = sources.known.get(typed) ?? byName;
  if (!source) {
    problem.textContent = `There is no source with the id or name “${cut(typed, 60)}”.`;
    problem.hidden = false;
    return;
  }
  input.value = "";
  filter.sources.add(source.id);
  changeFilter();
}

/** Applies both fields. */
export function submitFilter(event) {
  event.preventDefault();
  const words = byId("words").value.trim();
  const changed = words !== filter.words;
  filter.words = words;
  if (byId("source-add").value.trim()) addSource();
  if (changed) changeFilter();
}
