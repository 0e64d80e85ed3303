"use strict";
// Each comparison is a box with one pane per layer: the left one lies below, the right one above, cut at the divider.
for (const root of document.querySelectorAll("[data-compare]")) {
  const box = root.querySelector(".box");
  const panes = [...root.querySelectorAll(".pane")];
  const range = root.querySelector("input[type=range]");
  const zoom = root.querySelector("[data-zoom]");
  const sides = ["left", "right"];
  const select = (side) => root.querySelector(`select[data-side=${side}]`);
  const layer = (side) => Number(select(side).value);
  const nameOf = (side) => select(side).selectedOptions[0].text;
  const clamp = (value, low, high) => Math.min(Math.max(value, low), high);
  const state = { zoom: 1, x: 0, y: 0 }; // x, y: the picture's corner in box widths and heights, 0 or less
  const before = { left: layer("left"), right: layer("right") };

  function draw() {
    for (const side of sides) {
      panes.forEach((pane, i) => pane.classList.toggle(side, i === layer(side)));
      root.querySelector(`.tag.${side}`).textContent = nameOf(side);
      before[side] = layer(side);
    }
    box.style.setProperty("--at", `${range.value}%`);
    box.style.setProperty("--zoom", state.zoom);
    box.style.setProperty("--x", state.x);
    box.style.setProperty("--y", state.y);
    box.classList.toggle("zoomed", state.zoom > 1);
    // Pixels that are enlarged are shown as what they are.
    box.classList.toggle("crisp", (box.clientWidth * state.zoom) / panes[0].firstChild.naturalWidth >= 2);
    const share = Math.round(range.value);
    range.setAttribute("aria-valuetext", `${share} % ${nameOf("left")}, ${100 - share} % ${nameOf("right")}`);
  }

  function moveTo(x, y) {
    state.x = clamp(x, 1 - state.zoom, 0);
    state.y = clamp(y, 1 - state.zoom, 0);
    draw();
  }

  function flip() {
    [select("left").value, select("right").value] = [select("right").value, select("left").value];
    draw();
  }

  for (const side of sides) {
    const other = side === "left" ? "right" : "left";
    select(side).addEventListener("change", () => {
      // A layer against itself shows nothing: the other side takes what this one had.
      if (layer(side) === layer(other)) select(other).value = before[side];
      draw();
    });
  }
  root.querySelector("[data-flip]").addEventListener("click", flip);
  zoom.addEventListener("change", () => {
    // The middle of the box stays where it is.
    const grown = Number(zoom.value) / state.zoom;
    state.zoom = Number(zoom.value);
    moveTo(0.5 - (0.5 - state.x) * grown, 0.5 - (0.5 - state.y) * grown);
  });

  const arrows = { ArrowLeft: [1, 0], ArrowRight: [-1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] };
  range.addEventListener("input", draw);
  range.addEventListener("keydown", (event) => {
    const arrow = arrows[event.key];
    if (!arrow) return;
    event.preventDefault();
    if (event.shiftKey) {
      moveTo(state.x + 0.1 * arrow[0], state.y + 0.1 * arrow[1]);
    } else {
      range.value = Number(range.value) - arrow[0] + arrow[1];
      draw();
    }
  });
  root.addEventListener("keydown", (event) => {
    const plain = !event.ctrlKey && !event.metaKey && !event.altKey;
    // Letters choose an option while a list has the focus.
    if (event.key.toLowerCase() === "f" && plain && event.target.tagName !== "SELECT") flip();
  });

  let drag = null;
  function setDivider(event) {
    const place = box.getBoundingClientRect();
    range.value = (100 * (event.clientX - place.left)) / place.width;
    draw();
  }
  box.addEventListener("pointerdown", (event) => {
    if (event.button !== 0) return;
    const place = box.getBoundingClientRect();
    const distance = Math.abs(event.clientX - place.left - (place.width * range.value) / 100);
    const panning = state.zoom > 1 && distance > 24;
    drag = { panning, x: event.clientX, y: event.clientY, fromX: state.x, fromY: state.y };
    box.setPointerCapture(event.pointerId);
    box.classList.toggle("dragging", panning);
    // A finger that comes down may be about to scroll the page; a mouse is not.
    if (!panning && event.pointerType === "mouse") setDivider(event);
    event.preventDefault();
    range.focus({ preventScroll: true });
  });
  box.addEventListener("pointermove", (event) => {
    if (!drag) return;
    if (drag.panning) {
      const x = drag.fromX + (event.clientX - drag.x) / box.clientWidth;
      moveTo(x, drag.fromY + (event.clientY - drag.y) / box.clientHeight);
    } else {
      setDivider(event);
    }
  });
  box.addEventListener("pointerup", (event) => {
    if (drag && !drag.panning) setDivider(event);
  });
  box.addEventListener("lostpointercapture", () => {
    drag = null;
    box.classList.remove("dragging");
  });
  new ResizeObserver(draw).observe(box);
  draw();
}
