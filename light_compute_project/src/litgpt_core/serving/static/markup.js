// An answer's text as DOM nodes: fenced code, headings, lists, quotes, tables, bold, italic, inline code, formulas, and links to
// web pages that name where they lead. No HTML and no images: any other markup in the text is shown as it is.
import { copyButton, el } from "./dom.js";

const FENCE = /^\s*(`{3,}|~{3,})\s*([^`\s]*)[^`]*$/;
const HEADING = /^(#{1,6})[ \t]+([^\n]*)$/;
const RULE = /^ {0,3}([-*_])(?:\s*\1){2,}\s*$/;
const ITEM = /^(\s*)([-*+]|\d{1,9}[.)])\s+(.*)$/;
const DIVIDER = /^\s*\|?\s*:?-+:?\s*(?:\|\s*:?-+:?\s*)*\|?\s*$/;
const QUOTE = /^\s*>\s?(.*)$/;
const INLINE = new RegExp(
  [
    /(?<tick>`+)(?!`)(?<code>[\s\S]*?[^`])\k<tick>(?!`)/,
    /\*\*(?=\S)(?<strong>[\s\S]*?\S)\*\*(?!\*)/,
    /(?<![\w*])\*(?=[^\s*])(?<em>[^*\n]*?[^\s*])\*(?![\w*])/,
    /(?<!!)\[(?<label>[^\]\n]{1,300})\]\((?<target>https?:\/\/[^\s()<>]{1,1000}(?:\([^\s()<>]{0,200}\)[^\s()<>]{0,500})?)\)/,
    /(?<![\w/(])(?<bare>https?:\/\/[^\s<>()[\]"'`*]{1,1000}[^\s<>()[\]"'`*.,;:!?])/,
    /\$\$(?<block>[^$][\s\S]{0,2000}?)\$\$/,
    /\\\[(?<bracket>[\s\S]{1,2000}?)\\\]/,
    /\\\((?<paren>[\s\S]{1,2000}?)\\\)/,
    /(?<![\w$\\])\$(?=[^\s$\d])(?<dollar>[^$\n]{0,500}?[^\s$\\])\$(?![\w$])/,
  ]
    .map((pattern) => pattern.source)
    .join("|"),
);

