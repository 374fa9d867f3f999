"use strict";
// The table of a page's many rows: order, filters, pages, paper, CSV. The page's other script says what it shows.
const at = (id) => document.getElementById(id);
const number = new Intl.NumberFormat("en-US");
const unpack = async () => {
  const packed = Uint8Array.from(atob(at("data").textContent), (char) => char.charCodeAt(0));
  const unpacked = new Blob([packed]).stream().pipeThrough(new DecompressionStream("deflate"));
  const data = JSON.parse(await new Response(unpacked).text());
  for (const column of Object.values(data.texts)) column.at = new Int32Array(column.at);
  data.text = (name, row) => data.texts[name].of[data.texts[name].at[row]];
  // Name, title, what orders it, what it shows, its class, which may depend on the row.
  data.column = (name, title, kind = null) => [name, title, data.texts[name].at, (row) => data.text(name, row), kind];
  const named = [["account", "Account"], ["catalog", "Catalog"], ["engagement", "Engagement"], ["resource", "Resource"], ["template", "Template"]];
  data.identity = named.filter(([name]) => ["engagement", "resource"].includes(name) || data.texts[name].of.length > 1)
    .map(([name, title]) => data.column(name, title));
  data.names = ["engagement", "resource", "account", "catalog", "template", "resource_type"].map((name) => [name, (row) => data.text(name, row)]);
  return data;
};
// noun: what a row is called. choice: the id of a filter, its number by row, its values. fields: of the CSV file.
const drawTable = ({ rows, texts }, { noun, columns, searched, choice: [choice, chosen, choices], onPaper, fields }) => {
  const PAGE = 100;
  // -- order: made once a column, walked forwards or backwards -------------------------------------
  const orders = new Map();
  const order = (name) => {
    if (!orders.has(name)) {
      const keys = columns.find((column) => column[0] === name)[2];
      orders.set(name, Int32Array.from({ length: rows }, (_, row) => row).sort((a, b) => keys[a] - keys[b] || a - b));
    }
    return orders.get(name);
  };

  // -- filter: every different text is looked at once ----------------------------------------------
  const lower = new Map();
  const lowered = (name) => {
    if (!lower.has(name)) lower.set(name, texts[name].of.map((each) => each.toLowerCase()));
    return lower.get(name);
  };
  const mark = (word, hits) => {
    for (const name of searched) {
      const different = lowered(name);
      const found = new Uint8Array(different.length);
      let any = 0;
      for (let each = 0; each < found.length; each++) any |= found[each] = different[each].includes(word);
      const places = texts[name].at;
      if (any) for (let row = 0; row < rows; row++) hits[row] |= found[places[row]];
    }
  };
  const wanted = (query, value, account) => {
    const keep = new Uint8Array(rows).fill(1);
    for (const word of query.toLowerCase().split(/\s+/).filter(Boolean)) {
      const hits = new Uint8Array(rows);
      mark(word, hits);
      for (let row = 0; row < rows; row++) keep[row] &= hits[row];
    }
    if (value !== "") for (let row = 0; row < rows; row++) keep[row] &= chosen[row] === +value;
    if (account !== "") for (let row = 0; row < rows; row++) keep[row] &= texts.account.at[row] === +account;
    return keep;
  };

  // -- what is shown -------------------------------------------------------------------------------
  const seen = { sort: null, down: false, page: 0, rows: new Int32Array(0) };
  const choose = () => {
    const keep = wanted(at("search").value, at(choice).value, at("account").value);
    const found = new Int32Array(rows);
    const walk = seen.sort ? order(seen.sort) : null;
    let length = 0;
    for (let place = 0; place < rows; place++) {
      const row = walk ? walk[seen.down ? rows - 1 - place : place] : place;
      if (keep[row]) found[length++] = row;
    }
    seen.rows = found.subarray(0, length);
    seen.page = 0;
    at("count").textContent = length === rows
      ? `${number.format(rows)} ${noun}s` : `${number.format(length)} of ${number.format(rows)} ${noun}s`;
    show();
  };
  const draw = (chosen) => {
    const lines = [];
    for (const row of chosen) {
      const line = document.createElement("tr");
      for (const [, , , value, kind] of columns) {
        const cell = document.createElement("td");
        cell.textContent = value(row);
        if (kind) cell.className = typeof kind === "function" ? kind(row) : kind;
        line.append(cell);
      }
      lines.push(line);
    }
    at("body").replaceChildren(...lines);
  };
  const show = () => {
    const { rows: chosen, page } = seen;
    const pages = Math.max(1, Math.ceil(chosen.length / PAGE));
    draw(chosen.subarray(page * PAGE, (page + 1) * PAGE));
    at("place").textContent = chosen.length
      ? `${noun[0].toUpperCase()}${noun.slice(1)}s ${number.format(page * PAGE + 1)} to ${number.format(Math.min(chosen.length, (page + 1) * PAGE))}, page ${number.format(page + 1)} of ${number.format(pages)}`
      : rows ? `No ${noun} matches` : `There are no ${noun}s`;
    at("first").disabled = at("previous").disabled = page === 0;
    at("next").disabled = at("last").disabled = page >= pages - 1;
  };
  const turn = (page) => {
    seen.page = Math.max(0, Math.min(Math.ceil(seen.rows.length / PAGE) - 1, page));
    show();
    at("frame").scrollTop = 0;
  };
  const sort = (name) => {
    seen.down = seen.sort === name && !seen.down;
    seen.sort = name;
    for (const head of at("head").children) {
      head.setAttribute("aria-sort", head.dataset.name !== name ? "none" : seen.down ? "descending" : "ascending");
    }
    choose();
  };

  // On paper: all rows of the filter that belong there; if there are none, the page that is shown.
  const print = () => {
    const [belongs, title] = onPaper;
    const printed = seen.rows.filter(belongs);
    at("printed").textContent = printed.length
      ? `${number.format(printed.length)} of ${number.format(rows)} ${noun}s: ${title}` : at("place").textContent;
    if (printed.length) draw(printed);
  };
  addEventListener("beforeprint", print);
  addEventListener("afterprint", show);

  // -- the rows as a file ------------------------------------------------------------------------
  // A spreadsheet takes some beginnings of a text for a formula.
  const cell = (value) => `"${String(value).replace(/^[ \u00a0\u3000]*[=+\-@\t\r\n＝＋－＠]/, "'$&").replaceAll('"', '""')}"`;
  const save = () => {
    const lines = [fields.map(([name]) => name).join(",")];
    for (const row of seen.rows) lines.push(fields.map(([, value]) => cell(value(row))).join(","));
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob(["\ufeff", lines.join("\r\n"), "\r\n"], { type: "text/csv" }));
    link.download = `${noun}s.csv`;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 60000);
  };

  // -- controls ------------------------------------------------------------------------------------
  for (const [name, title, , , kind] of columns) {
    const head = document.createElement("th");
    head.scope = "col";
    head.dataset.name = name;
    head.setAttribute("aria-sort", "none");
    if (typeof kind === "string" && kind.startsWith("n")) head.className = kind;
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = title;
    button.addEventListener("click", () => sort(name));
    head.append(button);
    at("head").append(head);
  }
  const fill = (select, values) => values.forEach(([value, title]) => select.append(new Option(title, value)));
  const tallies = choices.map(() => 0);
  for (const each of chosen) tallies[each]++;
  fill(at(choice), choices.map((name, each) => [each, `${name} (${number.format(tallies[each])})`])
    .filter(([each]) => tallies[each]));
  if (texts.account.of.length > 1) {
    fill(at("account"), texts.account.of.map((name, each) => [each, name]));
    at("account-filter").hidden = false;
  }
  let waiting = 0;
  at("search").addEventListener("input", () => {
    cancelAnimationFrame(waiting);
    waiting = requestAnimationFrame(choose);
  });
  at(choice).addEventListener("change", choose);
  at("account").addEventListener("change", choose);
  at("filters").addEventListener("submit", (event) => event.preventDefault());
  const clear = () => {
    at("search").value = at(choice).value = at("account").value = "";
  };
  at("clear").addEventListener("click", () => { clear(); choose(); at("search").focus(); });
  at("save").addEventListener("click", save);
  at("first").addEventListener("click", () => turn(0));
  at("previous").addEventListener("click", () => turn(seen.page - 1));
  at("next").addEventListener("click", () => turn(seen.page + 1));
  at("last").addEventListener("click", () => turn(Infinity));
  for (const button of document.querySelectorAll("button.show")) {
    button.hidden = false;
    button.addEventListener("click", () => {
      clear();
      at("search").value = button.dataset.search ?? "";
      at(choice).value = choices.indexOf(button.dataset.choice);
      choose();
      at("rows").focus();
    });
  }
  at("table-of-rows").hidden = false;
  choose();
  // What the first search and the first sorting need is made while nobody waits for it.
  const idle = window.requestIdleCallback ?? ((work) => setTimeout(work, 50));
  const ahead = [...searched.map((name) => () => lowered(name)), ...columns.map(([name]) => () => order(name))];
  const prepare = () => { ahead.shift()?.(); if (ahead.length) idle(prepare); };
  idle(prepare);
};
