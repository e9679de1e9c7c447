// The executions of one view, newest first: read page by page, and kept up to date by the stream.

import * as api from "./api.js";
import * as known from "./known.js";
import { brokerNow } from "./live.js";
import { listed } from "./widgets.js";

const PAGE = 200;
const LIVE_MAX = 5000; // rows kept at the top of the list while new ones come in

/** The filters of a view as the URL has them: thing, action, tag (a list), command, status (a list), since, from, to. */
export function readFilters(query) {
  return {
    thing: (query.thing ?? "").trim(),
    action: (query.action ?? "").trim(),
    tags: listed(query.tag ?? ""),
    command: (query.command ?? "").trim(),
    statuses: (query.status ?? "").split(",").filter(Boolean),
    since: query.since ?? "",
    from: query.from ?? "",
    to: query.to ?? "",
  };
}

const UNITS = { m: 60_000, h: 3_600_000, d: 86_400_000 };

/** The span of time that filters name: [from, to] in milliseconds, null where it is open. */
export function spanOf(filters, now) {
  const [, number, unit] = /^(\d{1,4})([mhd])$/.exec(filters.since) ?? [];
  if (number) return [now - number * UNITS[unit], null];
  const from = Date.parse(filters.from);
  const to = Date.parse(filters.to);
  return [Number.isNaN(from) ? null : from, Number.isNaN(to) ? null : to];
}

/** A cursor that continues before a moment: ids begin with their time, and a cursor is an id. */
export function cursorAt(ms) {
  const hex = Math.max(0, Math.floor(ms)).toString(16).padStart(12, "0").slice(-12);
  return `${hex.slice(0, 8)}-${hex.slice(8)}-7000-8000-000000000000`;
}

/** Of an execution what a row shows. */
function summary(execution) {
  const { executionId, commandId, thingId, action, status, delivery, progress, durationSeconds, statusReason } = execution;
  return { executionId, commandId, thingId, action, status, delivery, progress, durationSeconds, reasonCode: statusReason?.reasonCode, createdMs: Date.parse(execution.createdAt) };
}

export class Executions {
  /** `onChange(changed)`: ids that look different now, null for all. */
  constructor(filters, onChange) {
    this.filters = filters;
    this.span = spanOf(filters, brokerNow());
    this.onChange = onChange;
    this.items = [];
    this.byId = new Map();
    this.cursor = null;
    this.more = true;
    this.loading = false;
    this.loaded = false;
    this.error = null;
    this.abort = new AbortController();
    this.early = new Map();
  }

  destroy() {
    this.abort.abort();
  }

  get query() {
    return { thingId: this.filters.thing, action: this.filters.action, tag: this.filters.tags, commandId: this.filters.command, status: this.filters.statuses.join(",") };
  }

  get start() {
    return this.span[1] === null ? null : cursorAt(this.span[1] + 1);
  }

