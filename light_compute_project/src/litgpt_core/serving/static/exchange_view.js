// One exchange on the page: what the user wrote, the answer, and the buttons below each.
import { post } from "./api.js";
import { copyButton, el, icon, iconButton } from "./dom.js";
import { renderMarkup } from "./markup.js";
import { announce, toast } from "./notices.js";
import { resend, runOf } from "./runs.js";
import { saveConversation } from "./store.js";

const LENGTH_LIMIT = "Ended at a length limit: “Longest answer” in the settings, or the end of the context window.";

export class ExchangeView {
  #conversation;
  #exchange;
  #last;
  #user = el("div", { class: "user" });
  #body = el("div", { class: "answer-body" });
  #notes = el("div", { class: "answer-notes" });
  #actions = el("div", { class: "answer-actions" });
  #timer = null;

  /** `last`: only the last exchange can be edited or regenerated. */
  constructor(conversation, exchange, { last }) {
    this.#conversation = conversation;
    this.#exchange = exchange;
    this.#last = last;
    const label = el("span", { class: "visually-hidden" }, "Answer:");
    const answer = el("div", { class: "answer" }, label, this.#body, this.#notes, this.#actions);
    this.node = el("article", { class: "exchange" }, this.#user, answer);
    this.#showUser();
    this.update();
  }

  get exchange() {
    return this.#exchange;
  }

  /** Everything below the user's message, from what the exchange holds now. */
  update() {
    clearInterval(this.#timer);
    this.grow();
    this.#showNotes();
    this.#showActions();
    this.#showUser();
  }

  /** Only the answer's text: called many times a second while it is written. */
  grow() {
    const { answer } = this.#exchange;
    const run = this.#run();
    this.#body.classList.toggle("writing", run?.phase === "write");
    this.#body.classList.toggle("plain", Boolean(answer?.base));
    if (run && run.phase !== "write") {
      this.#body.replaceChildren(waiting(run.phase, answer.model));
      this.#body.dataset.waiting = "";
      return;
    }
    if ("waiting" in this.#body.dataset) {
      this.#body.replaceChildren();
      delete this.#body.dataset.waiting;
    }
    if (!answer) this.#body.replaceChildren();
    else if (answer.base) this.#body.textContent = answer.text;
    else renderMarkup(this.#body, answer.text);
  }

  #run() {
    const run = runOf(this.#conversation);
    return run?.exchange === this.#exchange ? run : null;
  }

  #showUser() {
    if (this.#user.querySelector("form")) return; // being edited
    const text = this.#exchange.user;
    const actions = el("div", { class: "user-actions" }, copyButton(() => text, "Copy message"));
    if (this.#last && !runOf(this.#conversation)) actions.append(iconButton("pencil", "Edit message", () => this.edit()));
    const bubble = el("div", { class: "bubble" }, el("span", { class: "visually-hidden" }, "You: "), text);
    this.#user.replaceChildren(bubble, actions);
  }

  /** The message in a text box; sending it asks again. */
  edit() {
    const area = el("textarea", { "aria-label": "Edit your message", rows: "3" });
    area.value = this.#exchange.user;
    const close = () => {
      this.#user.replaceChildren();
      this.#showUser();
      this.#user.querySelector('[aria-label="Edit message"]')?.focus();
    };
    const form = el(
      "form",
      { class: "edit" },
      area,
      el(
        "div",
        { class: "edit-buttons" },
        el("button", { type: "button", class: "plain-button", onclick: close }, "Cancel"),
        el("button", { type: "submit", class: "main-button" }, "Send again"),
      ),
    );
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      if (!area.value.trim()) return;
      this.#user.replaceChildren();
      resend(area.value);
    });
    area.addEventListener("keydown", (event) => {
      if (event.key === "Escape") {
        event.stopPropagation();
        close();
      } else if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
        event.preventDefault();
        form.requestSubmit();
      }
    });
    this.#user.replaceChildren(form);
    area.focus();
  }

  #showNotes() {
    this.#notes.replaceChildren();
    const { answer } = this.#exchange;
    if (this.#run()) return;
    if (!answer) this.#notes.append(el("p", {}, "Not answered."));
    else if (noteOn(answer)) this.#notes.append(el("p", {}, noteOn(answer)));
    if (answer?.error) this.#notes.append(this.#errorCard(answer));
  }

  #errorCard(answer) {
    const again = el("button", { type: "button", class: "main-button", onclick: () => resend() }, "Try again");
    const text = el("p", {}, answer.error);
    const card = el("div", { class: "error-card" }, icon("alert"), text, this.#last && again);
    if (answer.kind === "gone") text.append(" Is scripts/serve.py still running?");
    if (answer.kind === "request") text.append(this.#last ? " You can edit the message or change the settings." : "");
    if (answer.kind === "busy") {
      const wait = el("span", {});
      const show = () => {
        const left = Math.ceil((answer.retryAt - Date.now()) / 1000);
        again.disabled = left > 0;
        wait.textContent = left > 0 ? ` Please wait ${left} s.` : " You can try again now.";
        if (left <= 0) clearInterval(this.#timer);
      };
      text.append(wait);
      this.#timer = setInterval(show, 500);
      show();
    }
    return card;
  }

  #showActions() {
    this.#actions.replaceChildren();
    const { answer } = this.#exchange;
    if (this.#run() || !answer?.text) {
      if (!this.#run() && this.#last && !answer?.error) this.#actions.append(againButton("Answer"));
      return;
    }
    this.#actions.append(copyButton(() => answer.text, "Copy answer"));
    if (this.#last && !runOf(this.#conversation)) this.#actions.append(againButton("Regenerate"));
    if (answer.id) this.#actions.append(this.#rateButton("good", "Good answer", 1), this.#rateButton("bad", "Bad answer", -1));
    if (answer.model) this.#actions.append(el("span", { class: "made-by", title: "The model that wrote this" }, answer.model));
  }

  #rateButton(name, label, rating) {
    const { answer } = this.#exchange;
    return iconButton(name, label, () => this.#rate(answer.rating === rating ? 0 : rating), {
      "aria-pressed": String(answer.rating === rating),
      class: `icon-button rate-${name}`,
    });
  }

  async #rate(rating) {
    const { answer } = this.#exchange;
    const before = answer.rating;
    const show = (value) => {
      answer.rating = value;
      const pressed = this.#actions.contains(document.activeElement) && document.activeElement;
      const focused = pressed ? pressed.getAttribute("aria-label") : null;
      this.#showActions();
      if (focused) this.#actions.querySelector(`[aria-label="${focused}"]`)?.focus();
    };
    show(rating);
    try {
      await post("/v1/ratings", { id: answer.id, rating });
      saveConversation(this.#conversation);
      announce(rating === 1 ? "Rated good." : rating === -1 ? "Rated bad." : "Rating removed.");
    } catch (problem) {
      show(before);
      toast(`The rating was not saved: ${problem.message}`);
    }
  }
}

/** A note on how an answer ended, if necessary. */
function noteOn({ end, text }) {
  if (end === "stopped") return text ? "Stopped." : "Stopped before the first token.";
  if (end === "length") return LENGTH_LIMIT;
  if (end === null) return "Not finished: the page was closed during the answer.";
  return end === "stop" && !text ? "The model ended its answer without any text." : null;
}

const againButton = (label) => iconButton("again", label, () => resend());

function waiting(phase, model) {
  const dots = el("span", { class: "dots", "aria-hidden": "true" }, el("i"), el("i"), el("i"));
  const words = phase === "load" ? `Loading ${model}. A large model takes a while the first time.` : "Processing the prompt…";
  return el("p", { class: "waiting" }, dots, el("span", { class: phase === "load" ? "" : "visually-hidden" }, words));
}
