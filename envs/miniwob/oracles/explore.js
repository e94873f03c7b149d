// Tabs, accordions, menus and trees: open what hides the target, in the order a person would try, then click it.
(() => {
  'use strict';
  const { register, $, $$, text, asked, click, hover, shown, wait, submit } = window.__oracle_kit;
  const hasBox = (element) => element.getClientRects().length > 0;

  register('click-collapsible click-collapsible-nodelay', () => {
    const header = $('#area h3');
    return header.classList.contains('ui-accordion-header-active') ? submit() : click(header, 'the section');
  });

  register('click-collapsible-2 click-collapsible-2-nodelay', () => {
    const [name] = asked(/link "(.*)"/);
    const link = $$('.alink').find((candidate) => text(candidate) === name && hasBox(candidate));
    if (link) return click(link, `the link ${name}`);
    const headers = $$('#area h3');
    const open = headers.findIndex((header) => header.classList.contains('ui-accordion-header-active'));
    const next = (open + 1) % headers.length;
    return click(headers[next], `section ${next + 1}`);
  });

  register('click-tab-2 click-tab-2-easy click-tab-2-medium click-tab-2-hard', () => {
    const [name] = asked(/link "(.*)"/);
    const link = $$('.alink').find((candidate) => text(candidate) === name && hasBox(candidate));
    if (link) return click(link, `the link ${name}`);
    const tabs = $$('#area > ul > li');
    const open = tabs.findIndex((tab) => tab.classList.contains('ui-tabs-active'));
    const next = $('a', tabs[(open + 1) % tabs.length]);
    return click(next, text(next).toLowerCase());
  });

  // Clicking a parent item counts as a choice, so parents are hovered; the submenu opens after a moment.
  register('click-menu', () => {
    const path = asked(/^Select (.*)$/)[0].split('>');
    let items = $$('#menu > li');
    for (const name of path) {
      const item = items.find((candidate) => text(candidate.firstElementChild) === name);
      const title = item.firstElementChild;
      if (name === path[path.length - 1]) return click(title, `item ${name}`);
      items = $$(':scope > ul > li', item);
      if (shown(items[0])) continue;
      return title.classList.contains('ui-state-active') ? wait() : hover(title, `menu ${name}`);
    }
    return null;
  });

  // Folders open one after the other, from the top, until the name is in sight.
  register('navigate-tree', () => {
    const [name] = asked(/named "(.*)"/);
    const entry = $$('#tree span').find((candidate) => text(candidate) === name && hasBox(candidate));
    if (entry) return click(entry, `the entry ${name}`);
    const folder = $$('#tree li.expandable > span').find(hasBox);
    return click(folder, `open ${text(folder)}`);
  });
})();