  /** Read the newest page anew, and as many behind it as it takes to come down to `downTo` (an id). */
  async load(downTo = null) {
    this.abort.abort();
    const abort = (this.abort = new AbortController());
    this.loading = true;
    this.error = null;
    this.early.clear();
    this.onChange(new Set());
    if (this.filters.tags.length) await known.refresh(); // the stream tells no tags: the things do
    const found = [];
    let cursor = this.start;
    let pages = 0;
    try {
      do {
        const page = await api.executions({ ...this.query, limit: PAGE, cursor }, { signal: abort.signal });
        found.push(...page.executions);
        cursor = page.nextCursor;
        pages += 1;
        if (!found.length && cursor && pages % 5 === 0) this.onChange(new Set());
      } while (this.#reaches(cursor) && (found.length < 50 || (downTo && pages < 15 && found.at(-1).executionId > downTo)));
    } catch (error) {
      if (abort.signal.aborted) return;
      this.loading = false;
      this.error = error;
      this.onChange(new Set());
      return;
    }
    const early = [...this.early.values()];
    this.items = [];
    this.byId.clear();
    this.#append(found);
    this.#end(cursor);
    this.loaded = true;
    this.loading = false;
    this.apply(early, { drop: true, quiet: true });
    this.onChange(null);
  }

  /** Read at most `most` executions of the view from the broker, newest first, as they stand now. */
  async all(most) {
    const found = [];
    let cursor = this.start;
    do {
      const page = await api.executions({ ...this.query, limit: 500, cursor }, { signal: this.abort.signal });
      found.push(...page.executions.filter((execution) => this.span[0] === null || Date.parse(execution.createdAt) >= this.span[0]));
      cursor = page.nextCursor;
    } while (this.#reaches(cursor) && found.length < most);
    return found.slice(0, most);
  }

  /** Read on below. */
  async loadMore() {
    if (!this.more || this.loading || !this.loaded) return;
    this.loading = true;
    this.error = null;
    this.onChange(new Set());
    const abort = this.abort;
    try {
      let length = this.items.length;
      do {
        const page = await api.executions({ ...this.query, limit: PAGE, cursor: this.cursor }, { signal: abort.signal });
        this.#append(page.executions);
        this.#end(page.nextCursor);
      } while (this.more && this.items.length === length);
    } catch (error) {
      if (abort.signal.aborted) return;
      this.error = error;
    }
    this.loading = false;
    this.onChange(new Set());
  }

  /** Take in executions as they stand now. `drop`: let go of those that the filters no longer admit. */
  apply(executions, { drop, keep = LIVE_MAX, quiet = false }) {
    if (this.loading && !quiet) for (const execution of executions) this.early.set(execution.executionId, execution);
    if (!this.loaded) return 0;
    const changed = new Set();
    const fresh = [];
    let gone = false;
    for (const execution of executions) {
      const item = summary(execution);
      const known = this.byId.get(item.executionId);
      const fits = this.#admits(item);
      if (known) {
        Object.assign(known, item, { left: !fits });
        changed.add(item.executionId);
        if (!fits && drop) {
          this.byId.delete(item.executionId);
          gone = true;
        }
      } else if (fits && (!this.more || !this.items.length || item.executionId > this.items.at(-1).executionId)) {
        this.byId.set(item.executionId, item);
        fresh.push(item);
      }
    }
    if (drop) this.items = this.items.filter((item) => (item.left ? (this.byId.delete(item.executionId), false) : true));
    if (fresh.length) this.items = merge(fresh.sort(newest), this.items);
    if (this.items.length > keep + PAGE) {
      for (const item of this.items.splice(keep)) this.byId.delete(item.executionId);
      this.cursor = this.items.at(-1).executionId;
      this.more = true;
    }
    if (!quiet && (changed.size || fresh.length || gone)) this.onChange(changed);
    return fresh.length;
  }

  #append(executions) {
    for (const execution of executions) {
      const item = summary(execution);
      if (this.byId.has(item.executionId)) continue;
      if (this.span[0] !== null && item.createdMs < this.span[0]) continue;
      this.byId.set(item.executionId, item);
      this.items.push(item);
    }
  }

  #reaches(cursor) {
    return cursor !== null && (this.span[0] === null || cursor > cursorAt(this.span[0]));
  }

  #end(cursor) {
    this.cursor = cursor;
    this.more = this.#reaches(cursor);
  }

  #admits(item) {
    const { thing, action, tags, command, statuses } = this.filters;
    const [from, to] = this.span;
    return (!thing || item.thingId === thing) && (!action || item.action === action) && (!command || item.commandId === command) && known.hasTags(item.thingId, tags) && (!statuses.length || statuses.includes(item.status)) && (from === null || item.createdMs >= from) && (to === null || item.createdMs <= to);
  }
}

function newest(a, b) {
  return a.executionId < b.executionId ? 1 : -1;
}

function merge(fresh, items) {
  const merged = [];
  let i = 0;
  for (const item of items) {
    while (i < fresh.length && fresh[i].executionId > item.executionId) merged.push(fresh[i++]);
    merged.push(item);
  }
  while (i < fresh.length) merged.push(fresh[i++]);
  return merged;
}
