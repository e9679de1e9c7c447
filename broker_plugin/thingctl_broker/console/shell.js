// What stands around every page: where one can go, how the broker is, and the way out.

import * as connection from "./connection.js";
import { foreign, h, put } from "./dom.js";
import * as live from "./live.js";
import * as me from "./me.js";
import { hashOf } from "./router.js";
import { icon } from "./widgets.js";

const PLACES = [
  [[], "Overview", "overview", () => me.may("commands:read") && !me.isLimited()],
  [["commands"], "Commands", "commands", () => me.may("commands:read")],
  [["send"], "Send", "send", () => me.may("commands:send")],
  [["things"], "Things", "things", () => me.may("things:read")],
  [["clients"], "Clients", "clients", () => me.may("things:read")],
  [["settings"], "Settings", "settings", () => true],
];

/** The places that the token may see. */
export function places() {
  return PLACES.filter(([, , , may]) => may()).map(([path]) => path);
}

const THEMES = { auto: ["auto", "As the system"], light: ["sun", "Light"], dark: ["moon", "Dark"] };
const THEME_KEY = "thingctl.theme";

const CONNECTION = {
  connecting: ["Connecting…", ""],
  online: ["Connected", "The broker answers."],
  live: ["Live", "Changes show up as they happen."],
  offline: ["Disconnected", ""],
};

/** Show the theme that was chosen before. */
export function applyTheme(name = localStorage.getItem(THEME_KEY) ?? "auto") {
  const theme = name in THEMES ? name : "auto";
  document.documentElement.dataset.theme = theme;
  return theme;
}

export class Shell {
  constructor(signOut) {
    this.main = h("main", { id: "main", tabindex: -1 });
    this.links = PLACES.filter(([, , , may]) => may()).map(([path, label, picture]) => h("a", { href: hashOf(path), "data-place": path[0] ?? "" }, icon(picture), h("span", {}, label)));
    this.state = h("div", { class: "connection", role: "status" });
    this.banner = h("div", { class: "banner", role: "alert", hidden: true });
    const theme = h("button", { type: "button", class: "quiet small", on: { click: () => this.#nextTheme(theme) } });
    this.#showTheme(theme, applyTheme());
    this.element = h("div", { class: "shell" },
      h("a", { class: "skip", href: "#main", on: { click: (event) => { event.preventDefault(); this.main.focus(); } } }, "Skip to the content"),
      h("header", { class: "side" },
        h("a", { class: "brand", href: hashOf([]), "aria-label": "thingctl, overview" }, h("span", { class: "logo", "aria-hidden": "true" }, ">_"), h("span", {}, "thingctl")),
        h("nav", { "aria-label": "Pages" }, this.links),
        me.name() ? h("p", { class: "signed-in", title: `Scopes: ${me.scopes().join(", ")}` }, "Signed in as ", h("a", { href: hashOf(["settings"]) }, foreign(me.name(), 60))) : null,
        h("div", { class: "side-foot" }, this.state, h("div", { class: "side-actions" }, theme, h("button", { type: "button", class: "quiet small", title: me.name() ? `Sign out ${me.name()}` : "Sign out", "aria-label": "Sign out", on: { click: signOut } }, icon("out"))))),
      h("div", { class: "content" }, this.banner, this.main));
    this.unlisten = connection.listen((state) => this.#showConnection(state));
    this.ticking = setInterval(() => this.#showConnection(connection.current()), 1000);
  }

  destroy() {
    this.unlisten();
    clearInterval(this.ticking);
  }

  /** Mark where the reader is. */
  mark(place) {
    for (const link of this.links) {
      if (link.dataset.place === place) link.setAttribute("aria-current", "page");
      else link.removeAttribute("aria-current");
    }
  }

  #showConnection({ name, retryAt }) {
    const [word, meaning] = CONNECTION[name];
    if (this.shown !== name) {
      put(this.state, h("span", { class: "dot", "aria-hidden": "true" }), word);
      this.state.dataset.state = name;
      this.state.title = meaning;
      this.banner.hidden = name !== "offline";
      this.wait = h("span");
      put(this.banner, name === "offline" ? [h("strong", {}, "The broker cannot be reached."), " What you see is as of then. ", this.wait, h("button", { type: "button", class: "small", on: { click: () => live.retry() } }, "Try now")] : null);
      this.shown = name;
    }
    if (name === "offline") {
      const seconds = retryAt ? Math.max(0, Math.ceil((retryAt - Date.now()) / 1000)) : 0;
      const text = seconds ? `Next try in ${seconds} s. ` : "Trying… ";
      if (this.wait.textContent !== text) this.wait.textContent = text;
    }
  }

  #nextTheme(button) {
    const names = Object.keys(THEMES);
    const next = names[(names.indexOf(document.documentElement.dataset.theme) + 1) % names.length];
    localStorage.setItem(THEME_KEY, next);
    this.#showTheme(button, applyTheme(next));
  }

  #showTheme(button, name) {
    const [picture, label] = THEMES[name];
    put(button, icon(picture));
    button.setAttribute("aria-label", `Colours: ${label}`);
    button.title = `Colours: ${label}`;
  }
}
