// Figures to play with on the website, without a kernel. Each fills a <div data-figure="…">, and is used by keyboard as by mouse.
"use strict";

const SVG = "http://www.w3.org/2000/svg";
const BLUE = "#0072B2", ORANGE = "#E69F00", GREEN = "#009E73", VERMILLION = "#D55E00";

function make(tag, options = {}, ...children) {
  const element = tag in {svg: 1, path: 1, circle: 1, line: 1, text: 1, rect: 1}
    ? document.createElementNS(SVG, tag) : document.createElement(tag);
  for (const [name, value] of Object.entries(options)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value);
  }
  element.append(...children);
  return element;
}

function slider(label, low, high, step, value, changed) {
  const input = make("input", {type: "range", min: low, max: high, step, value, "aria-label": label});
  input.addEventListener("input", () => changed(Number(input.value)));
  return make("label", {class: "slider"}, `${label} `, input);
}

// ---- bits of a number ----

function decode(format, pattern) {
  const {exponent, mantissa, bias, specials, signed} = format;
  if (exponent === 0) {
    const half = 2 ** (format.bits - 1);
    return signed && pattern >= half ? pattern - 2 * half : pattern;
  }
  const negative = signed && pattern >= 2 ** (format.bits - 1);
  const size = negative ? pattern - 2 ** (format.bits - 1) : pattern;
  const field = Math.floor(size / 2 ** mantissa), fraction = size % 2 ** mantissa;
  const top = field === 2 ** exponent - 1;
  let value = field === 0 ? 2 ** (1 - bias) * (fraction / 2 ** mantissa) : 2 ** (field - bias) * (1 + fraction / 2 ** mantissa);
  if (top && specials === "ieee") value = fraction === 0 ? Infinity : NaN;
  if (top && specials === "fn" && fraction === 2 ** mantissa - 1) value = NaN;
  return negative ? -value : value;
}

function encode(format, number) { // the nearest pattern; a tie goes to the even one
  const lowest = format.exponent === 0 && format.signed ? -(2 ** (format.bits - 1)) : 0;
  if (format.exponent === 0) {
    const floor = Math.floor(number), rest = number - floor;
    const nearest = rest < 0.5 || (rest === 0.5 && floor % 2 === 0) ? floor : floor + 1;
    const value = Math.min(Math.max(nearest, lowest), lowest + 2 ** format.bits - 1);
    return value < 0 ? value + 2 ** format.bits : value;
  }
  const {exponent, mantissa, specials, signed} = format;
  const sign = signed && (number < 0 || Object.is(number, -0)) ? 2 ** (format.bits - 1) : 0;
  const largest = specials === "ieee" ? (2 ** exponent - 1) * 2 ** mantissa - 1
    : 2 ** (exponent + mantissa) - (specials === "fn" ? 2 : 1);
  const size = Math.abs(number), end = decode(format, largest);
  if (size >= end) return sign + largest + (specials === "ieee" && size >= end + (end - decode(format, largest - 1)) / 2);
  let low = 0, high = largest;
  while (high - low > 1) {
    const middle = Math.floor((low + high) / 2);
    if (decode(format, middle) <= size) low = middle; else high = middle;
  }
  const under = size - decode(format, low), over = decode(format, high) - size;
  return sign + (under < over || (under === over && low % 2 === 0) ? low : high);
}

function bits(place) {
  const formats = JSON.parse(place.dataset.values);
  let format = formats[place.dataset.format], pattern = encode(format, Number(place.dataset.number));
  const choice = make("select", {"aria-label": "format", onchange: () => {
    const value = decode(format, pattern);
    format = formats[choice.value];
    pattern = Number.isFinite(value) ? encode(format, value) : 0;
    layOut();
  }}, ...Object.keys(formats).map(name => make("option", {value: name}, name)));
  choice.value = place.dataset.format;
  const entry = make("input", {"aria-label": "number", size: 10, placeholder: "0.1, 1e5 …", onchange: () => {
    const number = Number(entry.value);
    if (entry.value.trim() && Number.isFinite(number)) { pattern = encode(format, number); refresh(); }
  }});
  const row = make("div", {class: "bits"}), line = make("output");
  place.append(make("div", {}, choice, " ", entry), row, line);
  let buttons = [];

  function part(at) {
    if (format.exponent === 0) return "integer";
    const first = format.signed ? 1 : 0;
    return at < first ? "sign" : at < first + format.exponent ? "exponent" : "fraction";
  }
  function layOut() {
    buttons = Array.from({length: format.bits}, (_, at) => make("button", {
      type: "button", class: part(at), onclick: () => {
        const weight = 2 ** (format.bits - 1 - at);
        pattern += Math.floor(pattern / weight) % 2 ? -weight : weight;
        refresh();
      }}));
    row.replaceChildren(...buttons);
    refresh();
  }
  function refresh() {
    buttons.forEach((button, at) => {
      const bit = Math.floor(pattern / 2 ** (format.bits - 1 - at)) % 2;
      button.textContent = bit;
      button.setAttribute("aria-label", `bit ${format.bits - 1 - at}, ${part(at)}: ${bit}`);
      button.setAttribute("aria-pressed", bit === 1);
    });
    const digits = pattern.toString(16).toUpperCase().padStart(Math.ceil(format.bits / 4), "0");
    line.textContent = `0x${digits} stands for ${decode(format, pattern)}`;
  }
  layOut();
}

// ---- a threshold for ternary weights ----

