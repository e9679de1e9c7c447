// Times and durations as text.

const time = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit", second: "2-digit" });
const day = new Intl.DateTimeFormat("en-GB", { day: "numeric", month: "short", hour: "2-digit", minute: "2-digit" });
const full = new Intl.DateTimeFormat("en-GB", {
  year: "numeric", month: "short", day: "numeric", hour: "2-digit", minute: "2-digit", second: "2-digit",
  fractionalSecondDigits: 3, timeZoneName: "short",
});

/** A moment, as short as it can be told apart: today's without the date. */
export function moment(ms, now = Date.now()) {
  if (!Number.isFinite(ms)) return "–";
  return new Date(ms).toDateString() === new Date(now).toDateString() ? time.format(ms) : day.format(ms);
}

const exact = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit", second: "2-digit", fractionalSecondDigits: 3 });

/** The time of day of a moment, to the millisecond. */
export function clock(ms) {
  return Number.isFinite(ms) ? exact.format(ms) : "–";
}

/** The minute of a moment. */
export function minute(ms) {
  return time.format(ms).slice(0, 5);
}

/** A moment in full, in the reader's own time zone. */
export function fullMoment(ms) {
  return Number.isFinite(ms) ? full.format(ms) : "–";
}

/** Seconds as text: 9 ms, 4.2 s, 3 min 12 s. */
export function duration(seconds) {
  if (!Number.isFinite(seconds)) return "–";
  const value = Math.max(0, seconds);
  if (value < 0.0095) return `${Number((value * 1000).toPrecision(2))} ms`;
  if (value < 0.9995) return `${Math.round(value * 1000)} ms`;
  if (value < 59.95) return `${value.toFixed(1)} s`;
  const whole = Math.round(value);
  if (whole < 3600) return `${Math.floor(whole / 60)} min ${whole % 60} s`;
  if (whole < 86400) return `${Math.floor(whole / 3600)} h ${Math.floor((whole % 3600) / 60)} min`;
  return `${Math.floor(whole / 86400)} d ${Math.floor((whole % 86400) / 3600)} h`;
}

/** Bytes as text: 412 B, 4 KiB, 1.24 MiB. */
export function size(bytes) {
  const power = Math.min(3, Math.floor(Math.log2(Math.max(1, bytes)) / 10));
  return power ? `${Number((bytes / 1024 ** power).toPrecision(3))} ${["KiB", "MiB", "GiB"][power - 1]}` : `${bytes} B`;
}

/** How long ago, as text. */
export function ago(ms, now) {
  const seconds = (now - ms) / 1000;
  if (!Number.isFinite(seconds)) return "–";
  if (seconds < 10) return "just now";
  if (seconds < 60) return `${Math.floor(seconds)} s ago`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min ago`;
  if (seconds < 86400) return `${Math.floor(seconds / 3600)} h ago`;
  return `${Math.floor(seconds / 86400)} d ago`;
}

/** The end of an id: its beginning is the time, and much alike in neighbours. */
export function shortId(id) {
  return id.length > 16 ? `…${id.slice(-12)}` : id;
}

/** A count with its noun. */
export function count(number, noun, nouns = `${noun}s`) {
  return `${number.toLocaleString("en")} ${number === 1 ? noun : nouns}`;
}
