// Text fields: click the field, type, submit.
(() => {
  'use strict';
  const { register, $, $$, text, asked, form, click, clickAt, type, submit } = window.__oracle_kit;
  const one = (read) => () => form([[$('#tt'), read(), 'the text field']]);

  register('enter-text enter-text-dynamic', one(() => asked(/^Enter "(.*)" into/)[0]));
  register('enter-text-2', one(() => {
    const [word, letters] = asked(/^Type "(.*)" in all (upper|lower) case/);
    return letters === 'upper' ? word.toUpperCase() : word.toLowerCase();
  }));
  register('text-transform', one(() => $$('#captcha span').map((letter) => letter.textContent).join('')));

  register('enter-password', () => {
    const [password] = asked(/the password "(.*)" into both/);
    return form([[$('#password'), password, 'the password field'], [$('#verify'), password, 'the verify field']]);
  });
  // The -popup variant asks whether to leave as soon as a field has the focus: stay.
  register('login-user login-user-popup', () => {
    if ($('#popup')) return click($('#popup-cancel'), 'the button Cancel');
    const [user, password] = asked(/username "(.*)" and the password "(.*)" into/);
    return form([[$('#username'), user, 'the username field'], [$('#password'), password, 'the password field']]);
  });

  register('simple-arithmetic', () => {
    const [, a, sign, b] = text($('#math-problem')).match(/(\d+) ([-+x]) (\d+)/);
    const result = { '+': a - -b, '-': a - b, x: a * b }[sign];
    return form([[$('#math-answer'), String(result), 'the text field']]);
  });
  register('simple-algebra', () => {
    const [, left, sign, right, total] = text($('#math-problem')).match(/(\w+) ([-+]) (\w+) = (\d+)/);
    const known = Number(left === 'x' ? right : left);
    const result = sign === '+' ? total - known : left === 'x' ? Number(total) + known : known - total;
    return form([[$('#math-answer'), String(result), 'the text field']]);
  });
  register('visual-addition', () =>
    form([[$('#math-answer'), String($$('.addition-block').length), 'the text field']]));

  const tableValue = (key) => {
    const row = $$('#tab tr').find((candidate) => text(candidate.children[0]) === key);
    return row.children[1].textContent;
  };
  register('read-table', one(() => tableValue(asked(/the value of (.*) into/)[0])));
  register('read-table-2', () => form([1, 2].map((i) => {
    const key = text($(`#ll${i}`)).replace(':', '');
    return [$(`#tt${i}`), tableValue(key), `the field ${key}`];
  })));
  register('multi-orderings', () => {
    const [genre, director, year] = asked(/Search for (.*) movies directed by (.*) from year (\d+)/);
    const wanted = { Genre: genre, Director: director, Year: year };
    const fields = $$('#area tr').map((row) => {
      const title = text($('th', row));
      return [$('input', row), wanted[title], `the field ${title}`];
    });
    return form(fields, $('#area .final'));
  });
  register('form-sequence-2', () => {
    const [radio, number, nth] = asked(/the (\d)\w\w radio .* number "(-?\d+)" into the (\d)/);
    const button = $(`#area input[type=radio][value="${radio}"]`);
    return button.checked ? form([[$(`#input-${nth}`), number, `text field ${nth}`]]) : click(button, `radio ${radio}`);
  });
  register('find-word', () => {
    const [nth] = asked(/the (\d+)\w\w word/);
    const word = text($('#area p')).split(' ')[Number(nth) - 1].replace(/[^a-zA-Z]/g, '');
    return form([[$('#answer-input'), word, 'the text field']]);
  });

  // Date and time fields are made of segments; typing starts in the one that was clicked, so click the first.
  const segments = (typed, expected, name) => {
    const field = $('#tt');
    if (field.value === expected) return submit();
    if (document.activeElement === field) return type(typed);
    const { left, top, width, height } = field.getBoundingClientRect();
    const box = { x: Math.round(left), y: Math.round(top), w: Math.round(width), h: Math.round(height) };
    return clickAt(left + 10, top + height / 2, name, box);
  };
  register('enter-date', () => {
    const [month, day, year] = asked(/Enter (\d\d)\/(\d\d)\/(\d{4})/);
    return segments(`${month}/${day}/${year}`, `${year}-${month}-${day}`, 'the date field');
  });
  register('enter-time', () => {
    const [hour, minute, half] = asked(/Enter (\d+):(\d\d)\s([AP]M)/);
    const hours = (Number(hour) % 12) + (half === 'PM' ? 12 : 0);
    const two = (number) => String(number).padStart(2, '0');
    return segments(`${two(hour)}:${minute}${half}`, `${two(hours)}:${minute}`, 'the time field');
  });
})();
