"use strict";
// Actions as marks over a screenshot, and guidance as a diff.  All text goes in as text, never as markup.

const SVG = "http://www.w3.org/2000/svg";

function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name === "class") made.className = value;
    else if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else made.setAttribute(name, value);
  }
  made.append(...children.filter((child) => child !== null && child !== ""));
  return made;
}

function shape(tag, attributes, parent) {
  const made = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  parent.append(made);
  return made;
}

/** Marks of the actions of one reply, in the pixels of a screen of this size. */
function marks(actions, width, height) {
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
  const unit = Math.max(width, height) / 220;
  const captions = [];
  for (const action of actions) {
    if (action.kind === "drag") {
      arrow(svg, action.x, action.y, action.end_x, action.end_y, unit);
      ring(svg, action.x, action.y, 2.5 * unit, unit, true);
    } else if (action.kind === "scroll") {
      const [dx, dy] = { up: [0, -1], down: [0, 1], left: [-1, 0], right: [1, 0] }[action.direction];
      arrow(svg, action.x - 8 * unit * dx, action.y - 8 * unit * dy, action.x + 11 * unit * dx, action.y + 11 * unit * dy, unit);
    } else if (typeof action.x === "number") {
      ring(svg, action.x, action.y, 1.3 * unit, unit, true);
      ring(svg, action.x, action.y, 6 * unit, unit, false);
      if (action.kind !== "click" && action.kind !== "hover") ring(svg, action.x, action.y, 9 * unit, unit, false);
    }
    captions.push(caption(action));
  }
  const words = captions.filter(Boolean).join(" · ");
  if (words) {
    const size = 8 * unit, line = words.length > 44 ? words.slice(0, 43) + "…" : words;
    const box = shape("rect", { x: 3 * unit, y: height - size * 1.9, height: size * 1.6, rx: 2 * unit, fill: "#d6005c" }, svg);
    const text = shape("text", { x: 6 * unit, y: height - size * 0.75, fill: "#fff", "font-size": size, "font-family": "sans-serif" }, svg);
    text.textContent = line;
    box.setAttribute("width", Math.min(width - 6 * unit, line.length * size * 0.56 + 8 * unit));
  }
  return svg;
}

function ring(svg, x, y, r, unit, filled) {
  for (const [colour, w] of [["#fff", 2.6], ["#d6005c", 1.5]]) {
    shape("circle", { cx: x, cy: y, r, stroke: colour, "stroke-width": w * unit, fill: filled ? "#d6005c" : "none" }, svg);
  }
}

function arrow(svg, x, y, toX, toY, unit) {
  const angle = Math.atan2(toY - y, toX - x), head = 6 * unit;
  const wing = (s) => `${toX - head * Math.cos(angle + s)},${toY - head * Math.sin(angle + s)}`;
  const end = [toX - 0.7 * head * Math.cos(angle), toY - 0.7 * head * Math.sin(angle)];
  for (const [colour, w] of [["#fff", 3.2], ["#d6005c", 1.7]]) {
    shape("line", { x1: x, y1: y, x2: end[0], y2: end[1], stroke: colour, "stroke-width": w * unit }, svg);
  }
  shape("polygon", { points: `${toX},${toY} ${wing(-0.5)} ${wing(0.5)}`, fill: "#d6005c" }, svg);
}

function caption(action) {
  switch (action.kind) {
    case "type": return `types “${action.text}”${action.submit ? " ⏎" : ""}`;
    case "hotkey": return `presses ${action.keys.join("+")}`;
    case "open_app": return `opens ${action.name}`;
    case "answer": return `answers “${action.text}”`;
    case "invalid": return "not an action";
    case "click": case "drag": case "scroll": return "";
    default: return action.kind.replaceAll("_", " ");
  }
}

const DIFF_WORDS = 600;

/** What is new (ins) and gone (del) between two texts, word by word; a longer text is shown as it is. */
function difference(before, after) {
  const a = before.match(/\s+|\S+/g) || [], b = after.match(/\s+|\S+/g) || [];
  if (!a.length || a.length > DIFF_WORDS || b.length > DIFF_WORDS) return [document.createTextNode(after)];
  const common = Array.from({ length: a.length + 1 }, () => new Uint16Array(b.length + 1));
  for (let i = a.length - 1; i >= 0; i--)
    for (let j = b.length - 1; j >= 0; j--)
      common[i][j] = a[i] === b[j] ? common[i + 1][j + 1] + 1 : Math.max(common[i + 1][j], common[i][j + 1]);
  const nodes = [];
  for (let i = 0, j = 0; i < a.length || j < b.length;) {
    if (i < a.length && j < b.length && a[i] === b[j]) { nodes.push(document.createTextNode(b[j])); i++; j++; }
    else if (j < b.length && (i === a.length || common[i][j + 1] >= common[i + 1][j])) nodes.push(element("ins", {}, b[j++]));
    else nodes.push(element("del", {}, a[i++]));
  }
  return nodes;
}
