// What the collector reads out of a task page besides the expert's reply: which character is drawn where.
(() => {
  'use strict';
  const skipped = new Set(['SCRIPT', 'STYLE', 'OPTION', 'NOSCRIPT', 'TITLE']);
  const tile = (window.__tile = {});

  // Visible characters as flat [x, y, code, x, y, code, ...]: their centres in pixels of the viewport.
  tile.characters = (width, height) => {
    const found = [];
    const range = document.createRange();
    const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    for (let node = walker.nextNode(); node; node = walker.nextNode()) {
      const parent = node.parentElement;
      if (!node.data.trim() || skipped.has(parent.tagName) || !parent.checkVisibility({ checkVisibilityCSS: true })) continue;
      range.selectNodeContents(node);
      const all = range.getBoundingClientRect();
      if (all.bottom < 0 || all.top > height || all.right < 0 || all.left > width) continue;
      for (let i = 0; i < node.data.length; i++) {
        const code = node.data.charCodeAt(i);
        if (code <= 32 || code > 126) continue;
        range.setStart(node, i);
        range.setEnd(node, i + 1);
        const rect = range.getBoundingClientRect();
        const [x, y] = [(rect.left + rect.right) / 2, (rect.top + rect.bottom) / 2];
        if (rect.width === 0 || x < 0 || y < 0 || x >= width || y >= height) continue;
        const hit = document.elementFromPoint(x, y);
        if (hit && (hit === parent || parent.contains(hit) || hit.contains(parent))) found.push(Math.floor(x), Math.floor(y), code);
      }
    }
    return found;
  };

  // Text fields and other places where text is drawn that the walk above does not see: [x, y, w, h, ...].
  tile.unread = () => {
    const boxes = [];
    for (const element of document.querySelectorAll('input, textarea, select, canvas')) {
      const rect = element.getBoundingClientRect();
      if (rect.width * rect.height > 0) boxes.push(...[rect.left, rect.top, rect.width, rect.height].map(Math.round));
    }
    return boxes;
  };

  tile.typing = () => {
    const focused = document.activeElement;
    return Boolean(focused && focused.matches('textarea, select, input:not([type=checkbox]):not([type=radio]):not([type=button])'));
  };

  // Everything about the present screen of the episode.
  tile.look = (task, width, height) => {
    const state = __lab.state();
    const over = state.done || state.left;
    return {
      ...state,
      reply: over ? null : __lab.oracle(task),
      characters: over ? [] : tile.characters(width, height),
      unread: over ? [] : tile.unread(),
      typing: tile.typing(),
    };
  };
})();
