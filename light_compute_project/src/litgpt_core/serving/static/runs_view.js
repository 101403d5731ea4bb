// The view of trainings at #runs, and of one of them at #runs/NAME. While it is shown, it asks every few seconds for what changed.
import { get } from "./api.js";
import { byId } from "./dom.js";
import { RunList } from "./run_list.js";
import { RunDetail } from "./run_detail.js";
import { on, state } from "./state.js";
import { titleOf } from "./store.js";

const OFTEN = 3000; // ms, while a run trains
const SELDOM = 15_000;

let list = null;
let detail = null;
let runs = null; // the last list, or null
let version = null;
let timer = null;

const inRuns = () => location.hash === "#runs" || location.hash.startsWith("#runs/");

/** The run that the address names, or null. */
function openName() {
  if (!location.hash.startsWith("#runs/")) return null;
  try {
    return decodeURIComponent(location.hash.slice("#runs/".length));
  } catch {
    return null; // not an address that this page made
  }
}

export function startRunsView() {
  window.addEventListener("hashchange", route);
  document.addEventListener("visibilitychange", () => !document.hidden && inRuns() && refresh());
  on("chat", leave);
  on("server", () => {
    byId("runs-link").hidden = !state.server?.runs;
    if (state.server?.runs && inRuns() && !byId("runs").hidden) refresh();
    else route();
  });
  route();
}

function leave() {
  if (!inRuns()) return;
  history.pushState(null, "", location.pathname);
  route();
}

function route() {
  const shown = inRuns() && (state.server === null || Boolean(state.server.runs));
  const before = !byId("runs").hidden;
  byId("runs").hidden = !shown;
  document.body.classList.toggle("on-runs", shown);
  byId("runs-link").setAttribute("aria-current", shown ? "page" : "false");
  clearTimeout(timer);
  if (!shown) {
    if (before && location.hash === "#message") byId("message").focus();
    if (before) document.title = state.conversation?.exchanges.length ? `${titleOf(state.conversation)} · Light Compute` : "Light Compute";
    return;
  }
  const name = openName();
  if (name === null) {
    detail = null;
    list ??= new RunList();
    byId("runs").replaceChildren(list.node);
  } else if (detail?.name !== name) {
    detail = new RunDetail(name);
    byId("runs").replaceChildren(detail.node);
  }
  document.title = `${name ?? "Runs"} · Light Compute`;
  byId("runs").scrollTop = 0;
  if (before) byId("runs").focus();
  if (runs) (detail ?? list).show(runs);
  refresh();
}

async function refresh() {
  clearTimeout(timer);
  if (!inRuns() || document.hidden || !state.server?.runs) return;
  const view = detail ?? list;
  try {
    const found = await get(`/v1/runs?${new URLSearchParams(version ? { since: version } : {})}`);
    version = found.version;
    if (!found.unchanged) runs = found.runs;
    showCount();
    if (view !== (detail ?? list)) return; // another one was opened meanwhile, and asks for itself
    view.show(runs);
    await view.refresh();
  } catch (problem) {
    if (problem.kind !== "gone" && problem.kind !== "key") view.complain(problem.message);
  }
  clearTimeout(timer);
  const busy = runs?.some((run) => run.state === "running");
  if (inRuns()) timer = setTimeout(refresh, busy ? OFTEN : SELDOM);
}

function showCount() {
  const count = runs.filter((run) => run.state === "running").length;
  byId("runs-running").textContent = count ? `${count} running` : "";
}
