"use strict";
(() => {
  const all = (selector, root = document) => [...root.querySelectorAll(selector)];
  for (const button of all(".more")) {
    button.addEventListener("click", () => {
      const open = button.previousElementSibling.classList.toggle("open");
      button.setAttribute("aria-expanded", open);
      button.textContent = open ? "Show less" : "Show all";
    });
  }
  const list = document.getElementById("hits");
  const orders = all(".order button");
  for (const button of orders) {
    button.addEventListener("click", () => {
      for (const other of orders) other.setAttribute("aria-pressed", other === button);
      const value = (hit) => parseFloat(hit.getAttribute("data-" + button.dataset.key) ?? "-Infinity");
      const rank = (hit) => Number(hit.dataset.rank);
      list.append(...all(".hit", list).sort((a, b) => (value(b) - value(a) || 0) || rank(a) - rank(b)));
    });
  }
  if (list) {
    document.addEventListener("keydown", (event) => {
      if (event.ctrlKey || event.metaKey || event.altKey || !["j", "k"].includes(event.key)) return;
      const hits = all(".hit", list);
      const here = hits.indexOf(document.activeElement.closest(".hit"));
      const next = hits[Math.min(Math.max(here + (event.key === "j" ? 1 : -1), 0), hits.length - 1)];
      if (next) next.focus();
    });
  }
  const aligned = document.getElementById("aligned");
  if (!aligned) return;
  const tokens = all(".token"), places = all(".place", aligned);
  let pinned = null;
  const targets = (token) => token.dataset.to ? token.dataset.to.split(" ") : [];
  const show = (token) => {
    aligned.classList.toggle("live", token !== null);
    const wanted = token ? targets(token) : [];
    for (const place of places) {
      const rank = wanted.indexOf(place.dataset.place);
      place.classList.toggle("on", rank >= 0);
      place.classList.toggle("best", rank === 0);
    }
    for (const other of tokens) other.classList.toggle("on", other === token);
  };
  for (const token of tokens) {
    token.addEventListener("mouseenter", () => show(token));
    token.addEventListener("mouseleave", () => show(pinned));
    token.addEventListener("focus", () => show(token));
    token.addEventListener("blur", () => show(pinned));
    token.addEventListener("click", () => {
      pinned = pinned === token ? null : token;
      for (const other of tokens) other.setAttribute("aria-pressed", other === pinned);
      show(pinned);
    });
    token.addEventListener("keydown", (event) => {
      const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
      if (step) tokens[(tokens.indexOf(token) + step + tokens.length) % tokens.length].focus();
      if (event.key === "Escape") token.blur();
    });
  }
  for (const place of places) {
    const asking = tokens.filter((token) => targets(token).includes(place.dataset.place));
    place.addEventListener("mouseenter", () => asking.forEach((token) => token.classList.add("on")));
    place.addEventListener("mouseleave", () => asking.forEach((token) => token.classList.toggle("on", token === pinned)));
  }
})();
