// Runs before the scripts of every task page: makes the page repeatable, and gives the environment five functions.
(() => {
  'use strict';
  const wall = performance.now.bind(performance);
  const [later, forget] = [window.setTimeout.bind(window), window.clearTimeout.bind(window)];

  // Numbers drawn while the page loads; Math.seedrandom(seed) takes over in start().
  let state = 12345;
  Math.random = () => (state = (1103515245 * state + 12345) % 2147483648) / 2147483648;

  // The calendar stands still until the episode starts and then runs on: dates on the screen are the same in every attempt, and
  // tasks that measure durations still can. The day lies after all dates of the tasks, as it does for every user today.
  const EPOCH = Date.UTC(2026, 0, 15, 12, 0, 0);
  let begun = null;
  const now = () => EPOCH + (begun === null ? 0 : Math.floor(wall() - begun));
  Date = new Proxy(Date, {
    construct: (real, args, target) => Reflect.construct(real, args.length ? args : [now()], target),
    apply: (real) => new real(now()).toString(),
    get: (real, key) => (key === 'now' ? now : Reflect.get(real, key)),
  });

  // Short timers (menus that open on hover, suggestions, delayed focus) are awaited before the screen is looked at.
  const AWAITED_MS = 600;
  const SETTLE_MS = 1200;
  const pending = new Set();
  window.setTimeout = (task, delay, ...args) => {
    if (typeof task !== 'function') return later(task, delay, ...args);
    const id = later(() => { pending.delete(id); task(...args); }, delay);
    if (!(delay > AWAITED_MS)) pending.add(id);
    return id;
  };
  window.clearTimeout = (id) => { pending.delete(id); forget(id); };

  // One clipboard per page: the browser's own is shared by all pages and would carry text from one attempt into the next.
  let clipboard = '';
  const isField = (element) => element instanceof HTMLInputElement || element instanceof HTMLTextAreaElement;
  const remember = (event) => {
    const field = event.target;
    clipboard = isField(field) ? field.value.slice(field.selectionStart, field.selectionEnd) : String(getSelection());
  };
  document.addEventListener('copy', remember, true);
  document.addEventListener('cut', remember, true);
  document.addEventListener('paste', (event) => {
    event.preventDefault();
    document.execCommand('insertText', false, clipboard);
  }, true);

  // The browser's own pickers (of dates, times) are drawn beside the page, and only where its window is in front: whether a screen shows one
  // would depend on who else is at work. Such fields are typed into.
  const PICKED = new Set(['date', 'datetime-local', 'month', 'time', 'week']);
  document.addEventListener('keydown', (event) => {
    const opens = event.key === ' ' || event.key === 'F4' || (event.altKey && event.key === 'ArrowDown');
    if (opens && event.target instanceof HTMLInputElement && PICKED.has(event.target.type)) event.preventDefault();
  }, true);

  // Not part of the task: the START cover (it comes back when an episode ends), the click trace, the countdown, the blinking
  // caret. Below the 160x210 task the viewport is white.
  document.addEventListener('DOMContentLoaded', () => {
    const style = document.createElement('style');
    style.textContent = `
      #sync-task-cover, #click-canvas, #reward-display { display: none !important; }
      html, body { background: white !important; }
      input::-webkit-calendar-picker-indicator { pointer-events: none !important; }
      * { caret-color: transparent !important; transition: none !important; animation: none !important; }`;
    document.head.append(style);
    if (window.jQuery) window.jQuery.fx.off = true;
  });

  const frame = () => new Promise((done) => { requestAnimationFrame(done); later(done, 100); });
  const lab = (window.__lab = { started: false });

  // Pictures that styles ask for are only fetched once an element uses them, after the page's load event.
  const fetched = new Set();
  const styledPictures = () => {
    const urls = new Set();
    for (const element of document.querySelectorAll('body *')) {
      for (const part of [null, '::before', '::after']) {
        const style = getComputedStyle(element, part);
        for (const value of [style.backgroundImage, style.content, style.listStyleImage]) {
          for (const [, url] of value.matchAll(/url\("([^"]+)"\)/g)) if (!fetched.has(url)) urls.add(url);
        }
      }
    }
    return [...urls];
  };
  const fetchPicture = (url) => new Promise((done) => {
    const picture = new Image();
    picture.onload = picture.onerror = () => { fetched.add(url); done(); };
    picture.src = url;
  });
  const pictures = () => Promise.all([
    ...styledPictures().map(fetchPicture),
    ...Array.from(document.images, (image) => image.decode().catch(() => null)),
  ]);

  // Two frames: the first lays out what the action changed, the second has painted it.
  lab.settle = async () => {
    const deadline = wall() + SETTLE_MS;
    await frame();
    await Promise.race([pictures(), new Promise((done) => { later(done, 5 * SETTLE_MS); })]);
    await frame();
    while ((pending.size || !WOB_TASK_READY) && wall() < deadline) await frame();
  };

  // Begin the episode of `seed`; resolves to the instruction.
  lab.start = async (seed) => {
    core.EPISODE_MAX_TIME = 1e9; // no deadline (setTimeout takes less than 2^31 ms)
    if (document.activeElement) document.activeElement.blur();
    Math.seedrandom(seed);
    core.startEpisodeReal();
    begun = wall();
    lab.started = true;
    window.__oracle_memory = {};
    await lab.settle();
    const said = core.getUtterance();
    return typeof said === 'string' ? said : said.utterance;
  };

  // {left, done, raw}: `left` when the page of the episode is gone (a form was submitted to the server that is not there).
  lab.state = () => ({ left: !lab.started, done: WOB_DONE_GLOBAL, raw: WOB_RAW_REWARD_GLOBAL });

  lab.oracle = (task) => {
    const expert = (window.__oracles || {})[task];
    return expert ? expert(window.__oracle_memory) : null;
  };

  // One line per visible element with something to say, children indented: tag#id "own text" value= checked focused @x,y,w,h
  lab.outline = () => {
    const lines = [];
    const visit = (element, depth) => {
      const box = element.getBoundingClientRect();
      if (['SCRIPT', 'STYLE', 'OPTION'].includes(element.tagName) || !element.checkVisibility()) return;
      const own = Array.from(element.childNodes).filter((node) => node.nodeType === Node.TEXT_NODE)
        .map((node) => node.data).join(' ').replace(/\s+/g, ' ').trim();
      const says = [element.tagName.toLowerCase() + (element.id ? `#${element.id}` : '')];
      if (own) says.push(JSON.stringify(own));
      if (isField(element)) says.push(`value=${JSON.stringify(element.value)}`);
      if (element.checked) says.push('checked');
      if (element === document.activeElement && element !== document.body) says.push('focused');
      says.push('@' + [box.x, box.y, box.width, box.height].map(Math.round).join(','));
      if (box.width * box.height > 0) lines.push('  '.repeat(depth) + says.join(' '));
      for (const child of element.children) visit(child, depth + 1);
    };
    visit(document.body, 0);
    return lines.join('\n');
  };
})();
