// The server's HTTP API. Every failure becomes an ApiError with a message for the user.
import { eventsOf } from "./sse.js";
import { emit } from "./state.js";

const KEY = "lightcompute.api-key";
let keyAsker = async () => null;
let asking = null;
let apiKey = keptKey();

/** The key is stored until the tab is closed. */
function keptKey() {
  try {
    return sessionStorage.getItem(KEY);
  } catch {
    return null;
  }
}

/** kind: "gone" (no answer), "key" (401), "busy" (429), "request" (other 4xx), "server" (5xx, broken stream) */
export class ApiError extends Error {
  constructor(kind, message, { retryAfter = null } = {}) {
    super(message);
    this.kind = kind;
    this.retryAfter = retryAfter;
  }
}

/** `ask(wrong)` resolves to a key, or to null when the user cancels; `wrong` means that a key was refused. */
export function onKeyNeeded(ask) {
  keyAsker = ask;
}

async function newKey(refused) {
  if (apiKey !== refused) return true; // another request has asked for it meanwhile
  asking ??= keyAsker(refused !== null).finally(() => {
    asking = null;
  });
  const key = await asking;
  if (!key) return false;
  apiKey = key;
  try {
    sessionStorage.setItem(KEY, key);
  } catch {
    // asked again after a reload
  }
  return true;
}

async function send(path, { method = "GET", body, signal } = {}) {
  for (;;) {
    const key = apiKey;
    const headers = { ...(body && { "Content-Type": "application/json" }), ...(key && { Authorization: `Bearer ${key}` }) };
    let response;
    try {
      response = await fetch(path, { method, headers, signal, body: body && JSON.stringify(body), cache: "no-store" });
    } catch (problem) {
      if (problem.name === "AbortError") throw problem;
      emit("gone");
      throw new ApiError("gone", "The server does not answer.");
    }
    if (response.ok) return response;
    if (response.status === 401 && (await newKey(key))) continue;
    throw await errorOf(response);
  }
}

async function errorOf(response) {
  let message = "";
  try {
    const content = await response.json();
    message = content.error?.message ?? (typeof content.detail === "string" ? content.detail : "");
  } catch {
    // not JSON: use the status
  }
  if (response.status === 401) emit("locked");
  if (response.status === 401) return new ApiError("key", message || "The server requires an API key.");
  if (response.status === 429) {
    return new ApiError("busy", message || "The server is busy.", { retryAfter: seconds(response.headers.get("Retry-After")) });
  }
  const kind = response.status < 500 ? "request" : "server";
  return new ApiError(kind, message || `The server answered with status ${response.status}.`);
}

function seconds(header) {
  const count = /^\d+$/.test(header ?? "") ? Number(header) : (Date.parse(header) - Date.now()) / 1000;
  return Number.isFinite(count) ? Math.max(1, Math.ceil(count)) : 5;
}

export const get = async (path, options) => (await send(path, options)).json();
export const post = async (path, body, options) => (await send(path, { ...options, method: "POST", body })).json();

/** Yields {text, finish, exchangeId, usage} as the answer arrives. Throws ApiError, or AbortError after signal.abort(). */
export async function* chat(request, signal) {
  const response = await send("/v1/chat/completions", { method: "POST", body: { ...request, stream: true, stream_options: { include_usage: true } }, signal });
  let finished = false;
  try {
    for await (const data of eventsOf(response.body)) {
      if (data === "[DONE]") return;
      const chunk = JSON.parse(data);
      if (chunk.error) throw new ApiError("server", chunk.error.message ?? "The server stopped with an error.");
      const choice = chunk.choices?.[0];
      finished ||= Boolean(choice?.finish_reason);
      yield {
        text: choice?.delta?.content ?? "",
        finish: choice?.finish_reason ?? null,
        exchangeId: chunk.exchange_id ?? null,
        usage: chunk.usage ?? null,
      };
    }
  } catch (problem) {
    if (problem instanceof ApiError || problem.name === "AbortError") throw problem;
    emit("gone");
    throw new ApiError("gone", "The connection was lost during the answer.");
  }
  if (!finished) throw new ApiError("gone", "The connection ended before the answer did.");
}
