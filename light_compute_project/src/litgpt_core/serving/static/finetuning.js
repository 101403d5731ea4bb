// The number of logged conversations, and the command that fine-tunes a model on them.
import { get } from "./api.js";
import { byId, copyButton, el } from "./dom.js";
import { emit, on, state } from "./state.js";

const NEEDED = 10; // conversations; the server reports when they are reached; this only draws the progress

export async function loadStats() {
  state.stats = await get("/stats");
  emit("stats");
}

export function startFinetuning() {
  on("stats server models", show);
}

function show() {
  const box = byId("finetuning");
  const open = box.querySelector("details")?.open ?? false;
  box.hidden = !state.stats;
  if (!state.stats) return;
  const { chat_count: count, ready_for_finetuning: ready } = state.stats;
  if (state.server?.logging === false && !ready) {
    box.replaceChildren(el("p", { class: "tuning-text" }, "The server keeps no log of conversations."));
    return;
  }
  const conversations = count === 1 ? "1 conversation" : `${count} conversations`;
  if (!ready) {
    box.replaceChildren(
      el("p", { class: "tuning-text" }, `${conversations} logged; fine-tuning needs ${NEEDED}.`),
      el("progress", { max: NEEDED, value: Math.min(count, NEEDED), "aria-label": "Conversations for fine-tuning" }),
    );
    return;
  }
  const command = `uv run python light_compute_project/scripts/train.py +experiment=finetune_chat init_from=${state.modelId ?? "..."}`;
  box.replaceChildren(
    el(
      "details",
      { open },
      el("summary", {}, el("span", { class: "tuning-text" }, `${conversations}: `, el("strong", {}, "ready to fine-tune"))),
      el("p", { class: "tuning-help" }, "Stop the server or leave it on, and type this in the project's folder:"),
      el("div", { class: "command" }, el("code", { tabindex: "0" }, command), copyButton(() => command, "Copy command")),
    ),
  );
}
