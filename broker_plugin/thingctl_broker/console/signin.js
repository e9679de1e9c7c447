// The page to sign in.

import * as api from "./api.js";
import { h, put, visible } from "./dom.js";
import * as session from "./session.js";

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
      complain(error.unreachable ? "The broker cannot be reached. Check that it runs, and try again." : visible(error.message, 300));
    }
    submit.disabled = false;
  });

  function complain(text) {
    put(fault, h("p", {}, text));
    token.setAttribute("aria-invalid", "true");
    token.focus();
  }

  queueMicrotask(() => token.focus());
  return h("main", { class: "sign-in-page", id: "main" }, form);
}
