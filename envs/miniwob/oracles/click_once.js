// One click on something that the instruction names.
(() => {
  'use strict';
  const { register, $, $$, text, withText, asked, click, shape, shapesLike } = window.__oracle_kit;

  register('click-test', () => click($('#subbtn'), 'the button'));
  register('click-test-2 click-test-transfer', () => {
    const [name] = asked(/button (\w+)\./);
    return click(withText('#area button', name), `the button ${name}`);
  });
  register('click-button unicode-test', () => {
    const [name] = asked(/on the "(.*)" button/);
    return click(withText('#area button', name), `the button ${name}`);
  });
  register('click-link', () => {
    const [name] = asked(/link "(.*)"/);
    return click(withText('.alink', name), `the link ${name}`);
  });
  register('click-dialog', () => click($('.ui-dialog-titlebar-close'), 'the button x'));
  register('click-dialog-2', () => {
    const [name] = asked(/labeled "(.*)"/);
    const button = name === 'x' ? $('.ui-dialog-titlebar-close') : withText('.ui-dialog-buttonset button', name);
    return click(button, `the button ${name}`);
  });
  register('click-tab', () => {
    const [number] = asked(/Tab #(\d)/);
    return click(withText('#area ul a', `Tab #${number}`), `tab #${number}`);
  });
  register('click-color', () => {
    const [color] = asked(/the (\w+) colored box/);
    return click($(`#area .color[data-color="${color}"]`), `the ${color} box`);
  });
  register('click-shape', () => {
    const [description] = asked(/Click on a (.*)$/);
    return click(shapesLike(description)[0].element, `the ${description}`);
  });
  register('identify-shape', () => {
    const { type, text: name } = shape($('#area_svg > *'));
    const kind = type === 'shape' ? name : type;
    const button = $(`#area-buttons button[data-type="${kind}"]`);
    return click(button, `the button ${text(button)}`);
  });
  register('grid-coordinate', () => {
    const [coordinate] = asked(/(\(-?\d,-?\d\))/);
    return click($$('circle').find((circle) => circle.id === coordinate), `the point ${coordinate}`);
  });
  register('focus-text', () => click($('#tt'), 'the text field'));
  register('focus-text-2', () => {
    const [nth] = asked(/the (\d)\w\w input/);
    return click($(`#tt${nth}`), `text field ${nth}`);
  });
  register('click-widget', () => {
    const [kind] = asked(/a "(\w+)" widget/);
    return click($(`#area .widget [data-type="${kind}"]`), `the ${kind}`);
  });

  // The corners of a regular polygon around the canvas centre show up as the n-th harmonic of its outline's density over the
  // angle: count them from the pixels, as the page keeps the number of sides to itself.
  const countCorners = (canvas) => {
    const { width, height } = canvas;
    const pixels = canvas.getContext('2d').getImageData(0, 0, width, height).data;
    const sums = new Map([3, 4, 5, 6, 7].map((n) => [n, [0, 0]]));
    for (let i = 0; i < width * height; i++) {
      const [dx, dy] = [(i % width) + 0.5 - width / 2, Math.floor(i / width) + 0.5 - height / 2];
      const weight = pixels[4 * i + 3] * Math.hypot(dx, dy) ** 3;
      const angle = Math.atan2(dy, dx);
      for (const [n, sum] of sums) {
        sum[0] += weight * Math.cos(n * angle);
        sum[1] += weight * Math.sin(n * angle);
      }
    }
    const strength = (n) => Math.hypot(...sums.get(n));
    return [...sums.keys()].reduce((best, n) => (strength(n) > strength(best) ? n : best));
  };
  register('count-sides', () => {
    const sides = countCorners($('#c'));
    return click($(`#form button[data-sides="${sides}"]`), `${sides} sides`);
  });
  register('count-shape', () => {
    const [description] = asked(/How many (.*)s are there/);
    const count = String(shapesLike(description).length);
    return click(withText('#count-buttons button', count), `the button ${count}`);
  });
})();
