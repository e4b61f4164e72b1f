"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const page = document.getElementById("page");
const WORDS = { passed: "passed", flaky: "flaky", expected_failure: "failed as expected", skipped: "skipped", failed: "failed", timed_out: "timed out", cancelled: "cancelled", not_run: "not run" };
const SIGNS = { passed: "✓", flaky: "~", expected_failure: "✓", skipped: "–", failed: "✗", timed_out: "✗", cancelled: "!", not_run: "" };

function el(tag, attributes, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes || {})) {
    if (name === "color") node.style.setProperty("--c", `var(--${value})`);
    else if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else node.setAttribute(name, value);
  }
  node.append(...children.filter((child) => child !== null && child !== undefined));
  return node;
}

function time(seconds) {
  if (seconds < 1) return `${Math.round(seconds * 1000)} ms`;
  if (seconds < 60) return `${seconds.toFixed(1)} s`;
  return `${Math.floor(seconds / 60)} min ${Math.round(seconds % 60)} s`;
}

function size(bytes) {
  for (const unit of ["B", "KiB", "MiB"]) {
    if (bytes < 1024) return `${Math.round(bytes)} ${unit}`;
    bytes /= 1024;
  }
  return `${bytes.toFixed(1)} GiB`;
}

const COLORS = ["#57606a", "#cf222e", "#2da44e", "#bf8700", "#0969da", "#8250df", "#1b7c83", "#8c959f"];

