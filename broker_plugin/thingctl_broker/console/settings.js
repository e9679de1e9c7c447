// The pages of settings: the broker and one's own token, thing types, API tokens.

import * as api from "./api.js";
import { copyButton, foreign, h, put } from "./dom.js";
import * as me from "./me.js";
import { hashOf } from "./router.js";
import { TokensPart } from "./tokens.js";
import { TypePart, TypesPart } from "./types.js";
import { factList, failure, pageHead } from "./widgets.js";

const TABS = [
  [[], "Broker", () => true],
  [["types"], "Thing types", () => me.may("things:read")],
  [["tokens"], "Tokens", () => me.may("admin")],
];

/** The broker's health, how devices reach it, and what one's token may do. */
class BrokerPart {
  constructor() {
    this.health = h("section", { class: "card", "aria-label": "Broker" });
    this.element = h("div", { class: "columns" }, this.health, token());
    this.read();
  }

  async read() {
    try {
      const [health, enrolment] = await Promise.all([api.health(), api.enrolment().catch(() => null)]);
      put(this.health, h("header", { class: "card-head" }, h("h2", {}, "Broker")), factList([
        ["State", health.ready ? "ready: it takes commands" : ["not ready: ", foreign(health.reason, 300)]],
        ["Version", foreign(health.version, 60)],
        ["API", [h("span", { class: "mono" }, api.BASE.href), copyButton("Copy the address of the API", () => api.BASE.href)]],
        ["MQTT", enrolment?.mqttUrl ? [h("span", { class: "mono" }, foreign(enrolment.mqttUrl, 300)), copyButton("Copy the MQTT address", () => enrolment.mqttUrl)] : null],
        ["Topic root", enrolment?.topicRoot ? h("span", { class: "mono" }, foreign(enrolment.topicRoot, 200)) : null],
        ["Enrolment", enrolment ? (enrolment.open ? "open: things connect without being added" : "closed: only things that were added connect") : null],
        ["Bundles", enrolment?.bundleFault ? ["cannot be made: ", foreign(enrolment.bundleFault, 500)] : null],
      ]));
    } catch (error) {
      put(this.health, failure(error, () => this.read()));
    }
  }
}

function token() {
  const { things, actions } = me.limits();
  return h("section", { class: "card", "aria-label": "Signed in" }, h("header", { class: "card-head" }, h("h2", {}, "Signed in")), factList([
    ["Token", foreign(me.name(), 128)],
    ["Scopes", me.scopes().map((scope) => h("span", { class: "tag" }, scope))],
    ["Things", things.length ? things.map((one) => h("span", { class: "tag" }, foreign(one, 128))) : "all"],
    ["Actions", actions.length ? actions.map((one) => h("span", { class: "tag" }, foreign(one, 128))) : "all"],
  ]));
}

export class SettingsPage {
  constructor(path) {
    this.title = "Settings";
    const [tab, name] = path;
    this.part = name !== undefined && tab === "types" ? new TypePart(name) : tab === "types" ? new TypesPart() : tab === "tokens" ? new TokensPart() : new BrokerPart();
    this.element = h("div", { class: "page settings" }, pageHead("Settings", this.part.actions ?? null),
      h("nav", { class: "tabs", "aria-label": "Settings" }, TABS.filter(([, , may]) => may()).map(([of, label]) => h("a", { href: hashOf(["settings", ...of]), "aria-current": of[0] === tab ? "page" : null }, label))),
      this.part.element);
  }

  show() {}

  destroy() {
    this.part.gone = true;
  }
}
