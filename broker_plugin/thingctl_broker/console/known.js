// The names that there are to choose from: things and the actions they announced, read once in a while.

import * as api from "./api.js";

const FRESH = 60_000;
let names = [];
let actions = [];
let readAt = 0;
let reading = null;

/** Read them if what is here is old; failures leave what is here. */
export function refresh() {
  if (reading || Date.now() - readAt < FRESH) return reading ?? Promise.resolve();
  reading = api.things(learn).then(
    () => (readAt = Date.now()),
    () => {},
  ).finally(() => (reading = null));
  return reading;
}

/** Take in what another page has just read. */
export function learn(things) {
  names = things.map((thing) => thing.name);
  actions = [...new Set(things.flatMap((thing) => thing.actions ?? []))].sort();
}

export const thingNames = () => names;
export const actionNames = () => actions;

export function forget() {
  names = [];
  actions = [];
  readAt = 0;
}
