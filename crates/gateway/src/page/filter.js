// The filter as data: categories, sources, words. The panel that edits it is filter_panel.js.

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

export function isFiltered() {
  return filter.categories.size + filter.sources.size > 0 || filter.words !== "";
}

/** The filter is stored in the fragment, so that it can be bookmarked and is never sent anywhere. */
export function readFilter() {
  const query = new URLSearchParams(location.hash.slice(1));
  filter.categories = new Set(query.getAll("category"));
  filter.sources = new Set(query.getAll("source"));
  filter.words = query.get("q") ?? "";
}

export function storeFilter() {
  const query = filterQuery().toString();
  history.replaceState(null, "", query ? `#${query}` : location.pathname + location.search);
}
