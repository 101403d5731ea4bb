// The message box: grows with its text, sends with Enter, keeps drafts, and turns into a stop button during an answer.
import { byId } from "./dom.js";
import { announce } from "./notices.js";
import { messagesFor, runOf, send, stop } from "./answers.js";
import { on, settingsOf, state } from "./state.js";
import { forget, read, write } from "./store.js";
import { editLast } from "./thread.js";

const DRAFT = "lightcompute.draft.";
const NEAR_LIMIT = 0.8; // of max_prompt_chars, from where the length is shown
const touch = matchMedia("(pointer: coarse)");

const draftKey = () => DRAFT + (state.conversation?.id ?? "new");

export function startComposer() {
  const box = byId("message");
  byId("composer").addEventListener("submit", (event) => {
    event.preventDefault();
    sendNow();
  });
  box.addEventListener("input", () => {
    if (box.value) write(draftKey(), box.value);
    else forget(draftKey());
    show();
  });
  box.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && !event.shiftKey && !event.isComposing && !touch.matches) {
      event.preventDefault();
      sendNow();
    } else if (event.key === "ArrowUp" && !box.value && editLast()) event.preventDefault();
  });
  byId("stop").addEventListener("click", stopNow);
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape" && !document.querySelector("dialog[open]") && !event.defaultPrevented) stopNow();
  });
  on("open", () => {
    box.value = read(draftKey(), "");
    show();
  });
  on("run server models settings", show);
  window.addEventListener("resize", fit);
}

/** Put a text into the box, for the user to change or send. */
export function fill(text) {
  const box = byId("message");
  box.value = text;
  box.dispatchEvent(new Event("input"));
  box.focus();
}

function sendNow() {
  const box = byId("message");
  const text = box.value.trim() ? box.value : "";
  if (!text || byId("send").disabled || runOf(state.conversation)) return;
  forget(draftKey());
  box.value = "";
  send(text);
  announce("Sent. The answer is being generated.");
  show();
}

function stopNow() {
  if (!runOf(state.conversation)) return;
  stop(state.conversation);
  byId("message").focus();
}

function show() {
  const box = byId("message");
  const limit = state.server?.max_prompt_chars ?? Infinity;
  const length = messagesFor(state.conversation?.exchanges ?? [], box.value, settingsOf(state.conversation)).reduce((sum, { content }) => sum + content.length, 0);
  const running = Boolean(runOf(state.conversation));
  const stopHadFocus = document.activeElement === byId("stop");
  byId("send").hidden = running;
  byId("send").disabled = !box.value.trim() || length > limit;
  byId("stop").hidden = !running;
  if (stopHadFocus && !running) box.focus();
  const note = byId("length-note");
  const full = `${length.toLocaleString("en")} of ${limit.toLocaleString("en")} characters in this conversation. `;
  note.textContent = length > limit * NEAR_LIMIT ? full : "";
  note.classList.toggle("too-long", length > limit);
  fit();
}

/** As high as its text, up to the limit in the style sheet. */
function fit() {
  const box = byId("message");
  box.style.height = "auto";
  box.style.height = `${box.scrollHeight}px`;
}
