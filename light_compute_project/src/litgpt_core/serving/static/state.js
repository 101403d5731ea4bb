// The state of the page, and the events that report its changes.

export const state = {
  conversation: null, // the open one; see store.js
  models: [], // from /v1/models
  modelId: null, // the chosen one
  server: null, // from /v1/settings
  stats: null, // from /stats
  settings: {}, // of all conversations without settings of their own: only what was changed; the server's defaults apply otherwise
};

const listeners = new Map();

/**
 * Events: "open" another conversation is shown; "conversations" the list changed; "run" an answer began or ended, "answered" it ended;
 * "delta" an answer grew; "models", "server", "stats", "settings" that part changed; "gone" the server did not answer;
 * "locked" the user entered no API key; "full" the browser refuses to store; "chat" the user turns from the runs to a conversation.
 */
export function on(names, listener) {
  for (const name of names.split(" ")) listeners.set(name, [...(listeners.get(name) ?? []), listener]);
}

export function emit(name, detail) {
  for (const listener of listeners.get(name) ?? []) listener(detail);
}

export const modelNamed = (id) => state.models.find((model) => model.id === id) ?? null;
/** What the user set for this conversation, or else for all. */
export const settingsOf = (conversation) => conversation?.settings ?? state.settings;
export const chosenModel = () => modelNamed(state.modelId);
