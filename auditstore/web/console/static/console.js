// What HTML and htmx cannot do alone: open and close the dialog, and keep the focus in its place.
"use strict";

(() => {
  const dialog = () => document.getElementById("dialog");

  document.addEventListener("htmx:afterSwap", (event) => {
    const shown = dialog();
    // Not for the preview, which renews itself while somebody types.
    if (!shown || !["dialog-content", "stream-answer"].includes(event.detail.target.id)) return;
    if (!shown.open && shown.contains(event.detail.target)) shown.showModal();
    markFaults(event.detail.target.closest("form") || shown);
    const first = document.querySelector("[aria-invalid='true']") || document.querySelector("[data-result]");
    if (first) {
      const closed = first.closest("details:not([open])");
      if (closed) closed.open = true;
      first.focus();
      first.scrollIntoView({ block: "center" });
    }
  });

  // The faults' texts are swapped in beside the fields; the fields themselves, and what was typed
  // into them, stay as they are.
  const markFaults = (form) => {
    form.querySelectorAll("[aria-describedby*='error-']").forEach((field) => {
      const about = document.getElementById(`error-${field.id}`);
      if (about && about.textContent.trim()) field.setAttribute("aria-invalid", "true");
      else field.removeAttribute("aria-invalid");
    });
  };

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
  const markChosen = () => {
    document.querySelectorAll("tr.chosen").forEach((each) => each.classList.remove("chosen"));
    const opened = document.querySelector("#event article");
    const link = opened && document.getElementById(`open-${opened.dataset.event}`);
    if (link) link.closest("tr").classList.add("chosen");
    return opened;
  };
  document.addEventListener("htmx:afterSwap", (event) => {
    const swapped = event.detail.target.id;
    if (swapped === "list") markChosen();
    if (swapped !== "event" && !event.detail.target.closest("#event")) return;
    const opened = markChosen();
    if (opened) opened.focus();
  });
})();
