// Lists, boxes, colours and spinners: a few clicks, then submit.
(() => {
  'use strict';
  const { register, $, $$, text, withText, asked, click, submit } = window.__oracle_kit;

  register('click-option', () => {
    const [name] = asked(/^Select (.*) and click Submit/);
    const label = withText('#boxes label', name);
    return $('input', label).checked ? submit() : click(label, `option ${name}`, $('input', label));
  });

  // Tick the named boxes in the order of the instruction (names can repeat), then submit.
  register('click-checkboxes click-checkboxes-transfer click-checkboxes-large', () => {
    const [list] = asked(/^Select (.*) and click Submit/);
    const labels = $$('#area label');
    for (const name of list === 'nothing' ? [] : list.split(', ')) {
      const label = labels.find((candidate) => text(candidate) === name);
      labels.splice(labels.indexOf(label), 1);
      if (!$('input', label).checked) return click(label, `box ${name}`, $('input', label));
    }
    return submit();
  });

  register('number-checkboxes', () => {
    const [digit] = asked(/the number "(\d)"/);
    const pattern = PATTERNS[Number(digit)].flat();
    const next = $$('#checkboxes input').findIndex((box, i) => box.checked !== (pattern[i] === 1));
    const spot = `row ${Math.floor(next / 4) + 1}, box ${(next % 4) + 1}`;
    return next < 0 ? submit() : click($$('#checkboxes input')[next], spot);
  });

  register('click-button-sequence', () =>
    buttonsPushed.length === 0 ? click($('#subbtn'), 'the button ONE') : click($('#subbtn2'), 'the button TWO'));

  register('click-shades', () => {
    const [color] = asked(/shades of (\w+)/);
    const next = $$('#area span').find((span) => span.dataset.color === color && !span.classList.contains('selected'));
    return next ? click(next, `the next ${color}`) : submit();
  });

  register('odd-or-even', () => {
    for (const row of $$('#numbers .row')) {
      const number = text($('.display-number', row));
      const button = $(Number(number) % 2 === 0 ? '.even' : '.odd', row);
      if (!button.classList.contains('selected')) return click(button, `${number} is ${text(button).toLowerCase()}`);
    }
    return submit();
  });

  register('use-spinner', () => {
    const [wanted] = asked(/Select (-?\d+) with/);
    const off = Number(wanted) - Number($('#spinner').value);
    if (off === 0) return submit();
    return off > 0 ? click($('.ui-spinner-up'), 'the up arrow') : click($('.ui-spinner-down'), 'the down arrow');
  });
})();
