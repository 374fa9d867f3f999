"use strict";
(() => {
  const state = document.getElementById("live");
  const control = document.getElementById("control");
  const tell = (server) => {
    const over = document.querySelector("[data-over]")?.dataset.over;
    const text = [over, server].filter(Boolean).join(" ") || "Live";
    if (state.textContent !== text) state.textContent = text;
    for (const button of control?.querySelectorAll("button") ?? []) button.disabled = Boolean(over);
    // The links lead to a server that does not answer now.
    for (const link of document.querySelectorAll("#bar a")) link.hidden = Boolean(server);
  };
  // What a person has opened, scrolled and typed stays as it is.
  const swap = (name, html) => {
    const part = document.getElementById(`part-${name}`);
    const open = [...part.querySelectorAll("details[open]")].map((each) => each.id);
    const scrolled = [...part.querySelectorAll(".scroll")].map((each) => [each.scrollLeft, each.scrollTop]);
    const search = part.querySelector("input");
    const focused = part.contains(document.activeElement) && document.activeElement.id;
    part.innerHTML = html;
    for (const id of open) document.getElementById(id)?.setAttribute("open", "");
    part.querySelectorAll(".scroll").forEach((each, at) => each.scrollTo(...(scrolled[at] ?? [0, 0])));
    for (const button of part.querySelectorAll("button.copy")) button.hidden = false;
    if (search?.value && part.querySelector("input")) {
      part.querySelector("input").value = search.value;
      part.querySelector("input").dispatchEvent(new Event("input", { bubbles: true }));
    }
    if (focused) document.getElementById(focused)?.focus();
  };
  const show = (event) => {
    const { title, parts, ledger } = JSON.parse(event.data);
    // The page was opened before the run had begun: only now is there a report to link to.
    if (ledger && !document.querySelector("main").dataset.ledger) location.reload();
    document.title = title;
    for (const [name, html] of Object.entries(parts)) swap(name, html);
    tell();
  };
  const connect = () => {
    const events = new EventSource(document.querySelector("main").dataset.events);
    let ended = false;
    events.onopen = () => { ended = false; tell(); };
    events.addEventListener("parts", show);
    events.addEventListener("end", () => { ended = true; });
    events.onerror = () => {
      tell(ended
        ? "The server has ended: this is its last state. The page continues when it is back."
        : "The connection is lost; trying again …");
      if (events.readyState === EventSource.CLOSED) setTimeout(connect, 2000);
    };
  };
  connect();

  const answer = document.getElementById("answer");
  const send = async (event) => {
    event.preventDefault();
    const form = event.target;
    if (form.dataset.question && !confirm(form.dataset.question)) return;
    const { value, account } = Object.fromEntries(new FormData(form));
    answer.className = "";
    answer.textContent = "Sending …";
    try {
      const response = await fetch(control.dataset.address, {
        method: "POST",
        headers: { "Content-Type": "application/json" },
        body: JSON.stringify({ action: form.dataset.action, value, account: account || null }),
      });
      if (!response.ok) answer.className = "failed";
      answer.textContent = await response.text();
    } catch {
      answer.className = "failed";
      answer.textContent = "The server does not answer, so it is not known whether the run took this command.";
    }
  };
  control?.addEventListener("submit", send);
  control?.removeAttribute("hidden");
})();
