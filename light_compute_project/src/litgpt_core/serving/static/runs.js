// Running answers: at most one per conversation, including conversations that are not open.
import { ApiError, chat } from "./api.js";
import { chosenModel, emit, modelNamed, state } from "./state.js";
import { deleteConversation, newConversation, saveConversation } from "./store.js";

const runs = new Map(); // conversation id -> {conversation, exchange, before, controller, phase: "load"|"think"|"write"}
const SAVE_EVERY = 1000; // ms
let leaving = false;

export const runOf = (conversation) => runs.get(conversation?.id) ?? null;
export const lastExchange = (conversation) => conversation?.exchanges.at(-1) ?? null;

/** A new message in the open conversation; the first message creates it. */
export function send(text) {
  const conversation = (state.conversation ??= newConversation(state.modelId));
  if (runOf(conversation)) return;
  const exchange = { user: text, answer: null };
  conversation.exchanges.push(exchange);
  answer(conversation, exchange);
}

/** Sends the last message again, edited or unchanged. */
export function resend(text = null) {
  const exchange = lastExchange(state.conversation);
  if (!exchange || runOf(state.conversation)) return;
  if (text !== null && text !== exchange.user) {
    exchange.user = text;
    exchange.answer = null; // the old answer belongs to the old text
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

/** The request: system prompt, answered exchanges, and the new message. */
export function messagesFor(exchanges, text) {
  const messages = state.settings.system ? [{ role: "system", content: state.settings.system }] : [];
  for (const { user, answer } of exchanges) {
    if (!answer?.text) continue; // failed: a user turn without an answer would confuse the model
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
    for await (const delta of chat(requestFor(conversation, exchange, modelId), run.controller.signal)) {
      fresh.text += delta.text;
      fresh.id = delta.exchangeId ?? fresh.id;
      fresh.end = delta.finish ?? fresh.end;
      if (fresh.text && run.phase !== "write") {
        run.phase = "write";
        const now = modelNamed(modelId);
        if (now) now.loaded = true;
        emit("models");
      }
      emit("delta", run);
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

/** The older answer stays in storage until a regeneration has its first text. */
function keep(run) {
  if (run.exchange.answer.text || !run.before?.text) saveConversation(run.conversation);
}

/** An answer that failed before its first text leaves the older one in place. */
function fail(exchange, before, fresh, problem) {
  const kept = fresh.text || !before?.text ? fresh : { ...before, error: null };
  if (kept === fresh) fresh.end = problem.name === "AbortError" ? "stopped" : "error";
  if (problem.name !== "AbortError") {
    const known = problem instanceof ApiError;
    if (!known) console.error(problem);
    kept.error = known ? problem.message : "An error occurred in this page; see the browser's console.";
    kept.kind = known ? problem.kind : "page";
    kept.retryAt = known && problem.kind === "busy" ? Date.now() + 1000 * problem.retryAfter : null;
  }
  exchange.answer = kept;
}

/** If the tab closes during an answer, the text so far is stored; the broken connection is then not an error. */
window.addEventListener("pagehide", () => {
  leaving = true;
  runs.forEach(keep);
});
window.addEventListener("pageshow", () => {
  leaving = false;
});
