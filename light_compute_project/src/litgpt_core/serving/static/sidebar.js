// The list of conversations: by day, searchable, each with rename and delete. A drawer on narrow screens.
import { byId, el, iconButton } from "./dom.js";
import { announce, toast } from "./notices.js";
import { deleteAndStop, runOf } from "./answers.js";
import { emit, on, state } from "./state.js";
import { allConversations, forget, isConversationKey, loadConversation, matches, read, saveConversation, titleOf, write } from "./store.js";

const OPEN = "lightcompute.open";
const narrow = matchMedia("(max-width: 860px)");
const DAY = 24 * 3600 * 1000;

/** The one that is shown; null shows the welcome. A conversation being answered is the object that its run holds. */
export function openConversation(conversation) {
  state.conversation = conversation;
  if (conversation) write(OPEN, conversation.id);
  else forget(OPEN);
  emit("open");
  show();
}

export function reopenLast() {
  const id = read(OPEN, null);
  openConversation(id ? loadConversation(id) : null);
}

export function startSidebar() {
  byId("runs-link").addEventListener("click", () => closeDrawer({ focus: false }));
  byId("new-chat").addEventListener("click", () => {
    emit("chat");
    openConversation(null);
    closeDrawer({ focus: false });
    byId("message").focus();
  });
  byId("search").addEventListener("input", show);
  byId("open-drawer").addEventListener("click", openDrawer);
  byId("close-drawer").addEventListener("click", closeDrawer);
  byId("backdrop").addEventListener("click", closeDrawer);
  byId("sidebar").addEventListener("keydown", (event) => {
    if (event.key === "Escape" && closeDrawer()) event.stopPropagation();
  });
  narrow.addEventListener("change", showDrawer);
  showDrawer();
  on("run", (run) => {
    if (run.conversation === state.conversation) write(OPEN, run.conversation.id);
    show();
  });
  on("conversations", show);
  window.addEventListener("storage", fromAnotherTab);
}

function fromAnotherTab(event) {
  if (!isConversationKey(event.key)) return;
  const current = state.conversation;
  if (current && !runOf(current) && (event.key === null || event.key.endsWith(current.id))) {
    state.conversation = loadConversation(current.id);
    emit("open");
  }
  show();
}

// ---- the list ----

function show() {
  const search = byId("search").value;
  const all = allConversations();
  const found = all.filter((conversation) => matches(conversation, search));
  const groups = new Map();
  for (const conversation of found) {
    const day = dayOf(conversation.updated);
    groups.set(day, [...(groups.get(day) ?? []), conversation]);
  }
  const list = byId("conversations");
  if (list.querySelector("form")) return; // a name is being typed
  const scrolled = list.scrollTop;
  list.replaceChildren(
    ...[...groups].map(([day, those]) => el("section", {}, el("h2", { class: "day" }, day), el("ul", {}, ...those.map(entry)))),
  );
  list.scrollTop = scrolled;
  if (!found.length) list.append(el("p", { class: "nothing" }, all.length ? "Nothing found." : "Conversations appear here."));
}

function dayOf(time) {
  const today = new Date().setHours(0, 0, 0, 0);
  if (time >= today) return "Today";
  if (time >= today - DAY) return "Yesterday";
  return time >= today - 7 * DAY ? "The last seven days" : "Earlier";
}

function entry(conversation) {
  const title = titleOf(conversation);
  const current = conversation.id === state.conversation?.id;
  const run = runOf(conversation);
  const line = el("li", { class: current ? "entry current" : "entry", "data-id": conversation.id });
  line.append(
    el(
      "button",
      {
        type: "button",
        class: "entry-title",
        title,
        "aria-current": current ? "true" : null,
        onclick: () => pick(run?.conversation ?? conversation),
      },
      run && el("span", { class: "pulse", role: "img", "aria-label": "Being answered" }),
      el("span", { class: "entry-text" }, title),
    ),
    el(
      "span",
      { class: "entry-actions" },
      iconButton("pencil", `Rename ${title}`, () => rename(line, conversation)),
      iconButton("trash", `Delete ${title}`, () => remove(conversation)),
    ),
  );
  return line;
}

function pick(conversation) {
  emit("chat");
  openConversation(conversation);
  closeDrawer({ focus: false });
  if (!matchMedia("(pointer: coarse)").matches) byId("message").focus();
}

function rename(line, kept) {
  const conversation = liveOne(kept);
  const input = el("input", { type: "text", "aria-label": "New name", maxlength: "120" });
  input.value = titleOf(conversation);
  let done = false;
  const finish = (keep) => {
    if (done) return;
    done = true;
    if (keep) {
      conversation.title = input.value.trim() || null;
      saveConversation(conversation);
    }
    form.remove();
    show();
    byId("conversations").querySelector(`[data-id="${conversation.id}"] .entry-title`)?.focus();
  };
  const form = el("form", { class: "rename" }, input);
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    finish(true);
  });
  input.addEventListener("keydown", (event) => {
    if (event.key !== "Escape") return;
    event.stopPropagation();
    finish(false);
  });
  input.addEventListener("blur", () => finish(true));
  line.replaceChildren(form);
  input.select();
}

/** The object in use, if this conversation is open or being answered; writing to a second copy would lose text. */
function liveOne(conversation) {
  if (conversation.id === state.conversation?.id) return state.conversation;
  return runOf(conversation)?.conversation ?? loadConversation(conversation.id) ?? conversation;
}

function remove(kept) {
  const conversation = liveOne(kept);
  const wasOpen = conversation === state.conversation;
  deleteAndStop(conversation);
  if (wasOpen) openConversation(null);
  else show();
  byId("new-chat").focus();
  announce("Deleted.");
  toast(`Deleted “${titleOf(conversation)}”.`, [
    "Undo",
    () => {
      saveConversation(conversation);
      if (wasOpen) openConversation(conversation);
      else show();
    },
  ]);
}

// ---- the drawer ----

const isOpen = () => document.body.classList.contains("drawer-open");

function openDrawer() {
  document.body.classList.add("drawer-open");
  showDrawer();
  byId("new-chat").focus();
}

function closeDrawer({ focus = true } = {}) {
  if (!isOpen()) return false;
  document.body.classList.remove("drawer-open");
  showDrawer();
  if (focus) byId("open-drawer").focus();
  return true;
}

/** Hidden elements cannot be reached by keys. */
function showDrawer() {
  if (!narrow.matches) document.body.classList.remove("drawer-open");
  byId("sidebar").inert = narrow.matches && !isOpen();
  byId("pane").inert = isOpen();
  byId("open-drawer").setAttribute("aria-expanded", String(isOpen()));
}
