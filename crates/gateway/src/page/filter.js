// The filter as data: categories, sources, words, and other parameters, which the gateway applies or names as mistyped.
// The panel that edits it is filter_panel.js.

export const filter = { categories: new Set(), sources: new Set(), words: "", others: [] };

/** Names that have a place of their own, or that the page decides: how its stream begins, and what it contains. */
const OWN = ["category", "source", "q", "heartbeat", "content", "kinds", "snapshot", "since", "after", "lasteventid"];

export function filterQuery() {
  const query = new URLSearchParams();
  for (const category of filter.categories) query.append("category", category);
  for (const source of filter.sources) query.append("source", source);
  if (filter.words) query.set("q", filter.words);
  for (const [name, value] of filter.others) query.append(name, value);
  return query;
}

export function streamUrl(query = filterQuery()) {
  const url = new URL("/news/stream", location.origin);
  url.search = query.toString();
  return url.href;
}

export function isFiltered() {
  return filter.categories.size + filter.sources.size + filter.others.length > 0 || filter.words !== "";
}

/** The filter is stored in the fragment, so that it can be bookmarked. A query works, too. */
export function readFilter() {
  const query = new URLSearchParams(location.hash.slice(1) || location.search);
  filter.categories = new Set(query.getAll("category"));
  filter.sources = new Set(query.getAll("source"));
  filter.words = query.get("q") ?? "";
  filter.others = [...query].filter(([name]) => !OWN.includes(name.toLowerCase().replace(/[-_]/g, "")));
}

export function storeFilter() {
  const query = filterQuery().toString();
  history.replaceState(null, "", query ? `${location.pathname}#${query}` : location.pathname);
}
