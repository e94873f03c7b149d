// Shared by every scripted expert: finding a visible point, reading the instruction, building a reply.
// The whole folder runs as one init script before the page's own scripts: nothing here may touch the document at load time.
// An expert only reads the page. Coordinates are integers in the frame's own client space (pixels of the 160x220 viewport).
(() => {
  'use strict';
  const kit = (window.__oracle_kit = {});
  const LATTICE = 7;

  window.__oracles = window.__oracles || {};
  kit.register = (tasks, expert) => {
    for (const task of tasks.split(' ')) window.__oracles[task] = expert;
  };

  kit.$ = (selector, root) => (root || document).querySelector(selector);
  kit.$$ = (selector, root) => Array.from((root || document).querySelectorAll(selector));
  kit.text = (element) => element.textContent.replace(/\s+/g, ' ').trim();
  kit.withText = (selector, text) => kit.$$(selector).find((element) => kit.text(element) === text) || null;
  kit.submitButton = () => kit.$('#subbtn') || kit.$('#submit') || kit.withText('#area button', 'Submit');

  // The instruction as the environment shows it.
  kit.query = () => {
    const said = core.getUtterance();
    return (typeof said === 'string' ? said : said.utterance).replace(/\s+/g, ' ').trim();
  };
  // The groups of `pattern` in the instruction; [] where it does not match.
  kit.asked = (pattern) => (kit.query().match(pattern) || []).slice(1);

  const rounded = (rect) => {
    const x = Math.max(0, Math.round(rect.left));
    const y = Math.max(0, Math.round(rect.top));
    return {
      x, y,
      w: Math.min(window.innerWidth, Math.round(rect.right)) - x,
      h: Math.min(window.innerHeight, Math.round(rect.bottom)) - y,
    };
  };
  const largestRect = (element) => {
    const area = (rect) => rect.width * rect.height;
    const rects = Array.from(element.getClientRects()).sort((a, b) => area(b) - area(a));
    return rects.length && area(rects[0]) > 0 ? rects[0] : null;
  };

  // The visible point of `element` nearest its centre and the element's box on the screen; null where all of it is covered or
  // scrolled out. Hits on a descendant count; `inside` narrows the search to a part of it (a label's checkbox).
  kit.locate = (element, inside) => {
    const rect = element && largestRect(inside || element);
    if (!rect) return null;
    const [cx, cy] = [(rect.left + rect.right) / 2, (rect.top + rect.bottom) / 2];
    let best = null;
    for (let i = 0; i < LATTICE; i++) {
      for (let j = 0; j < LATTICE; j++) {
        const x = Math.floor(rect.left + ((i + 0.5) * rect.width) / LATTICE);
        const y = Math.floor(rect.top + ((j + 0.5) * rect.height) / LATTICE);
        const hit = document.elementFromPoint(x, y);
        const distance = Math.hypot(x - cx, y - cy);
        if (hit && element.contains(hit) && (!best || distance < best.distance)) best = { x, y, distance };
      }
    }
    return best && { x: best.x, y: best.y, box: rounded(inside ? largestRect(element) || rect : rect) };
  };
  kit.shown = (element) => kit.locate(element) !== null;

  kit.reply = (thought, action, box) => {
    const said = { thought, actions: [action] };
    if (box) said.box = box;
    return said;
  };
  // Act at the visible point of an element; scroll towards it where it is out of sight.
  const pointed = (kind) => (element, thought, inside) => {
    const spot = kit.locate(element, inside);
    return spot ? kit.reply(thought, { kind, x: spot.x, y: spot.y }, spot.box) : kit.scrollTo(element);
  };
  kit.click = pointed('click');
  kit.hover = pointed('hover');
  kit.clickAt = (x, y, thought, box) => {
    [x, y] = [Math.round(x), Math.round(y)];
    return kit.reply(thought, { kind: 'click', x, y }, box || { x: x - 3, y: y - 3, w: 7, h: 7 });
  };
  // Drag between two points; the box is that of the thing that is grabbed.
  kit.drag = (from, to, thought, box) => {
    const [x, y, end_x, end_y] = [from.x, from.y, to.x, to.y].map(Math.round);
    return kit.reply(thought, { kind: 'drag', x, y, end_x, end_y }, box);
  };
  kit.type = (text) => kit.reply(`type ${text}`, { kind: 'type', text, submit: false });
  kit.hotkey = (thought, ...keys) => kit.reply(thought, { kind: 'hotkey', keys });
  kit.wait = () => kit.reply('wait', { kind: 'wait' });
  kit.submit = (button) => kit.click(button || kit.submitButton(), 'submit');

  const scroller = (element) => {
    for (let node = element.parentElement; node; node = node.parentElement) {
      const style = getComputedStyle(node);
      if (/auto|scroll/.test(style.overflowY) && node.scrollHeight > node.clientHeight) return node;
    }
    return null;
  };
  // Scroll the box that holds `element`; null for something that no scrolling can show.
  kit.scrollTo = (element) => {
    const rect = element && element.getBoundingClientRect();
    if (!rect || rect.width * rect.height === 0) return null;
    const holder = scroller(element);
    const view = holder
      ? holder.getBoundingClientRect()
      : { left: 0, right: window.innerWidth, top: 0, bottom: window.innerHeight };
    const direction = rect.top + rect.bottom < view.top + view.bottom ? 'up' : 'down';
    const box = rounded(view);
    const action = { kind: 'scroll', x: Math.round(box.x + box.w / 2), y: Math.round(box.y + box.h / 2), direction };
    return kit.reply(`scroll ${direction}`, action, box);
  };

  // Make `field` hold `text`: focus it, empty it if it holds something else, type. null once it does.
  kit.fill = (field, text, name) => {
    if (field.value === text) return null;
    if (document.activeElement !== field) return kit.click(field, name);
    const selected = field.selectionEnd - field.selectionStart === field.value.length;
    return field.value === '' || selected ? kit.type(text) : kit.hotkey('select all', 'ctrl', 'a');
  };
  // The common form: fill the fields in turn, then submit. `fields` is [[element, text, name], ...].
  kit.form = (fields, button) => {
    for (const [field, text, name] of fields) {
      const next = kit.fill(field, text, name);
      if (next) return next;
    }
    return kit.submit(button);
  };

  // {kind, text, color, large, element} of a shape drawn by the package's common/shapes.js.
  kit.shape = (element) => {
    const kinds = { rect: 'rectangle', circle: 'circle', polygon: 'triangle' };
    const glyph = element.tagName === 'text';
    const text = glyph ? element.textContent : kinds[element.tagName];
    const size = glyph ? parseFloat(element.getAttribute('font-size')) : element.getBBox().height;
    return {
      element, text,
      type: glyph ? (/\d/.test(text) ? 'digit' : 'letter') : 'shape',
      color: element.getAttribute('fill'),
      large: size > 15,
    };
  };
  // The drawn shapes that a description such as "small red digit" or "large item" fits, in reading order.
  kit.shapesLike = (description) => {
    const words = description.split(' ');
    const what = words.pop();
    const size = words.find((word) => word === 'small' || word === 'large');
    const color = words.find((word) => word !== size);
    const fits = (shape) =>
      (!size || shape.large === (size === 'large')) &&
      (!color || shape.color === color) &&
      (what === 'item' || what === shape.text || what === shape.type);
    const place = (shape) => shape.element.getBBox();
    const row = (shape) => Math.floor((place(shape).y + place(shape).height / 2) / 20);
    return kit.$$('#area_svg > *').map(kit.shape).filter(fits)
      .sort((a, b) => row(a) - row(b) || place(a).x - place(b).x);
  };
})();
