// The names that there are to choose from: things and the actions they announced, read once in a while.

import * as api from "./api.js";

/** Rows of one exported list. */
export const EXPORTED_MAX = 10_000;

const FRESH = 60_000;
let names = [];
let actions = [];
let tags = new Map();
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
  tags = new Map(things.filter((thing) => thing.tags?.length).map((thing) => [thing.name, thing.tags]));
}

export const thingNames = () => names;
export const actionNames = () => actions;
export const tagNames = () => [...new Set([...tags.values()].flat())].sort();

/** Whether a thing has all of `wanted`, as far as is known. */
export const hasTags = (name, wanted) => wanted.every((tag) => tags.get(name)?.includes(tag));

export function forget() {
  names = [];
  actions = [];
  tags = new Map();
  readAt = 0;
}
