// What HTML and htmx cannot do alone: open and close the dialog, and keep the focus in its place.
"use strict";

(() => {
  const dialog = () => document.getElementById("dialog");

  document.addEventListener("htmx:afterSwap", (event) => {
    const shown = dialog();
    if (!shown || !shown.contains(event.detail.target)) return;
    if (!shown.open) shown.showModal();
    const first = shown.querySelector("[aria-invalid='true']") || shown.querySelector("[data-result]");
    if (first) {
      first.focus();
      first.scrollIntoView({ block: "center" });
    }
  });

  // A refusal is a page like any other: show it. Without an answer, say so.
  document.addEventListener("htmx:beforeSwap", (event) => {
    const status = event.detail.xhr.status;
    if (status === 400 || status === 404 || status === 409 || status === 422) {
      event.detail.shouldSwap = true;
      event.detail.isError = false;
    }
    // The session has ended: go and sign in.
    if (status === 401) window.location.reload();
  });
  const lost = (shown) => {
    const line = document.getElementById("connection");
    if (line) line.hidden = !shown;
  };
  document.addEventListener("htmx:sendError", () => lost(true));
  document.addEventListener("htmx:responseError", () => lost(true));
  document.addEventListener("htmx:afterOnLoad", () => lost(false));

  document.addEventListener("click", (event) => {
    const closer = event.target.closest("[data-close]");
    if (closer && dialog() && dialog().open) {
      event.preventDefault();
      dialog().close();
    }
    const copier = event.target.closest("[data-copy]");
    if (copier) {
      navigator.clipboard.writeText(copier.dataset.copy).then(() => {
        const before = copier.textContent;
        copier.textContent = "Copied";
        window.setTimeout(() => { copier.textContent = before; }, 1500);
      });
    }
  });

  // The opened event is closed with Escape too, and the focus returns to its row.
  document.addEventListener("keydown", (event) => {
    const opened = document.querySelector("#event article");
    if (event.key !== "Escape" || !opened || (dialog() && dialog().open)) return;
    const row = document.getElementById(`open-${opened.dataset.event}`);
    document.getElementById("event").replaceChildren();
    document.querySelectorAll("tr.chosen").forEach((each) => each.classList.remove("chosen"));
    if (row) row.focus();
  });
  document.addEventListener("htmx:afterSwap", (event) => {
    if (event.detail.target.id !== "event") return;
    document.querySelectorAll("tr.chosen").forEach((each) => each.classList.remove("chosen"));
    const opened = event.detail.target.querySelector("article");
    if (!opened) return;
    const link = document.getElementById(`open-${opened.dataset.event}`);
    if (link) link.closest("tr").classList.add("chosen");
    opened.focus();
  });
})();
