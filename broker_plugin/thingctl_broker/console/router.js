// Where the reader is: the part of the URL behind the hash, as a path and filters.

/** {path: ["commands", "…"], query: {thing: "…"}} of a hash. */
export function parseHash(hash) {
  const [path, query = ""] = hash.replace(/^#\/?/, "").split("?", 2);
  return {
    path: path.split("/").filter(Boolean).map(decode),
    query: Object.fromEntries(new URLSearchParams(query)),
  };
}

function decode(part) {
  try {
    return decodeURIComponent(part);
  } catch {
    return part;
  }
}

/** The hash of a place; filters without a value are left out. */
export function hashOf(path, query = {}) {
  const kept = Object.entries(query).filter(([, value]) => value !== null && value !== undefined && value !== "");
  const search = new URLSearchParams(kept).toString();
  return `#/${path.map(encodeURIComponent).join("/")}${search ? `?${search}` : ""}`;
}

export function here() {
  return parseHash(location.hash);
}

/** Go to a place. `replace`: as a correction of this one, without a step back to it. */
export function go(path, query = {}, { replace = false } = {}) {
  const hash = hashOf(path, query);
  if (hash === location.hash) return;
  if (!replace) {
    location.hash = hash;
    return;
  }
  history.replaceState(null, "", hash);
  dispatchEvent(new HashChangeEvent("hashchange"));
}
