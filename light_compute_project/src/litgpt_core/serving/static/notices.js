// Messages outside the conversation: the banner, toasts, the screen reader's announcements, the key dialog.
import { byId, el } from "./dom.js";

/** Read out by screen readers; invisible. */
export function announce(text) {
  byId("announcer").textContent = text;
}

/** A line at the bottom for a few seconds; `action` is [label, function]. */
export function toast(text, action = null, { seconds = 6 } = {}) {
  const box = byId("toasts");
  const node = el("div", { class: "toast" }, el("span", {}, text));
  const remove = () => node.remove();
  if (action) {
    const [label, act] = action;
    node.append(
      el("button", { type: "button", class: "toast-button", onclick: () => [remove(), act()] }, label),
    );
  }
  while (box.children.length > 2) box.firstElementChild.remove();
  box.append(node);
  setTimeout(remove, 1000 * seconds);
}

/** A strip below the top bar, until `hideBanner`; `action` is [label, function]. */
export function showBanner(text, action = null) {
  const banner = byId("banner");
  banner.replaceChildren(el("span", {}, text));
  if (action) banner.append(el("button", { type: "button", class: "banner-button", onclick: action[1] }, action[0]));
  banner.hidden = false;
}

export function hideBanner() {
  byId("banner").hidden = true;
  byId("banner").replaceChildren();
}

/** Asks for the API key: the text, or null when the user cancels. */
export function askForKey(wrong) {
  const dialog = byId("key-dialog");
  const input = byId("key-input");
  byId("key-wrong").hidden = !wrong;
  input.value = "";
  dialog.returnValue = "";
  dialog.showModal();
  input.focus();
  return new Promise((resolve) => {
    const submit = (event) => {
      event.preventDefault();
      if (input.value.trim()) dialog.close(input.value.trim());
    };
    byId("key-form").addEventListener("submit", submit);
    byId("key-cancel").onclick = () => dialog.close("");
    dialog.addEventListener(
      "close",
      () => {
        byId("key-form").removeEventListener("submit", submit);
        input.value = "";
        resolve(dialog.returnValue || null);
      },
      { once: true },
    );
  });
}
