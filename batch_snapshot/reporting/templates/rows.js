(async () => {
  const data = await unpack();
  const { texts, numbers, statuses, since, text } = data;
  const words = (status) => status.replaceAll("_", " ");
  const time = (ms) => (ms < 0 ? "" : new Date(since + ms).toISOString().replace("T", " ").slice(0, 19));
  const span = (ms) => (ms < 1000 ? `${ms} ms` : `${number.format(Math.round(ms / 100) / 10)} s`);
  const { waited, called } = numbers;
  const took = (row) => (called[row] < 0 ? "" : (waited[row] < 0 ? "" : `${span(waited[row])} + `) + span(called[row]));
  numbers.took = called.map((ms, row) => ms + Math.max(0, waited[row]));
  const what = (row) => {
    const error = text("error", row);
    if (!error) return text("arn", row) + (numbers.looked[row] ? " (found by a look-up)" : "");
    const request = text("request", row);
    return error + (request ? ` [request ${request}]` : "");
  };
  const status = (row) => statuses[numbers.status[row]];
  const amount = (name, title) => [name, title, numbers[name], (row) => numbers[name][row] || "", "n extra"];
  drawTable(data, {
    noun: "row",
    columns: [
      ["status", "Status", numbers.status, (row) => words(status(row)), status],
      ...data.identity,
      ...[amount("revision", "Revision")].filter(() => numbers.revision.some(Boolean)),
      amount("attempts", "Tries"),
      ...[amount("throttles", "Throttles")].filter(() => numbers.throttles.some(Boolean)),
      ["took", "Wait + call", numbers.took, took, "n extra"],
      ["finished", "Finished (UTC)", numbers.finished, (row) => time(numbers.finished[row]), null],
      ["error", "Error, or arn", texts.error.at, what, "wrap"],
    ],
    searched: ["account", "catalog", "engagement", "resource_type", "resource", "template", "error", "request", "arn"],
    choice: ["status", numbers.status, statuses.map(words)],
    onPaper: [(row) => numbers.status[row] < 3, "those that did not succeed"],
    fields: [
      ...data.names,
      ["status", status],
      ...["revision", "attempts", "throttles"].map((name) => [name, (row) => numbers[name][row] || ""]),
      ["arn", (row) => text("arn", row)],
      ["error", (row) => text("error", row)],
      ["request_id", (row) => text("request", row)],
      ["finished_at", (row) => (numbers.finished[row] < 0 ? "" : new Date(since + numbers.finished[row]).toISOString())],
    ],
  });
})();
