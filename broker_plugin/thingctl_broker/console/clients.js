// The page of MQTT clients: connected ones and persistent sessions, with the messages that wait for each.

import * as api from "./api.js";
import { foreign, h } from "./dom.js";
import { count, duration, size } from "./format.js";
import * as known from "./known.js";
import { ListPage } from "./list.js";
import { go, hashOf } from "./router.js";
import { opens } from "./rows.js";
import { failure, notice, presence, when } from "./widgets.js";

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

export class ClientsPage extends ListPage {
  constructor() {
    super({
      title: "Clients",
      path: "clients",
      filters: [
        { name: "q", label: "Search", placeholder: "Client id or user name", maxlength: 256 },
        { name: "thing", label: "Thing", placeholder: "Any thing", maxlength: 128, suggestions: known.thingNames },
        { name: "state", label: "State", options: STATES },
        { name: "sort", label: "Sort by", options: SORTS },
      ],
      columns: COLUMNS,
      keyOf: (client) => client.clientId,
      draw,
      onEnd: () => this.#readMore(),
    });
    this.all = [];
    this.bar.addEventListener("focusin", known.refresh, { once: true });
    this.timer = setInterval(() => document.hidden || this.error || this.#readAgain(), EVERY);
  }

  /** Show the place that the URL names. */
  show({ query }) {
    this.showFilters(query);
    const { q, thing, state, sort } = this.filters;
    const asked = { text: q, thingId: thing, connected: { connected: "true", away: "false" }[state] ?? "", sort };
    if (this.asked && JSON.stringify(asked) === JSON.stringify(this.asked)) return;
    clearTimeout(this.typing);
    this.typing = setTimeout(() => this.#read(), this.asked ? TYPING : 0);
    this.asked = asked;
  }

  destroy() {
    super.destroy();
    clearInterval(this.timer);
    clearTimeout(this.typing);
  }

  /** Read the first page. */
  async #read() {
    const { asked } = this;
    this.pages = 0;
    try {
      const { clients, nextCursor } = await api.clients(asked);
      if (this.gone || asked !== this.asked) return;
      this.pages = 1;
      this.#take(clients, nextCursor, null);
    } catch (error) {
      if (this.gone || asked !== this.asked) return;
      this.#take([], null, error);
    }
  }

  /** Read again what is shown, unless the reader has gone far down. */
  #readAgain() {
    if (this.pages === 1) this.#read();
  }

  async #readMore() {
    const { asked, cursor } = this;
    if (!cursor || this.asking) return;
    this.asking = true;
    try {
      const { clients, nextCursor } = await api.clients({ ...asked, cursor });
      if (this.gone || asked !== this.asked || cursor !== this.cursor) return;
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
    this.showItems(clients, () => this.#nothing(), clients.length ? [count(clients.length, "client"), cursor ? " so far" : "", `, ${clients.filter((client) => client.connected).length.toLocaleString("en")} connected`] : "");
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
  opens(row, ["clients", client.clientId]);
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
