"use strict";
// Filters, sorting, copying and sliders of the report's pages. Everything is on the page without it.
document.documentElement.classList.add("js");
const all = (selector, root = document) => Array.from(root.querySelectorAll(selector));

// Sliders: the layer of a heat map over its picture. The maps of all layers lie side by side in one image.
for (const heat of all(".heat")) {
  const slider = heat.querySelector("input"), map = heat.querySelector(".large .map");
  if (!slider) continue;
  const width = Number(heat.dataset.width), said = heat.querySelector("output");
  const show = () => {
    map.setAttribute("x", String(-width * (Number(slider.value) - 1)));
    said.textContent = slider.value;
    slider.setAttribute("aria-valuetext", "layer " + slider.value);
  };
  slider.addEventListener("input", show);
  show();
}

// Sorting: a click on a heading sorts by it, numbers by their first number.
const number = (text) => {
  const found = text.replace(/−/g, "-").match(/[-+]?\d+(\.\d+)?/);
  return found ? Number(found[0]) : NaN;
};
const isNumber = (text) => /^[-+−]?\d|^n\/a|^[–-]?$/.test(text);
const cellText = (row, column) => row.cells[column] ? row.cells[column].textContent.trim() : "";

function sort(table, column, heading) {
  const up = heading.getAttribute("aria-sort") !== "ascending", body = table.tBodies[0], rows = Array.from(body.rows);
  const numeric = rows.every((row) => isNumber(cellText(row, column)));
  const key = (row) => numeric ? number(cellText(row, column)) : cellText(row, column);
  rows.sort((one, other) => {
    const a = key(one), b = key(other);
    if (numeric) return (isNaN(a) - isNaN(b)) || (up ? a - b : b - a);
    return up ? a.localeCompare(b) : b.localeCompare(a);
  });
  all("th", table).forEach((th) => th.removeAttribute("aria-sort"));
  heading.setAttribute("aria-sort", up ? "ascending" : "descending");
  body.append(...rows);
}

for (const table of all("table.sortable")) {
  all("thead th", table).forEach((heading, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.className = "sort";
    button.append(...heading.childNodes);
    heading.append(button);
    button.addEventListener("click", () => sort(table, column, heading));
  });
}

// Copying: a table as text with tabs, as spreadsheets take it.
function copy(text, done) {
  const fallback = () => {
    const area = document.createElement("textarea");
    area.value = text;
    document.body.append(area);
    area.select();
    document.execCommand("copy");
    area.remove();
    done();
  };
  if (navigator.clipboard) navigator.clipboard.writeText(text).then(done, fallback);
  else fallback();
}

for (const tools of all(".tools[data-table]")) {
  const table = document.getElementById(tools.dataset.table), button = document.createElement("button");
  if (!table) continue;
  button.type = "button";
  button.textContent = "Copy";
  button.addEventListener("click", () => {
    const line = (row) => Array.from(row.cells, (cell) => cell.innerText.trim().replace(/\s+/g, " ")).join("\t");
    copy(Array.from(table.rows, line).join("\n"), () => {
      button.textContent = "Copied";
      setTimeout(() => { button.textContent = "Copy"; }, 1500);
    });
  });
  tools.append(" ", button);
}

// Filters: an entry stays that has every chosen word, and the text that was typed.
for (const form of all("form.filters")) {
  const entries = all("[data-words]", document.getElementById(form.dataset.of)), said = form.querySelector("output");
  const controls = all("input, select", form);
  const show = () => {
    const words = controls.filter((c) => c.type === "checkbox" ? c.checked : c.tagName === "SELECT" && c.value)
      .map((c) => c.value);
    const typed = controls.filter((c) => c.type === "search").map((c) => c.value.trim().toLowerCase()).join("");
    let shown = 0;
    for (const entry of entries) {
      const own = entry.dataset.words.split("|");
      entry.hidden = !(words.every((word) => own.includes(word)) && entry.textContent.toLowerCase().includes(typed));
      shown += !entry.hidden;
    }
    said.textContent = shown + " of " + entries.length + " shown";
  };
  form.addEventListener("input", show);
  form.addEventListener("submit", (event) => event.preventDefault());
  form.hidden = false;
  show();
}

// A link to something folded, or filtered out, opens it.
function reveal() {
  const target = location.hash.length > 1 && document.getElementById(decodeURIComponent(location.hash.slice(1)));
  if (!target) return;
  for (let at = target; at; at = at.parentElement) {
    if (at.tagName === "DETAILS") at.open = true;
    at.hidden = false;
  }
  target.scrollIntoView();
}
addEventListener("hashchange", reveal);
addEventListener("beforeprint", () => all("details").forEach((details) => { details.open = true; }));
reveal();
