"use strict";
// A list of which only the rows in sight are in the page, so that ten thousand are as quick as ten.

const ROW = 27, MARGIN = 12; // pixels, as style.css has it; rows kept ready above and below what is seen

/** ``frame`` scrolls, ``body`` is as high as all rows are together, and ``row(item)`` makes one. */
function makeList(frame, body, row) {
  let items = [], waiting = false;

  function draw() {
    waiting = false;
    const first = Math.max(0, Math.min(items.length, Math.floor(frame.scrollTop / ROW)) - MARGIN);
    const seen = items.slice(first, first + Math.ceil(frame.clientHeight / ROW) + 2 * MARGIN);
    body.style.height = `${items.length * ROW}px`;
    body.replaceChildren(...seen.map((item, i) => {
      const made = row(item);
      made.setAttribute("aria-setsize", items.length);
      made.setAttribute("aria-posinset", first + i + 1);
      return made;
    }));
    if (body.firstChild) body.firstChild.style.marginTop = `${first * ROW}px`;
  }

  function drawSoon() {
    if (!waiting) { waiting = true; requestAnimationFrame(draw); }
  }

  frame.addEventListener("scroll", drawSoon);
  new ResizeObserver(drawSoon).observe(frame);
  return {
    draw,
    show(all) { items = all; draw(); },
    /** Bring row ``at`` into sight. */
    reveal(at) {
      if (at >= 0) frame.scrollTop = Math.max(Math.min(frame.scrollTop, at * ROW), (at + 1) * ROW - frame.clientHeight);
      draw();
    },
    page: () => Math.max(1, Math.floor(frame.clientHeight / ROW) - 1),
  };
}
