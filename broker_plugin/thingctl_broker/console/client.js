// The page of one MQTT client: who it is, its session, its subscriptions, what it lost; and the end of its connection.

import * as api from "./api.js";
import { elsewhere, ELSEWHERE, sessionWords } from "./clients.js";
import { announce, foreign, h, put, visible } from "./dom.js";
import { count, size } from "./format.js";
import * as me from "./me.js";
import { go, hashOf } from "./router.js";
import { confirmDialog, factList, failure, notice, pageHead, presence, when } from "./widgets.js";

const EVERY = 3000;

const REASONS = {
  slowReader: "it reads too slowly",
  queueFull: "its queue was full",
  totalBytes: "the broker had no room for all clients",
  expired: "they expired while they waited",
  packetSize: "longer than it takes",
  retained: "of its own, not retained: no room",
};

export class ClientPage {
  constructor(clientId) {
    this.id = clientId;
    this.title = clientId;
    this.message = h("div", { class: "message", role: "alert" });
    this.about = h("div", { class: "thing-body" });
    this.filters = h("section", { class: "card", "aria-label": "Subscriptions" });
    this.element = h("div", { class: "page client" },
      h("nav", { class: "crumbs", "aria-label": "You are in" }, h("a", { href: hashOf(["clients"]) }, "Clients")),
      pageHead(foreign(clientId, 200)), this.message, h("div", { class: "columns" }, this.about, this.filters));
  }

  show() {
    if (this.timer) return;
    this.timer = setInterval(() => document.hidden || this.#read(), EVERY);
    this.#read();
  }

  destroy() {
    this.gone = true;
    clearInterval(this.timer);
  }

  async #read() {
    try {
      const client = await api.client(this.id);
      if (!this.gone) this.#take(client);
    } catch (error) {
      if (!this.gone && (error.status === 404 || !this.text)) this.#lost(error);
    }
  }

  /** The client is not there, or the broker cannot say. */
  #lost(error) {
    this.text = null;
    this.filters.hidden = true;
    const all = h("a", { class: "button", href: hashOf(["clients"]) }, "All clients");
    const gone = notice("No client has this id", "It has gone, and the broker stores no session for it. It shows up again when it connects.", { actions: [all] });
    put(this.about, error.type === ELSEWHERE ? elsewhere() : error.status === 404 ? gone : failure(error, () => this.#read()));
  }

  #take(client) {
    const text = JSON.stringify(client);
    if (text === this.text) return;
    this.text = text;
    this.client = client;
    const focused = this.about.contains(document.activeElement) ? document.activeElement.dataset.focus : null;
    put(this.about, h("section", { class: "card", "aria-label": "About" }, factList(facts(client)), this.#changes(client)));
    if (focused) this.about.querySelector(`[data-focus="${focused}"]`)?.focus();
    this.filters.hidden = false;
    put(this.filters, h("header", { class: "card-head" }, h("h2", {}, "Subscriptions"), h("span", { class: "hint" }, client.filters.length.toLocaleString("en"))),
      client.filters.length ? h("ul", { class: "subscriptions" }, client.filters.map(subscription)) : notice("It has subscribed to nothing", "It may still publish."));
  }

  #changes({ connected, thingId }) {
    if (!(thingId ? me.mayChange(thingId) : me.may("things:write"))) return null;
    const button = (focus, label, deed) => h("button", { type: "button", class: "danger", "data-focus": focus, on: { click: deed } }, label);
    return h("p", { class: "actions changes" },
      connected ? button("kick", "End the connection", () => this.#kick()) : null,
      button("session", "End the session", () => this.#endSession()));
  }

  async #kick() {
    const { sessionExpiry, mqttVersion } = this.client;
    const text = [
      h("p", {}, mqttVersion === "5" ? "The client gets the reason: an administrator did it. " : "Its version of MQTT has no reason codes. ", "Its will is published, if it has one."),
      h("p", {}, sessionExpiry === 0 ? "Its session ends with the connection." : "Its session stays: its subscriptions, and the messages that wait for it."),
      h("p", {}, "It may connect again, and most clients do so within seconds. To lock a thing out, disable it."),
    ];
    if (await confirmDialog(`End the connection of ${visible(this.id, 128)}?`, text, { yes: "End the connection", danger: true })) await this.#end(false, "The connection is ended");
  }

  async #endSession() {
    const { connected, queuedMessages, inFlight, subscriptions } = this.client;
    const waiting = queuedMessages + inFlight;
    const text = [
      connected ? h("p", {}, "Its connection ends as well, and its will is published, if it has one. It may connect again, with a new session.") : null,
      h("p", {}, `The session goes: ${count(subscriptions, "subscription")}, and ${count(waiting, "message")} that ${waiting === 1 ? "waits" : "wait"} for it. Commands are not part of it: they wait as before.`),
    ];
    if (await confirmDialog(`End the session of ${visible(this.id, 128)}?`, text, { yes: "End the session", danger: true })) await this.#end(true, "The session is ended");
  }

  async #end(session, done) {
    put(this.message);
    try {
      await api.kick(this.id, session);
      announce(done);
      if (session) go(["clients"]);
      else await this.#read();
    } catch (error) {
      put(this.message, h("p", {}, visible(error.message, 500)));
    }
  }
}

/** What there is to say of a client. */
function facts(client) {
  const dropped = Object.entries(client.dropped);
  const waiting = client.queuedMessages + client.inFlight;
  return [
    ["State", presence(client.connected, ["Connected", "Away"])],
    ["Since", when(Date.parse(client.connected ? client.connectedAt : client.awaySince))],
    ["Thing", client.thingId ? h("a", { href: hashOf(["things", client.thingId]) }, foreign(client.thingId, 128)) : null],
    ["API token", client.token ? foreign(client.token, 128) : null],
    ["User name", client.username ? foreign(client.username, 200) : null],
    ["MQTT", client.mqttVersion ? [client.mqttVersion, h("span", { class: "hint" }, ` over ${client.transport}`)] : null],
    ["Address", client.address ? foreign(client.address, 80) : null],
    ["Last heard", client.lastHeardAt ? when(Date.parse(client.lastHeardAt)) : null],
    ["Keep-alive", client.keepAlive === undefined ? null : client.keepAlive ? `${client.keepAlive} s` : "none"],
    ["Session", [sessionWords(client), client.sessionExpiresAt ? [", until ", when(Date.parse(client.sessionExpiresAt))] : null]],
    ["Waiting", waiting || client.waitingBytes ? `${count(client.queuedMessages, "message")} queued, ${client.inFlight.toLocaleString("en")} in flight: ${size(client.waitingBytes)}` : "nothing"],
    ["Requests", client.requestsInFlight ? `${count(client.requestsInFlight, "command")} not acknowledged yet` : null],
    ["Traffic", client.connected ? `${size(client.bytesReceived ?? 0)} received, ${size(client.bytesSent ?? 0)} sent` : null],
    ["Dropped", dropped.length ? dropped.map(([reason, number]) => h("p", { class: "danger" }, `${count(number, "message")}: ${REASONS[reason] ?? reason}`)) : null],
  ];
}

function subscription({ filter, qos, command, noLocal, retainAsPublished, retainHandling, subscriptionId }) {
  const options = [`QoS ${qos}`, command ? "commands" : null, noLocal ? "no local" : null, retainAsPublished ? "retain as published" : null, retainHandling ? `retain handling ${retainHandling}` : null, subscriptionId ? `id ${subscriptionId}` : null];
  return h("li", {}, foreign(filter, 400, { class: "mono" }), h("span", { class: "hint" }, options.filter(Boolean).join(", ")));
}
