// Points to find on a drawing: click where the point belongs, then submit.
(() => {
  'use strict';
  const { register, $, $$, clickAt, submit } = window.__oracle_kit;
  // The pages draw a click at page point (x, y) at (x, y - QUERY_PADDING) of the drawing.
  const QUERY_PADDING = 50;
  const center = (circle) => ({ x: circle.cx.baseVal.value, y: circle.cy.baseVal.value });
  const toward = (from, angle, distance) => ({ x: from.x + distance * Math.cos(angle), y: from.y + distance * Math.sin(angle) });
  const angleOf = (from, to) => Math.atan2(to.y - from.y, to.x - from.x);
  const onDrawing = (point) => {
    const { width, height } = $('#svg-grid').getBoundingClientRect();
    return point.x > 6 && point.y > 6 && point.x < width - 6 && point.y < height - 6;
  };
  const mark = (point, thought) => clickAt(point.x, point.y + QUERY_PADDING, thought);
  const once = (choose) => () => ($('#blue-circle') ? submit() : choose());

  register('circle-center', once(() => mark(center($('.black-circle')), 'the center')));
  register('find-midpoint', once(() => {
    const [a, b] = $$('.black-circle').map(center);
    return mark({ x: (a.x + b.x) / 2, y: (a.y + b.y) / 2 }, 'the midpoint');
  }));

  // The farthest of the points on rays from `vertex` that still lies on the drawing: far points forgive rounding.
  const farthest = (vertex, angles) => {
    for (let distance = 60; distance > 8; distance -= 2) {
      for (const angle of angles) {
        const point = toward(vertex, angle, distance);
        if (onDrawing(point)) return point;
      }
    }
    return null;
  };
  register('right-angle', once(() => {
    const vertex = center($('#init-blue'));
    const along = angleOf(vertex, center($('#init-black')));
    return mark(farthest(vertex, [along + Math.PI / 2, along - Math.PI / 2]), 'the third point');
  }));
  register('bisect-angle', once(() => {
    const vertex = center($('.init-blue'));
    const [a, b] = $$('.init-black').map((circle) => angleOf(vertex, center(circle)));
    const middle = Math.atan2(Math.sin(a) + Math.sin(b), Math.cos(a) + Math.cos(b));
    return mark(farthest(vertex, [middle]), 'between the lines');
  }));
})();
