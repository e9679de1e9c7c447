// The token: kept for this tab alone, and sent as a header. No cookie, so nothing to forge with.

const KEY = "thingctl.token";
let ended = () => {};

export function token() {
  return sessionStorage.getItem(KEY);
}

export function begin(value) {
  sessionStorage.setItem(KEY, value);
}

/** Forget the token; the sign-in page shows `why`. */
export function end(why = "") {
  sessionStorage.removeItem(KEY);
  ended(why);
}

/** What to do when the session has ended. */
export function whenEnded(callback) {
  ended = callback;
}
