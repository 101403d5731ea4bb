"use strict";
/* Builds the page: findings, one section per view drawn when it comes into sight, keyboard, light and dark. */

(function () {
  const values = JSON.parse(document.getElementById("values").textContent);
  const main = document.getElementById("main"), nav = document.getElementById("nav");
  const themes = window.matchMedia("(prefers-color-scheme: dark)");
  const sections = [];

  function setTheme(dark) {
    document.documentElement.dataset.theme = dark ? "dark" : "light";
    colourCache.clear();
    document.querySelectorAll("canvas, .tokens, .grid").forEach((element) => element.redraw && element.redraw());
  }
  setTheme(themes.matches);
  themes.addEventListener("change", (event) => setTheme(event.matches));
  const toggle = () => setTheme(document.documentElement.dataset.theme !== "dark");

  const names = Object.keys(values.titles).filter((name) => values.views[name] && VIEWS[name]);
  const held = values.held_out_tokens ? ` · ${values.held_out_tokens.toLocaleString("en")} tokens of held-out text at hand` : "";
  main.append(
    make("h1", { text: values.model }),
    make("p", { class: "facts", text: `${values.checkpoint} · computed in ${values.dtype} · ${values.made.slice(0, 10)}${held} · torch ${values.torch}` }),
    make("p", { class: "facts", text: "L2H3 is head 3 of layer 2, L0M the MLP of layer 0, L1N17 a neuron; layers and heads count from 0. Losses in nats per token." }),
    make("section", { id: "findings", tabindex: "-1", "aria-label": "Findings" }, make("h2", { text: "Findings" }),
      make("ul", {}, ...values.findings.map((finding) => make("li", {}, document.createTextNode(finding.text + " "), make("a", { href: `#${finding.view}`, text: "→", "aria-label": `to ${values.titles[finding.view]}` }))))));

  for (const name of names) {
    const body = make("div", {});
    const own = values.findings.filter((finding) => finding.view === name);
    const section = make("section", { id: name, tabindex: "-1", "aria-labelledby": `${name}-title` },
      make("h2", { id: `${name}-title`, text: values.titles[name] }), make("p", { class: "how", text: VIEWS[name].how }),
      ...own.map((finding) => make("p", { class: "finding", text: finding.text })), body);
    main.append(section);
    sections.push({ name, section, body, drawn: false });
  }
  const left = Object.entries(values.left_out);
  if (left.length) main.append(make("section", { id: "left-out", tabindex: "-1" }, make("h2", { text: "Left out" }),
    make("ul", {}, ...left.map(([name, reason]) => make("li", { text: `${values.titles[name]}: ${reason}` })))));

  nav.append(make("h2", { text: values.model }), make("a", { href: "#findings", text: "Findings" }),
    ...names.map((name) => make("a", { href: `#${name}`, text: values.titles[name] })),
    make("div", { class: "keys" }, make("button", { type: "button", text: "Light / dark", onclick: toggle }),
      make("p", {}, make("kbd", { text: "j" }), " ", make("kbd", { text: "k" }), " next, previous view"),
      make("p", {}, make("kbd", { text: "t" }), " light or dark"), make("p", {}, "Arrow keys move in a focused chart.")));

  function draw(entry) {
    if (entry.drawn) return;
    entry.drawn = true;
    try { VIEWS[entry.name].draw(entry.body, values.views[entry.name]); }
    catch (problem) { entry.body.append(make("p", { class: "readout", text: `This view cannot be drawn: ${problem.message}` })); }
  }
  const watcher = new IntersectionObserver((found) => found.forEach((each) => {
    if (each.isIntersecting) { draw(sections.find((entry) => entry.section === each.target)); watcher.unobserve(each.target); }
  }), { rootMargin: "600px" });
  sections.forEach((entry) => watcher.observe(entry.section));
  window.addEventListener("beforeprint", () => sections.forEach(draw));

  const marker = new IntersectionObserver((found) => found.forEach((each) => {
    const link = nav.querySelector(`a[href="#${each.target.id}"]`);
    if (link && each.isIntersecting) { nav.querySelectorAll("a.here").forEach((other) => other.classList.remove("here")); link.classList.add("here"); }
  }), { rootMargin: "-20% 0px -70% 0px" });
  main.querySelectorAll("section").forEach((section) => marker.observe(section));

  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || /^(INPUT|SELECT|TEXTAREA)$/.test(event.target.tagName)) return;
    if (event.key === "t") toggle();
    if (event.key === "j" || event.key === "k") {
      const all = [...main.querySelectorAll("section")];
      const here = all.findIndex((section) => section.getBoundingClientRect().bottom > 80);
      const next = all[Math.max(0, Math.min(all.length - 1, here + (event.key === "j" ? 1 : -1)))];
      next.focus({ preventScroll: true });
      next.scrollIntoView();
    }
  });
})();
