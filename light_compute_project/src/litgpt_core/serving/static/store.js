// Storage in the browser: one localStorage entry per conversation, so that two tabs do not overwrite each other's.
//
// conversation: {id, title: string|null, created, updated, model, exchanges: [{user, answer, variants}], settings}   times in ms
//         settings are there only if the conversation has its own
// answer: {text, model, base, id, rating, end: null|"stop"|"length"|"stopped"|"error", error, kind, usage, edited}
//         edited: the user changed the text
//         variants are earlier answers to the same message
//         usage is the server's, with the seconds from the first text to the end
//         id is the server's exchange id (for ratings); end is null only while the answer is running

const PREFIX = "lightcompute.conversation.";
let complain = () => {};

/** `tell()` is called when the browser refuses to store: full, or forbidden. */
export function onStorageRefused(tell) {
  complain = tell;
}

export function read(key, otherwise) {
  try {
    const text = localStorage.getItem(key);
    return text === null ? otherwise : JSON.parse(text);
  } catch {
    return otherwise;
  }
}

export function write(key, value) {
  try {
    localStorage.setItem(key, JSON.stringify(value));
  } catch {
    complain();
  }
}

export function forget(key) {
  try {
    localStorage.removeItem(key);
  } catch {
    // nothing was stored
  }
}

export function newConversation(model) {
  return { id: newId(), title: null, created: Date.now(), updated: Date.now(), model, exchanges: [] };
}

/** 128 random bits; crypto.randomUUID is missing where the page comes over plain HTTP from another machine. */
function newId() {
  return [...crypto.getRandomValues(new Uint8Array(16))].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}

export function loadConversation(id) {
  const kept = read(PREFIX + id, null);
  return kept && typeof kept.id === "string" && Array.isArray(kept.exchanges) ? kept : null;
}

export function saveConversation(conversation) {
  write(PREFIX + conversation.id, conversation);
}

export function deleteConversation(id) {
  forget(PREFIX + id);
}

/** All conversations, latest first. */
export function allConversations() {
  let keys = [];
  try {
    keys = Object.keys(localStorage).filter((key) => key.startsWith(PREFIX));
  } catch {
    return [];
  }
  const found = keys.map((key) => loadConversation(key.slice(PREFIX.length))).filter(Boolean);
  return found.sort((a, b) => b.updated - a.updated);
}

export const isConversationKey = (key) => key === null || key.startsWith(PREFIX);

/** The name a user gave, or else the beginning of the first message. */
export function titleOf(conversation) {
  if (conversation.title) return conversation.title;
  const first = (conversation.exchanges[0]?.user ?? "").replace(/\s+/g, " ").trim();
  return first.length > 60 ? `${first.slice(0, 58).trimEnd()}…` : first || "New conversation";
}

/** Whether every word of the search occurs in the title or in the messages. */
export function matches(conversation, search) {
  const words = search.toLowerCase().split(/\s+/).filter(Boolean);
  if (!words.length) return true;
  const said = conversation.exchanges.flatMap(({ user, answer }) => [user, answer?.text ?? ""]);
  const text = [titleOf(conversation), ...said].join("\n").toLowerCase();
  return words.every((word) => text.includes(word));
}
