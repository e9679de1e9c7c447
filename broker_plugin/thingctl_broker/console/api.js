// The HTTP API. Every failure is an ApiError whose message is a sentence for people.

import * as connection from "./connection.js";
import { parse } from "./json.js";
import * as session from "./session.js";

export const BASE = new URL("api/v1/", document.baseURI);

export class ApiError extends Error {
  constructor(status, problem) {
    super(problem.detail ?? problem.title ?? `The broker answered ${status}.`);
    this.status = status;
    this.type = problem.type ?? "";
    this.pointer = problem.pointer ?? null;
    this.parameter = problem.parameter ?? null;
  }

  /** The broker did not answer at all. */
  get unreachable() {
    return this.status === 0;
  }
}

/** Ask; return the answer as text. `query`: parameters; a list is one parameter repeated, one without a value is left out. */
async function ask(method, path, { query = {}, body, key, signal, token = session.token() } = {}) {
  const url = new URL(path, BASE);
  for (const [name, value] of Object.entries(query)) {
    for (const one of [value].flat()) if (one !== null && one !== undefined && one !== "") url.searchParams.append(name, one);
  }
  const headers = { Authorization: `Bearer ${token}` };
  if (body !== undefined) headers["Content-Type"] = "application/json";
  if (key) headers["Idempotency-Key"] = key;
  let response;
  let text;
  try {
    response = await fetch(url, { method, headers, body, signal, cache: "no-store", credentials: "omit" });
    text = await response.text();
  } catch (error) {
    if (error.name === "AbortError") throw error;
    connection.tell("offline");
    throw new ApiError(0, { detail: "The broker cannot be reached." });
  }
  connection.answered();
  if (response.ok) return text;
  let problem = {};
  try {
    problem = JSON.parse(text);
  } catch {
    problem = { detail: `What answers here is no thingctl broker (status ${response.status}).` };
  }
  if (response.status === 401 && token === session.token()) session.end("The token is no longer valid.");
  throw new ApiError(response.status, problem);
}

async function get(path, options) {
  return JSON.parse(await ask("GET", path, options));
}

const id = encodeURIComponent;

/** Whether a token is good; raises ApiError when the broker cannot say. */
export async function check(token) {
  try {
    await ask("GET", "me", { token });
    return true;
  } catch (error) {
    if (error.status === 401) return false;
    throw error;
  }
}

export const me = () => get("me");
export const overview = (options) => get("overview", options);
export const executions = (query, options = {}) => get("commands", { query, ...options });
export const execution = async (executionId) => parse(await ask("GET", `commands/${id(executionId)}`));
export const cancel = async (executionId) => parse(await ask("POST", `commands/${id(executionId)}/cancel`));
export const thing = (name, options) => get(`things/${id(name)}`, options);

export const thingType = (name, options) => get(`thing-types/${id(name)}`, options);
export const thingTypes = () => every("thing-types", "thingTypes");
export const putThingType = (name, text) => ask("PUT", `thing-types/${id(name)}`, { body: text });
export const removeThingType = (name) => ask("DELETE", `thing-types/${id(name)}`);
export const addThing = (thing) => post("things", thing);
export const changeThing = async (name, changes) => JSON.parse(await ask("PATCH", `things/${id(name)}`, { body: JSON.stringify(changes) }));
export const removeThing = (name) => ask("DELETE", `things/${id(name)}`);
export const newPassword = (name, options = {}) => post(`things/${id(name)}/password`, options);

/** The actions that things have in common; `query`: tag, type or thingId. */
export const actions = (query, options) => get("actions", { query, ...options });

/** How devices are enrolled: {mqttUrl?, bundleFault?, topicRoot, open}; null where the broker does not say. */
export const enrolment = () => get("enrolment").catch((error) => {
  if (error.status === 404) return null;
  throw error;
});

