(async () => {
  const data = await unpack();
  const { texts, numbers, text } = data;
  const revision = (name, row) => numbers[name][row] || "?";
  const revisions = (row) => `${revision("revision_before", row)} → ${revision("revision_after", row)}`;
  drawTable(data, {
    noun: "change",
    columns: [
      ...data.identity,
      ["revision", "Revision", numbers.revision_after, revisions, "n extra"],
      ["field", "Field", texts.path.at, (row) => text("path", row), null],
      data.column("before", "Before", "wrap half"),
      data.column("after", "After", "wrap half"),
    ],
    searched: ["account", "catalog", "engagement", "resource_type", "resource", "template", "path", "before", "after"],
    choice: ["field", texts.field.at, texts.field.of],
    onPaper: [() => true, "those of the filter"],
    fields: [
      ...data.names,
      ...["revision_before", "revision_after"].map((name) => [name, (row) => numbers[name][row] || ""]),
      ...["path", "before", "after"].map((name) => [name === "path" ? "field" : name, (row) => text(name, row)]),
    ],
  });
})();
