// Answers in the making: at most one per conversation, also of conversations that are not open.
import { ApiError, chat } from "./api.js";
import { chosenModel, emit, modelNamed, state } from "./state.js";
import { deleteConversation, newConversation, saveConversation } from "./store.js";

const runs = new Map(); // conversation id -> {conversation, exchange, before, controller, phase: "load"|"think"|"write"}
const SAVE_EVERY = 1000; // ms
let leaving = false;

export const runOf = (conversation) => runs.get(conversation?.id) ?? null;
export const lastExchange = (conversation) => conversation?.exchanges.at(-1) ?? null;

/** A new message in the open conversation, which is begun by its first message. */
export function send(text) {
  const conversation = (state.conversation ??= newConversation(state.modelId));
  if (runOf(conversation)) return;
  const exchange = { user: text, answer: null };
  conversation.exchanges.push(exchange);
  answer(conversation, exchange);
}

/** The last message again, with another text or the same one. */
export function resend(text = null) {
  const exchange = lastExchange(state.conversation);
  if (!exchange || runOf(state.conversation)) return;
  if (text !== null && text !== exchange.user) {
    exchange.user = text;
    exchange.answer = null; // it answered something else
  }
  answer(state.conversation, exchange);
}

export function stop(conversation) {
  runOf(conversation)?.controller.abort();
}

export function deleteAndStop(conversation) {
  stop(conversation);
  runs.delete(conversation.id);
  deleteConversation(conversation.id);
}

/** What the model reads: the system prompt, the answered exchanges, and the new message. */
export function messagesFor(exchanges, text) {
  const messages = state.settings.system ? [{ role: "system", content: state.settings.system }] : [];
  for (const { user, answer } of exchanges) {
    if (!answer?.text) continue; // it failed: a user turn without an answer would confuse the model
    messages.push({ role: "user", content: user }, { role: "assistant", content: answer.text });
  }
  return [...messages, { role: "user", content: text }];
}

function requestFor(conversation, exchange, modelId) {
  const turn = conversation.exchanges.indexOf(exchange);
  const { system: _, ...sampling } = state.settings;
  const messages = messagesFor(conversation.exchanges.slice(0, turn), exchange.user);
  return { ...(modelId && { model: modelId }), messages, conversation_id: conversation.id, turn, ...sampling };
}

async function answer(conversation, exchange) {
  const before = exchange.answer;
  const model = chosenModel();
  const modelId = model?.id ?? state.modelId;
  const fresh = { text: "", model: modelId, base: model?.chat === false, id: null, rating: 0, end: null, error: null };
  const phase = model?.loaded === false ? "load" : "think";
  const run = { conversation, exchange, before, phase, controller: new AbortController() };
  let saved = 0;
  exchange.answer = fresh;
  conversation.model = modelId;
  conversation.updated = Date.now();
  runs.set(conversation.id, run);
  keep(run);
  emit("run", run);
  try {
    for await (const piece of chat(requestFor(conversation, exchange, modelId), run.controller.signal)) {
      fresh.text += piece.text;
      fresh.id = piece.exchangeId ?? fresh.id;
      fresh.end = piece.finish ?? fresh.end;
      if (fresh.text && run.phase !== "write") {
        run.phase = "write";
        const now = modelNamed(modelId);
        if (now) now.loaded = true;
        emit("models");
      }
      emit("piece", run);
      if (Date.now() - saved > SAVE_EVERY && runs.get(conversation.id) === run) {
        keep(run);
        saved = Date.now();
      }
    }
    fresh.end ??= "stop";
  } catch (problem) {
    if (leaving) return;
    fail(exchange, before, fresh, problem);
  } finally {
    if (runs.get(conversation.id) === run && !leaving) {
      runs.delete(conversation.id);
      saveConversation(conversation);
    }
    emit("run", run);
    emit("answered", run);
  }
}

/** Until a regeneration has its first word, the older answer stays in storage. */
function keep(run) {
  if (run.exchange.answer.text || !run.before?.text) saveConversation(run.conversation);
}

/** An answer that failed before its first word leaves the older one standing. */
function fail(exchange, before, fresh, problem) {
  const kept = fresh.text || !before?.text ? fresh : { ...before, error: null };
  if (kept === fresh) fresh.end = problem.name === "AbortError" ? "stopped" : "error";
  if (problem.name !== "AbortError") {
    const known = problem instanceof ApiError;
    if (!known) console.error(problem);
    kept.error = known ? problem.message : "Something in this page went wrong; the browser's console says more.";
    kept.kind = known ? problem.kind : "page";
    kept.retryAt = known && problem.kind === "busy" ? Date.now() + 1000 * problem.retryAfter : null;
  }
  exchange.answer = kept;
}

/** What has been received is kept when the tab closes in the middle of an answer; the broken connection is no error then. */
window.addEventListener("pagehide", () => {
  leaving = true;
  runs.forEach(keep);
});
window.addEventListener("pageshow", () => {
  leaving = false;
});
