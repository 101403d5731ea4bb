// One exchange on the page: what the user wrote, the answer, and the buttons below each.
import { post } from "./api.js";
import { decorate } from "./decorate.js";
import { attentionPane } from "./attention.js";
import { copyButton, el, icon, iconButton } from "./dom.js";
import { renderMarkup } from "./markup.js";
import { announce, toast } from "./notices.js";
import { attentionRequest, continueAnswer, resend, runOf, showVariant } from "./answers.js";
import { modelNamed } from "./state.js";
import { saveConversation } from "./store.js";

const whole = new Intl.NumberFormat("en");

export class ExchangeView {
  #conversation;
  #exchange;
  #last;
  #user = el("div", { class: "user" });
  #body = el("div", { class: "answer-body" });
  #notes = el("div", { class: "answer-notes" });
  #actions = el("div", { class: "answer-actions" });
  #pane = null;
  #timer = null;

  /** `last`: only the last exchange can be regenerated. */
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
    this.#pane?.remove();
    this.#pane = null;
    this.grow();
    if (!this.#run() && !this.#exchange.answer?.base) decorate(this.#body);
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
    if (!runOf(this.#conversation)) actions.append(iconButton("pencil", "Edit message", () => this.edit()));
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
        !this.#last && el("span", { class: "edit-note" }, "What follows will be removed."),
        el("button", { type: "submit", class: "main-button" }, "Send again"),
      ),
    );
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      if (!area.value.trim()) return;
      this.#user.replaceChildren();
      resend(area.value, this.#exchange);
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

  /** The answer in a text box; later requests contain what is kept. */
  editAnswer() {
    const { answer } = this.#exchange;
    const area = el("textarea", { "aria-label": "Edit the answer", rows: "8" });
    area.value = answer.text;
    const close = () => {
      this.update();
      this.#actions.querySelector('[aria-label="Edit answer"]')?.focus();
    };
    const form = el(
      "form",
      { class: "edit" },
      area,
      el(
        "div",
        { class: "edit-buttons" },
        el("button", { type: "button", class: "plain-button", onclick: close }, "Cancel"),
        el("button", { type: "submit", class: "main-button" }, "Keep"),
      ),
    );
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      if (!area.value.trim() || runOf(this.#conversation)) return;
      if (area.value !== answer.text) {
        Object.assign(answer, { text: area.value, edited: true, id: null, rating: 0 }); // the log has the model's own words
        saveConversation(this.#conversation);
      }
      close();
    });
    area.addEventListener("keydown", (event) => {
      if (event.key !== "Escape") return;
      event.stopPropagation();
      close();
    });
    this.#actions.replaceChildren();
    this.#body.replaceChildren(form);
    area.focus();
  }

  #showNotes() {
    this.#notes.replaceChildren();
    const { answer } = this.#exchange;
    if (this.#run()) return;
    if (!answer) this.#notes.append(el("p", {}, "Not answered."));
    else if (noteOn(answer)) this.#notes.append(el("p", {}, noteOn(answer)));
    if (answer?.end === "length" && answer.text && this.#last) {
      this.#notes.append(el("button", { type: "button", class: "plain-button", onclick: () => continueAnswer() }, "Continue"));
    }
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
    if (!runOf(this.#conversation)) this.#actions.append(iconButton("pencil", "Edit answer", () => this.editAnswer()));
    if (this.#last && !runOf(this.#conversation)) this.#actions.append(againButton("Regenerate"));
    if (this.#last) this.#actions.append(...this.#variantButtons());
    if (answer.id) this.#actions.append(this.#rateButton("good", "Good answer", 1), this.#rateButton("bad", "Bad answer", -1));
    this.#actions.append(this.#attentionButton());
    if (answer.model) {
      const by = answer.edited ? `${answer.model}, edited` : answer.model;
      this.#actions.append(el("span", { class: "made-by", title: "The model that wrote this" }, by));
    }
    if (answer.usage) this.#actions.append(el("span", { class: "made-by numbers" }, numbersOf(answer)));
  }

  /** Opens and closes the pane below the answer. */
  #attentionButton() {
    const toggle = () => {
      if (this.#pane) {
        this.#pane.remove();
        this.#pane = null;
      } else {
        this.#pane = attentionPane(attentionRequest(this.#conversation, this.#exchange));
        this.#actions.after(this.#pane);
      }
      button.setAttribute("aria-expanded", String(Boolean(this.#pane)));
    };
    const button = iconButton("eye", "What did it look at?", toggle, { "aria-expanded": String(Boolean(this.#pane)) });
    return button;
  }

  /** One button that goes through the answers to this message, oldest first. */
  #variantButtons() {
    const earlier = this.#exchange.variants ?? [];
    if (!earlier.length || runOf(this.#conversation)) return [];
    const label = `Show another of ${earlier.length + 1} answers`;
    const show = () => {
      showVariant(this.#exchange, 0);
      this.update();
      this.#actions.querySelector(".variant")?.focus();
      announce(`Answer: ${this.#exchange.answer.text}`);
    };
    return [el("button", { type: "button", class: "variant", "aria-label": label, title: label, onclick: show }, `${earlier.length + 1} answers`)];
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
function noteOn(answer) {
  const { end, text } = answer;
  if (end === "stopped") return text ? "Stopped." : "Stopped before the first token.";
  if (end === "length") return limitOf(answer);
  if (end === null) return "Not finished: the page was closed during the answer.";
  return end === "stop" && !text ? "The model ended its answer without any text." : null;
}

/** Which limit ended an answer. */
function limitOf({ usage, model }) {
  const context = modelNamed(model)?.context_length;
  if (!usage) return "Ended at a length limit: “Longest answer” in the settings, or the end of the context window.";
  if (context && usage.total_tokens >= context) return `Ended at the end of the context window of ${whole.format(context)} tokens.`;
  return `Ended at “Longest answer” in the settings, after ${whole.format(usage.completion_tokens)} tokens.`;
}

/** Tokens, tokens per second, and how much of the context window is used. */
function numbersOf({ usage, model }) {
  const { prompt_tokens: prompt, completion_tokens: written, turns_left_out: left, seconds } = usage;
  const context = modelNamed(model)?.context_length;
  const parts = [written === 1 ? "1 token" : `${whole.format(written)} tokens`];
  if (written > 1 && seconds > 0) parts.push(`${whole.format(Math.round((written - 1) / seconds))} per second`);
  parts.push(`context ${whole.format(prompt + written)}${context ? ` of ${whole.format(context)}` : ""}`);
  if (left) parts.push(left === 1 ? "the oldest turn left out" : `the ${left} oldest turns left out`);
  return parts.join(" · ");
}

const againButton = (label) => iconButton("again", label, () => resend());

function waiting(phase, model) {
  const dots = el("span", { class: "dots", "aria-hidden": "true" }, el("i"), el("i"), el("i"));
  const words = phase === "load" ? `Loading ${model}. A large model takes a while the first time.` : "Processing the prompt…";
  return el("p", { class: "waiting" }, dots, el("span", { class: phase === "load" ? "" : "visually-hidden" }, words));
}
