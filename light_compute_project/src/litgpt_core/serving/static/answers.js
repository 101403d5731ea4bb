// Running answers: at most one per conversation, including conversations that are not open.
import { ApiError, chat } from "./api.js";
import { chosenModel, emit, modelNamed, settingsOf, state } from "./state.js";
import { deleteConversation, newConversation, saveConversation } from "./store.js";

const runs = new Map(); // conversation id -> {conversation, exchange, before, controller, phase: "load"|"think"|"write"}
const SAVE_EVERY = 1000; // ms
const MOST_VARIANTS = 20; // earlier answers kept for one message
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

/** Sends a message (the last one) again, edited or unchanged. Exchanges after it belong to the old text and are removed. */
export function resend(text = null, exchange = lastExchange(state.conversation)) {
  if (!exchange || runOf(state.conversation)) return;
  state.conversation.exchanges.splice(state.conversation.exchanges.indexOf(exchange) + 1);
  if (text !== null && text !== exchange.user) {
    exchange.user = text;
    exchange.answer = null; // the old answers belong to the old text
    exchange.variants = [];
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
export function messagesFor(exchanges, text, { system }) {
  const messages = system ? [{ role: "system", content: system }] : [];
  for (const { user, answer } of exchanges) {
    if (!answer?.text) continue; // failed: a user turn without an answer would confuse the model
    messages.push({ role: "user", content: user }, { role: "assistant", content: answer.text });
  }
  return [...messages, { role: "user", content: text }];
}

/** Goes on with the last answer, which ended at a length limit. */
export function continueAnswer() {
  const exchange = lastExchange(state.conversation);
  if (exchange?.answer?.text && !runOf(state.conversation)) answer(state.conversation, exchange, { goOn: true });
}

function requestFor(conversation, exchange, modelId) {
  const turn = conversation.exchanges.indexOf(exchange);
  const settings = settingsOf(conversation);
  const { system: _, ...sampling } = settings;
  const begun = exchange.answer.text;
  const most = Math.floor(((state.server?.max_messages ?? 1000) - 2) / 2); // older ones do not fit any context window
  const messages = messagesFor(conversation.exchanges.slice(Math.max(0, turn - most), turn), exchange.user, settings);
  const goOn = begun ? { continue_final_message: true } : {};
  if (begun) messages.push({ role: "assistant", content: begun });
  return { ...(modelId && { model: modelId }), messages, conversation_id: conversation.id, turn, ...goOn, ...sampling };
}

/** The conversation up to and with an answer, as POST /v1/attention takes it. */
export function attentionRequest(conversation, exchange) {
  const { messages, model, max_tokens } = requestFor(conversation, exchange, exchange.answer.model);
  return { messages, model, max_tokens };
}

/** `goOn`: the text so far stays and is continued. */
async function answer(conversation, exchange, { goOn = false } = {}) {
  const before = exchange.answer;
  const model = chosenModel();
  const modelId = model?.id ?? state.modelId;
  const fresh = { text: "", model: modelId, base: model?.chat === false, id: null, rating: 0, end: null, error: null };
  if (goOn) fresh.text = before.text;
  const phase = model?.loaded === false ? "load" : "think";
  if (before?.text && !goOn && before.end !== "error") exchange.variants = [...(exchange.variants ?? []), before].slice(-MOST_VARIANTS);
  const run = { conversation, exchange, before, phase, controller: new AbortController() };
  let saved = 0;
  let firstText = null;
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
      if (delta.text) firstText ??= performance.now();
      if (delta.usage) fresh.usage = { ...delta.usage, seconds: (performance.now() - firstText) / 1000 };
      if (delta.text && run.phase !== "write") {
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

/** Show an earlier answer of the last message instead; the shown one joins the earlier ones. Later requests contain the shown one. */
export function showVariant(exchange, place) {
  const { answer: shown, variants } = exchange;
  if (!variants?.[place] || runOf(state.conversation)) return;
  exchange.answer = variants[place];
  variants.splice(place, 1);
  variants.push(shown);
  saveConversation(state.conversation);
}

/** An answer that failed before its first text leaves the older one in place. */
function fail(exchange, before, fresh, problem) {
  const kept = fresh.text || !before?.text ? fresh : { ...before, error: null };
  if (kept !== fresh && exchange.variants?.at(-1) === before) exchange.variants.pop();
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
