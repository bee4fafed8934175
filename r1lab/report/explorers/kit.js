// What all explorers share: drawing into an SVG, and sliders for mouse, finger and keyboard.
"use strict";
window.given ??= {}; // what Python passed to the page
const picture = document.getElementById("picture");
const painted = make("g", { "aria-hidden": "true" }, picture); // drawn again at each change
const handles = make("g", {}, picture); // stays, so that the focus stays

function make(tag, attributes, parent) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name === "text") element.textContent = value;
    else element.setAttribute(name, typeof value === "number" ? Math.round(value * 10) / 10 : value);
  }
  parent.append(element);
  return element;
}

const line = (x1, y1, x2, y2, look) => make("line", { x1, y1, x2, y2, class: look }, painted);
const write = (x, y, text, look = "", anchor = "start") =>
  make("text", { x, y, text, class: look, "text-anchor": anchor }, painted);
const rectangle = (x, y, width, height, look) =>
  make("rect", { x, y, width: Math.max(0, width), height: Math.max(0, height), class: look }, painted);

function curve(points, look) {
  const rounded = points.map(([x, y]) => `${x.toFixed(1)},${y.toFixed(1)}`);
  make("polyline", { points: rounded.join(" "), class: look }, painted);
}

// A bar from the line `base` to `y`, upwards or downwards.
const bar = (x, base, y, width, look) =>
  rectangle(x - width / 2, Math.min(base, y), width, Math.abs(y - base), `bar ${look}`);

// Numbers from `low` to `high` become places from `start` to `end`; `inverse` goes back.
function scale(low, high, start, end) {
  const to = (value) => start + ((value - low) / (high - low)) * (end - start);
  to.inverse = (place) => low + ((place - start) / (end - start)) * (high - low);
  Object.assign(to, { start, end, low, high });
  return to;
}

// Axes with ticks: `x` and `y` are scales, `xs` and `ys` the numbers marked on them.
function axes(x, y, xs, ys, xlabel, title, unit = "") {
  const text = (value) => String(value).replace("-", "−");
  for (const value of ys) {
    line(x.start, y(value), x.end, y(value), "grid");
    write(x.start - 6, y(value) + 5, text(value) + unit, "quiet", "end");
  }
  for (const value of xs) write(x(value), y.start + 18, text(value), "quiet", "middle");
  line(x.start, y.start, x.end, y.start, "axis");
  write((x.start + x.end) / 2, y.start + 37, xlabel, "quiet", "middle");
  write(x.start, y.end - 12, title, "head");
}

const range = (low, high, count) =>
  Array.from({ length: count }, (_, i) => low + ((high - low) * i) / (count - 1));
const signed = (value, digits = 2) => // a true minus, and no -0.00
  Number(value.toFixed(digits)) === 0 ? (0).toFixed(digits)
    : (value < 0 ? "−" : "+") + Math.abs(value).toFixed(digits);
const clamp = (value, low, high) => Math.min(high, Math.max(low, value));

// Draws an explorer, and draws it again whenever something moves.
//   start: its numbers, by name; draw(state): draws them, and returns what is found in one sentence
//   sliders: [{name, label, min, max, step, text, place, value}]; `min` and `max` may be functions of
//     the state, text(number) is what is read out, place(state) says where the handle is, and
//     value(x, y, state) which number a place stands for
function explore(start, sliders, draw) {
  const state = structuredClone(start);
  const bound = (limit) => (typeof limit === "function" ? limit(state) : limit);
  const read = ({ name, index }) => (index === undefined ? state[name] : state[name][index]);

  function set(slider, value) {
    const steps = Math.round(value / slider.step) * slider.step;
    const kept = Number(clamp(steps, bound(slider.min), bound(slider.max)).toFixed(6));
    if (slider.index === undefined) state[slider.name] = kept;
    else state[slider.name][slider.index] = kept;
    redraw();
  }

  function redraw() {
    const began = performance.now();
    painted.replaceChildren();
    for (const slider of sliders) { // one slider's limits may depend on another's value
      const value = clamp(read(slider), bound(slider.min), bound(slider.max));
      if (slider.index === undefined) state[slider.name] = value;
    }
    const finding = draw(state);
    for (const slider of sliders) {
      const [x, y] = slider.place(state);
      const value = read(slider);
      const now = { "aria-valuenow": value, "aria-valuetext": slider.text(value) };
      const limits = { "aria-valuemin": bound(slider.min), "aria-valuemax": bound(slider.max) };
      for (const [name, text] of Object.entries({ ...now, ...limits })) {
        slider.handle.setAttribute(name, text);
      }
      slider.handle.setAttribute("transform", `translate(${x.toFixed(1)} ${y.toFixed(1)})`);
    }
    document.getElementById("finding").textContent = finding;
    window.redrawn = performance.now() - began; // milliseconds
  }

  for (const slider of sliders) {
    const about = { role: "slider", tabindex: "0", "aria-label": slider.label };
    const handle = (slider.handle = make("g", about, handles));
    make("circle", { r: 17, class: "hit" }, handle);
    make("circle", { r: 8, class: "knob" }, handle);
    handle.addEventListener("pointerdown", (event) => handle.setPointerCapture(event.pointerId));
    handle.addEventListener("pointermove", (event) => {
      if (!handle.hasPointerCapture(event.pointerId)) return;
      const at = new DOMPoint(event.clientX, event.clientY);
      const { x, y } = at.matrixTransform(picture.getScreenCTM().inverse());
      set(slider, slider.value(x, y, state));
    });
    handle.addEventListener("keydown", (event) => {
      const { step } = slider;
      const moves = {
        ArrowRight: step, ArrowUp: step, ArrowLeft: -step, ArrowDown: -step,
        PageUp: 10 * step, PageDown: -10 * step, Home: -Infinity, End: Infinity,
      };
      if (!(event.key in moves)) return;
      event.preventDefault();
      set(slider, clamp(read(slider) + moves[event.key], bound(slider.min), bound(slider.max)));
    });
  }
  for (const control of document.querySelectorAll("select, input")) {
    control.addEventListener("change", () => {
      state[control.name] = control.type === "checkbox" ? control.checked : Number(control.value);
      redraw();
    });
  }
  document.getElementById("reset").addEventListener("click", () => {
    Object.assign(state, structuredClone(start));
    for (const control of document.querySelectorAll("select, input")) {
      if (control.type === "checkbox") control.checked = state[control.name];
      else control.value = state[control.name];
    }
    redraw();
  });
  redraw();
}

// A page in a frame says how high it is.
new ResizeObserver(() => parent.postMessage(document.body.offsetHeight, "*")).observe(document.body);
