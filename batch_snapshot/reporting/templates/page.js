"use strict";
(() => {
  const copy = async (button) => {
    try {
      await navigator.clipboard.writeText(button.previousElementSibling.textContent);
      button.textContent = "Copied";
    } catch {
      getSelection().selectAllChildren(button.previousElementSibling);
      button.textContent = "Press Ctrl-C";
    }
    setTimeout(() => { button.textContent = "Copy"; }, 2000);
  };
  document.addEventListener("click", (event) => {
    if (event.target.matches("button.copy")) copy(event.target);
  });
  for (const button of document.querySelectorAll("button.copy")) button.hidden = false;

  document.addEventListener("input", (event) => {
    if (event.target.id !== "group-search") return;
    const query = event.target.value.toLowerCase().split(/\s+/).filter(Boolean);
    const groups = [...document.querySelectorAll(".group")];
    for (const group of groups) {
      const words = group.textContent.toLowerCase();
      group.hidden = !query.every((word) => words.includes(word));
    }
    const left = groups.filter((group) => !group.hidden).length;
    document.getElementById("group-count").textContent = query.length ? `${left} of ${groups.length} groups` : "";
  });
})();
