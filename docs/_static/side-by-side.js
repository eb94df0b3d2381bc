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
  button.textContent = on ? "Tabs" : "Side by side";
}

document.addEventListener("DOMContentLoaded", () => {
  const sets = [...document.querySelectorAll(".sd-tab-set")].filter(
    (set) => set.querySelectorAll(':scope > label[data-sync-group="framework"]').length === 3,
  );
  if (sets.length === 0) return;
  sets.forEach((set) => set.classList.add("three-columns"));
  const button = document.createElement("button");
  button.type = "button";
  button.className = "side-by-side-button";
  button.title = "Show the three frameworks beside each other, or in tabs";
  layOut(button, remembered());
  button.addEventListener("click", () => {
    const on = !document.documentElement.classList.contains("side-by-side");
    layOut(button, on);
    remember(on);
  });
  document.body.append(button);
});
