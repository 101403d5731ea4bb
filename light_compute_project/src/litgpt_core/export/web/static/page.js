// The page: a text that the model continues, or a conversation.

"use strict";

/** @param {string} id @returns {any} */
const byId = (id) => document.getElementById(id);

/** Lets the browser draw and take clicks. */
const breathe = () => new Promise((done) => {
  const channel = new MessageChannel();
  channel.port1.onmessage = () => done(undefined);
  channel.port2.postMessage(0);
});

/** The base 64 of every element with weights, which is removed so that the text does not stay in memory. */
function* weightChunks() {
  for (const element of document.querySelectorAll("script.weights")) {
    yield element.textContent ?? "";
    element.remove();
  }
}

class Page {
  /** @param {any} content of the page: name, config, header, vocabulary, chat */
  constructor(content) {
    this.chat = content.chat;
    this.vocabulary = new Vocabulary(content.vocabulary);
    this.model = new Model(content.config, new Weights(content, weightChunks()));
    this.session = new Session(this.model, []);
    this.stopping = false;
    this.turns = 0;
    document.body.classList.add(this.chat ? "chatting" : "continuing");
    byId("send").textContent = this.chat ? "Send" : "Continue";
    byId("text").placeholder = this.chat ? "Write a message" : "Write the beginning of a text";
    byId("form").onsubmit = (/** @type {Event} */ event) => (event.preventDefault(), this.run());
    byId("stop").onclick = () => (this.stopping = true);
    byId("new").onclick = () => this.restart();
    byId("text").onkeydown = (/** @type {KeyboardEvent} */ event) => {
      const send = event.key === "Enter" && !event.shiftKey && !event.isComposing;
      if (send && (this.chat || event.ctrlKey || event.metaKey)) (event.preventDefault(), this.run());
    };
    this.idle(this.model.weights.simd ? "Ready." : "Ready. This browser has no WebAssembly SIMD: slower, with the same result.");
  }

  /** @param {string} status */
  idle(status) {
    byId("status").textContent = status;
    byId("send").disabled = byId("new").disabled = false;
    byId("stop").disabled = true;
    document.body.dataset.state = "idle";
  }

  restart() {
    this.session = new Session(this.model, []);
    this.turns = 0;
    byId("thread").replaceChildren();
    byId("text").value = "";
    byId("text").focus();
    this.idle("Ready.");
  }

  /** Settings as they stand in the form. */
  settings() {
    const number = (/** @type {string} */ id, /** @type {number} */ low, /** @type {number} */ high, /** @type {number} */ other) => {
      const value = byId(id).value.trim() === "" ? NaN : Number(byId(id).value);
      return Number.isFinite(value) ? Math.min(Math.max(value, low), high) : other;
    };
    return {
      temperature: number("temperature", 0, 100, 0.8),
      topK: Math.round(number("top_k", 0, 1e9, 50)),
      seed: Math.round(number("seed", 0, 2 ** 32 - 1, Math.floor(Math.random() * 2 ** 32))),
      most: Math.round(number("most", 1, 1e6, 200)),
      stops: new Set(this.chat ? this.chat.stopIds : [this.vocabulary.definition.eos]),
    };
  }

  /** Answer or continue. */
  async run() {
    if (document.body.dataset.state !== "idle") return;
    const text = byId("text").value;
    if (this.chat && !text.trim()) return;
    document.body.dataset.state = "busy";
    this.stopping = false;
    byId("send").disabled = byId("new").disabled = true;
    byId("stop").disabled = false;
    byId("status").textContent = "Reading ...";
    await breathe();
    try {
      await this.write(text);
    } catch (problem) {
      this.idle(problem instanceof Error ? problem.message : String(problem));
    }
  }

  /** @param {string} text that the user has typed */
  async write(text) {
    const show = this.chat ? this.begin(text) : this.beginText(text);
    const how = this.settings(), answer = new Answer(this.vocabulary, this.chat ? this.chat.stopStrings : []);
    let made = 0, from = performance.now(), drawn = from;
    for (const id of this.session.generate(how)) {
      if (!made++) from = performance.now();
      answer.add(id);
      if (performance.now() - drawn > 15) {
        show(answer.certain());
        await breathe();
        drawn = performance.now();
      }
      if (answer.ended || this.stopping) break;
    }
    show(answer.finish());
    const rate = made > 1 ? `, ${Math.round(((made - 1) * 1000) / (performance.now() - from))} a second` : "";
    this.idle(`${made} token${made === 1 ? "" : "s"}${rate}; seed ${how.seed}.`);
  }

  /** A turn of the conversation. @param {string} said @returns {(text: string) => void} shows the answer */
  begin(said) {
    const parts = this.turns ? this.chat.next : this.chat.first;
    const ids = turnIds(this.vocabulary, parts, said);
    this.session.ids.push(...(this.turns ? ids : withStart(this.vocabulary, ids)));
    this.turns++;
    byId("text").value = "";
    this.message("user", said);
    const shown = this.message("assistant", "");
    return (text) => {
      shown.textContent = text;
      byId("thread").scrollTop = byId("thread").scrollHeight;
    };
  }

  /** @param {"user" | "assistant"} role @param {string} text */
  message(role, text) {
    const element = document.createElement("div");
    element.className = role;
    element.textContent = text;
    byId("thread").append(element);
    byId("thread").scrollTop = byId("thread").scrollHeight;
    return element;
  }

  /** A text to be continued. @param {string} text @returns {(more: string) => void} shows the text with more of it */
  beginText(text) {
    this.session = new Session(this.model, withStart(this.vocabulary, this.vocabulary.encode(text)));
    const area = byId("text");
    return (more) => {
      area.value = text + more;
      area.scrollTop = area.scrollHeight;
    };
  }
}

setTimeout(() => {
  try {
    new Page(JSON.parse(byId("model").textContent));
  } catch (problem) {
    document.body.dataset.state = "broken";
    byId("status").textContent = problem instanceof Error ? problem.message : String(problem);
  }
}, 0);
