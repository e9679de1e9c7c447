// The page to sign in, with a token or by the link of `thingctl console`.

import * as api from "./api.js";
import { h, put, visible } from "./dom.js";
import * as session from "./session.js";

const LINK = "#sign-in=";
let code = "";

/** Take the code out of the address, where the history would keep it. */
function takeCode() {
  if (!location.hash.startsWith(LINK)) return false;
  code = location.hash.slice(LINK.length);
  history.replaceState(null, "", "#/");
  session.end();
  return true;
}

// This module is loaded before the one that shows pages, so its listener is the first.
addEventListener("hashchange", (event) => {
  if (takeCode()) event.stopImmediatePropagation();
});
takeCode();

/** Exchange a code for a token. Raises ApiError. */
async function redeem(value) {
  let response;
  let answer;
  try {
    const body = JSON.stringify({ code: value });
    response = await fetch(new URL("sign-in", api.BASE), { method: "POST", headers: { "Content-Type": "application/json" }, body, cache: "no-store", credentials: "omit" });
    answer = await response.json();
  } catch {
    throw new api.ApiError(0, { detail: "The broker cannot be reached." });
  }
  if (!response.ok) throw new api.ApiError(response.status, answer);
  return answer.token;
}

/** `done()`: the token was good. `why`: what ended the session before. */
export function signInPage(done, why) {
  const token = h("input", { id: "token", type: "password", autocomplete: "off", autocapitalize: "off", spellcheck: "false", required: true, "aria-describedby": "token-help" });
  const fault = h("div", { class: "message", role: "alert" }, why ? h("p", {}, why) : null);
  const submit = h("button", { type: "submit", class: "primary" }, "Sign in");
  const form = h("form", { class: "card sign-in", novalidate: true, "aria-label": "Sign in" },
    h("h1", {}, "thingctl"), h("p", { class: "sub" }, "Send commands to devices and know what became of each one."),
    h("div", { class: "field" }, h("label", { for: "token" }, "API token"), token,
      h("p", { class: "help", id: "token-help" }, "The broker shows its admin token once, at its first start, and keeps it in the file ", h("code", {}, "admin-token"), " of its data directory. It stays in this tab, and is forgotten when the tab is closed.")),
    fault, submit);
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const value = token.value.trim();
    if (!value) {
      complain("Enter a token");
      return;
    }
    submit.disabled = true;
    try {
      // A header holds no other characters; the broker would only see something else.
      if (/^[\x21-\x7e]+$/.test(value) && (await api.check(value))) {
        session.begin(value);
        done();
        return;
      }
      complain("The broker does not know this token. Check that it is whole, and of this broker.");
    } catch (error) {
      complain(explained(error));
    }
    submit.disabled = false;
  });

  async function followLink(value) {
    submit.disabled = true;
    put(fault, h("p", {}, "Signing in…"));
    try {
      session.begin(await redeem(value));
      done();
    } catch (error) {
      submit.disabled = false;
      const why = error.status === 401 ? "This sign-in link was used or has expired. Make another one with thingctl console, or enter a token." : explained(error);
      complain(why);
    }
  }

  function complain(text) {
    put(fault, h("p", {}, text));
    token.setAttribute("aria-invalid", "true");
    token.focus();
  }

  queueMicrotask(() => token.focus());
  if (code) {
    const value = code;
    code = "";
    followLink(value);
  }
  return h("main", { class: "sign-in-page", id: "main" }, form);
}

function explained(error) {
  return error.unreachable ? "The broker cannot be reached. Check that it runs, and try again." : visible(error.message, 300);
}
