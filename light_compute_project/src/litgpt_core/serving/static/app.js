// Starts the page: loads the state of the server, and reports when the server is unreachable, locked, or back.
import { get, onKeyNeeded } from "./api.js";
import { fill, startComposer } from "./composer.js";
import { byId } from "./dom.js";
import { loadStats, startFinetuning } from "./finetuning.js";
import { loadModels, startPicker } from "./models.js";
import { askForKey, hideBanner, showBanner, toast } from "./notices.js";
import { startRunsView } from "./runs_view.js";
import { loadSettings, startSettings } from "./settings.js";
import { reopenLast, startSidebar } from "./sidebar.js";
import { emit, on, state } from "./state.js";
import { onStorageRefused } from "./store.js";
import { startThread } from "./thread.js";
import { startTransfer } from "./transfer.js";

const RETRY_EVERY = 3000; // ms
let retry = null;

async function loadServer() {
  try {
    state.server = await get("/v1/settings");
    await Promise.all([loadModels(), loadStats()]);
    hideBanner();
    emit("server");
  } catch (problem) {
    if (problem.kind === "gone" || problem.kind === "key") return; // reported by "gone" and "locked"
    showBanner(`The server could not be queried: ${problem.message}`, ["Try again", loadServer]);
  }
}

function waitForServer() {
  if (retry !== null) return;
  showBanner("The server does not answer. Start it again with scripts/serve.py; this page reconnects by itself.", ["Try now", tryNow]);
  retry = setInterval(tryNow, RETRY_EVERY);
}

async function tryNow() {
  try {
    await get("/health");
  } catch {
    return;
  }
  clearInterval(retry);
  retry = null;
  hideBanner();
  loadServer();
}

function startTheme() {
  const button = byId("theme-button");
  const name = () => {
    const other = document.documentElement.dataset.theme === "dark" ? "light" : "dark";
    button.setAttribute("aria-label", `Switch to the ${other} theme`);
    button.title = `Switch to the ${other} theme`;
  };
  button.addEventListener("click", () => {
    window.lightComputeTheme.toggle();
    name();
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", name);
  name();
}

onKeyNeeded(askForKey);
onStorageRefused(() => toast("The browser refuses to keep this: its storage is full or forbidden. Deleting old conversations makes room."));
on("gone", waitForServer);
on("locked", () => showBanner("This server requires an API key.", ["Enter the key", loadServer]));
on("answered", (run) => {
  if (run.exchange.answer?.kind === "gone") return;
  loadStats().catch(() => {});
  loadModels().catch(() => {});
});

loadSettings();
startTheme();
startThread({ fill });
startSidebar();
startPicker();
startComposer();
startSettings();
startFinetuning();
startTransfer();
reopenLast();
startRunsView();
loadServer();
if (!matchMedia("(pointer: coarse)").matches) byId("message").focus();
