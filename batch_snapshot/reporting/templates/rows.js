"use strict";
(async () => {
  const PAGE = 100;
  const at = (id) => document.getElementById(id);
  const packed = Uint8Array.from(atob(at("data").textContent), (char) => char.charCodeAt(0));
  const unpacked = new Blob([packed]).stream().pipeThrough(new DecompressionStream("deflate"));
  const data = JSON.parse(await new Response(unpacked).text());
  const { rows, texts, numbers, statuses, since } = data;
  for (const column of Object.values(texts)) column.at = new Int32Array(column.at);
  const text = (name, row) => texts[name].of[texts[name].at[row]];
  const words = (status) => status.replaceAll("_", " ");
  const number = new Intl.NumberFormat("en-US");
  const several = (name) => texts[name].of.length > 1;
  const arn = (row) => text("arn", row);
  const time = (ms) => (ms < 0 ? "" : new Date(since + ms).toISOString().replace("T", " ").slice(0, 19));
  const span = (ms) => (ms < 1000 ? `${ms} ms` : `${number.format(Math.round(ms / 100) / 10)} s`);
  const { waited, called } = numbers;
  const took = (row) => (called[row] < 0 ? "" : (waited[row] < 0 ? "" : `${span(waited[row])} + `) + span(called[row]));
  numbers.took = called.map((ms, row) => ms + Math.max(0, waited[row]));
  const what = (row) => {
    const error = text("error", row);
    if (!error) return arn(row) + (numbers.looked[row] ? " (found by a look-up)" : "");
    const request = text("request", row);
    return error + (request ? ` [request ${request}]` : "");
  };

  // name, title, what orders it, what it shows, its class
  const columns = [
    ["status", "Status", numbers.status, (row) => words(statuses[numbers.status[row]]), null],
    ["account", "Account", texts.account.at, (row) => text("account", row), null],
    ["catalog", "Catalog", texts.catalog.at, (row) => text("catalog", row), null],
    ["engagement", "Engagement", texts.engagement.at, (row) => text("engagement", row), null],
    ["resource", "Resource", texts.resource.at, (row) => text("resource", row), null],
    ["template", "Template", texts.template.at, (row) => text("template", row), null],
    ["revision", "Revision", numbers.revision, (row) => numbers.revision[row] || "", "n extra"],
    ["attempts", "Tries", numbers.attempts, (row) => numbers.attempts[row] || "", "n extra"],
    ["throttles", "Throttles", numbers.throttles, (row) => numbers.throttles[row] || "", "n extra"],
    ["took", "Wait + call", numbers.took, took, "n extra"],
    ["finished", "Finished (UTC)", numbers.finished, (row) => time(numbers.finished[row]), null],
    ["error", "Error, or arn", texts.error.at, what, "wrap"],
  ].filter(([name]) => !["account", "catalog", "template"].includes(name) || several(name))
    .filter(([name]) => !["revision", "throttles"].includes(name) || numbers[name].some(Boolean));

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
  const searched = ["account", "catalog", "engagement", "resource_type", "resource", "template", "error", "request", "arn"];
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
  const wanted = (query, status, account) => {
    const keep = new Uint8Array(rows).fill(1);
    for (const word of query.toLowerCase().split(/\s+/).filter(Boolean)) {
      const hits = new Uint8Array(rows);
      mark(word, hits);
      for (let row = 0; row < rows; row++) keep[row] &= hits[row];
    }
    if (status !== "") for (let row = 0; row < rows; row++) keep[row] &= numbers.status[row] === +status;
    if (account !== "") for (let row = 0; row < rows; row++) keep[row] &= texts.account.at[row] === +account;
    return keep;
  };

  // -- what is shown -------------------------------------------------------------------------------
  const seen = { sort: null, down: false, page: 0, rows: new Int32Array(0) };
  const choose = () => {
    const keep = wanted(at("search").value, at("status").value, at("account").value);
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
      ? `${number.format(rows)} rows` : `${number.format(length)} of ${number.format(rows)} rows`;
    show();
  };
  const draw = (chosen) => {
    const lines = [];
    for (const row of chosen) {
      const line = document.createElement("tr");
      for (const [name, , , value, kind] of columns) {
        const cell = document.createElement("td");
        cell.textContent = value(row);
        if (kind) cell.className = kind;
        if (name === "status") cell.className = statuses[numbers.status[row]];
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
      ? `Rows ${number.format(page * PAGE + 1)} to ${number.format(Math.min(chosen.length, (page + 1) * PAGE))}, page ${number.format(page + 1)} of ${number.format(pages)}`
      : "No row matches";
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

  // On paper: all rows of the filter that did not succeed; if there are none, the page that is shown.
  const print = () => {
    const unsettled = seen.rows.filter((row) => numbers.status[row] < 3);
    at("printed").textContent = unsettled.length
      ? `${number.format(unsettled.length)} of ${number.format(rows)} rows: those that did not succeed` : at("place").textContent;
    if (unsettled.length) draw(unsettled);
  };
  addEventListener("beforeprint", print);
  addEventListener("afterprint", show);

  // -- the rows as a file ------------------------------------------------------------------------
  const fields = [
    ...["engagement", "resource", "account", "catalog", "template", "resource_type"].map((name) => [name, (row) => text(name, row)]),
    ["status", (row) => statuses[numbers.status[row]]],
    ...["revision", "attempts", "throttles"].map((name) => [name, (row) => numbers[name][row] || ""]),
    ["arn", arn],
    ["error", (row) => text("error", row)],
    ["request_id", (row) => text("request", row)],
    ["finished_at", (row) => (numbers.finished[row] < 0 ? "" : new Date(since + numbers.finished[row]).toISOString())],
  ];
  // A spreadsheet takes some beginnings of a text for a formula.
  const cell = (value) => `"${String(value).replace(/^[ \u00a0\u3000]*[=+\-@\t\r\n＝＋－＠]/, "'$&").replaceAll('"', '""')}"`;
  const save = () => {
    const lines = [fields.map(([name]) => name).join(",")];
    for (const row of seen.rows) lines.push(fields.map(([, value]) => cell(value(row))).join(","));
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob(["\ufeff", lines.join("\r\n"), "\r\n"], { type: "text/csv" }));
    link.download = "rows.csv";
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 60000);
  };

  // -- controls ------------------------------------------------------------------------------------
  for (const [name, title, , , kind] of columns) {
    const head = document.createElement("th");
    head.scope = "col";
    head.dataset.name = name;
    head.setAttribute("aria-sort", "none");
    if (kind?.startsWith("n")) head.className = kind;
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = title;
    button.addEventListener("click", () => sort(name));
    head.append(button);
    at("head").append(head);
  }
  const fill = (select, values) => values.forEach(([value, title]) => select.append(new Option(title, value)));
  const tallies = statuses.map(() => 0);
  for (const status of numbers.status) tallies[status]++;
  fill(at("status"), statuses.map((status, each) => [each, `${words(status)} (${number.format(tallies[each])})`])
    .filter(([each]) => tallies[each]));
  if (several("account")) {
    fill(at("account"), texts.account.of.map((name, each) => [each, name]));
    at("account-filter").hidden = false;
  }
  let waiting = 0;
  at("search").addEventListener("input", () => {
    cancelAnimationFrame(waiting);
    waiting = requestAnimationFrame(choose);
  });
  at("status").addEventListener("change", choose);
  at("account").addEventListener("change", choose);
  at("filters").addEventListener("submit", (event) => event.preventDefault());
  const clear = () => {
    at("search").value = at("status").value = at("account").value = "";
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
      at("search").value = button.dataset.code;
      at("status").value = statuses.indexOf(button.dataset.status);
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
})();
