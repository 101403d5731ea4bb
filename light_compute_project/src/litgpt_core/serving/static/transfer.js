// Conversations to a file and back, and the deletion of all of them.
import { byId, el } from "./dom.js";
import { announce, toast } from "./notices.js";
import { deleteAndStop } from "./answers.js";
import { cleanedSettings } from "./settings.js";
import { openConversation } from "./sidebar.js";
import { emit } from "./state.js";
import { allConversations, loadConversation, saveConversation } from "./store.js";

const FORMAT = "lightcompute.conversations";
const ENDS = ["stop", "length", "stopped", "error"];

export function startTransfer() {
  byId("export-all").addEventListener("click", exportAll);
  byId("import-all").addEventListener("click", () => byId("import-file").click());
  byId("import-file").addEventListener("change", async (event) => {
    const [file] = event.target.files;
    if (file) importAll(await file.text());
    event.target.value = ""; // the same file can be chosen again
  });
  byId("delete-all").addEventListener("click", deleteAll);
}

function exportAll() {
  const conversations = allConversations();
  if (!conversations.length) return toast("There are no conversations to export.");
  const text = JSON.stringify({ format: FORMAT, version: 1, conversations }, null, 1);
  const url = URL.createObjectURL(new Blob([text], { type: "application/json" }));
  const day = new Date().toISOString().slice(0, 10);
  el("a", { href: url, download: `conversations-${day}.json` }).click();
  setTimeout(() => URL.revokeObjectURL(url), 10_000);
  announce("Exported.");
}

function importAll(text) {
  let found = null;
  try {
    const content = JSON.parse(text);
    found = content?.format === FORMAT && Array.isArray(content.conversations) ? content.conversations.map(cleaned).filter(Boolean) : null;
  } catch {
    // not JSON
  }
  if (!found) return toast("This is not a file of exported conversations.");
  const fresh = found.filter(({ id }) => !loadConversation(id)); // those that are here stay as they are
  fresh.forEach(saveConversation);
  emit("conversations");
  toast(`${fresh.length} imported${fresh.length < found.length ? `, ${found.length - fresh.length} are already here` : ""}.`);
}

/** Only what the page knows, in the types it expects; null for anything else. */
function cleaned(given) {
  if (!/^[0-9a-f]{32}$/.test(given?.id) || !Array.isArray(given.exchanges)) return null;
  const time = (value) => (Number.isFinite(value) ? value : Date.now());
  const exchanges = given.exchanges.filter((exchange) => typeof exchange?.user === "string").map(cleanedExchange);
  const title = typeof given.title === "string" ? given.title.slice(0, 120) : null;
  const model = typeof given.model === "string" ? given.model : null;
  const settings = given.settings && typeof given.settings === "object" ? { settings: cleanedSettings(given.settings) } : {};
  return { id: given.id, title, created: time(given.created), updated: time(given.updated), model, exchanges, ...settings };
}

function cleanedExchange({ user, answer, variants }) {
  const earlier = Array.isArray(variants) ? variants.map(cleanedAnswer).filter(Boolean) : [];
  return { user, answer: cleanedAnswer(answer), variants: earlier };
}

function cleanedAnswer(given) {
  if (typeof given?.text !== "string") return null;
  const model = typeof given.model === "string" ? given.model : null;
  const id = typeof given.id === "string" ? given.id : null;
  const rating = [1, -1].includes(given.rating) ? given.rating : 0;
  const end = ENDS.includes(given.end) ? given.end : "stop";
  const edited = given.edited === true ? { edited: true } : {};
  return { text: given.text, model, base: given.base === true, id, rating, end, error: null, ...edited };
}

function deleteAll() {
  const conversations = allConversations();
  if (!conversations.length) return toast("There are no conversations to delete.");
  conversations.forEach(deleteAndStop);
  openConversation(null);
  announce("Deleted.");
  const restore = () => {
    conversations.forEach(saveConversation);
    emit("conversations");
  };
  const count = conversations.length === 1 ? "1 conversation" : `${conversations.length} conversations`;
  toast(`Deleted ${count} of this browser.`, ["Undo", restore], { seconds: 15 });
}
