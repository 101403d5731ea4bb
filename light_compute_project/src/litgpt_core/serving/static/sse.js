// Parses server-sent events from a fetch body: the joined `data:` lines between two blank lines.

/** Splits text that arrives in arbitrary chunks into events; `push` returns the `data` of the complete ones. */
export class EventSplitter {
  #rest = "";
  #data = [];

  push(text) {
    this.#rest += text;
    const events = [];
    for (;;) {
      const match = /\r\n|\n|\r(?!$)/.exec(this.#rest); // a \r at the end may be half of \r\n
      if (!match) return events;
      const line = this.#rest.slice(0, match.index);
      this.#rest = this.#rest.slice(match.index + match[0].length);
      if (line === "") {
        if (this.#data.length) events.push(this.#data.join("\n"));
        this.#data = [];
      } else if (line.startsWith("data:")) {
        this.#data.push(line.slice(line[5] === " " ? 6 : 5));
      } // comments (": keep-alive") and other fields are ignored
    }
  }
}

/** Yields the data of each event of a ReadableStream of bytes. Closing the iterator cancels the stream. */
export async function* eventsOf(stream) {
  const reader = stream.getReader();
  const decoder = new TextDecoder();
  const splitter = new EventSplitter();
  try {
    for (;;) {
      const { done, value } = await reader.read();
      yield* splitter.push(done ? decoder.decode() + "\n\n" : decoder.decode(value, { stream: true }));
      if (done) return;
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}
