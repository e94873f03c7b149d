// The inbox: act on a mail's icon in the list, or open it and answer or forward it.
(() => {
  'use strict';
  const { register, $, $$, text, asked, click, fill } = window.__oracle_kit;
  const handle = () => {
    const [name, task] = asked(/email by (.*?) and (.*)$/);
    const [, reply] = task.match(/with the text "(.*)"/) || [];
    const [, recipient] = task.match(/forward that email to (.*)\.$/) || [];
    const compose = $('#reply') || $('#forward');
    if (compose) {
      const field = reply ? $('#reply-text') : $('.forward-sender');
      const typing = fill(field, reply || recipient, reply ? 'the reply field' : 'the field to');
      return typing || click($('#send-reply') || $('#send-forward'), 'send');
    }
    if ($('#email')) return reply ? click($('.email-reply'), 'reply') : click($('.email-forward'), 'forward');
    const mail = $$('#main .email-thread').find((thread) => text($('.email-sender', thread)) === name);
    if (reply || recipient) return click(mail, `the email by ${name}`, $('.email-sender', mail));
    const icon = task.includes('trash') ? 'trash' : 'star';
    return click($(`.${icon}`, mail), `the ${icon} of ${name}`);
  };
  register('email-inbox email-inbox-delete email-inbox-important email-inbox-reply email-inbox-forward', handle);
  register('email-inbox-noscroll email-inbox-star-reply', handle);
})();
