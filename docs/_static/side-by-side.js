// The three-column view: a button that lays the tabs of each set beside each other, and is remembered.
// Without it, and where the window is narrow, the tabs are sphinx-design's: radio buttons that switch together.

"use strict";

const KEY = "three-tabs-side-by-side";

function remembered() {
  try {
    return localStorage.getItem(KEY) === "yes";
  } catch {
    return false; // a browser may refuse to store anything
  }
}

function remember(on) {
  try {
    localStorage.setItem(KEY, on ? "yes" : "no");
  } catch {
    // then it is forgotten
  }
}

function layOut(button, on) {
  document.documentElement.classList.toggle("side-by-side", on);
  button.setAttribute("aria-pressed", String(on));
}

// Return what scrolls an element back to where the reader looks at it now, when the page has changed.
function keptInPlace(element) {
  const { top } = element.getBoundingClientRect();
  return () =>
    window.scrollBy({ top: element.getBoundingClientRect().top - top, behavior: "instant" });
}

function firstInSight(elements) {
  return elements.find((element) => element.getBoundingClientRect().bottom > 0) ?? elements.at(-1);
}

function offerSideBySide(sets) {
  const button = document.createElement("button");
  button.type = "button";
  button.className = "side-by-side-button";
  button.title = "Show the frameworks beside each other, or in tabs";
  button.textContent = "Side by side";
  layOut(button, remembered());
  button.addEventListener("click", () => {
    const on = button.getAttribute("aria-pressed") !== "true";
    const goBack = keptInPlace(firstInSight(sets));
    layOut(button, on);
    goBack();
    remember(on);
  });
  document.querySelector(".content-icon-container").prepend(button);
}

// What scrolls sideways is reached with the keyboard, for as long as it does.
const reachable = new ResizeObserver((entries) => {
  for (const { target } of entries) {
    if (target.scrollWidth > target.clientWidth) target.tabIndex = 0;
    else target.removeAttribute("tabindex");
  }
});

document.addEventListener("DOMContentLoaded", () => {
  document
    .querySelectorAll(".highlight pre, .table-wrapper")
    .forEach((element) => reachable.observe(element));
  const sets = [...document.querySelectorAll(".sd-tab-set")].filter((set) =>
    set.querySelector(':scope > label[data-sync-group="framework"]'),
  );
  for (const set of sets) {
    set.setAttribute("role", "radiogroup");
    set.setAttribute("aria-label", "Framework");
  }
  // All sets switch with the one that is used, and those above it grow or shrink: it stays where it is. (Other keys lead
  // out of it.)
  for (const kind of ["click", "keydown"]) {
    document.addEventListener(
      kind,
      (event) => {
        const used = event.target.closest(".sd-tab-set > :is(input, label)");
        if (used && (kind === "click" || event.key.startsWith("Arrow"))) {
          setTimeout(keptInPlace(used.parentElement));
        }
      },
      { capture: true },
    );
  }
  const wide = sets.filter((set) => set.querySelectorAll(":scope > label").length >= 3);
  for (const set of wide) set.classList.add("three-columns");
  if (wide.length > 0) offerSideBySide(wide);
});
