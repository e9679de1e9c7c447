// API tokens: which there are, a new one, another secret, an end.

import * as api from "./api.js";
import { announce, copyButton, foreign, h, put, visible } from "./dom.js";
import * as me from "./me.js";
import { confirmDialog, failure, formDialog, labelled, listed, openDialog, when } from "./widgets.js";

const SCOPES = {
  "commands:send": "send commands",
  "commands:read": "read commands and their results",
  "commands:cancel": "cancel commands",
  "things:read": "see things and thing types",
  "things:write": "add, change and remove things and thing types",
  "mqtt:read": "over MQTT, subscribe to everything",
  "mqtt:write": "over MQTT, publish to ordinary topics",
  "mqtt:authenticate": "for another MQTT broker, check a client's password",
  admin: "everything, tokens included",
};

export class TokensPart {
  constructor() {
    this.actions = h("button", { type: "button", class: "primary", on: { click: () => this.#add() } }, "Add token");
    this.message = h("div", { class: "message", role: "alert" });
    this.list = h("section", { class: "card", "aria-label": "Tokens" }, h("p", { class: "hint" }, "loading…"));
    this.element = h("div", { class: "settings-body" }, this.message, this.list);
    this.read();
  }

  async read() {
    try {
      const tokens = await api.tokens();
      if (this.gone) return;
      put(this.list, h("ul", { class: "entries" }, tokens.map((token) => this.#entry(token))));
    } catch (error) {
      if (!this.gone) put(this.list, failure(error, () => this.read()));
    }
  }

  #entry(token) {
    const name = visible(token.name, 128);
    const limits = [...(token.things ?? []), ...(token.actions ?? [])];
    return h("li", {},
      h("div", {}, h("strong", {}, foreign(token.name, 128)), token.name === me.name() ? h("span", { class: "hint" }, " signed in with") : null,
        token.createdAt ? h("p", { class: "hint" }, "made ", when(Date.parse(token.createdAt)), token.expiresAt ? [", ends ", when(Date.parse(token.expiresAt))] : null) : null),
      h("p", {}, token.scopes.map((scope) => h("span", { class: "tag" }, foreign(scope, 60))), limits.length ? [h("span", { class: "hint" }, " only for "), limits.map((limit) => h("span", { class: "tag" }, foreign(limit, 128)))] : null),
      h("p", { class: "actions" },
        h("button", { type: "button", class: "small", "aria-label": `New secret for ${name}`, on: { click: () => this.#renew(token) } }, "New secret"),
        h("button", { type: "button", class: "small danger", "aria-label": `Revoke ${name}`, on: { click: () => this.#revoke(token) } }, "Revoke")));
  }

  #add() {
    const name = h("input", { type: "text", id: "token-name", required: true, maxlength: 128, autocomplete: "off", spellcheck: "false", placeholder: "dashboard" });
    const boxes = Object.entries(SCOPES).map(([scope, words]) => h("label", { class: "field check" }, h("input", { type: "checkbox", value: scope, checked: scope === "commands:read" }), h("span", {}, h("code", {}, scope), " ", h("span", { class: "hint" }, words))));
    const things = h("input", { type: "text", id: "token-things", autocomplete: "off", placeholder: "all" });
    const actions = h("input", { type: "text", id: "token-actions", autocomplete: "off", placeholder: "all" });
    const ends = h("input", { type: "datetime-local", id: "token-ends" });
    const fields = [
      labelled("Name", name),
      h("fieldset", { class: "group" }, h("legend", {}, "Scopes"), h("div", { class: "scopes" }, boxes)),
      labelled("Only for these things", things, { note: "patterns with commas; * stands for any characters" }),
      labelled("Only for these actions", actions, { note: "patterns with commas" }),
      labelled("Ends", ends, { note: "empty: never" }),
    ];
    const dialog = formDialog("Add a token", fields, {
      label: "Add token",
      inputOf: ({ pointer }) => ({ "/expiresAt": ends })[pointer] ?? (pointer?.startsWith("/scopes") ? boxes[0].firstChild : pointer?.startsWith("/things") ? things : pointer?.startsWith("/actions") ? actions : name),
      save: async () => {
        const scopes = boxes.map((label) => label.firstChild).filter((box) => box.checked).map((box) => box.value);
        const made = await api.addToken({ name: name.value.trim(), scopes, things: listed(things.value), actions: listed(actions.value), ...(ends.value ? { expiresAt: new Date(ends.value).toISOString() } : {}) });
        this.read();
        announce("The token is added");
        return secretView(`${visible(made.name, 128)} is added`, made.token, () => dialog.close());
      },
    });
  }

  async #renew({ name }) {
    if (!(await confirmDialog(`A new secret for ${visible(name, 128)}?`, "The old secret ends now. Programs that use it need the new one.", { yes: "Make a new secret", danger: true }))) return;
    await this.#do(async () => {
      const { token } = await api.renewToken(name);
      const dialog = openDialog(secretView(`The new secret of ${visible(name, 128)}`, token, () => dialog.close()));
      dialog.querySelector("h2").focus();
    });
  }

  async #revoke({ name }) {
    const own = name === me.name() ? " You are signed in with it, and will be signed out." : "";
    if (await confirmDialog(`Revoke ${visible(name, 128)}?`, `Programs that use it are refused from now on.${own}`, { yes: "Revoke", danger: true })) await this.#do(() => api.revokeToken(name));
  }

  async #do(deed) {
    put(this.message);
    try {
      await deed();
      await this.read();
    } catch (error) {
      put(this.message, h("p", {}, visible(error.message, 500)));
    }
  }
}

function secretView(title, secret, done) {
  return h("div", { class: "enrolment" },
    h("h2", { id: "dialog-title", tabindex: -1 }, title),
    h("p", {}, "The broker shows the secret this once. Copy it now."),
    h("pre", { tabindex: 0, "aria-label": "Secret" }, visible(secret, 500)),
    h("p", { class: "actions" }, copyButton("Copy the secret", () => secret, { worded: true }), h("button", { type: "button", class: "primary", on: { click: done } }, "Done")));
}
