// Server-Sent Events, from text that arrives in any pieces (HTML Living Standard, 9.2.6).

export class SseParser {
  constructor() {
    this.lastId = null;
    this.rest = "";
    this.event = "";
    this.data = [];
  }

  /** Take in a piece; return the events that are whole now: {event, data}. */
  push(text) {
    const found = [];
    const lines = (this.rest + text).split("\n");
    this.rest = lines.pop();
    for (const whole of lines) {
      const line = whole.endsWith("\r") ? whole.slice(0, -1) : whole;
      if (line === "") {
        if (this.data.length) found.push({ event: this.event || "message", data: this.data.join("\n") });
        this.event = "";
        this.data = [];
        continue;
      }
      const colon = line.indexOf(":");
      const name = colon < 0 ? line : line.slice(0, colon);
      const value = colon < 0 ? "" : line.slice(line[colon + 1] === " " ? colon + 2 : colon + 1);
      if (name === "event") this.event = value;
      else if (name === "data") this.data.push(value);
      else if (name === "id") this.lastId = value;
    }
    return found;
  }
}