/** Lines of text -> [{kind, source, ...}]. An unclosed fence reaches to the end, as it does while an answer streams in. */
export function blocksOf(text) {
  const lines = text.replace(/\r\n?/g, "\n").split("\n");
  const blocks = [];
  let at = 0;
  const take = (kind, rest, from) => blocks.push({ kind, ...rest, source: `${kind}\n${lines.slice(from, at).join("\n")}` });
  while (at < lines.length) {
    const from = at;
    const line = lines[at];
    const fence = FENCE.exec(line);
    if (fence) {
      const code = [];
      const closing = new RegExp(`^\\s*${fence[1][0]}{${fence[1].length},}\\s*$`);
      for (at++; at < lines.length && !closing.test(lines[at]); at++) code.push(lines[at]);
      at++;
      take("code", { language: fence[2], code: code.join("\n") }, from);
    } else if (!line.trim()) {
      at++;
    } else if (HEADING.test(line)) {
      const [, marks, words] = HEADING.exec(line);
      at++;
      take("heading", { level: marks.length, text: words.trim().replace(/(^|[ \t])#+$/, "").trim() }, from);
    } else if (RULE.test(line)) {
      at++;
      take("rule", {}, from);
    } else if (QUOTE.test(line)) {
      const quoted = [];
      for (; at < lines.length && QUOTE.test(lines[at]); at++) quoted.push(QUOTE.exec(lines[at])[1]);
      take("quote", { text: quoted.join("\n") }, from);
    } else if (isTable(lines, at)) {
      const rows = [];
      const aligned = cellsOf(lines[at + 1]).map((mark) => (mark.endsWith(":") ? (mark.startsWith(":") ? "center" : "right") : "left"));
      for (; at < lines.length && lines[at].includes("|") && lines[at].trim(); at++) rows.push(cellsOf(lines[at]));
      rows.splice(1, 1);
      take("table", { rows, aligned }, from);
    } else if (ITEM.test(line)) {
      const items = [];
      for (; at < lines.length; at++) {
        const item = ITEM.exec(lines[at]);
        if (item && !RULE.test(lines[at])) {
          items.push({ indent: item[1].replace(/\t/g, "    ").length, number: parseInt(item[2], 10), text: item[3] });
        } else if (!lines[at].trim()) {
          const next = lines.slice(at).find((later) => later.trim());
          if (!next || !ITEM.test(next)) break;
        } else if (startsBlock(lines[at])) break;
        else items[items.length - 1].text += `\n${lines[at].trim()}`;
      }
      take("list", { items }, from);
    } else {
      const words = [];
      for (; at < lines.length && lines[at].trim() && !(words.length && startsBlock(lines[at])); at++) words.push(lines[at]);
      take("paragraph", { text: words.join("\n") }, from);
    }
  }
  return blocks;
}

/** A line with bars, and below it one of dashes with as many cells. */
const isTable = (lines, at) =>
  lines[at].includes("|") && DIVIDER.test(lines[at + 1] ?? "") && cellsOf(lines[at]).length === cellsOf(lines[at + 1]).length;

/** The cells of a line of a table; `\\|` is a bar inside a cell. */
const cellsOf = (line) =>
  line
    .trim()
    .replace(/^\|/, "")
    .replace(/(?<!\\)\|$/, "")
    .split(/(?<!\\)\|/)
    .map((cell) => cell.trim().replaceAll("\\|", "|"));

const startsBlock = (line) => [FENCE, HEADING, RULE, QUOTE, ITEM].some((pattern) => pattern.test(line));

const sources = new WeakMap();

/** Make `container` show `text`; blocks that did not change keep their nodes, so that selections in them survive. */
export function renderMarkup(container, text) {
  const blocks = blocksOf(text);
  blocks.forEach((block, place) => {
    const old = container.children[place];
    if (old && sources.get(old) === block.source) return;
    const fresh = nodeOf(block);
    sources.set(fresh, block.source);
    if (old) old.replaceWith(fresh);
    else container.append(fresh);
  });
  while (container.children.length > blocks.length) container.lastElementChild.remove();
}

function nodeOf(block) {
  switch (block.kind) {
    case "code":
      return codeBlock(block.code, block.language);
    case "heading": // below the page's own headings
      return el(`h${Math.min(block.level + 2, 6)}`, {}, ...inline(block.text));
    case "rule":
      return el("hr");
    case "quote":
      return el("blockquote", {}, ...inline(block.text));
    case "table":
      return tableOf(block.rows, block.aligned);
    case "list":
      return listOf(block.items, 0, block.items.length);
    default:
      return el("p", {}, ...inline(block.text));
  }
}

/** Code with its language and a copy button; a scrollable region that keys can reach. */
export function codeBlock(code, language = "") {
  const label = language ? `Code: ${language}` : "Code";
  const head = el("div", { class: "code-head" }, el("span", {}, language || "text"), copyButton(() => code, "Copy code"));
  return el("div", { class: "code" }, head, el("pre", { tabindex: "0", role: "region", "aria-label": label }, el("code", { "data-language": language || null }, code)));
}

/** Items [from, to): those indented further than the first belong to lists below them. */
function listOf(items, from, to) {
  const { indent, number } = items[from];
  const list = Number.isNaN(number) ? el("ul") : el("ol", { start: number });
  for (let at = from; at < to; ) {
    let end = at + 1;
    while (end < to && items[end].indent > indent + 1) end++;
    const entry = el("li", {}, ...inline(items[at].text));
    if (end > at + 1) entry.append(listOf(items, at + 1, end));
    list.append(entry);
    at = end;
  }
  return list;
}

function tableOf([head, ...body], aligned) {
  const cell = (tag, text, place) => el(tag, { class: `to-${aligned[place] ?? "left"}` }, ...inline(text ?? ""));
  const line = (tag, cells) => el("tr", {}, ...aligned.map((_, place) => cell(tag, cells[place], place)));
  const table = el("table", {}, el("thead", {}, line("th", head)), el("tbody", {}, ...body.map((cells) => line("td", cells))));
  return el("div", { class: "table", tabindex: "0", role: "region", "aria-label": "Table" }, table);
}

/** The nodes of one match of INLINE. */
function nodesOf({ 0: all, groups: { code, strong, em, label, target, bare, block, bracket, paren, dollar } }) {
  if (code !== undefined) return [el("code", {}, code.replace(/^ (.*[^ ].*) $/, "$1"))];
  if (strong !== undefined) return [el("strong", {}, ...inline(strong))];
  if (em !== undefined) return [el("em", {}, ...inline(em))];
  if (target !== undefined) return linkTo(target, label, all);
  if (bare !== undefined) return linkTo(bare, null, all);
  const display = block ?? bracket;
  return [el("span", { class: "formula", "data-source": display ?? paren ?? dollar, "data-display": display !== undefined }, all)];
}

/** A link to a web page; where its text is not the address, the host is named, so that nothing leads elsewhere than it seems. */
function linkTo(target, label, all) {
  let address = null;
  try {
    address = new URL(target);
  } catch {
    return [all];
  }
  const properties = { class: "outside", href: address.href, target: "_blank", rel: "noopener noreferrer nofollow", title: address.href };
  const link = el("a", properties, label ?? target);
  return label === null || label === target ? [link] : [link, el("span", { class: "host" }, ` (${address.host})`)];
}

/** Text with `code`, **bold**, *italic*, links and formulas -> nodes. */
function inline(text) {
  const nodes = [];
  for (let rest = text; rest; ) {
    const match = INLINE.exec(rest);
    if (!match) return [...nodes, rest];
    if (match.index) nodes.push(rest.slice(0, match.index));
    nodes.push(...nodesOf(match));
    rest = rest.slice(match.index + match[0].length);
  }
  return nodes;
}
