// Whether the broker can be reached, as the last answers say. One place, told by all who ask.

const listeners = new Set();
let state = { name: "connecting", since: Date.now(), retryAt: null };

/** `name`: connecting, online (answers), live (and streams), offline. `retryAt`: when the next try is due. */
export function current() {
  return state;
}

export function tell(name, retryAt = null) {
  if (state.name === name && state.retryAt === retryAt) return;
  state = { name, since: state.name === name ? state.since : Date.now(), retryAt };
  for (const listener of [...listeners]) listener(state);
}

/** An answer has come: whatever streams say, the broker is there. */
export function answered() {
  if (state.name === "connecting" || state.name === "offline") tell("online");
}

export function listen(listener) {
  listeners.add(listener);
  listener(state);
  return () => listeners.delete(listener);
}
