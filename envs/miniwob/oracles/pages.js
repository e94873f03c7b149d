// Small applications: a search engine, a feed, lists behind a control.
(() => {
  'use strict';
  const { register, $, $$, text, withText, asked, click, fill, reply, submit, wait } = window.__oracle_kit;

  // The drop-down's list is drawn outside the page, so the option is chosen by typing its name.
  register('choose-list', () => {
    const [name] = asked(/^Select (.*) from the list/);
    const list = $('#options');
    if (text(list.selectedOptions[0]) === name) return submit();
    if (document.activeElement !== list) return click(list, 'the list');
    return reply(`type ${name}`, { kind: 'type', text: name, submit: true });
  });

  register('search-engine', () => {
    const [name, nth] = asked(/enter "(.*)" and press.* click the (\d)/);
    const typing = fill($('#search-text'), name, 'the search field');
    if (typing) return typing;
    if (!$('#page-content a')) return click($('#search'), 'the button Search');
    const result = $(`#page-content a[data-result="${nth - 1}"]`);
    if (result) return click(result, `result ${nth}`);
    const page = String(Math.ceil(nth / 3));
    return click(withText('#pagination a', page), `page ${page}`);
  });

  register('phone-book', () => {
    const [name, detail] = asked(/^Find (.*) in the contact book and click on their (\w+)/);
    if (text($('#contact .name')) !== name) return click(withText('#pagination a', '>'), 'next page');
    return click($(`#contact .${detail}`), `the ${detail}`);
  });

  const FEED_ACTIONS = {
    'Share via DM': 'share', 'Copy link to Tweet': 'copy', 'Embed Tweet': 'embed', Mute: 'menu-user', Block: 'block-user',
    Report: 'report', Reply: 'reply', Retweet: 'retweet', Like: 'like',
  };
  register('social-media', () => {
    const [user, action] = asked(/the user (.*), click on the "(.*)" button/);
    const post = $$('.media').find((candidate) => text($('.username', candidate)) === user);
    const button = $(`.${FEED_ACTIONS[action]}`, post);
    const hidden = button.closest('ul.hide');
    // An icon under the pointer has no size until its other picture has been loaded.
    return (hidden ? click($('.more', post), `more of ${user}`) : click(button, action.toLowerCase())) || wait();
  });
})();
