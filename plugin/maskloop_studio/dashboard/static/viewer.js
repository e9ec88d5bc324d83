// An image with masks over it: zoom and move by wheel, pinch, drag, buttons and keys; layers on and off.
"use strict";
(() => {
  const STEP = 1.25, MOST = 32;

  function setUp(viewer) {
    const layers = viewer.querySelector(".layers");
    const base = layers.querySelector("img");
    const state = { scale: 1, x: 0, y: 0, least: 1 };
    const pointers = new Map();
    const show = () => {
      layers.style.transform = `translate(${state.x}px, ${state.y}px) scale(${state.scale})`;
      viewer.classList.toggle("close", state.scale > 3);
    };
    const fit = () => {
      if (!base.naturalWidth) return;
      state.least = Math.min(viewer.clientWidth / base.naturalWidth, viewer.clientHeight / base.naturalHeight);
      state.scale = state.least;
      state.x = (viewer.clientWidth - base.naturalWidth * state.scale) / 2;
      state.y = (viewer.clientHeight - base.naturalHeight * state.scale) / 2;
      show();
    };
    const zoom = (factor, x = viewer.clientWidth / 2, y = viewer.clientHeight / 2) => {
      const scale = Math.max(Math.min(state.least / 2, 1), Math.min(MOST, state.scale * factor));
      state.x = x - ((x - state.x) * scale) / state.scale;
      state.y = y - ((y - state.y) * scale) / state.scale;
      state.scale = scale;
      show();
    };
    const move = (x, y) => { state.x += x; state.y += y; show(); };
    if (base.complete) fit(); else base.addEventListener("load", fit, { once: true });

    viewer.addEventListener("wheel", (event) => {
      event.preventDefault();
      const box = viewer.getBoundingClientRect();
      zoom(Math.exp(-event.deltaY / 400), event.clientX - box.left, event.clientY - box.top);
    }, { passive: false });
    viewer.addEventListener("pointerdown", (event) => { viewer.setPointerCapture(event.pointerId); pointers.set(event.pointerId, event); });
    for (const end of ["pointerup", "pointercancel"]) viewer.addEventListener(end, (event) => pointers.delete(event.pointerId));
    viewer.addEventListener("pointermove", (event) => {
      const before = pointers.get(event.pointerId);
      if (!before) return;
      if (pointers.size === 1) move(event.clientX - before.clientX, event.clientY - before.clientY);
      else if (pointers.size === 2) {
        const other = [...pointers.values()].find((one) => one.pointerId !== event.pointerId);
        const apart = (one) => Math.hypot(one.clientX - other.clientX, one.clientY - other.clientY) || 1;
        const box = viewer.getBoundingClientRect();
        zoom(apart(event) / apart(before), (event.clientX + other.clientX) / 2 - box.left, (event.clientY + other.clientY) / 2 - box.top);
      }
      pointers.set(event.pointerId, event);
    });
    const keys = { "+": () => zoom(STEP), "=": () => zoom(STEP), "-": () => zoom(1 / STEP), 0: fit, 1: () => zoom(1 / state.scale),
      ArrowLeft: () => move(60, 0), ArrowRight: () => move(-60, 0), ArrowUp: () => move(0, 60), ArrowDown: () => move(0, -60) };
    viewer.addEventListener("keydown", (event) => {
      if (event.ctrlKey || event.metaKey || event.altKey || !keys[event.key]) return;
      event.preventDefault();
      keys[event.key]();
    });
    const bar = document.getElementById(viewer.dataset.bar);
    bar.querySelectorAll("[data-zoom]").forEach((button) => button.addEventListener("click", () => {
      ({ in: () => zoom(STEP), out: () => zoom(1 / STEP), fit, one: () => zoom(1 / state.scale) })[button.dataset.zoom]();
    }));
    bar.querySelectorAll("[data-layer]").forEach((box) => box.addEventListener("change", () => {
      const image = layers.querySelector(`[data-side="${box.dataset.layer}"]`);
      if (!image) return;
      if (box.checked && image.dataset.src) { image.src = image.dataset.src; delete image.dataset.src; }
      image.hidden = !box.checked;
    }));
    const opacity = bar.querySelector("[data-opacity]");
    const fade = () => layers.querySelectorAll("[data-side]").forEach((image) => { image.style.opacity = opacity.value; });
    if (opacity) { opacity.addEventListener("input", fade); fade(); }
    layers.querySelectorAll("[data-side]").forEach((image) => image.addEventListener("error", () => {
      const told = bar.querySelector(".told");
      if (told) told.textContent = `The layer of the ${image.dataset.side} could not be drawn: open its address for the reason.`;
    }));
    addEventListener("resize", fit);
  }

  function setUpOutputs(root) {
    root.querySelectorAll("input[type=range][data-shown]").forEach((slider) => {
      const output = document.getElementById(slider.dataset.shown);
      slider.addEventListener("input", () => { output.textContent = Number(slider.value).toFixed(2); });
    });
    root.querySelectorAll("[data-copy]").forEach((button) => button.addEventListener("click", async () => {
      await navigator.clipboard.writeText(document.getElementById(button.dataset.copy).textContent);
      button.textContent = "Copied";
    }));
  }

  const setUpAll = (root) => { root.querySelectorAll(".viewer").forEach(setUp); setUpOutputs(root); };
  document.addEventListener("DOMContentLoaded", () => setUpAll(document));
  document.addEventListener("htmx:afterSettle", (event) => { if (event.detail.elt.querySelectorAll) setUpAll(event.detail.elt); });
})();