/* Colours of a terminal become spans; whatever else a guest sends to a terminal is left out. */
function ansi(text, into) {
  let style = {};
  const parts = text.split(/\x1b\[([0-9;:]*)m/);
  parts.forEach((part, index) => {
    if (index % 2) {
      const codes = part.split(/[;:]/).map(Number);
      for (let at = 0; at < codes.length; at++) {
        const code = codes[at];
        if (code === 0) style = {};
        else if (code === 1) style.fontWeight = "600";
        else if (code === 2) style.opacity = ".7";
        else if (code === 3) style.fontStyle = "italic";
        else if (code === 4) style.textDecoration = "underline";
        else if (code >= 30 && code <= 37) style.color = COLORS[code - 30];
        else if (code >= 90 && code <= 97) style.color = COLORS[code - 90];
        else if (code === 38 || code === 48) at += codes[at + 1] === 5 ? 2 : 4;
        else if (code === 39) delete style.color;
        else if (code === 22) { delete style.fontWeight; delete style.opacity; }
      }
      return;
    }
    const clean = part.replace(/\x1b\][^\x07\x1b]*(\x07|\x1b\\)/g, "").replace(/\x1b\[[0-?]*[ -/]*[@-~]/g, "").replace(/\r\n/g, "\n").replace(/[^\n]*\r/g, "").replace(/[\x00-\x08\x0b-\x1f\x7f]/g, "");
    if (!clean) return;
    if (Object.keys(style).length) {
      const span = el("span");
      Object.assign(span.style, style);
      span.textContent = clean;
      into.append(span);
    } else into.append(clean);
  });
}

function output(cell) {
  if (!cell.output.length) return cell.tail ? pre([["stdout", cell.tail]], 0) : el("p", { class: "dim" }, "It printed nothing.");
  return pre(cell.output, cell.dropped);
}

function pre(pieces, dropped) {
  const node = el("pre");
  if (dropped) node.append(el("span", { class: "dim" }, `… ${size(dropped)} before\n`));
  for (const [stream, text] of pieces) {
    const piece = stream === "stderr" ? el("span", { class: "err" }) : node;
    ansi(text, piece);
    if (piece !== node) node.append(piece);
  }
  return node;
}

const opened = new Map();

function show(cell) {
  const node = opened.get(cell) || details(cell);
  if (!node.isConnected) cell.list.prepend(node);
  node.open = true;
  node.scrollIntoView({ block: "center" });
}

function details(cell) {
  const facts = [WORDS[cell.outcome]];
  if (cell.outcome !== "not_run") facts.push(time(cell.duration));
  if (cell.attempts > 1) facts.push(`${cell.attempts} attempts`);
  if (cell.memory !== null) facts.push(`${size(cell.memory)} at most`);
  if (cell.cpu !== null) facts.push(`${time(cell.cpu)} of CPU`);
  const failed = cell.outcome === "failed" || cell.outcome === "timed_out";
  const node = el("details", { "data-cell": cell.id, "data-outcome": cell.outcome },
    el("summary", {}, el("span", { class: "key", color: cell.outcome }), el("span", { class: "id" }, cell.id), el("span", { class: "dim" }, facts.join(" · ")), cell.message && !failed ? el("span", { class: "dim" }, cell.message.split("\n")[0]) : null));
  const fill = () => {
    if (!node.open || node.querySelector(".body")) return;
    const body = el("div", { class: "body" });
    if (cell.message) { const said = el("pre"); ansi(cell.message, said); body.append(said); }
    if (cell.hint) body.append(el("p", {}, `hint: ${cell.hint}`));
    if (cell.refused) body.append(el("p", {}, cell.refused));
    if (cell.refused && cell.remedy) body.append(el("p", {}, "To allow it: ", el("code", {}, cell.remedy)));
    if (cell.carried.length) {
      const table = el("table", { class: "tests" }, el("tr", {}, el("th", {}, "reached"), el("th", {}, "connections"), el("th", {}, "sent"), el("th", {}, "received")));
      for (const one of cell.carried) table.append(el("tr", {}, el("td", {}, one.host), el("td", {}, one.connections), el("td", {}, size(one.sent)), el("td", {}, size(one.received))));
      body.append(table);
    }
    if (cell.enter) body.append(el("p", {}, "A shell in the state it failed in: ", el("code", {}, `sandscript enter ${cell.enter}`)));
    if (cell.artifacts) body.append(el("p", {}, "Artifacts: ", el("code", {}, cell.artifacts)));
    if (cell.tests.length) {
      const table = el("table", { class: "tests" });
      for (const test of cell.tests) {
        const place = test.place ? `${test.place.file}:${test.place.line}` : "";
        table.append(el("tr", {}, el("td", {}, SIGNS[test.outcome]), el("td", {}, test.name), el("td", { class: "dim" }, place), el("td", {}, (test.message || "").split("\n")[0])));
      }
      body.append(table);
    }
    cell.retries.forEach((retry, index) => {
      body.append(el("p", {}, `Attempt ${index + 1}: ${WORDS[retry.outcome]}. ${retry.message || ""}`));
      if (retry.tail) body.append(pre([["stdout", retry.tail]], 0));
    });
    body.append(output(cell));
    node.append(body);
  };
  node.addEventListener("toggle", fill);
  if (failed) { node.open = true; fill(); }
  opened.set(cell, node);
  return node;
}

function heat(matrix) {
  const names = [];
  for (const cell of matrix.cells) for (const name of Object.keys(cell.values)) if (!names.includes(name)) names.push(name);
  const last = names[names.length - 1];
  const value = (cell, name) => (name in cell.values ? String(cell.values[name]) : "");
  const columns = [...new Set(matrix.cells.map((cell) => value(cell, last)))];
  const rows = new Map();
  for (const cell of matrix.cells) {
    const key = names.slice(0, -1).map((name) => value(cell, name)).join("\u0000");
    if (!rows.has(key)) rows.set(key, new Map());
    rows.get(key).set(value(cell, last), cell);
  }
  const longest = Math.max(...matrix.cells.map((cell) => cell.duration), 0.001);
  const table = el("table", { class: "heat" });
  table.append(el("tr", {}, ...names.slice(0, -1).map((name) => el("th", {}, name)), ...columns.map((column) => el("th", { title: `${last}=${column}` }, names.length > 1 || columns.length < 40 ? column : ""))));
  for (const [key, cells] of rows) {
    const row = el("tr");
    if (names.length > 1) for (const part of key.split("\u0000")) row.append(el("th", { title: part }, part));
    for (const column of columns) {
      const cell = cells.get(column);
      if (!cell) { row.append(el("td")); continue; }
      const button = el("button", { class: `cell ${cell.outcome}`, color: cell.outcome, title: `${cell.id}\n${WORDS[cell.outcome]} in ${time(cell.duration)}`, onclick: () => show(cell) }, `${SIGNS[cell.outcome]} ${cell.outcome === "not_run" ? "" : time(cell.duration)}`);
      button.style.opacity = cell.outcome === "passed" ? String(0.55 + 0.45 * (cell.duration / longest)) : "1";
      row.append(el("td", {}, button));
    }
    table.append(row);
  }
  return el("div", { class: "scroll" }, table);
}

function timeline(matrix) {
  const bars = [];
  for (const cell of matrix.cells) {
    for (const retry of cell.retries) bars.push({ cell, start: retry.start, end: retry.end, outcome: retry.outcome, retry: true });
    if (cell.start !== null) bars.push({ cell, start: cell.start, end: cell.end ?? data.duration, outcome: cell.outcome, retry: false });
  }
  if (!bars.length) return el("p", { class: "dim" }, "No cell ran.");
  bars.sort((a, b) => a.start - b.start);
  const from = bars[0].start;
  const until = Math.max(...bars.map((bar) => bar.end), from + 0.001);
  const lanes = [];
  const box = el("div", { class: "timeline" });
  for (const bar of bars) {
    let lane = lanes.findIndex((end) => end <= bar.start);
    if (lane < 0) lane = lanes.push(0) - 1;
    lanes[lane] = bar.end;
    const node = el("button", { class: bar.retry ? "bar retry" : "bar", color: bar.outcome, title: `${bar.cell.id}\n${WORDS[bar.outcome]} in ${time(bar.end - bar.start)}`, "aria-label": bar.cell.id, onclick: () => show(bar.cell) });
    node.style.left = `${(100 * (bar.start - from)) / (until - from)}%`;
    node.style.width = `calc(${(100 * (bar.end - bar.start)) / (until - from)}% - 1px)`;
    node.style.top = `${4 + lane * 17}px`;
    box.append(node);
  }
  box.style.height = `${lanes.length * 17 + 8}px`;
  return el("div", {}, box, el("div", { class: "axis" }, el("span", {}, "0"), el("span", {}, time((until - from) / 2)), el("span", {}, time(until - from))));
}

function counts(all) {
  const node = el("div", { class: "counts" });
  for (const word of Object.keys(WORDS)) if (all[word]) node.append(el("span", { class: "count", color: word, "data-count": word }, `${all[word]} ${WORDS[word]}`));
  return node;
}

function matrix(one) {
  const list = el("div");
  const order = { failed: 0, timed_out: 0, cancelled: 1, flaky: 2 };
  const sorted = [...one.cells].sort((a, b) => (order[a.outcome] ?? 3) - (order[b.outcome] ?? 3));
  const LIMIT = 500;
  one.cells.forEach((cell) => { cell.list = list; });
  const render = (filter) => {
    list.replaceChildren();
    const words = filter.toLowerCase().split(/\s+/).filter(Boolean);
    const found = sorted.filter((cell) => words.every((word) => cell.id.toLowerCase().includes(word) || WORDS[cell.outcome].includes(word)));
    found.slice(0, LIMIT).forEach((cell) => list.append(opened.get(cell) || details(cell)));
    if (found.length > LIMIT) list.append(el("p", { class: "dim" }, `and ${found.length - LIMIT} more: type to find them`));
  };
  const search = el("input", { type: "search", placeholder: "Find cells: part of an id, or an outcome", "aria-label": "Find cells", oninput: (event) => render(event.target.value) });
  render("");
  const total = one.cells.length < one.total ? `${one.cells.length} of ${one.total} cells` : `${one.cells.length} cells`;
  return el("section", { "data-matrix": one.name }, el("h2", {}, `matrix ${one.name}`), el("p", { class: "dim" }, `${total} in ${time(one.duration)}`), counts(one.counts), heat(one), el("h2", {}, "Timeline"), timeline(one), el("h2", {}, "Cells"), el("div", { class: "tools" }, search), list);
}

page.append(
  el("h1", {}, data.script || "sandscript"),
  el("p", { class: "dim" }, `run ${data.run} on ${data.backend} · ${data.began} · ${time(data.duration)} · exit code ${data.code ?? "none"}`),
);
if (data.matrices.length > 1) page.append(counts(data.counts));
for (const warning of data.warnings) page.append(el("p", {}, `⚠ ${warning[0]}${warning[1] ? ` (${warning[1]})` : ""}`));
for (const base of data.bases) {
  const what = base.failure ? `was not built: ${base.failure}` : `ready after ${time((base.end ?? data.duration) - base.start)}`;
  page.append(el("p", { "data-base": base.name }, `base ${base.name} ${what}`));
}
data.matrices.forEach((one) => page.append(matrix(one)));
