// The broker's table of statuses. It puts the rows in when it serves this file.

export const ROWS = []; /* {{statuses}} */

export const STATUSES = ROWS.map(({ status }) => status);
export const TERMINAL = new Set(ROWS.filter(({ isTerminal }) => isTerminal).map(({ status }) => status));

/** The furthest first: ends, then what is under way. */
export const FURTHEST_FIRST = [...STATUSES.filter((status) => TERMINAL.has(status)), ...STATUSES.filter((status) => !TERMINAL.has(status)).reverse()];

/** Ends that need a look. */
export const TROUBLE = ROWS.filter(({ isFailure }) => isFailure).map(({ status }) => status);

/** Ends, from good to bad. */
export const ENDS = ROWS.filter(({ severity }) => severity).sort((a, b) => a.severity - b.severity).map(({ status }) => status);

const byStatus = new Map(ROWS.map((row) => [row.status, row]));

/** A status as people read it. */
export function statusWord(status) {
  return byStatus.get(status)?.word ?? String(status);
}

/** The sign of a status: the path of an SVG of 16 by 16. */
export function statusMark(status) {
  return byStatus.get(status)?.mark ?? "";
}