/** A page of MQTT clients: {clients, nextCursor}; `query`: text, thingId, connected, cursor. */
export const clients = (query) => get("mqtt/clients", { query: { limit: 200, ...query } });
export const client = (clientId) => get(`mqtt/clients/${id(clientId)}`);
/** End a client's connection, and with `session` its session. */
export const kick = (clientId, session) => ask("DELETE", `mqtt/clients/${id(clientId)}`, { query: { session: session ? "true" : null } });

export const tokens = () => every("tokens", "tokens");
export const addToken = (token) => post("tokens", token);
export const renewToken = (name) => post(`tokens/${id(name)}/renew`);
export const revokeToken = (name) => ask("DELETE", `tokens/${id(name)}`);

/** The broker's version, and whether it is ready: {version, ready, reason}. */
export async function health() {
  const [description, ready] = await Promise.all([
    get("../../openapi.json"),
    ask("GET", "../../readyz").then(() => null, (error) => error),
  ]);
  if (ready?.unreachable) throw ready;
  return { version: description.info.version, ready: !ready, reason: ready?.message ?? "" };
}

async function post(path, body) {
  return JSON.parse(await ask("POST", path, { body: body === undefined ? undefined : JSON.stringify(body) }));
}

async function every(path, key) {
  const all = [];
  let cursor = null;
  do {
    const page = await get(path, { query: { limit: 500, cursor } });
    all.push(...page[key]);
    cursor = page.nextCursor;
  } while (cursor);
  return all;
}

/** A command as the API takes it; `params` is JSON as text. */
export function commandBody(thingId, action, params, ttl) {
  const fields = [`"thingId":${JSON.stringify(thingId)}`, `"action":${JSON.stringify(action)}`, `"params":${params}`];
  if (ttl !== null) fields.push(`"ttl":${ttl}`);
  return `{${fields.join(",")}}`;
}

/** Send a command; `params` is JSON as text. */
export const send = async (...command) => parse(await ask("POST", "commands", { body: commandBody(...command) }));

/** Send a command to many things, or with `dryRun` ask who would get it and who would be refused. */
export async function sendToMany(targets, action, params, ttl, { rollout = {}, dryRun = false } = {}) {
  const fields = [`"targets":${JSON.stringify(targets)}`, `"action":${JSON.stringify(action)}`, `"params":${params}`];
  if (ttl !== null) fields.push(`"ttl":${ttl}`);
  if (Object.keys(rollout).length) fields.push(`"rollout":${JSON.stringify(rollout)}`);
  if (dryRun) return JSON.parse(await ask("POST", "commands", { body: `{${[...fields, '"dryRun":true'].join(",")}}` }));
  return once(`{${fields.join(",")}}`);
}

let unanswered = null;

/** Send a body; sent again after an answer that was lost, it is the same command. */
async function once(body) {
  if (unanswered?.body !== body) unanswered = { body, key: makeKey() };
  try {
    const group = JSON.parse(await ask("POST", "commands", unanswered));
    unanswered = null;
    return group;
  } catch (error) {
    if (error.status >= 400 && error.status < 500) unanswered = null;
    throw error;
  }
}

/** 128 random bits; crypto.randomUUID is not there without TLS. */
function makeKey() {
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** A page of the commands to many things, newest first: {groups, nextCursor}; `query`: state, cursor. */
export const groups = (query) => get("groups", { query });

/** A command to many things; the results in its outcomes keep their digits. */
export async function group(commandId) {
  const text = await ask("GET", `groups/${id(commandId)}`);
  return { ...JSON.parse(text), outcomes: parse(text).outcomes };
}

export const moveGroup = async (commandId, move) => JSON.parse(await ask("POST", `groups/${id(commandId)}/${move}`));

/** All things, page by page; `onPage` gets each as it comes. */
export async function things(onPage = () => {}, options = {}) {
  const all = [];
  let cursor = null;
  do {
    const page = await get("things", { query: { limit: 500, cursor }, ...options });
    all.push(...page.things);
    onPage(all);
    cursor = page.nextCursor;
  } while (cursor);
  return all;
}
