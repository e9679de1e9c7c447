// The one event stream of this tab. A part of a page that shows executions is a watcher; the stream asks
// for what all watchers need together, reconnects by itself, and closes in a hidden tab.

import { BASE } from "./api.js";
import * as connection from "./connection.js";
import { SseParser } from "./sse.js";
import * as session from "./session.js";

const SILENCE = 40_000; // heartbeats come every 15 s
const HIDDEN = 30_000;
const LONGEST_WAIT = 15_000;

const watchers = new Set();
let running = null;
let lastId = null;
let failures = 0;
let timer = 0;
let offset = 0;

/** The broker's time now, in milliseconds. */
export function brokerNow() {
  return Date.now() + offset;
}

/**
 * Watch executions that `filter` ({thingId?, action?, commandId?}) admits.
 * `onSync`: read what there is; it is called at the start and whenever changes may have been missed.
 * `onExecutions`: gets [execution, …], each as it stands now, the latest state once.
 */
export function watch(filter, { onSync, onExecutions }) {
  const watcher = { filter, onSync, onExecutions, pending: new Map(), scheduled: false, synced: false };
  watchers.add(watcher);
  if (running && running.ready && covers(running.filter, filter)) sync(watcher);
  else if (!running || !covers(running.filter, filter)) restart();
  return () => {
    watchers.delete(watcher);
    if (watchers.size) return;
    stop();
    if (connection.current().name === "live") connection.tell("online");
  };
}

/** Try again now. */
export function retry() {
  failures = 0;
  if (!running?.ready) restart(lastId);
}

/** End everything, when signing out. */
export function stop() {
  clearTimeout(timer);
  running?.abort.abort();
  running = null;
  lastId = null;
}

function covers(wide, narrow) {
  return Object.entries(wide).every(([name, value]) => narrow[name] === value);
}

function together() {
  const [first, ...others] = [...watchers].map((watcher) => watcher.filter);
  return Object.fromEntries(Object.entries(first).filter(([name, value]) => value && others.every((o) => o[name] === value)));
}

function restart(from = null) {
  clearTimeout(timer);
  running?.abort.abort();
  running = null;
  lastId = from;
  if (!watchers.size || !session.token()) return;
  const stream = { filter: together(), abort: new AbortController(), ready: false };
  running = stream;
  read(stream).then(
    () => again(stream, 0),
    (error) => again(stream, error.wait ?? null),
  );
}

function again(stream, wait) {
  if (running !== stream) return;
  const wasReady = stream.ready;
  running = null;
  if (wasReady) failures = 0;
  failures += 1;
  // Without a stream there is still a list, or what keeps it from being read.
  for (const watcher of [...watchers]) if (!watcher.synced) sync(watcher);
  const next = wait ?? (wasReady ? 300 : Math.min(LONGEST_WAIT, 500 * 2 ** failures) * (0.8 + 0.4 * Math.random()));
  if (wait === null) connection.tell("offline", Date.now() + next);
  else if (!wasReady) connection.tell("online");
  timer = setTimeout(() => restart(lastId), next);
}

async function read(stream) {
  const url = new URL("events", BASE);
  for (const [name, value] of Object.entries(stream.filter)) url.searchParams.set(name, value);
  const headers = { Authorization: `Bearer ${session.token()}` };
  if (lastId) headers["Last-Event-ID"] = lastId;
  let heard = Date.now();
  const watchdog = setInterval(() => Date.now() - heard > SILENCE && stream.abort.abort(), 5000);
  try {
    const response = await fetch(url, { headers, signal: stream.abort.signal, cache: "no-store", credentials: "omit" });
    if (response.status === 401) {
      session.end("The token is no longer valid.");
      return;
    }
    if (!response.ok) throw Object.assign(new Error(`status ${response.status}`), { wait: LONGEST_WAIT });
    const parser = new SseParser();
    const decoder = new TextDecoder();
    const reader = response.body.getReader();
    for (;;) {
      const { value, done } = await reader.read();
      if (done || running !== stream) return;
      heard = Date.now();
      for (const { event, data } of parser.push(decoder.decode(value, { stream: true }))) handle(stream, event, data);
      lastId = parser.lastId ?? lastId;
    }
  } finally {
    clearInterval(watchdog);
  }
}

function handle(stream, event, data) {
  const content = JSON.parse(data);
  if (event === "execution") {
    for (const watcher of watchers) if (admits(watcher.filter, content)) hand(watcher, content);
    return;
  }
  const resumed = event === "ready" && lastId !== null && !stream.ready;
  offset = Date.parse(content.at) - Date.now();
  stream.ready = true;
  connection.tell("live");
  for (const watcher of [...watchers]) if (!resumed || !watcher.synced) sync(watcher);
}

function sync(watcher) {
  watcher.synced = true;
  watcher.onSync();
}

function admits(filter, execution) {
  return Object.entries(filter).every(([name, value]) => !value || (name === "status" ? value.split(",").includes(execution.status) : execution[name] === value));
}

// Changes come in bursts: collect them, and draw the page once per burst.
function hand(watcher, execution) {
  watcher.pending.set(execution.executionId, execution);
  if (watcher.scheduled) return;
  watcher.scheduled = true;
  setTimeout(() => {
    watcher.scheduled = false;
    const executions = [...watcher.pending.values()];
    watcher.pending.clear();
    if (watchers.has(watcher)) watcher.onExecutions(executions);
  }, 16);
}

let hiddenTimer = 0;
document.addEventListener("visibilitychange", () => {
  clearTimeout(hiddenTimer);
  if (document.hidden) {
    // A browser opens at most six connections to a broker: hidden tabs close theirs.
    hiddenTimer = setTimeout(() => {
      clearTimeout(timer);
      const stream = running;
      running = null;
      stream?.abort.abort();
    }, HIDDEN);
  } else if (!running && watchers.size) {
    restart(lastId);
  }
});
addEventListener("online", retry);
