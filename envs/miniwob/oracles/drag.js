// Press, move, release: sliders, boxes, sortable lists, text selection.
(() => {
  'use strict';
  const kit = window.__oracle_kit;
  const { register, $, $$, text, asked, click, locate, drag, hotkey, submit } = kit;
  const middle = (element) => {
    const { left, right, top, bottom } = element.getBoundingClientRect();
    return { x: (left + right) / 2, y: (top + bottom) / 2 };
  };
  const clamp = (value, low, high) => Math.min(high, Math.max(low, value));
  // Drag `element` by its visible point so that its centre lands on `goal`.
  const carry = (element, goal, thought) => {
    const spot = locate(element);
    const from = middle(element);
    return drag(spot, { x: spot.x + goal.x - from.x, y: spot.y + goal.y - from.y }, thought, spot.box);
  };
  const STEPS = { left: [-1, 0], right: [1, 0], up: [0, -1], down: [0, 1] };

  // One drag to the pixel of the value, then arrow keys for what a pixel cannot resolve (the drag leaves the focus there).
  const slide = (wanted) => {
    const { min, max, value, orientation } = jQuery('#slider').slider('option');
    const off = Number(wanted) - value;
    if (off === 0) return null;
    const upright = orientation === 'vertical';
    const track = $('#slider').getBoundingClientRect();
    const handle = $('.ui-slider-handle');
    const pixels = (off / (max - min)) * (upright ? -track.height : track.width);
    if (Math.abs(pixels) < 2 && document.activeElement === handle) {
      return hotkey(`${off > 0 ? 'up' : 'down'} to ${wanted}`, off > 0 ? 'right' : 'left');
    }
    const from = middle(handle);
    return carry(handle, { x: from.x + (upright ? 0 : pixels), y: from.y + (upright ? pixels : 0) }, `the slider to ${wanted}`);
  };
  register('use-slider', () => slide(asked(/Select (-?\d+) with/)[0]) || submit());
  register('form-sequence', () => {
    const [wanted, nth] = asked(/Select (-?\d+) with .* the (\d)\w\w checkbox/);
    const box = $(`#checkbox-${nth}`);
    return slide(wanted) || (box.checked ? submit() : click(box, `checkbox ${nth}`));
  });

  register('drag-box', () => {
    const [small, large] = [$('#draggableSmall'), $('#draggableLarge')];
    const [from, to] = [middle(small), middle(large)];
    const inside = Math.abs(from.x - to.x) < 14 && Math.abs(from.y - to.y) < 14;
    return inside ? submit() : carry(small, to, 'the small box');
  });

  register('drag-circle drag-single-shape', () => {
    const [direction] = asked(/^Drag the \w+ (\w+) then/);
    const shape = $('svg > *');
    const [dx, dy] = STEPS[direction];
    const spot = locate(shape);
    const [shiftX, shiftY] = (shape.getAttribute('transform') || '0,0').replace(/[^0-9,.-]/g, '').split(',').map(Number);
    if (shiftX * dx + shiftY * dy > 0) return submit();
    return drag(spot, { x: spot.x + 30 * dx, y: spot.y + 30 * dy }, `the ${asked(/^Drag the (\w+)/)[0]} ${direction}`, spot.box);
  });

  register('drag-shapes', () => {
    const [kind] = asked(/all (\w+)s into/);
    const tag = { rectangle: 'rect:not(#shape-container)', circle: 'circle', triangle: 'polygon' }[kind];
    const box = $('#shape-container').getBoundingClientRect();
    const inside = ({ x, y }) => x > box.left && x < box.right && y > box.top && y < box.bottom;
    const next = $$(`#area_svg > ${tag}`).find((shape) => !inside(middle(shape)));
    return next ? carry(next, middle($('#shape-container')), `the ${kind} into the box`) : submit();
  });

  register('resize-textarea', () => {
    const [dimension, change] = asked(/the (width|height) is (smaller|larger)/);
    const corner = $('.ui-resizable-se');
    const field = $('#tt');
    // jQuery UI keeps the size that the latest drag started from; before any drag there is none.
    const { originalSize, size } = jQuery(field).resizable('instance');
    const step = change === 'larger' ? 15 : -15;
    if (originalSize && (size[dimension] - originalSize[dimension]) * step > 0) return submit();
    const from = middle(corner);
    const goal = dimension === 'width' ? { x: clamp(from.x + step, 0, 157), y: from.y } : { x: from.x, y: from.y + step };
    return carry(corner, goal, `the corner ${change}`);
  });

  // jQuery UI moves an item once it covers half of the one it passes: go a little beyond the place.
  const place = (items, from, to, thought) => {
    const goal = middle(items[to]);
    return carry(items[from], { x: goal.x, y: goal.y + (to > from ? 6 : -6) }, thought);
  };
  register('drag-items', () => {
    const [name, where] = asked(/^Drag (.*?) (to the .*|down by .*|up by .*)\.$/);
    const items = $$('#sortable > li');
    const from = items.findIndex((item) => text(item) === name);
    const named = {
      'to the top': 0,
      'to the bottom': items.length - 1,
      'down by one position': from + 1,
      'up by one position': from - 1,
    };
    const to = where in named ? named[where] : Number(where.match(/\d/)[0]) - 1;
    return place(items, from, to, `item ${name}`);
  });
  register('drag-sort-numbers', () => {
    const items = $$('#sortable > li');
    const values = items.map((item) => Number(text(item)));
    const sorted = values.slice().sort((a, b) => a - b);
    const to = values.findIndex((value, i) => value !== sorted[i]);
    return to < 0 ? submit() : place(items, values.indexOf(sorted[to], to), to, `number ${sorted[to]}`);
  });

  register('highlight-text', () => {
    const paragraph = $('#randomText');
    const letters = (value) => value.replace(/\s/g, '');
    if (letters(String(getSelection())) === letters(paragraph.textContent)) return submit();
    const range = document.createRange();
    range.selectNodeContents(paragraph);
    const lines = Array.from(range.getClientRects());
    const [first, last] = [lines[0], lines[lines.length - 1]];
    const start = { x: first.left + 1, y: (first.top + first.bottom) / 2 };
    const end = { x: last.right + 1, y: (last.top + last.bottom) / 2 };
    const { left, top, width, height } = paragraph.getBoundingClientRect();
    const box = { x: Math.round(left), y: Math.round(top), w: Math.round(width), h: Math.round(height) };
    return drag(start, end, 'the whole text', box);
  });
})();
