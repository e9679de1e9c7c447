// Whose token this is, and what it may do. What it may not do is not offered; the broker decides anyway.

import * as api from "./api.js";

let me = null;

/** Ask the broker; while it cannot say, everything is offered. */
export async function read() {
  try {
    me = await api.me();
  } catch (error) {
    if (error.status === 401) throw error;
    me = null;
  }
}

export function forget() {
  me = null;
}

export const name = () => me?.name ?? "";

/** Whether the token has a scope. */
export function may(scope) {
  return !me || me.scopes.includes("admin") || me.scopes.includes(scope);
}

/** Whether the token has a scope, and for this action on this thing. */
export function mayOn(scope, thing, action) {
  return may(scope) && fits(me?.things, thing) && fits(me?.actions, action);
}

/** Whether the token may send an action to some things. */
export const mayAct = (action) => may("commands:send") && fits(me?.actions, action);

/** Whether the token may change this thing. */
export const mayChange = (thing) => may("things:write") && fits(me?.things, thing);

export const scopes = () => me?.scopes ?? [];
export const limits = () => ({ things: me?.things ?? [], actions: me?.actions ?? [] });

/** Whether the token is for some things or actions only. */
export const isLimited = () => Boolean(me?.things?.length || me?.actions?.length);

/** Whether one of the patterns, in which * stands for any characters, fits a name. */
function fits(patterns, text) {
  return !patterns?.length || patterns.some((pattern) => {
    const [first, ...parts] = pattern.split("*");
    if (!parts.length) return text === pattern;
    if (!text.startsWith(first)) return false;
    const last = parts.pop();
    let at = first.length;
    for (const part of parts) {
      const found = text.indexOf(part, at);
      if (found < 0) return false;
      at = found + part.length;
    }
    return text.length - at >= last.length && text.endsWith(last);
  });
}