const density = x => Math.exp(-x * x / 2) / Math.sqrt(2 * Math.PI);

function beyond(x) { // the share of a normal distribution above x >= 0: Simpson's rule up to 8
  const count = 400, width = (8 - x) / count;
  let sum = density(x) + density(8);
  for (let i = 1; i < count; i++) sum += (i % 2 ? 4 : 2) * density(x + i * width);
  return sum * width / 3;
}

function ternary(threshold) { // normal weights with standard deviation 1: share that stays, best level, squared error
  const kept = 2 * beyond(threshold), level = 2 * density(threshold) / kept;
  return {zeros: 1 - kept, level, error: 1 - kept * level * level};
}

function curve(f, low, high, x, y) {
  const points = Array.from({length: 201}, (_, i) => low + (high - low) * i / 200);
  return "M" + points.map(p => `${x(p).toFixed(1)},${y(f(p)).toFixed(1)}`).join("L");
}

function threshold(place) {
  const x = w => 250 + 70 * w, y = p => 150 - 330 * p;
  const svg = make("svg", {viewBox: "0 0 500 175", role: "img", "aria-label": "A normal distribution of weights: the part within "
    + "the threshold becomes 0, the tails become the level"});
  const line = make("output");
  function draw(t) {
    const {zeros, level, error} = ternary(t);
    const middle = curve(density, -t, t, x, y) + `L${x(t)},150L${x(-t)},150Z`;
    svg.replaceChildren(make("path", {d: middle, fill: ORANGE, opacity: 0.4}),
      make("path", {d: curve(density, -3.5, 3.5, x, y), fill: "none", stroke: "currentColor", "stroke-width": 2}),
      ...[-level, 0, level].map(value => make("line", {x1: x(value), x2: x(value), y1: 150, y2: 20, stroke: BLUE,
        "stroke-width": 3, "stroke-dasharray": "5 4"})),
      ...[-3, -2, -1, 0, 1, 2, 3].map(w => make("text", {x: x(w), y: 168, "text-anchor": "middle", fill: "currentColor",
        "font-size": 12}, `${w}`)));
    line.textContent = `threshold ${t.toFixed(2)}: ${(100 * zeros).toFixed(0)} % become 0, best level ${level.toFixed(2)}, `
      + `mean squared error ${error.toFixed(3)}`;
  }
  place.append(slider("threshold", 0.05, 2, 0.01, 0.3, draw), svg, line);
  draw(0.3);
}

// ---- what a bit can buy ----

function rate(place) {
  const rows = JSON.parse(place.dataset.values); // {bits: {name: squared error}}
  const x = bitCount => 60 + 110 * (bitCount - 0.6), y = error => 20 - 28 * Math.log2(error);
  const colors = [VERMILLION, ORANGE, "#777777", GREEN, BLUE, "#CC79A7", "#56B4E9"];
  const names = Object.keys(rows[2]).filter(name => name !== "limit");
  const svg = make("svg", {viewBox: "0 0 520 300", role: "img", "aria-label": "Squared error against bits per number, on a "
    + "logarithmic axis: every quantiser lies above the limit, a straight line"});
  const table = make("table"), line = make("output");
  function draw(bitCount) {
    const marks = Object.entries(rows).flatMap(([count, errors]) => names.filter(name => name in errors).map(name => make("circle", {
      cx: x(Number(count)), cy: y(errors[name]), r: Number(count) === bitCount ? 6 : 3, fill: colors[names.indexOf(name)]})));
    svg.replaceChildren(make("path", {d: curve(b => 2 ** (-2 * b), 0.6, 4.4, x, y), fill: "none", stroke: "currentColor",
      "stroke-width": 2}), make("line", {x1: x(bitCount), x2: x(bitCount), y1: 20, y2: 275, stroke: "currentColor",
      "stroke-dasharray": "3 4"}), ...marks, ...[1, 2, 3, 4].map(count => make("text", {x: x(count), y: 295,
      "text-anchor": "middle", fill: "currentColor", "font-size": 12}, count > 1 ? `${count} bits` : "1 bit")),
      ...[1, 4, 16, 64, 256].map(part => make("text", {x: 44, y: y(1 / part) + 4, "text-anchor": "end", fill: "currentColor",
      "font-size": 12}, part > 1 ? `1/${part}` : "1")));
    const sorted = Object.entries(rows[bitCount]).sort((a, b) => b[1] - a[1]);
    table.replaceChildren(make("tr", {}, make("th", {}, "quantiser"), make("th", {}, "squared error"),
      make("th", {}, "bits above the limit")), ...sorted.map(([name, error]) => {
      const above = bitCount + Math.log2(error) / 2;
      const dot = make("span", {class: "dot", style: `background:${names.includes(name)
        ? colors[names.indexOf(name)] : "currentColor"}`});
      return make("tr", {}, make("td", {}, dot, ` ${name}`), make("td", {}, error.toFixed(4)), make("td", {}, above.toFixed(2)));
    }));
    line.textContent = `${bitCount} bits per number: the limit is ${(2 ** (-2 * bitCount)).toFixed(4)} of the variance`;
  }
  place.append(slider("bits", 1, 4, 1, 2, draw), svg, line, table);
  draw(2);
}

const FIGURES = {bits, threshold, rate};
document.addEventListener("DOMContentLoaded", () => {
  for (const place of document.querySelectorAll("[data-figure]")) FIGURES[place.dataset.figure](place);
});
