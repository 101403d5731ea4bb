// Sets <html data-theme> before the first paint. Loaded in <head>, not as a module, so that the page never flashes.
// The system's preference counts until the user chooses the other one; choosing the system's own forgets the choice.
(() => {
  const KEY = "lightcompute.theme";
  const system = matchMedia("(prefers-color-scheme: dark)");

  function chosen() {
    try {
      return localStorage.getItem(KEY);
    } catch {
      return null; // storage forbidden: follow the system
    }
  }

  function apply() {
    document.documentElement.dataset.theme = chosen() ?? (system.matches ? "dark" : "light");
  }

  function toggle() {
    const next = document.documentElement.dataset.theme === "dark" ? "light" : "dark";
    try {
      if (next === (system.matches ? "dark" : "light")) localStorage.removeItem(KEY);
      else localStorage.setItem(KEY, next);
    } catch {
      // not stored, but applied
    }
    document.documentElement.dataset.theme = next;
    return next;
  }

  system.addEventListener("change", apply);
  window.lightComputeTheme = { toggle };
  apply();
})();
