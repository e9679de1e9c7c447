// The page of MQTT clients: connected ones and persistent sessions, with the messages that wait for each.

import * as api from "./api.js";
import { foreign, h, put } from "./dom.js";
import { count, duration, size } from "./format.js";
import * as known from "./known.js";
import { go, hashOf } from "./router.js";
import { Rows } from "./rows.js";
import { failure, notice, pageHead, presence, suggesting, when } from "./widgets.js";

const EVERY = 3000;
const TYPING = 200; // milliseconds that a reader who types is given before the broker is asked

const COLUMNS = [
  { label: "Client", class: "c-name" },
  { label: "State", class: "c-presence" },
  { label: "MQTT", class: "c-version" },
  { label: "Address", class: "c-address" },
  { label: "Session", class: "c-session" },
  { label: "Waiting", class: "c-waiting" },
  { label: "Dropped", class: "c-dropped" },
  { label: "Since", class: "c-seen" },
];

const SORTS = { "": "By client id", "-waitingBytes": "Most that waits", "-dropped": "Most that was dropped" };
const STATES = { "": "Any state", connected: "Connected", away: "Away" };

/** Where the clients of a cluster are: its workers have none. */
export const ELSEWHERE = "urn:thingctl:problem:clients-elsewhere";

export class ClientsPage {
  constructor() {
    this.title = "Clients";
    this.all = [];
    this.search = h("input", { type: "search", name: "q", placeholder: "Client id or user name", "aria-label": "Search clients", autocomplete: "off", spellcheck: "false", maxlength: 256 });
    this.thing = suggesting({ name: "thing", placeholder: "Any thing", "aria-label": "Thing", maxlength: 128 }, known.thingNames);
    this.state = h("select", { name: "state", "aria-label": "State" }, Object.entries(STATES).map(([value, text]) => h("option", { value }, text)));
    this.sort = h("select", { name: "sort", "aria-label": "Sort by" }, Object.entries(SORTS).map(([value, text]) => h("option", { value }, text)));
    this.clear = h("button", { type: "button", class: "quiet", on: { click: () => go(["clients"]) } }, "Clear filters");
    const bar = h("form", { class: "filters", role: "search", "aria-label": "Filter clients", on: { submit: (event) => event.preventDefault() } },
      h("div", { class: "fields" }, field("Search", this.search, "wide"), field("Thing", [this.thing.input, this.thing.list]), field("State", this.state), field("Sort by", this.sort), this.clear));
    bar.addEventListener("input", () => go(["clients"], this.#asked(), { replace: true }));
    bar.addEventListener("focusin", known.refresh, { once: true });
    this.rows = new Rows({ label: "Clients", columns: COLUMNS, keyOf: (client) => client.clientId, draw, onEnd: () => this.#readMore() });
    this.instead = h("div", { class: "list-state" });
    this.foot = h("p", { class: "list-foot" });
    this.element = h("div", { class: "page clients" }, pageHead("Clients"), bar,
      h("div", { class: "split" }, h("section", { class: "list", "aria-label": "List of clients" }, this.rows.element, this.instead, this.foot)));
    this.timer = setInterval(() => document.hidden || this.error || this.#readAgain(), EVERY);
  }

  /** Show the place that the URL names. */
  show({ query }) {
    const filters = { text: query.q ?? "", thingId: query.thing ?? "", connected: { connected: "true", away: "false" }[query.state] ?? "", sort: query.sort in SORTS ? query.sort : "" };
    for (const [value, input] of [[filters.text, this.search], [filters.thingId, this.thing.input]]) {
      if (document.activeElement !== input) input.value = value;
    }
    this.state.value = query.state in STATES ? query.state : "";
    this.sort.value = filters.sort;
    this.clear.hidden = !(filters.text || filters.thingId || filters.connected);
    if (this.filters && JSON.stringify(filters) === JSON.stringify(this.filters)) return;
    clearTimeout(this.typing);
    this.typing = setTimeout(() => this.#read(), this.filters ? TYPING : 0);
    this.filters = filters;
  }

  destroy() {
    this.gone = true;
    clearInterval(this.timer);
    clearTimeout(this.typing);
    this.rows.destroy();
  }

  onShortcut(key) {
    if (key !== "/") return false;
    this.search.focus();
    return true;
  }

  #asked() {
    return { q: this.search.value.trim(), thing: this.thing.input.value.trim(), state: this.state.value, sort: this.sort.value };
  }

  /** Read the first page. */
  async #read() {
    const { filters } = this;
    this.pages = 0;
    try {
      const { clients, nextCursor } = await api.clients(filters);
      if (this.gone || filters !== this.filters) return;
      this.pages = 1;
      this.#take(clients, nextCursor, null);
    } catch (error) {
      if (this.gone || filters !== this.filters) return;
      this.#take([], null, error);
    }
  }

  /** Read again what is shown, unless the reader has gone far down. */
  #readAgain() {
    if (this.pages === 1) this.#read();
  }

  async #readMore() {
    const { filters, cursor } = this;
    if (!cursor || this.asking) return;
    this.asking = true;
    try {
      const { clients, nextCursor } = await api.clients({ ...filters, cursor });
      if (this.gone || filters !== this.filters || cursor !== this.cursor) return;
      this.pages += 1;
      this.#take([...this.all, ...clients], nextCursor, null);
    } catch {
      // The rows that are there stay; scrolling on asks again.
    } finally {
      this.asking = false;
    }
  }

  #take(clients, cursor, error) {
    this.cursor = cursor;
    this.error = error;
    this.loaded = true;
    this.all = clients;
    this.rows.set(clients);
    this.rows.element.hidden = !clients.length;
    put(this.instead, clients.length ? null : this.#nothing());
    put(this.foot, clients.length ? [count(clients.length, "client"), cursor ? " so far" : "", `, ${clients.filter((client) => client.connected).length.toLocaleString("en")} connected`] : "");
  }

  /** What stands in place of an empty list. */
  #nothing() {
    if (this.error) return this.error.type === ELSEWHERE ? elsewhere() : failure(this.error, () => this.#read());
    if (!this.clear.hidden) return notice("No client fits", "Search looks at client ids and user names. The thing is matched by its exact name.", { actions: [h("button", { type: "button", on: { click: () => go(["clients"]) } }, "Clear the search")] });
    return notice("No client is connected", "Devices and programs that connect over MQTT are listed here, and those with a persistent session.", { actions: [h("a", { class: "button", href: hashOf(["things"]) }, "To the things")] });
  }
}

/** What a worker of a cluster shows. */
export function elsewhere() {
  return notice("The MQTT cluster has the clients", "This broker is a worker of a cluster. The cluster's own console lists its clients.");
}

function draw(client, row) {
  row.onclick = (event) => event.target.closest("a, button") || String(getSelection()) || go(["clients", client.clientId]);
  const waiting = client.queuedMessages + client.inFlight;
  const dropped = Object.values(client.dropped).reduce((sum, number) => sum + number, 0);
  return [
    h("div", {}, h("a", { class: "main", href: hashOf(["clients", client.clientId]) }, foreign(client.clientId, 200))),
    h("div", {}, presence(client.connected, ["Connected", "Away"])),
    h("div", {}, client.mqttVersion ? [client.mqttVersion, h("span", { class: "hint" }, ` ${client.transport ?? ""}`)] : null),
    h("div", {}, client.address ? foreign(client.address, 80) : null),
    h("div", {}, sessionWords(client)),
    h("div", {}, waiting || client.waitingBytes ? `${waiting.toLocaleString("en")} (${size(client.waitingBytes)})` : h("span", { class: "hint" }, "nothing")),
    h("div", {}, dropped ? h("span", { class: "danger" }, dropped.toLocaleString("en")) : null),
    h("div", {}, when(Date.parse(client.connected ? client.connectedAt : client.awaySince))),
  ];
}

/** How long the broker keeps the session of a client that is away. */
export function sessionWords({ sessionExpiry }) {
  if (sessionExpiry === null) return "kept for ever";
  return sessionExpiry ? `kept ${duration(sessionExpiry)}` : "not kept";
}

function field(label, control, more = "") {
  return h("label", { class: `field ${more}` }, h("span", {}, label), control);
}
